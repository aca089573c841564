"""The csv file in which a person writes labels: written once, read with every mistake named."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.errors import InputError

if TYPE_CHECKING:
    from onnes.campaign.labels import Chosen

NAME = "to_label.csv"
#: Columns that tell about the crystal, and those to fill in.
TOLD = (
    "id",
    "formula",
    "space_group",
    "n_atoms",
    "predicted_tc_K",
    "predicted_low_K",
    "predicted_high_K",
    "acquisition",
    "cif",
)
ASKED = ("tc_K", "lambda", "omega_log_K", "failed", "source")
#: Largest values taken for a label; beyond them a column or a unit is mixed up.
LIMITS = {"tc_K": 500.0, "lambda": 20.0, "omega_log_K": 6000.0}


@dataclass(frozen=True)
class Row:
    """What a person wrote about one crystal; ``failed`` says why there is no Tc."""

    id: str
    tc_K: float | None = None
    lam: float | None = None
    omega_log_K: float | None = None
    failed: str = ""
    source: str = ""


@dataclass(frozen=True)
class Sheet:
    """Rows that can be used, and the mistakes of the others, one line each with its reason code."""

    rows: list[Row] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def write(path: Path, chosen: Sequence[Chosen]) -> None:
    """Write the file with empty columns to fill in; a reader sees all of it or nothing."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*TOLD, *ASKED])
    for one in chosen:
        n = one.numbers
        table.writerow(
            [
                one.id,
                one.formula,
                n.get("space_group", ""),
                len(one.structure["species"]),
                *(_short(n.get(k)) for k in ("choose_tc_K", "choose_low_K", "choose_high_K", "acquisition")),
                f"cif/{one.id}.cif",
                *("" for _ in ASKED),
            ]
        )
    part = path.with_suffix(".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    part.replace(path)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else ""


def _table(path: Path) -> list[dict[str, str]]:
    """Rows as a spreadsheet writes them: any of comma, semicolon, tab; with or without a byte-order mark.

    Raises
    ------
    InputError
        ``cannot-read``, ``missing-column``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError("cannot-read", f"cannot read {path}: {reason}") from None
    head = text.split("\n", 1)[0]
    mark = max(",;\t", key=head.count)
    table = csv.DictReader(io.StringIO(text), delimiter=mark)
    names = [name.strip() for name in table.fieldnames or []]
    missing = [name for name in ("id", "tc_K", "lambda", "omega_log_K", "failed") if name not in names]
    if missing:
        raise InputError("missing-column", f"{path} lacks the column {', '.join(missing)}")
    table.fieldnames = names
    rows = []
    for row in table:
        rows.append({k: v.strip() for k, v in row.items() if isinstance(k, str) and isinstance(v, str)})
    return rows


def filled(path: Path) -> list[bool]:
    """Whether anything was written in each row."""
    return [any(row.get(name) for name in ASKED) for row in _table(path)]


def read(path: Path, expected: set[str]) -> Sheet:
    """Read what was filled in.

    Parameters
    ----------
    path : Path
    expected : set of str
        Candidates whose labels are asked for.

    Returns
    -------
    Sheet
        Mistakes have the codes ``unknown-id``, ``duplicate-row``, ``not-a-number``, ``out-of-range``,
        ``incomplete-row``, ``contradiction``; such rows wait.

    Raises
    ------
    InputError
        ``cannot-read``, ``missing-column``.
    """
    found, mistakes = [], []
    table = _table(path)
    ids = [row.get("id", "") for row in table]
    for number, row in enumerate(table, start=2):
        name = row.get("id", "")
        if not any(row.values()):
            continue
        try:
            if name not in expected:
                raise _MistakeError(
                    "unknown-id", f"{name or 'a row without an id'} was not chosen in this round"
                )
            if not any(row.get(k) for k in ASKED[:-1]):
                continue
            if ids.count(name) > 1:
                raise _MistakeError("duplicate-row", f"{name} stands in {ids.count(name)} rows")
            found.append(_row(name, row))
        except _MistakeError as mistake:
            mistakes.append(f"{path.name} line {number}: {mistake.words} [{mistake.code}]")
    return Sheet(found, mistakes)


class _MistakeError(Exception):
    def __init__(self, code: str, words: str) -> None:
        self.code, self.words = code, words


def _row(name: str, row: dict[str, str]) -> Row:
    values = {key: _number(name, key, row.get(key, "")) for key in LIMITS}
    failed, source = row.get("failed", ""), row.get("source", "")
    if failed:
        if values["tc_K"] is not None:
            raise _MistakeError("contradiction", f"{name} has a tc_K and a reason in failed")
        return Row(name, failed=failed[:200], source=source[:200])
    if values["tc_K"] is None and (values["lambda"] is None or values["omega_log_K"] is None):
        raise _MistakeError("incomplete-row", f"{name} needs tc_K, or both lambda and omega_log_K")
    return Row(name, values["tc_K"], values["lambda"], values["omega_log_K"], source=source[:200])


def _number(name: str, key: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise _MistakeError("not-a-number", f"{key} of {name} is {text[:40]!r}") from None
    least = 0.0 if key != "omega_log_K" else 1e-3
    if not (math.isfinite(value) and least <= value <= LIMITS[key]):
        raise _MistakeError(
            "out-of-range", f"{key} of {name} is {text[:40]}; {least:g} to {LIMITS[key]:g} is allowed"
        )
    return value
