"""Symbols that have more symmetry than their group, and what the sampler does with them."""

import numpy as np
import pytest

from onnes.crystal.symmetry import space_group
from onnes.errors import SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.generic import generic_group
from onnes.generate.orbits import Frame
from onnes.generate.ranking import candidates
from onnes.generate.sampling import BLOCK
from onnes.generate.site_sampling import Drawn
from onnes.generate.symmetric import ROUNDS, SymmetricSampler

#: Niobium on corners, on corners and faces, on corners and centre of 221; the first is nothing but simple cubic.
CUBIC, FCC, BCC = (Frame(221, letters, (41,) * len(letters)) for letters in ((0,), (0, 2), (0, 1)))


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (CUBIC, 221),
        (FCC, 225),
        (BCC, 229),
        (Frame(221, (0, 1), (55, 17)), 221),  # CsCl
        (Frame(191, (0, 3), (12, 5)), 191),  # MgB2
        (Frame(216, (0, 2), (6, 6)), 227),  # diamond, said as zinc blende
        (Frame(216, (0, 2), (30, 16)), 216),
        (Frame(62, (2, 2), (26, 6)), 62),
        (Frame(1, (0,), (41,)), 2),  # one atom in a general cell
    ],
)
def test_generic_group(frame, number):
    assert generic_group(frame) == number


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
    assert dict(sampler.rejected) == {"symbols of a higher space group": BLOCK // 2 + BLOCK // 3}


def test_the_few_that_are_left_are_taken_again(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[CUBIC] + [FCC] * (BLOCK - 1)] * ROUNDS)
    assert sampler._frames(np.random.default_rng(0)) == [CUBIC] * BLOCK


def test_a_group_that_is_never_drawn_is_an_error(monkeypatch, sampler):
    scripted(monkeypatch, sampler, [[FCC]] * (ROUNDS + 1))
    with pytest.raises(SettingsError, match="higher-symmetry"):
        next(sampler.sample(0, 1, 0))
    scripted(monkeypatch, sampler, [[FCC]])
    with pytest.raises(SettingsError, match="higher-symmetry"):
        candidates(sampler)


def test_what_was_not_asked_for_is_not_looked_at(monkeypatch):
    free = SymmetricSampler(SamplerSettings(formula="Nb", steps=2))
    scripted(monkeypatch, free, [[FCC]])
    assert free._frames(np.random.default_rng(0)) == [FCC] * BLOCK and not free.rejected
