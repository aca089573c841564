from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from onnes.theory.quadrature import linear_rule, reaches_zero


def integral(omega, values, kernel, **options):
    nodes, weights, _ = linear_rule(np.asarray(omega, float), np.asarray(values, float), **options)
    return float(np.sum(weights * kernel(nodes)))


@pytest.mark.parametrize(
    "kernel",
    [
        lambda x: 1 / x,
        lambda x: np.log(x) / x,
        lambda x: x,
        lambda x: x / (x**2 + 3.0**2),
        lambda x: x / (x**2 + 0.02**2),
        lambda x: 1 / (np.exp(x / 4.0) + 1),
    ],
    ids=["1/w", "ln(w)/w", "w", "matsubara", "matsubara-small", "fermi"],
)
@pytest.mark.parametrize("omega", [[0.3, 7.0, 7.2, 40.0], [5.0, 5.001, 90.0], [1.0, 2.0, 3.0, 50.0]])
def test_agrees_with_adaptive_integration(kernel, omega):
    values = np.array([0.7, 0.1, 2.0, 0.4])[: len(omega)]
    exact = sum(
        quad(lambda x: kernel(x) * np.interp(x, omega, values), a, b, epsabs=0, epsrel=1e-11, limit=200)[0]
        for a, b in pairwise(omega)
    )
    assert integral(omega, values, kernel, from_zero=False) == pytest.approx(exact, rel=1e-7)


def test_first_piece_to_zero():
    # Linear from (0, 0) to (2, 0.4): int f/w = 0.4, int f ln(w)/w = 0.4 (ln 2 - 1).
    extra = [
        integral([2.0, 4.0], [0.4, 0.0], kernel, from_zero=True)
        - integral([2.0, 4.0], [0.4, 0.0], kernel, from_zero=False)
        for kernel in (lambda x: 1 / x, lambda x: np.log(x) / x)
    ]
    assert extra == pytest.approx([0.4, 0.4 * (np.log(2.0) - 1.0)], rel=1e-7)


@pytest.mark.parametrize(
    ("omega", "expected"),
    [
        ([1.0, 2.0, 3.0], True),
        ([0.5, 1.5, 2.5], True),
        ([1.0, 1.1, 1.2], False),
        ([2.0, 50.0, 98.0], False),
        ([10.0, 20.0], True),
        ([3.0], False),
    ],
)
def test_zero_is_the_missing_point_of_a_grid(omega, expected):
    assert reaches_zero(np.array(omega)) is expected
    # The decision must not depend on the unit.
    assert reaches_zero(np.array(omega) * 11.6045) is expected


def test_owner_names_the_piece():
    omega = np.array([1.0, 2.0, 30.0])
    nodes, _, owner = linear_rule(omega, np.ones(3))
    assert ((nodes <= omega[owner]) & (nodes > np.where(owner > 0, omega[owner - 1], 0.0))).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0.0, 10.0)), min_size=2, max_size=20))
def test_area_is_the_trapezoid_and_refining_changes_nothing(points):
    omega = np.cumsum([step for step, _ in points])
    values = np.array([value for _, value in points])
    nodes, weights, _ = linear_rule(omega, values, from_zero=False)
    assert (nodes > 0).all() and (weights >= 0).all()
    assert np.sum(weights) == pytest.approx(np.trapezoid(values, omega), rel=1e-9, abs=1e-300)
    finer = np.unique(np.r_[omega, (omega[1:] + omega[:-1]) / 2])
    again = integral(finer, np.interp(finer, omega, values), lambda x: 1 / x, from_zero=False)
    assert again == pytest.approx(
        integral(omega, values, lambda x: 1 / x, from_zero=False), rel=1e-7, abs=1e-12
    )
