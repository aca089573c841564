"""Metrics against scipy and scikit-learn; n and missing always told; bootstrap over groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from onnes.errors import DataError
from onnes.learn import metrics as m
from onnes.learn.retrieval import average_precision, coverage, precision_recall

RNG = np.random.default_rng(3)
TRUTH = RNG.gamma(1.5, 4.0, 331)
# Rounded, so that there are ties.
GUESS = np.round(TRUTH + RNG.normal(0, 3, 331), 0)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mae", sk.mean_absolute_error),
        ("rmse", lambda t, p: np.sqrt(sk.mean_squared_error(t, p))),
        ("r2", sk.r2_score),
        ("spearman", lambda t, p: stats.spearmanr(t, p).statistic),
        ("bias", lambda t, p: np.mean(p) - np.mean(t)),
    ],
)
def test_equal_to_the_reference(name, reference):
    found = m.score(name, TRUTH, GUESS)
    assert found.value == pytest.approx(reference(TRUTH, GUESS), abs=1e-12)
    assert (found.n, found.missing) == (331, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
def test_ties_and_small_sets(pairs):
    t, p = np.array(pairs, dtype=float).T
    if len(set(t)) > 1 and len(set(p)) > 1:
        assert m.spearman(t, p).value == pytest.approx(stats.spearmanr(t, p).statistic, abs=1e-12)
    curve = precision_recall(t, p, 3.0)
    if (t > 3).any():
        assert curve.average_precision == pytest.approx(sk.average_precision_score(t > 3, p), abs=1e-12)
    else:
        assert np.isnan(curve.average_precision)


def test_curve_equals_scikit_learn():
    curve = precision_recall(TRUTH, GUESS, 5.0)
    precision, recall, cuts = sk.precision_recall_curve(TRUTH > 5.0, GUESS)
    np.testing.assert_allclose(curve.cut, cuts[::-1], atol=1e-12)
    # scikit-learn appends the point (precision 1, recall 0).
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1], atol=1e-12)
    assert curve.random == pytest.approx(np.mean(TRUTH > 5.0), abs=1e-12)
    chosen = GUESS >= 7
    assert curve.at_cut(7.0) == pytest.approx(
        (sk.precision_score(TRUTH > 5, chosen), sk.recall_score(TRUTH > 5, chosen)), abs=1e-12
    )
    assert curve.precision_at(0.5) == pytest.approx(precision[recall >= 0.5].max(), abs=1e-12)
    assert np.isnan(curve.at_cut(1e9)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_predictions_are_told(bad):
    guess = GUESS.copy()
    guess[[4, 9, 200]] = bad
    kept = np.isfinite(guess)
    for name in m.STATISTICS:
        found = m.bootstrap(name, TRUTH, guess, np.arange(331), draws=5)
        assert (found.n, found.missing) == (328, 3)
        assert found.value == pytest.approx(m.STATISTICS[name](TRUTH[kept], guess[kept]), abs=1e-12)
    (first, *_rest) = m.per_element(TRUTH, guess, [["Al"]] * 331)
    assert (first.n, first.missing) == (328, 3)


def test_missing_positive_is_never_retrieved():
    truth, guess = np.array([10.0, 9.0, 1.0, 0.0]), np.array([8.0, np.nan, 2.0, 1.0])
    curve = precision_recall(truth, guess, 5.0)
    assert (curve.n, curve.positives, curve.missing) == (4, 2, 1)
    assert curve.recall[-1] == 0.5
    assert curve.average_precision == pytest.approx(0.5)
    scored = average_precision(truth, guess, np.arange(4), 5.0, draws=50)
    assert (scored.value, scored.n, scored.missing) == (pytest.approx(0.5), 3, 1)


def test_all_missing_is_no_number():
    found = m.bootstrap("mae", TRUTH, np.full(331, np.nan), np.arange(331))
    assert np.isnan(found.value)
    assert (found.n, found.missing) == (0, 331)


@pytest.mark.parametrize("n", [1, 3, 31])
def test_sets_smaller_than_a_batch_are_scored_whole(n):
    found = m.bootstrap("mae", TRUTH[:n], GUESS[:n], np.arange(n), draws=20)
    assert found.n == n
    assert found.value == pytest.approx(sum(abs(TRUTH[i] - GUESS[i]) for i in range(n)) / n)


def test_one_group_has_no_interval():
    found = m.bootstrap("mae", [1.0, 2.0], [1.5, 2.5], [7, 7])
    assert (found.value, found.n, found.groups) == (0.5, 2, 1)
    assert np.isnan(found.low) and np.isnan(found.high)


def test_refused():
    with pytest.raises(DataError, match=r"\[length-mismatch\]"):
        m.mae([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match=r"row 1 is nan.*\[not-finite\]"):
        m.mae([1.0, np.nan], [1.0, 1.0])
    with pytest.raises(DataError, match="use one of mae"):
        m.score("accuracy", [1.0], [1.0])
    with pytest.raises(DataError, match=r"\[unknown-metric\]"):
        m.bootstrap("accuracy", [1.0], [1.0], [0])
    with pytest.raises(DataError, match=r"\[no-training-rows\]"):
        m.median_baseline([], [1.0])
    with pytest.raises(DataError, match=r"\[bad-range\]"):
        coverage([1.0], [0.0], [2.0], edges=(2.0, 1.0))


def test_median_baseline():
    found = m.median_baseline([1.0, 2.0, 100.0], [2.0, 5.0])
    assert (found.value, found.n) == (1.5, 2)


def test_resamples_keep_groups_whole():
    group = np.array([0, 2, 1, 1, 2, 2, 5])
    size = {g: int((group == g).sum()) for g in (0, 1, 2, 5)}
    for rows in m.resamples(group, 50, seed=1):
        times = np.bincount(rows, minlength=len(group))
        for g in size:
            assert len(set(times[group == g])) == 1
        assert sum(times[group == g][0] for g in size) == len(size)


def test_groups_widen_the_interval():
    """Copies of a row carry no news: 40 groups of 25 equal rows must be as uncertain as 40 rows."""
    t, p = np.repeat(TRUTH[:40], 25), np.repeat(GUESS[:40], 25)
    rows = m.bootstrap("mae", t, p, np.arange(1000))
    whole = m.bootstrap("mae", t, p, np.repeat(np.arange(40), 25))
    plain = m.bootstrap("mae", TRUTH[:40], GUESS[:40], np.arange(40))
    assert whole.high - whole.low > 3 * (rows.high - rows.low)
    assert (whole.low, whole.high) == pytest.approx((plain.low, plain.high), abs=1e-9)
    assert whole.groups == 40


def test_bootstrap_covers_the_true_value():
    """The 95 % interval of a mean holds the true mean in about 95 of 100 experiments."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        size = rng.integers(1, 6, 60)
        group = np.repeat(np.arange(60), size)
        noise = rng.normal(0, 1, 60)[group] + rng.normal(0, 0.3, len(group))
        found = m.bootstrap("bias", np.zeros(len(group)), noise, group, draws=200)
        held += found.low <= 0 <= found.high
    assert 0.90 <= held / 200 <= 0.985


def test_repeats_are_scored_one_by_one():
    other = TRUTH + RNG.normal(0, 3, 331)
    both = m.bootstrap("rmse", TRUTH, np.stack([GUESS, other]), np.arange(331), draws=100)
    each = [m.rmse(TRUTH, p).value for p in (GUESS, other)]
    assert both.value == pytest.approx(np.mean(each), abs=1e-12)
    assert both.value > m.rmse(TRUTH, (GUESS + other) / 2).value
    assert both.n == 331
    assert both.low < both.value < both.high
    found = average_precision(TRUTH, np.stack([GUESS, other]), np.arange(331), 5.0, draws=20)
    assert found.value == pytest.approx(
        np.mean([sk.average_precision_score(TRUTH > 5, p) for p in (GUESS, other)]), abs=1e-12
    )


def test_per_element():
    found = m.per_element([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [["B", "Mg", "B"], ["Al"], ["Mg"]])
    assert [(e.element, e.n, e.mae, e.bias) for e in found] == [
        ("Al", 1, 0.0, 0.0),
        ("B", 1, 1.0, 1.0),
        ("Mg", 2, 1.5, -0.5),
    ]


def test_coverage_counts():
    truth = [0.0, 1.0, 2.0, 3.0, 9.0]
    low, high = [-1.0, 2.0, 1.0, np.nan, -np.inf], [1.0, 3.0, 2.0, 5.0, np.inf]
    everything, small, large = coverage(truth, low, high, edges=(0.0, 2.0, 9.0))
    assert (everything.n, everything.covered, everything.missing) == (4, 3, 1)
    assert (small.n, small.covered, small.share, small.width) == (2, 1, 0.5, 1.5)
    assert (large.n, large.covered, large.missing) == (1, 1, 1)
