"""Sampling from the shipped model: determinism, resume, obedience, quality."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from in_process import onnes
from onnes.crystal.check import check
from onnes.crystal.read import Crystal, read
from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError, InputError, SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.process import score_rms, sigma, wrapped_score
from onnes.generate.sampling import NOISE, SETTLE, Sampler
from onnes.generate.validity import structurally_valid
from onnes.generate.write import write_crystals
from onnes.nets.denoiser import MAX_Z, Denoised

FAST = SamplerSettings(model="joint", steps=20)
ROUGH = SamplerSettings(model="joint", steps=3)


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


class Oracle:
    """Knows one crystal: exact scores, its lattice and its types, whatever is asked."""

    def __init__(self, types, frac, lattice):
        self.types, self.frac, self.lattice = types, frac, lattice

    def __call__(self, types, frac, lattice, cell, time, log_tc, stable):
        s = sigma(time)[:, None, None].expand(frac.shape)
        logits = torch.full((*types.shape, MAX_Z + 1), -50.0)
        logits[:, torch.arange(len(self.types)), self.types] = 0.0
        score = wrapped_score(frac - self.frac, s) / score_rms(time)[:, None, None]
        return Denoised(logits, self.lattice.expand(len(types), -1), score)


def test_settling_takes_the_noise_of_the_last_level_away():
    g = torch.Generator().manual_seed(3)
    known = Oracle(torch.tensor([12, 5, 5]), torch.rand((3, 3), generator=g), torch.randn(6, generator=g))
    miss = {}
    for settle in (0, SETTLE):
        sampler = Sampler(SamplerSettings(model="joint", steps=30), settle=settle)
        sampler.net = known
        drawn = sampler.draw(16, 3, torch.Generator().manual_seed(0))
        assert all(s.atomic_numbers == (12, 5, 5) for s in drawn)
        away = torch.tensor(np.array([s.frac_coords for s in drawn])) - known.frac
        miss[settle] = float((away - away.round()).square().mean().sqrt())
    assert miss[SETTLE] < 1e-4 and 1e-3 < miss[0] < 0.01


@pytest.mark.slow
def test_settling_and_less_noise_make_crystals_more_symmetric():
    settings = SamplerSettings(model="joint", steps=20)
    share = []
    for sampler in (Sampler(settings, settle=0, noise=1.0), Sampler(settings)):
        sound = [s for _, s in sampler.sample(0, 48, 100) if structurally_valid(s)]
        share.append(sum(space_group(s, 0.1)[0] == 1 for s in sound) / len(sound))
        assert len(sound) >= 40
    assert share[1] < share[0] - 0.1


def test_the_manifest_names_settling_and_noise(tmp_path):
    next(write_crystals(tmp_path, 1, 0, SamplerSettings(model="joint", steps=2, atoms=1)))
    facts = json.loads((tmp_path / "manifest.txt").read_text())
    assert (facts["settle"], facts["noise"]) == (SETTLE, NOISE)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    assert list(write_crystals(folder, 48, 5, FAST))[-1] == 48
    return folder


@pytest.mark.slow
def test_most_crystals_pass_the_gate(first):
    items = list(read([first]))
    good = [i for i in items if isinstance(i, Crystal)]
    assert len(items) == 48 and len(good) >= 0.6 * 48
    assert sum(len(c.structure.composition) >= 5 for c in good) <= 8


@pytest.mark.slow
def test_interrupted_run_resumes_to_the_same_files(first, tmp_path):
    writing = write_crystals(tmp_path / "r", 48, 5, FAST)
    for _ in range(20):
        next(writing)
    writing.close()
    assert len(list((tmp_path / "r").glob("g*.cif"))) == 20
    kept = (tmp_path / "r" / "g000003.cif").stat().st_mtime_ns
    list(write_crystals(tmp_path / "r", 48, 5, FAST))
    assert contents(tmp_path / "r") == contents(first)
    assert (tmp_path / "r" / "g000003.cif").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_another_seed_gives_other_crystals_and_is_not_mixed_in(first):
    with pytest.raises(InputError, match="other-run"):
        list(write_crystals(first, 2, 6, FAST))
    a, b = ([s for _, s in Sampler(ROUGH).sample(0, 4, seed)] for seed in (6, 5))
    assert a != b


def test_only_the_elements_asked_for():
    sampler = Sampler(SamplerSettings(model="joint", steps=2, elements=("Li", "B", "C")), settle=0)
    made = [structure for _, structure in sampler.sample(0, 200, 0)]
    assert len(made) == 200
    for structure in made:
        assert {e.symbol for e in structure.elements} <= {"Li", "B", "C"}


def test_a_formula_is_kept_and_a_space_group_is_refused():
    sampler = Sampler(SamplerSettings(model="joint", steps=2, formula="MgB2"), settle=0)
    made = [structure for _, structure in sampler.sample(0, 200, 0)]
    assert len(made) == 200 and len({len(s) for s in made}) > 1
    assert {structure.composition.reduced_formula for structure in made} == {"MgB2"}
    with pytest.raises(SettingsError, match="no-space-group"):
        SamplerSettings(model="joint", space_group=225)


def test_a_number_of_atoms_is_kept_and_the_part_asked_for_changes_nothing():
    sampler = Sampler(SamplerSettings(model="joint", steps=2, atoms=3, exclude=("O", "H")), settle=0)
    made = dict(sampler.sample(0, 200, 0))
    assert {len(s) for s in made.values()} == {3} and len(made) == 200
    assert not any(e.symbol in ("O", "H") for s in made.values() for e in s.elements)
    # 200 crystals, five of them, or two blocks: the same crystals.
    part = dict(sampler.sample(46, 51, 0))
    assert list(part) == [46, 47, 48, 49, 50] and all(part[i] == made[i] for i in part)


@pytest.mark.parametrize("name", ["Cm", "Xx"])
def test_untrained_element_is_an_error(name):
    with pytest.raises(SettingsError, match="untrained-element"):
        Sampler(SamplerSettings(model="joint", elements=("B", name)))


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 1},
        {"target_tc": -1.0},
        {"target_tc": float("inf")},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"guidance": float("nan")},
        {"exclude": ("Xx",)},
        {"elements": ("B",), "exclude": ("B",)},
    ],
)
def test_bad_settings_are_errors(bad):
    with pytest.raises(SettingsError, match=r"bad-setting|unknown-element"):
        Sampler(SamplerSettings(model="joint", **bad))


@pytest.mark.slow
def test_excluded_elements_do_not_occur_and_guidance_keeps_the_seed():
    settings = SamplerSettings(model="joint", steps=8, exclude=("Nb", "Ti"), target_tc=15.0, guidance=0.5)
    one, two = ([s for _, s in Sampler(settings).sample(0, 24, 7)] for _ in range(2))
    assert one == two
    assert not any(e.symbol in ("Nb", "Ti") for s in one for e in s.elements)


def test_a_push_without_a_target_is_refused(tmp_path):
    refused = onnes("generate", "--n", 1, "--guidance", 1, "--out", tmp_path / "a")
    assert refused.returncode == 2 and "--target-tc" in refused.stderr and "[bad-setting]" in refused.stderr
    assert not (tmp_path / "a").exists()


def test_messages_say_what_was_given_and_what_is_allowed():
    with pytest.raises(SettingsError, match=r"temperature 0,.*temperature > 0"):
        SamplerSettings(temperature=0.0)
    with pytest.raises(SettingsError, match="21 atoms cannot be made: 1 to 20 "):
        Sampler(SamplerSettings(model="joint", atoms=21))
    with pytest.raises(SettingsError, match="multiples of 3 for MgB2"):
        Sampler(SamplerSettings(model="joint", atoms=4, formula="MgB2"))


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for out, code in ((tmp_path / "file", "not-a-folder"), (tmp_path / "file" / "below", "cannot-write")):
        with pytest.raises(InputError, match=code):
            next(write_crystals(out, 1, 0, FAST))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.txt").write_text("{")
    with pytest.raises(InputError, match="damaged-manifest"):
        next(write_crystals(damaged, 1, 0, FAST))


@pytest.mark.slow
def test_command_line(tmp_path):
    asked = ["generate", "--n", "3", "--model", "joint", "--steps", "4", "--out"]
    command = [sys.executable, "-m", "onnes.cli.main", *asked, str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "o").glob("g*.cif"))) == 3
    bad = onnes(*asked, tmp_path / "p", "--elements", "B,Xx")
    assert bad.returncode == 2 and "untrained-element" in bad.stderr and "Traceback" not in bad.stderr


@pytest.mark.slow
def test_check_is_the_gate_used(first):
    refused = 0
    for _, structure in Sampler(FAST).sample(0, 48, 5):
        try:
            check(structure)
        except CrystalError:
            refused += 1
    assert refused == sum(not isinstance(i, Crystal) for i in read([first]))
