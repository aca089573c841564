"""Coupling as the plain sum over the computed q-points, what ``lambda.x`` prints: a cross-check of the interpolation.

    lambda = sum_q w_q sum_nu lambda_q,nu        ln omega_log = sum_q w_q sum_nu lambda_q,nu ln omega_q,nu / lambda

with w_q the share of the star of q in the grid. lambda.x gives NaN when one squared frequency is negative; here such a
mode is left out, and is reported by the check of stability.
"""

from __future__ import annotations

import math
from pathlib import Path

from onnes.dft.dyn_file import parse_dyn
from onnes.dft.elph_file import parse_elph
from onnes.dft.inputs import PREFIX
from onnes.dft.step_checks import text_of
from onnes.units import UNITS


def q_sums(
    place: Path, q_points: int, n_sigma: int, prefix: str = PREFIX
) -> list[tuple[float, float] | None]:
    """Sum the coupling of every q.

    Parameters
    ----------
    place : Path
        Folder with ``prefix.dynN`` and ``elph_dir/elph.inp_lambda.N``.
    q_points : int
        Irreducible ones.
    n_sigma : int
    prefix : str

    Returns
    -------
    list of (float, float) or None
        lambda and omega_log in K at every broadening; None where a file is missing or nothing couples.
    """
    files = []
    for n in range(1, q_points + 1):
        elph = parse_elph(text_of(place / "elph_dir" / f"elph.inp_lambda.{n}"), n_sigma=n_sigma)
        dyn = parse_dyn(text_of(place / f"{prefix}.dyn{n}"))
        if elph.failure is not None or dyn.failure is not None:
            return [None] * n_sigma
        files.append((dyn.weight, elph))
    whole = sum(weight for weight, _ in files)
    found: list[tuple[float, float] | None] = []
    for s in range(n_sigma):
        lam = log = 0.0
        for weight, elph in files:
            for value, omega in zip(elph.coupling[s].lam, elph.omega_cm1, strict=True):
                if omega > 0.0:
                    lam += weight / whole * value
                    log += weight / whole * value * math.log(omega * UNITS.cm1_to_K)
        found.append((lam, math.exp(log / lam)) if lam > 0.0 else None)
    return found
