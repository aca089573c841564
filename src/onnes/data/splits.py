"""Splits that do not leak: crystals that are alike stay on one side.

Two records belong to one group when they share the reduced formula or the symmetry fingerprint. A
fingerprint starts with the formula, so the formula decides; sets of a single composition (carbon) can be
grouped by fingerprint alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from onnes.data.records import Record
from onnes.errors import CrystalError, DataError

By = Literal["formula", "fingerprint"]


class Fold(NamedTuple):
    """Indices of one fold."""

    train: np.ndarray
    test: np.ndarray


class Parts(NamedTuple):
    """Indices of a three-way split."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def fingerprint_of(record: Record) -> str:
    """Symmetry fingerprint; ``formula|?`` where no symmetry can be found."""
    from onnes.crystal.symmetry import fingerprint

    try:
        return fingerprint(record.structure())
    except CrystalError:
        # Putting all of them together can only make groups larger, never leak.
        return f"{record.formula}|?"


def groups(
    records: Sequence[Record], *, by: By = "formula", links: Iterable[tuple[int, int]] = ()
) -> np.ndarray:
    """Number the groups of records that must stay together.

    Parameters
    ----------
    records : sequence of Record
    by : {"formula", "fingerprint"}
        ``formula`` joins equal formulas, and with them equal fingerprints, which contain the formula.
        ``fingerprint`` joins equal fingerprints only; use it with the pairs of `duplicates` as `links`.
    links : pairs of indices, optional
        Further pairs to join (known duplicates, a material's polymorphs, ...).

    Returns
    -------
    ndarray of int, shape (n,)
        Group of each record, numbered in order of first appearance.

    Raises
    ------
    DataError
        ``unknown-option``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if by not in ("formula", "fingerprint"):
        raise DataError("unknown-option", f"unknown grouping {by!r}; use one of formula, fingerprint")
    keys = [record.formula if by == "formula" else fingerprint_of(record) for record in records]
    first: dict[str, int] = {}
    edges = [(index, first.setdefault(key, index)) for index, key in enumerate(keys)]
    edges += list(links)
    if not edges:
        return np.zeros(0, dtype=int)
    left, right = np.array(edges, dtype=int).T
    size = len(records)
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    return _renumber(found)


def _renumber(values: np.ndarray) -> np.ndarray:
    """Number from 0 in order of first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=int)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _shuffled(group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of all groups, and the groups from large to small, equals in random order."""
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(sizes))
    return sizes, order[np.argsort(-sizes[order], kind="stable")]


def kfold(group: Sequence[int] | np.ndarray, n: int = 5, seed: int = 0) -> list[Fold]:
    """Cut into `n` folds of nearly equal size without cutting a group.

    Groups go, from large to small, to the fold that is smallest so far.

    Parameters
    ----------
    group : (n_records,) int
        From `groups`.
    n : int
        Number of folds.
    seed : int
        Decides which of the equally large groups go where.

    Returns
    -------
    list of Fold
        Each record is in exactly one `test`.

    Raises
    ------
    DataError
        ``bad-folds`` (n < 2), ``too-few-groups``.
    """
    labels = _renumber(np.asarray(group, dtype=int)) if len(group) else np.zeros(0, dtype=int)
    if n < 2:
        raise DataError("bad-folds", f"{n} folds; at least 2 are needed")
    sizes, order = _shuffled(labels, seed)
    if len(sizes) < n:
        raise DataError(
            "too-few-groups",
            f"{n} folds asked of {len(sizes)} groups; a group is never cut"
            + (" (one composition only: group by fingerprint)" if len(sizes) == 1 else ""),
        )
    fold_of, filled = np.empty(len(sizes), dtype=int), np.zeros(n, dtype=int)
    for index in order:
        fold_of[index] = np.argmin(filled)
        filled[fold_of[index]] += sizes[index]
    member = fold_of[labels]
    return [Fold(np.flatnonzero(member != k), np.flatnonzero(member == k)) for k in range(n)]


def fold_table(
    records: Sequence[Record], n: int = 5, *, seed: int = 0, by: By | str = "formula"
) -> dict[str, Any]:
    """Folds as ids, with what is needed to make them again.

    Grouping by fingerprint also joins crystals that the structure matcher calls equal, so a distorted twin does
    not land on the other side.

    Parameters
    ----------
    records : sequence of Record
    n, seed
        As in `kfold`.
    by : {"formula", "fingerprint"}

    Returns
    -------
    dict
        ``n``, ``groups``, ``seed``, ``by``, ``folds``: list of {"train": [ids], "test": [ids]}.

    Raises
    ------
    DataError
        As `groups` and `kfold`.
    """
    from onnes.data.twins import duplicates

    links = duplicates(records).indices if by == "fingerprint" else []
    group = groups(records, by=by, links=links)  # type: ignore[arg-type]  # checked there
    folds = [
        {"train": [records[i].id for i in fold.train], "test": [records[i].id for i in fold.test]}
        for fold in kfold(group, n, seed)
    ]
    number = int(group.max()) + 1 if len(group) else 0
    return {"n": len(records), "groups": number, "seed": seed, "by": by, "folds": folds}


def train_val_test(
    group: Sequence[int] | np.ndarray,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Parts:
    """Cut into train, validation and test without cutting a group.

    Parameters
    ----------
    group : (n_records,) int
        From `groups`.
    fractions : three numbers
        Not negative, sum 1. A part with a positive fraction is never empty.
    seed : int

    Returns
    -------
    Parts

    Raises
    ------
    DataError
        ``bad-fractions``, ``too-few-groups``.
    """
    share = np.asarray(fractions, dtype=float)
    if share.shape != (3,) or not np.all(share >= 0) or abs(share.sum() - 1) > 1e-9:
        raise DataError("bad-fractions", f"{fractions}: three numbers >= 0 that sum to 1 are needed")
    labels = _renumber(np.asarray(group, dtype=int)) if len(group) else np.zeros(0, dtype=int)
    sizes, order = _shuffled(labels, seed)
    wanted = np.flatnonzero(share)
    if len(sizes) < len(wanted):
        raise DataError("too-few-groups", f"{len(wanted)} parts asked of {len(sizes)} groups")
    missing = share * len(labels)
    part_of = np.zeros(len(sizes), dtype=int)
    for done, index in enumerate(order):
        empty = [k for k in wanted if not np.any(part_of[order[:done]] == k)]
        # The last groups are the smallest: they are kept for parts still empty.
        must = len(empty) and len(order) - done <= len(empty)
        part = max(empty, key=lambda k: missing[k]) if must else int(np.argmax(missing))
        part_of[index] = part
        missing[part] -= sizes[index]
    member = part_of[labels]
    return Parts(*(np.flatnonzero(member == k) for k in range(3)))


def group_sizes(group: np.ndarray) -> list[int]:
    """Sizes of the groups, largest first."""
    return sorted(np.bincount(group).tolist(), reverse=True) if len(group) else []


def size_histogram(group: np.ndarray) -> dict[int, int]:
    """How many groups there are of each size."""
    values, counts = np.unique(group_sizes(group), return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
