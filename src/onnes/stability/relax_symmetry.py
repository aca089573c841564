"""Relaxation within a space group: a crystal moved onto its symmetry, forces and stress projected on it.

With the operations x' = W x + w in fractional coordinates and R their rotations in space, forces become
f_j = <R f_i> over the operations that bring site i to site j, and the stress becomes <R s R^T>. A strain that commutes
with every R leaves R as it is, so the operations are found once.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.errors import CrystalError

if TYPE_CHECKING:
    from ase import Atoms

#: Largest distance from its symmetry, in A, at which a relaxed crystal still has it.
KEPT_A = 1e-3


@dataclass(frozen=True)
class Operations:
    """Space-group operations of a cell.

    Attributes
    ----------
    rotations : ndarray of int, shape (m, 3, 3)
        W, acting on fractional columns.
    translations : ndarray, shape (m, 3)
    images : ndarray of int, shape (m, n)
        Site that each operation brings each site to.
    """

    rotations: np.ndarray
    translations: np.ndarray
    images: np.ndarray

    def cartesian(self, lattice: np.ndarray) -> np.ndarray:
        """The rotations in space, shape (m, 3, 3); they are orthogonal once the cell has the symmetry."""
        columns = lattice.T
        turned: np.ndarray = columns @ self.rotations @ np.linalg.inv(columns)
        return turned


def find(atoms: Atoms, symprec: float) -> Operations:
    """Find the operations of a cell.

    Parameters
    ----------
    atoms : ase Atoms
    symprec : float
        Distance tolerance in A.

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    os.environ.setdefault("SPGLIB_WARNING", "OFF")
    import spglib

    cell: Any = (np.array(atoms.cell), atoms.get_scaled_positions(wrap=True), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tolerance in (symprec, symprec / 5, symprec / 25):
            try:
                found: Any = spglib.get_symmetry_dataset(cell, symprec=tolerance)
            except Exception:  # newer versions raise where older ones return None
                continue
            if found is not None:
                rotations, translations = np.array(found.rotations), np.array(found.translations)
                return Operations(rotations, translations, _images(cell, rotations, translations))
    raise CrystalError("symmetry-failed", f"no symmetry found for {atoms.get_chemical_formula()}")


def _images(cell: Any, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    lattice, frac, numbers = cell
    other_kind = np.where(numbers[:, None] == numbers[None, :], 0.0, np.inf)
    images = np.empty((len(rotations), len(frac)), dtype=int)
    for k, (w, t) in enumerate(zip(rotations, translations, strict=True)):
        off = (frac @ w.T + t)[:, None, :] - frac[None, :, :]
        distance = np.linalg.norm((off - np.round(off)) @ lattice, axis=2) + other_kind
        images[k] = distance.argmin(axis=1)
        if len(set(images[k].tolist())) != len(frac):
            raise CrystalError("symmetry-failed", "a symmetry operation brings two atoms to one site")
    return images


def idealise(atoms: Atoms, operations: Operations) -> float:
    """Move a cell and its atoms onto their symmetry, in place; returns the longest move of an atom in A.

    The metric tensor is averaged over the operations; of the cells that have the mean, the one that differs from the
    old one by a pure stretch is taken.
    """
    lattice = np.array(atoms.cell)
    frac = atoms.get_scaled_positions(wrap=False)
    w = operations.rotations.astype(float)
    metric = (w.transpose(0, 2, 1) @ (lattice @ lattice.T) @ w).mean(axis=0)
    inverse = np.linalg.inv(lattice)
    values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
    ideal = lattice @ (vectors * np.sqrt(values)) @ vectors.T
    moved = np.zeros_like(frac)
    for turn, shift, image in zip(w, operations.translations, operations.images, strict=True):
        found = frac @ turn.T + shift
        found -= np.round(found - frac[image])
        moved[image] += found
    moved /= len(w)
    off = moved - frac
    atoms.set_cell(ideal, scale_atoms=False)
    atoms.set_scaled_positions(moved)
    return float(np.linalg.norm(off @ ideal, axis=1).max())


class KeepSymmetry:
    """ASE constraint that projects forces and stress onto a space group.

    Parameters
    ----------
    atoms : ase Atoms
        Already on its symmetry (`idealise`).
    operations : Operations
    """

    def __init__(self, atoms: Atoms, operations: Operations) -> None:
        self.images = operations.images
        self.turns = operations.cartesian(np.array(atoms.cell))

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        """Steps along projected forces keep the symmetry."""

    def adjust_cell(self, atoms: Atoms, cell: np.ndarray) -> None:
        """Likewise."""

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        """Project forces, shape (n, 3), in place."""
        total = np.zeros_like(forces)
        for turn, image in zip(self.turns, self.images, strict=True):
            total[image] += forces @ turn.T
        forces[:] = total / len(self.turns)

    def adjust_stress(self, atoms: Atoms, stress: np.ndarray) -> None:
        """Project a stress in Voigt order (xx, yy, zz, yz, xz, xy), in place."""
        xx, yy, zz, yz, xz, xy = stress
        full = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        full = (self.turns @ full @ self.turns.transpose(0, 2, 1)).mean(axis=0)
        stress[:] = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def get_removed_dof(self, atoms: Atoms) -> int:
        """Not counted."""
        return 0

    def todict(self) -> dict[str, Any]:
        """ASE asks every constraint for it."""
        return {"name": "KeepSymmetry", "kwargs": {}}


def strayed(atoms: Atoms, operations: Operations) -> float:
    """How far, in A, the atoms and the cell are from their symmetry."""
    ideal = atoms.copy()
    ideal.set_constraint()
    move = idealise(ideal, operations)
    return max(move, float(np.abs(np.array(ideal.cell) - np.array(atoms.cell)).max()))
