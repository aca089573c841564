"""Intervals that hold what they promise: conformal prediction on out-of-fold residuals.

Residuals must come from models that did not see the row's group (`onnes.data.splits.kfold`). The score of a
row is ``|s(truth) - s(prediction)| / u``, with s a transformation in which errors are alike over the range, and
u either 1 or ``hypot(ensemble deviation, floor)``. The interval is all values whose score does not exceed a
quantile of the calibration scores; nothing about the distribution of errors is assumed, only that a new group
is drawn like the groups of the calibration set (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random
World*, 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import DataError, SettingsError
from onnes.learn.metrics import FloatArray, checked
from onnes.learn.retrieval import Coverage, coverage

#: Floors of the deviation tried by `fit`, in units of the median deviation.
FLOORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Space:
    """Where errors are measured: as they are, or as ``ln(x + floor)`` for quantities that are not negative.

    Attributes
    ----------
    floor : float or None
        None measures plain differences. With a floor, errors are relative far above it and absolute far
        below; lower bounds of intervals are not below zero.
    """

    floor: float | None = None

    def __post_init__(self) -> None:
        if self.floor is not None and not (np.isfinite(self.floor) and self.floor > 0.0):
            raise SettingsError(
                "bad-floor", f"floor {self.floor} is not allowed; use a positive number or None"
            )

    def forward(self, x: ArrayLike) -> FloatArray:
        """Values to scores. Negative ones (a Tc rounded to -0.0002 K) count as zero where there is a floor."""
        values = np.asarray(x, dtype=float)
        return values if self.floor is None else np.log(np.maximum(values, 0.0) + self.floor)

    def backward(self, y: ArrayLike) -> FloatArray:
        """Scores to values."""
        values = np.asarray(y, dtype=float)
        return values if self.floor is None else np.maximum(np.exp(values) - self.floor, 0.0)


@dataclass(frozen=True)
class Conformal:
    """A calibrated interval.

    Attributes
    ----------
    level : float
        Share of unseen groups' rows that shall be inside.
    space : Space
    std_floor : float or None
        None ignores ensemble deviations; else the scale is ``hypot(std, std_floor)``, std given in `space`.
    edges : tuple of float
        Inner edges of the ranges of the *prediction* that have quantiles of their own (Mondrian); empty for
        one range.
    quantiles : tuple of float
        One per range, len(edges) + 1.
    n, groups : tuple of int
        Calibration rows and groups of each range.
    """

    level: float
    space: Space
    std_floor: float | None
    edges: tuple[float, ...]
    quantiles: tuple[float, ...]
    n: tuple[int, ...]
    groups: tuple[int, ...]

    def interval(self, predicted: ArrayLike, std: ArrayLike | None = None) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds, each of shape (n,); NaN where the prediction (or its std) is not finite.

        Parameters
        ----------
        predicted : (n,) numbers
        std : (n,) numbers, optional
            Ensemble deviation in `space`; needed exactly when `std_floor` is set.

        Raises
        ------
        SettingsError
            ``needs-std``.
        DataError
            ``length-mismatch``, ``bad-std``.
        """
        p = np.asarray(predicted, dtype=float)
        width = np.array(self.quantiles)[_range_of(p, self.edges)] * _scale(p, std, self.std_floor)
        # An infinite quantile times a zero scale is a promise of nothing, not NaN.
        width = np.where(np.isnan(width) & np.isfinite(p), np.inf, width)
        if std is not None:
            width = np.where(np.isfinite(np.asarray(std, dtype=float)), width, np.nan)
        middle = self.space.forward(p)
        with np.errstate(over="ignore"):
            low, high = self.space.backward(middle - width), self.space.backward(middle + width)
        known = np.isfinite(p) & ~np.isnan(width)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)

    def reach(self, predicted: ArrayLike) -> FloatArray:
        """Quantile of the range of each prediction, shape (n,); NaN where the prediction is not finite."""
        p = np.asarray(predicted, dtype=float)
        found = np.array(self.quantiles)[_range_of(p, self.edges)]
        return np.where(np.isfinite(p), found, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Conformal:
        """Rebuild from `to_dict`.

        Raises
        ------
        SettingsError
            ``bad-calibration``.
        """
        try:
            lists = {k: tuple(values[k]) for k in ("edges", "quantiles", "n", "groups")}
            space = Space(values["space"]["floor"])
            found = cls(values["level"], space, values["std_floor"], **lists)
        except (KeyError, TypeError) as error:
            raise SettingsError("bad-calibration", f"not a stored calibration: {error!r}") from None
        if len(found.quantiles) != len(found.edges) + 1:
            raise SettingsError("bad-calibration", "a calibration needs one quantile per range")
        return found


def enough(
    predicted: ArrayLike, group: ArrayLike, edges: Sequence[float], least: int = 50
) -> tuple[float, ...]:
    """Those of the inner edges that leave at least `least` groups in every range.

    Only predictions are looked at, never labels. An edge is given up when the range below it, or what is left
    above it, is too small: its rows join the range next to them.
    """
    p, labels = np.asarray(predicted, dtype=float), np.asarray(group)
    kept: list[float] = []
    low = -np.inf
    for edge in edges:
        below, above = (p >= low) & (p < edge), p >= edge
        if min(len(np.unique(labels[below])), len(np.unique(labels[above]))) >= least:
            kept.append(float(edge))
            low = edge
    return tuple(kept)


def _range_of(predicted: FloatArray, edges: Sequence[float]) -> NDArray[np.intp]:
    return (
        np.searchsorted(np.asarray(edges, dtype=float), predicted, side="right")
        if len(edges)
        else np.zeros(len(predicted), dtype=np.intp)
    )


def _scale(predicted: FloatArray, std: ArrayLike | None, floor: float | None) -> FloatArray:
    if floor is None:
        return np.ones(len(predicted))
    if std is None:
        raise SettingsError("needs-std", "this calibration scales with the ensemble deviation: give std")
    s = np.asarray(std, dtype=float)
    if s.shape != predicted.shape:
        raise DataError("length-mismatch", f"{len(predicted)} predictions but std of shape {s.shape}")
    if (s[np.isfinite(s)] < 0.0).any():
        raise DataError("bad-std", "a standard deviation is negative")
    return np.hypot(s, floor)


def quantile(scores: FloatArray, level: float, groups: int) -> float:
    """The score that bounds a new row with probability `level`.

    The finite-sample correction counts groups, the units that are exchangeable: the order statistic of rank
    ``ceil(n (groups + 1) level / groups)``; infinite when there are too few groups to promise the level.
    """
    n = len(scores)
    # Rounded first: (9 + 1) * 0.9 / 9 * 9 must be 9, not 9.000000000000002.
    rank = int(np.ceil(round(n * (groups + 1) * level / groups, 9))) if groups else n + 1
    return float(np.sort(scores)[rank - 1]) if rank <= n else float("inf")


def fit(
    truth: ArrayLike,
    predicted: ArrayLike,
    group: ArrayLike,
    *,
    level: float = 0.9,
    space: Space = Space(),
    std: ArrayLike | None = None,
    std_floor: float | None = None,
    edges: Sequence[float] = (),
) -> Conformal:
    """Calibrate on out-of-fold predictions.

    Parameters
    ----------
    truth, predicted : (n,) numbers
        Rows with a prediction that is not finite are left out; `Conformal.n` tells how many were used.
    group : (n,) labels
        Rows that are not independent share one.
    level : float
        Between 0 and 1.
    space : Space
    std : (n,) numbers, optional
        Ensemble deviation in `space`: intervals scale with it.
    std_floor : float, optional
        Added in quadrature to `std`. By default the one of `FLOORS` (times the median deviation) under which
        these residuals are most likely.
    edges : rising numbers
        Ranges of the prediction with quantiles of their own. A range needs ``level / (1 - level)`` groups to
        have a finite interval.

    Raises
    ------
    SettingsError
        ``bad-level``, ``bad-range``, ``bad-floor``, ``needs-std``.
    DataError
        ``length-mismatch``, ``not-finite``, ``bad-std``, ``no-rows``.
    """
    if not 0.0 < level < 1.0:
        raise SettingsError("bad-level", f"level {level} is not allowed; use a number between 0 and 1")
    if any(b <= a for a, b in pairwise(edges)):
        raise SettingsError("bad-range", f"edges {tuple(edges)} must rise")
    t, p, good = checked(truth, predicted)
    labels = np.asarray(group)
    if labels.shape != t.shape:
        raise DataError("length-mismatch", f"{len(t)} rows but groups of shape {labels.shape}")
    s = None if std is None else np.asarray(std, dtype=float)
    if s is None and std_floor is not None:
        raise SettingsError("needs-std", "a floor of the deviation without deviations: give std")
    if s is not None:
        _scale(p, s, 0.0)  # checks shape and sign
        good = good & np.isfinite(s)
    if not good.any():
        raise DataError("no-rows", "no row with a finite prediction to calibrate on")
    t, p, labels, s = t[good], p[good], labels[good], None if s is None else s[good]
    residual = np.abs(space.forward(t) - space.forward(p))
    if s is None:
        return _fit(residual, p, labels, None, None, level, space, edges)
    if std_floor is not None:
        if not (np.isfinite(std_floor) and std_floor >= 0.0):
            raise SettingsError("bad-floor", f"std_floor {std_floor} is not allowed; use a number >= 0")
        return _fit(residual, p, labels, s, std_floor, level, space, edges)
    floors = [f * float(np.median(s)) for f in FLOORS]
    best = min(floors, key=lambda f: _surprise(residual, np.hypot(s, f)))
    return _fit(residual, p, labels, s, best, level, space, edges)


def _surprise(residual: FloatArray, scale: FloatArray) -> float:
    """Mean negative log-likelihood of the residuals, up to a constant.

    Laplace errors of width c times the scale, with the best c put in. Choosing the narrowest intervals instead
    would leave the rows with large deviations uncovered.
    """
    if not (scale > 0.0).all():
        return float("inf")
    spread = float(np.mean(residual / scale))
    return float(np.mean(np.log(scale))) + (float(np.log(spread)) if spread > 0.0 else -np.inf)


def _fit(
    residual: FloatArray,
    p: FloatArray,
    labels: NDArray[Any],
    s: FloatArray | None,
    floor: float | None,
    level: float,
    space: Space,
    edges: Sequence[float],
) -> Conformal:
    scale = _scale(p, s, floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A zero residual is inside any interval, also where the scale is zero.
        scores = np.where(residual > 0.0, residual / scale, 0.0)
    where = _range_of(p, edges)
    quantiles, rows, counts = [], [], []
    for k in range(len(edges) + 1):
        inside = where == k
        number = len(np.unique(labels[inside]))
        quantiles.append(quantile(scores[inside], level, number))
        rows.append(int(inside.sum()))
        counts.append(number)
    return Conformal(level, space, floor, tuple(edges), tuple(quantiles), tuple(rows), tuple(counts))


def cross_intervals(
    truth: ArrayLike,
    predicted: ArrayLike,
    group: ArrayLike,
    *,
    folds: int = 5,
    seed: int = 0,
    level: float = 0.9,
    space: Space = Space(),
    std: ArrayLike | None = None,
    std_floor: float | None = None,
    edges: Sequence[float] = (),
) -> tuple[FloatArray, FloatArray]:
    """Intervals of every row, each calibrated on other groups only: what an honest coverage is counted on.

    Parameters are those of `fit`; groups are cut into `folds` by `onnes.data.splits.kfold`.

    Returns
    -------
    low, high : ndarray, shape (n,)
    """
    from onnes.data.splits import kfold

    t, p, _ = checked(truth, predicted)
    names, index = np.unique(np.asarray(group), return_inverse=True)
    s = None if std is None else np.asarray(std, dtype=float)
    low, high = np.full(len(t), np.nan), np.full(len(t), np.nan)
    for train, test in kfold(index, min(folds, len(names)), seed):
        found = fit(
            t[train],
            p[train],
            index[train],
            level=level,
            space=space,
            std=None if s is None else s[train],
            std_floor=std_floor,
            edges=edges,
        )
        low[test], high[test] = found.interval(p[test], None if s is None else s[test])
    return low, high


def coverage_report(
    truth: ArrayLike,
    predicted: ArrayLike,
    group: ArrayLike,
    *,
    ranges: Sequence[float] = (),
    by_truth: bool = False,
    **settings: Any,
) -> list[Coverage]:
    """Cross-fold coverage, overall and per range.

    Parameters
    ----------
    ranges : rising numbers
        Ranges to report, of the prediction (what a user has in hand) or of the truth.
    by_truth : bool
    **settings
        Of `cross_intervals`.
    """
    low, high = cross_intervals(truth, predicted, group, **settings)
    return coverage(truth, low, high, edges=ranges, by=None if by_truth else predicted)
