"""Crystals whose structures are at hand: a user's folder as reference, and the candidates among themselves.

Here the structure matcher decides; the descriptor of `onnes.stability.novelty` only says which pairs to ask it about.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.amd import same_crystal
from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused, read
from onnes.stability.novelty import KNOWN, NEW, OTHER_STRUCTURE, Novelty, descriptor

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Pairs of equal formula further apart than this in any descriptor component are not given to the matcher. All 945
#: equal pairs of the calibration are nearer (card of the index, by_tolerance).
REACH = 1.0
#: Name of the source of a user's crystals.
USER = "user"


class _Held(NamedTuple):
    id: str
    descriptor: NDArray[np.float64]
    structure: Structure


class Match(NamedTuple):
    """The nearest crystal of the same formula: id, distance, and whether the matcher calls it equal."""

    id: str
    distance: float
    same: bool


class Collection:
    """Crystals with their structures, searchable by formula.

    Examples
    --------
    >>> seen = Collection()
    >>> seen.add("first", structure)  # doctest: +SKIP
    >>> seen.nearest(other)  # doctest: +SKIP
    Match(id='first', distance=0.0, same=True)
    """

    def __init__(self) -> None:
        self._held: dict[str, list[_Held]] = {}
        self.refused: list[Refused] = []

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    @classmethod
    def read(cls, paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> Collection:
        """Read a folder or files; what the gate refuses is kept in `refused`.

        Parameters
        ----------
        paths : path or iterable of paths
            As for `onnes.crystal.read.read`.

        Raises
        ------
        InputError
            When not one structure was found.
        """
        made = cls()
        for item in read(paths):
            if isinstance(item, Crystal):
                made.add(item.id, item.structure)
            else:
                made.refused.append(item)
        return made

    def add(self, id: str, structure: Structure) -> None:
        """Hold a crystal."""
        held = _Held(id, descriptor(structure), structure)
        self._held.setdefault(reduced_formula(structure), []).append(held)

    def nearest(self, structure: Structure) -> Match | None:
        """The first equal crystal, otherwise the nearest of the same formula; None when the formula is not there.

        Parameters
        ----------
        structure : pymatgen Structure
            Ordered.
        """
        peers = self._held.get(reduced_formula(structure))
        if not peers:
            return None
        mine = descriptor(structure)
        distance = np.array([np.abs(p.descriptor - mine).max() for p in peers])
        for k in np.flatnonzero(distance <= REACH):
            if same_crystal(structure, peers[k].structure):
                return Match(peers[k].id, float(distance[k]), True)
        nearest = int(np.argmin(distance))
        return Match(peers[nearest].id, float(distance[nearest]), False)

    def judge(self, structure: Structure, found: Novelty) -> Novelty:
        """Answer of an index, corrected by what is held here.

        Parameters
        ----------
        structure : pymatgen Structure
        found : Novelty
            From `onnes.stability.novelty.KnownCrystals.find`.

        Returns
        -------
        Novelty
            A match here makes the crystal known; the same formula here makes its composition known, and the nearer of
            the two crystals of that formula is named.
        """
        match = self.nearest(structure)
        if match is None or (found.novelty == KNOWN and not match.same):
            return found
        distance = round(match.distance, 4)
        if found.novelty == KNOWN:
            source = f"{found.source} {USER}".strip()
            return Novelty(KNOWN, found.known_id, found.distance, found.nearness, source)
        if match.same:
            return Novelty(KNOWN, match.id, distance, "same-formula", USER)
        if found.novelty == NEW or found.distance is None or distance < found.distance:
            return Novelty(OTHER_STRUCTURE, match.id, distance, "same-formula", USER)
        return found
