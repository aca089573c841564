"""``onnes verify``: electron-phonon coupling with Quantum ESPRESSO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnes.cli.common import free_name, probe_folder, read_aloud

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal
    from onnes.dft.estimate import Estimate
    from onnes.dft.plan import Plan
    from onnes.dft.programs import Programs
    from onnes.dft.pseudopotentials import Pseudopotential


def verify(
    paths: Annotated[list[Path], typer.Argument(help="Structure files, record files or folders.")],
    tier: Annotated[str, typer.Option(help="quick, standard or tight.")] = "quick",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write inputs and estimate; needs no QE.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; needed to run.")] = None,
    pseudo: Annotated[Path | None, typer.Option(help="Folder of UPF files.")] = None,
    ecut: Annotated[float | None, typer.Option(help="Wave-function cut-off in Ry.")] = None,
    relax: Annotated[bool, typer.Option(help="Relax the cell first.")] = True,
    cores: Annotated[int, typer.Option(min=1, help="q-points side by side, MPI processes of pw.x.")] = 1,
    qe: Annotated[Path | None, typer.Option(help="Folder of pw.x, ph.x, q2r.x, matdyn.x.")] = None,
    floor: Annotated[float, typer.Option(min=0.0, help="Free disk that is never used, MB.")] = 500.0,
    mu_star: Annotated[float, typer.Option(help="Coulomb pseudopotential of Tc.")] = 0.10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Electron-phonon coupling with Quantum ESPRESSO; the same command goes on where a run was cut.

    Gives lambda, omega_log and Tc at every broadening and says whether the crystal is stable or an insulator. It does
    not pick a broadening: see whether the curve levels off.
    """
    from onnes.crystal.read import Refused
    from onnes.dft.programs import find_programs
    from onnes.dft.tiers import tier_named
    from onnes.errors import InputError, OnnesError, SettingsError

    chosen = tier_named(tier)
    if ecut is not None and not 1.0 <= ecut <= 1000.0:
        raise SettingsError("bad-cutoff", f"--ecut {ecut:g} Ry; use 1 to 1000")
    if not dry_run and out is None:
        raise InputError(
            "no-folder", "give --out, the folder of the run (or --dry-run for the estimate alone)"
        )
    programs = None if dry_run else find_programs(qe, cores)
    if out is not None:
        probe_folder(out)
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    crystals = list(read_aloud(paths))
    for item in crystals:
        if isinstance(item, Refused):
            rows.append({"id": item.id, "status": "refused", "reason": item.code})
            continue
        try:
            plan, cost, files = _planned(item, chosen, pseudo, ecut, relax)
            if programs is not None and files is None:
                raise InputError(
                    "missing-pseudopotential",
                    "no pseudopotentials: `onnes pseudo install`, or give --pseudo FOLDER",
                )
        except OnnesError as error:
            typer.echo(f"onnes: {item.id}: {error}", err=True)
            rows.append({"id": item.id, "status": "refused", "reason": error.code})
            continue
        folder = None
        if out is not None:
            folder = out if len(crystals) == 1 else out / free_name(item.id, taken)
        if dry_run and folder is not None:
            plan.write(folder, files)
        row = _row(item, plan, cost, cores, folder)
        typer.echo(_table(item, plan, cost, cores), err=not dry_run or as_json)
        if programs is not None and folder is not None and files is not None:
            row |= _executed(plan, folder, programs, files, cores, floor, mu_star, as_json)
        rows.append(row)
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
    if any(row["status"] not in ("ok", "insulator", "unstable") for row in rows) or not rows:
        raise typer.Exit(1)


def _executed(
    plan: Plan,
    folder: Path,
    programs: Programs,
    files: dict[str, Pseudopotential],
    cores: int,
    floor_MB: float,
    mu_star: float,
    as_json: bool,
) -> dict[str, Any]:
    """Run, and read what came out."""
    from onnes.dft.results import read_results, write_results
    from onnes.dft.run import Runner

    def report(line: str) -> None:
        typer.echo(f"onnes: {line}", err=True)

    runner = Runner(folder, programs, files, workers=cores, floor_MB=floor_MB, report=report)
    state = runner.run(plan)
    if state.status != "done":
        typer.echo(f"onnes: {state.status}: {state.detail} [{state.reason}]", err=True)
        return {"status": state.status, "reason": state.reason, "detail": state.detail}
    results = read_results(state.plan, folder, mu_star)
    write_results(results, folder)
    if not as_json:
        typer.echo(results.csv().rstrip("\n"))
    if results.unstable is not None:
        typer.echo(f"onnes: unstable: {results.unstable}", err=True)
        return {
            "status": "unstable",
            "reason": str(results.unstable.reason),
            "detail": results.unstable.detail,
        }
    curve = [{"sigma_Ry": r.sigma_Ry, "lambda": r.lam, "tc_K": r.tc_K} for r in results.rows]
    return {"status": "ok", "reason": "", "mu_star": mu_star, "curve": curve}


def _planned(
    item: Crystal, tier: Any, pseudo: Path | None, ecut: float | None, relax: bool
) -> tuple[Plan, Estimate, dict[str, Pseudopotential] | None]:
    from onnes.dft.estimate import estimate
    from onnes.dft.plan import make_cell, make_plan
    from onnes.dft.pseudo_install import default_folder
    from onnes.dft.pseudopotentials import find

    folder = pseudo or (default_folder() if default_folder().is_dir() else None)
    elements = sorted({site.specie.symbol for site in item.structure})
    files = find(folder, elements) if folder is not None else None
    cell = make_cell(item.structure, tier, pseudos=files, isotopes=item.meta.get("isotopes"), ecut_Ry=ecut)
    plan = make_plan(cell, tier, files, relax=relax)
    return plan, estimate(plan, files), files


def _row(item: Crystal, plan: Plan, cost: Estimate, cores: int, folder: Path | None) -> dict[str, Any]:
    from onnes.crystal import reduced_formula

    return {
        "id": item.id,
        "status": "ok",
        "reason": "",
        "formula": reduced_formula(item.structure),
        "tier": str(plan.tier.name),
        "atoms": cost.atoms,
        "electrons": cost.electrons,
        "ecutwfc_Ry": plan.cell.ecutwfc_Ry,
        "q": list(plan.grids.q),
        "k": list(plan.grids.k),
        "dense": list(plan.grids.dense),
        "irreducible_q": len(plan.q_weights),
        "cpu_hours": round(cost.cpu_s / 3600.0, 4),
        "wall_hours": round(cost.wall_s(cores) / 3600.0, 4),
        "memory_MB": round(cost.memory_MB),
        "disk_MB": round(cost.disk_MB(cores)),
        "cautions": list(cost.cautions),
        "folder": None if folder is None else str(folder),
    }


def _table(item: Crystal, plan: Plan, cost: Estimate, cores: int) -> str:
    """What a person reads: the crystal, its grids, a row for each kind of step, totals, cautions."""
    from onnes.crystal import reduced_formula

    grids = [
        f"{name} {'x'.join(map(str, g))}" for name, g in zip("qk", (plan.grids.q, plan.grids.k), strict=True)
    ]
    lines = [
        f"{item.id}: {reduced_formula(item.structure)}, tier {plan.tier.name}",
        f"  cell        {cost.atoms} atoms, {cost.electrons:g} electrons, {cost.bands} bands, "
        f"{cost.symmetries} operations",
        f"  cut-offs    {plan.cell.ecutwfc_Ry:g} / {plan.cell.ecutrho_Ry:g} Ry, FFT {'x'.join(map(str, cost.fft))}",
        f"  grids       {', '.join(grids)}, Fermi surface {'x'.join(map(str, plan.grids.dense))}",
        f"  {'step':<12}{'runs':>6}{'k-points':>10}{'CPU time':>12}",
    ]
    for step in cost.steps:
        points = str(step.k_points) if step.k_points else ""
        lines.append(f"  {step.kind:<12}{step.count:>6}{points:>10}{_time(step.cpu_s):>12}")
    lines += [
        f"  {'in all':<12}{'':>6}{'':>10}{_time(cost.cpu_s):>12}",
        f"  wall time   {_time(cost.wall_s(cores))} on {cores} cores (longest q {_time(cost.longest_q_s)})",
        f"  memory      {_size(cost.memory_MB)} a process;  disk {_size(cost.disk_MB(cores))}",
        "  accuracy    a factor of 2 on the machine of the fit; other machines and large cells more",
        *(f"  caution     {text}" for text in cost.cautions),
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h" if seconds < 48 * 3600.0 else f"{seconds / 86400.0:.1f} d"


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000.0 else f"{megabytes / 1000.0:.1f} GB"
