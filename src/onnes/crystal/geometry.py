"""Distances under periodic boundary conditions, and the plain numbers a report shows for a crystal.

All distances go through `pairs`, which is exact for any cell shape: matscipy bins atoms by the spacing of
lattice planes, so a sheared or needle-like cell costs time, never neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import covalent_radii, numbers, reduced_formula
from onnes.units import UNITS

if TYPE_CHECKING:
    from pymatgen.core import Structure


def pairs(lattice: np.ndarray, frac: np.ndarray, cutoff: float) -> tuple[np.ndarray, ...]:
    """Return every ordered pair of atoms (images included) closer than a cut-off.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    cutoff : float
        Distance in A.

    Returns
    -------
    i, j : ndarray of int, shape (p,)
        Sites of the pair.
    d : ndarray, shape (p,)
        Distance in A.
    shift : ndarray of int, shape (p, 3)
        Lattice translation of site j, relative to coordinates wrapped into the cell.
    """
    from matscipy.neighbours import neighbour_list

    wrapped = np.mod(frac, 1.0)
    i, j, d, shift = neighbour_list(
        "ijdS", cell=lattice, pbc=[True] * 3, positions=wrapped @ lattice, cutoff=float(cutoff)
    )
    return i, j, d, shift


def packing_bound(lattice: np.ndarray, n_atoms: int) -> float:
    """Return the largest nearest-neighbour distance that n atoms in a cell can possibly have.

    No packing of equal spheres is denser than fcc, so the shortest distance of any crystal is at most
    ``(sqrt(2) V / n)**(1/3)``.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    n_atoms : int
        Atoms in the cell.

    Returns
    -------
    float
        Distance in A.
    """
    volume = abs(float(np.linalg.det(lattice)))
    return float(np.cbrt(np.sqrt(2.0) * volume / n_atoms))


def min_distance(lattice: np.ndarray, frac: np.ndarray) -> float:
    """Return the shortest distance between any two atoms, images of one atom included.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.

    Returns
    -------
    float
        Distance in A.
    """
    # At the packing bound there is a pair for certain; the margin covers rounding in an ideal fcc or hcp
    # crystal.
    d = pairs(lattice, frac, packing_bound(lattice, len(frac)) * (1 + 1e-6) + 1e-9)[2]
    return float(d.min())


def short_pairs(
    lattice: np.ndarray, frac: np.ndarray, z: np.ndarray, ratio: float, floor_A: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Return the ordered pairs that are closer than a share of the sum of their covalent radii.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    z : ndarray of int, shape (n,)
        Atomic numbers.
    ratio : float
        The share.
    floor_A : float
        Closer than this counts whatever the radii are.

    Returns
    -------
    i, j : ndarray of int, shape (p,)
    d, allowed : ndarray, shape (p,)
        Distance, and the shortest that would not count, in A.
    """
    radii = covalent_radii()[z]
    i, j, d, _ = pairs(lattice, frac, max(floor_A, 2.0 * ratio * float(radii.max())))
    allowed = np.maximum(floor_A, ratio * (radii[i] + radii[j]))
    short = d < allowed
    return i[short], j[short], d[short], allowed[short]


def nearest(lattice: np.ndarray, frac: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest neighbour of every atom within a reach.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    reach : float
        Largest distance looked at, in A.

    Returns
    -------
    d : ndarray, shape (n,)
        Nearest distance in A, ``inf`` where there is none within reach.
    j : ndarray of int, shape (n,)
        The site it belongs to, -1 where there is none.
    """
    n = len(frac)
    best, site = np.full(n, np.inf), np.full(n, -1)
    cutoff = min(reach, packing_bound(lattice, n) * 1.05 + 1e-9)
    while True:
        i, j, d, _ = pairs(lattice, frac, cutoff)
        order = np.argsort(d, kind="stable")[::-1]
        best[i[order]], site[i[order]] = d[order], j[order]  # the last write is the shortest
        if cutoff >= reach or np.all(np.isfinite(best)):
            return best, site
        cutoff = min(reach, cutoff * 1.5)


def packing_fraction(structure: Structure) -> float:
    """Return the summed volume of covalent spheres (Cordero radii) over the cell volume.

    Overlaps of bonded spheres are counted twice, so it is a measure of crowding, not a true filled
    fraction: about 0.35 for diamond, 0.5 to 0.9 for metals.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.

    Returns
    -------
    float
        Dimensionless.
    """
    radii = covalent_radii()[numbers(structure)]
    return float(np.sum(4.0 / 3.0 * np.pi * radii**3) / abs(structure.volume))


def geometry(structure: Structure) -> dict[str, float | int | str]:
    """Return the plain numbers of a crystal.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.

    Returns
    -------
    dict
        ``n_atoms``; ``min_distance_A``; ``volume_per_atom_A3``; ``density_g_cm3``; ``packing_fraction``
        (see `packing_fraction`); ``formula`` (alphabetical, reduced).
    """
    from ase.data import atomic_masses

    z = numbers(structure)
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    volume = abs(float(np.linalg.det(lattice)))
    grams = float(np.sum(atomic_masses[z])) * UNITS.amu_kg * 1e3
    return {
        "n_atoms": len(z),
        "min_distance_A": min_distance(lattice, frac),
        "volume_per_atom_A3": volume / len(z),
        "density_g_cm3": grams / (volume * (UNITS.angstrom_m * 1e2) ** 3),
        "packing_fraction": packing_fraction(structure),
        "formula": reduced_formula(structure),
    }
