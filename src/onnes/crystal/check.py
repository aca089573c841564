"""The gate: what is refused before any model sees it, and what is only flagged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import atomic_numbers, covalent_radii, numbers
from onnes.crystal.geometry import nearest, pairs, short_pairs
from onnes.errors import CrystalError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Atoms closer than this, or than `CONTACT_RATIO` covalent radii, count as touching when flags are set.
CONTACT_A = 5.0
CONTACT_RATIO = 1.3


@dataclass(frozen=True)
class Limits:
    """Limits of the gate.

    Attributes
    ----------
    max_atoms : int
        Largest cell, 200 atoms.
    min_distance_A : float
        Atoms closer than this overlap, whatever they are. The H2 molecule has 0.74 A.
    min_distance_ratio : float
        Atoms closer than this fraction of the sum of their covalent radii overlap.
    max_isolation_A : float
        An atom whose nearest neighbour is further than this has no bonds a network could see.
    min_volume_per_atom_A3 : float
        Below it the cell is flat. Hydrogen at 500 GPa has about 1.
    """

    max_atoms: int = 200
    min_distance_A: float = 0.5
    min_distance_ratio: float = 0.5
    max_isolation_A: float = 8.0
    min_volume_per_atom_A3: float = 0.7


def _check_composition(structure: Structure, limits: Limits) -> None:
    if len(structure) == 0:
        raise CrystalError("no-atoms", "the structure has a cell but no atoms")
    if len(structure) > limits.max_atoms:
        raise CrystalError(
            "too-many-atoms", f"{len(structure)} atoms in the cell; at most {limits.max_atoms} are accepted"
        )
    for k, site in enumerate(structure):
        if not site.is_ordered:
            raise CrystalError("partial-occupancy", f"site {k} is shared: {site.species_string}")
        symbol = getattr(site.specie, "symbol", str(site.specie))
        if symbol not in atomic_numbers():
            raise CrystalError("unknown-element", f"site {k} holds {symbol!r}, which is no element H to Og")


def check_cell(lattice: np.ndarray, frac: np.ndarray, limits: Limits | None = None) -> None:
    """Refuse a cell that is not a right-handed, three-dimensional box with finite numbers.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    limits : Limits, optional
        Limits of the gate.

    Raises
    ------
    CrystalError
        ``non-finite``, ``zero-volume``, ``left-handed``, ``flat-cell``.
    """
    limits = limits or Limits()
    if not np.all(np.isfinite(lattice)):
        raise CrystalError("non-finite", f"the lattice holds a number that is not finite: {lattice.tolist()}")
    bad = np.flatnonzero(~np.all(np.isfinite(frac), axis=1))
    if len(bad):
        raise CrystalError(
            "non-finite", f"site {bad[0]} has coordinates {frac[bad[0]].tolist()}; they must be finite"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        volume = float(np.linalg.det(lattice))
        box = float(np.prod(np.linalg.norm(lattice, axis=1)))
    if not np.isfinite(box) or box > 1e12:
        raise CrystalError("huge-cell", f"the cell edges multiply to {box:.3g} A3; at most 1e12 is accepted")
    if abs(volume) <= 1e-6 * box or box == 0.0:
        raise CrystalError("zero-volume", f"the cell vectors span no volume ({abs(volume):.3g} A3)")
    if volume < 0:
        raise CrystalError(
            "left-handed",
            f"the cell is left-handed (determinant {volume:.4g} A3); exchange two of its vectors",
        )
    if volume < limits.min_volume_per_atom_A3 * len(frac):
        raise CrystalError(
            "flat-cell",
            f"{volume / len(frac):.3g} A3 an atom; at least {limits.min_volume_per_atom_A3} is accepted",
        )


def _check_distances(structure: Structure, limits: Limits) -> None:
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    z = numbers(structure)
    d, j = nearest(lattice, frac, limits.max_isolation_A)
    far = np.flatnonzero(~np.isfinite(d))
    if len(far):
        k = int(far[0])
        raise CrystalError(
            "isolated-atom",
            f"atom {k} ({structure[k].specie}) has no neighbour within {limits.max_isolation_A:g} A"
            f" (nearest: {_nearest_anywhere(lattice, frac, k):.2f} A)",
        )
    radii = covalent_radii()[z]
    # A close pair of large atoms can hide behind an even closer, allowed one: look at all short pairs.
    reach = max(limits.min_distance_A, 2.0 * limits.min_distance_ratio * float(radii.max()))
    if d.min() >= reach:
        return
    i, j, d, allowed = short_pairs(lattice, frac, z, limits.min_distance_ratio, limits.min_distance_A)
    if len(d):
        k = int(np.argmin(d))
        a, b = int(i[k]), int(j[k])
        raise CrystalError(
            "overlapping-atoms",
            f"atoms {a} ({structure[a].specie}) and {b} ({structure[b].specie}) are {d[k]:.3f} A apart;"
            f" at least {allowed[k]:.3f} A is accepted",
        )


def _nearest_anywhere(lattice: np.ndarray, frac: np.ndarray, k: int) -> float:
    """Distance from atom k to its nearest neighbour, however far (its own image bounds it)."""
    bound = float(np.linalg.norm(lattice, axis=1).min())
    d, _ = nearest(lattice, frac, bound * (1 + 1e-9))
    return float(d[k])


def check(structure: Structure, limits: Limits | None = None) -> None:
    """Refuse a structure no model should see.

    Parameters
    ----------
    structure : pymatgen Structure
        Any structure.
    limits : Limits, optional
        Limits of the gate.

    Raises
    ------
    CrystalError
        ``no-atoms``, ``too-many-atoms``, ``partial-occupancy``, ``unknown-element``, ``non-finite``,
        ``zero-volume``, ``left-handed``, ``flat-cell``, ``huge-cell``, ``overlapping-atoms``,
        ``isolated-atom``.
    """
    limits = limits or Limits()
    _check_composition(structure, limits)
    check_cell(np.array(structure.lattice.matrix), np.array(structure.frac_coords), limits)
    _check_distances(structure, limits)


def dimensionality(structure: Structure) -> int:
    """Return in how many directions the atoms touch without a gap.

    Two atoms touch when closer than 5 A or 1.3 times the sum of their covalent radii. Layers held by van
    der Waals forces (graphite, 3.35 A) touch; a slab with vacuum does not.

    Parameters
    ----------
    structure : pymatgen Structure
        Structure that passed `check`.

    Returns
    -------
    int
        3 bulk, 2 slab, 1 chain, 0 molecule: the largest value of any connected piece.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    radii, n = covalent_radii()[numbers(structure)], len(frac)
    i, j, d, shift = pairs(lattice, frac, max(CONTACT_A, 2 * CONTACT_RATIO * float(radii.max())))
    touch = d < np.maximum(CONTACT_A, CONTACT_RATIO * (radii[i] + radii[j]))
    i, j, shift = i[touch], j[touch], shift[touch]
    graph = csr_matrix((np.ones(len(i)), (i, j)), shape=(n, n))
    step = {(a, b): s for a, b, s in zip(i.tolist(), j.tolist(), shift, strict=True)}
    count, piece = connected_components(graph, directed=False)
    offset = np.zeros((n, 3), dtype=int)
    for label in range(count):
        order, parent = breadth_first_order(graph, int(np.flatnonzero(piece == label)[0]), directed=False)
        for k in order[1:]:
            offset[k] = offset[parent[k]] + step[(int(parent[k]), int(k))]
    # A bond that does not close its loop in the unfolded piece is a translation the piece repeats along.
    loops = offset[i] + shift - offset[j]
    return max(
        (int(np.linalg.matrix_rank(loops[piece[i] == label])) if np.any(piece[i] == label) else 0)
        for label in range(count)
    )


def flags(structure: Structure) -> list[str]:
    """Return remarks that do not stop a structure.

    Parameters
    ----------
    structure : pymatgen Structure
        Structure that passed `check`.

    Returns
    -------
    list of str
        ``["slab"]``, ``["chain"]``, ``["molecule"]``, or empty for a bulk crystal. Lambda and Tc of the
        models are meant for bulk crystals.
    """
    name = {2: "slab", 1: "chain", 0: "molecule"}.get(dimensionality(structure))
    return [name] if name else []
