"""Element symbols, radii and the one formula convention of the project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Covalent radius (A) used where the table has none (beyond Cm): the mean of the actinides.
FALLBACK_RADIUS_A = 1.7


@lru_cache(maxsize=1)
def atomic_numbers() -> dict[str, int]:
    """Return the atomic number of every known symbol, H (1) to Og (118).

    Returns
    -------
    dict of str to int
    """
    from ase.data import chemical_symbols

    return {symbol: z for z, symbol in enumerate(chemical_symbols) if 1 <= z <= 118}


@lru_cache(maxsize=1)
def covalent_radii() -> np.ndarray:
    """Return the covalent radii of Cordero et al., Dalton Trans. 2008, 2832, from ASE's table.

    Returns
    -------
    ndarray, shape (119,)
        Radius in A at index Z; elements without a measured value get `FALLBACK_RADIUS_A`.
    """
    from ase.data import covalent_radii as table

    radii = np.full(119, FALLBACK_RADIUS_A)
    # ASE writes 0.2 for "unknown"; a real radius is never below hydrogen's 0.31 / helium's 0.28.
    known = np.asarray(table[:119])
    radii[: len(known)] = np.where(known > 0.25, known, FALLBACK_RADIUS_A)
    return radii


def symbols(structure: Structure) -> list[str]:
    """Return the element symbol of every site, oxidation states removed.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.

    Returns
    -------
    list of str
    """
    return [getattr(site.specie, "symbol", str(site.specie)) for site in structure]


def numbers(structure: Structure) -> np.ndarray:
    """Return the atomic number of every site.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    table = atomic_numbers()
    return np.array([table[s] for s in symbols(structure)], dtype=int)


def formula_of(species: Iterable[str]) -> str:
    """Return the alphabetical reduced formula of a list of symbols (MgB2 is ``B2Mg``).

    Parameters
    ----------
    species : iterable of str
        Element symbols, one a site.

    Returns
    -------
    str
        Symbols in alphabetical order, counts divided by their greatest common divisor, 1 left out.
    """
    counts = Counter(species)
    divisor = gcd(*counts.values()) if counts else 1
    parts = ((s, counts[s] // divisor) for s in sorted(counts))
    return "".join(f"{s}{n}" if n > 1 else s for s, n in parts)


def reduced_formula(structure: Structure) -> str:
    """Return the alphabetical reduced formula of a structure (MgB2 is ``B2Mg``, O2 is ``O``).

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure.

    Returns
    -------
    str
    """
    return formula_of(symbols(structure))
