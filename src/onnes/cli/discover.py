"""``onnes discover``: a whole campaign."""

from __future__ import annotations

from pathlib import Path

import typer


def discover(
    config: Path = typer.Argument(None, help="TOML file with settings; the defaults without it."),
    out: Path = typer.Option(Path("run"), "--out", help="Folder of the run."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out (or start it)."),
    n: int = typer.Option(None, "--n", min=1, help="How many crystals; overrides the file."),
    seed: int = typer.Option(None, "--seed", min=0, help="Random seed; overrides the file."),
    workers: int = typer.Option(None, "--workers", min=1, help="Processes; overrides the file."),
    print_config: bool = typer.Option(False, "--print-config", help="Print the settings as TOML and stop."),
) -> None:
    """Generate, relax, screen and rank crystals; ends with candidates, their CIF files and a report."""
    from rich.console import Console

    from onnes.campaign.ledger import Ledger, ledger_file
    from onnes.campaign.settings import Settings

    settings = Settings.from_toml(config) if config is not None else None
    given = {k: v for k, v in {"n": n, "seed": seed, "workers": workers}.items() if v is not None}
    if given:
        if settings is None and resume and ledger_file(out).exists():
            with Ledger.open(out, read_only=True) as held:
                settings = Settings.from_dict(held.get_meta("settings", {}))
        base = (settings or Settings()).model_dump()
        settings = Settings.from_dict({**base, "run": {**base["run"], **given}})
    if print_config:
        typer.echo((settings or Settings()).to_toml())
        return
    from onnes.campaign.discover import discover as run
    from onnes.campaign.progress import Progressing
    from onnes.campaign.stages import REVISION
    from onnes.report.tables import print_candidates

    try:
        first = "read" if settings is not None and settings.generate.paths else "generate"
        with Progressing([first, *REVISION]) as watcher:
            run(settings, out, resume=resume, watcher=watcher)
    except KeyboardInterrupt:
        typer.echo(
            f"onnes: stopped; finished work is kept, go on with: onnes discover --out {out} --resume",
            err=True,
        )
        raise typer.Exit(130) from None
    console = Console(highlight=False)
    with Ledger.open(out, read_only=True) as ledger:
        print_candidates(ledger, console)
    console.print(f"candidates: {out}/candidates.csv and {out}/candidates/*.cif", soft_wrap=True)
    console.print(f"report: {out}/report.html", soft_wrap=True)
