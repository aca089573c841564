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
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.amd import neighbour_distances
from onnes.crystal.formula import reduced_formula
from onnes.errors import DataError

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


@dataclass(frozen=True)
class Novelty:
    """Answer of the index.

    Attributes
    ----------
    novelty : str
        ``new``, ``known-composition-new-structure`` or ``known``.
    known_id : str
        Nearest known crystal of the same reduced formula; empty when there is none.
    distance : float or None
        Largest difference in any descriptor component to it.
    """

    novelty: str
    known_id: str = ""
    distance: float | None = None

    def numbers(self) -> dict[str, Any]:
        """What a ledger keeps."""
        return {"novelty": self.novelty, "known_id": self.known_id, "known_distance": self.distance}


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
    """

    def __init__(
        self,
        formulas: list[str],
        starts: NDArray[Any],
        ids: list[str],
        values: NDArray[Any],
        digest: str = "",
    ) -> None:
        from pymatgen.core import Composition

        self.ids, self.values, self.digest = ids, values, digest
        counts = np.diff(starts)
        widths = np.array([(ALL + OWN) * len(Composition(f).elements) for f in formulas], dtype=int)
        offsets = np.concatenate(([0], np.cumsum(counts * widths)))
        self._where = {
            f: (int(starts[k]), int(counts[k]), int(offsets[k]), int(widths[k]))
            for k, f in enumerate(formulas)
        }
        if offsets[-1] != len(values) or starts[-1] != len(ids):
            raise DataError("damaged-table", f"{INDEX} is inconsistent; reinstall onnes")

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
        """Look a crystal up."""
        held = self._where.get(reduced_formula(structure))
        if held is None:
            return Novelty("new")
        start, count, offset, width = held
        known = self.values[offset : offset + count * width].reshape(count, width) * STEP
        distance = np.abs(known - descriptor(structure)).max(axis=1)
        nearest = int(np.argmin(distance))
        word = "known" if distance[nearest] <= TOLERANCE else "known-composition-new-structure"
        return Novelty(word, self.ids[start + nearest], round(float(distance[nearest]), 4))


@lru_cache(maxsize=1)
def _shipped() -> KnownCrystals:
    data = files("onnes.pretrained").joinpath(INDEX).read_bytes()
    try:
        with np.load(io.BytesIO(lzma.decompress(data)), allow_pickle=False) as z:
            formulas, ids = (bytes(z[k]).decode().split("\n") for k in ("formulas", "ids"))
            return KnownCrystals(
                formulas, z["starts"], ids, z["values"], hashlib.sha256(data).hexdigest()[:16]
            )
    except (OSError, EOFError, KeyError, ValueError, lzma.LZMAError) as error:
        raise DataError("damaged-table", f"{INDEX} cannot be read: {error}; reinstall onnes") from None
