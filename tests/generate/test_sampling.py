"""Sampling from the shipped model: determinism, resume, obedience, quality."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onnes.crystal.check import check
from onnes.crystal.read import Crystal, read
from onnes.errors import CrystalError, InputError, SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.sampling import Sampler
from onnes.generate.write import write_crystals

FAST = SamplerSettings(model="joint", steps=60)


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


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
    a = [s for _, s in Sampler(FAST).sample(0, 4, 6)]
    b = [s for _, s in Sampler(FAST).sample(0, 4, 5)]
    assert a != b


def test_only_the_elements_asked_for():
    sampler = Sampler(SamplerSettings(model="joint", steps=30, elements=("Li", "B", "C")))
    for _, structure in sampler.sample(0, 48, 0):
        assert {e.symbol for e in structure.elements} <= {"Li", "B", "C"}


def test_a_formula_is_kept_and_a_space_group_is_refused():
    sampler = Sampler(SamplerSettings(model="joint", steps=10, formula="MgB2"))
    for _, structure in sampler.sample(0, 48, 0):
        assert structure.composition.reduced_formula == "MgB2"
    with pytest.raises(SettingsError, match="no-space-group"):
        SamplerSettings(model="joint", space_group=225)


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
    settings = SamplerSettings(model="joint", steps=20, exclude=("Nb", "Ti"), target_tc=15.0, guidance=0.5)
    one, two = ([s for _, s in Sampler(settings).sample(0, 24, 7)] for _ in range(2))
    assert one == two
    assert not any(e.symbol in ("Nb", "Ti") for s in one for e in s.elements)


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
    command = [
        sys.executable,
        "-m",
        "onnes.cli.main",
        "generate",
        "--n",
        "3",
        "--model",
        "joint",
        "--steps",
        "20",
    ]
    command.append("--out")
    done = subprocess.run([*command, str(tmp_path / "o")], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "o").glob("g*.cif"))) == 3
    bad = subprocess.run(
        [*command, str(tmp_path / "p"), "--elements", "B,Xx"], capture_output=True, text=True, timeout=200
    )
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
