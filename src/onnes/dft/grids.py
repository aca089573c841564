"""Commensurate k and q grids from a density, invariant under the crystal's symmetry, and their irreducible points.

The rule per axis is that of the BETE-NET data set: subdivisions from one density for k and one for q, then k + 1,
k - 1, and at last a lower q until k is a multiple of q. Two conditions are added. Axes that a symmetry operation mixes
get equal subdivisions: the grid of a hexagonal or body-centred tetragonal cell is otherwise not mapped onto itself, and
``q2r.x`` needs whole stars. An axis of vacuum gets one subdivision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import CrystalError, SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

IntArray = NDArray[np.int64]
Subdivisions = tuple[int, int, int]

#: Tolerance in A of the symmetry search; cells come standardised, QE itself looks at 1e-5 of the lattice parameter.
SYMPREC = 1e-4
#: Layers of a slab further apart than this along an axis count as vacuum, A (contacts end at 5 A).
VACUUM_A = 8.0


@dataclass(frozen=True)
class Grids:
    """Subdivisions of the three grids of an electron-phonon run.

    Attributes
    ----------
    q : tuple of 3 int
        Phonon wave vectors.
    k : tuple of 3 int
        Self-consistent field and linear response; a multiple of `q` along every axis.
    dense : tuple of 3 int
        Fermi-surface sums (``la2F``); a multiple of `k`.
    """

    q: Subdivisions
    k: Subdivisions
    dense: Subdivisions


def subdivisions(lattice: NDArray[np.float64], density_A: float) -> Subdivisions:
    """Subdivisions of a uniform grid whose density along each reciprocal axis is at least the one asked for.

    Parameters
    ----------
    lattice : ndarray, shape (3, 3)
        Row vectors, A.
    density_A : float
        N_i = density / d_i, rounded up, with d_i = 2 pi/|b_i| the spacing of the lattice planes of axis i.

    Returns
    -------
    tuple of 3 int
    """
    inverse_spacing = np.linalg.norm(np.linalg.inv(lattice), axis=0)
    # A hair below the integer: 3.0000000001, the rounding error of a cubic cell, must not become 4.
    return _three(max(1, math.ceil(density_A * x - 1e-6)) for x in inverse_spacing)


def commensurate(k: int, q: int) -> tuple[int, int]:
    """Make one axis commensurate: k, k + 1, k - 1, then the next lower q, until k is a multiple of q.

    Parameters
    ----------
    k, q : int
        Subdivisions wanted, at least 1.

    Returns
    -------
    (int, int)
        k and q with k % q == 0.
    """
    while q > 1:
        for candidate in (k, k + 1, k - 1):
            if candidate >= q and candidate % q == 0:
                return candidate, q
        q -= 1
    return k, 1


def make_grids(
    structure: Structure, k_density_A: float, q_density_A: float, *, dense_factor: int = 2
) -> Grids:
    """Choose the three grids of a crystal.

    Parameters
    ----------
    structure : pymatgen Structure
        The cell that will be computed (relaxed, standardised).
    k_density_A, q_density_A : float
        Densities of `subdivisions`; k at least as dense as q.
    dense_factor : int
        The Fermi-surface grid is this multiple of the k grid (1 along vacuum).

    Returns
    -------
    Grids

    Raises
    ------
    SettingsError
        ``bad-density``; ``grid-too-coarse``: only Gamma is left as a q-point, whose coupling says nothing about Tc.
    CrystalError
        ``symmetry-failed``.
    """
    if not 0.0 < q_density_A <= k_density_A or dense_factor < 1:
        raise SettingsError(
            "bad-density",
            f"densities k {k_density_A:g} and q {q_density_A:g} A, dense factor {dense_factor}: "
            "use 0 < q <= k and a factor of at least 1",
        )
    lattice = np.array(structure.lattice.matrix, dtype=float)
    rotations = point_rotations(structure)
    vacuum = vacuum_axes(structure)
    k, q = list(subdivisions(lattice, k_density_A)), list(subdivisions(lattice, q_density_A))
    for axes in mixed_axes(rotations):
        pair = commensurate(max(k[i] for i in axes), max(q[i] for i in axes))
        empty = any(vacuum[i] for i in axes)
        for i in axes:
            k[i], q[i] = (1, 1) if empty else pair
    if q == [1, 1, 1]:
        raise SettingsError(
            "grid-too-coarse",
            f"a q density of {q_density_A:g} A leaves only Gamma for this cell; raise it above "
            f"{1.0 / float(np.linalg.norm(np.linalg.inv(lattice), axis=0).max()):.1f} A",
        )
    dense = _three(n if vacuum[i] else n * dense_factor for i, n in enumerate(k))
    return Grids(_three(q), _three(k), dense)


def point_rotations(structure: Structure, symprec: float = SYMPREC) -> IntArray:
    """Rotation parts of the space group in the basis of the cell, shape (m, 3, 3), without repetitions.

    Fractional coordinates transform as x' = W x, reciprocal ones (rows) as k' = k W^-1.

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    import spglib

    numbers = [site.specie.Z for site in structure]
    cell: Any = (np.array(structure.lattice.matrix), np.array(structure.frac_coords), numbers)
    try:
        found = spglib.get_symmetry(cell, symprec=symprec)
    except Exception as error:  # spglib raises types of its own, which differ between its versions
        raise CrystalError("symmetry-failed", f"no symmetry operations: {error}") from None
    if found is None:
        raise CrystalError("symmetry-failed", f"no symmetry operations at {symprec:g} A")
    return np.unique(np.asarray(found["rotations"], dtype=np.int64), axis=0)


def mixed_axes(rotations: IntArray) -> list[list[int]]:
    """Groups of reciprocal axes that some operation maps into each other."""
    linked = (rotations != 0).any(axis=0)
    linked = linked | linked.T
    groups: list[list[int]] = []
    for axis in range(3):
        joined = [g for g in groups if any(linked[axis, other] for other in g)]
        groups = [g for g in groups if g not in joined]
        groups.append(sorted([axis, *(i for g in joined for i in g)]))
    return sorted(groups)


def vacuum_axes(structure: Structure) -> tuple[bool, bool, bool]:
    """Axes along which a gap of at least `VACUUM_A` separates the planes of atoms."""
    lattice = np.array(structure.lattice.matrix, dtype=float)
    spacing = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    found = []
    for axis in range(3):
        heights = np.sort(np.mod(np.array(structure.frac_coords)[:, axis], 1.0))
        gaps = np.diff(np.append(heights, heights[0] + 1.0))
        found.append(bool(gaps.max() * spacing[axis] >= VACUUM_A))
    return (found[0], found[1], found[2])


def irreducible(
    grid: Sequence[int], rotations: IntArray, *, time_reversal: bool = True
) -> tuple[NDArray[np.float64], IntArray]:
    """Irreducible points of a Gamma-centred grid.

    Parameters
    ----------
    grid : sequence of 3 int
    rotations : ndarray, shape (m, 3, 3)
        A group, as from `point_rotations` or `little_group`.
    time_reversal : bool
        Whether k and -k are equivalent.

    Returns
    -------
    points : ndarray, shape (n, 3)
        In units of the reciprocal vectors, within [0, 1).
    weights : ndarray of int, shape (n,)
        Points of each star; their sum is the number of grid points.

    Raises
    ------
    SettingsError
        ``grid-breaks-symmetry``: an operation maps a grid point off the grid.
    """
    images = _images(np.asarray(grid), rotations, time_reversal)
    _, first, counts = np.unique(images, return_index=True, return_counts=True)
    return _points(np.asarray(grid))[first] / np.asarray(grid), counts


def little_group(q: NDArray[np.float64], rotations: IntArray) -> IntArray:
    """Operations, time reversal included as minus the rotation, that leave q unchanged up to a reciprocal vector."""
    turned = q @ np.round(np.linalg.inv(rotations)).astype(np.int64)
    same = np.abs((d := turned - q) - np.round(d)).max(axis=1) < 1e-6
    opposite = np.abs((d := turned + q) - np.round(d)).max(axis=1) < 1e-6
    return np.unique(np.concatenate([rotations[same], -rotations[opposite]]), axis=0)


def k_points_at(q: NDArray[np.float64], grid: Sequence[int], rotations: IntArray) -> int:
    """Number of k-points ``ph.x`` computes at q: the irreducible ones of the little group, and k + q for each.

    Parameters
    ----------
    q : ndarray, shape (3,)
        In units of the reciprocal vectors.
    grid : sequence of 3 int
        The coarse k grid.
    rotations : ndarray, shape (m, 3, 3)
        Point group of the crystal.
    """
    points, _ = irreducible(grid, little_group(q, rotations), time_reversal=False)
    return len(points) * (1 if np.abs(q - np.round(q)).max() < 1e-9 else 2)


def _points(grid: IntArray) -> IntArray:
    axes = [np.arange(n) for n in grid]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _images(grid: IntArray, rotations: IntArray, time_reversal: bool) -> IntArray:
    """Smallest index among the images of every grid point, shape (N,)."""
    points = _points(grid)
    stride = np.array([grid[1] * grid[2], grid[2], 1])
    label = points @ stride
    for rotation in np.round(np.linalg.inv(rotations)).astype(np.int64):
        # n'_j = N_j sum_i (n_i/N_i) W_ij must be whole for all n: N_j W_ij divisible by N_i.
        scaled = rotation * grid[None, :]
        if (scaled % grid[:, None]).any():
            raise SettingsError(
                "grid-breaks-symmetry",
                f"a {'x'.join(map(str, grid))} grid is not mapped onto itself by the crystal's symmetry",
            )
        moved = points @ (scaled // grid[:, None])
        for sign in (1, -1) if time_reversal else (1,):
            np.minimum(label, np.mod(sign * moved, grid) @ stride, out=label)
    return label


def _three(values: object) -> Subdivisions:
    a, b, c = (int(v) for v in values)  # type: ignore[attr-defined]
    return a, b, c
