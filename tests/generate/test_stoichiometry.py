"""Whole numbers of atoms from fractions."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.generate.stoichiometry import Stoichiometries, rounded

KNOWN = Stoichiometries.of(
    [[41, 41, 41, 50]] * 30 + [[12, 5, 5]] * 10 + [[69] + [13] * 6 + [26] * 6] * 5 + [[1, 2, 3, 4]] * 2
)


def fractions(amounts: dict[int, float], size: int = 101) -> torch.Tensor:
    p = torch.zeros(1, size)
    for z, x in amounts.items():
        p[0, z] = x
    return p / p.sum()


def read(p: torch.Tensor, n: int, how=KNOWN.whole) -> dict[int, int]:
    out = how(p, n)[0]
    return {int(z): int(out[z]) for z in torch.nonzero(out).flatten()}


def test_amounts_that_crystals_have_come_first():
    blurred = fractions({69: 1.6, 13: 6.1, 26: 5.3})
    assert read(blurred, 13, rounded) == {69: 2, 13: 6, 26: 5}
    assert read(blurred, 13) == {69: 1, 13: 6, 26: 6}


def test_clear_fractions_win_over_what_is_usual():
    """Atoms by twos are read although all known crystals of 13 atoms are A6B6C."""
    assert read(fractions({41: 9.0, 50: 4.0}), 13) == {41: 9, 50: 4}
    assert read(fractions({41: 2.6, 50: 1.4}), 4) == {41: 3, 50: 1}


def test_largest_remainders():
    p = torch.zeros(2, 101)
    p[0, [5, 12]] = torch.tensor([0.64, 0.36])
    p[1, [6, 7, 8]] = torch.tensor([0.5, 0.3, 0.2])
    out = rounded(p, 3)
    assert out[0, 5] == 2 and out[0, 12] == 1
    assert out.sum(dim=1).tolist() == [3, 3]
    assert out[1, 6] == 1 and out[1, 7] == 1 and out[1, 8] == 1


def test_elements_that_are_not_allowed_are_not_used():
    """One allowed element and no known crystal of one: the fractions decide."""
    assert read(fractions({41: 1.0}), 4) == {41: 4}
    assert read(fractions({41: 1.0}, size=42), 13) == {41: 13}


def test_sizes_that_no_crystal_has_are_rounded():
    p = fractions({3: 0.2, 8: 0.55, 25: 0.25})
    assert read(p, 7) == read(p, 7, rounded)


def test_it_survives_a_checkpoint():
    again = Stoichiometries(json.loads(json.dumps(KNOWN.as_dict())))
    assert again.known == KNOWN.known and again.as_dict() == KNOWN.as_dict()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6).filter(lambda x: sum(x) > 0.1),
    st.sampled_from([1, 3, 4, 13, 20]),
    st.permutations(range(6)),
)
def test_always_n_atoms_of_elements_that_are_there_whatever_their_order(parts, n, order):
    p = torch.tensor([parts], dtype=torch.float64)
    p = p / p.sum()
    out = KNOWN.whole(p, n)
    assert out.sum() == n and (out >= 0).all()
    # Where the fractions hold fewer elements than any known amounts, the nearest numbers still have those only.
    assert (p[out > 0] > 0).all()
    # Equal fractions may change places.
    shuffled = KNOWN.whole(p[:, list(order)], n)
    assert sorted(shuffled[0].tolist()) == sorted(out[0].tolist())


@pytest.mark.parametrize("certainty", [0.01, 100.0])
def test_certainty_weighs_reading_against_custom(certainty):
    p = fractions({41: 2.3, 50: 1.7})
    assert read(p, 4, lambda x, n: KNOWN.whole(x, n, certainty)) == (
        {41: 3, 50: 1} if certainty < 1 else {41: 2, 50: 2}
    )


def test_nothing_to_read():
    assert KNOWN.whole(torch.zeros(0, 101), 4).shape == (0, 101)
