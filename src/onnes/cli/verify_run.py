"""Planning and running for ``onnes verify``: one crystal at one tier, from settings to verdict, files and record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.campaign.settings import EnginePart
    from onnes.data.records import Record
    from onnes.dft.estimate import Estimate
    from onnes.dft.outcome import Outcome
    from onnes.dft.plan import Plan
    from onnes.dft.programs import Programs
    from onnes.dft.pseudopotentials import Pseudopotential
    from onnes.dft.run import RunState
    from onnes.dft.tiers import Tier
    from onnes.parallel import Engine


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for, apart from crystal, tier and folder."""

    pseudo: Path | None
    ecut: float | None
    relax: bool
    spin: bool
    smearing: str | None
    degauss: float | None
    cores: int
    floor_MB: float
    mu_star: float
    epw_grid: tuple[int, int, int] | None = None
    engine: Path | None = None

    def check(self) -> None:
        """Refuse settings that no run can use.

        Raises
        ------
        SettingsError
            ``bad-cutoff``, ``bad-degauss``, ``unknown-smearing``; those of `_engine_part`; ``bad-setting`` for more
            processes than a node of the engine has cores.
        InputError
            ``no-such-folder``: of pseudopotentials.
        PhysicsError
            Those of `onnes.theory.tc` for mu*, which would else come after hours.
        """
        from onnes.dft.tiers import Smearing
        from onnes.errors import InputError, SettingsError
        from onnes.theory.tc import guard_lambda

        guard_lambda(self.mu_star)
        if self.pseudo is not None and not self.pseudo.is_dir():
            raise InputError("no-such-folder", f"{self.pseudo} is no folder of pseudopotentials")

        if self.ecut is not None and not 1.0 <= self.ecut <= 1000.0:
            raise SettingsError("bad-cutoff", f"--ecut {self.ecut:g} Ry; use 1 to 1000")
        if self.degauss is not None and not 1e-4 <= self.degauss <= 1.0:
            raise SettingsError("bad-degauss", f"--degauss {self.degauss:g} Ry; use 0.0001 to 1")
        if self.smearing is not None and self.smearing not in set(Smearing):
            raise SettingsError(
                "unknown-smearing", f"unknown smearing {self.smearing!r}; use one of {', '.join(Smearing)}"
            )
        if self.engine is not None:
            part = _engine_part(self.engine)
            if part.kind == "slurm" and self.cores > part.cores_per_node:
                raise SettingsError(
                    "bad-setting",
                    f"--cores {self.cores}: pw.x runs on one node of the engine, which has "
                    f"engine.cores_per_node = {part.cores_per_node}",
                )

    def check_engine(self, out: Path) -> None:
        """Refuse an engine that cannot be started here, before anything is computed."""
        if self.engine is not None:
            from onnes.campaign.engine import check_engine

            check_engine(_engine_part(self.engine), out)

    def lanes(self) -> int:
        """q-points side by side."""
        if self.engine is None:
            return self.cores
        part = _engine_part(self.engine)
        return part.jobs * part.cores_per_node if part.kind == "slurm" else part.workers or self.cores

    def tier(self, name: str) -> Tier:
        """Tier of a name with the smearing asked for."""
        from onnes.dft.tiers import Smearing, tier_named

        found = tier_named(name)
        if self.smearing is not None:
            found = replace(found, smearing=Smearing(self.smearing))
        return found if self.degauss is None else replace(found, degauss_Ry=self.degauss)


def planned(
    structure: Structure, isotopes: Any, tier: Tier, wishes: Wishes
) -> tuple[Plan, Estimate, dict[str, Pseudopotential] | None]:
    """Plan a run and say what it costs; pseudopotentials are None where there is no folder of them."""
    from onnes.dft.estimate import estimate
    from onnes.dft.plan import make_cell, make_plan
    from onnes.dft.pseudo_install import default_folder
    from onnes.dft.pseudopotentials import find

    folder = wishes.pseudo or (default_folder() if default_folder().is_dir() else None)
    elements = sorted({site.specie.symbol for site in structure})
    files = find(folder, elements) if folder is not None else None
    cell = make_cell(structure, tier, pseudos=files, isotopes=isotopes, ecut_Ry=wishes.ecut)
    plan = make_plan(cell, tier, files, relax=wishes.relax, spin=wishes.spin)
    return plan, estimate(plan, files), files


def executed(
    plan: Plan,
    folder: Path,
    programs: Programs,
    files: dict[str, Pseudopotential],
    wishes: Wishes,
    engine: Engine | None = None,
) -> tuple[Outcome, RunState]:
    """Run a plan to its verdict and write what came out of it, on an engine that is open or on one for this run.

    Raises
    ------
    DataError
        ``in-use``, ``cannot-write``.
    InputError
        ``other-crystal``.
    """
    from onnes.dft.outcome import judge, write_outcome
    from onnes.dft.plots import draw_run
    from onnes.dft.results import write_results
    from onnes.dft.run import Runner
    from onnes.dft.to_record import settings
    from onnes.errors import OnnesError

    def report(line: str) -> None:
        typer.echo(f"onnes: {line}", err=True)

    with nullcontext(engine) if engine is not None else _engine(wishes, folder) as used:
        runner = Runner(
            folder,
            programs,
            files,
            workers=wishes.cores,
            floor_MB=wishes.floor_MB,
            report=report,
            engine=used,
        )
        state = runner.run(plan)
    outcome = judge(state, folder, wishes.mu_star)
    try:
        if outcome.results is not None:
            write_results(outcome.results, folder)
        write_outcome(outcome, folder, settings(state.plan, folder))
    except OnnesError as error:
        # A disk without room for the tables; the verdict is known and printed.
        report(str(error))
    try:
        if state.status == "done":
            draw_run(state.plan.cell.structure, outcome, folder)
    except Exception as error:
        # No picture is worth the record of the run, or the crystals after it.
        report(f"figures not drawn: {error}")
    return outcome, state


def _engine_part(path: Path) -> EnginePart:
    """The ``[engine]`` table of a file.

    Raises
    ------
    SettingsError
        ``no-engine-table``: there is none; those of `read_toml` and `Settings.from_dict`.
    """
    from onnes.campaign.settings import Settings, read_toml
    from onnes.errors import SettingsError

    values = read_toml(path)
    if "engine" not in values:
        raise SettingsError(
            "no-engine-table", f'{path} has no [engine] table; it begins with [engine], then kind = "parsl"'
        )
    return Settings.from_dict({"engine": values["engine"]}).engine


@contextmanager
def _engine(wishes: Wishes, folder: Path) -> Iterator[Engine | None]:
    """Who runs the programs; None: this process. What the engine has started is on record in ``engine.json``."""
    if wishes.engine is None:
        yield None
        return
    import json
    from contextlib import suppress

    from onnes.campaign.engine import check_engine, open_engine
    from onnes.campaign.engine_leftovers import end_leftovers
    from onnes.data.files import atomic_text
    from onnes.dft.run import only_one

    part = _engine_part(wishes.engine)
    check_engine(part, folder)
    record = folder / "engine.json"
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder), suppress(OSError, ValueError):
        # Of a driver that is gone: one that lives holds the folder.
        end_leftovers(json.loads(record.read_text(encoding="utf-8")))

    def note(entry: dict[str, Any]) -> None:
        with atomic_text(record) as stream:
            stream.write(json.dumps(entry) + "\n")

    with open_engine(part, wishes.cores, folder, None, note) as engine:
        yield engine


@contextmanager
def shared_engine(wishes: Wishes, out: Path | None) -> Iterator[Engine | None]:
    """One engine for all crystals of a batch: pilot jobs wait in the queue once. None where there is nothing to share.

    Raises
    ------
    DataError
        ``in-use``: another process works on the batch; its engine must not be ended as a leftover.
    """
    if wishes.engine is None or out is None:
        yield None
        return
    from onnes.dft.run import only_one

    with _engine(wishes, out) as engine, only_one(out):
        yield engine


def fermi_of(folder: Path) -> float | None:
    """Fermi energy of the scf of a run, eV."""
    from onnes.dft.pw_output import parse_pw
    from onnes.dft.step_checks import text_of

    return parse_pw(text_of(folder / "scf" / "scf.out")).fermi_eV


def row_of(outcome: Outcome, mu_star: float) -> dict[str, Any]:
    """What ``--json`` says of a finished or failed run."""
    from onnes.dft.outcome import Verdict

    told = outcome.as_dict()
    good = outcome.verdict in (Verdict.SUPERCONDUCTOR, Verdict.NORMAL)
    told["curve"] = [
        {
            "sigma_Ry": r["sigma_Ry"],
            "lambda": r["lambda"],
            "tc_K": r["tc_allen_dynes_K"],
            "reason": r["reason"],
        }
        for r in told["curve"]
    ]
    return {"status": "ok" if good else told["verdict"], "mu_star": mu_star, **told}


def record_of(name: str, outcome: Outcome, state: RunState, folder: Path) -> Record | None:
    """The record of a run whose verdict is about the crystal; None for one that failed."""
    from onnes.dft.to_record import record_of_run

    return record_of_run(name, state.plan, outcome, folder) if outcome.final else None


def say(outcome: Outcome) -> None:
    """Verdict, reasons, Tc by every formula, on stderr."""
    code = f" [{outcome.reason}]" if outcome.reason else ""
    typer.echo(f"onnes: {outcome.verdict}: {outcome.detail}{code}", err=True)
    if outcome.summary:
        typer.echo(
            f"onnes: Tc at mu* {outcome.summary['mu_star']:g} (range for mu* 0.15 to 0.08), K", err=True
        )
        for name, row in outcome.summary["tc"].items():
            typer.echo(
                f"onnes:   {name:<22}{row['tc_K']:8.3f}  {row['low_K']:.3f} to {row['high_K']:.3f}", err=True
            )
        solved = outcome.summary["eliashberg"] or {}
        if solved.get("tc_K") is not None:
            band = "" if solved["low_K"] is None else f"  {solved['low_K']:.3f} to {solved['high_K']:.3f}"
            typer.echo(f"onnes:   {'eliashberg':<22}{solved['tc_K']:8.3f}{band}", err=True)
    for note in outcome.notes:
        typer.echo(f"onnes: note: {note}", err=True)
