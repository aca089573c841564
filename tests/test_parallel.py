"""The pool of worker processes: Ctrl-C while it starts, and processes that die."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from onnes.parallel import Workers, _ctrl_c_later, each


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal has it; a shell starts background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_end_of_the_start_and_is_not_lost():
    done = []
    with pytest.raises(KeyboardInterrupt), _ctrl_c_later():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("start completed")
    assert done == ["start completed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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


def test_killing_a_pool_that_is_starting_leaves_nothing_behind(capfd):
    with Workers(2) as workers:
        futures = [workers.submit(os.getpid) for _ in range(20)]
        processes = list((workers._pool._processes or {}).values())
    assert len(processes) == 2 and not any(p.is_alive() for p in processes)
    assert all(f.done() for f in futures)
    assert "Traceback" not in capfd.readouterr().err


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
