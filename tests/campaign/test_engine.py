"""The seam to who computes: settings, records, leftovers, and Parsl's failures without Parsl's processes."""

from __future__ import annotations

import os
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
from onnes.campaign.engine import check_engine, open_engine
from onnes.campaign.engine_leftovers import VARIABLE, end_leftovers, processes_of
from onnes.campaign.engine_parsl import FRUITLESS, ParslEngine, machine
from onnes.campaign.settings import EnginePart, Settings
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


def test_a_missing_parsl_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    check_engine(EnginePart(kind="local"))
    with pytest.raises(SettingsError) as error:
        check_engine(EnginePart(kind="parsl"))
    assert error.value.code == "no-parsl" and 'pip install "onnes[cluster]"' in str(error.value)


def test_a_missing_slurm_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"sbatch.*no-slurm"):
        check_engine(EnginePart(kind="slurm"))


def test_a_folder_that_a_shell_would_split_is_refused(tmp_path):
    part = EnginePart(kind="parsl", folder=str(tmp_path / "my run"))
    with (
        pytest.raises(SettingsError, match=r"engine\.folder"),
        open_engine(part, 2, tmp_path, None, lambda entry: None),
    ):
        pass


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

    def __init__(self, folder: Path, failures: list[Exception], retries: int = 2) -> None:
        self.notes: list[dict] = []
        self.launches = 0
        self.failures = failures
        super().__init__(machine(2), folder, retries, self.notes.append)
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


def test_blocks_that_end_without_a_result_end_the_run(tmp_path):
    from parsl.jobs.states import JobState

    engine = Faked(tmp_path, [])
    engine.submit(twice, 1).result()
    gate = threading.Event()
    engine._executor.pool.submit(gate.wait)
    engine.submit(twice, 2)
    idle = {str(k): ended(JobState.SCALED_IN) for k in range(9)}
    engine._blocks(engine._executor, idle)
    engine.look()
    engine._blocks(engine._executor, {str(k): ended(JobState.COMPLETED) for k in range(FRUITLESS)})
    with pytest.raises(EngineError, match=r"no such partition.*no-workers"):
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
