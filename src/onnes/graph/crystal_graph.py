"""Graph of one crystal: atoms, directed bonds and bond angles, as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import numbers as atomic_numbers_of
from onnes.errors import CrystalError
from onnes.graph.line import find_angles
from onnes.graph.merge import merge
from onnes.graph.neighbours import Bonds, find_bonds, isolated
from onnes.graph.settings import GraphSettings

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class BondGraph:
    """Graph of a crystal, full or merged (see `onnes.graph.merge`).

    Attributes
    ----------
    settings : GraphSettings
    n_atoms : int
        Atoms in the cell it was built from.
    numbers : ndarray of int, shape (n,)
        Atomic numbers.
    share : ndarray, shape (n,)
        Atoms of the cell that a node stands for; sums to ``n_atoms``.
    src, dst : ndarray of int, shape (e,)
    vector : ndarray, shape (e, 3)
        From ``src`` to ``dst``, in A (of one representative, where merged).
    distance : ndarray, shape (e,)
        In A.
    weight : ndarray, shape (e,)
        What the bond counts at ``dst``: its fade, times the number of equal bonds that end there.
    bond_share : ndarray, shape (e,)
        Fade times the number of bonds of the cell that the row stands for.
    line_src, line_dst : ndarray of int, shape (t,)
        Bonds of every angle.
    cosine : ndarray, shape (t,)
    line_weight : ndarray, shape (t,)
        What the angle counts at bond ``line_dst``.
    """

    settings: GraphSettings
    n_atoms: int
    numbers: np.ndarray
    share: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    vector: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    bond_share: np.ndarray
    line_src: np.ndarray
    line_dst: np.ndarray
    cosine: np.ndarray
    line_weight: np.ndarray


def build(
    numbers: np.ndarray,
    lattice: np.ndarray,
    frac: np.ndarray,
    settings: GraphSettings,
    *,
    allow_isolated: bool = False,
) -> BondGraph:
    """Return the graph of a crystal.

    Parameters
    ----------
    numbers : ndarray of int, shape (n,)
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
    settings : GraphSettings
    allow_isolated : bool
        Keep atoms without a bond instead of refusing the crystal.

    Returns
    -------
    BondGraph

    Raises
    ------
    CrystalError
        ``no-bonds`` names the atom, its nearest distance and the cut-off; see also `find_bonds`.
    """
    numbers = np.asarray(numbers, int)
    bonds = find_bonds(lattice, frac, settings)
    lonely = isolated(bonds)
    if len(lonely) and not allow_isolated:
        raise _no_bonds(
            int(lonely[0]), numbers, np.asarray(lattice, float), np.asarray(frac, float), settings
        )
    return merge(_full(numbers, bonds, settings))


def graph_of(structure: Structure, settings: GraphSettings, *, allow_isolated: bool = False) -> BondGraph:
    """Return the graph of a pymatgen Structure; see `build`."""
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    return build(atomic_numbers_of(structure), lattice, frac, settings, allow_isolated=allow_isolated)


def _full(numbers: np.ndarray, bonds: Bonds, settings: GraphSettings) -> BondGraph:
    none = np.zeros(0, int)
    angles = find_angles(bonds, settings) if settings.line else (none, none, np.zeros(0), np.zeros(0))
    return BondGraph(
        settings,
        len(numbers),
        numbers,
        np.ones(len(numbers)),
        bonds.src,
        bonds.dst,
        bonds.vector,
        bonds.distance,
        bonds.weight,
        bonds.weight,
        *angles,
    )


def _no_bonds(
    atom: int, numbers: np.ndarray, lattice: np.ndarray, frac: np.ndarray, settings: GraphSettings
) -> CrystalError:
    from ase.data import chemical_symbols

    from onnes.crystal.geometry import nearest

    reach = float(np.linalg.norm(lattice, axis=1).min()) * 1.001  # its own image is never further
    distance = nearest(lattice, frac, reach)[0][atom]
    return CrystalError(
        "no-bonds",
        f"atom {atom} ({chemical_symbols[numbers[atom]]}) has no neighbour in range: the nearest is"
        f" {distance:.3g} A away, the cut-off is {settings.cutoff_A:g} A",
    )
