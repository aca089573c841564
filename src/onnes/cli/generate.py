"""``onnes generate``: draw crystals from the shipped diffusion model into a folder of CIF files."""

from __future__ import annotations

from pathlib import Path

import typer


def generate(
    out: Path = typer.Option(
        ..., "--out", help="Folder for the CIF files; rerun with the same options to resume."
    ),
    n: int = typer.Option(100, "--n", min=1, help="How many crystals."),
    seed: int = typer.Option(0, "--seed", min=0, help="The same seed gives the same files."),
    elements: str = typer.Option("", "--elements", help="Only these, e.g. B,C,N."),
    exclude: str = typer.Option("", "--exclude", help="None of these, e.g. Tc,U."),
    target_tc: float = typer.Option(None, "--target-tc", help="Ask for this Tc in kelvin."),
    guidance: float = typer.Option(0.0, "--guidance", min=0.0, help="Push towards the target Tc; 0.5 to 2."),
    steps: int = typer.Option(150, "--steps", help="Sampling steps; fewer are faster and rougher."),
) -> None:
    """Draw crystals, unrelaxed, from the joint diffusion model; one CIF each."""
    from onnes.generate.sampling import SamplerSettings
    from onnes.generate.write import write_crystals

    wanted, unwanted = (
        tuple(e.strip() for e in text.split(",") if e.strip()) for text in (elements, exclude)
    )
    settings = SamplerSettings(
        steps=steps, elements=wanted, exclude=unwanted, target_tc=target_tc, guidance=guidance
    )
    done = 0
    for done in write_crystals(out, n, seed, settings):
        if done % 48 == 0:
            typer.echo(f"generated {done}/{n}", err=True)
    typer.echo(f"{done} crystals in {out}")
