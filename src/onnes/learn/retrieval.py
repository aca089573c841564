"""Precision and recall of finding rows above a threshold, and coverage of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from onnes.errors import DataError
from onnes.learn.metrics import FloatArray, Score, bootstrap, checked


@dataclass(frozen=True)
class Curve:
    """Precision and recall of the rows predicted at or above each cut, cuts falling.

    Attributes
    ----------
    threshold : float
        Positives are rows whose truth exceeds it.
    cut, precision, recall : ndarray, shape (m,)
        One entry per distinct prediction. Rows without a finite prediction are never retrieved, so recall
        ends below 1 when a positive is among them.
    average_precision : float
        ``sum (R_k - R_(k-1)) P_k``; NaN without positives.
    random : float
        What guessing at random reaches: the share of positives.
    n, positives, missing : int
        All rows, positives among them, rows without a finite prediction (included in `n`).
    """

    threshold: float
    cut: FloatArray
    precision: FloatArray
    recall: FloatArray
    average_precision: float
    random: float
    n: int
    positives: int
    missing: int

    def precision_at(self, recall: float) -> float:
        """Best precision among cuts that reach this recall; NaN when none does."""
        reached = self.precision[self.recall >= recall - 1e-12]
        return float(reached.max()) if len(reached) else float("nan")

    def at_cut(self, cut: float) -> tuple[float, float]:
        """Precision and recall of the rows predicted at or above `cut`; (NaN, 0) when there are none."""
        k = int((self.cut >= cut).sum()) - 1
        if k < 0:
            return float("nan"), 0.0 if self.positives else float("nan")
        return float(self.precision[k]), float(self.recall[k])


def precision_recall(truth: ArrayLike, predicted: ArrayLike, threshold: float) -> Curve:
    """Rank rows by prediction and compare with ``truth > threshold``.

    Parameters
    ----------
    truth, predicted : (n,) numbers
    threshold : float
        In their unit.

    Raises
    ------
    DataError
        ``length-mismatch``, ``not-finite``.
    """
    t, p, good = checked(truth, predicted)
    positive = t > threshold
    order = np.argsort(-p[good], kind="stable")
    cut, hit = p[good][order], positive[good][order]
    # Rows of one prediction cannot be told apart: only the last of them ends a step.
    last = np.flatnonzero(np.append(np.diff(cut) != 0.0, True)) if len(cut) else np.zeros(0, dtype=int)
    found = np.cumsum(hit)[last] if len(cut) else np.zeros(0)
    total = int(positive.sum())
    precision = found / (last + 1.0)
    recall = found / total if total else np.full(len(last), np.nan)
    ap = float(np.sum(np.diff(recall, prepend=0.0) * precision)) if total else float("nan")
    random = total / len(t) if len(t) else float("nan")
    return Curve(threshold, cut[last], precision, recall, ap, random, len(t), total, int((~good).sum()))


def average_precision(
    truth: ArrayLike,
    predicted: ArrayLike,
    group: ArrayLike,
    threshold: float,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Score:
    """Average precision with a 95 % interval over resampled groups.

    A row without a finite prediction counts as never retrieved: it lowers the score and is in `missing`.
    Parameters are those of `onnes.learn.metrics.bootstrap` and `precision_recall`.
    """
    p = np.asarray(predicted, dtype=float)
    good = np.isfinite(p)
    # Below every prediction, but finite, so that the rows stay in the resampling.
    lowest = (p[good].min() if good.any() else 0.0) - 1.0
    filled = np.where(good, p, lowest)

    def statistic(a: FloatArray, b: FloatArray) -> float:
        return precision_recall(a, np.where(b > lowest, b, np.nan), threshold).average_precision

    found = bootstrap("average_precision", truth, filled, group, draws=draws, seed=seed, statistic=statistic)
    missing = int((~np.atleast_2d(good).all(axis=0)).sum())
    return Score(found.name, found.value, found.n - missing, missing, found.low, found.high, found.groups)


@dataclass(frozen=True)
class Coverage:
    """How often intervals hold the truth, in one range.

    Attributes
    ----------
    low, high : float
        The range, ``low <= value < high``.
    n, covered, missing : int
        Rows with an interval, those of them that hold the truth, rows without one.
    share : float
        covered / n; NaN where n is 0.
    width : float
        Median width of the intervals.
    """

    low: float
    high: float
    n: int
    covered: int
    missing: int
    share: float
    width: float


def coverage(
    truth: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    edges: Sequence[float] = (),
    by: ArrayLike | None = None,
) -> list[Coverage]:
    """Coverage of intervals: all rows first, then each range between `edges`.

    Parameters
    ----------
    truth, low, high : (n,) numbers
        An infinite bound is allowed; a NaN bound counts as missing.
    edges : rising numbers
        Ranges are between neighbours. Rows outside the outermost edges are in the overall line only.
    by : (n,) numbers, optional
        What the ranges are of; the truth by default. A range of the truth is never known beforehand: state
        which one was used.

    Raises
    ------
    DataError
        ``length-mismatch``, ``not-finite``, ``bad-range``.
    """
    t, lower, _ = checked(truth, low)
    _, upper, _ = checked(truth, high)
    values = t if by is None else np.asarray(by, dtype=float)
    if values.shape != t.shape:
        raise DataError("length-mismatch", f"{len(t)} rows but ranges of shape {values.shape}")
    if any(b <= a for a, b in pairwise(edges)):
        raise DataError("bad-range", f"edges {tuple(edges)} must rise")
    known = ~(np.isnan(lower) | np.isnan(upper))
    held = known & (lower <= t) & (t <= upper)
    out = []
    for a, b in [(-np.inf, np.inf), *pairwise(edges)]:
        # The overall line takes every row, also one whose `by` is NaN.
        inside = np.ones(len(t), dtype=bool) if (a, b) == (-np.inf, np.inf) else (values >= a) & (values < b)
        scored = inside & known
        n, hits = int(scored.sum()), int((held & inside).sum())
        width = float(np.median((upper - lower)[scored])) if n else float("nan")
        missing = int((inside & ~known).sum())
        out.append(Coverage(float(a), float(b), n, hits, missing, hits / n if n else float("nan"), width))
    return out
