"""Structural and compositional validity of generated crystals, as CDVAE defined them (Xie et al., ICLR 2022)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import symbols
from onnes.crystal.geometry import min_distance, short_pairs

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Shortest distance (A) and smallest volume (A^3) of a structurally valid crystal.
MIN_DISTANCE_A, MIN_VOLUME_A3 = 0.5, 0.1
#: The stricter bar beside it: nothing but hydrogen and a few molecules has a shorter bond.
STRICT_DISTANCE_A = 1.5


def shortest(structure: Structure) -> float:
    """Shortest distance between atoms, periodic images of one atom included, in A.

    Parameters
    ----------
    structure : pymatgen Structure

    Returns
    -------
    float
        0 for a cell without volume.
    """
    lattice = np.array(structure.lattice.matrix)
    if abs(structure.volume) < MIN_VOLUME_A3:
        return 0.0
    return float(min_distance(lattice, np.array(structure.frac_coords)))


def overlapping(structure: Structure, share: float) -> bool:
    """Whether two atoms are closer than a share of the sum of their covalent radii.

    Parameters
    ----------
    structure : pymatgen Structure
    share : float
    """
    if abs(structure.volume) < MIN_VOLUME_A3:
        return True
    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    z = np.array([site.specie.Z for site in structure])
    return len(short_pairs(lattice, frac, z, share)[0]) > 0


def structurally_valid(structure: Structure) -> bool:
    """Whether no two atoms are closer than 0.5 A and the cell has more than 0.1 A^3.

    CDVAE leaves out the distance of an atom to its own images; here it counts.

    Parameters
    ----------
    structure : pymatgen Structure

    Returns
    -------
    bool
    """
    return abs(structure.volume) > MIN_VOLUME_A3 and shortest(structure) > MIN_DISTANCE_A


@lru_cache(maxsize=128)
def _element(symbol: str) -> tuple[bool, float, tuple[int, ...], tuple[int, ...]]:
    """Is it a metal, its electronegativity, positive and negative oxidation states."""
    import math
    import warnings

    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # light noble gases have no electronegativity
        element = Element(symbol)
        x = float(element.X)
    states = element.oxidation_states
    metal = bool(element.is_metal)
    return (
        metal,
        x if math.isfinite(x) else math.inf,
        tuple(s for s in states if s > 0),
        tuple(s for s in states if s < 0),
    )


@lru_cache(maxsize=65536)
def _balanced(amounts: tuple[tuple[str, int], ...]) -> bool:
    if len(amounts) == 1 or all(_element(e)[0] for e, _ in amounts):
        return True
    ordered = sorted(amounts, key=lambda pair: _element(pair[0])[1])
    for cut in range(1, len(ordered)):
        # Pauling's test: every cation less electronegative than every anion.
        if not _element(ordered[cut - 1][0])[1] < _element(ordered[cut][0])[1]:
            continue
        positive, negative = {0}, {0}
        for symbol, n in ordered[:cut]:
            positive = {total + n * s for total in positive for s in _element(symbol)[2]}
        for symbol, n in ordered[cut:]:
            negative = {total - n * s for total in negative for s in _element(symbol)[3]}
        if positive & negative:
            return True
    return False


def compositionally_valid(structure: Structure) -> bool:
    """Whether the formula can be charge-balanced, the rule of SMACT as CDVAE uses it.

    Valid are elements, alloys of metals only, and formulas for which one oxidation state an element adds up to zero
    with every cation less electronegative (Pauling) than every anion. Oxidation states, electronegativities and metals
    are pymatgen's (SMACT has its own lists). Borides, carbides and hydrides of metals pass or fail by their formula,
    not by their chemistry: for superconductors this is a figure to compare with, no gate.

    Parameters
    ----------
    structure : pymatgen Structure

    Returns
    -------
    bool
    """
    from collections import Counter
    from math import gcd

    count = Counter(symbols(structure))
    unit = gcd(*count.values())
    return _balanced(tuple(sorted((e, n // unit) for e, n in count.items())))
