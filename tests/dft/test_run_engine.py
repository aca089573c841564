"""A run on an engine: the same files, whoever is killed, and no program on the driver's machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run import ALL, Desk, _alive, _until

from onnes.dft import run as run_module
from onnes.dft.failures import Reason
from onnes.dft.programs import find_programs
from onnes.dft.run import Runner
from onnes.errors import DataError
from onnes.parallel import Workers

sys.path.insert(0, str(Path(__file__).parents[1] / "campaign"))
from slurm_node import Node, missing

Q = ["q001", "q002", "q003"]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def results(folder: Path) -> dict[str, bytes]:
    """What a run is for, and the records of its steps."""
    files = [*folder.glob("q*/*.dyn*"), *folder.glob("bands/a2F.dos*"), *folder.glob("*/*.done.json")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


@pytest.mark.slow
def test_a_run_on_an_engine_leaves_the_files_of_a_run_without_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Desk(tmp_path / "a"), Desk(tmp_path / "b")
    assert one.run().status == "done"

    def forbidden(*args, **options):
        raise AssertionError("a program was started by the driver")

    # Workers import the module anew.
    monkeypatch.setattr(run_module, "execute", forbidden)
    with Workers(2) as engine:
        state = two.run(engine=engine)
        assert state.status == "done" and {s.name for s in state.steps} == set(ALL)
        assert sorted(two.called) == sorted(ALL)
        assert results(two.folder) == results(one.folder) and len(results(one.folder)) > 10
        assert two.run(engine=engine).status == "done" and two.called == []
    assert not list(two.folder.rglob("tmp"))


class Dying(Workers):
    """Loses the worker of a step as often as it is told, after the program has started."""

    def __init__(self, deaths: int, step: str = "q002") -> None:
        super().__init__(2, retries=1)
        self.deaths, self.step, self.asked = deaths, step, 0

    def submit(self, function, *args):
        self.asked += 1
        if self.deaths and args[0].name == self.step:
            self.deaths -= 1
            return super().submit(half_of, function, *args)
        return super().submit(function, *args)


def half_of(function, step) -> None:
    """Leave what a killed attempt leaves: its folder half-filled."""
    place = Path(function.args[0]) / step.folder
    (place / "elph_dir").mkdir(parents=True, exist_ok=True)
    (place / "elph_dir" / "elph.inp_lambda.2").write_text("half of a file")
    (place / step.output_name).write_text("half of an output")
    (place / "CRASH").write_text("of the attempt that was cut")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", ["dense", "q002"])
def test_a_step_whose_worker_died_is_done_again_from_scratch(tmp_path, step):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Desk(tmp_path / "a"), Desk(tmp_path / "b")
    one.run()
    with Dying(1, step) as engine:
        assert two.run(engine=engine).status == "done"
    assert engine.asked == len(ALL) + 1
    assert results(two.folder) == results(one.folder)


#: A driver in a process of its own; its worker imports the file anew.
DRIVER = """import sys
sys.path.insert(0, {here!r})
from pathlib import Path
if __name__ == "__main__":
    import test_run
    from onnes.parallel import Workers
    with Workers(1) as engine:
        test_run.Desk(Path({place!r}), again=True).run(engine=engine)
"""


def test_killed_driver_takes_worker_and_program_along_and_only_the_cut_scf_is_redone(desk, tmp_path):
    desk.fault(dense="hang")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(Path(__file__).parent), place=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, str(script)])
    assert _until(lambda: (desk.place / "HANGING").exists() or driver.poll() is not None, 120)
    time.sleep(0.2)
    program = int((desk.place / "HANGING").read_text())
    driver.kill()
    driver.wait()
    assert _until(lambda: not _alive(program), 60), "the program outlived its driver"
    assert desk.run().status == "done" and desk.called == ALL[1:]


def test_a_q_that_kills_its_workers_is_named_and_the_others_are_kept(desk):
    with Dying(9) as engine:
        state = desk.run(engine=engine)
    assert (state.status, state.reason) == ("failed", str(Reason.KILLED))
    assert {s.name for s in state.steps if s.state == "done"} >= {"q001", "q003"}
    assert desk.run().status == "done" and desk.called == ["q002", "q2r", "bands", "a2f"]


def test_after_a_full_disk_no_further_q_starts(desk, monkeypatch):
    full = "disk-full"

    class Full(Workers):
        def submit(self, function, *args):
            if args[0].name not in Q:
                return super().submit(function, *args)
            return super().submit(refused, function, *args)

    with Full(1) as engine:
        state = desk.run(engine=engine)
    assert (state.status, state.reason) == ("failed", full)
    assert [(s.name, s.state) for s in state.steps if s.name in Q] == [
        ("q001", "failed"), ("q002", "not-run"), ("q003", "not-run")
    ]  # fmt: skip


def refused(function, step):
    from onnes.dft.failures import Failure
    from onnes.dft.run import StepState

    return StepState(step.name, "failed", Failure(Reason.DISK_FULL, "no room"))


def test_a_scf_that_kills_its_workers_is_named_and_nothing_starts_from_it(desk):
    with Dying(9, "scf") as engine:
        state = desk.run(engine=engine)
    assert (state.status, state.reason) == ("failed", str(Reason.KILLED))
    assert desk.called == ["relax", "dense"]
    assert desk.run().status == "done" and desk.called[0] == "scf"


def said_done(function, step):
    from onnes.dft.run import StepState

    return StepState(step.name, "done")


def test_what_a_worker_says_is_not_believed_without_its_files(desk, monkeypatch):
    monkeypatch.setattr(run_module, "SEEN_S", 0.2)

    class Elsewhere(Workers):
        def submit(self, function, *args):
            return super().submit(said_done, function, *args)

    with Elsewhere(1) as engine:
        state = desk.run(engine=engine)
    assert (state.status, state.reason) == ("failed", str(Reason.FILE)) and "not seen here" in state.detail


def test_a_worker_that_does_not_see_the_folder_says_so(desk, tmp_path):
    plan = desk.plan()
    state = run_module.step_state(
        tmp_path / "none", find_programs(desk.place), {}, 1.0, 0.1, plan, plan.steps[0]
    )
    assert state.failure.reason is Reason.FILE and socket.gethostname() in state.failure.detail
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    bool(missing()),
    reason=f"no Slurm here ({missing()}): apt-get install --no-install-recommends slurm-wlm munge",
)
def test_a_whole_run_in_a_pilot_job_of_slurm_with_several_processes_of_pw(desk, tmp_path, monkeypatch):
    pytest.importorskip("parsl", reason="needs Parsl: pip install 'onnes[cluster]'")
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    from onnes.campaign.engine import open_engine
    from onnes.campaign.settings import EnginePart

    monkeypatch.setattr(run_module, "execute", None)
    part = EnginePart(
        kind="slurm", partition="main", cores_per_node=2, walltime="00:10:00", address="127.0.0.1", retries=0
    )
    with Node(tmp_path / "slurm") as node:
        for key in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(key, node.environment[key])
        programs = find_programs(desk.place, 2)
        runner = Runner(desk.folder, programs, desk.pseudos, floor_MB=1.0, look_s=0.05)
        with open_engine(part, 1, tmp_path, None, lambda entry: None) as engine:
            runner.engine = engine
            state = runner.run(desk.plan())
    assert (state.status, state.detail) == ("done", "")
    assert sorted(desk.called) == sorted(ALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_parsl_through_the_settings_of_verify(desk, tmp_path):
    pytest.importorskip("parsl", reason="needs Parsl: pip install 'onnes[cluster]'")
    from onnes.cli.verify_run import Wishes, _engine
    from onnes.dft.run import only_one

    (tmp_path / "e.toml").write_text('[engine]\nkind = "parsl"\nworkers = 2\n')
    wishes = Wishes(None, None, True, False, None, None, 1, 1.0, 0.1, None, tmp_path / "e.toml")
    with _engine(wishes, desk.folder) as engine:
        assert desk.run(engine=engine).status == "done"
        record = json.loads((desk.folder / "engine.json").read_text())
        assert record["kind"] == "parsl" and record["token"]
    assert "token" not in json.loads((desk.folder / "engine.json").read_text())
    assert sorted(desk.called) == sorted(ALL)
    # A folder in use keeps its engine: whoever comes second does not end it.
    with only_one(desk.folder), pytest.raises(DataError, match="in-use"), _engine(wishes, desk.folder):
        pass
