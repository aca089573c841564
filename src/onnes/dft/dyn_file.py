"""Files of dynamical matrices: ``prefix.dyn0`` (the grid) and ``prefix.dynN`` (one irreducible q and its star).

The frequencies are computed again from the matrix and must agree with the printed ones, so a file that was cut, mixed
up or taken over from a run that was cut is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.dft.failures import Failure, Reason
from onnes.dft.ph_output import _FREQ
from onnes.dft.qe_text import NUMBER, real, whole_lines
from onnes.units import UNITS

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

#: omega^2 in Ry^2 -> cm-1.
_RY_CM1 = UNITS.Ry_to_K / UNITS.cm1_to_K
#: Printed and computed frequencies may differ by this much, cm-1: matrices carry 8 decimals.
AGREEMENT_CM1 = 0.5
#: Frequencies below this are imaginary modes, cm-1; small negative values are noise of the grids.
TOLERANCE_CM1 = 5.0
#: The three acoustic modes at Gamma are zero by translation; more than this and the cut-offs are too low, cm-1.
GAMMA_TOLERANCE_CM1 = 60.0

_Q = re.compile(rf"q = \(\s*{NUMBER}\s+{NUMBER}\s+{NUMBER}\s*\)")
_MATRIX = "Dynamical  Matrix in cartesian axes"
_DIAGONAL = "Diagonalizing the dynamical matrix"


@dataclass(frozen=True)
class QGrid:
    """Content of ``dyn0``: the grid, and the irreducible points (cartesian, 2 pi/alat), shape (n, 3)."""

    grid: tuple[int, int, int]
    q: FloatArray


@dataclass(frozen=True)
class DynFile:
    """Content of ``dynN``.

    Attributes
    ----------
    failure : Failure or None
        None when the file is complete and agrees with itself.
    atoms : int
    masses_Ry : ndarray, shape (types,)
        In Rydberg atomic units (u / 2 = 911.444).
    alat_bohr : float
    star : ndarray, shape (s, 3)
        q-points of the star, cartesian 2 pi/alat; s is the weight of the irreducible one.
    omega_cm1 : ndarray, shape (3N,)
        As printed.
    """

    failure: Failure | None
    atoms: int = 0
    masses_Ry: FloatArray | None = None
    alat_bohr: float | None = None
    star: FloatArray | None = None
    omega_cm1: FloatArray | None = None

    @property
    def done(self) -> bool:
        """Complete and consistent."""
        return self.failure is None

    @property
    def weight(self) -> int:
        """Points of the star."""
        return 0 if self.star is None else len(self.star)

    @property
    def at_gamma(self) -> bool:
        """Whether q = 0."""
        return self.star is not None and len(self.star) == 1 and bool(np.abs(self.star).max() < 1e-9)

    def imaginary(self, tolerance_cm1: float = TOLERANCE_CM1) -> Failure | None:
        """``imaginary-modes`` with the lowest one, or None. Acoustic modes at Gamma get `GAMMA_TOLERANCE_CM1`."""
        if self.omega_cm1 is None or self.star is None or not len(self.omega_cm1):
            return None
        ordered = np.sort(self.omega_cm1)
        # By closeness to zero, so that an imaginary optical mode at Gamma is not taken for an acoustic one.
        if self.at_gamma:
            ordered = ordered[np.argsort(np.abs(ordered))]
            acoustic, rest = ordered[:3], ordered[3:]
            if acoustic.min() < -GAMMA_TOLERANCE_CM1:
                rest = ordered
        else:
            rest = ordered
        if len(rest) and rest.min() < -tolerance_cm1:
            where = ", ".join(f"{x:.4f}" for x in self.star[0])
            return Failure(
                Reason.UNSTABLE,
                f"{rest.min():.1f} cm-1 at q = ({where}); modes above -{tolerance_cm1:g} cm-1 count as noise",
            )
        return None


def parse_dyn0(text: str) -> QGrid | Failure:
    """Parse ``dyn0``: three subdivisions, the number of q-points, and the points."""
    rows = [line.split() for line in whole_lines(text).splitlines() if line.strip()]
    try:
        grid = tuple(int(x) for x in rows[0])
        count = int(rows[1][0])
        q = np.array([[real(x) for x in row] for row in rows[2:]], dtype=float)
    except (IndexError, ValueError):
        return Failure(Reason.TRUNCATED, "dyn0 is empty or cut")
    if len(grid) != 3 or q.shape != (count, 3) or not np.isfinite(q).all():
        return Failure(Reason.TRUNCATED, f"dyn0 lists {len(q)} of {count} q-points")
    return QGrid((grid[0], grid[1], grid[2]), q)


def parse_dyn(text: str) -> DynFile:
    """Parse ``dynN``; never raises, an empty file (left by ph.x where it did not converge) is ``no-output``."""
    whole = whole_lines(text)
    if not whole.strip():
        return DynFile(
            Failure(Reason.NOTHING, "the file is empty: ph.x opened it and did not get to the end")
        )
    try:
        return _parse(whole)
    except (IndexError, ValueError):
        return DynFile(Failure(Reason.TRUNCATED, "a file of dynamical matrices that stops in the middle"))


def _parse(text: str) -> DynFile:
    lines = text.splitlines()
    if not lines[0].startswith("Dynamical matrix file"):
        return DynFile(Failure(Reason.NOT_QE, "no file of dynamical matrices"))
    types, atoms, ibrav, alat = (*(int(x) for x in lines[2].split()[:3]), real(lines[2].split()[3]))
    at = 3 + (4 if ibrav == 0 else 0)
    masses = np.array([real(lines[at + i].rsplit(None, 1)[1]) for i in range(types)])
    kinds = [int(lines[at + types + i].split()[1]) - 1 for i in range(atoms)]
    body, mark, tail = text.partition(_DIAGONAL)
    found = DynFile(None, atoms, masses, alat)
    blocks = body.split(_MATRIX)[1:]
    if not mark or not blocks:
        return _cut(found, "the matrix or its diagonalisation is missing")
    stars, matrices = [], []
    for block in blocks:
        star, matrix = _matrix(block, atoms)
        stars.append(star)
        matrices.append(matrix)
    rows = _FREQ.findall(tail)
    omega = np.array([real(cm1) for _, _, cm1 in rows])
    found = DynFile(None, atoms, masses, alat, np.array(stars), omega)
    closed = tail.rstrip().endswith("*" * 20)
    if len(omega) != 3 * atoms or not closed or len(re.findall(r"^ \( ", tail, re.MULTILINE)) != 3 * atoms**2:
        return _cut(found, f"{len(omega)} of {3 * atoms} modes")
    return DynFile(_check(matrices[0], masses[kinds], omega), *_fields(found))


def _fields(
    found: DynFile,
) -> tuple[int, FloatArray | None, float | None, FloatArray | None, FloatArray | None]:
    return found.atoms, found.masses_Ry, found.alat_bohr, found.star, found.omega_cm1


def _cut(found: DynFile, what: str) -> DynFile:
    return DynFile(Failure(Reason.TRUNCATED, f"the file is cut: {what}"), *_fields(found))


def _matrix(block: str, atoms: int) -> tuple[FloatArray, ComplexArray]:
    """Q and the matrix of one star member, shape (3N, 3N), Ry/bohr^2; ValueError where a part is missing."""
    head = _Q.search(block)
    if head is None:
        raise ValueError("no q")
    rows = [line.split() for line in block[head.end() :].splitlines() if line.strip()]
    matrix = np.full((3 * atoms, 3 * atoms), np.nan, dtype=complex)
    if len(rows) < 4 * atoms**2:
        raise ValueError("matrix cut")
    for n in range(atoms**2):
        i, j = (int(x) - 1 for x in rows[4 * n])
        values = np.array([[real(x) for x in row] for row in rows[4 * n + 1 : 4 * n + 4]])
        matrix[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = values[:, ::2] + 1j * values[:, 1::2]
    return np.array([real(head[i]) for i in (1, 2, 3)]), matrix


def _check(matrix: ComplexArray, masses: FloatArray, omega_cm1: FloatArray) -> Failure | None:
    """Compare printed frequencies with those of the matrix."""
    if not (np.isfinite(matrix).all() and np.isfinite(omega_cm1).all() and (masses > 0.0).all()):
        return Failure(Reason.NOT_A_NUMBER, "a matrix element, mass or frequency is not a number")
    weight = np.repeat(masses, 3)
    scaled = matrix / np.sqrt(np.outer(weight, weight))
    squared = np.linalg.eigvalsh((scaled + scaled.conj().T) / 2.0)
    own = np.sign(squared) * np.sqrt(np.abs(squared)) * _RY_CM1
    # Where omega is small an error of omega^2 weighs more: 1e-8 of the matrix is some cm-1 at Gamma.
    slack = AGREEMENT_CM1 + _RY_CM1 * np.sqrt(2e-8 * len(own) / masses.min())
    worst = float(np.abs(np.sort(own) - np.sort(omega_cm1)).max())
    if worst > slack:
        return Failure(
            Reason.INCONSISTENT,
            f"printed frequencies differ from those of the matrix by {worst:.1f} cm-1",
        )
    return None
