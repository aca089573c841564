"""How good a prediction is: errors, ranking, and their uncertainty over groups.

Every result carries its `n`. A row whose prediction is not a finite number is counted as missing and never
dropped in silence; a truth that is not finite is refused, for it cannot be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.errors import DataError

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray, FloatArray], float]


@dataclass(frozen=True)
class Score:
    """One figure with what it was computed from.

    Attributes
    ----------
    name : str
    value : float
        NaN where it is undefined (no scored row, no variance).
    n : int
        Rows scored.
    missing : int
        Rows without a finite prediction, not in `n`.
    low, high : float
        Confidence interval; NaN when none was asked for.
    groups : int
        Groups resampled for it; 0 when none was asked for.
    """

    name: str
    value: float
    n: int
    missing: int = 0
    low: float = float("nan")
    high: float = float("nan")
    groups: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def checked(truth: ArrayLike, predicted: ArrayLike) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Both columns as floats, and where the prediction is a finite number.

    Raises
    ------
    DataError
        ``length-mismatch``; ``not-finite`` for a truth that is NaN or infinite.
    """
    t, p = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
    if t.ndim != 1 or t.shape != p.shape:
        raise DataError(
            "length-mismatch", f"truth has shape {t.shape}, prediction {p.shape}; both must be (n,)"
        )
    bad = np.flatnonzero(~np.isfinite(t))
    if len(bad):
        raise DataError("not-finite", f"truth of row {bad[0]} is {t[bad[0]]}: it cannot be scored")
    return t, p, np.isfinite(p)


def _mae(t: FloatArray, p: FloatArray) -> float:
    return float(np.abs(p - t).mean()) if len(t) else float("nan")


def _rmse(t: FloatArray, p: FloatArray) -> float:
    return float(np.sqrt(((p - t) ** 2).mean())) if len(t) else float("nan")


def _r2(t: FloatArray, p: FloatArray) -> float:
    total = float(((t - t.mean()) ** 2).sum()) if len(t) > 1 else 0.0
    return 1.0 - float(((p - t) ** 2).sum()) / total if total > 0.0 else float("nan")


def _ranks(x: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _spearman(t: FloatArray, p: FloatArray) -> float:
    if len(t) < 2:
        return float("nan")
    a, b = _ranks(t), _ranks(p)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0.0 else float("nan")


def _bias(t: FloatArray, p: FloatArray) -> float:
    return float((p - t).mean()) if len(t) else float("nan")


#: Statistics of (truth, prediction), by name. R2 and Spearman are NaN where truth has no variance.
STATISTICS: dict[str, Statistic] = {
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
    "spearman": _spearman,
    "bias": _bias,
}


def score(name: str, truth: ArrayLike, predicted: ArrayLike) -> Score:
    """One statistic without an interval.

    Parameters
    ----------
    name : {"mae", "rmse", "r2", "spearman", "bias"}
        Bias is the mean of prediction minus truth.
    truth, predicted : (n,) numbers
        In one unit.

    Raises
    ------
    DataError
        ``unknown-metric``, ``length-mismatch``, ``not-finite``.
    """
    if name not in STATISTICS:
        raise DataError("unknown-metric", f"unknown metric {name!r}; use one of {', '.join(STATISTICS)}")
    t, p, good = checked(truth, predicted)
    return Score(name, STATISTICS[name](t[good], p[good]), int(good.sum()), int((~good).sum()))


def mae(truth: ArrayLike, predicted: ArrayLike) -> Score:
    """Mean absolute error; see `score`."""
    return score("mae", truth, predicted)


def rmse(truth: ArrayLike, predicted: ArrayLike) -> Score:
    """Root mean square error; see `score`."""
    return score("rmse", truth, predicted)


def r2(truth: ArrayLike, predicted: ArrayLike) -> Score:
    """Share of the variance explained, ``1 - sum (p - t)^2 / sum (t - mean t)^2``; see `score`."""
    return score("r2", truth, predicted)


def spearman(truth: ArrayLike, predicted: ArrayLike) -> Score:
    """Rank correlation, ties with mean ranks; see `score`."""
    return score("spearman", truth, predicted)


def median_baseline(train_truth: ArrayLike, truth: ArrayLike) -> Score:
    """MAE on `truth` of the constant that is the median of the training rows.

    Raises
    ------
    DataError
        ``no-training-rows``, ``not-finite``.
    """
    train = np.asarray(train_truth, dtype=float)
    if train.size == 0:
        raise DataError("no-training-rows", "a median baseline needs training rows")
    if not np.isfinite(train).all():
        raise DataError("not-finite", "a training label is not finite")
    t = np.asarray(truth, dtype=float)
    return score("mae", t, np.full(t.shape, float(np.median(train))))


def resamples(group: ArrayLike, draws: int = 1000, seed: int = 0) -> list[NDArray[np.intp]]:
    """Bootstrap samples of rows that take or leave whole groups.

    Rows of one formula err together: resampling rows would make intervals too narrow.

    Parameters
    ----------
    group : (n,) labels
    draws, seed : int

    Returns
    -------
    list of ndarray of int
        Row indices of each sample. A sample holds as many groups as there are; its number of rows varies.

    Raises
    ------
    DataError
        ``no-rows``.
    """
    labels = np.asarray(group)
    if labels.size == 0:
        raise DataError("no-rows", "nothing to resample")
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    start = np.cumsum(counts) - counts
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(draws):
        pick = rng.integers(len(counts), size=len(counts))
        size = counts[pick]
        first = np.repeat(start[pick] - (np.cumsum(size) - size), size)
        samples.append(order[first + np.arange(size.sum())])
    return samples


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Central interval of bootstrap values; undefined ones (NaN) are left out, all undefined gives NaN."""
    kept = np.asarray(values, dtype=float)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.percentile(kept, [50.0 * (1.0 - level), 50.0 * (1.0 + level)])
    return float(low), float(high)


def bootstrap(
    name: str,
    truth: ArrayLike,
    predicted: ArrayLike,
    group: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    statistic: Statistic | None = None,
) -> Score:
    """A statistic with a percentile interval over resampled groups.

    Parameters
    ----------
    name : str
        Of `STATISTICS`, or any name when `statistic` is given.
    truth : (n,) numbers
    predicted : (n,) or (repeats, n) numbers
        Several predictions of a row (repeated cross-validation) are scored one repeat at a time and the
        scores averaged: averaging the predictions would score an ensemble that nobody has. A row without a
        finite prediction in any repeat is missing.
    group : (n,) labels
        Rows that are not independent (one formula) share a label.
    draws, seed : int
    level : float
        Of the interval.
    statistic : callable, optional
        ``(truth, predicted) -> float``, called with finite predictions only.

    Raises
    ------
    DataError
        As `score`, and ``length-mismatch`` of the groups.
    """
    repeats = np.atleast_2d(np.asarray(predicted, dtype=float))
    parts = [checked(truth, row) for row in repeats]
    t, labels = parts[0][0], np.asarray(group)
    good = np.logical_and.reduce([part[2] for part in parts])
    if labels.shape != t.shape:
        raise DataError("length-mismatch", f"{len(t)} rows but groups of shape {labels.shape}")
    if statistic is None:
        score(name, t[:0], t[:0])  # refuses unknown names
        statistic = STATISTICS[name]
    t, repeats, labels = t[good], repeats[:, good], labels[good]
    missing = int((~good).sum())
    if not len(t):
        return Score(name, float("nan"), 0, missing)

    def averaged(rows: NDArray[np.intp] | slice) -> float:
        return float(np.mean([statistic(t[rows], p[rows]) for p in repeats]))

    groups = len(np.unique(labels))
    # One group can only be drawn again and again: an interval of no width would be a lie.
    drawn = [averaged(rows) for rows in resamples(labels, draws, seed)] if groups > 1 else []
    low, high = interval(drawn, level)
    return Score(name, averaged(slice(None)), len(t), missing, low, high, groups)


@dataclass(frozen=True)
class ElementError:
    """Errors of the crystals that contain an element.

    Attributes
    ----------
    element : str
    n, missing : int
        Crystals scored, and crystals without a finite prediction.
    mae, bias : float
        Bias is the mean of prediction minus truth. NaN where n is 0.
    """

    element: str
    n: int
    missing: int
    mae: float
    bias: float


def per_element(
    truth: ArrayLike, predicted: ArrayLike, species: Sequence[Sequence[str]]
) -> list[ElementError]:
    """Errors by element, elements in alphabetical order; a crystal counts once for each of its elements."""
    t, p, good = checked(truth, predicted)
    if len(species) != len(t):
        raise DataError("length-mismatch", f"{len(t)} rows but {len(species)} lists of elements")
    rows: dict[str, list[int]] = {}
    for i, symbols in enumerate(species):
        for symbol in set(symbols):
            rows.setdefault(symbol, []).append(i)
    out = []
    for symbol in sorted(rows):
        index = np.array(rows[symbol])
        kept = index[good[index]]
        out.append(
            ElementError(
                symbol, len(kept), len(index) - len(kept), _mae(t[kept], p[kept]), _bias(t[kept], p[kept])
            )
        )
    return out
