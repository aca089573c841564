"""Stretching frequencies from bond lengths: Badger's rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnes.units import TO_KELVIN, UNITS

FloatArray = NDArray[np.float64]

#: Badger's constant, 1.86 mdyn A^2, and his offsets d_ij in A by the rows (H; Li to F; Na to Cl) of the two atoms.
_CONSTANT_N_M_A3 = 186.0
_OFFSET_A = np.array([[0.025, 0.335, 0.585], [0.335, 0.680, 0.90], [0.585, 0.90, 1.180]])
#: Last atomic number of each row.
_ROW_ENDS = (1, 9, 17)


def stretch_meV(z1: ArrayLike, z2: ArrayLike, length_A: ArrayLike) -> FloatArray:
    """Harmonic stretching frequency of a pair of atoms, meV; 0 where an element is beyond chlorine or noble.

    k = 1.86 mdyn A^2 / (r - d_ij)^3 and omega = sqrt(k / mu) (R. M. Badger, J. Chem. Phys. 2, 128 (1934); 3, 710
    (1935)): good to about 10 % for free molecules, an upper estimate inside a metal.

    Parameters
    ----------
    z1, z2 : array_like of int, shape (...)
        Atomic numbers.
    length_A : array_like, shape (...)
        Bond length.
    """
    from ase.data import atomic_masses

    a, b = np.asarray(z1, dtype=int), np.asarray(z2, dtype=int)
    known = np.isin(a, _known()) & np.isin(b, _known())
    rows = [np.searchsorted(_ROW_ENDS, np.where(known, z, 1)) for z in (a, b)]
    room = np.asarray(length_A, dtype=float) - _OFFSET_A[rows[0], rows[1]]
    stiffness = _CONSTANT_N_M_A3 / np.maximum(room, 0.1) ** 3
    ma, mb = atomic_masses[np.where(known, a, 1)], atomic_masses[np.where(known, b, 1)]
    omega = np.sqrt(stiffness / (ma * mb / (ma + mb) * UNITS.amu_kg))
    return np.asarray(np.where(known, UNITS.hbar_Js * omega / UNITS.kB_JK / TO_KELVIN["meV"], 0.0))


def _known() -> list[int]:
    return [z for z in range(1, _ROW_ENDS[-1] + 1) if z not in (2, 10)]
