"""Numeric tables in text files: comments, csv or blanks, Fortran numbers, and errors that name the line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnes.errors import InputError

FloatArray = NDArray[np.float64]

#: A spectrum is kilobytes; anything above this is another kind of file.
MAX_BYTES = 50_000_000
# Fortran drops the E when the exponent needs three digits: 0.7790-307.
_BARE_EXPONENT = re.compile(r"^([+-]?\d*\.\d+)([+-]\d{3})$")


@dataclass(frozen=True)
class Table:
    """Rows of numbers, shape (n, m), and the comment or title lines above them as one string."""

    rows: FloatArray
    header: str

    def column(self, index: int) -> FloatArray:
        """Return one column, shape (n,)."""
        return self.rows[:, index]


def read_text(path: Path) -> str:
    """Return a text file's content.

    Raises
    ------
    InputError
        ``not-found``, ``not-a-file``, ``unreadable``, ``too-large``, ``empty-file``, ``binary-file``.
    """
    if not path.exists():
        raise InputError("not-found", f"{path}: no such file")
    if not path.is_file():
        raise InputError("not-a-file", f"{path} is a folder; give one alpha2F file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("too-large", f"{path}: over {MAX_BYTES // 10**6} MB, not an alpha2F file")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError("unreadable", f"{path}: {error.strerror}") from None
    if b"\0" in raw:
        raise InputError("binary-file", f"{path}: a binary file; text with numbers is needed")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Comments in other encodings are common; the numbers are ASCII in all of them.
        text = raw.decode("latin-1")
    if not text.strip():
        raise InputError("empty-file", f"{path}: the file is empty")
    return text


def parse_table(text: str, source: str, *, skip: tuple[str, ...] = ()) -> Table:
    """Parse rows of at least two numbers.

    Parameters
    ----------
    text : str
        Columns separated by blanks, commas or semicolons. Lines starting with #, ! or @ are comments; title
        lines above the first row are allowed.
    source : str
        Name used in messages.
    skip : tuple of str
        Regular expressions of lines to pass over (footers).

    Raises
    ------
    InputError
        ``no-numbers``, ``not-a-number``, ``bad-columns``.
    """
    rows: list[list[float]] = []
    header: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or any(re.search(pattern, line) for pattern in skip):
            continue
        if stripped[0] in "#!@":
            if not rows:
                header.append(stripped)
            continue
        values = [_value(token) for token in re.split(r"[\s,;]+", stripped.rstrip(",;"))]
        if None in values:
            if rows:
                raise InputError("not-a-number", f"{source}: line {number} is not numeric: {stripped:.50}")
            header.append(stripped)
            continue
        if len(values) < 2 or (rows and len(values) != len(rows[0])):
            expected = len(rows[0]) if rows else "at least 2"
            raise InputError(
                "bad-columns", f"{source}: line {number} has {len(values)} column(s), expected {expected}"
            )
        rows.append([value for value in values if value is not None])
    if not rows:
        raise InputError("no-numbers", f"{source}: no rows of numbers found")
    return Table(np.array(rows), " ".join(header))


def _value(token: str) -> float | None:
    """A number as codes write it, or None. NaN parses: the caller refuses it by name."""
    try:
        return float(token)
    except ValueError:
        pass
    bare = _BARE_EXPONENT.match(token)
    candidate = f"{bare[1]}e{bare[2]}" if bare else token.lower().replace("d", "e")
    try:
        return float(candidate)
    except ValueError:
        return None
