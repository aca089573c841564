"""``onnes train``: a property network, or a spectral ensemble, from record files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

SPECTRUM = "spectrum"
#: Options of the task ``spectrum`` alone, with their defaults.
OWN = {
    "members": 8,
    "member": -1,
    "workers": 1,
    "phonons": "none",
    "curves": None,
    "unit": None,
    "regime": "modern",
}
NAMES = {"unit": "curve-unit"}


def train(
    task: str = typer.Argument(..., help="epc, lambda, omega-log, formation-energy, gap, ..., or spectrum."),
    data: list[Path] = typer.Option(..., "--data", help="Record files (.jsonl, .jsonl.gz); repeat for more."),
    out: Path = typer.Option(..., "--out", help="Folder for checkpoints and model.safetensors."),
    model: str = typer.Option(
        "", "--model", help="head, alignn, alignn-onnes, megnet, megnet-onnes; spectrum, spectrum-bete."
    ),
    epochs: int = typer.Option(0, "--epochs", min=0, help="40; spectrum: as many as make 3,000 steps."),
    batch: int = typer.Option(64, "--batch", min=1),
    seed: int = typer.Option(0, "--seed", min=0),
    validation: float = typer.Option(0.1, "--validation", help="Share of the formulas held out."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the training in --out."),
    members: int = typer.Option(8, "--members", help="spectrum: bootstrap replicas, 4 or more."),
    member: int = typer.Option(-1, "--member", help="spectrum: train this one only (a task of a job array)."),
    workers: int = typer.Option(1, "--workers", min=1, help="spectrum: members trained side by side."),
    phonons: str = typer.Option(
        "none", "--phonons", help="spectrum: none, coarse or fine vibrations as inputs."
    ),
    curves: Path = typer.Option(
        None, "--curves", help="spectrum: folder of alpha2F files named after the ids."
    ),
    unit: str = typer.Option(None, "--curve-unit", help="spectrum: unit of files that do not state theirs."),
    regime: str = typer.Option("modern", "--regime", help="spectrum: classical, critical or modern."),
) -> None:
    """Train for a task; ends with the errors on crystals that were not trained on, beside the median's."""
    own = {
        "members": members,
        "member": member,
        "workers": workers,
        "phonons": phonons,
        "curves": curves,
        "unit": unit,
        "regime": regime,
    }
    if task == SPECTRUM:
        _spectrum(data, out, model, epochs, batch, seed, validation, own, resume=resume)
        return
    changed = [f"--{NAMES.get(name, name)}" for name, value in own.items() if value != OWN[name]]
    if changed:
        from onnes.errors import SettingsError

        raise SettingsError("bad-setting", f"{', '.join(changed)} belong to the task spectrum, not to {task}")
    _property(task, data, out, model or "head", epochs or 40, batch, seed, validation, resume=resume)


def _property(
    task: str,
    data: list[Path],
    out: Path,
    model: str,
    epochs: int,
    batch: int,
    seed: int,
    validation: float,
    *,
    resume: bool,
) -> None:
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


def _spectrum(
    data: list[Path],
    out: Path,
    model: str,
    epochs: int,
    batch: int,
    seed: int,
    validation: float,
    own: dict[str, Any],
    *,
    resume: bool,
) -> None:
    import json

    import torch

    from onnes.errors import SettingsError
    from onnes.learn.fit import read_all
    from onnes.learn.spectrum_data import prepare
    from onnes.learn.spectrum_train import (
        MODEL_FILE,
        TrainSettings,
        enough_curves,
        finish,
        open_run,
        say,
        train_member,
    )

    if validation != 0.1:
        raise SettingsError(
            "bad-setting", "a spectral ensemble is validated out of bag; leave --validation out"
        )
    torch.set_num_threads(1)
    settings = TrainSettings(
        model or "spectrum", own["members"], own["phonons"], epochs, own["regime"], batch, seed
    )
    if own["member"] >= 0 and own["workers"] > 1:
        raise SettingsError("bad-setting", "--member trains one; --workers is for all of them")
    if own["unit"] and own["curves"] is None:
        raise SettingsError("bad-setting", "--curve-unit goes with --curves")
    if not -1 <= own["member"] < settings.members:
        raise SettingsError(
            "bad-setting", f"--member {own['member']}; members are 0 to {settings.members - 1}"
        )
    prepared = prepare(
        read_all(data),
        settings.network(),
        settings.potentials,
        out,
        curves=own["curves"],
        unit=own["unit"],
        vibrations=_vibrations(settings.phonons),
    )
    for name, why in prepared.refused.items():
        typer.echo(f"onnes: {name}: {why}", err=True)
    enough_curves(prepared.data)
    # Tasks of a job array start together: the first one claims the folder for all of them.
    open_run(out, settings, prepared.digest, resume=resume or own["member"] >= 0)
    if own["member"] >= 0:
        train_member(prepared, settings, own["member"], out, say(own["member"]))
        return
    if own["workers"] > 1:
        left = [k for k in range(settings.members) if not (out / f"member-{k}.npz").exists()]
        _side_by_side(left, own["workers"])
    for k in range(settings.members):
        train_member(prepared, settings, k, out, say(k))
    checkpoint = finish(prepared, settings, out, [path.name for path in data])
    typer.echo(json.dumps(checkpoint.card["out_of_bag"], indent=1))
    n = checkpoint.card["n"]
    typer.echo(
        f"{out / MODEL_FILE}: {settings.members} members, {n['crystals']} crystals, {n['curves']} curves, "
        f"{n['refused']} refused",
        err=True,
    )


def _vibrations(phonons: str) -> Any:
    from functools import partial

    from onnes.spectra import vibrations

    return None if phonons == "none" else partial(vibrations, phonons=phonons)


def _side_by_side(waiting: list[int], workers: int) -> None:
    """Train members in processes of this very command; what one leaves undone is done afterwards."""
    import os
    import subprocess
    import sys
    import time

    from onnes.learn.spectrum_train import PARENT

    # A member stops by itself when this process is gone.
    env = {**os.environ, PARENT: str(os.getpid())}
    command = [sys.executable, "-m", "onnes.cli.main", *sys.argv[1:]]
    running: list[subprocess.Popen[bytes]] = []
    try:
        while waiting or running:
            for p in running:
                if p.poll():
                    typer.echo(
                        f"onnes: a member's process ended with {p.returncode}; it is gone on with", err=True
                    )
            running = [p for p in running if p.poll() is None]
            while waiting and len(running) < workers:
                running.append(
                    subprocess.Popen([*command, "--workers", "1", "--member", str(waiting.pop(0))], env=env)
                )
            time.sleep(0.2)
    finally:
        for p in running:
            p.terminate()
            p.wait()
