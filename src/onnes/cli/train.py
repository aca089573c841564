"""``onnes train``: a property network from record files."""

from __future__ import annotations

from pathlib import Path

import typer


def train(
    task: str = typer.Argument(..., help="epc, lambda, omega-log, formation-energy, gap, moduli, ..."),
    data: list[Path] = typer.Option(..., "--data", help="Record files (.jsonl, .jsonl.gz); repeat for more."),
    out: Path = typer.Option(..., "--out", help="Folder for checkpoints and model.safetensors."),
    model: str = typer.Option("head", "--model", help="head, alignn, alignn-onnes, megnet or megnet-onnes."),
    epochs: int = typer.Option(40, "--epochs", min=1),
    batch: int = typer.Option(64, "--batch", min=1),
    seed: int = typer.Option(0, "--seed", min=0),
    validation: float = typer.Option(0.1, "--validation", help="Share of the formulas held out."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the training in --out."),
) -> None:
    """Train a network for a task; ends with its errors on held-out formulas beside the median's."""
    import json
    import logging

    from onnes.learn.fit import MODEL_FILE, FitSettings, fit

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings = FitSettings(task, model, epochs, batch, seed, validation=validation)
    checkpoint = fit(data, out, settings, resume=resume)
    typer.echo(json.dumps(checkpoint.card["validation"], indent=1))
    typer.echo(
        f"{out / MODEL_FILE}: {checkpoint.card['n_train']} crystals trained, "
        f"{checkpoint.card['n_val']} held out",
        err=True,
    )
