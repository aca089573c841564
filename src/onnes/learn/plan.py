"""Which rows are trained on and which are scored: grouped folds, or a split that the records name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.data.splits import By, groups, kfold
from onnes.errors import DataError, SettingsError

Index = NDArray[np.intp]

#: Values of a split field, by part.
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Turn:
    """One training and what it is scored on.

    Attributes
    ----------
    repeat, fold : int
    train, val, test : ndarray of int
        Indices. `val` is never trained on; it is empty for folds.
    """

    repeat: int
    fold: int
    train: Index
    val: Index
    test: Index


@dataclass(frozen=True)
class Plan:
    """All turns of an evaluation.

    Attributes
    ----------
    text : str
        The split in words, with every number needed to make it again.
    group : ndarray of int, shape (n,)
        Rows that are resampled together.
    turns : list of Turn
    leaked : ndarray of int
        Scored rows with a twin or their formula among the rows that could be learned from.
    notes : list of str
    stored : bool
        The split is one that the records name.
    """

    text: str
    group: Index
    turns: list[Turn]
    leaked: Index = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    notes: list[str] = field(default_factory=list)
    stored: bool = False

    @property
    def repeats(self) -> int:
        """How often every row is scored."""
        return 1 + max(turn.repeat for turn in self.turns)

    @property
    def scored(self) -> Index:
        """Rows that are scored, rising."""
        return np.unique(np.concatenate([turn.test for turn in self.turns]))


def folds_plan(
    records: Sequence[Record], folds: int = 5, repeats: int = 1, seed: int = 0, by: By = "formula"
) -> Plan:
    """Repeated k-fold in which whole groups stay together; repeat r uses seed + r.

    Parameters
    ----------
    records : sequence of Record
    folds, repeats, seed : int
    by : {"formula", "fingerprint"}
        See `onnes.data.splits.groups`; fingerprints also join what the structure matcher calls equal.

    Raises
    ------
    SettingsError
        ``bad-repeats``.
    DataError
        ``bad-folds``, ``too-few-groups``, ``unknown-option``.
    """
    if repeats < 1:
        raise SettingsError("bad-repeats", f"{repeats} repeats; at least 1 is needed")
    group = _groups(records, by)
    none = np.zeros(0, dtype=np.intp)
    turns = [
        Turn(r, k, fold.train, none, fold.test)
        for r in range(repeats)
        for k, fold in enumerate(kfold(group, folds, seed + r))
    ]
    again = f", repeated {repeats} times" if repeats > 1 else ""
    text = f"{folds} folds of whole {by} groups ({int(group.max()) + 1}){again}, seed {seed}"
    return Plan(text, group, turns)


def named_plan(records: Sequence[Record], name: str) -> Plan:
    """The split stored in a field of the records: trained on ``train``, scored on ``test``.

    Raises
    ------
    DataError
        ``unknown-split``, ``empty-part``.
    """
    from onnes.data.twins import leak_report

    part = np.array([PARTS.get(str(record.meta.get(name, "")).lower(), "") for record in records])
    if not (part != "").any():
        raise DataError("unknown-split", f"no record has a split {name!r}; these have: {_splits(records)}")
    train, val, test = (np.flatnonzero(part == p) for p in ("train", "val", "test"))
    for word, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise DataError("empty-part", f"split {name!r} has no {word} rows with this label")
    learned = [records[int(i)] for i in np.concatenate([train, val])]
    report = leak_report(learned, [records[int(i)] for i in test])
    gone = set(report.leaked_test_ids)
    leaked = np.array([i for i in test if records[int(i)].id in gone], dtype=np.intp)
    text = f"split {name} as stored: {len(train)} train, {len(val)} val, {len(test)} test"
    notes = []
    if len(leaked):
        names = ", ".join(sorted(gone)[:5]) + (", ..." if len(gone) > 5 else "")
        notes.append(
            f"{len(leaked)} of {len(test)} test rows share formula or crystal with train or val: {names}"
        )
    if report.not_compared:
        notes.append(f"{report.not_compared} pairs of equal formula were not compared as crystals")
    unused = int((part == "").sum())
    if unused:
        notes.append(f"{unused} rows are in no part of {name} and were not used")
    return Plan(text, groups(records), [Turn(0, 0, train, val, test)], leaked, notes, True)


def whole_plan(records: Sequence[Record], by: By = "formula") -> Plan:
    """Score every row once and train on none: for a model that is there already.

    Raises
    ------
    DataError
        ``unknown-option``.
    """
    group = _groups(records, by)
    none = np.zeros(0, dtype=np.intp)
    turn = Turn(0, 0, none, none, np.arange(len(records)))
    return Plan(f"every row once, {int(group.max()) + 1} {by} groups", group, [turn])


def _groups(records: Sequence[Record], by: By) -> Index:
    links: list[tuple[int, int]] = []
    if by == "fingerprint":
        from onnes.data.twins import duplicates

        links = duplicates(records).indices
    return groups(records, by=by, links=links)


def _splits(records: Sequence[Record]) -> str:
    """Fields that look like splits."""
    found = {
        key
        for record in records
        for key, value in record.meta.items()
        if isinstance(value, str) and value.lower() in PARTS
    }
    return ", ".join(sorted(found)) or "none"
