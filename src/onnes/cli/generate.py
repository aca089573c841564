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
    target_tc: float = typer.Option(None, "--target-tc", help="Ask for this Tc in kelvin."),
    steps: int = typer.Option(150, "--steps", help="Sampling steps; fewer are faster and rougher."),
) -> None:
    """Draw crystals, unrelaxed, from the joint diffusion model; one CIF each."""
    from onnes.generate.sampling import SamplerSettings
    from onnes.generate.write import write_crystals

    wanted = tuple(e.strip() for e in elements.split(",") if e.strip())
    settings = SamplerSettings(steps=steps, elements=wanted, target_tc=target_tc)
    done = 0
    for done in write_crystals(out, n, seed, settings):
        if done % 48 == 0:
            typer.echo(f"generated {done}/{n}", err=True)
    typer.echo(f"{done} crystals in {out}")
