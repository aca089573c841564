"""Files that hold lambda and omega_log against smearing, but no spectrum: QE's ``lambda`` and ``lambda.out``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from onnes.errors import InputError
from onnes.theory.tables import read_text

_NUMBER = r"([-+]?\d*\.?\d+(?:[eEdD][-+]?\d+)?|NaN|nan|\*+)"
# matdyn.x:  Broadening s lambda x dos(Ef) y omega_ln [K] z
_MATDYN = re.compile(
    rf"Broadening\s+{_NUMBER}\s+lambda\s+{_NUMBER}\s+dos\(Ef\)\s+{_NUMBER}\s+omega_ln \[K\]\s+{_NUMBER}"
)
# lambda.x:  lambda = x ( x' )  <log w>= z K  N(Ef)= y at degauss= s
_LAMBDA_X = re.compile(
    rf"lambda =\s*{_NUMBER}\s*\(\s*{_NUMBER}\s*\)\s*<log w>=\s*{_NUMBER}\s*K\s*N\(Ef\)=\s*{_NUMBER}"
    rf"\s*at degauss=\s*{_NUMBER}"
)


@dataclass(frozen=True)
class SmearingRow:
    """Moments at one smearing.

    Attributes
    ----------
    smearing_Ry : float
    lam : float
    omega_log_K : float
    dos_ef : float
        N(EF) in states/spin/Ry/cell, as QE writes it.
    """

    smearing_Ry: float
    lam: float
    omega_log_K: float
    dos_ef: float


def is_lambda_table(path: str | Path) -> bool:
    """Whether a file is one of the two formats; False also for what cannot be read as text."""
    try:
        return bool(_rows(read_text(Path(path))))
    except InputError:
        return False


def read_lambda_table(path: str | Path) -> list[SmearingRow]:
    """Read lambda and omega_log at every smearing.

    Raises
    ------
    InputError
        ``not-a-lambda-table``, ``not-finite`` (lambda.x writes NaN after an imaginary mode), and those of
        reading a file.
    """
    rows = _rows(read_text(Path(path)))
    if not rows:
        raise InputError("not-a-lambda-table", f"{path}: neither matdyn.x's lambda nor lambda.x's output")
    for row in rows:
        if not all(value == value for value in (row.lam, row.omega_log_K)):
            raise InputError(
                "not-finite",
                f"{path}: lambda or omega_log is not a number at smearing {row.smearing_Ry} Ry; "
                "lambda.x writes that when a mode is imaginary",
            )
    return rows


def _rows(text: str) -> list[SmearingRow]:
    found = []
    for match in _MATDYN.finditer(text):
        smearing, lam, dos, log = map(_float, match.groups())
        found.append(SmearingRow(smearing, lam, log, dos))
    for match in _LAMBDA_X.finditer(text):
        lam, _, log, dos, smearing = map(_float, match.groups())
        found.append(SmearingRow(smearing, lam, log, dos))
    return found


def _float(text: str) -> float:
    return float("nan") if text.startswith("*") else float(text.lower().replace("d", "e"))
