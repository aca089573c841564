"""The symmetric generator: obedience, determinism, symmetry kept, refusals."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from pymatgen.core import Composition

from onnes.crystal.read import Crystal, read
from onnes.crystal.wyckoff import describe
from onnes.data.records import read_records
from onnes.errors import CrystalError, InputError, SettingsError
from onnes.generate.asked import SamplerSettings, amounts
from onnes.generate.filling import can_fill, can_hold, letters_of
from onnes.generate.models import open_sampler
from onnes.generate.orbits import Frame
from onnes.generate.site_sampling import SiteSampler, Wish, _State
from onnes.generate.symmetric import SymmetricSampler
from onnes.generate.write import write_crystals


def drawn(n: int = 200, seed: int = 3, steps: int = 2, **asked):
    """Crystals after two steps: obedience does not wait for quality."""
    sampler = SymmetricSampler(SamplerSettings(steps=steps, **asked))
    return [s for _, s in sampler.sample(0, n, seed)]


def test_elements_asked_for_are_the_only_ones():
    for s in drawn(elements=("Li", "B", "C")):
        assert {e.symbol for e in s.elements} <= {"Li", "B", "C"}


def test_excluded_elements_do_not_occur():
    found = {e.symbol for s in drawn(exclude=("O", "H", "F")) for e in s.elements}
    assert not found & {"O", "H", "F"} and len(found) > 20


def test_a_formula_is_kept_in_cells_of_several_sizes():
    crystals = drawn(formula="Nb3Sn")
    assert {s.composition.reduced_formula for s in crystals} == {"Nb3Sn"}
    assert len({len(s) for s in crystals}) > 1


def test_a_number_of_atoms_is_kept():
    assert {len(s) for s in drawn(atoms=6)} == {6}


@pytest.mark.parametrize("group", [2, 62, 139, 194, 225])
def test_a_space_group_is_kept_exactly(group):
    sampler = SymmetricSampler(SamplerSettings(steps=8, space_group=group))
    found = []
    for _, s in sampler.sample(0, 48, 1):
        try:
            found.append(describe(s, 1e-3).number)
        except CrystalError:
            continue  # atoms on top of each other after so few steps
    # Chance or fully fixed orbits can add symmetry (a subgroup's crystal in a special cell), never take any away.
    assert len(found) >= 40
    assert np.mean([number == group for number in found]) > 0.6
    orders = {n: sum(m for _, m, _ in letters_of(n)[-1:]) for n in {*found, group}}
    assert all(orders[n] >= orders[group] for n in found)


def test_conditions_go_together():
    for s in drawn(48, formula="MgB2", space_group=191, atoms=3):
        assert s.composition.reduced_formula == "MgB2" and len(s) == 3
        assert describe(s, 1e-3).number == 191


@pytest.mark.parametrize(
    ("formula", "expected"),
    [("HDO", {1: 2, 8: 1}), ("D2O", {1: 2, 8: 1}), ("HTO2", {1: 1, 8: 1}), ("LaH5D5", {57: 1, 1: 10})],
)
def test_deuterium_and_tritium_count_as_hydrogen(formula, expected):
    assert amounts(formula, range(1, 119), 20) == expected
    sampler = SymmetricSampler(SamplerSettings(formula=formula, elements=("D", "O", "La")))
    assert sampler.wish.formula == expected


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"formula": "Nb23Sn"}, "too-many-atoms"),
        ({"formula": "NbXx"}, "untrained-element"),
        ({"formula": "Nb0.3(C"}, "bad-formula"),
        ({"formula": "MgB2", "atoms": 4}, "cannot-fill"),
        ({"formula": "MgB2", "space_group": 230}, "cannot-fill"),
        ({"atoms": 1, "space_group": 194}, "cannot-fill"),
        ({"atoms": 21}, "cannot-fill"),
        ({"elements": ("Nb", "Cm")}, "untrained-element"),
        ({"formula": "CmB2"}, "untrained-element"),
        ({"space_group": 231}, "bad-setting"),
        ({"formula": "MgB2", "elements": ("Mg",)}, "bad-setting"),
        ({"formula": "UB2", "exclude": ("U",)}, "bad-setting"),
        ({"model": "gan"}, "unknown-model"),
    ],
)
def test_what_cannot_be_reached_is_refused(asked, code):
    with pytest.raises(SettingsError, match=code):
        open_sampler(SamplerSettings(**asked))


def test_same_seed_same_files_in_any_order_and_after_an_interruption(tmp_path):
    settings = SamplerSettings(steps=10)
    list(write_crystals(tmp_path / "a", 60, 4, settings))
    writing = write_crystals(tmp_path / "b", 60, 4, settings)
    list(itertools.islice(writing, 50))
    writing.close()
    list(write_crystals(tmp_path / "b", 60, 4, settings))
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / x).iterdir()} for x in "ab")
    assert a == b and len(a) == 61


def test_records_grow_with_the_files_and_go_on_after_an_interruption(tmp_path):
    settings = SamplerSettings(steps=2, formula="NbC", space_group=225)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    list(write_crystals(tmp_path / "a", 50, 4, settings, records=whole))
    list(itertools.islice(write_crystals(tmp_path / "b", 50, 4, settings, records=cut), 20))
    assert len(read_records(cut)) == 20
    with cut.open("a") as stream:
        stream.write('{"id": "g0000')  # a write that was cut
    # A file that is gone comes back; its record stays.
    (tmp_path / "b" / "g000003.cif").unlink()
    list(write_crystals(tmp_path / "b", 50, 4, settings, records=cut))
    assert cut.read_bytes() == whole.read_bytes()
    rows = read_records(whole)
    assert [r.id for r in rows] == [f"g{i:06d}" for i in range(50)] and not rows.bad
    assert {r.formula for r in rows} == {"CNb"} and rows[0].meta["generated"]["space_group"] == 225
    files = {c.id: c.structure for c in read([tmp_path / "b"])}
    assert len(files) == 50
    for r in rows:
        assert files[r.id].volume == pytest.approx(r.volume, rel=1e-6)


@pytest.mark.parametrize(
    "content", ['{"id": "mine"}\n', "no json\n", "", '{"my": "data"}', "hello", '{"id": "g000001", ']
)
def test_records_of_something_else_are_not_written_to(tmp_path, content):
    settings = SamplerSettings(steps=2, formula="NbC", space_group=225)
    mine = tmp_path / "mine.jsonl"
    mine.write_text(content)
    if not content:
        next(write_crystals(tmp_path / "a", 1, 4, settings, records=mine))
        content = mine.read_text()
    with pytest.raises(InputError, match="other-run"):
        next(write_crystals(tmp_path / "b", 1, 5, settings, records=mine))
    assert mine.read_text() == content
    with pytest.raises(SettingsError, match="bad-setting"):
        next(write_crystals(tmp_path / "b", 1, 5, settings, records=tmp_path / "b" / "in.jsonl"))


def test_crystals_are_sound_and_keep_their_symmetry_in_files(tmp_path):
    list(write_crystals(tmp_path / "a", 48, 5, SamplerSettings()))
    items = list(read([tmp_path / "a"]))
    good = [i for i in items if isinstance(i, Crystal)]
    assert len(good) >= 45
    assert sum(describe(c.structure, 1e-3).number == 1 for c in good) <= 1


def test_a_target_tc_shifts_the_elements():
    """Guided towards 20 K there is more boron, carbon, nitrogen, hydrogen and niobium than towards 0.1 K."""
    wanted = {"B", "C", "N", "H", "Nb", "V", "Mo"}

    def share(tc: float) -> float:
        sampler = SymmetricSampler(SamplerSettings(target_tc=tc, guidance=1.0))
        drawn = sampler.symbols([sampler.wish] * 96, 0)
        return float(np.mean([bool({chemical_symbols[z] for z in d.frame.kinds} & wanted) for d in drawn]))

    assert share(20.0) > share(0.1) + 0.2


def test_look_ahead_agrees_with_trying_everything():
    rng = np.random.default_rng(0)
    for group in rng.integers(1, 231, 25).tolist():
        letters = letters_of(group)
        # All multisets of orbits with at most eight atoms of two elements.
        totals = {(0, 0)}
        for _, m, free in letters:
            new = set(totals)
            for a, b in totals:
                most = 8 // m if free else 1
                for i in range(most + 1):
                    for j in range(most + 1 - (i if not free else 0)):
                        if a + i * m <= 8 and b + j * m <= 8:
                            new.add((a + i * m, b + j * m))
            totals = new
        for a, b in itertools.product(range(1, 9), repeat=2):
            assert can_fill(group, 0, (a, b)) == ((a, b) in totals), (group, a, b)
        for n in range(1, 9):
            assert can_hold(group, 0, n) == any(a + b == n for a, b in totals), (group, n)


def test_likelihoods_are_those_of_the_masked_model():
    """Log-likelihoods of forced draws add up: a formula and group with one possible frame has probability one."""
    sampler = SymmetricSampler(SamplerSettings(formula="Nb", space_group=229, atoms=1))
    found = sampler.symbols([sampler.wish] * 4, 0)
    assert all(d.frame.letters == (0,) and abs(d.log_p) < 1e-9 for d in found)
    assert Wish(formula={41: 1}).counts(2) == {41: 2}


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "onnes.cli.main", "generate", "--n", "4", "--steps", "5", "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "o"), "--formula", "NbC", "--space-group", "225"],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    crystals = [i.structure for i in read([tmp_path / "o"]) if isinstance(i, Crystal)]
    assert len(crystals) == 4
    assert {s.composition.reduced_formula for s in crystals} == {Composition("NbC").reduced_formula}
    bad = subprocess.run(
        [*command, str(tmp_path / "p"), "--formula", "MgB2", "--space-group", "230"],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert bad.returncode == 2 and "cannot-fill" in bad.stderr and "Traceback" not in bad.stderr


def test_a_data_set_changes_what_is_drawn_and_nobody_is_as_before():
    """Without `like` the vectors of the data sets add nothing at all; with it, other frames come."""
    asked: list[dict[str, Any]] = [{}, {"formula": "Nb3Sn"}]
    for settings in asked:
        plain = SymmetricSampler(SamplerSettings(**settings))
        silent = SymmetricSampler(SamplerSettings(**settings))
        with torch.no_grad():
            for net in (silent.sites.net, *silent.sites.composed):
                net.like.weight.zero_()
        jarvis = SymmetricSampler(SamplerSettings(like="jarvis", **settings))
        assert plain.wish.source == 0 and jarvis.wish.source == 3
        frames = [[d.frame for d in s.symbols([s.wish] * 24, 0)] for s in (plain, silent, jarvis)]
        assert frames[0] == frames[1] != frames[2]
    assert all(set(f.kinds) == {41, 50} for f in frames[2])


def test_compositions_asked_for_have_networks_of_their_own():
    """Their files hold them; they draw where a formula is asked for and nowhere else, whatever is drawn beside it."""
    sampler = SymmetricSampler(SamplerSettings())
    free, wish = Wish(), Wish(formula={41: 3, 50: 1})
    bare = SiteSampler(sampler.sites.net, sampler.sites.elements)
    assert sampler.sites.composed

    def frames(sites: SiteSampler, wishes: list[Wish]) -> list[Frame]:
        return [d.frame for d in sites.draw(wishes, np.random.default_rng(5))]

    assert frames(sampler.sites, [free] * 8) == frames(bare, [free] * 8)
    assert frames(sampler.sites, [wish] * 24) != frames(bare, [wish] * 24)

    def logits(*wishes: Wish) -> np.ndarray:
        return sampler.sites._logits([_State(w, sampler.sites.elements) for w in wishes], "count")

    alone = np.concatenate([logits(free), logits(wish), logits(free)])
    assert np.abs(logits(free, wish, free) - alone).max() < 1e-3 < np.abs(alone[0] - alone[1]).max()


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"like": "icsd"}, "unknown-data-set"), ({"like": "jarvis", "model": "joint"}, "no-data-set")],
)
def test_a_data_set_that_cannot_be_asked_for_is_refused(asked, code):
    with pytest.raises(SettingsError) as refused:
        open_sampler(SamplerSettings(**asked))
    assert refused.value.code == code
