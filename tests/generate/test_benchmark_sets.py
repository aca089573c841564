"""Perov-5 and Carbon-24: split, cubic cells, absent labels, and the script that measures, on small sets made here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from onnes.errors import SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.diffusion import JointDiffusion
from onnes.generate.groups import load_frames, load_groups, read_packed
from onnes.generate.metrics import LOOSE, prediction
from onnes.generate.orbits import FamilyScale
from onnes.generate.process import NARROWEST, LatticeScale
from onnes.generate.sampling import Sampler
from onnes.nets.denoiser import MASK, DenoiserSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "training" / "generate"
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
METALS = ["Ca", "Sr", "Ba", "La", "Na", "K", "Cs", "Y"]


def script(name):
    """A training script as a module under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"onnes_training_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


packing, training, shipping, benchmarks = (script(n) for n in ("crystals", "train", "pack", "benchmarks"))


def row(number, structure, split):
    return {
        "id": str(number),
        "split": split,
        "formula": structure.composition.reduced_formula,
        "lattice": structure.lattice.matrix.tolist(),
        "species": [str(s) for s in structure.species],
        "frac": structure.frac_coords.tolist(),
    }


def perovskites():
    """Cubic cells of ABO3 with A from METALS and B from two, eight of them for the tests."""
    out = []
    for i, a in enumerate(METALS):
        for b in ("Ti", "Zr", "Nb"):
            cell = Lattice.cubic(3.8 + 0.03 * i + (0.1 if b == "Zr" else 0.0))
            out.append(Structure(cell, [a, b, "O", "O", "O"], PEROVSKITE))
    return out


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "perov_5.npz"
    rows = [
        row(i, s, "test" if i % 3 == 2 else "val" if i % 12 == 0 else "train")
        for i, s in enumerate(perovskites())
    ]
    jobs = [("perov_5", 0, packing.SPLITS.index(r["split"]), r, 24) for r in rows]
    packing.store([packing.pack_row(j) for j in jobs], path)
    return path, rows


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory):
    """A small joint model by the training script, and the packed file of its weights."""
    folder = tmp_path_factory.mktemp("model")
    calls = {
        training: f"--model joint --data {packed[0]} --out {folder} --steps 20 --hidden 16 --layers 1 --every 10 "
        "--check-draws 2",
        shipping: f"joint {folder}/weights.pt {folder}/joint.safetensors",
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, line in calls.items():
            patch.setattr(sys, "argv", ["script.py", *line.split()])
            module.main()
    return folder


def test_the_public_split_is_kept_and_training_rows_are_no_test_rows(packed):
    path, rows = packed
    for split in packing.SPLITS:
        found = read_packed(path, split)["id"].tolist()
        assert found == [r["id"] for r in rows if r["split"] == split]
    pairs = {tuple(t) for g in load_groups(path, "train").values() for t in np.sort(g["types"]).tolist()}
    tested = {tuple(sorted(s.atomic_numbers)) for s in perovskites()[2::3]}
    assert tested and not pairs & tested


def test_components_of_the_lattice_that_never_vary_do_not_spoil_the_losses(packed):
    groups = load_groups(packed[0])
    raw = torch.cat([g["lattice"] for g in groups.values()]).numpy()
    assert raw[:, 3:].std() < 1e-6
    scale = LatticeScale.fit(raw)
    assert np.allclose(scale.std[3:], NARROWEST) and min(scale.std[:3]) > NARROWEST
    torch.manual_seed(0)
    module = JointDiffusion(DenoiserSettings(hidden=16, layers=1, max_atoms=5), scale)
    assert all(torch.isfinite(v) for v in module(groups[5]).values())
    frames = load_frames(packed[0])
    family = FamilyScale.fit(torch.cat([g["lattice"] for g in frames.values()]))
    assert torch.isfinite(family.encode(frames[5]["lattice"], frames[5])).all()


def test_labels_that_no_row_has_are_not_asked_for(trained):
    path = trained / "joint.safetensors"
    sampler = Sampler(SamplerSettings(model="joint", steps=3), path)
    assert sampler.stable == 0 and sampler.checkpoint.settings["conditions"] == []
    assert "perov_5" in sampler.checkpoint.card["data"]
    with pytest.raises(SettingsError, match="no-condition"):
        Sampler(SamplerSettings(model="joint", target_tc=10.0), path)
    # The shipped model knows both.
    assert Sampler(SamplerSettings(model="joint", target_tc=10.0)).stable == 1


def test_losses_of_the_training_on_cubic_cells_are_numbers(trained):
    every = [json.loads(x) for x in (trained / "log.jsonl").read_text().splitlines()]
    drawn = [line for line in every if "quality" in line]
    assert len(drawn) == 1 and drawn[0]["step"] == 20 and 0.0 <= drawn[0]["quality"] <= 1.0
    lines = [line for line in every if "quality" not in line]
    assert all(np.isfinite(v) for line in lines for v in line.values())
    # A batch that is left out because its loss is not finite counts as zero.
    assert min(lines[-1][k] for k in ("lattice", "score", "val_lattice", "val_score")) > 0.01


def test_types_given_are_kept_and_the_same_seed_gives_the_same_crystals(trained):
    sampler = Sampler(SamplerSettings(model="joint", steps=3), trained / "joint.safetensors")
    types = torch.tensor([[8, 8, 8, 22, 38], [8, 8, 8, 40, 56]])
    first, again = (sampler.arrange(types, torch.Generator().manual_seed(4)) for _ in range(2))
    assert [list(s.atomic_numbers) for s in first] == types.tolist()
    assert list(first) == list(again)
    free = sampler.arrange(torch.full((3, 5), MASK), torch.Generator().manual_seed(4))
    assert all(min(s.atomic_numbers) > 0 for s in free)


def test_a_description_read_from_the_file_is_the_crystal(packed):
    arrays = read_packed(packed[0], "train")
    whole = benchmarks.structures_of(arrays, range(len(arrays["n"])))
    for i in (0, 3, 7):
        crystal = benchmarks.described_of(arrays, i)
        assert crystal.number == 221
        found = prediction([[crystal.structure()]], [whole[i]])
        assert found["match_rate_first"].value == 1.0 and found["rmsd_first"].value < 1e-4


def test_random_guesses_have_the_atoms_of_their_targets():
    pair = Structure(Lattice.cubic(3.5), ["C", "C"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    known = [*perovskites()[:6], pair]
    carbon = Structure(Lattice.cubic(3.0), ["C", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    targets = [perovskites()[20], carbon, Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]])]
    found = benchmarks.random_guesses(known, targets, np.random.default_rng(0), 2)
    assert [len(g) for g in found] == [2, 2, 0]
    for guesses, true in zip(found, targets, strict=True):
        assert all(g.composition == true.composition for g in guesses)
    # A and B change places at random, oxygen stays.
    sites = {benchmarks.exchanged(known[0], targets[0], np.random.default_rng(s))[0].specie for s in range(8)}
    assert {str(s) for s in sites} == {"Cs", "Nb"}
    assert prediction(found[1:2], [carbon], LOOSE)["match_rate_first"].value == 0.0


def test_a_training_crystal_is_not_new_and_another_is():
    judge = benchmarks.unseen(perovskites()[:4])
    same = perovskites()[0].copy()
    same.translate_sites(range(5), [0.2, 0.3, 0.1])
    same.apply_strain(0.01)
    assert not judge(same) and judge(perovskites()[7])
    moved = Structure(same.lattice, same.species, [[0, 0, 0], [0.2, 0.1, 0.3], *PEROVSKITE[2:]])
    assert judge(moved)


def test_another_crystal_is_another_one_of_the_same_size():
    found = benchmarks.other_of([2, 4, 2, 4, 4, 6], np.random.default_rng(0))
    assert all(i != j for i, j in enumerate(found))
    assert set(found[[0, 2]]) <= {0, 2} and set(found[[1, 3, 4]]) <= {1, 3, 4}


def test_the_script_measures_a_trained_model(packed, trained, tmp_path, monkeypatch):
    out = tmp_path / "found.json"
    line = f"generate predict chance --data {packed[0]} --model {trained}/joint.safetensors --n 4 --steps 3 --out {out}"
    monkeypatch.setattr(sys, "argv", ["benchmarks.py", *line.split()])
    benchmarks.main()
    found = json.loads(out.read_text())
    assert found["n_train"] == 14 and found["n_test"] == 8
    drawn = found["generate"]["result"]
    assert drawn["figures"]["structural_validity"]["n"] == 4
    assert drawn["training_crystals"]["structural_validity"]["value"] == 1.0
    guessed = found["predict"]["result"]
    # All crystals are the same perovskite: a substitution finds it wherever it puts A and B right.
    assert guessed["substitution"]["loose"]["match_rate_first"]["value"] == 1.0
    assert guessed["model"]["loose"]["match_rate_first"]["n"] == 4
    assert found["chance"]["result"]["random_training_crystal"] == guessed["random_training_crystal"]


def test_a_model_of_another_set_is_refused(packed, trained, tmp_path, monkeypatch):
    jobs = [("perov_5", 0, 0, row(i, s, "train"), 24) for i, s in enumerate(perovskites()[:5])]
    packing.store([packing.pack_row(j) for j in jobs], tmp_path / "other.npz")
    line = f"generate --data {tmp_path}/other.npz --model {trained}/joint.safetensors --out {tmp_path}/found.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks.py", *line.split()])
    with pytest.raises(SystemExit, match="was trained on"):
        benchmarks.main()
