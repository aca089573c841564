"""``onnes stability``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from onnes.cli.common import read_aloud
from onnes.cli.relaxed import (
    CIFS,
    FMAX,
    PATHS,
    POTENTIAL,
    RESUME,
    STEPS,
    TABLE,
    WORKERS,
    probe,
    write_assessed,
)

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal, Refused
    from onnes.stability.hull_entries import OwnHull
    from onnes.stability.novelty_given import Collection

HULL, NOVEL, CHEMISTRY = "Hull", "Novelty", "Chemistry"


def stability(
    paths: list[Path] = PATHS,
    out: Path = TABLE,
    cifs: Path = CIFS,
    potential: str = POTENTIAL,
    fmax: float = FMAX,
    max_steps: int = STEPS,
    workers: int = WORKERS,
    resume: bool = RESUME,
    entries: list[Path] = typer.Option(
        [],
        "--entries",
        help="Own phases: csv (formula, energy_eV_atom, id) or pymatgen entries (json). Repeatable.",
        rich_help_panel=HULL,
    ),
    method: str = typer.Option(
        "",
        "--entries-method",
        help="Whose energies they are: 7net-0 joins the shipped table, another name is the whole hull.",
        rich_help_panel=HULL,
    ),
    energies: Path = typer.Option(
        None,
        "--candidate-energies",
        help="csv (id, energy_eV_atom): the candidates by that other method.",
        rich_help_panel=HULL,
    ),
    mp: str = typer.Option(
        "",
        "--mp",
        help="Ask the Materials Project: 'potential' adds its phases with energies of the potential, 'dft' takes "
        "its own energies as the whole hull.",
        rich_help_panel=HULL,
    ),
    mp_key: str = typer.Option(
        "",
        "--mp-key",
        help="Key of the Materials Project; better in the environment as MP_API_KEY.",
        rich_help_panel=HULL,
    ),
    cross_check: bool = typer.Option(
        True,
        "--cross-check/--no-cross-check",
        help="Formation energy by the property heads beside the hull's.",
        rich_help_panel=HULL,
    ),
    stable_below: float = typer.Option(
        0.1, "--stable-below", help="Highest e_hull of S.U.N., eV/atom.", rich_help_panel=HULL
    ),
    known: list[Path] = typer.Option(
        [],
        "--known",
        help="Own crystals beside the index: folder or file. Repeatable.",
        rich_help_panel=NOVEL,
    ),
    no_radioactive: bool = typer.Option(
        False, "--no-radioactive", help="No elements without a stable isotope.", rich_help_panel=CHEMISTRY
    ),
    no_toxic: bool = typer.Option(
        False, "--no-toxic", help="No As, Be, Cd, Co, Hg, Pb, Te, Tl, U (EU CLP).", rich_help_panel=CHEMISTRY
    ),
    min_abundance: float = typer.Option(
        0.0, "--min-abundance-ppm", help="No element rarer in the Earth's crust.", rich_help_panel=CHEMISTRY
    ),
    exclude: str = typer.Option("", "--exclude-elements", help="Such as Tl,Pb.", rich_help_panel=CHEMISTRY),
    min_elements: int = typer.Option(1, "--min-elements", rich_help_panel=CHEMISTRY),
    max_elements: int = typer.Option(118, "--max-elements", rich_help_panel=CHEMISTRY),
) -> None:
    """Relax, then formation energy, energy above the hull, and whether the crystal is known."""
    from onnes.errors import SettingsError
    from onnes.parallel import single_thread
    from onnes.stability.assess import STABILITY_COLUMNS, Assessment, assess
    from onnes.stability.chemistry import Chemistry
    from onnes.stability.hull import METHOD
    from onnes.stability.relax import RelaxSettings
    from onnes.stability.relax_journal import Journal, run_key
    from onnes.stability.sun import sun

    single_thread()
    settings = RelaxSettings(potential, fmax, max_steps)
    if resume and out is None:
        raise SettingsError("bad-setting", "--resume needs the table of --out to go on with")
    if potential != METHOD:
        raise SettingsError("no-hull-table", f"the hull table holds energies of {METHOD} only")
    unwanted = tuple(s for s in (part.strip() for part in exclude.split(",")) if s)
    chemistry = Chemistry(no_radioactive, no_toxic, min_abundance, unwanted, min_elements, max_elements)
    sun([], threshold_eV_atom=stable_below)  # a bad threshold is told before any work
    probe(out, cifs)
    journal = None if out is None else Journal(out, run_key(settings, False, structures=True), resume)
    with nullcontext() if journal is None else journal:
        items: Iterable[Crystal | Refused] = read_aloud(paths)
        if mp or mp_key:
            items = list(chemistry.screen(items))
            hull = _from_mp(items, mp or "potential", mp_key, entries, method, energies)
        else:
            hull = _from_files(entries, method, energies)
        against = Assessment(hull, _collection(known), chemistry)
        done: Iterator[Any] = assess(items, settings, against, workers=workers, journal=journal)
        if cross_check and hull.energies is None:
            from onnes.formation import cross_checked

            done = cross_checked(done)
        rows = write_assessed(done, STABILITY_COLUMNS, out, cifs)
    # Not of an interrupted run: a rate of part of the crystals is none.
    summary = sun(rows, threshold_eV_atom=stable_below, hull=hull.table.describe())
    typer.echo("\n".join(summary.lines()), err=True)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _from_files(entries: list[Path], method: str, energies: Path | None) -> OwnHull:
    from onnes.stability.hull import HullReferences
    from onnes.stability.hull_entries import own_hull

    return own_hull(HullReferences.load(), entries, method=method, energies=energies)


def _from_mp(
    items: list[Crystal | Refused],
    use: str,
    key: str,
    entries: list[Path],
    method: str,
    energies: Path | None,
) -> OwnHull:
    """The hull with phases of the Materials Project, of the chemical systems of the candidates."""
    from onnes.crystal.formula import symbols
    from onnes.crystal.read import Crystal
    from onnes.errors import SettingsError
    from onnes.stability.hull import METHOD
    from onnes.stability.hull_entries import OwnHull, joined, read_energies, table_of
    from onnes.stability.hull_mp import METHOD as THEIRS
    from onnes.stability.hull_mp import MaterialsProject, computed

    if use not in ("potential", "dft"):
        raise SettingsError("bad-setting", f"--mp {use!r} unknown; use potential or dft")
    project = MaterialsProject.from_environment(key)
    systems = {frozenset(symbols(i.structure)) for i in items if isinstance(i, Crystal)}
    if use == "dft":
        if energies is None or entries:
            raise SettingsError(
                "mixed-methods",
                "with --mp dft the hull is the Materials Project's alone: --candidate-energies must give the "
                f"candidates' ({THEIRS}), and --entries has no place",
            )
        return OwnHull(
            table_of(project.entries(systems), THEIRS, "Materials Project"), read_energies(energies)
        )
    base = _from_files(entries, method, energies)
    if base.energies is not None:
        raise SettingsError("mixed-methods", f"--mp potential adds energies of {METHOD}, not of {method}")
    left: list[Refused] = []
    found = computed(project.structures(systems), METHOD, refused=left.append)
    for one in left:
        typer.echo(f"onnes: {one.source}, {one.id}: {one.message} [{one.code}]", err=True)
    if left:
        typer.echo(
            f"{len(left)} of {len(left) + len(found)} phases of the Materials Project left out", err=True
        )
    return OwnHull(joined(base.table, found, "Materials Project"))


def _collection(known: list[Path]) -> Collection | None:
    if not known:
        return None
    from onnes.stability.novelty_given import Collection

    held = Collection.read(known)
    typer.echo(f"{len(held)} own known crystals, {len(held.refused)} refused", err=True)
    return held
