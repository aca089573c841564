"""``onnes elastic``: elastic tensor, moduli, Born stability and Debye temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from onnes.cli.common import read_aloud
from onnes.cli.relaxed import probe


def elastic(
    paths: list[Path] = typer.Argument(..., help="Structure files, record files or folders."),
    out: Path = typer.Option(None, "--out", help="Write the csv here instead of stdout."),
    potential: str = typer.Option("7net-0", "--potential", help="Universal potential."),
) -> None:
    """Relax, strain, and report the elastic tensor with Voigt-Reuss-Hill moduli; one row per structure."""
    from onnes.data.files import atomic_text
    from onnes.stability.elastic_report import elastic_all
    from onnes.stability.potentials import potential as known

    name = known(potential).name
    probe(out)
    rows: list[dict[str, Any]] = []
    for row, _ in elastic_all(read_aloud(paths), name):
        rows.append(row)
        typer.echo(f"{row['id']}: {row['status']} {row['reason']}".rstrip(), err=True)
        if out is not None:
            # After every crystal: a long run that is stopped leaves what it finished.
            with atomic_text(out) as handle:
                handle.write(_csv(rows))
    if out is None:
        typer.echo(_csv(rows).rstrip("\n"))
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    from onnes.stability.elastic_report import COLUMNS

    return str(pd.DataFrame(rows).reindex(columns=list(COLUMNS)).to_csv(index=False, float_format="%.6g"))
