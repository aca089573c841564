"""Bonds of a crystal: whole-shell k-nearest, radius and soft k-nearest graphs (numpy only).

Every bond is there in both directions. Which bonds exist follows from distances alone, so origin, order of the
atoms and choice of cell do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnes.crystal.geometry import pairs
from onnes.errors import CrystalError
from onnes.graph.settings import GraphSettings
from onnes.graph.soft import fade, rank, soft_radii

#: Shortest bond a graph accepts, in A. The gate of `onnes.crystal.check` is far stricter; this one only
#: protects the angles from a division by zero.
SHORTEST_A = 0.1

_BEYOND_A = 0.1

#: First search radius, in units of the sphere that holds k neighbours at the mean density: of 400 crystals tried,
#: fewer than four needed a second search.
_FIRST_SEARCH = {"nearest": 1.25, "soft": 1.35}


@dataclass(frozen=True)
class Bonds:
    """Directed bonds, sorted by source atom.

    Attributes
    ----------
    src, dst : ndarray of int, shape (e,)
        Atoms at both ends.
    vector : ndarray, shape (e, 3)
        From source to destination, in A.
    distance : ndarray, shape (e,)
        Its length in A.
    weight : ndarray, shape (e,)
        1, or less where the bond fades out.
    reach : ndarray, shape (n,)
        Radius of every atom in A beyond which its own weight is 0 (the longest bond kept for ``nearest``).
    angle_reach : ndarray, shape (n,), optional
        The same for the bonds that form angles (``soft`` only).
    """

    src: np.ndarray
    dst: np.ndarray
    vector: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    reach: np.ndarray
    angle_reach: np.ndarray | None = None

    def keep(self, mask: np.ndarray, weight: np.ndarray, reach: np.ndarray) -> Bonds:
        """Return the bonds of a mask with new weights and radii."""
        return Bonds(
            self.src[mask], self.dst[mask], self.vector[mask], self.distance[mask], weight[mask], reach
        )


def find_bonds(lattice: np.ndarray, frac: np.ndarray, settings: GraphSettings) -> Bonds:
    """Return the bonds of a crystal.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors in A.
    frac : ndarray, shape (n, 3)
        Fractional coordinates.
    settings : GraphSettings

    Returns
    -------
    Bonds
        An atom without any neighbour in range has no bonds; see `isolated`.

    Raises
    ------
    CrystalError
        ``non-finite``, ``zero-volume``, ``no-atoms`` or ``overlapping-atoms``.
    """
    lattice, frac = np.asarray(lattice, float).reshape(3, 3), np.asarray(frac, float).reshape(-1, 3)
    _refuse(lattice, frac)
    for search in _searches(lattice, len(frac), settings):
        bonds = _all_pairs(lattice, frac, search)
        _refuse_overlap(bonds)
        chosen = {"nearest": _nearest, "radius": _radius, "soft": _soft}[settings.kind](bonds, settings)
        if chosen is not None:
            return chosen
    raise AssertionError("the last search reaches the cut-off")


def isolated(bonds: Bonds) -> np.ndarray:
    """Return the atoms that have no bond.

    Returns
    -------
    ndarray of int
    """
    return np.flatnonzero(np.bincount(bonds.src, minlength=len(bonds.reach)) == 0)


def _refuse(lattice: np.ndarray, frac: np.ndarray) -> None:
    if len(frac) == 0:
        raise CrystalError("no-atoms", "the structure has a cell but no atoms")
    if not (np.all(np.isfinite(lattice)) and np.all(np.isfinite(frac))):
        raise CrystalError("non-finite", "the cell or a coordinate holds a number that is not finite")
    if abs(np.linalg.det(lattice)) <= 1e-6 * np.sqrt(np.prod(np.sum(lattice**2, axis=1))):
        raise CrystalError("zero-volume", "the cell vectors span no volume")


def _refuse_overlap(bonds: Bonds) -> None:
    if len(bonds.distance) and bonds.distance.min() < SHORTEST_A:
        k = int(np.argmin(bonds.distance))
        raise CrystalError(
            "overlapping-atoms",
            f"atoms {bonds.src[k]} and {bonds.dst[k]} are {bonds.distance[k]:.3g} A apart;"
            f" at least {SHORTEST_A} A is accepted",
        )


def _searches(lattice: np.ndarray, n: int, settings: GraphSettings) -> list[float]:
    """Radii to search in turn: one that is usually enough, judged by the density, and one that always is."""
    # Shells that straddle the cut-off are kept whole, so the search goes a little beyond it.
    full = settings.cutoff_A + (_BEYOND_A + 2 * settings.tolerance_A if settings.kind == "nearest" else 0.0)
    if settings.kind == "radius":
        return [full]
    sphere = np.cbrt(3.0 * settings.neighbours * abs(np.linalg.det(lattice)) / (4.0 * np.pi * n))
    guess = _FIRST_SEARCH[settings.kind] * sphere
    return [guess, full] if guess < 0.8 * full else [full]


def _all_pairs(lattice: np.ndarray, frac: np.ndarray, cutoff: float) -> Bonds:
    i, j, d, shift = pairs(lattice, frac, cutoff)
    order = np.argsort(i, kind="stable")
    i, j, d, shift = i[order].astype(np.intp), j[order].astype(np.intp), d[order], shift[order]
    position = np.mod(frac, 1.0) @ lattice
    vector = position[j] - position[i] + shift @ lattice
    return Bonds(i, j, vector, d, np.ones(len(d)), np.full(len(frac), float(cutoff)))


def _nearest(bonds: Bonds, settings: GraphSettings) -> Bonds | None:
    """Whole shells; None where the search may have cut one."""
    n = len(bonds.reach)
    tolerance = settings.tolerance_A
    order, start, _ = rank(bonds.src, bonds.distance, n)
    d, atom = bonds.distance[order], bonds.src[order]
    reach, have = np.zeros(n), np.zeros(n, int)
    if len(d):
        # A shell ends where the next distance of the same atom is more than the tolerance away.
        last = np.append((np.diff(d) > tolerance) | (np.diff(atom) > 0), True)
        shell_end = np.flatnonzero(last)
        # Half a tolerance beyond the cut-off, so that a round number written with noise is inside.
        inside = np.bincount(atom, d <= settings.cutoff_A + tolerance / 2, n).astype(int)
        have = np.minimum(inside, settings.neighbours)
        some = have > 0
        position = start[some] + have[some] - 1
        end = shell_end[np.searchsorted(shell_end, position)]
        reach[some] = d[end]
    searched = bonds.reach[0]
    short = have.min() < settings.neighbours or reach.max() + 2 * tolerance > searched
    if short and searched < settings.cutoff_A:
        return None
    margin = reach + tolerance / 2
    mask = (bonds.distance <= margin[bonds.src]) | (bonds.distance <= margin[bonds.dst])
    return bonds.keep(mask, bonds.weight, reach)


def _radius(bonds: Bonds, settings: GraphSettings) -> Bonds:
    weight = fade(bonds.distance / settings.cutoff_A, settings.fade)
    return bonds.keep(weight > 0, weight, bonds.reach)


def _soft(bonds: Bonds, settings: GraphSettings) -> Bonds | None:
    """Smooth neighbours; None where the search may have missed some."""
    counts = [settings.neighbours, *([settings.line_neighbours] if settings.line_neighbours else [])]
    radii = soft_radii(bonds.src, bonds.distance, len(bonds.reach), counts, settings.cutoff_A, settings.fade)
    # Within a search, radii can only come out too large: those that fit into it are right.
    if radii.max() > min(bonds.reach[0], settings.cutoff_A):
        return None
    # A bond of either end is a bond of both.
    mask = bonds.distance < np.maximum(radii[0][bonds.src], radii[0][bonds.dst])
    near = bonds.keep(mask, bonds.weight, radii[0])
    ends = fade(near.distance / radii[0][np.stack([near.src, near.dst])], settings.fade)
    return replace(near, weight=1.0 - (1.0 - ends[0]) * (1.0 - ends[1]), angle_reach=radii[-1])
