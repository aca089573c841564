"""Tasks on other processes: one seam between who has work and who computes it.

A task is a function with its arguments, both picklable, and may be done twice without harm. An engine runs it
somewhere and answers with its result, with the exception it raised, or with `WorkerDiedError` when the process that
ran it is gone. Who has work need not know what is behind: here the processes of this machine, in
`onnes.campaign.engine` a cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from onnes.errors import OnnesError

Task = TypeVar("Task")

#: Tasks under way at a time, for each process: enough to keep it busy, and a long list is never queued whole.
AHEAD = 32
#: Seconds between two looks of a waiting driver at its engine.
LOOK_S = 0.5


class EngineError(OnnesError):
    """No work can be done: workers cannot be had, or run other code than the driver."""


class WorkerDiedError(EngineError):
    """The process that ran a task is gone: a failure of the machine, which says nothing about the task."""


class Engine(Protocol):
    """Who computes.

    Attributes
    ----------
    count : int
        Processes it computes with, at most.
    remote : bool
        Whether it is worth sending work to; False: the driver computes itself.
    retries : int
        How often a task is tried again after the death of its worker.
    """

    count: int
    retries: int

    @property
    def remote(self) -> bool:
        """See above."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker; the future fails with `WorkerDiedError` when that worker dies."""

    def look(self) -> None:
        """Look after the workers; called now and then by a driver that waits."""

    def close(self, *, kill: bool = True) -> None:
        """Stop the workers: at once, or (kill=False) when they have finished what they do."""

    @property
    def peak_worker_MB(self) -> float:
        """Largest memory of a worker seen so far; 0 where the system counts it for the driver."""


class Workers:
    """Processes of this machine that start on first use; each dies alone and is replaced.

    Parameters
    ----------
    count : int
        Processes; with 1, a funnel computes in the driver itself.
    retries : int
        See `Engine`.
    """

    #: The system adds a finished child's memory to its parent's record (``RUSAGE_CHILDREN``).
    peak_worker_MB = 0.0

    def __init__(self, count: int = 1, retries: int = 2) -> None:
        self.count = count
        self.retries = retries
        self._tasks: queue.SimpleQueue[tuple[Future[Any], bytes] | None] = queue.SimpleQueue()
        self._lanes: list[_Lane] = []

    @property
    def remote(self) -> bool:
        """Whether there is more than one process."""
        return self.count > 1

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker."""
        future: Future[Any] = Future()
        self._tasks.put((future, pack(function, args)))
        if not self._lanes:
            self._lanes = [_Lane(self._tasks) for _ in range(self.count)]
            for lane in self._lanes:
                lane.start()
        return future

    def look(self) -> None:
        """Do nothing: every process has a thread that waits for it."""

    def close(self, *, kill: bool = True) -> None:
        """Stop the processes: at once, or (kill=False) when they have finished what they do."""
        lanes, self._lanes = self._lanes, []
        if kill:
            _cancel(self._tasks)
            for lane in lanes:
                lane.killed = True
        for _ in lanes:
            self._tasks.put(None)
        for lane in lanes:
            while lane.is_alive():
                if kill:
                    lane.kill()  # Again and again: it may have been about to start its process.
                lane.join(0.05 if kill else None)

    def pids(self) -> list[int]:
        """Return the ids of the processes that live."""
        found = [lane.process for lane in self._lanes]
        return [p.pid for p in found if p is not None and p.pid is not None and p.is_alive()]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Lane(threading.Thread):
    """One process and the thread that feeds it, so that a death is noticed at once and costs one task."""

    def __init__(self, tasks: queue.SimpleQueue[tuple[Future[Any], bytes] | None]) -> None:
        super().__init__(daemon=True)
        self.tasks = tasks
        self.process: Any = None
        self.killed = False
        self._pipe: Connection | None = None

    def run(self) -> None:
        # Ctrl-C is the driver's: a child inherits the mask, and is not interrupted halfway through its start.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while (entry := self.tasks.get()) is not None:
            future, blob = entry
            if future.set_running_or_notify_cancel():
                settle(future, self._ask(blob))
        if self._pipe is not None:
            self._pipe.close()
            self.process.join()

    def _ask(self, blob: bytes) -> bytes | OnnesError:
        try:
            if self._pipe is None:
                self._start()
            assert self._pipe is not None
            self._pipe.send_bytes(blob)
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None
                self.process.join()
            return WorkerDiedError("worker-died", "its process was killed, perhaps out of memory")
        except Exception as error:
            # Whoever waits is answered, whatever happens: a script that does its work at import, for one, is
            # imported by the worker, which then may not start workers of its own.
            return EngineError("no-worker", f"a worker cannot be started: {_words(error)}")

    def _start(self) -> None:
        if self.killed:
            raise EOFError
        # spawn: a forked copy of a process that has used torch or sqlite can hang or corrupt.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        self.process, self._pipe = process, ours

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


def _cancel(tasks: queue.SimpleQueue[tuple[Future[Any], bytes] | None]) -> None:
    with suppress(queue.Empty):
        while True:
            entry = tasks.get_nowait()
            if entry is not None:
                entry[0].cancel()


def completed(
    engine: Engine,
    function: Callable[[Task], Any],
    tasks: Iterable[Task],
    parts: Callable[[Task], Sequence[Task]] = lambda task: [task],
    *,
    ahead: int = AHEAD,
) -> Iterator[tuple[Task, Any]]:
    """Apply a function to many tasks on an engine, and again to those whose worker died.

    Parameters
    ----------
    engine : Engine
    function : callable
        Of one task. What it raises is raised here.
    tasks : iterable
        Taken as they are needed.
    parts : callable
        What to try instead of a task whose worker died: its parts one by one, so that only the culprit fails again.
    ahead : int
        Tasks under way at a time, for each process.

    Yields
    ------
    (task, object)
        A task, or a part of one, with its result as it arrives; the result is a `WorkerDiedError` after
        ``1 + engine.retries`` deaths.
    """
    todo = iter(tasks)
    arrived: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    waiting: dict[Future[Any], tuple[Task, int]] = {}

    def send(task: Task, attempt: int) -> None:
        future = engine.submit(function, task)
        waiting[future] = (task, attempt)
        future.add_done_callback(arrived.put)

    more = True
    while more or waiting:
        while more and len(waiting) < ahead * engine.count:
            try:
                send(next(todo), 1)
            except StopIteration:
                more = False
        if not waiting:
            continue
        engine.look()
        try:
            future = arrived.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        task, attempt = waiting.pop(future)
        try:
            result = future.result()
        except WorkerDiedError as died:
            if attempt <= engine.retries:
                for part in parts(task):
                    send(part, attempt + 1)
                continue
            result = died
        yield task, result


def each(
    function: Callable[[Any], Any], items: Iterable[Any], count: int, died: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """Apply a function to every item, several at a time, each process on its own.

    A process that dies takes only the item it worked on with it, and a new one takes its place.

    Parameters
    ----------
    function : callable
        Of one item; picklable, as are items and results. What it raises is raised here.
    items : iterable
    count : int
        Processes; 1 computes here, one after another.
    died : callable
        Result for an item whose process died.

    Yields
    ------
    (int, object)
        Place of the item (from 0) and its result, as they are finished.
    """
    places = enumerate(items)
    if count <= 1:
        for place, item in places:
            yield place, function(item)
        return
    with Workers(count) as workers:
        running: dict[Future[Any], tuple[int, Any]] = {}
        more = True
        while more or running:
            while more and len(running) < count and _near(running, count):
                pair = next(places, None)
                if pair is None:
                    more = False
                    break
                running[workers.submit(function, pair[1])] = pair
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, item = running.pop(future)
                try:
                    result = future.result()
                except WorkerDiedError:
                    result = died(item)
                yield place, result


def _near(running: dict[Future[Any], tuple[int, Any]], count: int) -> bool:
    """Whether the slowest item is not too far behind for another one to be started."""
    places = [place for place, _ in running.values()]
    return not places or max(places) - min(places) < AHEAD * count


def pack(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Write a task down for a worker: the code it expects, where it is imported from, function and arguments."""
    from onnes import __version__

    paths = [path or os.getcwd() for path in sys.path]
    return pickle.dumps((__version__, paths, pickle.dumps((function, args))))


def call(blob: bytes, driver: tuple[int, float] | None = None) -> bytes:
    """Do a task in a worker; the answer holds the result or what was raised, and this process's memory.

    Parameters
    ----------
    blob : bytes
        Of `pack`.
    driver : (int, float), optional
        Process id and start time of a driver on this machine, with which this process is to end.
    """
    from onnes import __version__

    single_thread()
    if driver is not None:
        _end_with(driver)
    try:
        version, paths, inner = pickle.loads(blob)
        if version != __version__:
            raise EngineError("other-version", f"workers have onnes {__version__}, the driver has {version}")
        sys.path.extend(path for path in paths if path not in sys.path)
        function, args = pickle.loads(inner)
    except Exception as error:
        unfit = error if isinstance(error, EngineError) else EngineError("worker-import", _words(error))
        return _answer(False, unfit)
    try:
        return _answer(True, function(*args))
    except Exception as error:
        return _answer(False, error)


def _answer(good: bool, value: Any) -> bytes:
    unit = 1 if sys.platform == "darwin" else 1024
    peak_MB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    try:
        return pickle.dumps((good, value, peak_MB))
    except Exception as error:
        return pickle.dumps((False, RuntimeError(f"{_words(error)}; of {_words(value)[:200]}"), peak_MB))


def _words(error: Any) -> str:
    return f"{type(error).__name__}: {error}"


def settle(future: Future[Any], answer: bytes | BaseException) -> float:
    """Give a future what a worker answered; returns the worker's memory, MB."""
    if isinstance(answer, BaseException):
        future.set_exception(answer)
        return 0.0
    try:
        good, value, peak_MB = pickle.loads(answer)
    except Exception as error:
        future.set_exception(RuntimeError(f"a result cannot be read: {_words(error)}"))
        return 0.0
    if good:
        future.set_result(value)
    else:
        future.set_exception(value)
    return float(peak_MB)


def _serve(pipe: Connection, driver: int) -> None:
    """Set up a worker (no extra threads, Ctrl-C left to the driver, an end when the driver ends) and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_watch, args=(lambda: os.getppid() == driver,), daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(call(pipe.recv_bytes()))


_watching: set[tuple[int, float]] = set()


def _end_with(driver: tuple[int, float]) -> None:
    """End this process with a driver that is not its parent."""
    if driver not in _watching:
        _watching.add(driver)
        alive = lambda: started(driver[0]) == driver[1]  # noqa: E731
        threading.Thread(target=_watch, args=(alive,), daemon=True).start()


def _watch(alive: Callable[[], bool]) -> None:
    # The death of a driver (kill -9) goes unnoticed in a long task.
    while alive():
        time.sleep(0.5)
    os._exit(1)


def started(pid: int) -> float | None:
    """When a process of this machine started, in ticks since boot; None when it is gone or a zombie (Linux)."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else float(fields[19])


def single_thread() -> None:
    """Keep numerical libraries of this process to one thread: workers share the cores, results stay equal."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # A torch that is loaded already reads them no more; one that is loaded later does, and may never be needed.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
