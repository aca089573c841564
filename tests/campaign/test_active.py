"""Choosing what to label next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from onnes.campaign.active import STRATEGIES, choose, expected_improvement, probability_above
from onnes.errors import SettingsError


@pytest.mark.parametrize(("mean", "std", "best"), [(0.5, 0.3, 1.0), (1.2, 0.1, 1.0), (-1.0, 2.0, 0.3)])
def test_expected_improvement_is_the_integral(mean, std, best):
    wanted, _ = integrate.quad(lambda y: (y - best) * stats.norm.pdf(y, mean, std), best, mean + 12 * std)
    found = expected_improvement(np.array([mean]), np.array([std]), best)[0]
    assert found == pytest.approx(wanted, rel=1e-6)


def test_certain_predictions_are_taken_at_their_word():
    mean, std = np.array([0.0, 1.0, 2.0]), np.zeros(3)
    assert expected_improvement(mean, std, 1.0).tolist() == [0.0, 0.0, 1.0]
    assert probability_above(mean, std, 1.0).tolist() == [0.0, 0.5, 1.0]


def test_uncertainty_counts_where_it_should():
    mean, std = np.array([0.9, 0.5]), np.array([0.01, 1.0])
    assert choose(mean, std, 1, strategy="greedy").tolist() == [0]
    assert choose(mean, std, 1, strategy="probability", target=1.0).tolist() == [1]
    assert choose(mean, std, 1, strategy="expected-improvement", best=1.0).tolist() == [1]


def test_cost_divides_the_gain_even_when_scores_are_negative():
    mean, std = np.array([-0.1, -0.2, -3.0]), np.full(3, 0.1)
    assert choose(mean, std, 1, strategy="greedy", cost=np.array([10.0, 1.0, 1.0])).tolist() == [1]


def test_a_batch_is_spread_out_and_still_full():
    mean, std = np.array([3.0, 2.9, 2.8, 1.0]), np.ones(4)
    features = np.array([[0.0], [0.01], [5.0], [9.0]])
    assert choose(mean, std, 3, strategy="greedy", features=features, apart=0.1).tolist() == [0, 2, 3]
    assert sorted(choose(mean, std, 4, strategy="greedy", features=features, apart=0.1)) == [0, 1, 2, 3]


@given(st.integers(1, 30), st.integers(0, 40), st.sampled_from(STRATEGIES), st.integers(0, 5))
def test_batches_are_distinct_and_reproducible(n, count, strategy, seed):
    rng = np.random.default_rng(n)
    mean, std = rng.normal(size=n), rng.random(n)
    one, two = (choose(mean, std, count, strategy=strategy, seed=seed) for _ in range(2))
    assert one.tolist() == two.tolist() and len(set(one.tolist())) == min(n, count)


@pytest.mark.parametrize(
    "bad",
    [
        {"strategy": "oracle"},
        {"std": np.array([1.0])},
        {"std": np.array([1.0, -1.0])},
        {"mean": np.array([1.0, np.nan])},
        {"cost": np.array([1.0, 0.0])},
        {"features": np.zeros((3, 1))},
        {"count": -1},
    ],
)
def test_nonsense_is_refused(bad):
    args = {"mean": np.zeros(2), "std": np.ones(2), "count": 1, **bad}
    with pytest.raises(SettingsError, match="bad-setting"):
        choose(args.pop("mean"), args.pop("std"), args.pop("count"), **args)
