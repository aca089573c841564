"""Worker processes: what they are told, what they answer, and what happens when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from onnes.errors import CrystalError
from onnes.parallel import WorkerDiedError, Workers, completed, each, started


def threads() -> tuple[bool, int]:
    """Whether torch was there before it was asked for, and its threads."""
    before = "torch" in sys.modules
    import torch

    return before, torch.get_num_threads()


def test_a_worker_keeps_to_one_thread_and_loads_torch_when_it_is_needed(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    with Workers(1) as workers:
        assert workers.submit(threads).result() == (False, 1)


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 1.5])
def test_closing_while_processes_start_or_work_leaves_nothing_behind(capfd, wait_s):
    with Workers(2) as workers:
        futures = [workers.submit(nap, 30.0) for _ in range(20)]
        time.sleep(wait_s)
        pids = workers.pids()
    assert not any(alive(p) for p in pids)
    assert all(f.done() for f in futures)
    assert not multiprocessing.active_children()
    assert "Traceback" not in capfd.readouterr().err


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_closing_without_killing_finishes_what_was_asked():
    workers = Workers(2)
    futures = [workers.submit(nap, 0.01) for _ in range(5)]
    workers.close(kill=False)
    assert all(isinstance(f.result(), int) for f in futures)
    assert isinstance(workers.submit(nap, 0).result(), int)  # It starts anew when asked again.
    workers.close()


def test_a_closed_pool_that_never_started_is_harmless():
    workers = Workers(2)
    workers.close()
    workers.close(kill=False)


def twice_or_die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def lost(item: int) -> int:
    return -item


def refuses(item: int) -> int:
    raise ValueError(f"no {item}")


def test_a_process_that_dies_takes_only_its_item_with_it():
    found = dict(each(twice_or_die, range(8), 2, lost))
    assert found == {0: 0, 1: 2, 2: 4, 3: -3, 4: 8, 5: 10, 6: 12, 7: 14}


def test_one_process_is_this_one_and_keeps_the_order():
    assert list(each(twice_or_die, [5, 4], 1, lost)) == [(0, 10), (1, 8)]
    assert list(each(os.getpgid, [], 3, lost)) == []


def test_an_error_of_the_function_is_raised_here():
    with pytest.raises(ValueError, match="no 1"):
        list(each(refuses, [1], 2, lost))


def refuses_typed(item: int) -> int:
    raise CrystalError("no-good", f"item {item}")


def lies(item: int):
    return lambda: item


def test_answers_of_a_worker_are_results_typed_errors_or_what_cannot_be_sent():
    with Workers(1) as workers:
        with pytest.raises(CrystalError, match="no-good") as error:
            workers.submit(refuses_typed, 3).result()
        assert error.value.code == "no-good"
        with pytest.raises(RuntimeError, match="pickle"):
            workers.submit(lies, 3).result()
        assert workers.submit(twice_or_die, 4).result() == 8  # The same process goes on.
        with pytest.raises(WorkerDiedError):
            workers.submit(twice_or_die, 3).result()
        assert workers.submit(twice_or_die, 4).result() == 8


def die_once(task: tuple[str, int]) -> int:
    """Die the first time an item is seen; the file that says so is made by one process only."""
    folder, item = task
    try:
        os.close(os.open(f"{folder}/{item}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return item
    if item % 3 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_task_whose_worker_died_is_tried_again(tmp_path):
    with Workers(2, retries=1) as workers:
        found = {t[1]: r for t, r in completed(workers, die_once, [(str(tmp_path), k) for k in range(9)])}
    assert found == {k: k for k in range(9)}


def count_and_die(task: str) -> None:
    with open(task, "a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_task_that_kills_its_worker_is_given_up_after_its_retries(tmp_path, retries):
    with Workers(2, retries=retries) as workers:
        ((_, answer),) = completed(workers, count_and_die, [str(tmp_path / "log")])
    assert isinstance(answer, WorkerDiedError) and answer.code == "worker-died"
    assert (tmp_path / "log").read_text() == "x" * (1 + retries)


def sum_or_die(batch: list[int]) -> int:
    if 5 in batch:
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(batch)


def test_a_batch_whose_worker_died_is_repeated_in_parts_and_the_culprit_dies_alone():
    with Workers(2, retries=1) as workers:
        found = list(completed(workers, sum_or_die, [[1, 2], [4, 5, 6]], lambda b: [[x] for x in b]))
    good = sorted((b, r) for b, r in found if not isinstance(r, WorkerDiedError))
    assert good == [([1, 2], 3), ([4], 4), ([6], 6)]
    assert [b for b, r in found if isinstance(r, WorkerDiedError)] == [[5]]


def test_a_long_list_is_not_queued_whole():
    taken = []

    def tasks():
        for k in range(1000):
            taken.append(k)
            yield k

    with Workers(1) as workers:
        next(completed(workers, abs, tasks()))
        assert len(taken) <= 33


DRIVER = """
import sys, time
from onnes.parallel import Workers
if __name__ == "__main__":
    workers = Workers(2)
    futures = [workers.submit(time.sleep, 60) for _ in range(2)]
    while len(workers.pids()) < 2:
        time.sleep(0.01)
    print(*workers.pids(), flush=True)
    futures[0].result()
"""


def test_workers_end_with_a_killed_driver(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")], stdout=subprocess.PIPE, text=True
    )
    pids = [int(p) for p in driver.stdout.readline().split()]
    assert len(pids) == 2
    driver.kill()
    driver.communicate()
    end = time.monotonic() + 20
    while any(started(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(started(p) for p in pids)


UNGUARDED = """
from onnes.parallel import Workers, completed

print(list(completed(Workers(2, retries=0), abs, [-1])), flush=True)
"""


def test_a_script_without_a_guard_ends_and_says_why(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=200
    )
    assert "worker-died" in done.stdout and "__main__" in done.stderr
