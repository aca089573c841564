"""``elph_dir/elph.inp_lambda.N``: omega^2, N(EF), lambda and linewidths of one irreducible q at every broadening."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnes.dft.failures import Failure, Reason
from onnes.dft.ph_output import _SIGMA, Coupling, _coupling
from onnes.dft.qe_text import finite, real, whole_lines
from onnes.units import UNITS

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ElphFile:
    """Content of the file.

    Attributes
    ----------
    failure : Failure or None
        None when every broadening has all its modes.
    q : ndarray, shape (3,), or None
        Cartesian, 2 pi/alat.
    omega2_Ry2 : ndarray, shape (3N,), or None
        Squared frequencies; negative for imaginary modes.
    coupling : tuple of Coupling
    """

    failure: Failure | None
    q: FloatArray | None = None
    omega2_Ry2: FloatArray | None = None
    coupling: tuple[Coupling, ...] = ()

    @property
    def done(self) -> bool:
        """Complete and finite."""
        return self.failure is None

    @property
    def omega_cm1(self) -> FloatArray:
        """Frequencies, imaginary ones negative; shape (3N,)."""
        squared = np.zeros(0) if self.omega2_Ry2 is None else self.omega2_Ry2
        return np.asarray(np.sign(squared) * np.sqrt(np.abs(squared)) * UNITS.Ry_to_K / UNITS.cm1_to_K)


def parse_elph(text: str, *, n_sigma: int | None = None) -> ElphFile:
    """Parse the file; never raises.

    Parameters
    ----------
    text : str
    n_sigma : int, optional
        Broadenings asked for; without it the number in the first line counts.
    """
    whole = whole_lines(text)
    if not whole.strip():
        return ElphFile(Failure(Reason.NOTHING, "the file is empty"))
    lines = whole.splitlines()
    words = lines[0].split()
    try:
        q = np.array([real(x) for x in words[:3]])
        count, modes = int(words[3]), int(words[4])
    except (IndexError, ValueError):
        return ElphFile(Failure(Reason.NOT_QE, "no elph.inp_lambda file"))
    body = whole[whole.find("\n") + 1 :]
    start = re.search(r"^ *Gaussian Broadening", body, re.MULTILINE)
    squares = np.array([real(x) for x in body[: start.start() if start else None].split()])
    coupling = tuple(_coupling(found) for found in _SIGMA.finditer(body))
    failure = _failure(squares, coupling, modes, n_sigma or count, count)
    return ElphFile(failure, q, squares, coupling)


def _failure(
    squares: FloatArray, coupling: tuple[Coupling, ...], modes: int, wanted: int, stated: int
) -> Failure | None:
    if stated != wanted:
        return Failure(Reason.INCONSISTENT, f"the file has {stated} broadenings, {wanted} were asked for")
    if len(squares) != modes or len(coupling) != wanted or any(len(c.lam) != modes for c in coupling):
        return Failure(
            Reason.TRUNCATED,
            f"{len(squares)} of {modes} frequencies, {len(coupling)} of {wanted} broadenings",
        )
    if not np.isfinite(squares).all():
        return Failure(Reason.NOT_A_NUMBER, "a squared frequency is not a number")
    for c in coupling:
        if not finite([c.sigma_Ry, c.dos_ef, c.fermi_eV, *c.lam, *c.gamma_GHz]):
            return Failure(Reason.NOT_A_NUMBER, f"coupling at {c.sigma_Ry:g} Ry is not a number")
    return None
