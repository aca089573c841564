"""``onnes report`` and ``onnes export``: a run's page, and its candidates as files."""

from __future__ import annotations

from pathlib import Path

import typer


def report(
    run: Path = typer.Argument(..., help="Folder of the run, or its ledger file."),
    out: Path = typer.Option(None, "--out", help="Where to write the page; default: RUN/report.html."),
) -> None:
    """Write the report of a run, finished or not, as one HTML file that needs no network."""
    from onnes.campaign.ledger import Ledger, ledger_file
    from onnes.report.page import write_page

    with Ledger.open(run, read_only=True) as ledger:
        typer.echo(write_page(ledger, out or ledger_file(run).with_name("report.html")))


def export(
    run: Path = typer.Argument(..., help="Folder of the run, or its ledger file."),
    format: str = typer.Option(..., "--format", help="cif, extxyz, ase, csv, parquet, optimade or bib."),
    out: Path = typer.Option(..., "--out", help="Folder for cif, file for the others."),
) -> None:
    """Write the candidates of a run in a format that other programs read."""
    from onnes.campaign.ledger import Ledger
    from onnes.report.export import export as write

    with Ledger.open(run, read_only=True) as ledger:
        written = write(ledger, format, out)
    typer.echo(f"{len(written)} file{'' if len(written) == 1 else 's'} written to {out}")
