"""Rates of stable, unique and novel crystals, counted by hand."""

from __future__ import annotations

import math

import pytest

from onnes.errors import SettingsError
from onnes.stability.sun import sun, wilson


def row(above=0.0, novelty="new-composition", same_as="", status="ok"):
    return {"status": status, "e_hull_eV_atom": above, "novelty": novelty, "same_as": same_as}


ROWS = [
    row(0.02),  # all three
    row(0.1, "known-composition-new-structure"),  # on the threshold: all three
    row(0.02, same_as="first"),
    row(0.101),
    row(-0.05, "known"),
    row(None),  # an element without a reference: not stable (CASE 25)
    {"status": "refused"},
    {"status": "failed", "e_hull_eV_atom": 0.0, "novelty": "new-composition", "same_as": ""},
]


def test_counts_by_hand():
    found = sun(ROWS, hull="7 phases")
    assert [r.count for r in (found.stable, found.unique, found.novel, found.sun)] == [4, 5, 5, 2]
    assert found.sun.n == 8 and found.lost == 2 and found.unknown == 1
    first, second = found.lines()
    assert "2 of 8 given: 25.0 %" in first and "stable 4, unique 5, novel 5" in first
    assert "0.1 eV/atom" in second and "7 phases" in second and "2 refused or failed" in second


def test_threshold_is_an_option():
    assert sun(ROWS, threshold_eV_atom=0.0).stable.count == 1
    assert sun(ROWS, threshold_eV_atom=0.2).sun.count == 3
    with pytest.raises(SettingsError, match="bad-setting"):
        sun([], threshold_eV_atom=math.nan)


def test_empty_set_says_so():
    found = sun([])
    assert found.lines() == ["S.U.N.: no crystal was given"] and math.isnan(found.sun.share)


def test_wilson_interval_against_published_values():
    # Newcombe, Stat. Med. 17, 857 (1998), table I, method 3.
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(count, n)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
