"""The step engine: faults in every step, kill -9 of program and driver, a full disk, restarts, cleaning."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from upf import folder_of

from onnes.dft import run as run_module
from onnes.dft.failures import Reason
from onnes.dft.plan import Program, make_cell, make_plan
from onnes.dft.programs import Programs, execute, find_programs
from onnes.dft.pseudopotentials import find
from onnes.dft.run import Runner
from onnes.dft.tiers import TIERS, TierName
from onnes.errors import DataError, InputError

HERE = Path(__file__).parent
ALL = ["relax", "dense", "scf", "q001", "q002", "q003", "q2r", "bands", "a2f"]
#: Settings of the captured run `al_222`.
TIER = dataclasses.replace(
    TIERS[TierName.QUICK],
    k_density_A=10.0,
    q_density_A=4.0,
    scf_threshold_Ry=1e-10,
    ph_threshold=1e-12,
    degauss_Ry=0.05,
)
#: A driver in a process of its own, to be killed.
DRIVER = """import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import test_run
test_run.Desk(Path({place!r}), again=True).run()
"""


class Desk:
    """Fake programs, a folder, and what was called."""

    def __init__(self, place: Path, *, again: bool = False) -> None:
        self.place, self.folder = place / "qe", place / "run"
        self.pseudos = find(folder_of(place / "pp", "Al"), ["Al"])
        if again:
            return
        self.place.mkdir()
        for program in Program:
            script = self.place / str(program)
            # Isolated and without site: Python then starts in a few hundredths of a second.
            line = f"exec '{sys.executable}' -I -S '{HERE / 'fake_qe.py'}' {program} \"$@\""
            script.write_text(f"#!/bin/sh\nexport FAKE_QE='{self.place}'\n{line}\n")
            script.chmod(0o755)

    def plan(self, tier=TIER, **options):
        structure = Structure(
            Lattice.cubic(3.97), ["Al"] * 4, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
        )
        cell = make_cell(structure, tier, pseudos=self.pseudos, ecut_Ry=15.0)
        return make_plan(cell, tier, self.pseudos, **options)

    def runner(self, **options):
        options = {"floor_MB": 1.0, "look_s": 0.05, **options}
        return Runner(self.folder, find_programs(self.place), self.pseudos, **options)

    def run(self, tier=TIER, *, spin=False, **options):
        (self.place / "CALLS").write_text("")
        return self.runner(**options).run(self.plan(tier, spin=spin))

    @property
    def called(self) -> list[str]:
        return (self.place / "CALLS").read_text().split()

    def fault(self, **steps: str) -> None:
        (self.place / "FAULT").write_text(json.dumps(steps))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_whole_run_then_nothing_to_do(desk):
    state = desk.run()
    assert (state.status, state.reason) == ("done", "") and desk.called == ALL
    assert state.plan.cell.structure.volume == pytest.approx(15.3153, rel=1e-4)  # the relaxed cell
    assert not list(desk.folder.rglob("tmp"))  # wave functions are gone
    again = desk.run()
    assert again.status == "done" and desk.called == []
    assert {s.name for s in again.steps} == set(ALL) - {"dense", "scf"}
    assert json.loads((desk.folder / "state.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("step", "fault", "reason"),
    [(name, "kill", Reason.KILLED) for name in ALL]
    + [(name, "truncated", Reason.TRUNCATED) for name in ("dense", "q003", "a2f")],
)
def test_a_cut_step_is_named_and_alone_done_again(desk, step, fault, reason):
    desk.fault(**{step: fault})
    state = desk.run()
    assert (state.status, state.reason) == ("failed", str(reason))
    done = {s.name for s in state.steps if s.state == "done"}
    again = desk.run()
    assert again.status == "done"
    expected = [name for name in ALL if name not in done]
    assert desk.called == expected and desk.called[0] == step


@pytest.mark.parametrize(
    ("step", "fault", "reason"),
    [
        ("dense", "not converged", Reason.SCF_NOT_CONVERGED),
        ("scf", "not converged", Reason.SCF_NOT_CONVERGED),
        ("q002", "not converged", Reason.PH_NOT_CONVERGED),
        ("dense", "empty files", Reason.FILE),  # what a full disk leaves behind exit code 0 and JOB DONE
        ("scf", "empty files", Reason.FILE),
        ("scf", "crash", Reason.S_MATRIX),
        ("q003", "no files", Reason.TRUNCATED),
        ("q2r", "no files", Reason.NOTHING),
        ("a2f", "no files", Reason.NOTHING),
    ],
)
def test_failures_behind_job_done(desk, step, fault, reason):
    desk.fault(**{step: fault})
    state = desk.run()
    assert (state.status, state.reason) == ("failed", str(reason))
    failed = next(s for s in state.steps if s.state == "failed")
    assert failed.name == step
    # Scratch of a q serves no restart; that of the scf does.
    assert not list(desk.folder.glob("q*/tmp"))
    assert desk.run().status == "done"


def test_no_phonon_starts_from_an_unconverged_scf(desk):
    desk.fault(scf="not converged")
    desk.run()
    assert desk.called == ["relax", "dense", "scf"]


def test_exit_code_decides_nothing(desk):
    desk.fault(scf="odd exit code", q001="odd exit code")
    assert desk.run().status == "done"


def test_insulator_stops_at_the_dense_grid(desk):
    desk.fault(dense="insulator")
    state = desk.run()
    assert (state.status, state.reason) == ("insulator", "insulator") and "0.62 eV" in state.detail
    assert desk.called == ["relax", "dense"]
    assert not list(desk.folder.rglob("wfc*.dat")) and not (desk.folder / "relax" / "tmp").exists()
    assert desk.run().status == "insulator" and desk.called == []


@pytest.fixture
def magnetic_aluminium(monkeypatch):
    """The fake programs know aluminium only: let it be an element that is looked at."""
    monkeypatch.setattr("onnes.dft.inputs.MAGNETIC", frozenset({"Al"}))


def test_moment_ends_the_run_before_the_coupling(desk, magnetic_aluminium):
    state = desk.run(spin=True)
    # The captured scf of nickel: 0.67 Bohr magnetons.
    assert (state.status, state.reason) == ("magnetic", "magnetic") and "0.67" in state.detail
    assert desk.called == ["relax", "spin"] and not (desk.folder / "spin" / "tmp").exists()
    assert desk.run(spin=True).status == "magnetic" and desk.called == []


def test_without_a_moment_the_run_goes_on_and_other_steps_are_shared(desk, magnetic_aluminium):
    desk.fault(spin="no moment")
    assert desk.run(spin=True).status == "done" and desk.called == ["relax", "spin", *ALL[1:]]
    assert desk.run().status == "done" and desk.called == []


@pytest.mark.parametrize(("fault", "reason"), [("kill", "killed"), ("not converged", "scf-not-converged")])
def test_spin_polarised_scf_that_failed_is_done_again(desk, magnetic_aluminium, fault, reason):
    desk.fault(spin=fault)
    assert desk.run(spin=True).reason == reason and desk.called == ["relax", "spin"]
    desk.fault(spin="no moment")
    assert desk.run(spin=True).status == "done" and desk.called[0] == "spin"


def test_elements_without_magnetism_are_not_looked_at(desk):
    assert [s.name for s in desk.plan(spin=True).steps] == [s.name for s in desk.plan().steps]


@pytest.mark.parametrize("workers", [1, 3])
def test_other_q_go_on_when_one_fails(desk, workers):
    desk.fault(q002="kill")
    state = desk.run(workers=workers)
    assert state.reason == "killed" and {s.name for s in state.steps if s.state == "done"} >= {"q001", "q003"}
    assert desk.run(workers=workers).status == "done"
    assert desk.called == ["q002", "q2r", "bands", "a2f"]


def test_killed_driver_takes_its_program_along_and_only_the_cut_q_is_redone(desk, tmp_path):
    desk.fault(q002="hang")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(HERE), place=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 120
    while not (desk.place / "HANGING").exists():
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.05)
    with pytest.raises(DataError, match="in-use"):
        desk.runner().run(desk.plan())
    time.sleep(0.2)
    program = int((desk.place / "HANGING").read_text())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    while _alive(program):
        assert time.monotonic() < deadline, "the program outlived its driver"
        time.sleep(0.05)
    assert desk.run().status == "done"
    assert desk.called == ["q002", "q003", "q2r", "bands", "a2f"]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_full_disk_before_and_during_a_step(desk, monkeypatch):
    desk.fault(q001="hang")
    free = {"MB": 1e6}
    monkeypatch.setattr(
        "onnes.dft.programs.free_MB",
        lambda folder: free["MB"] if not (desk.place / "HANGING").exists() else 3.0,
    )
    state = desk.run(floor_MB=10.0)
    assert (state.status, state.reason) == ("failed", "disk-full")
    assert "q002" not in desk.called and not (desk.folder / "q001" / "tmp").exists()
    monkeypatch.setattr(run_module, "free_MB", lambda folder: 3.0)
    assert desk.run(floor_MB=10.0).reason == "disk-full" and desk.called == []
    monkeypatch.undo()
    assert desk.run().status == "done" and desk.called[0] == "q001"


def test_full_disk_is_named_where_only_short_files_show_it(desk, monkeypatch):
    desk.fault(scf="empty files")
    monkeypatch.setattr(run_module, "free_MB", lambda folder: 0.2)
    state = desk.run(floor_MB=0.0)
    assert state.reason == "disk-full" and "wfc1.dat has 0 of" in state.detail
    monkeypatch.undo()
    assert desk.run().status == "done" and desk.called[0] == "scf"


@pytest.mark.parametrize(("function", "step"), [("copyfile", "dense"), ("copytree", "q001")])
def test_disk_that_is_full_for_the_driver_itself(desk, monkeypatch, function, step):
    def full(*args, **options):
        if function == "copytree":
            # One entry for every file, as a real full disk gave for 83 of them.
            words = "[Errno 28] No space left on device: 'a' -> 'b'"
            raise shutil.Error([(f"wfc{n}.dat", f"wfc{n}.dat", words) for n in range(83)])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"onnes.dft.run.shutil.{function}", full)
    state = desk.run()
    assert len(state.detail) < 200
    assert state.reason == "disk-full" and "No space left" in state.detail and step in state.detail
    monkeypatch.undo()
    assert desk.run().status == "done" and desk.called[0] == step


def test_other_settings_redo_what_depends_on_them(desk):
    desk.run()
    assert desk.run(tier=dataclasses.replace(TIER, ph_threshold=1e-13)).status == "done"
    assert desk.called == ["dense", "scf", "q001", "q002", "q003", "q2r", "bands", "a2f"]
    desk.run(tier=dataclasses.replace(TIER, ph_threshold=1e-13))
    assert desk.called == []


@pytest.mark.parametrize(
    ("file", "redone"),
    [
        ("bands/a2F.dos4", ["a2f"]),
        ("bands/onnes.freq.gp", ["bands"]),
        ("q003/onnes.dyn3", ["dense", "scf", "q003"]),
        ("q001/elph_dir/elph.inp_lambda.1", ["dense", "scf", "q001"]),
        ("q002/ph.out", ["dense", "scf", "q002"]),
        ("relax/relax.out", ["relax"]),
    ],
)
def test_a_finished_step_whose_file_was_damaged_is_done_again(desk, file, redone):
    desk.run()
    damaged = desk.folder / file
    damaged.write_text(damaged.read_text()[: damaged.stat().st_size // 2])
    assert desk.run().status == "done" and desk.called == redone


def test_record_without_its_output_proves_nothing(desk):
    desk.run()
    for name in ("q001/ph.out", "bands/a2f.out"):
        (desk.folder / name).unlink()
    (desk.folder / "bands" / "bands.done.json").write_text("{not json")
    assert desk.run().status == "done"
    assert desk.called == ["dense", "scf", "q001", "bands", "a2f"]


def test_missing_programs_are_named(tmp_path):
    with pytest.raises(InputError) as error:
        find_programs(tmp_path)
    assert error.value.code == "no-qe" and "pw.x" in str(error.value) and "--dry-run" in str(error.value)


def test_processes_of_pw_get_pools(desk):
    plan = desk.plan()
    paths = {p: f"/opt/{p}" for p in Program}
    line = Programs(paths, 4).command(plan.steps[0])
    assert line[:3] == ["setpriv", "--pdeathsig", "TERM"] or not shutil.which("setpriv")
    assert "mpirun" in line and line[line.index("-nk") + 1] == "4"
    assert Programs(paths, 4).command(plan.steps[3]) == ["/opt/ph.x", "-in", "ph.in"]
    assert ("--allow-run-as-root" in line) == (os.geteuid() == 0)


@pytest.mark.parametrize("tasks", ["1", "2"])
def test_a_job_of_one_task_has_room_for_several_processes(tmp_path, monkeypatch, tasks):
    for key, value in (("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", tasks), ("PMI_RANK", "0")):
        monkeypatch.setenv(key, value)
    execute(["env"], tmp_path, tmp_path / "out", floor_MB=0.0, look_s=0.05, processes=2)
    said = (tmp_path / "out").read_text()
    assert ("SLURM_JOB_ID" in said, "PMI_RANK" in said) == (tasks == "2", tasks == "2")
    assert "OMP_NUM_THREADS=1" in said


def test_a_folder_that_may_not_be_written_is_not_called_a_full_disk(desk, monkeypatch):
    def forbidden(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("onnes.dft.run.shutil.copyfile", forbidden)
    state = desk.run()
    assert (state.status, state.reason) == ("failed", str(Reason.FILE)) and "Permission" in state.detail


def test_program_is_ended_when_the_run_stops(tmp_path):
    code, failure = execute(
        ["sleep", "30"], tmp_path, tmp_path / "out", floor_MB=0.0, stopped=lambda: True, look_s=0.05
    )
    assert failure.reason is Reason.STOPPED and code == -signal.SIGTERM


def test_a_program_that_ignores_the_request_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("onnes.dft.programs.PATIENCE_S", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w'); time.sleep(60)"
    code, _ = execute(
        [sys.executable, "-c", deaf],
        tmp_path,
        tmp_path / "out",
        floor_MB=0.0,
        stopped=(tmp_path / "deaf").exists,
        look_s=0.05,
    )
    assert code == -signal.SIGKILL


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_no_rank_outlives_the_run(tmp_path, how):
    seconds = f"{60 + os.getpid() / 1e7:.7f}"
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    command = ["mpirun", *root, "--oversubscribe", "-n", "2", "sleep", seconds]
    command = [*(["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []), *command]
    code = (
        "from pathlib import Path; from onnes.dft.programs import execute; "
        f"execute({command!r}, Path(), Path('out'), floor_MB=0.0, stopped=Path('stop').exists, look_s=0.1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    assert _until(lambda: len(_sleeping(seconds)) == 2, 120)
    if how == "stopped":
        (tmp_path / "stop").touch()
    else:
        parent.kill()
    parent.wait(60)
    assert _until(lambda: not _sleeping(seconds), 20), "ranks run on"


def _sleeping(seconds: str) -> list[str]:
    wanted = f"sleep\0{seconds}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes() == wanted:
                found.append(folder.name)
        except OSError:
            continue
    return found


def _until(true, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true())
