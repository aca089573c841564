"""Phonon bands along the standard path of the crystal's Bravais lattice.

The path is that of W. Setyawan and S. Curtarolo, Comput. Mater. Sci. 49, 299 (2010), as ASE keeps it: for the cell as
it is, in whatever orientation and basis, and in two dimensions for a slab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from phonopy import Phonopy

FloatArray = NDArray[np.float64]

#: Points per 1/A of path (reciprocal length without 2 pi) and at least this many a leg.
DENSITY_A, LEAST_POINTS = 150.0, 8


@dataclass(frozen=True)
class Path:
    """Path through the Brillouin zone.

    Attributes
    ----------
    q : ndarray, shape (n, 3)
        In units of the reciprocal vectors of the primitive cell.
    x : ndarray, shape (n,)
        Distance along the path, 1/A (without 2 pi); a jump takes none.
    label : tuple of str
        Name of every q-point, empty between the special ones.
    legs : tuple of (int, int)
        First and last point of every unbroken stretch.
    lattice : str
        Name of the Bravais lattice.
    """

    q: FloatArray
    x: FloatArray
    label: tuple[str, ...]
    legs: tuple[tuple[int, int], ...]
    lattice: str

    def ticks(self) -> list[tuple[float, str]]:
        """Position and name of the special points; where the path jumps both names share a place."""
        found: list[tuple[float, str]] = []
        for x, name in zip(self.x, self.label, strict=True):
            if name and found and abs(found[-1][0] - x) < 1e-12:
                found[-1] = (float(x), f"{found[-1][1]}|{name}")
            elif name:
                found.append((float(x), name))
        return found


@dataclass(frozen=True)
class Bands:
    """Frequencies along a path: `omega_meV` has the shape (n, 3N), imaginary ones are negative."""

    path: Path
    omega_meV: FloatArray


def standard_path(cell: FloatArray, vacuum: Sequence[bool] = (False, False, False)) -> Path:
    """Standard path of a primitive cell.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, A.
    vacuum : sequence of bool
        Axes along which the crystal is not periodic.
    """
    from ase.cell import Cell
    from ase.dft.kpoints import parse_path_string

    periodic = [not empty for empty in vacuum]
    found: Any = Cell(cell).bandpath(npoints=0, pbc=periodic)
    lattice = Cell(cell).get_bravais_lattice(pbc=periodic).name
    reciprocal = np.linalg.inv(cell).T
    q: list[FloatArray] = []
    x: list[float] = []
    label: list[str] = []
    legs: list[tuple[int, int]] = []
    for names in parse_path_string(found.path):
        first, at = len(q), x[-1] if x else 0.0
        q.append(np.asarray(found.special_points[names[0]], dtype=float))
        x.append(at)
        label.append(names[0])
        for name in names[1:]:
            start, stop = q[-1], np.asarray(found.special_points[name], dtype=float)
            length = float(np.linalg.norm((stop - start) @ reciprocal))
            count = max(LEAST_POINTS, int(np.ceil(length * DENSITY_A)))
            share = np.arange(1, count + 1) / count
            at = x[-1]
            q += list(start + share[:, None] * (stop - start))
            x += list(at + share * length)
            label += [""] * (count - 1) + [name]
        legs.append((first, len(q) - 1))
    return Path(np.array(q), np.array(x), tuple(_name(n) for n in label), tuple(legs), str(lattice))


def run_bands(phonon: Phonopy, path: Path, thz_to_meV: float) -> Bands:
    """Frequencies along a path."""
    return Bands(path, frequencies(phonon, path.q) * thz_to_meV)


def frequencies(phonon: Phonopy, q: FloatArray) -> FloatArray:
    """Frequencies at q-points, shape (n, 3N), THz; imaginary ones are negative."""
    phonon.run_qpoints(q)
    found: Any = phonon.get_qpoints_dict()
    return np.asarray(found["frequencies"], dtype=float)


def _name(name: str) -> str:
    return "Γ" if name == "G" else name
