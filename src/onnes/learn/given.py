"""Predictions made elsewhere, read from a csv and scored like any model."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnes.data.files import text_lines
from onnes.data.records import Record
from onnes.errors import DataError


def read_given(path: str | Path, records: Sequence[Record], target: str) -> NDArray[np.float64]:
    """Predicted values of the records, shape (n,); NaN for ids that the file does not hold.

    Parameters
    ----------
    path : path
        A csv with a column ``id`` and one of ``<target>_pred``, ``predicted``, ``<target>``. Empty cells and
        ``nan`` are missing predictions.
    records : sequence of Record
    target : str

    Raises
    ------
    DataError
        ``missing-field``, ``not-a-number``, ``duplicate-id``, ``no-rows`` (no id of the records).
    """
    reader = csv.DictReader(line for _, line in text_lines(path))
    names = reader.fieldnames or []
    column = next((c for c in (f"{target}_pred", "predicted", target) if c in names), None)
    if "id" not in names or column is None:
        raise DataError(
            "missing-field", f"{path} needs the columns id and {target}_pred; it has {', '.join(names)}"
        )
    found: dict[str, float] = {}
    for row in reader:
        text = (row[column] or "nan").strip()
        try:
            value = float(text)
        except ValueError:
            raise DataError("not-a-number", f"{path}: {row['id']}: {text!r} is no number") from None
        if row["id"] in found:
            raise DataError("duplicate-id", f"{path}: {row['id']} comes twice")
        found[row["id"]] = value if math.isfinite(value) else math.nan
    out = np.array([found.get(r.id, math.nan) for r in records])
    if not any(r.id in found for r in records):
        raise DataError("no-rows", f"{path} holds no id of the data")
    return out
