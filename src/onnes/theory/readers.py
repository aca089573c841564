"""alpha2F files of any code -> `Spectrum`, with the unit from the format or stated by the user.

One reader a format, in `READERS`; `read_a2f` recognises the format, checks the unit and cleans the curve.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import InputError
from onnes.theory.spectral import Spectrum, unit_factor
from onnes.theory.tables import Table, parse_table, read_text

FloatArray = NDArray[np.float64]


class Format(StrEnum):
    """Names of the file formats, as accepted on the command line."""

    QE_A2F_DOS = "qe-a2f-dos"
    QE_ALPHA2F = "qe-alpha2f"
    EPW = "epw"
    ELK = "elk"
    ABINIT = "abinit"
    COLUMNS = "columns"


@dataclass(frozen=True)
class Curves:
    """What a reader found: one or more curves on one grid.

    Attributes
    ----------
    omega : ndarray, shape (n,)
        Frequencies in `unit`.
    values : ndarray, shape (n, m)
        One alpha2F a column; several smearings or, where `total` is set, one curve only.
    unit : str or None
        Unit fixed by the format or written in the file; None when neither says.
    labels : list of str
        Name of each column (its smearing, for the codes that write several).
    meta : dict
        Other numbers of the file. ``lambda_file`` (float or list, one a column) is cross-checked.
    """

    omega: FloatArray
    values: FloatArray
    unit: str | None
    labels: list[str]
    meta: dict[str, Any] = field(default_factory=dict)


def _read_qe_a2f_dos(text: str, source: str) -> Curves:
    table = parse_table(text, source, skip=(r"^\s*lambda\s*=",))
    meta: dict[str, Any] = {}
    found = re.search(r"lambda\s*=\s*(\S+)", text)
    # A run that failed half-way writes NaN or stars here: no cross-check then, and the curve is read as it is.
    if found and np.isfinite(_number(found.group(1))):
        meta["lambda_file"] = _number(found.group(1))
    # Column 2 is the total; the rest are single modes, which nobody means by "the" alpha2F.
    return Curves(table.column(0), table.rows[:, 1:2], "Ry", ["total"], meta)


def _read_qe_alpha2f(text: str, source: str) -> Curves:
    table = parse_table(text, source)
    labels = table.header.replace("#", " ").split()[1:]
    if len(labels) != table.rows.shape[1] - 1:
        labels = [str(i + 1) for i in range(table.rows.shape[1] - 1)]
    return Curves(table.column(0), table.rows[:, 1:], "THz", labels)


def _read_epw(text: str, source: str) -> Curves:
    body, _, footer = text.partition("Integrated el-ph coupling")
    table = parse_table(body, source)
    numbers = [_floats(line) for line in footer.splitlines() if line.strip().startswith("#")]
    stated = re.search(r"for\s+(\d+)\s+smearing", body)
    count = int(stated.group(1)) if stated else (len(numbers[0]) if numbers else table.rows.shape[1] - 1)
    if count < 1 or table.rows.shape[1] < 1 + count:
        raise InputError(
            "bad-columns", f"{source}: {count} smearings stated but {table.rows.shape[1] - 1} data columns"
        )
    # After the `count` spectra EPW writes as many cumulative lambda columns: not alpha2F.
    meta: dict[str, Any] = {"lambda_file": numbers[0]} if numbers and len(numbers[0]) == count else {}
    smearings = numbers[1] if len(numbers) > 1 and len(numbers[1]) == count else range(1, count + 1)
    labels = [f"{value:g}" for value in smearings]
    return Curves(table.column(0), table.rows[:, 1 : 1 + count], "meV", labels, meta)


def _read_elk(text: str, source: str) -> Curves:
    table = parse_table(text, source)
    return Curves(table.column(0), table.rows[:, 1:2], "Ha", ["total"])


def _read_abinit(text: str, source: str) -> Curves:
    # Two spin blocks in one file repeat the grid: from_arrays refuses it as not increasing.
    # The lambda column of _A2FW files counts one spin, so it is no cross-check of the total.
    table = parse_table(text, source)
    return Curves(table.column(0), table.rows[:, 1:2], "Ha", ["total"])


def _read_columns(text: str, source: str) -> Curves:
    table = parse_table(text, source)
    meta: dict[str, Any] = {}
    if table.rows.shape[1] > 2:
        meta["notes"] = [f"{table.rows.shape[1]} columns: the first is omega, the second alpha2F"]
    return Curves(table.column(0), table.rows[:, 1:2], _unit_in(table), ["2"], meta)


#: Format -> reader of the whole text.
READERS: dict[Format, Callable[[str, str], Curves]] = {
    Format.QE_A2F_DOS: _read_qe_a2f_dos,
    Format.QE_ALPHA2F: _read_qe_alpha2f,
    Format.EPW: _read_epw,
    Format.ELK: _read_elk,
    Format.ABINIT: _read_abinit,
    Format.COLUMNS: _read_columns,
}


def sniff(name: str, text: str) -> Format:
    """Return the format of an alpha2F file from its first and last lines, then its name."""
    head = text[:2000]
    # Neighbours of alpha2F files in the same folder that also hold columns of numbers.
    densities = re.search(r"\bP?DOS\b", head, re.I) and not re.search("a2F", head, re.I)
    if densities or re.search(r"degauss|broadening", head, re.I):
        raise InputError("not-a2f", f"{name}: a table of lambda or a density of states, not alpha2F(omega)")
    if "ABINIT package : a2f file" in head or "Frequency, a2F" in head:
        return Format.ABINIT
    if "frequencies in Rydberg" in head:
        return Format.QE_A2F_DOS
    if re.match(r"\s*#\s*E\(THz\)", head):
        return Format.QE_ALPHA2F
    if "w[meV] a2f" in head or "Integrated el-ph coupling" in text[-4000:]:
        return Format.EPW
    if name.upper().startswith("ALPHA2F") and name.upper().endswith(".OUT"):
        return Format.ELK
    return Format.COLUMNS


def read_a2f(
    path: str | Path,
    *,
    unit: str | None = None,
    format: str | Format | None = None,
    column: int | None = None,
    smearing: float | None = None,
) -> Spectrum:
    """Read one alpha2F curve from a file.

    Parameters
    ----------
    path : path
        QE ``a2F.dosN`` (Ry) and ``alpha2F.dat`` (THz), EPW ``.a2f`` (meV), ABINIT ``_A2F`` and ``_A2FW``
        (Ha), Elk ``ALPHA2F.OUT`` (Ha), or two columns of text (csv, dat) whose unit is stated in the
        header (``omega_meV``) or by `unit`.
    unit : str, optional
        Unit of omega. Needed when the file does not say; a contradiction is an error.
    format : Format or str, optional
        Overrides the recognition.
    column : int, optional
        1-based number of the curve, for files with several smearings.
    smearing : float, optional
        The smearing as written in the file, instead of `column`.

    Returns
    -------
    Spectrum
        Cleaned; ``meta`` holds format, unit, column label and the file's own lambda where it has one.

    Raises
    ------
    InputError
        ``not-found``, ``not-a-file``, ``empty-file``, ``binary-file``, ``not-a-number``, ``bad-columns``,
        ``unknown-format``, ``not-a2f``, ``no-unit``, ``unknown-unit``, ``unit-conflict``,
        ``choose-smearing``, ``not-finite``, ``grid-not-increasing``, ``too-few-points``.
    PhysicsError
        ``negative-weight``, ``no-real-frequencies`` (see `hygiene`).
    """
    path = Path(path)
    text = read_text(path)
    source = path.name
    chosen = sniff(path.name, text) if format is None else _format_named(format)
    curves = READERS[chosen](text, source)
    final_unit = _agreed_unit(unit, curves.unit, source, chosen)
    index = _pick(curves, column, smearing, source)
    meta = {**curves.meta, "format": str(chosen), "unit": final_unit, "curve": curves.labels[index]}
    if isinstance(meta.get("lambda_file"), list):
        meta["lambda_file"] = meta["lambda_file"][index]
    return Spectrum.from_arrays(curves.omega, curves.values[:, index], final_unit, source=source, meta=meta)


def _format_named(name: str | Format) -> Format:
    try:
        return Format(name)
    except ValueError:
        allowed = ", ".join(READERS)
        raise InputError("unknown-format", f"unknown alpha2F format {name!r}; use one of {allowed}") from None


def _agreed_unit(stated: str | None, found: str | None, source: str, chosen: Format) -> str:
    if stated is None and found is None:
        raise InputError(
            "no-unit", f"{source}: the frequency unit is not stated; give it (meV, THz, cm-1, Ry, Ha, K)"
        )
    if stated is not None:
        unit_factor(stated)
    if stated is not None and found is not None and stated != found:
        raise InputError(
            "unit-conflict", f"{source}: unit {stated} was stated but this {chosen} file is in {found}"
        )
    return str(stated or found)


def _pick(curves: Curves, column: int | None, smearing: float | None, source: str) -> int:
    count = curves.values.shape[1]
    listed = ", ".join(f"{i + 1}: {label}" for i, label in enumerate(curves.labels))
    if column is not None:
        if not 1 <= column <= count:
            raise InputError("choose-smearing", f"{source}: no curve {column}; there are {listed}")
        return column - 1
    if smearing is not None:
        values = np.array([_number(label) for label in curves.labels])
        near = np.flatnonzero(np.isclose(values, smearing, rtol=1e-3, atol=0.0))
        if near.size != 1:
            raise InputError("choose-smearing", f"{source}: no smearing {smearing:g}; there are {listed}")
        return int(near[0])
    if count > 1:
        raise InputError(
            "choose-smearing", f"{source}: {count} smearings, Tc depends on which; choose one of {listed}"
        )
    return 0


def _unit_in(table: Table) -> str | None:
    """Unit named in a header such as ``omega_meV,alpha2F`` or ``# w (cm^-1)  a2F``; None if none."""
    spelled = {
        "cm^-1": "cm-1",
        "cm-1": "cm-1",
        "1/cm": "cm-1",
        "Rydberg": "Ry",
        "Hartree": "Ha",
        "Kelvin": "K",
    }
    pattern = r"(?:^|[\s_(\[/,;])(meV|eV|THz|cm\^-1|cm-1|1/cm|Rydberg|Ry|Hartree|Ha|Kelvin|K)(?=$|[\s)\],;])"
    found = {spelled.get(match, match) for match in re.findall(pattern, table.header)}
    return found.pop() if len(found) == 1 else None


def _number(text: str) -> float:
    try:
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")


def _floats(line: str) -> list[float]:
    return [value for value in map(_number, line.replace("#", " ").split()) if np.isfinite(value)]
