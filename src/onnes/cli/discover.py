"""``onnes discover``: a whole campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from onnes.campaign.settings import Settings


def discover(
    config: Path = typer.Argument(None, help="TOML file with settings; the defaults without it."),
    out: Path = typer.Option(Path("run"), "--out", help="Folder of the run."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out (or start it)."),
    preset: str = typer.Option(
        "", "--preset", help="quick, ambient-high-tc, hydride or 2d: settings the file may override."
    ),
    given: list[Path] = typer.Option(
        [],
        "--from",
        help="Screen these crystals (file, records or folder; repeatable) instead of generating.",
    ),
    relaxed: bool = typer.Option(
        False,
        "--relaxed",
        help="The crystals are relaxed already (by DFT, say): one energy each, as they are.",
    ),
    n: int = typer.Option(None, "--n", min=1, help="How many crystals; overrides the file."),
    seed: int = typer.Option(None, "--seed", min=0, help="Random seed; overrides the file."),
    workers: int = typer.Option(None, "--workers", min=1, help="Processes; overrides the file."),
    print_config: bool = typer.Option(False, "--print-config", help="Print the settings as TOML and stop."),
) -> None:
    """Generate (or read), relax, screen and rank crystals; ends with candidates, their CIF files and a report."""
    from rich.console import Console

    from onnes.campaign.ledger import Ledger

    run_part = {k: v for k, v in {"n": n, "seed": seed, "workers": workers}.items() if v is not None}
    settings = _settings(config, out if resume else None, preset, given, relaxed, run_part)
    if print_config:
        typer.echo(settings.to_toml())
        return
    from onnes.campaign.discover import discover as run
    from onnes.campaign.progress import Progressing
    from onnes.campaign.stages import stage_names
    from onnes.report.tables import print_candidates

    try:
        first = "read" if settings.reads_files else "generate"
        with Progressing([first, *stage_names(settings)]) as watcher:
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
        waiting = ledger.get_meta("waiting")
    console.print(f"candidates: {out}/candidates.csv and {out}/candidates/*.cif", soft_wrap=True)
    console.print(f"report: {out}/report.html", soft_wrap=True)
    if waiting:
        typer.echo(f"onnes: {waiting} with: onnes discover --out {out} --resume", err=True)


def _settings(
    config: Path | None,
    resumed: Path | None,
    preset: str,
    given: list[Path],
    relaxed: bool,
    run_part: dict[str, Any],
) -> Settings:
    """Settings of the command line over those of the file, or of the run that is resumed."""
    from onnes.campaign.ledger import Ledger, ledger_file
    from onnes.campaign.presets import merged
    from onnes.campaign.settings import Settings, read_toml
    from onnes.errors import SettingsError

    values: dict[str, Any] = read_toml(config) if config is not None else {}
    if config is None and resumed is not None and ledger_file(resumed).exists():
        with Ledger.open(resumed, read_only=True) as held:
            values = held.get_meta("settings", {})
        if preset and preset != values.get("preset"):
            raise SettingsError(
                "bad-setting",
                f"--preset {preset}: the run in {resumed} has settings of its own; use another --out, or a file",
            )
    above: dict[str, Any] = {"run": run_part} if run_part else {}
    if preset:
        above["preset"] = preset
    if given:
        above["generate"] = {"paths": [str(path.resolve()) for path in given]}
        if "n" in run_part:
            raise SettingsError("bad-setting", "--n counts generated crystals; with --from all are read")
    if relaxed:
        above["relax"] = {"skip": True}
    return Settings.from_dict(merged(values, above))
