"""Docking of a generated cell: clashing atoms are separated and the volume made plausible before a force is asked for.

A universal potential has seen crystals, not atoms inside each other; from such a start its forces throw a crystal
apart. So pairs closer than `CONTACT` of the sum of their covalent radii are pushed apart (each step by half the
overlap, the soft repulsion sum (d0 - d)^2 / 2 followed downhill), and where that alone does not help the cell grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnes.crystal.formula import covalent_radii, numbers
from onnes.crystal.geometry import pairs
from onnes.errors import CrystalError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Shortest distance allowed, in sums of covalent radii (Cordero): 99 % of 1,500 Materials Project crystals (drawn at
#: random from 29,419) keep it.
CONTACT = 0.7
#: Packing fractions (see `onnes.crystal.geometry.packing_fraction`) between which 99 % of the same crystals lie, and
#: their median: a cell outside says nothing about the volume and is scaled to the median.
PACKING = (0.10, 1.09)
USUAL_PACKING = 0.62
MAX_STEPS = 500
#: Longest move of an atom in one step, A.
MAX_MOVE_A = 0.2
#: Steps without a smaller overlap before the cell grows, and by how much (in length).
STUCK, GROW = 10, 1.02
#: A cell that would have to grow more than this (in volume) cannot be docked.
MAX_GROWTH = 8.0


@dataclass(frozen=True)
class Docked:
    """Outcome of docking.

    Attributes
    ----------
    structure : pymatgen Structure
        The given one itself where nothing had to be done.
    steps : int
        Steps taken; 0 when nothing had to be done.
    volume_ratio : float
        Volume after docking over that before.
    contact : float
        Shortest distance now, in sums of covalent radii.
    """

    structure: Structure
    steps: int
    volume_ratio: float
    contact: float


def dock(structure: Structure, contact: float = CONTACT, packing: tuple[float, float] = PACKING) -> Docked:
    """Separate atoms that clash and bring the volume into a plausible range.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered, with a cell of finite volume.
    contact : float
        Shortest distance wanted, in sums of covalent radii.
    packing : (float, float)
        Packing fractions wanted.

    Returns
    -------
    Docked
        The same input gives the same output to the last digit.

    Raises
    ------
    CrystalError
        ``dock-failed``: the atoms could not be separated.
    """
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as Made

    lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    radii = covalent_radii()[numbers(structure)]
    before = abs(float(np.linalg.det(lattice)))
    lattice = lattice * _plausible(radii, before, packing)
    lowest, stuck, step = np.inf, 0, 0
    while True:
        i, j, vector, d = _near(lattice, frac, 2.0 * float(radii.max()))
        wanted = contact * (radii[i] + radii[j])
        bad = d < wanted * (1.0 - 1e-9)
        ratio = abs(float(np.linalg.det(lattice))) / before
        if not bad.any():
            break
        if step == MAX_STEPS or ratio > MAX_GROWTH * max(1.0, _plausible(radii, before, packing) ** 3):
            raise CrystalError("dock-failed", f"{structure.formula}: atoms still clash after {step} steps")
        step += 1
        # A touch more than wanted, so that the last overlap ends in a finite number of steps.
        overlap = 1.02 * wanted[bad] - d[bad]
        frac = frac + _push(len(frac), i[bad], vector[bad], overlap) @ np.linalg.inv(lattice)
        own = bad & (i == j)
        stuck = 0 if overlap.sum() < 0.99 * lowest else stuck + 1
        lowest = min(lowest, float(overlap.sum()))
        if own.any():  # an atom too close to its own image: the cell is too short there
            lattice = _stretch(lattice, vector[own], (1.02 * wanted[own]) / d[own])
        elif stuck >= STUCK:
            lattice, stuck, lowest = lattice * GROW, 0, np.inf
    shortest = float((d / (radii[i] + radii[j])).min()) if len(d) else np.inf
    if step == 0 and ratio == 1.0:
        return Docked(structure, 0, 1.0, shortest)
    made = Made(Lattice(lattice), structure.species, np.mod(frac, 1.0))
    return Docked(made, step, ratio, shortest)


def _plausible(radii: np.ndarray, volume: float, packing: tuple[float, float]) -> float:
    """Factor for the cell's lengths that brings its packing fraction into the range."""
    fraction = float(np.sum(4.0 / 3.0 * np.pi * radii**3)) / volume
    if packing[0] <= fraction <= packing[1]:
        return 1.0
    return float(np.cbrt(fraction / USUAL_PACKING))


def _near(lattice: np.ndarray, frac: np.ndarray, reach: float) -> tuple[np.ndarray, ...]:
    """Pairs within reach: sites, vector from i to j's image, distance. Coincident atoms get a direction each."""
    wrapped = np.mod(frac, 1.0)
    i, j, d, shift = pairs(lattice, wrapped, reach)
    vector = (wrapped[j] + shift - wrapped[i]) @ lattice
    zero = d < 1e-6
    if zero.any():
        # The list may leave out pairs at distance zero or have no direction for them; any fixed one will do.
        angle = 2.399963 * (1.0 + np.minimum(i, j)[zero])
        sign = np.where(i < j, 1.0, -1.0)[zero]
        way = np.stack([np.cos(angle), np.sin(angle), 0.5 * np.cos(2 * angle)], axis=1)
        vector[zero] = 1e-3 * sign[:, None] * way / np.linalg.norm(way, axis=1)[:, None]
        d = np.where(zero, 1e-3, d)
    return i, j, vector, d


def _push(n: int, i: np.ndarray, vector: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Move of every atom, A: away from each clash by half its overlap."""
    away = -vector / np.linalg.norm(vector, axis=1)[:, None]
    moves = np.zeros((n, 3))
    np.add.at(moves, i, 0.5 * overlap[:, None] * away)
    longest = float(np.linalg.norm(moves, axis=1).max())
    return moves * min(1.0, MAX_MOVE_A / longest) if longest > 0 else moves


def _stretch(lattice: np.ndarray, vectors: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Stretch a cell along the vectors to the images that are too close, by at most 5 % a step."""
    for vector, factor in zip(vectors, factors, strict=True):
        unit = vector / np.linalg.norm(vector)
        if unit[np.abs(unit).argmax()] < 0:
            continue  # each image is listed in both directions
        lattice = lattice + (min(float(factor), 1.05) - 1.0) * np.outer(lattice @ unit, unit)
    return lattice
