"""``onnes verify``: electron-phonon coupling with Quantum ESPRESSO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnes.cli.common import free_name, probe_folder, read_aloud

if TYPE_CHECKING:
    from onnes.cli.verify_run import Wishes
    from onnes.crystal.read import Crystal, Refused
    from onnes.data.records import Record
    from onnes.dft.plan import Plan
    from onnes.dft.programs import Programs
    from onnes.parallel import Engine

GOOD = ("ok", "insulator", "unstable", "magnetic", "no-plateau")


def verify(
    paths: Annotated[list[Path], typer.Argument(help="Structure files, record files or folders.")],
    tier: Annotated[str, typer.Option(help="quick, standard or tight.")] = "quick",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write inputs and estimate; needs no QE.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; needed to run.")] = None,
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="quick for all, standard for survivors, tight for the best."),
    ] = False,
    keep_above: Annotated[float, typer.Option(help="--ladder: Tc in K that survives quick.")] = 1.0,
    best: Annotated[int, typer.Option(help="--ladder: how many go to tight.")] = 3,
    pseudo: Annotated[Path | None, typer.Option(help="Folder of UPF files.")] = None,
    ecut: Annotated[float | None, typer.Option(help="Wave-function cut-off in Ry.")] = None,
    smearing: Annotated[str | None, typer.Option(help="mv, mp, gauss or fd instead of the tier's.")] = None,
    degauss: Annotated[float | None, typer.Option(help="Its width in Ry instead of the tier's.")] = None,
    relax: Annotated[bool, typer.Option(help="Relax the cell first.")] = True,
    spin: Annotated[
        bool, typer.Option("--spin", help="Look for magnetism first where an element may be magnetic.")
    ] = False,
    cores: Annotated[int, typer.Option(min=1, help="q-points side by side, MPI processes of pw.x.")] = 1,
    engine: Annotated[
        Path | None, typer.Option(help="TOML file with an [engine] table: who runs the programs.")
    ] = None,
    qe: Annotated[Path | None, typer.Option(help="Folder of pw.x, ph.x, q2r.x, matdyn.x.")] = None,
    floor: Annotated[float, typer.Option(min=0.0, help="Free disk that is never used, MB.")] = 500.0,
    mu_star: Annotated[float, typer.Option(help="Coulomb pseudopotential of Tc.")] = 0.10,
    epw: Annotated[
        bool, typer.Option("--epw", help="Also write inputs of the EPW route (experimental, not run).")
    ] = False,
    epw_grid: Annotated[
        tuple[int, int, int], typer.Option(help="--epw: fine k grid, e.g. 72 72 36; 0 0 0 chooses one.")
    ] = (0, 0, 0),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Electron-phonon coupling with Quantum ESPRESSO; the same command goes on where a run was cut.

    Prints lambda, omega_log and Tc at every broadening, finds the plateau, and gives a verdict: superconductor,
    no-superconductor, unstable, insulator, magnetic, no-plateau or not-converged. Finished crystals go to
    records.jsonl, which `onnes train` reads.
    """
    from onnes.cli.verify_run import Wishes, shared_engine
    from onnes.dft.programs import find_programs
    from onnes.errors import InputError, SettingsError

    wishes = Wishes(
        pseudo,
        ecut,
        relax,
        spin,
        smearing,
        degauss,
        cores,
        floor,
        mu_star,
        epw_grid if any(epw_grid) else None,
        engine,
    )
    wishes.check()
    wishes.tier(tier)
    if not dry_run and out is None:
        raise InputError(
            "no-folder", "give --out, the folder of the run (or --dry-run for the estimate alone)"
        )
    if epw and out is None:
        raise InputError("no-folder", "--epw writes inputs: give --out")
    if ladder and (dry_run or epw):
        raise SettingsError("bad-setting", "--ladder runs; it goes with neither --dry-run nor --epw")
    programs = None if dry_run else find_programs(qe, cores)
    if out is not None:
        probe_folder(out)
        if programs is not None:
            wishes.check_engine(out)
    if ladder and programs is not None and out is not None:
        rows = _climbed(paths, out, programs, wishes, keep_above, best, as_json)
    else:
        crystals = list(read_aloud(paths))
        batch = out if programs is not None and len(crystals) > 1 else None
        with shared_engine(wishes, batch) as shared:
            rows = _each(crystals, tier, out, programs, wishes, epw, as_json, shared)
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
    if any(row["status"] not in GOOD for row in rows) or not rows:
        raise typer.Exit(1)


def _each(
    crystals: list[Crystal | Refused],
    tier: str,
    out: Path | None,
    programs: Programs | None,
    wishes: Wishes,
    epw: bool,
    as_json: bool,
    engine: Engine | None,
) -> list[dict[str, Any]]:
    """Every crystal at one tier."""
    from onnes.cli.verify_run import executed, fermi_of, planned, record_of, row_of, say
    from onnes.cli.verify_tables import plan_row, plan_table
    from onnes.crystal.read import Refused
    from onnes.dft.plan import refuse_other
    from onnes.errors import OnnesError

    chosen, lanes = wishes.tier(tier), wishes.lanes()
    rows: list[dict[str, Any]] = []
    records: list[Record] = []
    taken: set[str] = set()
    names: set[str] = set()
    for item in crystals:
        if isinstance(item, Refused):
            rows.append({"id": item.id, "status": "refused", "reason": item.code})
            continue
        try:
            plan, cost, files = planned(item.structure, item.meta.get("isotopes"), chosen, wishes)
            if programs is not None and files is None:
                _no_pseudopotentials()
            folder = None
            if out is not None:
                folder = out if len(crystals) == 1 else out / free_name(item.id, taken)
                refuse_other(plan, folder)
        except OnnesError as error:
            typer.echo(f"onnes: {item.id}: {error}", err=True)
            rows.append({"id": item.id, "status": "refused", "reason": error.code})
            continue
        if programs is None and folder is not None:
            plan.write(folder, files)
        row = plan_row(item, plan, cost, wishes.cores, lanes, folder)
        typer.echo(plan_table(item, plan, cost, wishes.cores, lanes), err=programs is not None or as_json)
        if epw and folder is not None and programs is None:
            _epw(plan, folder, cost.electrons, None, wishes)
        if programs is not None and folder is not None and files is not None:
            try:
                outcome, state = executed(plan, folder, programs, files, wishes, engine)
            except OnnesError as error:
                # Of this folder (another process runs in it); the other crystals go on.
                typer.echo(f"onnes: {item.id}: {error}", err=True)
                rows.append({"id": item.id, "status": "failed", "reason": error.code})
                continue
            say(outcome)
            if outcome.results is not None and not as_json:
                typer.echo(outcome.results.csv().rstrip("\n"))
            row |= row_of(outcome, wishes.mu_star)
            if epw:
                _epw(state.plan, folder, cost.electrons, fermi_of(folder), wishes, outcome.tc_K)
            record = record_of(free_name(item.id, names), outcome, state, folder)
            if record is not None:
                records.append(record)
                if any(step.state == "done" for step in state.steps):
                    _keep(out, records)
        rows.append(row)
    _keep(out, records)
    return rows


def _keep(out: Path | None, records: list[Record]) -> None:
    """Write the records so far, so that a batch that is cut after days has them.

    While finished crystals are gone through again, the file of the last time stays as it is.
    """
    from onnes.data.records import write_records
    from onnes.errors import DataError

    if out is None or not records:
        return
    try:
        write_records(out / "records.jsonl", records)
    except DataError as error:
        typer.echo(f"onnes: {error}", err=True)


def _climbed(
    paths: list[Path],
    out: Path,
    programs: Programs,
    wishes: Wishes,
    keep_above: float,
    best: int,
    as_json: bool,
) -> list[dict[str, Any]]:
    """All crystals up the ladder; the record of each is that of its highest finished rung."""
    from onnes.cli.verify_run import executed, planned, record_of, row_of, say, shared_engine
    from onnes.crystal.read import Refused
    from onnes.dft.ladder import COLUMNS, Rule, climb
    from onnes.dft.outcome import Outcome, Verdict
    from onnes.errors import OnnesError

    rule = Rule(keep_above, best)
    rows: list[dict[str, Any]] = []
    records: dict[str, Record] = {}
    isotopes: dict[str, dict[int, float] | None] = {}
    crystals: list[tuple[str, Any, Path]] = []
    taken: set[str] = set()
    for item in read_aloud(paths):
        if isinstance(item, Refused):
            rows.append({"id": item.id, "status": "refused", "reason": item.code})
            continue
        name = free_name(item.id, taken)
        isotopes[name] = item.meta.get("isotopes")
        crystals.append((name, item.structure, out / name))

    def run_one(structure: Any, name: str, tier: Any, folder: Path) -> tuple[Outcome, Any]:
        typer.echo(f"onnes: {name}, {tier}", err=True)
        try:
            plan, _, files = planned(structure, isotopes[name], wishes.tier(tier), wishes)
            if files is None:
                _no_pseudopotentials()
            else:
                outcome, state = executed(plan, folder, programs, files, wishes, engine)
        except OnnesError as error:
            outcome = Outcome(Verdict.FAILED, error.code, error.message)
            say(outcome)
            return outcome, structure
        say(outcome)
        record = record_of(name, outcome, state, folder)
        if record is not None:
            records[name] = record
            if any(step.state == "done" for step in state.steps):
                _keep(out, list(records.values()))
        relaxed, masses = state.plan.cell.structure, state.plan.cell.masses
        # They count the sites of a structure, and the relaxed cell has its own.
        isotopes[name] = {n: masses[site.specie.symbol] for n, site in enumerate(relaxed)}
        return outcome, relaxed

    def report(line: str) -> None:
        typer.echo(f"onnes: {line}", err=True)

    with shared_engine(wishes, out) as engine:
        rungs = climb(crystals, run_one, rule, out / "ladder.csv", report)
    if not as_json:
        typer.echo("\n".join([COLUMNS, *(rung.row() for rung in rungs)]))
    rows += [
        {"id": r.id, "tier": str(r.tier), "climbs": r.climbs, **row_of(r.outcome, wishes.mu_star)}
        for r in rungs
    ]
    _keep(out, list(records.values()))
    return rows


def _epw(
    plan: Plan,
    folder: Path,
    electrons: float,
    fermi_eV: float | None,
    wishes: Wishes,
    tc_K: float | None = None,
) -> None:
    from onnes.dft.epw_inputs import write_epw

    write_epw(
        plan,
        folder,
        electrons=electrons,
        fermi_eV=fermi_eV,
        fine_k=wishes.epw_grid,
        mu_star=wishes.mu_star,
        tc_K=tc_K,
    )
    typer.echo(f"onnes: EPW inputs (experimental, not run here) in {folder / 'epw'}", err=True)


def _no_pseudopotentials() -> None:
    from onnes.errors import InputError

    raise InputError(
        "missing-pseudopotential", "no pseudopotentials: `onnes pseudo install`, or give --pseudo FOLDER"
    )
