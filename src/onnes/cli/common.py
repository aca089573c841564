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
