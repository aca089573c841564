"""``onnes generate``: draw crystals from a shipped generator into a folder of CIF files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer


def generate(
    out: Path = typer.Option(
        ..., "--out", help="Folder for the CIF files; rerun with the same options to resume."
    ),
    n: int = typer.Option(100, "--n", min=1, help="How many crystals."),
    seed: int = typer.Option(0, "--seed", min=0, help="The same seed gives the same files."),
    model: str = typer.Option(
        "symmetric",
        "--model",
        help="symmetric (space group first), joint (diffusion of everything together), cdvae (autoencoder) or "
        "prototypes (known crystals with exchanged elements; needs --templates and --formula).",
    ),
    elements: str = typer.Option("", "--elements", help="Only these, e.g. B,C,N."),
    exclude: str = typer.Option("", "--exclude", help="None of these, e.g. Tc,U."),
    formula: str = typer.Option("", "--formula", help="Exactly this reduced formula, e.g. MgB2."),
    atoms: int = typer.Option(None, "--atoms", help="Atoms in the primitive cell."),
    space_group: int = typer.Option(
        None, "--space-group", help="Number of the space group, kept exactly (symmetric only)."
    ),
    target_tc: float = typer.Option(None, "--target-tc", help="Ask for this Tc in kelvin."),
    guidance: float = typer.Option(0.0, "--guidance", min=0.0, help="Push towards the target Tc; 0.5 to 2."),
    temperature: float = typer.Option(
        0.9, "--temperature", help="Of the draw of symbols; below 1 prefers common chemistry."
    ),
    steps: int = typer.Option(
        None,
        "--steps",
        help="Sampling steps; fewer are faster and rougher. The model's own number by default.",
    ),
    like: str = typer.Option(
        "",
        "--like",
        help="Crystals of the kind that this training data set holds: mp, alexandria, jarvis, experiment, bete-net "
        "(symmetric only).",
    ),
    ranked: bool = typer.Option(
        False,
        "--ranked",
        help="Structure prediction: the likeliest crystals of --formula, ranked by votes and energy, best first.",
    ),
    templates: Path = typer.Option(
        None, "--templates", help="Known crystals (file or folder) for --ranked or --model prototypes."
    ),
    records: Path = typer.Option(
        None, "--records", help="Write them to this .jsonl as well, one record a line, outside the folder."
    ),
) -> None:
    """Draw crystals, unrelaxed, one CIF each; whatever is asked for is obeyed, and what is left aside is counted."""
    from onnes.errors import SettingsError
    from onnes.generate.asked import SamplerSettings
    from onnes.generate.sampling import BLOCK
    from onnes.generate.write import rejections, write_crystals

    wanted, unwanted = (
        tuple(e.strip() for e in text.split(",") if e.strip()) for text in (elements, exclude)
    )
    substituted = model == "prototypes"
    if guidance and target_tc is None:
        raise SettingsError("bad-setting", "--guidance pushes towards --target-tc, which is not given")
    settings = SamplerSettings(
        model="symmetric" if substituted else model,
        steps=steps,
        elements=wanted,
        exclude=unwanted,
        formula=formula.strip(),
        atoms=atoms,
        space_group=space_group,
        target_tc=target_tc,
        guidance=guidance,
        temperature=temperature,
        like=like.strip(),
    )
    if ranked or substituted:
        if settings.model != "symmetric":
            raise SettingsError("bad-setting", "--ranked needs --model symmetric or prototypes")
        if records is not None:
            raise SettingsError("bad-setting", "--records is not for ranked crystals; ranking.csv lists them")
        from onnes.cli.generate_ranked import run

        written = run(
            out,
            n,
            seed,
            settings,
            drawn=not substituted,
            ranked=ranked,
            templates=templates,
        )
        typer.echo(f"{written} crystals of {settings.formula} in {out}, best first")
        return
    if templates is not None:
        raise SettingsError("bad-setting", "--templates needs --ranked or --model prototypes")
    done = 0
    for done in write_crystals(out, n, seed, settings, records=records, begin=_once(BLOCK)):
        if done % BLOCK == 0:
            typer.echo(f"generated {done}/{n}", err=True)
    typer.echo(f"{done} crystals in {out}")
    for what, count in rejections(out).items():
        typer.echo(f"{count} {what}, in blocks of {BLOCK} crystals")


def _once(block: int) -> Callable[[int, int], None]:
    """Say that drawing begins, the first time: a block of the slower models takes a minute."""
    said = False

    def begin(start: int, stop: int) -> None:
        nonlocal said
        if not said:
            said = True
            typer.echo(f"drawing a block of {block} crystals, from g{start:06d} on", err=True)

    return begin
