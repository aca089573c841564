"""What ``q2r.x`` and ``matdyn.x`` leave: force constants, bands, DOS, alpha2F at every broadening, lambda.

matdyn.x exits with 0 and a finite lambda on real imaginary modes, and lambda.x prints NaN for one acoustic mode a hair
below zero; so whether a crystal is stable is read from the dyn files, and Tc comes from ``a2F.dosN``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.dft.failures import Failure, Reason, find_failure, unfinished
from onnes.dft.qe_text import NUMBER, ended, real, timing, whole_lines

FloatArray = NDArray[np.float64]

#: lambda in the last line of a2F.dosN may differ from the sum over its own rows by this fraction.
LAMBDA_AGREEMENT = 0.02


@dataclass(frozen=True)
class Q2rOutput:
    """Standard output of q2r.x: the failure (None when done) and the broadenings whose table was written, Ry."""

    failure: Failure | None
    sigmas_Ry: tuple[float, ...] = ()


@dataclass(frozen=True)
class MatdynOutput:
    """Standard output of matdyn.x: the failure (None when done) and its time."""

    failure: Failure | None
    cpu_s: float | None = None


@dataclass(frozen=True)
class Bands:
    """``prefix.freq.gp``: distance along the path (n,) and frequencies (n, 3N) in cm-1."""

    failure: Failure | None
    x: FloatArray | None = None
    omega_cm1: FloatArray | None = None


@dataclass(frozen=True)
class PhononDos:
    """``prefix.phdos``: frequencies (n,) in cm-1 and states (n,) a cm-1 and cell."""

    failure: Failure | None
    omega_cm1: FloatArray | None = None
    dos: FloatArray | None = None

    @property
    def modes(self) -> float:
        """Integral of the density of states: 3N where the grid covers it."""
        if self.omega_cm1 is None or self.dos is None:
            return float("nan")
        return float(np.trapezoid(self.dos, self.omega_cm1))


@dataclass(frozen=True)
class A2fFile:
    """``a2F.dosN``.

    Attributes
    ----------
    failure : Failure or None
    omega_Ry : ndarray, shape (n,), or None
    alpha2f : ndarray, shape (n,), or None
        Total.
    modes : ndarray, shape (n, 3N), or None
        Every mode by itself.
    lam : float or None
        As the file's last line has it; bins at imaginary frequencies are in it.
    """

    failure: Failure | None
    omega_Ry: FloatArray | None = None
    alpha2f: FloatArray | None = None
    modes: FloatArray | None = None
    lam: float | None = None

    @property
    def imaginary_share(self) -> float:
        """Share of int |alpha2F| at or below zero frequency; nan without a curve."""
        if self.omega_Ry is None or self.alpha2f is None:
            return float("nan")
        size = np.abs(self.alpha2f)
        return float(size[self.omega_Ry <= 0.0].sum() / size.sum()) if size.sum() > 0.0 else 0.0


@dataclass(frozen=True)
class ForceConstants:
    """Header and size of ``prefix.fc``: atoms, grid, and whether every block is there."""

    failure: Failure | None
    atoms: int = 0
    grid: tuple[int, int, int] = (0, 0, 0)


def parse_q2r(
    text: str,
    *,
    n_sigma: int | None = None,
    stderr: str = "",
    crash: str = "",
    exit_code: int | None = None,
) -> Q2rOutput:
    """Parse the output of q2r.x; with `n_sigma` every broadening must be there. Never raises."""
    whole = whole_lines(text)
    failure = find_failure(whole, stderr=stderr, crash=crash, exit_code=exit_code)
    sigmas = tuple(real(x) for x in re.findall(rf"Broadening =\s*{NUMBER}\s*\n", whole))
    if failure is None:
        failure = _program("Q2R", text, whole, exit_code)
    successes = whole.count("fft-check success")
    if failure is None and (successes < 1 + len(sigmas) or "q-space grid ok" not in whole):
        failure = Failure(Reason.GRID, "the q grid or an inverse Fourier transform is not complete")
    if failure is None and n_sigma is not None and len(sigmas) != n_sigma:
        failure = Failure(Reason.TRUNCATED, f"coupling tables at {len(sigmas)} of {n_sigma} broadenings")
    return Q2rOutput(failure, sigmas)


def parse_matdyn(
    text: str, *, stderr: str = "", crash: str = "", exit_code: int | None = None
) -> MatdynOutput:
    """Parse the output of matdyn.x, which says nothing but that it ended: its files decide. Never raises."""
    whole = whole_lines(text)
    failure = find_failure(whole, stderr=stderr, crash=crash, exit_code=exit_code) or _program(
        "MATDYN", text, whole, exit_code
    )
    times = timing("MATDYN", whole)
    return MatdynOutput(failure, times[0] if times else None)


def parse_fc(text: str) -> ForceConstants:
    """Count the blocks of a file of force constants: 9 N^2, each with a line for every point of the grid."""
    lines = whole_lines(text).splitlines()
    if not lines:
        return ForceConstants(Failure(Reason.NOTHING, "the file is empty"))
    try:
        types, atoms, ibrav = (int(x) for x in lines[0].split()[:3])
        at = 1 + (3 if ibrav == 0 else 0) + types + atoms
        flag = lines[at].split()[0]
        at += 1 + (3 + 4 * atoms if flag.upper().startswith("T") else 0)
        a, b, c = (int(x) for x in lines[at].split())
    except (IndexError, ValueError):
        return ForceConstants(Failure(Reason.TRUNCATED, "the header of the force constants is cut"))
    rows = [line.split() for line in lines[at + 1 :] if line.strip()]
    wanted = 9 * atoms**2 * (1 + a * b * c)
    failure = None
    if len(rows) < wanted or any(len(row) != 4 for row in rows):
        failure = Failure(Reason.TRUNCATED, f"{len(rows)} of {wanted} lines of force constants")
    elif not all(math.isfinite(real(row[3])) for row in rows):
        failure = Failure(Reason.NOT_A_NUMBER, "a force constant is not a number")
    return ForceConstants(failure, atoms, (a, b, c))


def parse_bands(text: str, points: int | None = None) -> Bands:
    """Parse ``prefix.freq.gp``; with `points` the number of rows is checked. Never raises."""
    rows, failure = _table(text, points)
    if rows is None:
        return Bands(failure)
    return Bands(failure, rows[:, 0], rows[:, 1:])


def parse_phdos(text: str, points: int | None = None) -> PhononDos:
    """Parse ``prefix.phdos``; with `points` at least that many rows must be there. Never raises.

    matdyn.x lays its grid from the lowest to the highest frequency it finds, so the number of rows is `ndos` or one
    more.
    """
    rows, failure = _table(text, None)
    if rows is None or rows.shape[1] < 2:
        return PhononDos(failure or Failure(Reason.TRUNCATED, "no density of states"))
    if failure is None and points is not None and len(rows) < points:
        failure = Failure(Reason.TRUNCATED, f"{len(rows)} of {points} frequencies")
    return PhononDos(failure, rows[:, 0], rows[:, 1])


def parse_a2f(text: str, points: int | None = None) -> A2fFile:
    """Parse ``a2F.dosN``; complete when its last line (lambda and the step) is there and agrees with the rows.

    Parameters
    ----------
    text : str
    points : int, optional
        ``ndos`` of the input: rows that must be there.
    """
    whole = whole_lines(text)
    body, mark, footer = whole.partition("lambda =")
    rows, failure = _table(body, points)
    end = re.match(rf"\s*{NUMBER}\s+Delta =\s*{NUMBER}\s*\n", footer) if mark else None
    if rows is None or rows.shape[1] < 2:
        return A2fFile(failure or Failure(Reason.TRUNCATED, "no rows"))
    lam = real(end[1]) if end else None
    if failure is None and end is None:
        failure = Failure(Reason.TRUNCATED, "the last line, with lambda, is missing")
    if failure is None and end is not None and lam is not None:
        failure = _agrees(rows, lam, real(end[2]))
    return A2fFile(failure, rows[:, 0], rows[:, 1], rows[:, 2:], lam)


def _agrees(rows: FloatArray, lam: float, delta: float) -> Failure | None:
    """Hold lambda and the step of the last line against the rows."""
    omega, total = rows[:, 0], rows[:, 1]
    if not np.isfinite([lam, delta]).all():
        return Failure(Reason.NOT_A_NUMBER, "lambda or the step is not a number")
    if len(omega) > 1 and abs(np.median(np.diff(omega)) - delta) > 0.01 * delta:
        return Failure(Reason.INCONSISTENT, "the grid does not have the step of the last line")
    # matdyn.x adds up all bins, those at negative (imaginary) frequencies with their sign.
    used = omega != 0.0
    own = float(2.0 * delta * (total[used] / omega[used]).sum())
    if abs(own - lam) > LAMBDA_AGREEMENT * max(abs(lam), 0.01):
        return Failure(Reason.INCONSISTENT, f"lambda is {lam:.4f} in the last line, {own:.4f} by the rows")
    return None


def _table(text: str, points: int | None) -> tuple[FloatArray | None, Failure | None]:
    """Rows of numbers below comment lines, all of one length."""
    lines = [line for line in whole_lines(text).splitlines() if line.strip() and not re.match(r"\s*#", line)]
    if not lines:
        return None, Failure(Reason.NOTHING, "the file is empty")
    cells = [line.split() for line in lines]
    width = len(cells[0])
    if width < 2 or any(len(row) != width for row in cells):
        return None, Failure(Reason.TRUNCATED, "rows of different lengths")
    rows = np.array([[real(x) for x in row] for row in cells])
    if not np.isfinite(rows).all():
        return rows, Failure(Reason.NOT_A_NUMBER, "an entry is not a number")
    if points is not None and len(rows) != points:
        return rows, Failure(Reason.TRUNCATED, f"{len(rows)} of {points} rows")
    return rows, None


def _program(name: str, text: str, whole: str, exit_code: int | None) -> Failure | None:
    if not whole.strip():
        return unfinished(text, exit_code)
    if f"Program {name}" not in whole:
        return Failure(Reason.NOT_QE, f"this is no output of {name.lower()}.x")
    if not ended(name, whole):
        return unfinished(text, exit_code)
    return None
