"""Symbols that have more symmetry than their group, and what the sampler does with them."""

import numpy as np
import pytest

from onnes.crystal.symmetry import space_group
from onnes.errors import SettingsError
from onnes.generate import write
from onnes.generate.asked import SamplerSettings
from onnes.generate.generic import generic
from onnes.generate.orbits import Frame
from onnes.generate.ranking import candidates
from onnes.generate.sampling import BLOCK
from onnes.generate.site_sampling import Drawn
from onnes.generate.symmetric import ROUNDS, SymmetricSampler

#: Niobium on corners, on corners and faces, on corners and centre of 221; the first is nothing but simple cubic.
CUBIC, FCC, BCC = (Frame(221, letters, (41,) * len(letters)) for letters in ((0,), (0, 2), (0, 1)))

ASIDE = "symbols of a denser lattice or higher group were left aside"


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (CUBIC, (221, 1)),
        (FCC, (225, 1)),
        (BCC, (229, 1)),
        (Frame(221, (0, 1), (55, 17)), (221, 2)),  # CsCl
        (Frame(191, (0, 3), (12, 5)), (191, 3)),  # MgB2
        (Frame(216, (0, 2), (6, 6)), (227, 2)),  # diamond, said as zinc blende
        (Frame(216, (0, 2), (30, 16)), (216, 2)),
        (Frame(62, (2, 2), (26, 6)), (62, 8)),
        (Frame(1, (0,), (41,)), (2, 1)),  # one atom in a general cell
    ],
)
def test_group_and_atoms_in_general(frame, found):
    assert generic(frame) == found


@pytest.fixture(scope="module")
def sampler():
    return SymmetricSampler(SamplerSettings(formula="Nb", space_group=221, steps=2))


def scripted(monkeypatch, sampler, rounds):
    """Let the network of the symbols draw these frames, one list a round."""
    left = iter(rounds)

    def draw(wishes, rng):
        frames = next(left)
        return [Drawn(frames[i % len(frames)], 0.0) for i in range(len(wishes))]

    monkeypatch.setattr(sampler.sites, "draw", draw)
    sampler.rejected.clear()


def test_symbols_of_a_higher_group_are_drawn_again_and_counted(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[FCC, CUBIC], [BCC, CUBIC, CUBIC]])
    drawn = dict(sampler.sample(0, BLOCK, 0))
    assert len(drawn) == BLOCK
    assert {space_group(s, 0.001)[0] for s in drawn.values()} == {221}
    assert dict(sampler.rejected) == {ASIDE: BLOCK // 2 + BLOCK // 3}


def test_the_few_that_are_left_are_taken_again(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[CUBIC] + [FCC] * (BLOCK - 1)] * ROUNDS)
    assert sampler._frames(np.random.default_rng(0)) == [CUBIC] * BLOCK
    again = "symbols were taken again, as few are what was asked for"
    assert dict(sampler.rejected) == {ASIDE: ROUNDS * (BLOCK - 1), again: BLOCK - ROUNDS}


def test_a_group_that_is_never_drawn_is_an_error(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[FCC]] * (ROUNDS + 1))
    with pytest.raises(SettingsError, match=r"960 draws .* group 221 \[higher-symmetry\]"):
        next(sampler.sample(0, 1, 0))
    scripted(monkeypatch, sampler, [[FCC]] * (ROUNDS + 1))
    with pytest.raises(SettingsError, match="higher-symmetry"):
        candidates(sampler)


def test_what_was_not_asked_for_is_not_looked_at(monkeypatch):
    free = SymmetricSampler(SamplerSettings(formula="Nb", steps=2))
    scripted(monkeypatch, free, [[FCC]])
    assert free._frames(np.random.default_rng(0)) == [FCC] * BLOCK and not free.rejected


def test_atoms_are_those_of_the_primitive_cell():
    two = SymmetricSampler(SamplerSettings(formula="C", atoms=2, steps=2))
    # Diamond has two, whatever it is called; a centred cell of one atom has not.
    assert two.keeps(Frame(216, (0, 2), (6, 6))) and not two.keeps(Frame(221, (0, 1), (6, 6)))


def test_the_number_of_draws_for_a_ranking_are_those_that_count(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[FCC, CUBIC], [CUBIC]])
    (found,) = candidates(sampler, draws=4)
    assert found.drawn == 1.0


def test_what_cannot_be_drawn_leaves_folder_and_file_free(monkeypatch, sampler, tmp_path):
    scripted(monkeypatch, sampler, [[FCC]] * ROUNDS)
    monkeypatch.setattr(write, "open_sampler", lambda settings, model: sampler)
    with pytest.raises(SettingsError, match="higher-symmetry"):
        next(write.write_crystals(tmp_path / "o", 1, 0, sampler.settings, records=tmp_path / "r.jsonl"))
    assert not (tmp_path / "r.jsonl").exists() and not list((tmp_path / "o").iterdir())
