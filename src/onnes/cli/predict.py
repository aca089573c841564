"""``onnes predict``: structures in, a csv of predictions out."""

from __future__ import annotations

from pathlib import Path

import typer

from onnes.cli.common import read_aloud


def predict(
    paths: list[Path] = typer.Argument(..., help="Structure files, record files or folders."),
    out: Path = typer.Option(None, "--out", help="Write the csv here instead of stdout."),
    mu_star: float = typer.Option(0.10, "--mu-star", help="Coulomb pseudopotential."),
    formula: str = typer.Option("allen-dynes", "--formula", help="Tc formula."),
    as_json: bool = typer.Option(False, "--json", help="Print records as JSON."),
) -> None:
    """Predict lambda, omega_log and Tc with intervals; one row per structure, refused ones included."""
    from onnes.data.files import atomic_text
    from onnes.errors import InputError
    from onnes.prediction import predict as run
    from onnes.theory.tc import formula_named

    formula_named(formula)
    if not 0.0 <= mu_star < 1.0:
        raise InputError("bad-mu-star", f"mu* {mu_star} is not allowed; use a number in [0, 1)")
    items = list(read_aloud(paths))
    table = run(items, mu_star=mu_star, formula=formula)
    text = table.to_json(orient="records") if as_json else table.to_csv(index=False, float_format="%.6g")
    if out is None:
        typer.echo(text.rstrip("\n"))
    else:
        with atomic_text(out) as handle:
            handle.write(text)
    if (table["status"] != "ok").any():
        raise typer.Exit(1)
