"""The classifier: the shipped one on textbook crystals, and its door with a small one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import al, everyday, mgb2, views

from onnes.errors import CrystalError, ModelError, SettingsError
from onnes.learn import classifier
from onnes.learn.classifier import SuperconductorClassifier
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.autoencoder import AutoencoderSettings, SuperconductorNet


@pytest.fixture(scope="module")
def shipped():
    return SuperconductorClassifier()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two untrained members with known calibration."""
    settings = AutoencoderSettings(width=8, layers=1, latent=4, bond_bins=8)
    tensors = {}
    for k in range(2):
        torch.manual_seed(k)
        tensors |= {f"{k}.{name}": v for name, v in SuperconductorNet(settings).state_dict().items()}
    values = {
        "network": settings.as_dict(),
        "members": 2,
        "calibration": {"superconductor": [2.0, 1.0], "strong": [0.5, -1.0]},
    }
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    Checkpoint("classifier", values, {}, tensors).save(path)
    return path


def cubic(group: str, symbols: list[str], size: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(symbols)]
    return Structure.from_spacegroup(group, Lattice.cubic(size), symbols, sites)


def test_superconductors_insulators_and_magnets(shipped):
    high = {
        "Nb": cubic("Im-3m", ["Nb"], 3.32),
        "V": cubic("Im-3m", ["V"], 2.99),
        "NbN": cubic("Fm-3m", ["Nb", "N"], 4.42),
        "TaC": cubic("Fm-3m", ["Ta", "C"], 4.47),
        "MgB2": mgb2(),
    }
    low = {
        "NaCl": cubic("Fm-3m", ["Na", "Cl"], 5.69),
        "MgO": cubic("Fm-3m", ["Mg", "O"], 4.25),
        "MnO": cubic("Fm-3m", ["Mn", "O"], 4.44),
        "GdN": cubic("Fm-3m", ["Gd", "N"], 4.99),
        "Gd": Structure(
            Lattice.hexagonal(3.63, 5.78), ["Gd"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
        ),
    }
    p = dict(zip([*high, *low], shipped.probability([*high.values(), *low.values()]), strict=True))
    assert all(p[name] > 0.7 for name in high), p
    assert all(p[name] < 0.1 for name in low), p


def test_strong_and_weak_metals(shipped):
    strong = [cubic("Im-3m", ["Nb"], 3.32), cubic("Fm-3m", ["Nb", "N"], 4.42)]
    weak = [cubic("Fm-3m", ["Cu"], 3.63), cubic("Fm-3m", ["Ag"], 4.16), cubic("Fm-3m", ["Au"], 4.17)]
    p = shipped.probability([*strong, *weak], "strong")
    assert p[:2].min() > 0.6 and p[2:].max() < 0.3, p


@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_probability(shipped, s):
    same = [s, *views(s).values()]
    for question in ("superconductor", "strong"):
        p = shipped.probability(same, question)
        assert np.abs(p - p[0]).max() < 1e-4
    latent = shipped.latent(same)
    assert latent.shape == (len(same), 5 * shipped.settings.latent)
    assert np.abs(latent - latent[0]).max() < 1e-3


def test_a_batch_is_its_crystals_one_by_one(small, monkeypatch):
    model = SuperconductorClassifier(small)
    structures = everyday() * 2
    together = model.probability(structures)
    assert together == pytest.approx([model.probability([s])[0] for s in structures], abs=1e-6)
    monkeypatch.setattr(classifier, "MAX_ROWS", 40)  # one or two crystals a batch
    assert model.probability(structures) == pytest.approx(together, abs=1e-6)
    assert len(np.unique(together.round(6))) == 5


def test_batches_are_bounded(small, monkeypatch):
    sizes = []
    collate = classifier.collate
    monkeypatch.setattr(classifier, "MAX_ROWS", 60)
    monkeypatch.setattr(
        classifier, "collate", lambda graphs: sizes.append(sum(len(g.src) for g in graphs)) or collate(graphs)
    )
    SuperconductorClassifier(small).probability([al(), mgb2()] * 30)
    assert len(sizes) > 1 and max(sizes) <= 60


def test_the_probability_is_the_calibrated_mean_logit(small):
    model = SuperconductorClassifier(small)
    batch = classifier.collate([classifier.graph_of(mgb2(), model.settings.graph)])
    with torch.no_grad():
        logit = torch.stack([net(batch)[0] for net in model.members]).mean(0).double().numpy()
    assert model.probability([mgb2()])[0] == pytest.approx(1 / (1 + np.exp(-2 * logit[0] - 1)), abs=1e-6)
    assert model.probability([mgb2()], "strong")[0] == pytest.approx(
        1 / (1 + np.exp(-0.5 * logit[1] + 1)), abs=1e-6
    )


def test_what_cannot_be_read_is_a_typed_error(small):
    model = SuperconductorClassifier(small)
    bad = {
        "partial-occupancy": Structure(Lattice.cubic(3), [{"Nb": 0.5, "Ti": 0.5}], [[0, 0, 0]]),
        "unknown-element": Structure(Lattice.cubic(3), ["Rf"], [[0, 0, 0]]),
        "no-bonds": Structure(Lattice.cubic(20), ["Nb"], [[0, 0, 0]]),
        "no-atoms": Structure(Lattice.cubic(3), [], []),
        "overlapping-atoms": Structure(Lattice.cubic(3), ["Nb", "Nb"], [[0, 0, 0], [0, 0, 1e-4]]),
    }
    for code, structure in bad.items():
        for call in (model.probability, model.latent):
            with pytest.raises((CrystalError, ModelError), match="structure 1: ") as error:
                call([al(), structure])
            assert error.value.code == code
    found = model.assess([al(), *bad.values(), mgb2()])
    assert {k: e.code for k, e in found.refused.items()} == dict(enumerate(bad, start=1))
    assert np.isfinite(found.superconductor).tolist() == [True] + [False] * 5 + [True]
    assert found.superconductor[[0, 6]] == pytest.approx(model.probability([al(), mgb2()]))
    assert found.strong[[0, 6]] == pytest.approx(model.probability([al(), mgb2()], "strong"))
    with pytest.raises(SettingsError, match="use one of superconductor, strong"):
        model.probability([al()], "room-temperature")
    assert model.probability([]).shape == (0,)


def test_wrong_checkpoints_are_refused(small, tmp_path):
    with pytest.raises(ModelError, match="'properties' model"):
        SuperconductorClassifier(pretrained("properties.safetensors"))
    whole = Checkpoint.load(small)
    fewer = {k: v for k, v in whole.tensors.items() if k != "1.out.weight"}
    Checkpoint("classifier", whole.settings, {}, fewer).save(tmp_path / "fewer.safetensors")
    with pytest.raises(ModelError, match="member 1 do not fit"):
        SuperconductorClassifier(tmp_path / "fewer.safetensors")


def test_the_card_states_labels_split_n_and_baselines(shipped):
    card = shipped.checkpoint.card
    assert pretrained("classifier.safetensors").stat().st_size < 2_000_000
    assert {"positive", "negative", "honesty"} <= set(card["labels"]["superconductor"])
    assert "formulas" in card["cross_validation"]["split"]
    for row in card["cross_validation"]["table"].values():
        assert row["pretrained"]["n"] > 100 and row["constant"]["auroc"] == 0.5
        for name in ("pretrained-long", "pretrained", "scratch", "trees on composition"):
            value, low, high = row[name]["auroc"]
            assert low <= value <= high
    assert card["test"]["passing"]["invdesflow_105"]["superconductor"]["n"] == 104
