"""Conformal intervals on synthetic data whose coverage is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.errors import DataError, OnnesError, SettingsError
from onnes.learn.calibrate import Conformal, Space, coverage_report, cross_intervals, enough, fit, quantile
from onnes.learn.retrieval import coverage


def plain(n, seed, sigma=1.0):
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.0, 10.0, n)
    return predicted + rng.normal(0.0, sigma, n), predicted


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_quantile_of_normal_errors(level):
    from scipy.stats import norm

    truth, predicted = plain(20_000, 1, 2.0)
    found = fit(truth, predicted, np.arange(20_000), level=level)
    assert found.quantiles[0] == pytest.approx(2.0 * norm.ppf((1 + level) / 2), rel=0.03)


def test_average_coverage_of_small_calibration_sets():
    """With 19 rows the bound is the 18th of 19: coverage is 0.9 on average, which plain quantiles miss."""
    held = []
    for seed in range(300):
        truth, predicted = plain(519, seed)
        found = fit(truth[:19], predicted[:19], np.arange(19))
        low, high = found.interval(predicted[19:])
        held.append(np.mean((low <= truth[19:]) & (truth[19:] <= high)))
    assert np.mean(held) == pytest.approx(0.9, abs=0.015)


@given(st.integers(1, 60), st.floats(0.05, 0.99))
def test_rank(n, level):
    scores = np.arange(1.0, n + 1)
    rank = np.ceil(round((n + 1) * level, 9))
    assert quantile(scores, level, n) == (rank if rank <= n else np.inf)


def test_too_few_groups_promise_nothing():
    truth, predicted = plain(80, 0)
    eight = np.repeat(np.arange(8), 10)
    assert fit(truth, predicted, eight).quantiles == (np.inf,)
    low, high = fit(truth, predicted, eight, space=Space(0.3)).interval([1.0])
    assert (low[0], high[0]) == (0.0, np.inf)
    assert np.isfinite(fit(truth, predicted, np.repeat(np.arange(10), 8)).quantiles[0])


def test_grouped_errors_are_covered_where_rows_would_not_be():
    """All rows of a group err alike; unseen groups are still covered."""
    rng, held = np.random.default_rng(5), []
    for _ in range(200):
        group = np.repeat(np.arange(30), 20)
        predicted = np.zeros(600)
        truth = rng.normal(0, 1, 30)[group] + rng.normal(0, 0.05, 600)
        found = fit(truth[:400], predicted[:400], group[:400])
        low, high = found.interval(predicted[400:])
        held.append(np.mean((low <= truth[400:]) & (truth[400:] <= high)))
    assert 0.88 <= np.mean(held) <= 0.96


def test_scaled_intervals_follow_the_deviation():
    rng = np.random.default_rng(2)
    n = 6000
    std = rng.choice([0.1, 1.0], n)
    predicted = rng.uniform(0, 5, n)
    truth = predicted + 3.0 * std * rng.normal(size=n)  # the ensemble is three times too sure
    settings = {"std": std, "level": 0.9}
    low, high = cross_intervals(truth, predicted, np.arange(n), **settings)
    _, quiet, loud = coverage(truth, low, high, edges=(0.0, 0.5, 2.0), by=std)
    assert quiet.share == pytest.approx(0.9, abs=0.02)
    assert loud.share == pytest.approx(0.9, abs=0.02)
    assert loud.width == pytest.approx(10 * quiet.width, rel=0.1)
    flat_low, flat_high = cross_intervals(truth, predicted, np.arange(n))
    assert coverage(truth, flat_low, flat_high, edges=(0.0, 0.5, 2.0), by=std)[1].share > 0.99
    assert np.mean(high - low) < np.mean(flat_high - flat_low)


def test_a_lying_deviation_gets_a_floor():
    """A deviation that says nothing of the error must not make intervals useless."""
    rng = np.random.default_rng(3)
    truth, predicted = plain(3000, 4)
    std = np.exp(rng.normal(0, 1.5, 3000))
    found = fit(truth, predicted, np.arange(3000), std=std)
    assert found.std_floor >= 4.0 * np.median(std)


def test_log_space_is_relative_above_and_absolute_below():
    rng = np.random.default_rng(6)
    predicted = np.exp(rng.uniform(-4, 4, 8000))
    truth = np.maximum((predicted + 0.3) * np.exp(rng.normal(0, 0.4, 8000)) - 0.3, 0.0)
    low, high = cross_intervals(truth, predicted, np.arange(8000), space=Space(0.3))
    for part in coverage(truth, low, high, edges=(0.0, 0.1, 1.0, 10.0, 100.0), by=predicted):
        assert 0.87 <= part.share <= 0.97
    assert (low >= 0.0).all()


def test_mondrian_covers_each_range():
    rng = np.random.default_rng(8)
    predicted = rng.uniform(0, 10, 6000)
    truth = predicted + np.where(predicted > 5, 3.0, 0.3) * rng.normal(size=6000)
    group = np.arange(6000)
    one = coverage_report(truth, predicted, group, ranges=(0, 5, 10))
    own = coverage_report(truth, predicted, group, ranges=(0, 5, 10), edges=(5.0,))
    assert one[0].share == pytest.approx(0.9, abs=0.015)
    assert one[2].share < 0.85  # one width for all fails where errors are large
    assert [part.share for part in own] == pytest.approx([0.9, 0.9, 0.9], abs=0.02)
    by_truth = coverage_report(truth, predicted, group, ranges=(0, 5, 10), by_truth=True)
    assert by_truth[1].n != one[1].n


def test_small_ranges_join_their_neighbours():
    predicted, group = np.arange(100.0), np.arange(100)
    assert enough(predicted, group, (10.0, 40.0, 60.0, 95.0), least=20) == (40.0, 60.0)
    assert enough(predicted, group, (50.0,), least=60) == ()
    assert enough(predicted, group // 10, (50.0,), least=5) == (50.0,)  # groups count, not rows
    assert enough(predicted, group // 10, (50.0,), least=6) == ()


def test_missing_predictions_have_no_interval_and_are_counted():
    truth, predicted = plain(200, 9)
    predicted[:7] = np.nan
    found = fit(truth, predicted, np.arange(200))
    assert found.n == (193,)
    low, high = found.interval(predicted)
    assert np.isnan(low[:7]).all()
    assert np.isfinite(high[7:]).all()
    (overall,) = coverage_report(truth, predicted, np.arange(200))
    assert (overall.n, overall.missing) == (193, 7)


def test_perfect_ensemble_with_zero_deviation():
    truth = np.arange(50.0)
    low, high = fit(truth, truth, np.arange(50), std=np.zeros(50)).interval([3.0], [0.0])
    assert (low[0], high[0]) == (3.0, 3.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.lists(st.floats(0, 1e4), min_size=1, max_size=20))
def test_space_round_trip(floor, values):
    space = Space(floor)
    np.testing.assert_allclose(
        space.backward(space.forward(values)), values, rtol=1e-9, atol=1e-9 * (1 + floor)
    )


def test_stored_calibration_gives_the_same_numbers():
    truth, predicted = plain(300, 1)
    std = np.abs(truth) + 0.1
    found = fit(truth, predicted, np.arange(300), std=std, space=Space(0.5), edges=(2.0, 5.0))
    again = Conformal.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    np.testing.assert_array_equal(again.interval(predicted, std), found.interval(predicted, std))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: fit([1.0], [1.0], [0], level=1.0), "bad-level"),
        (lambda: fit([1.0], [1.0], [0, 1]), "length-mismatch"),
        (lambda: fit([1.0], [np.nan], [0]), "no-rows"),
        (lambda: fit([1.0], [1.0], [0], std=[-1.0]), "bad-std"),
        (lambda: fit([1.0], [1.0], [0], std_floor=1.0), "needs-std"),
        (lambda: fit([1.0], [1.0], [0], edges=(2.0, 1.0)), "bad-range"),
        (lambda: Space(0.0), "bad-floor"),
        (lambda: Conformal.from_dict({"level": 0.9}), "bad-calibration"),
        (lambda: Conformal(0.9, Space(), 1.0, (), (1.0,), (9,), (9,)).interval([1.0]), "needs-std"),
    ],
)
def test_refused(call, code):
    with pytest.raises((DataError, SettingsError)) as caught:
        call()
    assert isinstance(caught.value, OnnesError)
    assert caught.value.code == code
