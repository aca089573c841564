"""Options of ``onnes relax`` and ``onnes stability``, and the output of the latter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from onnes.cli.common import free_name, probe_folder

#: The table is written again after a row unless the last writing took more than this share of the time since then.
SHARE = 0.05

PATHS = typer.Argument(..., help="Structure files, record files or folders.")
POTENTIAL = typer.Option("7net-0", "--potential", help="Universal potential.")
FMAX = typer.Option(0.05, "--fmax", help="Largest force left, eV/A.")
STEPS = typer.Option(300, "--max-steps", help="Optimiser steps at most.")
TABLE = typer.Option(None, "--out", help="Write the csv here instead of stdout.")
CIFS = typer.Option(None, "--cifs", help="Folder for the relaxed structures.")
WORKERS = typer.Option(1, "--workers", min=1, help="Processes, one thread each.")
RESUME = typer.Option(False, "--resume", help="Go on with the table in --out that was stopped.")


def probe(out: Path | None, cifs: Path | None = None) -> None:
    """Find out whether the results can be written, before anything is computed.

    Raises
    ------
    InputError
        ``cannot-write``.
    """
    from onnes.errors import InputError

    if out is not None:
        probe_folder(out.parent)
        if out.is_dir():
            raise InputError("cannot-write", f"cannot write to {out}: it is a folder")
    if cifs is not None:
        probe_folder(cifs)


def write_assessed(
    assessed: Iterator[Any], columns: tuple[str, ...], out: Path | None, cifs: Path | None
) -> list[dict[str, Any]]:
    """Write a row (csv) and the structure (cif, where there is one) of each; returns the rows.

    A long run that is stopped leaves the table of what it finished.
    """
    from pymatgen.io.cif import CifWriter

    from onnes.data.files import atomic_text

    table = _Table(columns, out)
    taken: set[str] = set()
    try:
        for row, structure in assessed:
            typer.echo(f"{row['id']}: {row['status']} {row['reason']}".rstrip(), err=True)
            name = free_name(row["id"], taken)  # of every row: the name does not hang on which others failed
            if cifs is not None and structure is not None:
                with atomic_text(cifs / f"{name}.cif") as handle:
                    handle.write(str(CifWriter(structure, significant_figures=6)))
            table.add(row)
    finally:
        table.write()
    return table.rows


class _Table:
    """A csv file that is whole at any time; on stdout, once at the end."""

    def __init__(self, columns: tuple[str, ...], out: Path | None) -> None:
        self.columns, self.out = list(columns), out
        self.rows: list[dict[str, Any]] = []
        self.due = 0.0

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        start = time.monotonic()
        # Rows without a relaxation come by the hundred a second: writing all of them each time would take minutes.
        if self.out is not None and start >= self.due:
            self.write()
            end = time.monotonic()
            self.due = end + (end - start) / SHARE

    def write(self) -> None:
        import pandas as pd

        from onnes.data.files import atomic_text

        text = pd.DataFrame(self.rows).reindex(columns=self.columns).to_csv(index=False, float_format="%.6g")
        if self.out is None:
            typer.echo(text.rstrip("\n"))
            return
        with atomic_text(self.out) as handle:
            handle.write(text)
