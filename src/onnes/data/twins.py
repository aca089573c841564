"""The same crystal twice: inside a set, or across a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.data.records import Record
from onnes.data.splits import fingerprint_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Pairs handed to the structure matcher (about 5 ms each) before the rest is reported as not compared.
MAX_PAIRS = 20_000
#: Formulas with more pairs than this are searched among near neighbours in the AMD invariant only.
MANY = 2_000
NEIGHBOURS = 8

Pair = tuple[int, int]


@dataclass(frozen=True)
class DuplicateReport:
    """Equal crystals inside one set.

    Attributes
    ----------
    pairs : list of (id, id)
        Pairs that pymatgen's StructureMatcher calls equal.
    indices : list of (int, int)
        The same pairs as positions in the set.
    n : int
        Records in the set.
    compared, not_compared : int
        Pairs of equal formula that were, and were not, given to the matcher.
    """

    pairs: list[tuple[str, str]]
    indices: list[Pair]
    n: int
    compared: int
    not_compared: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LeakReport:
    """What a test set has in common with its training set.

    Attributes
    ----------
    shared_ids, shared_formulas, shared_fingerprints : sorted lists of str
    equal_pairs : list of (train id, test id)
        Pairs that pymatgen's StructureMatcher calls equal.
    leaked_test_ids : sorted list of str
        Test records with an equal crystal, a shared formula or a shared fingerprint in train.
    compared, not_compared : int
        Pairs of equal formula that were, and were not, given to the matcher.
    """

    shared_ids: list[str]
    shared_formulas: list[str]
    shared_fingerprints: list[str]
    equal_pairs: list[tuple[str, str]]
    leaked_test_ids: list[str]
    compared: int
    not_compared: int

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return not (self.shared_ids or self.leaked_test_ids)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "clean": self.clean}


def duplicates(records: Sequence[Record], *, max_pairs: int = MAX_PAIRS) -> DuplicateReport:
    """Find crystals that occur more than once in a set.

    Pairs of equal formula go to the structure matcher: all of them for most formulas; only pairs of near
    neighbours in the average-minimum-distance invariant for formulas with more than `MANY` pairs.

    Parameters
    ----------
    records : sequence of Record
    max_pairs : int
        Most pairs to compare.
    """
    members = _by_formula(records)
    spaces = [_Space(ids, ids, len(ids) * (len(ids) - 1) // 2) for ids in members.values()]
    equal, compared, left = _match(spaces, records, records, max_pairs)
    named = [(records[i].id, records[j].id) for i, j in equal]
    return DuplicateReport(named, equal, len(records), compared, left)


def leak_report(train: Sequence[Record], test: Sequence[Record], *, max_pairs: int = MAX_PAIRS) -> LeakReport:
    """List what `test` shares with `train`: ids, formulas, fingerprints, equal crystals.

    Parameters
    ----------
    train, test : sequence of Record
    max_pairs : int
        Most pairs to compare with the structure matcher.
    """
    left_side, right_side = _by_formula(train), _by_formula(test)
    formulas = sorted(left_side.keys() & right_side.keys())
    spaces = [_Space(left_side[f], right_side[f], len(left_side[f]) * len(right_side[f])) for f in formulas]
    equal, compared, left = _match(spaces, train, test, max_pairs)
    # A fingerprint starts with the formula: only records of shared formulas can share one.
    seen = {fingerprint_of(train[i]) for f in formulas for i in left_side[f]}
    prints = {fingerprint_of(test[j]) for f in formulas for j in right_side[f]}
    return LeakReport(
        shared_ids=sorted({r.id for r in train} & {r.id for r in test}),
        shared_formulas=formulas,
        shared_fingerprints=sorted(seen & prints),
        equal_pairs=[(train[i].id, test[j].id) for i, j in equal],
        leaked_test_ids=sorted({test[j].id for f in formulas for j in right_side[f]}),
        compared=compared,
        not_compared=left,
    )


@dataclass(frozen=True)
class _Space:
    """Records of one formula to be compared; `left` is `right` inside one set."""

    left: list[int]
    right: list[int]
    total: int

    def pairs(self) -> Iterable[Pair]:
        return combinations(self.left, 2) if self.left is self.right else product(self.left, self.right)


def _by_formula(records: Sequence[Record]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        found[record.formula].append(index)
    return dict(found)


def _match(
    spaces: Sequence[_Space], left: Sequence[Record], right: Sequence[Record], max_pairs: int
) -> tuple[list[Pair], int, int]:
    """Equal pairs, number compared, number left out."""
    from onnes.crystal.amd import same_crystal

    wanted: list[Pair] = []
    near: list[tuple[float, Pair]] = []
    for space in sorted(spaces, key=lambda s: s.total):
        if space.total <= MANY:
            wanted += space.pairs()
        else:
            near += _near(space, left, right)
    wanted = (wanted + [pair for _, pair in sorted(near)])[:max_pairs]
    first: dict[int, Structure] = {}
    second: dict[int, Structure] = first if left is right else {}
    equal = []
    for i, j in wanted:
        a = first.get(i) or first.setdefault(i, left[i].structure())
        b = second.get(j) or second.setdefault(j, right[j].structure())
        if same_crystal(a, b):
            equal.append((i, j))
    return sorted(equal), len(wanted), sum(space.total for space in spaces) - len(wanted)


def _near(space: _Space, left: Sequence[Record], right: Sequence[Record]) -> list[tuple[float, Pair]]:
    """Pairs that are near in the AMD invariant, with their distance."""
    from scipy.spatial import cKDTree

    from onnes.crystal.amd import amd

    inside = space.left is space.right
    points = np.array([amd(left[i].structure()) for i in space.left])
    asked = points if inside else np.array([amd(right[j].structure()) for j in space.right])
    # One more inside a set: the nearest neighbour of a record is itself.
    k = min(NEIGHBOURS + inside, len(points))
    distance, index = cKDTree(points).query(asked, k=list(range(1, k + 1)), p=np.inf)
    found: dict[Pair, float] = {}
    for row, j in enumerate(space.right):
        for d, column in zip(distance[row], index[row], strict=True):
            i = space.left[int(column)]
            if inside and i == j:
                continue
            found[(min(i, j), max(i, j)) if inside else (i, j)] = float(d)
    return [(d, pair) for pair, d in found.items()]
