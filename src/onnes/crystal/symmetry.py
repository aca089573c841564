"""Space group, standardised primitive cell, and a label that is the same for every cell of one crystal.

moyopy does the search (0.1 ms for a small cell); spglib takes over where moyopy gives up, and both are
asked again with a tighter tolerance before the crystal is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.crystal.formula import formula_of, numbers, symbols
from onnes.errors import CrystalError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: The tolerance is divided by these until a search succeeds.
_TIGHTEN = (1.0, 5.0, 25.0, 1000.0)

#: Space groups that are mirror images of each other count as one (the lower number): a crystal and its
#: mirror image have the same energy, phonons and Tc.
_ENANTIOMORPH = {
    78: 76,
    95: 91,
    96: 92,
    145: 144,
    153: 151,
    154: 152,
    170: 169,
    172: 171,
    179: 178,
    181: 180,
    213: 212,
}

#: The 27 point groups that are not cubic, in their usual spelling.
# fmt: off
_POINT_GROUPS = [
    "1", "-1", "2", "m", "2/m", "222", "mm2", "mmm", "4",
    "-4", "4/m", "422", "4mm", "-42m", "4/mmm", "3", "-3", "32",
    "3m", "-3m", "6", "-6", "6/m", "622", "6mm", "-6m2", "6/mmm",
]
# fmt: on


@dataclass(frozen=True)
class SymmetryData:
    """Result of one symmetry search, whichever library found it.

    Attributes
    ----------
    number : int
        Space-group number.
    orbits : ndarray of int, shape (n,)
        Index of the representative site of each site's orbit (all operations, pure translations included).
    site_symmetry : tuple of str
        Oriented site-symmetry symbol of each site.
    n_primitive : int
        Atoms in the primitive cell.
    primitive : tuple
        Standardised primitive cell: lattice rows (3, 3) in A, fractional coordinates (m, 3), numbers (m,).
    """

    number: int
    orbits: np.ndarray
    site_symmetry: tuple[str, ...]
    n_primitive: int
    primitive: tuple[np.ndarray, np.ndarray, np.ndarray]


@lru_cache(maxsize=1)
def _quiet_moyopy() -> Any:
    """Import moyopy without its log lines: it warns for every supercell, which is no news to a user."""
    import logging

    import moyopy

    for name in ("moyo", "moyopy", "moyopy._moyopy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return moyopy


def _moyo(lattice: np.ndarray, frac: np.ndarray, z: np.ndarray, symprec: float) -> SymmetryData:
    moyopy = _quiet_moyopy()

    cell = moyopy.Cell(lattice.tolist(), frac.tolist(), z.tolist())
    found: Any = moyopy.MoyoDataset(cell, symprec=symprec)
    prim = found.prim_std_cell
    return SymmetryData(
        number=int(found.number),
        orbits=np.asarray(found.orbits, dtype=int),
        site_symmetry=tuple(found.site_symmetry_symbols),
        n_primitive=len(prim.numbers),
        primitive=(np.array(prim.basis), np.array(prim.positions), np.array(prim.numbers, dtype=int)),
    )


def _spglib(lattice: np.ndarray, frac: np.ndarray, z: np.ndarray, symprec: float) -> SymmetryData:
    import os
    import warnings

    # Its C library writes to stderr where a search fails, which here only means "try the next tolerance".
    os.environ.setdefault("SPGLIB_WARNING", "OFF")
    import spglib

    cell: Any = (lattice, frac, z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = spglib.get_symmetry_dataset(cell, symprec=symprec)
        prim = spglib.standardize_cell(cell, to_primitive=True, symprec=symprec)
    if found is None or prim is None:
        raise ValueError("spglib found no symmetry")
    return SymmetryData(
        number=int(found.number),
        orbits=np.asarray(found.crystallographic_orbits, dtype=int),
        site_symmetry=tuple(found.site_symmetry_symbols),
        n_primitive=len(prim[2]),
        primitive=(np.array(prim[0]), np.array(prim[1]), np.array(prim[2], dtype=int)),
    )


def _consistent(found: SymmetryData, z: np.ndarray) -> bool:
    """A primitive cell must hold the same composition as the input, a whole number of times fewer."""
    if found.n_primitive == 0 or len(z) % found.n_primitive:
        return False
    copies = len(z) // found.n_primitive
    inside = Counter(found.primitive[2].tolist())
    return Counter(z.tolist()) == Counter({k: v * copies for k, v in inside.items()})


def analyse(structure: Structure, symprec: float = 0.01) -> SymmetryData:
    """Search the symmetry of a structure.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.
    symprec : float
        Distance tolerance in A. Where the search fails it is tightened by 5, 25 and 1000.

    Returns
    -------
    SymmetryData

    Raises
    ------
    CrystalError
        ``symmetry-failed`` when no library finds a consistent answer at any tolerance.
    """
    lattice = np.array(structure.lattice.matrix, dtype=float)
    frac = np.mod(np.array(structure.frac_coords, dtype=float), 1.0)
    z = numbers(structure)
    for factor in _TIGHTEN:
        for search in (_moyo, _spglib):
            try:
                found = search(lattice, frac, z, symprec / factor)
            except Exception:  # either library raises several undocumented types; all mean "try the next"
                continue
            if _consistent(found, z):
                return found
    raise CrystalError("symmetry-failed", f"no symmetry found for {formula_of(symbols(structure))}")


def space_group(structure: Structure, symprec: float = 0.01) -> tuple[int, str]:
    """Return the space group.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.
    symprec : float
        Distance tolerance in A.

    Returns
    -------
    (int, str)
        Number (1 to 230) and short Hermann-Mauguin symbol (``(191, "P6/mmm")``).

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    number = analyse(structure, symprec).number
    return number, space_group_symbol(number)


@lru_cache(maxsize=256)
def space_group_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space-group number.

    Parameters
    ----------
    number : int
        1 to 230.

    Returns
    -------
    str
        ``"Fm-3m"`` for 225.

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    moyopy = _quiet_moyopy()
    if not 1 <= number <= 230:
        raise CrystalError("unknown-space-group", f"space group {number} is not one of 1 to 230")
    return str(moyopy.SpaceGroupType(number).hm_short).replace(" ", "")


def standardise(structure: Structure, symprec: float = 0.01) -> Structure:
    """Return the standardised primitive cell with positions moved onto the symmetry found.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.
    symprec : float
        Distance tolerance in A; no atom moves further than about this.

    Returns
    -------
    pymatgen Structure
        Right-handed primitive cell, sites grouped by element in alphabetical order. Site properties are not
        kept.

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    from ase.data import chemical_symbols
    from pymatgen.core import Structure as PmgStructure

    lattice, frac, z = analyse(structure, symprec).primitive
    species = [chemical_symbols[k] for k in z]
    order = sorted(range(len(z)), key=lambda i: species[i])
    # Rounding errors such as -1e-17 must not become 0.9999...: they would change hashes of the same cell.
    frac = np.mod(np.round(frac, 12), 1.0)
    return PmgStructure(lattice, [species[i] for i in order], frac[order])


def _tokens(symbol: str) -> list[str]:
    return re.findall(r"-?\d(?:/m)?|m", symbol)


@lru_cache(maxsize=512)
def point_group(oriented: str) -> str:
    """Return the point group of an oriented site-symmetry symbol: ``m2m.`` and ``2mm`` are both ``mm2``.

    Parameters
    ----------
    oriented : str
        Symbol as in the International Tables, dots for directions without an element.

    Returns
    -------
    str
        One of the 32 point groups. Which axis is called a, b or c depends on the cell that was given; this
        does not.
    """
    plain = oriented.replace(".", "").replace(" ", "")
    tokens = _tokens(plain)
    if any(t in ("3", "-3") for t in tokens[1:]):
        return plain  # a three-fold axis in second place: cubic, where only one order of the symbol exists
    return next((name for name in _POINT_GROUPS if sorted(_tokens(name)) == sorted(tokens)), plain)


def fingerprint(structure: Structure, symprec: float = 0.05) -> str:
    """Return a readable label that is the same for every cell of one crystal.

    The label is the reduced formula, the space-group number and, for each element, the orbits as
    ``multiplicity(site symmetry)`` counted in the primitive cell: ``B2Mg|191|B:2(-6m2);Mg:1(6/mmm)``. It
    does not use Wyckoff letters or axis names, which change with the origin and the setting, nor any length
    or coordinate, so it is the same for primitive, super- and Niggli cells, shifted origins, permuted sites
    and small noise.

    Equal labels do not prove equal crystals: coordinates that symmetry leaves free, and all P1 crystals of
    one formula, share a label. Within a label `onnes.crystal.same_crystal` decides.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.
    symprec : float
        Distance tolerance in A. It is wide so that noise far below it does not change the answer; a crystal
        distorted by about this much from a higher symmetry can fall on either side.

    Returns
    -------
    str

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    found = analyse(structure, symprec)
    species = symbols(structure)
    copies = len(species) // found.n_primitive
    orbits: dict[str, list[tuple[int, str]]] = {}
    for representative, size in Counter(found.orbits.tolist()).items():
        group = point_group(found.site_symmetry[representative])
        orbits.setdefault(species[representative], []).append((size // copies, group))
    parts = (f"{s}:{','.join(f'{n}({g})' for n, g in sorted(orbits[s]))}" for s in sorted(orbits))
    number = _ENANTIOMORPH.get(found.number, found.number)
    return f"{formula_of(species)}|{number}|{';'.join(parts)}"
