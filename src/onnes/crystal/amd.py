"""Continuous comparison of crystals: average minimum distances, and the exact matcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import reduced_formula
from onnes.crystal.geometry import pairs

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Tolerances of `same_crystal`: fractional length, site (in units of (V/n)^(1/3)), angle in degrees.
MATCH_LTOL, MATCH_STOL, MATCH_ANGLE = 0.2, 0.3, 5.0


def neighbour_distances(lattice: np.ndarray, frac: np.ndarray, k: int) -> np.ndarray:
    """Return the distances from every atom to its k nearest neighbours, images included.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    k : int
        Neighbours an atom.

    Returns
    -------
    ndarray, shape (n, k)
        Sorted along the second axis, in A.
    """
    n = len(frac)
    per_atom = abs(float(np.linalg.det(lattice))) / n
    # A ball of this radius holds 1.3 (k + 1) atoms on average; open structures need another round.
    cutoff = float(np.cbrt(3.0 * 1.3 * (k + 1) * per_atom / (4.0 * np.pi)))
    while True:
        i, _, d, _ = pairs(lattice, frac, cutoff)
        counts = np.bincount(i, minlength=n)
        if counts.min() >= k:
            break
        cutoff *= 1.25
    d = d[np.lexsort((d, i))]
    start = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return d[start[:, None] + np.arange(k)[None, :]]


def amd(structure: Structure, k: int = 24) -> np.ndarray:
    """Return the average minimum distances of a crystal, free of scale.

    ``AMD_m = (1/n) sum_i d_i(m) / (V/n)**(1/3)`` with d_i(m) the distance from atom i to its m-th neighbour
    (Widdowson et al., MATCH Commun. Math. Comput. Chem. 87 (2022) 529, who leave out the division). It
    changes continuously with the coordinates and does not depend on the cell, the origin or the order of
    sites; it does not look at the elements.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.
    k : int
        Number of neighbours.

    Returns
    -------
    ndarray, shape (k,)
        Dimensionless, not decreasing.
    """
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    per_atom = abs(float(np.linalg.det(lattice))) / len(frac)
    return neighbour_distances(lattice, frac, k).mean(axis=0) / np.cbrt(per_atom)


def same_crystal(a: Structure, b: Structure) -> bool:
    """Decide whether two structures are one crystal.

    pymatgen's StructureMatcher with its published defaults: primitive cells, volumes scaled to each other,
    lengths within 20 %, angles within 5 degrees, sites within 0.3 (V/n)^(1/3).

    Parameters
    ----------
    a, b : pymatgen Structure
        Ordered structures.

    Returns
    -------
    bool
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if reduced_formula(a) != reduced_formula(b):
        return False
    matcher = StructureMatcher(
        ltol=MATCH_LTOL, stol=MATCH_STOL, angle_tol=MATCH_ANGLE, primitive_cell=True, scale=True
    )
    return bool(matcher.fit(a, b))
