"""The plateau of lambda(sigma) on captured runs and on curves of known shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qe_fixtures import captured, few

from onnes.dft.matdyn_files import parse_a2f
from onnes.dft.plateau import LEAST_RATIO, SPREAD, NoPlateau, Plateau, find_plateau

SIGMA = [0.005 * n for n in range(1, 11)]
#: The captured run of QE's own aluminium example (4x4x4 q) and that of PseudoDojo PBEsol (4x4x4 q, 40 Ry).
EXAMPLE = [0.2190, 0.4012, 0.4116, 0.3893, 0.3691, 0.3589, 0.3567, 0.3587, 0.3623, 0.3657]
PBESOL = [0.6540, 0.4824, 0.4385, 0.4078, 0.3875, 0.3758, 0.3693, 0.3653, 0.3624, 0.3597]


@pytest.mark.parametrize(("curve", "sigma", "lam"), [(EXAMPLE, 0.020, 0.3893), (PBESOL, 0.025, 0.3875)])
def test_captured_aluminium_levels_off(curve, sigma, lam):
    found = find_plateau(SIGMA, curve)
    assert isinstance(found, Plateau)
    assert (found.sigma_Ry, found.lam, found.to_sigma_Ry) == pytest.approx((sigma, lam, 0.05))
    assert found.low == min(curve[found.first :]) and found.spread < SPREAD


def test_captured_run_on_a_grid_that_is_too_coarse_has_none():
    curve = [parse_a2f(captured(f"al_222/bands/a2F.dos{s}")).lam for s in range(1, 11)]
    found = find_plateau(SIGMA, curve)
    # 2x2x2 q and 8x8x8 k: lambda falls from 0.9 to 0.4 and never holds still.
    assert isinstance(found, NoPlateau) == (not _by_hand(SIGMA, curve))


def _by_hand(sigma, lam):
    """The criterion said again, without the search for the best: is any stretch good?"""
    return any(
        sigma[j] / sigma[i] > LEAST_RATIO - 1e-6
        and np.ptp(lam[i : j + 1]) <= SPREAD * np.mean(lam[i : j + 1])
        for i in range(len(lam))
        for j in range(i + 2, len(lam))
    )


def test_short_extremum_is_outweighed_by_the_longer_stretch():
    # Level from 0.005 to 0.015 at a maximum (a factor of 3), and from 0.015 to 0.05 (3.3) lower down.
    curve = [0.80, 0.82, 0.80, 0.6, 0.58, 0.57, 0.57, 0.57, 0.57, 0.57]
    found = find_plateau(SIGMA, curve)
    assert isinstance(found, Plateau) and found.first == 0
    curve[2] = 0.62
    found = find_plateau(SIGMA, curve)
    assert isinstance(found, Plateau) and (found.first, found.lam) == (2, 0.62)


def test_power_law_has_none_and_the_reason_has_the_flattest_stretch():
    found = find_plateau(SIGMA, [s**-0.5 for s in SIGMA])
    assert isinstance(found, NoPlateau) and "10 %" in found.detail and "Ry" in found.detail


def test_value_that_is_missing_ends_a_stretch():
    flat: list[float | None] = [0.5] * 10
    flat[3] = None
    found = find_plateau(SIGMA, flat)
    # 0.005 to 0.015 is a factor of 3, 0.025 to 0.05 one of 2.
    assert isinstance(found, Plateau) and (found.first, found.last) == (0, 2)
    assert isinstance(find_plateau(SIGMA, [None] * 10), NoPlateau)
    assert "usable" in find_plateau(SIGMA[:2], [0.5, 0.5]).detail


@few
@given(st.lists(st.floats(0.05, 3.0), min_size=10, max_size=10), st.floats(0.01, 100.0))
def test_scale_of_lambda_and_sigma_do_not_matter_and_the_criterion_holds(curve, scale):
    found = find_plateau(SIGMA, curve)
    other = find_plateau([scale * s for s in SIGMA], [2.0 * x for x in curve])
    assert type(found) is type(other) and isinstance(found, Plateau) == _by_hand(SIGMA, curve)
    if isinstance(found, Plateau):
        assert (found.first, found.last) == (other.first, other.last)
        assert found.low <= found.lam <= found.high


@pytest.mark.parametrize(
    ("sigma", "lam"), [([0.01, 0.01], [1, 1]), ([0.01], [1, 2]), ([-0.01, 0.01, 0.02], [1, 1, 1])]
)
def test_curves_that_are_none_are_refused(sigma, lam):
    with pytest.raises(ValueError, match="broadenings"):
        find_plateau(sigma, lam)
