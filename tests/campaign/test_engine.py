"""The seam to who computes: settings, records, leftovers, and Parsl's failures without Parsl's processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnes.campaign import engine as engine_module
from onnes.campaign.discover import discover
from onnes.campaign.engine import check_engine, open_engine
from onnes.campaign.engine_leftovers import VARIABLE, end_leftovers, processes_of
from onnes.campaign.engine_parsl import FRUITLESS, ParslEngine, Shape, machine, slurm
from onnes.campaign.settings import EnginePart, Settings
from onnes.cli.verify_run import Wishes, _engine
from onnes.errors import SettingsError
from onnes.parallel import EngineError, WorkerDiedError, Workers, completed, started


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "pbs"}, ["engine.kind", '"pbs"', "'local', 'parsl' or 'slurm'"]),
        ({"retries": -1}, ["engine.retries", "-1", "greater than or equal to 0"]),
        ({"workers": 2.0}, ["engine.workers", "2.0", "integer"]),
        ({"walltime": "5h"}, ["engine.walltime", '"5h"', "hours:minutes:seconds"]),
        ({"walltime": "1:99:00"}, ["engine.walltime", "hours:minutes:seconds"]),
        ({"partition": "a\n#SBATCH --x"}, ["engine.partition", "one word"]),
        ({"options": ["qos"]}, ["engine.options", '"qos"', "--"]),
        ({"cores": 3}, ["engine.cores", "no such setting", "cores_per_node"]),
    ],
)
def test_bad_settings_name_key_value_and_what_is_allowed(table, words):
    with pytest.raises(SettingsError) as error:
        Settings.from_dict({"engine": table})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_settings_survive_their_file_and_the_folder_is_meant_beside_it(tmp_path):
    given = {"kind": "slurm", "options": ["--qos=short"], "worker_init": 'a "b"\nc', "folder": "scratch"}
    path = tmp_path / "c.toml"
    path.write_text(Settings.from_dict({"engine": given}).to_toml())
    found = Settings.from_toml(path).engine
    assert found.folder == str(tmp_path / "scratch")
    assert found.model_copy(update={"folder": "scratch"}) == EnginePart(**given)


def test_run_workers_is_still_the_number_of_local_processes(tmp_path):
    for part, count in ((EnginePart(), 3), (EnginePart(workers=2, retries=5), 2)):
        with open_engine(part, 3, tmp_path, None, lambda entry: None) as engine:
            assert isinstance(engine, Workers)
            assert (engine.count, engine.retries) == (count, part.retries)


def test_a_missing_parsl_is_one_line_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    check_engine(EnginePart(kind="local"), tmp_path)
    with pytest.raises(SettingsError) as error:
        check_engine(EnginePart(kind="parsl"), tmp_path)
    assert error.value.code == "no-parsl" and 'pip install "onnes[cluster]"' in str(error.value)


def test_a_missing_slurm_is_named(monkeypatch, tmp_path):
    pytest.importorskip("parsl", reason="needs Parsl: pip install 'onnes[cluster]'")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"sbatch.*no-slurm"):
        check_engine(EnginePart(kind="slurm"), tmp_path)


def test_a_folder_that_a_shell_would_split_is_refused(tmp_path):
    part = EnginePart(kind="parsl", folder=str(tmp_path / "my run"))
    with (
        pytest.raises(SettingsError, match=r"engine\.folder"),
        open_engine(part, 2, tmp_path, None, lambda entry: None),
    ):
        pass


def test_such_a_folder_of_the_run_is_named_as_the_user_gave_it_and_nothing_is_made(tmp_path):
    out = tmp_path / "my run"
    # Twice: the first attempt must not leave a ledger behind.
    for _ in range(2):
        with pytest.raises(SettingsError) as error:
            discover({"engine": {"kind": "parsl"}}, out)
        assert error.value.code == "bad-setting"
        assert f'--out "{out}"' in str(error.value) and "engine.folder =" not in str(error.value)
    assert not out.exists()


def wishes(path: Path) -> Wishes:
    return Wishes(None, None, True, False, None, None, 1, 1.0, 0.1, None, path)


def test_verify_refuses_a_file_without_a_table_of_the_engine(tmp_path):
    path = tmp_path / "engine.toml"
    path.write_text('kind = "slurm"\n')
    with pytest.raises(SettingsError, match=r"engine\.toml.*no-engine-table"):
        wishes(path).check()
    with (
        pytest.raises(SettingsError, match="no-engine-table"),
        _engine(wishes(path), tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()
    path.write_text("[engine]\nworkers = 3\n")
    wishes(path).check()
    with _engine(wishes(path), tmp_path / "run") as engine:
        assert isinstance(engine, Workers) and engine.count == 3


# -- what was left behind --------------------------------------------------------------------------------------------


@pytest.fixture
def leftover():
    """A process with a token, and one without."""
    marked = subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: "t-1"})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: "t-12"})
    yield marked, other
    for process in (marked, other):
        process.kill()
        process.wait()


def test_leftovers_are_found_by_their_token_alone(leftover):
    marked, other = leftover
    assert processes_of("t-1") == [marked.pid]
    assert end_leftovers({"kind": "parsl", "token": "t-1", "host": "elsewhere"}) == 0
    assert end_leftovers({"kind": "parsl"}) == end_leftovers(None) == 0
    assert marked.poll() is None
    assert end_leftovers({"kind": "parsl", "token": "t-1", "host": socket.gethostname()}) == 1
    assert marked.wait(10) == -signal.SIGKILL and other.poll() is None


def test_opening_an_engine_ends_what_the_last_one_left_and_says_so(leftover, tmp_path):
    notes = []
    held = {"kind": "parsl", "token": "t-1", "host": socket.gethostname()}
    with open_engine(EnginePart(), 1, tmp_path, held, notes.append):
        assert leftover[0].wait(10) == -signal.SIGKILL
    assert notes == [{"kind": "parsl", "host": socket.gethostname()}]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Programs of Slurm that read a file of jobs, and fail as often as `failures` says."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    fails = '[ "$(cat {0}.failures)" -gt 0 ] && {{ echo $(($(cat {0}.failures) - 1)) > {0}.failures; {1}; }}'
    refuse = 'echo "{0}: error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    texts = {
        "squeue": "cat jobs",
        # As Slurm does for a number that it has forgotten; the others are cancelled all the same.
        "scancel": (
            'rc=0; for j in "$@"; do echo $j >> cancelled; '
            'grep -q "^$j " jobs || { echo "scancel: error: Kill job error on job id $j: Invalid job id '
            'specified" >&2; rc=1; }; grep -v "^$j " jobs > left; mv left jobs; done; exit $rc'
        ),
    }
    for name, text in texts.items():
        (folder / f"{name}.failures").write_text("0")
        script = f"#!/bin/sh\ncd {folder}\n{fails.format(name, refuse.format(name))}\n{text}\n"
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (folder / "jobs").write_text("7 parsl.onnes-t-3.block-1\n8 parsl.onnes-t-31.block-0\n")
    (folder / "cancelled").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert shutil.which("squeue") == str(folder / "squeue")
    return folder


HELD = {"kind": "slurm", "token": "t-3", "host": "elsewhere", "jobs": ["6", "7"]}


def test_jobs_are_found_by_their_name(queue):
    assert end_leftovers(HELD) == 1
    assert (queue / "cancelled").read_text().split() == ["7"]


def test_jobs_on_record_are_cancelled_where_squeue_fails(queue, tmp_path):
    (queue / "squeue.failures").write_text("2")
    notes = []
    with open_engine(EnginePart(), 1, tmp_path, HELD, notes.append):
        # Job 6 had ended long ago, which is no failure.
        assert (queue / "cancelled").read_text().split() == ["6", "7"]
        assert (queue / "squeue.failures").read_text().strip() == "0"  # It was waited for.
    assert notes == [{"kind": "slurm", "host": "elsewhere"}]


@pytest.mark.parametrize("recorded", [["6", "7"], []])
def test_the_record_is_kept_where_jobs_can_be_neither_listed_nor_cancelled(queue, tmp_path, recorded):
    for name in ("squeue", "scancel"):
        (queue / f"{name}.failures").write_text("99")
    notes = []
    with (
        pytest.raises(EngineError, match=r"squeue fails.*leftover-jobs"),
        open_engine(EnginePart(), 1, tmp_path, {**HELD, "jobs": recorded}, notes.append),
    ):
        pass
    assert notes == [] and (queue / "cancelled").read_text() == ""


def test_an_engine_that_cannot_end_its_jobs_leaves_its_token_on_record(queue, tmp_path):
    engine = Faked(tmp_path, [], shape=slurm(EnginePart(kind="slurm")))
    assert engine.submit(twice, 1).result() == 2
    for name in ("squeue", "scancel"):
        (queue / f"{name}.failures").write_text("99")
    engine.close()
    assert engine.notes[-1]["token"]


def test_sigterm_closes_the_engine(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, open_engine(EnginePart(), 2, tmp_path, None, print) as engine:
        engine.submit(time.sleep, 60)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert engine.pids() == []


def test_an_engine_opens_in_a_thread_too(tmp_path):
    done = []

    def run() -> None:
        with open_engine(EnginePart(), 1, tmp_path, None, print) as engine:
            done.append(engine.count)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [1]


# -- Parsl's failures ------------------------------------------------------------------------------------------------


def lost() -> Exception:
    from parsl.executors.high_throughput.errors import WorkerLost

    return WorkerLost(3, "node")


class Threads:
    """Stands for the HighThroughputExecutor: runs tasks in a thread, fails as it is told."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.pool = ThreadPoolExecutor(1)
        self.blocks_to_job_id = {"0": "4711"}
        self.interchange_proc = SimpleNamespace(pid=1, poll=lambda: None)
        self.status_facade: dict = {}

    def submit(self, function, resources, *args):
        if self.failures:
            future: Future = Future()
            future.set_exception(self.failures.pop(0))
            return future
        return self.pool.submit(function, *args)

    def set_bad_state_and_fail_all(self, error):
        pass


class Faked(ParslEngine):
    """A ParslEngine whose launch starts no process."""

    def __init__(
        self, folder: Path, failures: list[Exception], retries: int = 2, shape: Shape | None = None
    ) -> None:
        self.notes: list[dict] = []
        self.launches = 0
        self.failures = failures
        super().__init__(shape or machine(2), folder, retries, self.notes.append)
        # The tasks run in this process: it must not end itself.
        self._driver = None

    def _launch(self, token: str) -> None:
        self.launches += 1
        self._executor = Threads(self.failures)
        self._kernel = SimpleNamespace(cleanup=lambda: None)


def twice(x: int) -> int:
    return 2 * x


def test_a_lost_worker_means_another_attempt_and_records_are_kept(tmp_path):
    engine = Faked(tmp_path, [lost(), lost(), lost()])
    assert engine.notes == []
    assert sorted(completed(engine, twice, [1, 2])) == [(1, 2), (2, 4)]
    first, *_, last = engine.notes
    assert first["token"] and first["jobs"] == [] and "interchange" not in first
    assert last == {**first, "interchange": 1, "jobs": ["4711"]}
    engine.close()
    assert engine.notes[-1] == {"kind": "parsl", "host": socket.gethostname()}
    assert engine.peak_worker_MB > 10


def test_attempts_are_counted_by_us(tmp_path):
    engine = Faked(tmp_path, [lost(), lost(), lost()], retries=2)
    ((task, answer),) = completed(engine, twice, [1])
    assert task == 1 and isinstance(answer, WorkerDiedError) and answer.code == "worker-died"
    assert engine._executor.failures == []


def test_workers_without_onnes_end_the_run_with_a_hint(tmp_path):
    engine = Faked(tmp_path, [ImportError("No module named 'onnes'")])
    with pytest.raises(EngineError, match=r"engine\.worker_init.*worker-import"):
        list(completed(engine, twice, [1]))


def test_another_version_of_onnes_on_the_workers_ends_the_run(tmp_path, monkeypatch):
    engine = Faked(tmp_path, [])
    # Packed by a driver of another version than the one that answers.
    monkeypatch.setattr(
        "onnes.campaign.engine_parsl.pack", lambda function, args: other_version(function, args)
    )
    with pytest.raises(EngineError, match=r"0\.0\.1.*other-version"):
        list(completed(engine, twice, [1]))


def other_version(function, args) -> bytes:
    import pickle

    return pickle.dumps(("0.0.1", [], pickle.dumps((function, args))))


def test_a_dead_interchange_means_a_new_engine_and_nothing_is_lost(tmp_path):
    engine = Faked(tmp_path, [])
    done = []
    for task, answer in completed(engine, twice, range(100)):
        done.append((task, answer))
        if len(done) == 3:
            engine._executor.interchange_proc = SimpleNamespace(pid=1, poll=lambda: -9)
    assert sorted(done) == [(k, 2 * k) for k in range(100)]
    assert engine.launches == 2 and len({n.get("token") for n in engine.notes}) == 2


def ended(state) -> SimpleNamespace:
    return SimpleNamespace(state=state, terminal=True, stderr_summary="no such partition", message=None)


@pytest.mark.parametrize("jobs", [1, 8])
def test_blocks_that_end_without_a_result_end_the_run(tmp_path, jobs):
    from parsl.jobs.states import JobState

    engine = Faked(tmp_path, [], shape=slurm(EnginePart(kind="slurm", jobs=jobs, cores_per_node=2)))
    engine.submit(twice, 1).result()
    gate = threading.Event()
    engine._executor.pool.submit(gate.wait)
    engine.submit(twice, 2)
    idle = {str(k): ended(JobState.SCALED_IN) for k in range(9)}
    engine._blocks(engine._executor, idle)
    engine.look()
    # All that started together reach their walltime together, and some of those that follow are preempted.
    blocks = {str(k): ended(JobState.TIMEOUT) for k in range(jobs + FRUITLESS - 2)}
    engine._blocks(engine._executor, idle | {f"1{k}": b for k, b in blocks.items()})
    engine.look()
    blocks["99"] = ended(JobState.FAILED)
    engine._blocks(engine._executor, blocks)
    with pytest.raises(EngineError, match=rf"{jobs + FRUITLESS - 1} blocks.*no such partition.*no-workers"):
        engine.look()
    gate.set()
    engine.close()


def test_eight_pilot_jobs_reach_their_walltime_and_the_run_goes_on(tmp_path):
    from parsl.jobs.states import JobState

    engine = Faked(tmp_path, [], shape=slurm(EnginePart(kind="slurm", jobs=8)))
    gate = threading.Event()
    for generation in range(1, 4):
        assert engine.submit(twice, 1).result() == 2
        engine._executor.pool.submit(gate.wait)
        engine.submit(twice, 2)
        engine._executor.status_facade = {str(k): ended(JobState.TIMEOUT) for k in range(8 * generation)}
        engine._blocks(engine._executor, engine._executor.status_facade)
        engine.look()
        gate.set()
    engine.close()


def test_what_parsl_needs_is_not_loaded_for_local_processes():
    code = "import sys, onnes.campaign.discover, onnes.campaign.engine; print('parsl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_process_that_is_gone_has_no_start():
    process = subprocess.Popen(["true"])
    process.wait()
    assert started(process.pid) is None and started(os.getpid()) == started(os.getpid()) > 0
