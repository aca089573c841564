"""What to label next: batches by expected improvement, probability of success, the mean, or chance.

The quantity is a score that is to be large, usually log10 Tc, with a normal predictive distribution per candidate.
Costs divide the gain; a batch is spread out by taking only one of several candidates that lie close together.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from onnes.errors import SettingsError

Floats = NDArray[np.float64]

#: The score is log10(Tc + FLOOR_K), Tc in kelvin: errors are relative above the floor and absolute below it.
FLOOR_K = 0.3
#: Half a 90 % interval of a normal distribution, in standard deviations.
HALF_90 = 1.6448536
#: Least and (where an interval has no upper end) largest standard deviation of a score.
LEAST_STD, UNKNOWN_STD = 0.02, 1.0

Strategy = Literal["expected-improvement", "probability", "greedy", "random"]
STRATEGIES: tuple[Strategy, ...] = ("expected-improvement", "probability", "greedy", "random")


def score(tc_K: float | Floats) -> Any:
    """Score of a Tc, in kelvin: a float or an array as given."""
    return np.log10(np.maximum(tc_K, 0.0) + FLOOR_K)


def kelvin(value: float | Floats) -> Any:
    """Tc of a score, not below zero."""
    return np.maximum(np.power(10.0, value) - FLOOR_K, 0.0)


def normal_of(tc_K: float, low_K: float | None, high_K: float | None) -> tuple[float, float]:
    """Mean and standard deviation of the score of a prediction with a 90 % interval.

    Parameters
    ----------
    tc_K, low_K, high_K : float
        A lower end of 0 K is cut off and says nothing of the width; None is an end that is not known.

    Returns
    -------
    (float, float)
    """
    mean = float(score(tc_K))
    above = score(high_K) - mean if high_K is not None and np.isfinite(high_K) else None
    below = mean - score(low_K) if low_K is not None and low_K > 0 else None
    widths = [float(w) for w in (above, below) if w is not None]
    std = float(np.mean(widths)) / HALF_90 if widths else UNKNOWN_STD
    return mean, max(std, LEAST_STD)


def interval_of(mean: float, std: float) -> tuple[float, float, float]:
    """Tc and the ends of its 90 % interval, in kelvin, of a normal distribution of the score."""
    ends = (mean, mean - HALF_90 * std, mean + HALF_90 * std)
    tc, low, high = (float(kelvin(value)) for value in ends)
    return tc, low, high


def expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    """Expected excess over the best value known (Mockus 1975; Jones et al., J. Glob. Optim. 13, 455 (1998)).

    Parameters
    ----------
    mean, std : ndarray, shape (n,)
        Of the normal predictive distribution; a std of 0 gives ``max(mean - best, 0)``.
    best : float

    Returns
    -------
    ndarray, shape (n,)
    """
    gap = mean - best
    safe = np.maximum(std, 1e-12)
    z = gap / safe
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.where(std > 0, gap * ndtr(z) + safe * density, np.maximum(gap, 0.0))


def probability_above(mean: Floats, std: Floats, target: float) -> Floats:
    """Probability that the value exceeds the target, shape (n,); 0 or 1 (1/2 at equality) where std is 0."""
    gap = mean - target
    sure = np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5))
    return np.where(std > 0, ndtr(gap / np.maximum(std, 1e-12)), sure)


def choose(
    mean: Floats,
    std: Floats,
    count: int,
    *,
    strategy: Strategy = "probability",
    target: float = 1.0,
    best: float | None = None,
    cost: Floats | None = None,
    features: Floats | None = None,
    apart: float = 0.0,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Choose a batch to label.

    Parameters
    ----------
    mean, std : ndarray, shape (n,)
        Predicted score and its standard deviation.
    count : int
        How many; all where fewer are left.
    strategy : {"expected-improvement", "probability", "greedy", "random"}
    target : float
        Score that counts as a success (``probability``).
    best : float, optional
        Best score known (``expected-improvement``); the target where not given.
    cost : ndarray, shape (n,), optional
        Positive; the gain is divided by it (not for ``random``).
    features : ndarray, shape (n, d), optional
        For diversity: of two candidates nearer than ``apart``, only the better one is taken while others are left.
    apart : float
        Euclidean distance in the space of the features.
    seed : int
        Of ``random`` and of ties.

    Returns
    -------
    ndarray of int
        Indices, best first.

    Raises
    ------
    SettingsError
        ``bad-setting`` for shapes that do not fit, numbers that are not finite, or an unknown strategy.
    """
    n = len(mean)
    _check(mean, std, count, strategy, cost, features)
    order = np.random.default_rng(seed).permutation(n)
    gain = acquisition(mean, std, strategy, target, best, cost)
    ranked = order[np.argsort(-gain[order], kind="stable")]
    if features is None or apart <= 0:
        return ranked[:count]
    return _spread(ranked, np.asarray(features, dtype=float), count, apart)


def acquisition(
    mean: Floats,
    std: Floats,
    strategy: Strategy,
    target: float,
    best: float | None = None,
    cost: Floats | None = None,
) -> Floats:
    """What a strategy makes largest, shape (n,), divided by the costs; zeros for ``random``. See `choose`."""
    if strategy == "random" or not len(mean):
        return np.zeros(len(mean))
    if strategy == "greedy":
        gain = mean.astype(float)
    elif strategy == "probability":
        gain = probability_above(mean, std, target)
    else:
        gain = expected_improvement(mean, std, target if best is None else best)
    # A negative gain (a mean of log Tc) must not look better for being dear.
    return gain if cost is None else (gain - min(float(gain.min()), 0.0)) / cost


def _check(
    mean: Floats, std: Floats, count: int, strategy: str, cost: Floats | None, features: Floats | None
) -> None:
    if strategy not in STRATEGIES:
        raise SettingsError("bad-setting", f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if mean.ndim != 1 or std.shape != mean.shape or count < 0:
        raise SettingsError("bad-setting", "mean and std must be equally long lists, count not negative")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
        raise SettingsError(
            "bad-setting", "means and standard deviations must be finite, the latter not negative"
        )
    if cost is not None and (cost.shape != mean.shape or not np.isfinite(cost).all() or (cost <= 0).any()):
        raise SettingsError("bad-setting", "costs must be positive, one for each candidate")
    if features is not None and len(features) != len(mean):
        raise SettingsError("bad-setting", "features must have one row for each candidate")


def _spread(ranked: NDArray[np.int64], features: Floats, count: int, apart: float) -> NDArray[np.int64]:
    """Walk down the ranking and skip what is near to something taken; then fill up with what was skipped."""
    taken: list[int] = []
    skipped: list[int] = []
    for i in ranked.tolist():
        if len(taken) == count:
            break
        near = taken and np.min(np.linalg.norm(features[taken] - features[i], axis=1)) < apart
        (skipped if near else taken).append(i)
    return np.array((taken + skipped)[:count], dtype=np.int64)
