"""Reading a run of 10,000 candidates: the aim is 5 s for ``onnes campaign status`` and for ``onnes report``.

    OMP_NUM_THREADS=1 pytest benchmarks/test_ledger.py --benchmark-enable

Times are those of the process, so that a busy machine counts less; both commands run in a fresh interpreter, imports
included.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from synthetic_ledger import make

from onnes.campaign.ledger import Ledger

N = 10_000


def child_cpu() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def run(tmp_path_factory, request):
    # Where nothing is timed, a tenth shows that it works.
    timed = request.config.getoption("--benchmark-enable")
    return make(tmp_path_factory.mktemp("ledger") / "run", N if timed else N // 10)


@pytest.mark.parametrize("command", [("campaign", "status"), ("report",)], ids=" ".join)
@pytest.mark.benchmark(timer=child_cpu)
def test_command(run, benchmark, command):
    call = [sys.executable, "-m", "onnes.cli.main", *command, str(run)]
    benchmark.extra_info["candidates"] = N
    done = benchmark.pedantic(
        subprocess.run,
        (call,),
        {"capture_output": True, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}},
        rounds=2,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("read_only", [True, False], ids=["reader", "driver"])
def test_open(run, benchmark, read_only):
    benchmark(lambda: Ledger.open(run, read_only=read_only).close())


def test_read(run, benchmark):
    def read():
        with Ledger.open(run, read_only=True) as ledger:
            return len(ledger.verdicts()), len(ledger.candidates())

    verdicts, candidates = benchmark.pedantic(read, rounds=2)
    assert verdicts > 4 * candidates
