"""Figures with their number of crystals and a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Replicas of a bootstrap.
DRAWS = 400
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes
    ----------
    value : float
        NaN where n is 0.
    n : int
        Crystals (or pairs) it was computed from.
    low, high : float
        95 % interval; NaN where n is too small for one.
    interval : str
        How: ``wilson`` or ``bootstrap``.
    """

    value: float
    n: int
    low: float
    high: float
    interval: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, NaN as None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def share(count: int, n: int) -> Figure:
    """Share of n with Wilson's score interval (J. Am. Stat. Assoc. 22, 209 (1927)).

    Parameters
    ----------
    count, n : int

    Returns
    -------
    Figure
    """
    if not n:
        return Figure(math.nan, 0, math.nan, math.nan, "wilson")
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    p = count / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Figure(p, n, max(0.0, middle - half), min(1.0, middle + half), "wilson")


def resampled(
    statistic: Callable[..., float], *samples: Sequence[float] | Floats, seed: int = 0, draws: int = DRAWS
) -> Figure:
    """A statistic of one or more samples with a percentile bootstrap interval.

    Parameters
    ----------
    statistic : callable
        Of as many arrays as there are samples.
    *samples : sequences of numbers
        Finite. Each is resampled on its own; n is the size of the first.
    seed, draws : int

    Returns
    -------
    Figure
        NaN where any sample is empty; no interval where the first has fewer than two values.
    """
    arrays = [np.asarray(s, dtype=float) for s in samples]
    if any(len(a) == 0 for a in arrays):
        return Figure(math.nan, len(arrays[0]), math.nan, math.nan, "bootstrap")
    value = float(statistic(*arrays))
    if len(arrays[0]) < 2:
        return Figure(value, len(arrays[0]), math.nan, math.nan, "bootstrap")
    rng = np.random.default_rng(seed)
    drawn = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(draws)]
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Figure(value, len(arrays[0]), float(low), float(high), "bootstrap")
