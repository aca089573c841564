"""Is a crystal already known? Compared with a shipped index of descriptors, no structures inside.

The descriptor of a crystal holds, for each element in alphabetical order, the average distances from its
atoms to their nearest neighbours of any kind, then to those of the same element, divided by the cube root of
the volume per atom. It does not depend on cell, origin, order of atoms or scale, changes continuously with
the coordinates, and tells apart decorations of one lattice (which of two elements sits on the cube's corner),
which the average minimum distances over all atoms do not.
"""

from __future__ import annotations

import hashlib
import io
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.amd import neighbour_distances
from onnes.crystal.formula import reduced_formula
from onnes.errors import DataError
from onnes.stability.novelty_near import Neighbours, Place, parts

if TYPE_CHECKING:
    from pymatgen.core import Structure

INDEX = "known_crystals.npz.xz"
#: Neighbours of any kind, and of the same element.
ALL, OWN = 8, 5
#: Descriptors are stored as integers of this step.
STEP = 1e-3
#: Largest difference in any descriptor component of what counts as one crystal. Chosen in
#: training/novelty/index.py against pymatgen's StructureMatcher; the figures are in the index' card.
TOLERANCE = 0.04


#: The answers, from certain to open.
KNOWN, OTHER_STRUCTURE, NEW = "known", "known-composition-new-structure", "new-composition"


@dataclass(frozen=True)
class Novelty:
    """Answer of the index.

    Attributes
    ----------
    novelty : str
        ``known``, ``known-composition-new-structure`` or ``new-composition``. (Ledgers written before the last
        had a nearest crystal say ``new``.)
    known_id : str
        The nearest known crystal; empty only when nothing known shares an element.
    distance : float or None
        How near; see `nearness`.
    nearness : str
        ``same-formula``: distance is the largest difference in any descriptor component. ``same-prototype``: the
        same with other elements in the same places. ``composition``: no known crystal has this structure; distance
        is the share of atoms that the nearest formula does not have in common.
    source : str
        Collections that hold `known_id`; of a known crystal those that hold any match, blank between them.
    """

    novelty: str
    known_id: str = ""
    distance: float | None = None
    nearness: str = ""
    source: str = ""

    def numbers(self) -> dict[str, Any]:
        """What a ledger keeps."""
        return {
            "novelty": self.novelty,
            "known_id": self.known_id,
            "known_distance": self.distance,
            "known_nearness": self.nearness,
            "known_source": self.source,
        }


def descriptor(structure: Structure) -> NDArray[np.float64]:
    """Compute the descriptor of a crystal.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure with m elements.

    Returns
    -------
    ndarray, shape (13 m,)
        Dimensionless.
    """
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    symbols = np.array([site.specie.symbol for site in structure])
    any_kind = neighbour_distances(lattice, frac, ALL)
    parts = []
    for symbol in sorted(set(symbols)):
        parts.append(any_kind[symbols == symbol].mean(axis=0))
        parts.append(neighbour_distances(lattice, frac[symbols == symbol], OWN).mean(axis=0))
    return np.concatenate(parts) / np.cbrt(abs(float(np.linalg.det(lattice))) / len(frac))


class KnownCrystals:
    """Index of known crystals.

    Parameters
    ----------
    formulas : sequence of str
        Reduced formulas, alphabetical, sorted.
    starts : int array, shape (n_formulas + 1,)
        Where the entries of each formula begin.
    ids : sequence of str
        One an entry.
    values : uint16 array
        Descriptors in units of `STEP`, one after the other.
    digest : str
    sources : uint16 array, shape (n_entries,), optional
        Collections that hold the entry, a bit each.
    source_names : sequence of str
        Of the bits.
    """

    def __init__(
        self,
        formulas: list[str],
        starts: NDArray[Any],
        ids: list[str],
        values: NDArray[Any],
        digest: str = "",
        sources: NDArray[Any] | None = None,
        source_names: Sequence[str] = (),
    ) -> None:
        self.ids, self.values, self.digest = ids, values, digest
        self.sources = np.zeros(len(ids), dtype=np.uint16) if sources is None else sources
        self.source_names = tuple(source_names)
        counts = np.diff(starts)
        widths = np.array([(ALL + OWN) * len(parts(f)) for f in formulas], dtype=int)
        offsets = np.concatenate(([0], np.cumsum(counts * widths)))
        self._where = {
            f: Place(int(starts[k]), int(counts[k]), int(offsets[k]), int(widths[k]))
            for k, f in enumerate(formulas)
        }
        if offsets[-1] != len(values) or starts[-1] != len(ids) or len(self.sources) != len(ids):
            raise DataError("damaged-table", f"{INDEX} is inconsistent; reinstall onnes")
        self._near = Neighbours(self._where, values, STEP, ALL + OWN)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls) -> KnownCrystals:
        """Read the shipped index.

        Raises
        ------
        DataError
            ``damaged-table``.
        """
        return _shipped()

    def find(self, structure: Structure) -> Novelty:
        """Look a crystal up.

        Parameters
        ----------
        structure : pymatgen Structure
            Ordered.

        Returns
        -------
        Novelty
        """
        formula, mine = reduced_formula(structure), descriptor(structure)
        held = self._where.get(formula)
        if held is None:
            return self._elsewhere(formula, mine)
        known = self.values[held.offset : held.offset + held.number * held.width]
        distance = np.abs(known.reshape(held.number, held.width) * STEP - mine).max(axis=1)
        nearest = int(np.argmin(distance))
        matches = np.flatnonzero(distance <= TOLERANCE)
        word = KNOWN if len(matches) else OTHER_STRUCTURE
        entries = held.start + (matches if len(matches) else np.array([nearest]))
        return Novelty(
            word,
            self.ids[held.start + nearest],
            round(float(distance[nearest]), 4),
            "same-formula",
            self._sources(entries),
        )

    def _elsewhere(self, formula: str, mine: NDArray[np.float64]) -> Novelty:
        """Nearest crystal of another composition."""
        found = self._near.same_prototype(formula, mine, TOLERANCE)
        found = found or self._near.nearest_composition(formula)
        if found is None:
            return Novelty(NEW)
        source = self._sources(np.array([found.entry]))
        return Novelty(NEW, self.ids[found.entry], round(found.distance, 4), found.kind, source)

    def formula_of(self, id: str) -> str:
        """Reduced formula of a known crystal; empty for an id that the index does not hold."""
        try:
            entry = self.ids.index(id)
        except ValueError:
            return ""
        return next(
            f for f, place in self._where.items() if place.start <= entry < place.start + place.number
        )

    def _sources(self, entries: NDArray[Any]) -> str:
        bits = int(np.bitwise_or.reduce(self.sources[entries]))
        return " ".join(name for k, name in enumerate(self.source_names) if bits >> k & 1)


@lru_cache(maxsize=1)
def _shipped() -> KnownCrystals:
    data = files("onnes.pretrained").joinpath(INDEX).read_bytes()
    try:
        with np.load(io.BytesIO(lzma.decompress(data)), allow_pickle=False) as z:
            formulas, ids, names = (
                bytes(z[k]).decode().split("\n") for k in ("formulas", "ids", "source_names")
            )
            digest = hashlib.sha256(data).hexdigest()[:16]
            return KnownCrystals(formulas, z["starts"], ids, z["values"], digest, z["sources"], names)
    except (OSError, EOFError, KeyError, ValueError, lzma.LZMAError) as error:
        raise DataError("damaged-table", f"{INDEX} cannot be read: {error}; reinstall onnes") from None
