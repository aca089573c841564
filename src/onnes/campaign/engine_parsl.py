"""The engine on Parsl: its HighThroughputExecutor runs the tasks, on this machine or in pilot jobs of Slurm.

Parsl only executes. Its retries and its memory of results stay off, and an exception of its own means that the
machine failed. What it leaves alive when a driver or a worker is killed is dealt with here: the interchange dies with
the driver, workers end with a driver of their machine, and every process and job carries a token by which the next
driver finds it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import socket
import sysconfig
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from onnes.campaign.engine_leftovers import VARIABLE, end_leftovers
from onnes.campaign.settings import EnginePart
from onnes.parallel import EngineError, WorkerDiedError, call, pack, settle, started

#: Blocks of workers that may end one after the other without a single result before the engine gives up. Those that
#: run at the same time may also end at the same time (walltime, preemption), and count as one.
FRUITLESS = 4
#: Set in a worker before anything is imported.
THREADS = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"


@dataclass(frozen=True)
class Shape:
    """What one block of workers is and where it runs.

    Attributes
    ----------
    kind : str
        ``parsl`` or ``slurm``, for the record.
    count : int
        Processes of all blocks.
    per_block : int
        Processes of one block.
    provider : callable
        Makes the Parsl provider, given the shell commands to run first.
    address : str or None
        Where workers find the driver; None tries all addresses of this machine.
    here : bool
        Whether workers run on the driver's machine, and can see it die.
    heartbeat_s, lost_s : int
        Period of the heartbeat, and the silence after which the other side counts as lost.
    """

    kind: str
    count: int
    per_block: int
    provider: Callable[[str], Any]
    address: str | None
    here: bool
    heartbeat_s: int = 5
    lost_s: int = 30


def machine(workers: int) -> Shape:
    """Worker processes on this machine."""

    def provider(init: str) -> Any:
        from parsl.providers import LocalProvider

        class Local(LocalProvider):
            status_polling_interval = 1

        return Local(init_blocks=1, min_blocks=1, max_blocks=1, worker_init=init)

    return Shape("parsl", workers, workers, provider, "127.0.0.1", here=True)


def slurm(part: EnginePart) -> Shape:
    """Pilot jobs of Slurm, one node each, started as they are needed."""

    def provider(init: str) -> Any:
        from parsl.providers import SlurmProvider

        class Slurm(SlurmProvider):
            # Lost jobs are noticed at this pace; Parsl's own is a minute.
            status_polling_interval = 10

        return Slurm(
            partition=part.partition or None,
            account=part.account or None,
            cores_per_node=part.cores_per_node,
            mem_per_node=part.memory_GB or None,
            init_blocks=1,
            min_blocks=0,
            max_blocks=part.jobs,
            walltime=part.walltime,
            scheduler_options="\n".join(f"#SBATCH {line}" for line in part.options),
            worker_init=f"{part.worker_init}\n{init}",
            exclusive=False,
            cmd_timeout=60,
        )

    count = part.jobs * part.cores_per_node
    return Shape("slurm", count, part.cores_per_node, provider, part.address or None, here=False, lost_s=60)


class ParslEngine:
    """Tasks on a HighThroughputExecutor that starts with the first of them.

    Parameters
    ----------
    shape : Shape
    folder : Path
        For certificates, scripts and logs; every worker must see it.
    retries : int
    note : callable
        Gets the record of what is running; see `onnes.campaign.engine`.
    """

    remote = True

    def __init__(
        self, shape: Shape, folder: Path, retries: int, note: Callable[[dict[str, Any]], None]
    ) -> None:
        self.shape, self.folder, self.retries = shape, folder, retries
        self.count = shape.count
        self.peak_worker_MB = 0.0
        self._note = note
        self._record: dict[str, Any] = {}
        self._kernel: Any = None
        self._executor: Any = None
        self._open: set[Future[Any]] = set()
        self._lock = Lock()
        self._ended_before, self._fruitless = 0, ""
        ticks = started(os.getpid()) if shape.here else None
        self._driver = None if ticks is None else (os.getpid(), ticks)

    # -- work --------------------------------------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker.

        Raises
        ------
        EngineError
            ``no-engine``: it cannot be started.
        """
        blob = pack(function, args)
        self.look()
        if self._kernel is None:
            self._start()
        ours: Future[Any] = Future()
        with self._lock:
            self._open.add(ours)
        try:
            theirs = self._executor.submit(call, {}, blob, self._driver)
        except Exception as error:
            self._fail(WorkerDiedError("worker-died", f"the engine takes no more work: {error}"))
            return ours
        theirs.add_done_callback(lambda done: self._arrived(ours, done))
        return ours

    def _arrived(self, ours: Future[Any], theirs: Future[Any]) -> None:
        with self._lock:
            if ours not in self._open:
                return  # Given up meanwhile.
            self._open.discard(ours)
        answer: Any = theirs.exception()
        if answer is None:
            self._ended_before = self._ended()
            answer = theirs.result()
        else:
            answer = _meaning(answer)
        self.peak_worker_MB = max(self.peak_worker_MB, settle(ours, answer))

    def look(self) -> None:
        """Put new jobs on record, and notice an interchange that is gone and jobs that end without a result.

        Raises
        ------
        EngineError
            ``no-workers``.
        """
        if self._kernel is None:
            return
        jobs = sorted(map(str, self._executor.blocks_to_job_id.values()))
        if jobs != self._record.get("jobs"):
            self._write(jobs=jobs)
        if self._fruitless:
            raise EngineError("no-workers", self._fruitless)
        if self._executor.interchange_proc.poll() is not None:
            # Nothing can reach the workers any more; a new engine starts with the next task.
            lost = WorkerDiedError("worker-died", "the interchange of the engine was killed")
            # Then Parsl does not ask it about the blocks to end; they are ended below.
            _quietly(lambda: self._executor.set_bad_state_and_fail_all(lost))
            self._stop()
            self._fail(lost)

    def _fail(self, error: EngineError) -> None:
        with self._lock:
            open_ones, self._open = self._open, set()
        for future in open_ones:
            future.set_exception(error)

    # -- start and end -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        token = secrets.token_hex(8)
        self._record = {}
        # Before anything runs: a driver killed in the middle of the start is cleared up after, too.
        self._write(kind=self.shape.kind, token=token, host=socket.gethostname(), jobs=[])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._launch(token)
        except EngineError:
            raise
        except Exception as error:
            self.close()
            raise EngineError("no-engine", f"Parsl cannot start: {type(error).__name__}: {error}") from error
        self._ended_before = 0
        self._write(interchange=self._executor.interchange_proc.pid)

    def _launch(self, token: str) -> None:
        # A library without a handler of its own would print its warnings on stderr.
        logging.getLogger("parsl").addHandler(logging.NullHandler())
        logging.getLogger("parsl").propagate = False
        from parsl import DataFlowKernel
        from parsl.config import Config

        shape = self.shape
        init = (
            f"export PATH={shlex.quote(_scripts())}:$PATH\n{THREADS}\nexport SPT_NOENV=1 {VARIABLE}={token}"
        )
        self._executor = _executor_class()(
            label=f"onnes-{token}",
            provider=shape.provider(init),
            interchange_launch_cmd=_interchange(token, self.folder / "interchange.log"),
            address=shape.address,
            max_workers_per_node=shape.per_block,
            # Parsl starts no more workers than there are cores; whoever asks for more gets them.
            cores_per_worker=min(1.0, (os.cpu_count() or 1) / shape.per_block) if shape.here else 1.0,
            heartbeat_period=shape.heartbeat_s,
            heartbeat_threshold=shape.lost_s,
            block_error_handler=self._blocks,
        )
        self._kernel = DataFlowKernel(
            Config(
                executors=[self._executor],
                run_dir=str(self.folder),
                retries=0,
                strategy="simple",
                strategy_period=1,
                initialize_logging=False,
            )
        )

    def _blocks(self, executor: Any, status: Mapping[str, Any]) -> None:
        """Watch the blocks (called by Parsl): one that ends is replaced, but not for ever."""
        ended = self._ended(status) - self._ended_before
        if self._open and ended >= self.shape.count // self.shape.per_block + FRUITLESS - 1:
            last = status[max(status, key=int)]
            words = " ".join(str(last.stderr_summary or last.message or "").split())[-300:]
            self._fruitless = (
                f"{ended} blocks of workers ended without a result; the last one: {words or last}"
            )

    def _ended(self, status: Mapping[str, Any] | None = None) -> int:
        from parsl.jobs.states import JobState

        found = self._executor.status_facade if status is None else status
        return sum(s.terminal and s.state is not JobState.SCALED_IN for s in found.values())

    def _stop(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            _quietly(kernel.cleanup)
        # Also the children of killed workers, and blocks that were being started.
        end_leftovers(self._record)

    def close(self, *, kill: bool = True) -> None:
        """Stop workers, jobs and interchange. Whoever waits for results closes after the last one."""
        if not self._record:
            return
        left = False
        try:
            self._stop()
        except EngineError as error:
            logging.getLogger(__name__).debug("closing: %s", error)
            left = True
        self._fail(WorkerDiedError("worker-died", "the engine was closed"))
        self._record = {}
        if not left:  # Else their token stays on record: the next driver ends them.
            self._note({"kind": self.shape.kind, "host": socket.gethostname()})

    def _write(self, **entries: Any) -> None:
        self._record.update(entries)
        self._note(dict(self._record))


def _executor_class() -> Any:
    """A HighThroughputExecutor that notices the death of its interchange, for whose answers it would wait for ever."""
    from parsl.executors import HighThroughputExecutor

    class Executor(HighThroughputExecutor):
        def _ask(self, question: Any) -> Any:
            if self.interchange_proc is None or self.interchange_proc.poll() is not None:
                raise EngineError("no-engine", "the interchange is gone")
            return self.command_client.run(question, timeout_s=60)

        def connected_managers(self) -> Any:
            return self._ask("MANAGERS")

        def connected_blocks(self) -> Any:
            return self._ask("CONNECTED_BLOCKS")

        def _hold_manager(self, manager_id: str) -> None:
            self._ask(["HOLD_MANAGER", manager_id])

    return Executor


def _meaning(error: BaseException) -> EngineError:
    """What an exception of Parsl's says: a worker was lost, or none of its workers can do our work."""
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    if isinstance(error, (WorkerLost, ManagerLost)):
        return WorkerDiedError("worker-died", "its process was killed, perhaps out of memory")
    if isinstance(error, ImportError):
        return EngineError(
            "worker-import", f"workers cannot import onnes: {error}; see engine.worker_init in the settings"
        )
    return WorkerDiedError("worker-died", f"{type(error).__name__}: {error}")


def _scripts() -> str:
    """Folder of the programs that came with Parsl."""
    folder = sysconfig.get_path("scripts")
    found = shutil.which("interchange.py", path=folder) or shutil.which("interchange.py")
    if found is None:
        raise EngineError("no-engine", f"interchange.py, a program of Parsl, is not in {folder}")
    return str(Path(found).parent)


def _interchange(token: str, log: Path) -> list[str]:
    """Command of the interchange: in a session of its own, dead with the driver, silent on its streams."""
    # Parsl gives it a title, which is written over its environment if that is not forbidden.
    line = ["env", "SPT_NOENV=1", f"{VARIABLE}={token}"]
    line += ["setsid"] if shutil.which("setsid") else []  # Ctrl-C is the driver's.
    # The kernel ends it with the thread that started it. Without this (macOS) it ends at the next start.
    line += ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    line.append(str(Path(_scripts()) / "interchange.py"))
    return ["sh", "-c", f"exec {shlex.join(line)} >>{shlex.quote(str(log))} 2>&1"]


def _quietly(function: Callable[[], None]) -> None:
    """Clean up as far as it goes; what is left is ended by its token."""
    try:
        function()
    except Exception as error:
        logging.getLogger(__name__).debug("cleaning up Parsl: %s", error)
