"""Captured outputs, by name."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings

#: No time limit an example: the machine may be busy.
few = settings(deadline=None, max_examples=60)

FIXTURES = Path(__file__).parent / "fixtures"


def captured(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="latin-1")


def failed(name: str) -> dict[str, str]:
    """Keyword arguments of a parser: stderr and CRASH of a failed run (``p1.out`` has ``p1.err`` beside it)."""
    file = FIXTURES / "failures" / name
    found = {}
    error = file.with_name(file.name.replace("out", "err"))
    if error != file and error.exists():
        found["stderr"] = error.read_text(encoding="latin-1")
    # The CRASH of a folder belongs to its last run.
    crash = file.parent / "CRASH"
    if crash.exists() and "1." not in file.name:
        found["crash"] = crash.read_text(encoding="latin-1")
    return found
