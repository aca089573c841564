"""Worker processes: one thread each, gone when the process that started them is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any


class Workers:
    """A pool of processes that starts on first use.

    Parameters
    ----------
    count : int
        Processes; 1 computes in the driver itself.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker."""
        if self._pool is not None:
            return self._pool.submit(function, *args)
        with _ctrl_c_later():
            # spawn: a forked copy of a process that has used torch or sqlite can hang or corrupt.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=context, initializer=_start, initargs=(os.getpid(),)
            )
            # The first task starts the processes.
            return self._pool.submit(function, *args)

    def restart(self) -> None:
        """Replace the pool after one of its processes died."""
        self.close()

    def close(self, *, kill: bool = True) -> None:
        """Stop the processes: at once, or (kill=False) when they have finished what they do."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        # Futures are never cancelled here: the pool's own thread fails with InvalidStateError when it finds a dead
        # process beside a cancelled future.
        if kill:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        # Joins the processes and the pool's own thread, which frees its semaphores.
        pool.shutdown(wait=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


#: Inputs taken ahead of the first one unfinished, for each process: an endless stream is never read to its end.
AHEAD = 32


def each(
    function: Callable[[Any], Any], items: Iterable[Any], count: int, died: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """Apply a function to every item, several at a time, each process on its own.

    A pool of one process for each of `count`: a process that dies takes only the item it worked on with it, and a new
    one takes its place.

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
    with ExitStack() as stack:
        idle = [stack.enter_context(Workers(1)) for _ in range(count)]
        running: dict[Future[Any], tuple[int, Any, Workers]] = {}
        more = True
        while more or running:
            while more and idle and _near(running, count):
                pair = next(places, None)
                if pair is None:
                    more = False
                    break
                worker = idle.pop(0)
                running[worker.submit(function, pair[1])] = (*pair, worker)
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, item, worker = running.pop(future)
                idle.append(worker)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    worker.restart()
                    result = died(item)
                yield place, result


def _near(running: dict[Future[Any], tuple[int, Any, Workers]], count: int) -> bool:
    """Whether the slowest item is not too far behind for another one to be started."""
    places = [place for place, _, _ in running.values()]
    return not places or max(places) - min(places) < AHEAD * count


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold Ctrl-C back: a process whose start is interrupted halfway dies with a traceback of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _start(driver: int) -> None:
    """Set up a worker: no extra threads, Ctrl-C left to the driver, an end when the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(driver,), daemon=True).start()
    single_thread()


def _watch(driver: int) -> None:
    # A pool's process holds both ends of its queue, so the death of the driver (kill -9) would go unnoticed.
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)


def single_thread() -> None:
    """Keep numerical libraries of this process to one thread: workers share the cores, results stay equal."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # A torch that is loaded already reads them no more; one that is loaded later does, and may never be needed.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
