"""The shipped fast predictor: symmetry, batches, refusals, card and calibration."""

import gzip
import json
import sys
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import DummySpecies, Lattice, Structure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import everyday, lowsym, mgb2, views

from onnes.errors import CrystalError, ModelError, SettingsError
from onnes.graph.batch import collate
from onnes.learn import fast
from onnes.learn.fast import FastEpc
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.alignn import preset
from onnes.nets.epc_net import EpcNet, EpcNetSettings
from onnes.nets.tabulated import TabulatedEpcNet
from onnes.theory.tc import tc_array


@cache
def model():
    torch.set_num_threads(1)
    return FastEpc()


@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_prediction(s):
    want = model().outputs([s])[:, 0]
    for name, view in views(s).items():
        assert model().outputs([view])[:, 0] == pytest.approx(want, abs=2e-4), name


def test_a_crystal_does_not_feel_its_batch(monkeypatch):
    crystals = [*everyday(), lowsym(4)]
    together = model().outputs(crystals)
    assert np.abs(together - np.concatenate([model().outputs([s]) for s in crystals], axis=1)).max() < 1e-4
    assert np.abs(together - model().outputs(crystals[::-1])[:, ::-1]).max() < 1e-4
    monkeypatch.setattr(fast, "MAX_ROWS", 1)
    assert np.abs(together - model().outputs(iter(crystals))).max() < 1e-4


def test_crystals_and_members_differ():
    out = model().outputs(everyday())
    assert out.shape == (5, len(everyday()), 3)
    assert np.diff(np.sort(out[..., 0], axis=1), axis=1).min() > 1e-4
    assert out.std(0).min() > 1e-4
    assert model().outputs([]).shape == (5, 0, 3)


def test_predictions_follow_the_stated_formula():
    crystals = everyday()
    found = model().predict(crystals, mu_star=0.13, formula="mcmillan-allen-dynes")
    mean = model().outputs(crystals).mean(0)
    assert found.lam == pytest.approx(np.exp(mean[:, 0]))
    assert found.omega_2_K == pytest.approx(1.18 * found.omega_log_K)
    want = tc_array(
        found.lam, found.omega_log_K, found.omega_2_K, mu_star=0.13, formula="mcmillan-allen-dynes"
    )
    assert found.tc_K == pytest.approx(want)
    assert (found.tc_low_K <= found.tc_K).all() and (found.tc_K <= found.tc_high_K).all()
    assert (found.lam_std > 0).all() and (found.omega_log_K_std > 0).all()
    assert (
        model().predict(crystals, mu_star=0.10).tc_K >= model().predict(crystals, mu_star=0.16).tc_K
    ).all()


def test_textbook_crystals_are_in_order():
    """Wide of any error: MgB2's light boron against caesium, and lead's low frequencies."""
    pb = Structure(4.95 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), ["Pb"], [[0, 0, 0]])
    cs = everyday()[1]
    omega = model().predict([mgb2(), pb, cs]).omega_log_K
    assert omega[0] > 350 and 30 < omega[1] < 120 and omega[2] < 80


def test_fewer_members_are_the_first_ones():
    two = FastEpc(members=2)
    assert two.outputs([mgb2()]) == pytest.approx(model().outputs([mgb2()])[:2], abs=1e-6)
    with pytest.raises(ModelError) as error:
        FastEpc(members=9)
    assert error.value.code == "bad-members"


def test_refused_crystals_name_their_reason():
    heavy = Structure(Lattice.cubic(4.0), ["Rf"], [[0, 0, 0]])
    with pytest.raises(ModelError) as error:
        model().predict([mgb2(), heavy])
    assert error.value.code == "unknown-element" and "104" in error.value.message
    cell = Lattice.cubic(4.0)
    for code, crystal in {
        "no-bonds": Structure(Lattice.cubic(20.0), ["Al"], [[0, 0, 0]]),
        "partial-occupancy": Structure(cell, [{"Nb": 0.5, "Ti": 0.5}], [[0, 0, 0]]),
        "unknown-element": Structure(cell, [DummySpecies("X")], [[0, 0, 0]]),
        "no-atoms": Structure(cell, [], []),
    }.items():
        with pytest.raises(CrystalError) as refusal:
            model().prepare(crystal)
        assert refusal.value.code == code


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(ModelError) as error:
        FastEpc(pretrained("epc.safetensors"))
    assert error.value.code == "wrong-model"
    good = model().checkpoint
    some = {k: v for k, v in good.tensors.items() if not k.endswith("score.bias")}
    Checkpoint(good.kind, good.settings, good.card, some).save(tmp_path / "cut.safetensors")
    with pytest.raises(ModelError) as error:
        FastEpc(tmp_path / "cut.safetensors")
    assert error.value.code == "damaged-model"


def test_the_domain_is_that_of_the_training_set():
    assert model().outside([12, 5, 5], 9.7) == ""
    assert "Po" in model().outside([84], 30.0) or "Rn" in model().outside([86], 30.0)
    assert "volume" in model().outside([12, 5, 5], 500.0)


def test_the_card_states_split_baselines_and_intervals():
    card = json.loads(pretrained("fast.card.json").read_text())
    assert card == model().checkpoint.card
    assert pretrained("fast.safetensors").stat().st_size < 4_000_000
    cv = card["cross_validation"]
    assert "formulas" in cv["split"] and cv["data_hash"] and card["n"] == 8063
    ours, plain = cv["table"]["fast network (shipped)"], cv["table"]["constant median"]
    assert ours["n"] + ours["missing"] == plain["n"] == 7467
    for name in ("lambda", "omega_log_K", "tc_K"):
        low, high = ours[name]["ci95"]
        assert low < ours[name]["mae"] < high < plain[name]["ci95"][0]
    whole = card["interval"]["tc_K"]["coverage_cross_fold"][0]
    assert whole["n"] == ours["n"] and abs(whole["share"] - card["interval"]["tc_K"]["nominal"]) < 0.01
    assert whole["covered"] / whole["n"] == pytest.approx(whole["share"], abs=1e-4)


def test_intervals_hold_the_labels(shared):
    """Every 25th Alexandria crystal. The members have seen four fifths of them each: at least the promise."""
    with gzip.open(shared / "data" / "alexandria_eph.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in islice(handle, 0, None, 25)]
    found = model().predict(Structure(r["lattice"], r["species"], r["frac"]) for r in rows)
    truth = np.array([r["Tc_K"] for r in rows])
    inside = (found.tc_low_K <= truth) & (truth <= found.tc_high_K)
    assert inside.mean() > 0.88
    error = np.abs(found.lam - [r["lambda"] for r in rows])
    assert error.mean() < 0.10 and (error <= found.lam_std).mean() > 0.65


def test_tables_leave_the_output_as_it_was():
    crystals = [model().prepare(s) for s in [*everyday(), lowsym(4), lowsym(5)]]
    batch = collate([c.graph for c in crystals])
    volume = torch.tensor([c.volume_A3 for c in crystals]).float().log()
    source = torch.arange(len(crystals)) % 2
    for table in model().nets:
        with torch.no_grad():
            plain, extra = table.net(batch, volume, source)
        assert extra is None
        assert (table(batch, volume, source) - plain).abs().max() < 2e-5
        assert (table(batch, volume, 1 - source) - plain).abs().max() > 1e-3  # the source is read


def test_tables_refuse_what_they_cannot_hold():
    for change in ({"alignn_layers": 2}, {"alignn_layers": 1, "norm": "batch"}):
        body = replace(preset("onnes"), **change)
        with pytest.raises(SettingsError):
            TabulatedEpcNet(EpcNet(EpcNetSettings(body=body)).eval())


def test_network_settings_travel_and_are_checked():
    settings = EpcNetSettings(auxiliary=3, heads=2)
    assert EpcNetSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    for bad in ({"heads": 0}, {"dropout": 1.0}, {"targets": 0}, {"nonsense": 1}):
        with pytest.raises(SettingsError):
            EpcNetSettings.from_dict(bad)
    assert EpcNet(settings).extra.out_features == 3
