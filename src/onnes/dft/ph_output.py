"""Output of ``ph.x``: every q-point with its frequencies and coupling; done only when each part of each q is there."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.dft.failures import Failure, Reason, find_failure, unfinished
from onnes.dft.qe_text import NUMBER, ended, finite, real, timing, whole_lines

FloatArray = NDArray[np.float64]

_FREQ = re.compile(rf"freq \(\s*(\d+)\) =\s*{NUMBER} \[THz\] =\s*{NUMBER} \[cm-1\]")
_Q = re.compile(rf"Calculation of q =\s*{NUMBER}\s*{NUMBER}\s*{NUMBER}\s*\n")
_SIGMA = re.compile(
    rf"Gaussian Broadening:\s*{NUMBER} Ry, ngauss=\s*-?\d+\n"
    rf"\s*DOS =\s*{NUMBER} states/spin/Ry/Unit Cell at Ef=\s*{NUMBER} eV\n"
    r"((?:\s*lambda\(\s*\d+\)=.*\n)*)"
)
_LAMBDA = re.compile(rf"lambda\(\s*(\d+)\)=\s*{NUMBER}\s*gamma=\s*{NUMBER} GHz")


@dataclass(frozen=True)
class Coupling:
    """Coupling of one q at one broadening.

    Attributes
    ----------
    sigma_Ry : float
    dos_ef : float
        N(EF), states/spin/Ry/cell.
    fermi_eV : float
    lam : ndarray, shape (3N,)
        lambda of every mode.
    gamma_GHz : ndarray, shape (3N,)
        Linewidth of every mode.
    """

    sigma_Ry: float
    dos_ef: float
    fermi_eV: float
    lam: FloatArray
    gamma_GHz: FloatArray


@dataclass(frozen=True)
class PhononAtQ:
    """One q-point of a ph.x output.

    Attributes
    ----------
    q : ndarray, shape (3,)
        Cartesian, 2 pi/alat.
    failure : Failure or None
        What is missing at this q.
    k_points, symmetries : int or None
    representations : tuple of int
        Modes of every irreducible representation.
    omega_cm1 : ndarray, shape (3N,) or (0,)
        Imaginary modes are negative.
    coupling : tuple of Coupling
    """

    q: FloatArray
    failure: Failure | None
    k_points: int | None
    symmetries: int | None
    representations: tuple[int, ...]
    omega_cm1: FloatArray
    coupling: tuple[Coupling, ...]

    @property
    def at_gamma(self) -> bool:
        """Whether q = 0."""
        return bool(np.abs(self.q).max() < 1e-9)


@dataclass(frozen=True)
class PhOutput:
    """What a ph.x run says.

    Attributes
    ----------
    failure : Failure or None
        None when every q of this run is complete and converged.
    version : str
    atoms : int or None
    q_of_run : int
        Points this run was to compute.
    points : tuple of PhononAtQ
        In the order of the output, unfinished ones included.
    cpu_s, wall_s : float or None
        Up to the last timing line.
    """

    failure: Failure | None
    version: str
    atoms: int | None
    q_of_run: int
    points: tuple[PhononAtQ, ...]
    cpu_s: float | None
    wall_s: float | None

    @property
    def done(self) -> bool:
        """Complete and converged."""
        return self.failure is None


def parse_ph(
    text: str,
    *,
    n_sigma: int | None = 10,
    q_of_run: int | None = None,
    stderr: str = "",
    crash: str = "",
    exit_code: int | None = None,
) -> PhOutput:
    """Parse the standard output of ph.x.

    Parameters
    ----------
    text : str
        Whole or cut anywhere.
    n_sigma : int or None
        Broadenings every q must have; None for phonons without coupling.
    q_of_run : int, optional
        Points the run was to do: 1 with ``start_q = last_q``, which the output does not say.
    stderr, crash, exit_code
        What else the run left; see `onnes.dft.failures.find_failure`.

    Returns
    -------
    PhOutput
        Never raises on text of any kind.
    """
    whole = whole_lines(text)
    counts = re.findall(r"number of atoms/cell\s+=\s+(\d+)\s", whole)
    atoms = int(counts[0]) if counts else None
    starts = list(_Q.finditer(whole))
    ends = [*(s.start() for s in starts[1:]), len(whole)][: len(starts)]
    points = tuple(
        _point(start, whole[start.end() : end], atoms, n_sigma)
        for start, end in zip(starts, ends, strict=True)
    )
    wanted = q_of_run or _wanted(whole)
    times = timing("PHONON", whole)
    failure = find_failure(whole, stderr=stderr, crash=crash, exit_code=exit_code) or _incomplete(
        text, whole, points, wanted, exit_code
    )
    version = (re.findall(r"Program PHONON v\.(\S+)", whole) or [""])[0]
    return PhOutput(failure, version, atoms, wanted, points, *(times or (None, None)))


def _incomplete(
    text: str, whole: str, points: tuple[PhononAtQ, ...], wanted: int, exit_code: int | None
) -> Failure | None:
    if not whole.strip():
        return unfinished(text, exit_code)
    if "Program PHONON" not in whole:
        return Failure(Reason.NOT_QE, "this is no output of ph.x")
    if not ended("PHONON", whole):
        return unfinished(text, exit_code)
    for point in points:
        if point.failure is not None:
            return point.failure
    if not points or len(points) != wanted:
        return Failure(Reason.TRUNCATED, f"{len(points)} of {wanted} q-points of this run are in the output")
    return None


def _wanted(text: str) -> int:
    """Number of q-points the run was to do."""
    found = re.findall(r"(\d+) /\s*\d+ q-points for this run", text) or re.findall(
        r"\(\s*(\d+) q-points\)", text
    )
    return int(found[-1]) if found else 1


def _point(start: re.Match[str], block: str, atoms: int | None, n_sigma: int | None) -> PhononAtQ:
    q = np.array([real(start[i]) for i in (1, 2, 3)])
    listed = re.findall(r"Representation\s+\d+\s+(\d+) modes -\s*(\S[^\n]*)", block)
    computed = [(int(m), s) for m, s in listed if "Not done" not in s]
    rows = _FREQ.findall(block)
    omega = np.array([real(cm1) for _, _, cm1 in rows])
    coupling = tuple(_coupling(found) for found in _SIGMA.finditer(block))
    k_points = re.findall(r"number of k points=\s*(\d+)\s", block)
    operations = re.findall(r"(\d+) Sym\.Ops\.", block)
    if not operations and "No symmetry!" in block:
        operations = ["1"]
    failure = _missing(block, [m for m, _ in computed], omega, coupling, atoms, n_sigma, q)
    return PhononAtQ(
        q=q,
        failure=failure,
        k_points=int(k_points[-1]) if k_points else None,
        symmetries=int(operations[-1]) if operations else None,
        representations=tuple(m for m, _ in computed),
        omega_cm1=omega,
        coupling=coupling,
    )


def _missing(
    block: str,
    modes: list[int],
    omega: FloatArray,
    coupling: tuple[Coupling, ...],
    atoms: int | None,
    n_sigma: int | None,
    q: FloatArray,
) -> Failure | None:
    where = f"q = ({', '.join(f'{x:.4f}' for x in q)})"
    expected = 3 * (atoms or 0)
    if block.count("Convergence has been achieved") < len(modes) or not modes:
        return Failure(Reason.TRUNCATED, f"{where}: not every irreducible representation says it converged")
    if len(omega) != expected or sum(modes) != expected or expected == 0:
        return Failure(Reason.TRUNCATED, f"{where}: {len(omega)} of {expected} frequencies")
    if not np.isfinite(omega).all():
        return Failure(Reason.NOT_A_NUMBER, f"{where}: a frequency is not a number")
    if n_sigma is None:
        return None
    if len(coupling) != n_sigma or any(len(c.lam) != expected for c in coupling):
        return Failure(
            Reason.TRUNCATED, f"{where}: coupling at {len(coupling)} of {n_sigma} broadenings is complete"
        )
    for c in coupling:
        if not finite([c.sigma_Ry, c.dos_ef, c.fermi_eV, *c.lam, *c.gamma_GHz]):
            return Failure(Reason.NOT_A_NUMBER, f"{where}: coupling at {c.sigma_Ry:g} Ry is not a number")
    return None


def _coupling(found: re.Match[str]) -> Coupling:
    rows = _LAMBDA.findall(found[4])
    return Coupling(
        sigma_Ry=real(found[1]),
        dos_ef=real(found[2]),
        fermi_eV=real(found[3]),
        lam=np.array([real(row[1]) for row in rows], dtype=float),
        gamma_GHz=np.array([real(row[2]) for row in rows], dtype=float),
    )


def lowest_cm1(points: tuple[PhononAtQ, ...]) -> float:
    """Lowest frequency of all points; nan where there is none. The three acoustic modes at Gamma do not count."""
    lowest = math.nan
    for point in points:
        values = np.sort(point.omega_cm1)[3:] if point.at_gamma else point.omega_cm1
        if len(values):
            lowest = float(np.nanmin([lowest, values.min()]))
    return lowest
