"""From labelled crystals to the arrays a generator trains on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import spglib
from pymatgen.core import Lattice

from onnes.generate.process import LatticeScale


@dataclass(frozen=True)
class CrystalArrays:
    """Crystals with the same number of atoms.

    Attributes
    ----------
    types : int array, shape (M, N)
    frac : float array, shape (M, N, 3)
    raw_lattice : float array, shape (M, 6)
        ``LatticeScale.raw`` of the Niggli-reduced primitive cells.
    log_tc : float array, shape (M,)
        log10(Tc / K), NaN where unknown.
    stable : int array, shape (M,)
        0 unknown, 1 dynamically stable, 2 unstable.
    """

    types: np.ndarray
    frac: np.ndarray
    raw_lattice: np.ndarray
    log_tc: np.ndarray
    stable: np.ndarray

    def __len__(self) -> int:
        return len(self.types)


def niggli_primitive(
    lattice: np.ndarray, numbers: np.ndarray, frac: np.ndarray, symprec: float = 0.01
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Primitive cell in its Niggli form, right-handed: ``(lattice, numbers, frac)``."""
    found = spglib.find_primitive((lattice.tolist(), frac.tolist(), numbers.tolist()), symprec=symprec)
    if found is not None:
        lattice, frac, numbers = (np.asarray(part) for part in found)
    reduced = Lattice(lattice).get_niggli_reduced_lattice()
    # Only the metric of the reduced cell is used; the integer matrix that leads to it maps the coordinates.
    mapping = Lattice(lattice).find_mapping(reduced, ltol=1e-4, atol=0.01)
    if mapping is None:
        cell = np.array(lattice)
    else:
        aligned, _, scale = mapping
        cell = aligned.matrix
        frac = frac @ np.linalg.inv(scale)
    if np.linalg.det(cell) < 0:
        cell = -cell
        frac = -frac
    return cell, np.asarray(numbers), frac % 1.0


def group_by_size(
    cells: list[tuple[np.ndarray, np.ndarray, np.ndarray]], log_tc: np.ndarray, stable: np.ndarray
) -> dict[int, CrystalArrays]:
    """Collect ``(lattice, numbers, frac)`` triples into arrays keyed by the number of atoms."""
    out: dict[int, CrystalArrays] = {}
    sizes = np.array([len(c[1]) for c in cells])
    for n in sorted(set(sizes.tolist())):
        where = np.flatnonzero(sizes == n)
        lattice = np.stack([cells[i][0] for i in where])
        out[n] = CrystalArrays(
            np.stack([cells[i][1] for i in where]).astype(np.int64),
            np.stack([cells[i][2] for i in where]).astype(np.float32),
            LatticeScale.raw(lattice, n),
            log_tc[where].astype(np.float32),
            stable[where].astype(np.int64),
        )
    return out


def arrays_hash(groups: dict[int, CrystalArrays]) -> str:
    """Hash of a training set, written into the checkpoint's card."""
    digest = hashlib.sha256()
    for n in sorted(groups):
        g = groups[n]
        for a in (g.types, g.frac, g.raw_lattice, g.log_tc, g.stable):
            digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()[:16]
