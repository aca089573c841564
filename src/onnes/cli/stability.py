"""``onnes relax`` and ``onnes stability``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from onnes.cli.common import probe_folder, read_aloud

PATHS = typer.Argument(..., help="Structure files, record files or folders.")
POTENTIAL = typer.Option("7net-0", "--potential", help="Universal potential.")
FMAX = typer.Option(0.05, "--fmax", help="Largest force left, eV/A.")
STEPS = typer.Option(300, "--max-steps", help="Optimiser steps at most.")
TABLE = typer.Option(None, "--out", help="Write the csv here instead of stdout.")
CIFS = typer.Option(None, "--cifs", help="Folder for the relaxed structures.")


def relax(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
) -> None:
    """Relax cell and coordinates with a universal potential; one row per structure."""
    from onnes.stability.assess import RELAX_COLUMNS, relax_all
    from onnes.stability.relax import RelaxSettings

    settings = RelaxSettings(potential, fmax, max_steps)
    _run(relax_all(read_aloud(paths), settings), RELAX_COLUMNS, out, cifs)


def stability(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
) -> None:
    """Relax, then formation energy, energy above the hull, and whether the crystal is known."""
    from onnes.errors import SettingsError
    from onnes.stability.assess import STABILITY_COLUMNS, assess
    from onnes.stability.potentials import DEFAULT
    from onnes.stability.relax import RelaxSettings

    settings = RelaxSettings(potential, fmax, max_steps)
    if potential != DEFAULT:
        raise SettingsError("no-hull-table", f"the hull table holds energies of {DEFAULT} only")
    _run(assess(read_aloud(paths), settings), STABILITY_COLUMNS, out, cifs)


def _run(assessed: Iterator[Any], columns: tuple[str, ...], out: Path | None, cifs: Path | None) -> None:
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
