"""Worker processes of a run: one thread each, gone when the driver is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
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
