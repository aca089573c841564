"""Labels from a csv table, joined to records by id."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnes.data.files import text_lines
from onnes.data.labels import LABELS
from onnes.data.records import Record
from onnes.data.rows import ALIASES
from onnes.errors import InputError

_BLANK = ("", "na", "nan", "none", "null", "-")


@dataclass
class Joined:
    """Records with their new labels, and what did not fit.

    Attributes
    ----------
    records : list of Record
        In the given order.
    problems : list of (code, message)
        ``not-a-number``, ``not-finite``, ``duplicate-id``, ``unmatched-label``, ``row-length``.
    notes : list of str
    """

    records: list[Record]
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def join_labels(
    records: Sequence[Record],
    table: str | os.PathLike[str],
    *,
    id_column: str = "id",
    extra: Iterable[str] = (),
) -> Joined:
    """Add the numbers of a csv table to the records of equal id.

    Columns of known label names (and those in `extra`) are taken; blank cells mean "not known". Where a record
    has the label already, the table wins.

    Parameters
    ----------
    records : sequence of Record
    table : path
        csv with a header, plain or gzip.
    id_column : str
    extra : names, optional

    Raises
    ------
    InputError
        ``missing-column``, ``no-label-column``, and the codes of `onnes.data.files.text_lines`.
    """
    lines = csv.reader(line for _, line in text_lines(table))
    try:
        header = [name.strip().lstrip("\ufeff") for name in next(lines, [])]
        index, columns = _columns(table, header, id_column, set(extra))
        joined = Joined(list(records))
        found = _rows(lines, len(header), index, columns, joined)
    except csv.Error as error:
        raise InputError("bad-table", f"{table}: {error}") from None
    ignored = [name for k, name in enumerate(header) if k != index and k not in columns]
    if ignored:
        joined.notes.append(f"{table}: columns not taken as labels: {', '.join(ignored)[:200]}")
    joined.records = [_labelled(record, found.pop(record.id, None)) for record in joined.records]
    joined.problems += [("unmatched-label", f"{name} is no record of this import") for name in found]
    return joined


def _columns(
    table: str | os.PathLike[str], header: list[str], id_column: str, extra: set[str]
) -> tuple[int, dict[int, str]]:
    """Position of the id and label name by position."""
    shown = ", ".join(header)[:200]
    if header.count(id_column) != 1:
        raise InputError("missing-column", f"{table} has no (single) column {id_column!r}; it has {shown}")
    names = {k: name if name in extra else ALIASES.get(name, name) for k, name in enumerate(header)}
    index = header.index(id_column)
    columns = {k: name for k, name in names.items() if k != index and (name in LABELS or name in extra)}
    if not columns:
        raise InputError("no-label-column", f"{table} has no column with a known label; it has {shown}")
    if len(set(columns.values())) < len(columns):
        raise InputError("duplicate-column", f"{table} names one label twice: {shown}")
    return index, columns


def _rows(
    lines: Iterable[list[str]], width: int, index: int, columns: dict[int, str], joined: Joined
) -> dict[str, dict[str, float]]:
    """Labels by id; what is unusable goes to `joined.problems`."""
    found: dict[str, dict[str, float]] = {}
    for number, cells in enumerate(lines, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != width:
            joined.problems.append(("row-length", f"row {number} has {len(cells)} cells, not {width}"))
            continue
        name = cells[index].strip()
        if name in found:
            joined.problems.append(("duplicate-id", f"row {number}: {name} comes twice; the first counts"))
            continue
        found[name] = {}
        for k, label in columns.items():
            value: Any = _number(cells[k])
            if isinstance(value, str):
                joined.problems.append((value, f"row {number}, {label} of {name}: {cells[k].strip()[:40]!r}"))
            elif value is not None:
                found[name][label] = value
    return found


def _number(cell: str) -> float | str | None:
    """Value of a cell, None for a blank one, or a reason code."""
    text = cell.strip()
    if text.lower() in _BLANK:
        return None
    try:
        value = float(text)
    except ValueError:
        return "not-a-number"
    return value if math.isfinite(value) else "not-finite"


def _labelled(record: Record, labels: dict[str, float] | None) -> Record:
    if not labels:
        return record
    return record.model_copy(update={"labels": {**record.labels, **labels}})
