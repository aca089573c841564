"""The nearest known crystal of another composition: the same structure with other elements, or the nearest formula."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations, product
from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

#: More ways than this to put one crystal's elements in the place of another's are not tried (seven elements of
#: equal share have 5040): the nearest formula answers instead.
MAX_WAYS = 720
_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


def parts(formula: str) -> dict[str, int]:
    """Elements and counts of a reduced formula without brackets, in the order written: ``{"B": 2, "Mg": 1}``."""
    return {symbol: int(count or 1) for symbol, count in _PART.findall(formula)}


class Place(NamedTuple):
    """Where the entries of a formula lie: the first entry, how many, the first value, values an entry."""

    start: int
    number: int
    offset: int
    width: int


class Near(NamedTuple):
    """Number of the nearest entry, the distance, and what kind of nearness it is."""

    entry: int
    distance: float
    kind: str


class _Prototype(NamedTuple):
    """Entries of one anonymous formula, elements by rising share.

    Descriptors (n, m, block), their means over the atoms (n, block), entry numbers (n,), Mendeleev numbers (n, m).
    """

    blocks: FloatArray
    mean: FloatArray
    entries: NDArray[np.intp]
    scale: FloatArray


@lru_cache(maxsize=1)
def _scale() -> dict[str, float]:
    """Mendeleev numbers of Pettifor (Solid State Commun. 51, 31 (1984)), a scale of chemical likeness."""
    from pymatgen.core import Element

    return {e.symbol: float(e.mendeleev_no) for e in map(Element.from_Z, range(1, 104))}


class Neighbours:
    """Known crystals by prototype and by composition.

    Parameters
    ----------
    where : mapping of str to Place
        By reduced formula.
    values : uint16 array
        Descriptors, a block of equal length for each element in alphabetical order.
    step : float
        Unit of the values.
    block : int
        Components an element.
    """

    def __init__(
        self, where: Mapping[str, Place], values: NDArray[np.uint16], step: float, block: int
    ) -> None:
        self.where, self.values, self.step, self.block = where, values, step, block
        self._composition: tuple[list[Place], dict[str, int], FloatArray] | None = None
        self._prototypes: dict[tuple[int, ...], list[str]] | None = None
        self._made: dict[tuple[int, ...], _Prototype] = {}

    def same_prototype(self, formula: str, descriptor: NDArray[np.float64], tolerance: float) -> Near | None:
        """The known crystal with the same structure and the most similar elements in the same places.

        Of the crystals that come within the tolerance when elements are put in the place of others of equal
        share, the one with the smallest mean difference of Mendeleev numbers.

        Parameters
        ----------
        formula : str
            Alphabetical reduced formula.
        descriptor : ndarray, shape (block m,)
        tolerance : float

        Returns
        -------
        Near or None
            None when no crystal has this structure (or there are more than `MAX_WAYS` ways to try).
        """
        held = parts(formula)
        key = tuple(sorted(held.values()))
        if key not in self._by_prototype():
            return None
        ways = _ways(key)
        if ways is None:
            return None
        made = self._prototype(key)
        order = sorted(held, key=lambda s: (held[s], s))
        names = list(held)
        mine = descriptor.astype(np.float32).reshape(len(names), self.block)[[names.index(s) for s in order]]
        share = np.array(key, dtype=np.float32) / sum(key)
        # The mean over all atoms does not depend on who takes whose place, and is never further than the elements.
        likely = np.flatnonzero(np.abs(made.mean - share @ mine).max(axis=1) <= tolerance)
        # (n, m, m): how far the surroundings of my element i are from those of their element j.
        apart = np.abs(made.blocks[likely, None, :, :] - mine[None, :, None, :]).max(axis=3)
        rows = np.arange(len(order))
        close, found = [], []
        for k, way in enumerate(ways):
            worst = apart[:, rows, list(way)].max(axis=1)
            near = np.flatnonzero(worst <= tolerance)
            found.append(worst[near])
            close.append(np.stack([near, np.full(len(near), k)], axis=1))
        place, distance = np.concatenate(close), np.concatenate(found)
        if not len(place):
            return None
        numbers = np.array([_scale().get(s, 0.0) for s in order], dtype=np.float32)
        theirs = made.scale[likely[place[:, 0]][:, None], np.array(ways)[place[:, 1]]]
        unlike = (np.abs(theirs - numbers) * share).sum(axis=1)
        best = int(np.lexsort((distance, unlike))[0])
        entry = int(made.entries[likely[place[best, 0]]])
        return Near(entry, float(distance[best]), "same-prototype")

    def nearest_composition(self, formula: str) -> Near | None:
        """The formula that shares most of the atoms; the distance is the share of atoms it does not share (0 to 1).

        Of equally near formulas the one with the fewest elements more. None when no known crystal holds any of
        the elements.
        """
        places, column, fractions = self._fractions()
        held = parts(formula)
        total = sum(held.values())
        known = [s for s in held if s in column]
        if not known:
            return None
        mine = np.array([held[s] / total for s in known], dtype=np.float32)
        theirs = fractions[[column[s] for s in known]]
        shared = np.minimum(theirs, mine[:, None]).sum(axis=0)
        best = int(np.argmax(shared))
        return Near(places[best].start, float(1.0 - shared[best]), "composition")

    def _by_prototype(self) -> dict[tuple[int, ...], list[str]]:
        if self._prototypes is None:
            self._prototypes = {}
            for formula in self.where:
                self._prototypes.setdefault(tuple(sorted(parts(formula).values())), []).append(formula)
        return self._prototypes

    def _prototype(self, key: tuple[int, ...]) -> _Prototype:
        if key not in self._made:
            blocks: list[NDArray[np.uint16]] = []
            entries: list[int] = []
            scale: list[list[float]] = []
            for formula in self._by_prototype()[key]:
                held, place = parts(formula), self.where[formula]
                names = list(held)
                order = [names.index(s) for s in sorted(held, key=lambda s: (held[s], s))]
                values = self.values[place.offset : place.offset + place.number * place.width]
                blocks.append(values.reshape(place.number, len(names), self.block)[:, order])
                entries += range(place.start, place.start + place.number)
                numbers = [_scale().get(names[k], 0.0) for k in order]
                scale += [numbers] * place.number
            made = np.concatenate(blocks).astype(np.float32) * np.float32(self.step)
            share = np.array(key, dtype=np.float32) / sum(key)
            mean = np.einsum("nmb,m->nb", made, share)
            self._made[key] = _Prototype(made, mean, np.array(entries), np.array(scale, dtype=np.float32))
        return self._made[key]

    def _fractions(self) -> tuple[list[Place], dict[str, int], FloatArray]:
        if self._composition is None:
            # Fewest elements first: argmax takes the first of equals.
            named = sorted(
                ((parts(f), p) for f, p in self.where.items()), key=lambda x: (len(x[0]), x[1].start)
            )
            symbols = sorted({s for held, _ in named for s in held})
            column = {s: k for k, s in enumerate(symbols)}
            fractions = np.zeros((len(symbols), len(named)), dtype=np.float32)
            for k, (held, _) in enumerate(named):
                total = sum(held.values())
                for symbol, count in held.items():
                    fractions[column[symbol], k] = count / total
            self._composition = ([p for _, p in named], column, fractions)
        return self._composition


@lru_cache(maxsize=64)
def _ways(key: Sequence[int]) -> list[tuple[int, ...]] | None:
    """All ways to exchange elements of equal count; None when they are too many."""
    groups = [[k for k, count in enumerate(key) if count == size] for size in sorted(set(key))]
    total = 1
    for group in groups:
        total *= factorial(len(group))
    if total > MAX_WAYS:
        return None
    return [tuple(k for group in way for k in group) for way in product(*map(permutations, groups))]
