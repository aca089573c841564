"""What a model knows of a scored row. Every figure names it, so that no error on known formulas passes for a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnes.errors import DataError
from onnes.learn.plan import Plan

Index = NDArray[np.intp]

#: Nothing is known against the row: baselines, which are trained on other groups.
PLAIN = ""
#: The formula is in no table of the model.
UNSEEN_ROWS = "unseen"
#: The formula was trained on, but only heads that left it out were asked.
OUT_OF_FOLD = "out of fold"
#: The formula was trained on, but only members whose bootstrap sample lacked it were asked.
OUT_OF_BAG = "out of bag"
#: By part of the table of formulas of `onnes train`.
SEEN_PARTS = {"training": "seen (trained on)", "validation": "seen (early stopping)"}
#: The model's card names the database of the row as training data.
IN_SAMPLE = "in sample"
#: The checkpoint (of an earlier version) does not say.
NOT_KNOWN = "seen or not"

#: Marks whose figures are a test of the model.
CLEAN = (PLAIN, UNSEEN_ROWS, OUT_OF_FOLD, OUT_OF_BAG)


def headline(marks: Sequence[str], scored: Index) -> tuple[str, Index]:
    """Rows that the first figures are of, and their name.

    All rows that test the model; where there are none, all rows, under names that say so.

    Parameters
    ----------
    marks : sequence of str
        Of every row.
    scored : ndarray of int

    Returns
    -------
    name : str
        Empty where nothing needs to be said.
    rows : ndarray of int
    """
    clean = np.array([i for i in scored if marks[int(i)] in CLEAN], dtype=np.intp)
    rows = clean if len(clean) else scored
    found = sorted({marks[int(i)] for i in rows})
    if PLAIN in found and len(found) > 1:
        found[found.index(PLAIN)] = "not in sample"
    if len(found) > 1 and set(found) <= set(SEEN_PARTS.values()):
        found = ["seen"]
    return " or ".join(found), rows


def refuse_seen(marks: Sequence[str], rows: Index) -> None:
    """Refuse rows among which not one tests the model.

    Raises
    ------
    DataError
        ``all-seen``.
    """
    if len(rows) and all(marks[int(i)] not in CLEAN for i in rows):
        raise DataError("all-seen", f"no row is left: {_counts(marks, rows)}")


def without_seen(plan: Plan, marks: Sequence[str]) -> Plan:
    """The plan without the rows that do not test the model; trainings stay as they are.

    Raises
    ------
    DataError
        ``all-seen``.
    """
    refuse_seen(marks, plan.scored)
    turns = [
        replace(turn, test=np.array([i for i in turn.test if marks[int(i)] in CLEAN], dtype=np.intp))
        for turn in plan.turns
    ]
    gone = len(plan.scored) - len(np.unique(np.concatenate([turn.test for turn in turns])))
    notes = [*plan.notes, f"{gone} rows that the model knows were left out"] if gone else plan.notes
    return replace(plan, turns=turns, notes=notes)


def notes(marks: Sequence[str], rows: Index) -> list[str]:
    """In plain words, how many rows are no test of the model; empty where all are."""
    bad = [int(i) for i in rows if marks[int(i)] not in CLEAN]
    if not bad:
        return []
    counts = _counts(marks, rows)
    if len(bad) == len(rows):
        return [f"NOT A TEST: no row is of an unseen formula ({counts}); the figures below flatter the model"]
    return [
        f"the first figures leave out {len(bad)} of {len(rows)} rows ({counts}); those have lines of their own"
    ]


def _counts(marks: Sequence[str], rows: Index) -> str:
    found = Counter(marks[int(i)] or "nothing known" for i in rows)
    return ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
