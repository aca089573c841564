"""Pieces all parsers of Quantum ESPRESSO share: whole lines, Fortran numbers, timings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

#: A Fortran real; ``****`` (a field too narrow) and NaN match too and become nan.
NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+|[-+]\d{3})?|NaN|[-+]?Inf(?:inity)?|\*+)"
_BARE_EXPONENT = re.compile(r"^([-+]?\d*\.?\d*)([-+]\d{3})$")
_TIME = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d+)?)s)?\s*$")


def whole_lines(text: str) -> str:
    """Text up to its last line end: a number in a line that was cut may have lost digits."""
    return text[: text.rfind("\n") + 1]


def real(token: str) -> float:
    """Fortran number; nan for stars and anything else that is none."""
    token = token.strip()
    try:
        return float(token)
    except ValueError:
        pass
    bare = _BARE_EXPONENT.match(token)
    try:
        return float(f"{bare[1]}e{bare[2]}" if bare else token.lower().replace("d", "e"))
    except ValueError:
        return math.nan


def last(pattern: str, text: str) -> float | None:
    """Last match of a pattern with one number, or None."""
    found = None
    for found in re.finditer(pattern, text):  # noqa: B007
        pass
    return None if found is None else real(found[1])


def seconds(text: str) -> float | None:
    """``4m29.76s`` or ``1h 2m`` in seconds."""
    found = _TIME.fullmatch(text.strip())
    if not text.strip() or found is None:
        return None
    d, h, m, s = (float(part or 0) for part in found.groups())
    return ((d * 24 + h) * 60 + m) * 60 + s


def timing(program: str, text: str) -> tuple[float, float] | None:
    """Last ``PROGRAM : cpu CPU wall WALL`` line: CPU and wall seconds; None where there is none."""
    rows = re.findall(rf"^ +{program} +:\s*(\S.*?)\s*CPU\s+(\S.*?)\s*WALL\s*$", text, re.MULTILINE)
    if not rows:
        return None
    cpu, wall = (seconds(part) for part in rows[-1])
    return None if cpu is None or wall is None else (cpu, wall)


def ended(program: str, text: str) -> bool:
    """Whether the output reaches its end: timing, date and the closing banner. Necessary, never sufficient."""
    tail = text[-600:]
    return timing(program, text) is not None and "This run was terminated on:" in tail and "JOB DONE." in tail


def finite(values: Iterable[float | None]) -> bool:
    """Whether all numbers are there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)
