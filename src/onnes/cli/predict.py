"""``onnes predict``: structures in, a csv of predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from onnes.cli.common import read_aloud

#: Crystals predicted together.
BATCH = 256


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a stream into lists (itertools.batched comes with Python 3.12)."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def predict(
    paths: list[Path] = typer.Argument(..., help="Structure files, record files or folders."),
    out: Path = typer.Option(None, "--out", help="Write the csv here instead of stdout."),
    mu_star: float = typer.Option(0.10, "--mu-star", help="Coulomb pseudopotential."),
    formula: str = typer.Option("allen-dynes", "--formula", help="Tc formula."),
    model: str = typer.Option(
        "auto",
        "--model",
        help="standard (heads on universal potentials), spectrum (moments of a predicted alpha2F), fast (one graph "
        "network), trees (no potential needed).",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print records as JSON."),
) -> None:
    """Predict lambda, omega_log and Tc with intervals; one row per structure, refused ones included."""
    import json

    from onnes.data.files import atomic_text
    from onnes.errors import InputError
    from onnes.learn.predictors import choose
    from onnes.prediction import predict as run
    from onnes.theory.tc import formula_named

    formula_named(formula)
    chosen = choose(model)
    if model == "auto" and chosen == "trees":
        typer.echo(
            "onnes: no potential is installed (pip install sevenn): trees answer, with larger errors",
            err=True,
        )
    if not 0.0 <= mu_star < 1.0:
        raise InputError("bad-mu-star", f"mu* {mu_star} is not allowed; use a number in [0, 1)")
    failed = 0

    def pieces() -> Iterator[str]:
        """Text of the output, a batch of crystals at a time: a file of any size needs the same memory."""
        nonlocal failed
        rows: list[dict[str, Any]] = []
        for number, batch in enumerate(batched(read_aloud(paths), BATCH)):
            table = run(batch, mu_star=mu_star, formula=formula, model=chosen)
            failed += int((table["status"] != "ok").sum())
            if as_json:
                rows += json.loads(table.to_json(orient="records"))
            else:
                yield table.to_csv(index=False, float_format="%.6g", header=number == 0)
        if as_json:
            yield json.dumps(rows) + "\n"

    if out is None:
        for piece in pieces():
            typer.echo(piece.rstrip("\n"))
    else:
        with atomic_text(out) as handle:
            handle.writelines(pieces())
    if failed:
        raise typer.Exit(1)
