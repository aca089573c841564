"""Bonds of a crystal: whole-shell k-nearest, radius and soft k-nearest graphs (numpy only).

Every bond is there in both directions. Which bonds exist follows from distances alone, so origin, order of the
atoms and choice of cell do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnes.crystal.geometry import pairs
from onnes.errors import CrystalError
from onnes.graph.settings import GraphSettings

#: Shortest bond a graph accepts, in A. The gate of `onnes.crystal.check` is far stricter; this one only
#: protects the angles from a division by zero.
SHORTEST_A = 0.1


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
    # Shells that straddle the cut-off are kept whole, so the search goes a little beyond it.
    beyond = 0.1 + 2 * settings.tolerance_A if settings.kind == "nearest" else 0.0
    bonds = _all_pairs(lattice, frac, settings.cutoff_A + beyond)
    if len(bonds.distance) and bonds.distance.min() < SHORTEST_A:
        k = int(np.argmin(bonds.distance))
        raise CrystalError(
            "overlapping-atoms",
            f"atoms {bonds.src[k]} and {bonds.dst[k]} are {bonds.distance[k]:.3g} A apart;"
            f" at least {SHORTEST_A} A is accepted",
        )
    return {"nearest": _nearest, "radius": _radius, "soft": _soft}[settings.kind](bonds, settings)


def isolated(bonds: Bonds) -> np.ndarray:
    """Return the atoms that have no bond.

    Returns
    -------
    ndarray of int
    """
    return np.flatnonzero(np.bincount(bonds.src, minlength=len(bonds.reach)) == 0)


def fade(x: np.ndarray, width: float) -> np.ndarray:
    """Return a weight that is 1 up to 1 - width and falls to 0 at 1, twice differentiable.

    Parameters
    ----------
    x : ndarray
        Distance over radius.
    width : float
        Length of the fall.

    Returns
    -------
    ndarray
    """
    t = np.clip((1.0 - x) / width, 0.0, 1.0)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t * t)


def soft_radii(
    src: np.ndarray, distance: np.ndarray, n: int, counts: Sequence[int], cap: float, width: float
) -> np.ndarray:
    """Return the radii of every atom at which the faded count of its neighbours reaches given numbers.

    The sum over neighbours of ``fade(d / r, width)`` grows with r; the root is found by Newton steps kept inside
    a bracket. The target is ``count - 0.5``: where no neighbour is fading the sum is a whole number and flat, so
    a half-integer has exactly one root, and the root moves smoothly when the crystal does.

    Parameters
    ----------
    src : ndarray of int, shape (p,)
        Centre of every pair.
    distance : ndarray, shape (p,)
        In A.
    n : int
        Number of atoms.
    counts : sequence of int, length c
        Numbers of neighbours wanted.
    cap : float
        Largest radius in A.
    width : float
        See `fade`.

    Returns
    -------
    ndarray, shape (c, n)
        Radii in A, at most ``cap``.
    """
    # Below d_k fewer than k are inside; at d_k / (1 - width) all of the k nearest count fully. The root is between
    # the two, and pairs beyond the upper one do not matter.
    kth = _kth_distances(src, distance, n, counts, cap)
    high = np.minimum(kth / (1 - width), cap)
    rows, taken = np.nonzero(distance < high[:, src])
    at, d = rows * n + src[taken], distance[taken]
    low, high = np.minimum(kth, high).ravel(), high.ravel()
    target = np.repeat(np.asarray(counts) - 0.5, n)
    capped = np.bincount(at, fade(d / high[at], width), len(high)) <= target
    low = np.where(capped, high, low)
    for _ in range(2):
        low, high = _narrow(at, d, target, low, high, width)
    r = (low + high) / 2
    for _ in range(60):
        x = d / r[at]
        t = np.minimum(np.maximum((1.0 - x) / width, 0.0), 1.0)
        value = np.bincount(at, t**3 * (10.0 - 15.0 * t + 6.0 * t * t), len(r)) - target
        if (capped | (np.abs(value) < 1e-10)).all():
            break
        slope = np.bincount(at, 30.0 * (t * (1.0 - t)) ** 2 * x, len(r)) / (width * r)
        below = value < 0
        low, high = np.where(below, r, low), np.where(below, high, r)
        newton = r - value / np.maximum(slope, 1e-300)
        new = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        r = np.where(capped, r, new)
    return r.reshape(len(counts), n)


def _narrow(
    at: np.ndarray, d: np.ndarray, target: np.ndarray, low: np.ndarray, high: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Narrow brackets seven-fold: one look at eight radii saves many Newton steps on a flat part of the sum."""
    steps, size = 8, len(low)
    grid = low + np.linspace(0.0, 1.0, steps)[:, None] * (high - low)
    place = at + size * np.arange(steps)[:, None]
    count = np.bincount(place.ravel(), fade(d / grid[:, at], width).ravel(), steps * size)
    first = np.clip((count.reshape(steps, size) < target).sum(axis=0), 1, steps - 1)
    column = np.arange(size)
    return grid[first - 1, column], grid[first, column]


def _refuse(lattice: np.ndarray, frac: np.ndarray) -> None:
    if len(frac) == 0:
        raise CrystalError("no-atoms", "the structure has a cell but no atoms")
    if not (np.all(np.isfinite(lattice)) and np.all(np.isfinite(frac))):
        raise CrystalError("non-finite", "the cell or a coordinate holds a number that is not finite")
    if abs(np.linalg.det(lattice)) <= 1e-6 * np.sqrt(np.prod(np.sum(lattice**2, axis=1))):
        raise CrystalError("zero-volume", "the cell vectors span no volume")


def _all_pairs(lattice: np.ndarray, frac: np.ndarray, cutoff: float) -> Bonds:
    i, j, d, shift = pairs(lattice, frac, cutoff)
    order = np.argsort(i, kind="stable")
    i, j, d, shift = i[order].astype(np.intp), j[order].astype(np.intp), d[order], shift[order]
    position = np.mod(frac, 1.0) @ lattice
    vector = position[j] - position[i] + shift @ lattice
    return Bonds(i, j, vector, d, np.ones(len(d)), np.full(len(frac), float(cutoff)))


def _rank(src: np.ndarray, distance: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order by (atom, distance), where every atom starts in it, and how many pairs it has."""
    count = np.bincount(src, minlength=n)
    return np.lexsort((distance, src)), np.cumsum(count) - count, count


def _kth_distances(
    src: np.ndarray, distance: np.ndarray, n: int, counts: Sequence[int], default: float
) -> np.ndarray:
    order, start, count = _rank(src, distance, n)
    kth = np.full((len(counts), n), default)
    for row, k in zip(kth, counts, strict=True):
        enough = count >= k
        row[enough] = distance[order[start[enough] + k - 1]]
    return kth


def _nearest(bonds: Bonds, settings: GraphSettings) -> Bonds:
    n = len(bonds.reach)
    tolerance = settings.tolerance_A
    order, start, _ = _rank(bonds.src, bonds.distance, n)
    d, atom = bonds.distance[order], bonds.src[order]
    reach = np.zeros(n)
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
    margin = reach + tolerance / 2
    mask = (bonds.distance <= margin[bonds.src]) | (bonds.distance <= margin[bonds.dst])
    return bonds.keep(mask, bonds.weight, reach)


def _radius(bonds: Bonds, settings: GraphSettings) -> Bonds:
    weight = fade(bonds.distance / settings.cutoff_A, settings.fade)
    return bonds.keep(weight > 0, weight, bonds.reach)


def _soft(bonds: Bonds, settings: GraphSettings) -> Bonds:
    counts = [settings.neighbours, *([settings.line_neighbours] if settings.line_neighbours else [])]
    radii = soft_radii(bonds.src, bonds.distance, len(bonds.reach), counts, settings.cutoff_A, settings.fade)
    # A bond of either end is a bond of both.
    mask = bonds.distance < np.maximum(radii[0][bonds.src], radii[0][bonds.dst])
    near = bonds.keep(mask, bonds.weight, radii[0])
    ends = fade(near.distance / radii[0][np.stack([near.src, near.dst])], settings.fade)
    return replace(near, weight=1.0 - (1.0 - ends[0]) * (1.0 - ends[1]), angle_reach=radii[-1])
