"""Output of ``epw.x``: coupling, moments and Tc of the Wannier-interpolated spectrum (experimental).

The curves themselves (``prefix.a2f``) are read by `onnes.theory.readers`. Like every program of QE, epw.x may end with
``JOB DONE.`` after it failed to converge; what counts is that the numbers are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnes.dft.failures import Failure, Reason, find_failure, unfinished
from onnes.dft.qe_text import NUMBER, finite, last, real, whole_lines


@dataclass(frozen=True)
class EpwOutput:
    """What an EPW run says; numbers are None where the output does not reach them.

    Attributes
    ----------
    failure : Failure or None
        None when the run ended, with a coupling where one was asked for.
    version : str
    wannier_spreads_A2 : tuple of float
        Final spread of every Wannier function.
    fermi_eV : float or None
        On the fine grid.
    lam : float or None
        ``Electron-phonon coupling strength``.
    tc_allen_dynes_K, mu_star : float or None
        EPW's own estimate and the mu* of it.
    gap_meV : tuple of (float, float)
        (temperature in K, lowest Matsubara gap in meV) of the isotropic equations at every temperature that converged.
    """

    failure: Failure | None
    version: str = ""
    wannier_spreads_A2: tuple[float, ...] = ()
    fermi_eV: float | None = None
    lam: float | None = None
    tc_allen_dynes_K: float | None = None
    mu_star: float | None = None
    gap_meV: tuple[tuple[float, float], ...] = ()


def parse_epw(
    text: str,
    *,
    coupling: bool = True,
    stderr: str = "",
    crash: str = "",
    exit_code: int | None = None,
) -> EpwOutput:
    """Parse the standard output of epw.x; never raises.

    Parameters
    ----------
    text : str
    coupling : bool
        Whether the input asked for the Eliashberg equations, so that lambda must be there.
    stderr, crash, exit_code
        What else the run left; see `onnes.dft.failures.find_failure`.
    """
    whole = whole_lines(text)
    lam = last(rf"Electron-phonon coupling strength\s*=\s*{NUMBER}", whole)
    estimate = re.findall(rf"Estimated Allen-Dynes Tc\s*=\s*{NUMBER}\s*K\s*for muc\s*=\s*{NUMBER}", whole)
    return EpwOutput(
        _failure(text, whole, lam if coupling else 0.0, stderr, crash, exit_code),
        (re.findall(r"Program EPW v\.?\s*(\S+)", whole) or [""])[0],
        tuple(real(x) for x in re.findall(rf"\)\s*:\s*{NUMBER}\s*$", _final_state(whole), re.MULTILINE)),
        last(
            rf"Fermi energy (?:is calculated from the fine k-mesh: Ef|coarse grid)\s*=\s*{NUMBER} eV", whole
        ),
        lam,
        real(estimate[-1][0]) if estimate else None,
        real(estimate[-1][1]) if estimate else None,
        _gaps(whole),
    )


def _failure(
    text: str, whole: str, lam: float | None, stderr: str, crash: str, exit_code: int | None
) -> Failure | None:
    named = find_failure(whole, stderr=stderr, crash=crash, exit_code=exit_code)
    if named is not None:
        return named
    if not whole.strip():
        return unfinished(text, exit_code)
    if "Program EPW" not in whole:
        return Failure(Reason.NOT_QE, "this is no output of epw.x")
    # The clock of the whole program is printed in between as well; the last one follows these words.
    if not re.search(r"Total program execution\n +EPW +:.*WALL", whole):
        return unfinished(text, exit_code)
    if lam is None:
        return Failure(Reason.TRUNCATED, "the run ended without an electron-phonon coupling strength")
    if not finite([lam]):
        return Failure(Reason.NOT_A_NUMBER, "the electron-phonon coupling strength is not a number")
    return None


def _final_state(text: str) -> str:
    """The lines of the Wannier functions as EPW echoes them at the end of the minimisation."""
    start = text.rfind("Wannier Function centers")
    end = text.find("WANNIER", start + 1) if start >= 0 else -1
    return "" if start < 0 else text[start : end if end >= 0 else None]


def _gaps(text: str) -> tuple[tuple[float, float], ...]:
    """Gap at the lowest Matsubara frequency for every temperature whose iterations converged."""
    found: list[tuple[float, float]] = []
    for block in re.split(r"(?m)^\s*temp\(\s*\d+\)\s*=\s*", text)[1:]:
        temperature = re.match(NUMBER + r"\s*K", block)
        converged = re.search(r"Convergence was reached in nsiter\s*=\s*(\d+)", block)
        rows = (
            re.findall(rf"(?m)^\s*\d+\s+{NUMBER}\s+{NUMBER}\s+{NUMBER}\s*$", block[: converged.start()])
            if converged
            else []
        )
        if temperature and rows:
            found.append((real(temperature[1]), real(rows[-1][2])))
    return tuple(found)
