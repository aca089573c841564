"""What to label next: batches by expected improvement, probability of success, the mean, or chance.

The quantity is a score that is to be large, usually log10 Tc, with a normal predictive distribution per candidate.
Costs divide the gain; a batch is spread out by taking only one of several candidates that lie close together.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from onnes.errors import SettingsError

Floats = NDArray[np.float64]
Strategy = Literal["expected-improvement", "probability", "greedy", "random"]
STRATEGIES: tuple[Strategy, ...] = ("expected-improvement", "probability", "greedy", "random")


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
    if strategy == "random":
        gain = np.zeros(n)
    elif strategy == "greedy":
        gain = mean.astype(float)
    elif strategy == "probability":
        gain = probability_above(mean, std, target)
    else:
        gain = expected_improvement(mean, std, target if best is None else best)
    if cost is not None and strategy != "random":
        # A negative gain (a mean of log Tc) must not look better for being dear.
        gain = (gain - gain.min()) / cost
    ranked = order[np.argsort(-gain[order], kind="stable")]
    if features is None or apart <= 0:
        return ranked[:count]
    return _spread(ranked, np.asarray(features, dtype=float), count, apart)


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
