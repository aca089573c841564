"""What several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal, Refused


def read_aloud(paths: list[Path]) -> Iterator[Crystal | Refused]:
    """Read structures; one line on stderr for each that is refused."""
    from onnes.crystal.read import Refused, read

    for item in read(paths):
        if isinstance(item, Refused):
            where = "" if item.message.startswith(item.source) else f"{item.source}: "
            typer.echo(f"onnes: {where}{item.message} [{item.code}]", err=True)
        yield item


def probe_folder(out: Path) -> None:
    """Make a folder for results, before anything is computed.

    Raises
    ------
    InputError
        ``cannot-write``.
    """
    from onnes.errors import InputError

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".onnes-probe").touch()
        (out / ".onnes-probe").unlink()
    except OSError as error:
        raise InputError("cannot-write", f"cannot write to {out}: {error.strerror}") from None


def free_name(name: str, taken: set[str]) -> str:
    """A file name for a crystal, another one where two names become the same; `taken` remembers it."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")[:100] or "crystal"
    free, count = safe, 1
    while free.casefold() in taken:
        count += 1
        free = f"{safe}-{count}"
    taken.add(free.casefold())
    return free
