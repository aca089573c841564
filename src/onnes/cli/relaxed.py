"""Options and output that ``onnes relax`` and ``onnes stability`` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from onnes.cli.common import probe_folder

PATHS = typer.Argument(..., help="Structure files, record files or folders.")
POTENTIAL = typer.Option("7net-0", "--potential", help="Universal potential.")
FMAX = typer.Option(0.05, "--fmax", help="Largest force left, eV/A.")
STEPS = typer.Option(300, "--max-steps", help="Optimiser steps at most.")
TABLE = typer.Option(None, "--out", help="Write the csv here instead of stdout.")
CIFS = typer.Option(None, "--cifs", help="Folder for the relaxed structures.")


def write_assessed(
    assessed: Iterator[Any], columns: tuple[str, ...], out: Path | None, cifs: Path | None
) -> None:
    """Write a row (csv) and the structure (cif, where there is one) of each; exit 1 when a row failed."""
    import pandas as pd
    from pymatgen.io.cif import CifWriter

    from onnes.data.files import atomic_text

    if cifs is not None:
        probe_folder(cifs)
    rows = []
    for row, structure in assessed:
        rows.append(row)
        typer.echo(f"{row['id']}: {row['status']} {row['reason']}".rstrip(), err=True)
        if cifs is not None and structure is not None:
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in row["id"])
            with atomic_text(cifs / f"{name}.cif") as handle:
                handle.write(str(CifWriter(structure, significant_figures=6)))
    text = pd.DataFrame(rows).reindex(columns=list(columns)).to_csv(index=False, float_format="%.6g")
    if out is None:
        typer.echo(text.rstrip("\n"))
    else:
        with atomic_text(out) as handle:
            handle.write(text)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)
