"""From predictions to the lines of a table: all rows, parts of them, and what a model knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.errors import DataError
from onnes.learn import metrics, retrieval
from onnes.learn.marks import CLEAN, headline
from onnes.learn.metrics import Score
from onnes.learn.plan import Plan

if TYPE_CHECKING:
    from onnes.learn.evaluate import Options

FloatArray = NDArray[np.float64]
Index = NDArray[np.intp]

_RANGES: dict[str, tuple[float, ...]] = {
    "lambda": (0.0, 0.3, 0.6, 1.2, np.inf),
    "omega_log_K": (0.0, 100.0, 200.0, 300.0, np.inf),
    "Tc": (-np.inf, 1.0, 5.0, 10.0, np.inf),
    "formation_energy_eV_atom": (-np.inf, -2.0, -1.0, 0.0, np.inf),
}


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    rows : str
        Which rows: ``all``, ``leak-free``, ``unseen``, ``set=DS-B``, a range of the truth, ...
    score : Score
        Of the model.
    constant : float
        The same for the median of the training rows; for average precision, a random ranking. NaN for
        Spearman and for ``gain``, the MAE of the median minus the MAE of the model.
    """

    rows: str
    score: Score
    constant: float


@dataclass
class Predicted:
    """Predictions of every repeat.

    Attributes
    ----------
    value, median, low, high : ndarray, shape (repeats, n)
        NaN where a row is not scored.
    fold : ndarray of int, shape (repeats, n)
    mark : list of str
        What the model knows of each row (`onnes.learn.marks`).
    """

    value: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray
    fold: Index
    mark: list[str]

    @classmethod
    def empty(cls, repeats: int, n: int) -> Predicted:
        """Nothing predicted yet."""
        shape = (repeats, n)
        blank = [np.full(shape, np.nan) for _ in range(4)]
        return cls(blank[0], blank[1], blank[2], blank[3], np.full(shape, -1, dtype=np.intp), [""] * n)

    def put_marks(self, rows: Index, marks: Sequence[str]) -> None:
        """Set the marks of some rows."""
        for i, mark in zip(rows, marks, strict=True):
            self.mark[int(i)] = mark


def ranges_of(target: str) -> tuple[float, ...]:
    """Edges of the ranges in which errors and coverage are listed; empty where none are known."""
    return _RANGES.get("Tc" if target.startswith("Tc") else target, ())


def _subsets(
    records: Sequence[Record], truth: FloatArray, found: Predicted, plan: Plan, options: Options
) -> list[tuple[str, Index, bool]]:
    """Name, rows, and whether every metric (or the MAE alone) is wanted."""
    head, rows = headline(found.mark, plan.scored)
    mark = np.array(found.mark)
    whole = "as published" if plan.stored else "all"
    out: list[tuple[str, Index, bool]] = [(head or whole, rows, True)]
    # No line on rows that the model knows goes without saying so.
    prefix = "" if all(m in CLEAN for m in set(mark[rows])) else f"{head}: "
    if plan.stored:
        out.append((f"{prefix}leak-free", np.setdiff1d(rows, plan.leaked), True))
    in_head = set(mark[rows])
    others = sorted(set(mark[plan.scored]) - (in_head if len(in_head) == 1 else set()))
    out += [(m or "not in sample", plan.scored[mark[plan.scored] == m], True) for m in others]
    if options.by:
        values = np.array([str(records[int(i)].meta.get(options.by, "")) for i in rows])
        if not (values != "").any():
            raise DataError("unknown-field", f"no record has a field {options.by!r}")
        names = sorted(set(values))
        out += [(f"{prefix}{options.by}={v or 'none'}", rows[values == v], True) for v in names]
    for a, b in pairwise(ranges_of(options.target)):
        inside = rows[(truth[rows] >= a) & (truth[rows] < b)]
        out.append((f"{prefix}truth {a:g} to {b:g}", inside, False))
    return [entry for entry in out if len(entry[1])]


def lines_of(
    records: Sequence[Record], truth: FloatArray, found: Predicted, plan: Plan, options: Options
) -> list[Line]:
    """The table: every metric with its interval and the constant's."""
    lines = []
    for name, rows, every in _subsets(records, truth, found, plan, options):
        t, p, m, group = truth[rows], found.value[:, rows], found.median[:, rows], plan.group[rows]
        for metric in ("mae", "rmse", "r2", "spearman") if every else ("mae",):
            score = metrics.bootstrap(metric, t, p, group, draws=options.draws, seed=options.seed)
            # A constant ranks nothing; fold medians differ by chance and would only pretend to.
            constant = np.nan
            if metric != "spearman":
                constant = float(np.mean([metrics.score(metric, t, row).value for row in m]))
            lines.append(Line(name, score, constant))
        if not every:
            continue
        # A mean of differences of errors: its interval is that of a paired comparison.
        difference = np.abs(m - t) - np.abs(p - t)
        gain = metrics.bootstrap("bias", np.zeros(len(t)), difference, group, draws=options.draws)
        lines.append(Line(name, replace(gain, name="gain"), np.nan))
        if options.cut is not None:
            ap = retrieval.average_precision(t, p, group, options.cut, draws=options.draws, seed=options.seed)
            lines.append(Line(name, ap, float(np.mean(t > options.cut))))
    return lines


def rows_of(
    records: Sequence[Record], truth: FloatArray, found: Predicted, plan: Plan
) -> list[dict[str, Any]]:
    """Every scored row of every repeat, for the csv."""
    leaked = set(plan.leaked.tolist())
    return [
        {
            "id": records[int(i)].id,
            "formula": records[int(i)].formula,
            "group": int(plan.group[i]),
            "repeat": r,
            "fold": int(found.fold[r, i]),
            "truth": float(truth[i]),
            "predicted": float(found.value[r, i]),
            "low": float(found.low[r, i]),
            "high": float(found.high[r, i]),
            "median": float(found.median[r, i]),
            "leaked": int(i) in leaked,
            "known": found.mark[int(i)],
        }
        for r in range(plan.repeats)
        for i in plan.scored
    ]
