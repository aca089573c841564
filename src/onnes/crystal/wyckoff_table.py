"""Wyckoff positions of the 230 space groups as affine maps, from a table that ``training/wyckoff/table.py`` computed.

Setting everywhere: the standard one of the International Tables, volume A (unique axis b, cell choice 1, hexagonal
axes for R groups, origin choice 2), as ``moyopy.Setting.standard()``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from onnes.errors import CrystalError

Floats = NDArray[np.float64]

#: Letters in the order of the International Tables; group 47 has 27 positions and calls the last one A.
LETTERS = "abcdefghijklmnopqrstuvwxyzA"


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position of a space group.

    Attributes
    ----------
    number : int
        Space group.
    letter : str
    multiplicity : int
        Points in the conventional cell.
    freedom : int
        Free parameters d, 0 to 3.
    site_order : int
        Order of the site-symmetry group.
    matrices : ndarray, shape (m, 3, d)
        Integers A_k of the points ``x_k = A_k u + b_k``; point 0 is the representative of the International
        Tables, and the parameters u have period 1.
    offsets : ndarray, shape (m, 3)
        b_k.
    """

    number: int
    letter: str
    multiplicity: int
    freedom: int
    site_order: int
    matrices: Floats = field(repr=False)
    offsets: Floats = field(repr=False)

    @property
    def index(self) -> int:
        """Place of the letter: a is 0."""
        return LETTERS.index(self.letter)

    def orbit(self, u: Floats | tuple[float, ...] | list[float]) -> Floats:
        """All points of the orbit.

        Parameters
        ----------
        u : (d,) numbers
            Free parameters.

        Returns
        -------
        ndarray, shape (m, 3)
            Fractional coordinates in [0, 1), conventional cell.

        Raises
        ------
        CrystalError
            ``wrong-parameters`` when u has not d finite numbers.
        """
        values = np.asarray(u, dtype=float).reshape(-1)
        if len(values) != self.freedom or not np.isfinite(values).all():
            raise CrystalError(
                "wrong-parameters",
                f"position {self.multiplicity}{self.letter} of group {self.number} takes {self.freedom} finite "
                f"numbers, not {values.tolist()}",
            )
        x = np.mod(self.matrices @ values + self.offsets, 1.0)
        # np.mod rounds -1e-17 up to 1.0, which is not in [0, 1).
        return np.where(x >= 1.0, 0.0, x)

    @cached_property
    def _inverse(self) -> Floats:
        return np.asarray(np.linalg.pinv(np.swapaxes(self.matrices, 1, 2)), dtype=np.float64)

    def nearest(self, x: Floats, lattice: Floats | None = None) -> tuple[Floats, Floats]:
        """For each point k of the orbit, the parameters that bring it nearest to x.

        Parameters
        ----------
        x : (3,) numbers
            Fractional coordinates.
        lattice : (3, 3) numbers, optional
            Rows of the conventional cell in A, for distances in A; fractional coordinates are taken as
            Cartesian without it.

        Returns
        -------
        u : ndarray, shape (m, d)
            In [0, 1).
        distance : ndarray, shape (m,)
        """
        delta = np.asarray(x, dtype=float) - self.offsets
        if self.freedom == 3:
            return np.mod((delta[:, None, :] @ self._inverse)[:, 0], 1.0), np.zeros(len(delta))
        delta = (delta - np.rint(delta))[:, None, :] + _IMAGES
        # Row vectors: a displacement d is d @ metric in Cartesian axes, and a column of A is A^T @ metric.
        metric = np.eye(3) if lattice is None else np.asarray(lattice, dtype=float)
        transposed = np.swapaxes(self.matrices, 1, 2)
        if self.freedom == 0:
            u, rest = delta[:, :, :0], delta @ metric
        elif lattice is None:
            u = delta @ self._inverse
            rest = delta - u @ transposed
        else:
            u = (delta @ metric) @ np.linalg.pinv(transposed @ metric)
            rest = (delta - u @ transposed) @ metric
        distance = np.sqrt((rest**2).sum(-1))
        best = distance.argmin(axis=1)
        rows = np.arange(len(best))
        return np.mod(u[rows, best], 1.0), distance[rows, best]

    def project(self, x: Floats, lattice: Floats | None = None) -> tuple[Floats, float]:
        """Nearest point of the position's subspaces, lattice translations included.

        Parameters
        ----------
        x, lattice
            As in `nearest`.

        Returns
        -------
        u : ndarray, shape (d,)
            ``orbit(u)`` holds the point nearest to x. Of equally near choices the first in the order of points.
        distance : float
            A with a lattice, otherwise in fractions of the cell.
        """
        u, distance = self.nearest(x, lattice)
        k = int(np.flatnonzero(distance <= distance.min() + 1e-9)[0])
        return u[k], float(distance[k])


_IMAGES = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(27, 3)


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes of origin and axes that map a group onto itself, one of each coset (identity first).

    Attributes
    ----------
    matrices : ndarray, shape (c, 3, 3)
        P of ``x' = P x + p``, proper, integers.
    shifts : ndarray, shape (c, 3)
        p; along polar axes any further shift is allowed.
    letters : ndarray of int, shape (c, n positions)
        Index of the letter that each position becomes.
    polar : ndarray of bool, shape (3,)
        Axes along which the origin is free.
    """

    matrices: Floats
    shifts: Floats
    letters: NDArray[np.int64]
    polar: NDArray[np.bool_]


def valid_number(number: int) -> int:
    """Return a space-group number that exists.

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    if not 1 <= int(number) <= 230:
        raise CrystalError("unknown-space-group", f"space group {number} is not one of 1 to 230")
    return int(number)


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, NDArray[np.int64]], int]:
    with files("onnes.crystal").joinpath("wyckoff_table.npz").open("rb") as stream, np.load(stream) as stored:
        rows = {name: stored[name].astype(np.int64) for name in ("operations", "positions", "changes")}
        return rows, int(stored["unit"])


def _rows(name: str, number: int) -> tuple[NDArray[np.int64], int]:
    rows, unit = _table()
    return rows[name][rows[name][:, 0] == valid_number(number)][:, 1:], unit


@lru_cache(maxsize=256)
def group_operations(number: int) -> tuple[Floats, Floats]:
    """Operations of a group in its conventional cell, centring included.

    Parameters
    ----------
    number : int
        Space group.

    Returns
    -------
    rotations : ndarray, shape (g, 3, 3)
        Integers.
    translations : ndarray, shape (g, 3)

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    rows, unit = _rows("operations", number)
    return rows[:, :9].reshape(-1, 3, 3).astype(float), rows[:, 9:] / unit


@lru_cache(maxsize=256)
def wyckoff_positions(number: int) -> tuple[WyckoffPosition, ...]:
    """All Wyckoff positions of a group in the order of their letters.

    Parameters
    ----------
    number : int
        Space group, 1 to 230.

    Returns
    -------
    tuple of WyckoffPosition

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    rotations, translations = group_operations(number)
    rows, unit = _rows("positions", number)
    out = []
    for letter, multiplicity, freedom, *rest in rows.tolist():
        a = np.reshape(rest[:9], (3, 3))[:, :freedom].astype(float)
        matrices, offsets = rotations @ a, rotations @ (np.array(rest[9:]) / unit) + translations
        keys = np.concatenate([matrices.reshape(len(matrices), -1), np.rint(offsets * unit) % unit], axis=1)
        _, first = np.unique(keys, axis=0, return_index=True)
        kept = np.sort(first)
        out.append(
            WyckoffPosition(
                int(number),
                LETTERS[letter],
                multiplicity,
                freedom,
                len(rotations) // multiplicity,
                matrices[kept],
                np.rint(offsets[kept] * unit) % unit / unit,
            )
        )
    return tuple(out)


def wyckoff_position(number: int, letter: str) -> WyckoffPosition:
    """One position by its letter.

    Raises
    ------
    CrystalError
        ``unknown-space-group``, ``unknown-wyckoff-letter``.
    """
    every = wyckoff_positions(number)
    index = LETTERS.find(letter) if len(letter) == 1 else -1
    if not 0 <= index < len(every):
        raise CrystalError(
            "unknown-wyckoff-letter",
            f"space group {number} has no position {letter!r}; it has {every[0].letter} to {every[-1].letter}",
        )
    return every[index]


@lru_cache(maxsize=256)
def changes(number: int) -> Changes:
    """Other descriptions of every crystal of a group in the same setting.

    The cosets of the group in its Euclidean normaliser (proper part; for orthorhombic groups exchanges of axes
    belong to it, too). In monoclinic and triclinic groups other cells of the same lattice are not among them.

    Parameters
    ----------
    number : int
        Space group.

    Returns
    -------
    Changes

    Raises
    ------
    CrystalError
        ``unknown-space-group``.
    """
    rows, unit = _rows("changes", number)
    count = len(wyckoff_positions(number))
    rotations, _ = group_operations(number)
    polar = np.array([bool((rotations[:, :, i] == np.eye(3)[i]).all()) for i in range(3)])
    return Changes(
        rows[:, :9].reshape(-1, 3, 3).astype(float), rows[:, 9:12] / unit, rows[:, 12 : 12 + count], polar
    )
