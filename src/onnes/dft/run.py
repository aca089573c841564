"""Runs a plan and goes on where it was cut: a step is done when its own files say so, and never otherwise.

Each finished step leaves ``NAME.done.json`` with the hash of its input. That record alone proves nothing: at every
start the output is parsed again and the files are checked. A step whose hash or files do not fit is done anew from
scratch, in an emptied folder. The scratch of a q goes when the q is done, that of the scf when all are.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from onnes.data.files import atomic_text
from onnes.dft.dyn_file import QGrid, parse_dyn0
from onnes.dft.failures import Failure, Reason
from onnes.dft.inputs import PREFIX, Cell
from onnes.dft.outcome import PRODUCTS
from onnes.dft.plan import Plan, Program, Step, make_cell, make_plan, refuse_other
from onnes.dft.programs import LOOK_S, Programs, execute, free_MB
from onnes.dft.pseudopotentials import Pseudopotential
from onnes.dft.pw_output import parse_pw
from onnes.dft.scratch import parse_scf_record
from onnes.dft.step_checks import DENSE_RECORD, check_step, read_output, text_of
from onnes.errors import DataError
from onnes.parallel import Engine, WorkerDiedError, completed

Report = Callable[[str], None]
#: A disk with less free than this is full, MB.
FULL_MB = 1.0
#: How long the files of a worker may take to be seen by the driver, s (attributes of NFS are cached for a minute).
SEEN_S = 90.0
#: Absolute magnetisation above which a crystal is magnetic, Bohr magnetons an atom.
MOMENT_MUB = 0.05
#: Reasons that are findings about the crystal and not failures of the run.
FINDINGS = (Reason.INSULATOR, Reason.MAGNETIC)
#: Reasons that the other q-points would meet as well.
WALLS = (Reason.DISK_FULL, Reason.OUT_OF_MEMORY)
_SHORT_FILES = (Reason.FILE, Reason.TRUNCATED, Reason.NOTHING)


@dataclass
class StepState:
    """What became of one step: ``done``, ``kept`` (done before), ``failed``, or ``not-run``."""

    name: str
    state: str
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass
class RunState:
    """What became of a run.

    Attributes
    ----------
    status : {"done", "failed", "insulator", "magnetic"}
    reason : str
        Reason code of the first failure; empty when done.
    detail : str
    steps : list of StepState
    plan : Plan
        Of the relaxed cell where there was a relaxation.
    """

    status: str
    reason: str
    detail: str
    steps: list[StepState]
    plan: Plan


@dataclass
class Runner:
    """Runs one plan in one folder.

    Parameters
    ----------
    folder : Path
    programs : Programs
    pseudos : dict
        Element -> pseudopotential.
    workers : int
        q-points side by side.
    floor_MB : float
        No step starts, and a running one is ended, with less disk free.
    report : callable
        Gets one line for each step.
    look_s : float
        Seconds between looks at running programs.
    engine : Engine, optional
        Runs every program instead of this machine: its workers see the folder and the programs under the same paths.
    """

    folder: Path
    programs: Programs
    pseudos: dict[str, Pseudopotential]
    workers: int = 1
    floor_MB: float = 500.0
    report: Report = lambda line: None
    look_s: float = LOOK_S
    engine: Engine | None = None
    steps: list[StepState] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, plan: Plan) -> RunState:
        """Do every step of a plan that is not done.

        Parameters
        ----------
        plan : Plan
            With or without a relaxation in front.

        Returns
        -------
        RunState

        Raises
        ------
        DataError
            ``in-use``: another process runs in the folder; ``cannot-write``.
        InputError
            ``other-crystal``: the folder holds the run of another one, which must not be written over.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_one(self.folder):
            refuse_other(plan, self.folder)
            # What an earlier run made of its steps; made anew from them, it must not outlive a change of settings.
            for name in PRODUCTS:
                (self.folder / name).unlink(missing_ok=True)
            plan.write(self.folder, self.pseudos)
            failure, final = self._all(plan)
            status = "done" if failure is None else "failed"
            if failure is not None and failure.reason in FINDINGS:
                status = str(failure.reason)
            state = RunState(
                status,
                "" if failure is None else str(failure.reason),
                "" if failure is None else failure.detail,
                self.steps,
                final,
            )
            # The state is returned as well; a disk that is full may not hold it.
            with suppress(DataError):
                _write_state(self.folder, state)
            return state

    def _all(self, plan: Plan) -> tuple[Failure | None, Plan]:
        if any(step.name == "relax" for step in plan.steps):
            failure = self._step(plan, _named(plan, "relax"))
            if failure is not None:
                return failure, plan
            shutil.rmtree(self.folder / "relax" / "tmp", ignore_errors=True)
            plan = relaxed_plan(plan, self.folder, self.pseudos)
            plan.write(self.folder, self.pseudos)
        return self._moment(plan) or self._coupling(plan) or self._spectra(plan), plan

    def _moment(self, plan: Plan) -> Failure | None:
        """Do the spin-polarised scf where the plan has one; a moment ends the run."""
        step = next((s for s in plan.steps if s.name == "spin"), None)
        if step is None:
            return None
        failure = self._step(plan, step)
        shutil.rmtree(self.folder / step.folder / "tmp", ignore_errors=True)
        if failure is not None:
            return failure
        found = parse_pw(read_output(self.folder, step)).magnetisation
        atoms = len(plan.cell.structure)
        if found is None:
            return Failure(Reason.NOT_A_NUMBER, "the spin-polarised scf states no absolute magnetisation")
        if found > MOMENT_MUB * atoms:
            return Failure(
                Reason.MAGNETIC,
                f"{found / atoms:.2f} Bohr magnetons an atom: no phonon-mediated superconductor is computed",
            )
        return None

    def _coupling(self, plan: Plan) -> Failure | None:
        """The scf and every q; neither scf is needed when every q is done."""
        phonons = [s for s in plan.steps if s.program is Program.PH]
        kept = [s for s in phonons if self._is_done(plan, s)]
        self.steps += [StepState(s.name, "kept") for s in kept]
        open_ones = [s for s in phonons if s not in kept]
        for step in kept:
            shutil.rmtree(self.folder / step.folder / "tmp", ignore_errors=True)
        if open_ones:
            failure = self._scf(plan) or self._phonons(plan, open_ones)
            if failure is not None:
                return failure
        failure = self._same_grid(plan, phonons)
        if failure is None:
            shutil.rmtree(self.folder / "scf" / "tmp", ignore_errors=True)
        return failure

    def _scf(self, plan: Plan) -> Failure | None:
        failure = self._step(plan, _named(plan, "dense"))
        if failure is not None:
            return failure
        found = parse_scf_record(text_of(self.folder / "scf" / DENSE_RECORD))
        if found.insulator:
            # What shows it is kept; the wave functions have had their use.
            shutil.rmtree(self.folder / "scf" / "tmp" / f"{PREFIX}.save", ignore_errors=True)
            return Failure(
                Reason.INSULATOR, f"a gap of {found.gap_eV:.2f} eV on the dense grid: no superconductor"
            )
        return self._step(plan, _named(plan, "scf"))

    def _phonons(self, plan: Plan, steps: list[Step]) -> Failure | None:
        if self.engine is not None:
            return self._elsewhere(plan, steps, self.engine)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                found = list(pool.map(lambda step: self._one_q(plan, step), steps))
            except BaseException:
                self._stop.set()
                raise
        return next((f for f in found if f is not None and f.reason is not Reason.STOPPED), None)

    def _elsewhere(self, plan: Plan, steps: list[Step], engine: Engine) -> Failure | None:
        """Steps on an engine, side by side; each is done again from scratch if its worker dies."""
        task = partial(
            step_state, self.folder.absolute(), self.programs, self.pseudos, self.floor_MB, self.look_s, plan
        )
        left = list(steps)

        def wanted() -> Iterator[Step]:
            while left and not self._stop.is_set():
                yield left.pop(0)

        found = []
        for step, state in completed(engine, task, wanted(), ahead=1):
            if isinstance(state, WorkerDiedError):
                state = StepState(step.name, "failed", Failure(Reason.KILLED, state.message))
            elif state.failure is None and not self._arrived(plan, step):
                unseen = Failure(Reason.FILE, f"done by a worker, but not seen here after {SEEN_S:.0f} s")
                state = StepState(step.name, "failed", unseen, state.seconds)
            self._add(state)
            found.append(state.failure)
            if state.failure is not None and state.failure.reason in WALLS:
                self._stop.set()
        self.steps += [StepState(step.name, "not-run") for step in left]
        return next((f for f in found if f is not None), None)

    def _arrived(self, plan: Plan, step: Step) -> bool:
        """Whether what a worker wrote is seen here: a network file system shows it with a delay."""
        until = time.monotonic() + SEEN_S
        while not self._recorded(plan, step):
            if time.monotonic() > until:
                return False
            time.sleep(self.look_s)
            with suppress(OSError):
                os.listdir(self.folder / step.folder)
        return True

    def _one_q(self, plan: Plan, step: Step) -> Failure | None:
        if self._stop.is_set():
            self.steps.append(StepState(step.name, "not-run"))
            return Failure(Reason.STOPPED, "not started")
        failure = self._step(plan, step)
        if failure is not None and failure.reason in WALLS:
            self._stop.set()
        return failure

    def _same_grid(self, plan: Plan, phonons: list[Step]) -> Failure | None:
        """Whether ph.x found as many irreducible q as this package."""
        found = parse_dyn0((self.folder / phonons[0].folder / f"{PREFIX}.dyn0").read_text(encoding="latin-1"))
        if isinstance(found, QGrid) and len(found.q) != len(phonons):
            return Failure(Reason.GRID, f"ph.x has {len(found.q)} irreducible q, {len(phonons)} were planned")
        return found if isinstance(found, Failure) else None

    def _spectra(self, plan: Plan) -> Failure | None:
        """Gather the q and do the three steps that need all of them."""
        if not self._is_done(plan, _named(plan, "q2r")):
            try:
                self._gather(plan, self.folder / "bands")
            except OSError as error:
                return _unwritten(f"gathering the q-points: {_words(error)}", self.folder)
        for name in ("q2r", "bands", "a2f"):
            failure = self._step(plan, _named(plan, name))
            if failure is not None:
                return failure
        return None

    def _gather(self, plan: Plan, place: Path) -> None:
        """Copy the files of every q into one folder, which nothing else is in."""
        shutil.rmtree(place / "elph_dir", ignore_errors=True)
        (place / "elph_dir").mkdir(parents=True)
        for n, step in enumerate((s for s in plan.steps if s.program is Program.PH), start=1):
            source = self.folder / step.folder
            for name in (f"{PREFIX}.dyn0", f"{PREFIX}.dyn{n}"):
                shutil.copyfile(source / name, place / name)
            for file in (source / "elph_dir").glob(f"*.{n}"):
                shutil.copyfile(file, place / "elph_dir" / file.name)

    def _step(self, plan: Plan, step: Step) -> Failure | None:
        """Do one step unless it is done."""
        if self._is_done(plan, step):
            self.steps.append(StepState(step.name, "kept"))
            self.report(f"{step.name}: done before")
            return None
        if self.engine is not None:
            return self._elsewhere(plan, [step], self.engine)
        return self._add(self._here(plan, step)).failure

    def _add(self, state: StepState) -> StepState:
        self.steps.append(state)
        self.report(f"{state.name}: {state.failure or state.state} ({state.seconds:.0f} s)")
        return state

    def _here(self, plan: Plan, step: Step) -> StepState:
        """Run the program of a step in this process, and clean up after it."""
        began = time.monotonic()
        failure = self._do(plan, step)
        full = failure is not None and failure.reason is Reason.DISK_FULL
        # Nothing reads the scratch of these: a restart begins anew. Of a dense scf it only takes room on a full disk.
        if step.program is Program.PH or step.name in ("relax", "spin") or (full and step.name == "dense"):
            shutil.rmtree(self.folder / step.folder / "tmp", ignore_errors=True)
        seconds = time.monotonic() - began
        return StepState(step.name, "done" if failure is None else "failed", failure, seconds)

    def _do(self, plan: Plan, step: Step) -> Failure | None:
        place = self.folder / step.folder
        if free_MB(self.folder) < self.floor_MB:
            return Failure(
                Reason.DISK_FULL, f"{free_MB(self.folder):.0f} MB free, {self.floor_MB:.0f} are the floor"
            )
        try:
            self._prepare(step, place)
            code, ended = execute(
                self.programs.command(step),
                place,
                place / step.output_name,
                floor_MB=self.floor_MB,
                stopped=self._stop.is_set,
                look_s=self.look_s,
                processes=self.programs.processes if step.program is Program.PW else 1,
            )
            failure = ended or check_step(plan, step, self.folder, exit_code=code)
            if failure is None:
                self._record(plan, step, place)
        except OSError as error:
            return _unwritten(f"{step.name}: {_words(error)}", self.folder)
        except DataError as error:
            return _unwritten(f"{step.name}: {error.message}", self.folder)
        if failure is not None and failure.reason in _SHORT_FILES and free_MB(self.folder) < FULL_MB:
            return Failure(Reason.DISK_FULL, f"the disk is full: {failure.detail}")
        return failure

    def _record(self, plan: Plan, step: Step, place: Path) -> None:
        """Leave the record of a finished step, the last thing it writes."""
        if step.name == "dense":
            # The scf of the coarse grid is going to write its own record in the same place.
            source = place / "tmp" / f"{PREFIX}.save" / "data-file-schema.xml"
            shutil.copyfile(source, place / DENSE_RECORD)
        record = {"sha256": plan.hashes()[step.name], "step": step.name, "version": _version(place, step)}
        with atomic_text(place / f"{step.name}.done.json") as stream:
            stream.write(json.dumps(record, sort_keys=True) + "\n")

    def _prepare(self, step: Step, place: Path) -> None:
        """Take away everything an earlier attempt left, so that nothing of it can be taken for new."""
        for name in (f"{step.name}.done.json", step.output_name, "CRASH"):
            (place / name).unlink(missing_ok=True)
        if step.program is Program.PH:
            for name in ("tmp", "elph_dir"):
                shutil.rmtree(place / name, ignore_errors=True)
            for file in place.glob(f"{PREFIX}.dyn*"):
                file.unlink()
            shutil.copytree(self.folder / "scf" / "tmp", place / "tmp")
        elif step.name in ("relax", "spin", "dense"):
            shutil.rmtree(place / "tmp", ignore_errors=True)
            # The scf of the coarse grid lies in what has just gone.
            (place / "scf.done.json").unlink(missing_ok=True)
        elif step.name == "a2f":
            for file in place.glob("a2F.dos*"):
                file.unlink()

    def _is_done(self, plan: Plan, step: Step) -> bool:
        return self._recorded(plan, step) and check_step(plan, step, self.folder, again=True) is None

    def _recorded(self, plan: Plan, step: Step) -> bool:
        """Whether the step has a record, with the hash of this plan."""
        record = self.folder / step.folder / f"{step.name}.done.json"
        try:
            stored = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(stored, dict) and stored.get("sha256") == plan.hashes()[step.name]


def step_state(
    folder: Path,
    programs: Programs,
    pseudos: dict[str, Pseudopotential],
    floor_MB: float,
    look_s: float,
    plan: Plan,
    step: Step,
) -> StepState:
    """Do one step in a worker of an engine; it does no harm to do it twice."""
    if not (folder / "plan.json").is_file():
        words = f"{folder} is not on {socket.gethostname()}: all workers must see the folder of the run"
        return StepState(step.name, "failed", Failure(Reason.FILE, words))
    runner = Runner(folder, programs, pseudos, floor_MB=floor_MB, look_s=look_s)
    if runner._is_done(plan, step):
        # By a worker that died before it could say so.
        return StepState(step.name, "kept")
    return runner._here(plan, step)


def relaxed_plan(plan: Plan, folder: Path, pseudos: dict[str, Pseudopotential]) -> Plan:
    """Plan of the relaxed cell: its own standardisation, grids and inputs, the same cut-offs."""
    from pymatgen.core import Structure

    found = parse_pw(read_output(folder, _named(plan, "relax")), relax=True)
    lattice = plan.cell.structure.lattice.matrix if found.lattice_A is None else found.lattice_A
    sites = found.positions or ()
    structure = Structure(lattice, [name for name, _ in sites], [at for _, at in sites])
    new = make_cell(structure, plan.tier, pseudos=pseudos, ecut_Ry=plan.cell.ecutwfc_Ry)
    cell = Cell(new.structure, plan.cell.masses, plan.cell.files, plan.cell.ecutwfc_Ry, plan.cell.ecutrho_Ry)
    return make_plan(cell, plan.tier, pseudos, relax=False, spin=any(s.name == "spin" for s in plan.steps))


def _named(plan: Plan, name: str) -> Step:
    return next(step for step in plan.steps if step.name == name)


def _words(error: OSError) -> str:
    """What the system said; copying a folder collects one error for every file of it, and the first is enough."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return f"{error.args[0][0][-1]}, and {len(error.args[0]) - 1} more files"
    return error.strerror or str(error)


def _unwritten(words: str, folder: Path) -> Failure:
    """A file that could not be written: a full disk where the system says so, else a damaged or forbidden one."""
    full = (
        any(sign in words.lower() for sign in ("no space left", "quota exceeded"))
        or free_MB(folder) < FULL_MB
    )
    return Failure(Reason.DISK_FULL if full else Reason.FILE, words)


def _version(place: Path, step: Step) -> str:
    """Version of the program, from the first lines of its output."""
    with suppress(OSError, IndexError):
        text = (place / step.output_name).read_text(encoding="latin-1")[:400]
        return text.split(" v.", 1)[1].split()[0]
    return ""


def _write_state(folder: Path, state: RunState) -> None:
    rows = [
        {
            "step": s.name,
            "state": s.state,
            "reason": "" if s.failure is None else str(s.failure.reason),
            "detail": "" if s.failure is None else s.failure.detail,
        }
        for s in state.steps
    ]
    content = {"status": state.status, "reason": state.reason, "detail": state.detail, "steps": rows}
    with atomic_text(folder / "state.json") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the kernel frees the lock when this one dies."""
    import fcntl

    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError("cannot-write", f"{folder}: {error.strerror or error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise DataError("in-use", f"another process runs in {folder}; wait for it or stop it") from None
    try:
        yield
    finally:
        os.close(handle)
