"""The fast predictor beside the public pure-torch ALIGNN on the same crystals: speed on one core and memory.

    OMP_NUM_THREADS=1 pytest benchmarks/test_fast.py -o addopts=-q --benchmark-only --benchmark-timer=time.process_time

Crystals, batches and the way to the public code are those of test_graph.py; graph building is always included.
The memory test predicts a stream of ONNES_STREAM crystals (default 2,000) in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytest_benchmark")

from pymatgen.core import Lattice, Structure
from test_graph import COUNT, SHARED, crystals, predict, public, rows, timed

from onnes.graph.batch import build
from onnes.learn.fast import FastEpc
from onnes.nets import alignn

__all__ = ["crystals", "public", "rows"]  # fixtures

STREAM = int(os.environ.get("ONNES_STREAM", "2000"))
_CHILD = """
import gzip, itertools, json, re, sys, time
from pymatgen.core import Structure
import torch
from onnes.learn.fast import FastEpc
torch.set_num_threads(1)
count, path = int(sys.argv[1]), sys.argv[2]
with gzip.open(path, "rt") as handle:
    lines = list(itertools.islice(handle, 2000))
def stream():
    for line in itertools.islice(itertools.cycle(lines), count):
        row = json.loads(line)
        yield Structure(row["lattice"], row["species"], row["frac"])
def peak():
    # Not getrusage: its peak is inherited from the process that started this one.
    with open("/proc/self/status") as handle:
        return int(re.search(r"VmHWM:\\s+(\\d+)", handle.read())[1]) / 1024
model = FastEpc()
model.predict(itertools.islice(stream(), 64))
before = peak()
begun = time.process_time()
out = model.predict(stream())
spent = time.process_time() - begun
print(json.dumps({"n": len(out.tc_K), "before_MB": before, "peak_MB": peak(), "cpu_s": spent}))
"""


@pytest.fixture(scope="module")
def structures(crystals):
    return [Structure(Lattice(lattice), z.tolist(), frac) for z, lattice, frac in crystals]


@pytest.mark.parametrize("members", [1, 5])
def test_fast_predictor(benchmark, structures, members):
    model = FastEpc(members=members)
    out = timed(benchmark, lambda: model.predict(structures))
    assert len(out.tc_K) == COUNT


def test_graphs_of_the_fast_predictor(benchmark, structures):
    model = FastEpc(members=1)
    timed(benchmark, lambda: [model.prepare(s) for s in structures])


def test_paper_preset(benchmark, crystals):
    settings = alignn.PRESETS["paper"]
    model = alignn.Alignn(settings).eval()
    timed(benchmark, lambda: predict(model, [build(*c, settings.graph) for c in crystals]))


def test_public_alignn(benchmark, public):
    atoms, graph, network, batch = public

    def work():
        with torch.no_grad():
            pairs = [graph(a) for a in atoms]
            groups = [batch(pairs[k : k + 32]) for k in range(0, COUNT, 32)]
            return torch.cat([network((g, line, torch.eye(3)))["out"] for g, line in groups])

    assert torch.isfinite(timed(benchmark, work)).all()


def test_memory_of_a_stream(benchmark):
    path = SHARED / "data" / "alexandria_eph.jsonl.gz"
    if not Path("/proc/self/status").is_file():
        pytest.skip("reads the peak memory from /proc")
    if not path.is_file():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")

    def child(count):
        run = [sys.executable, "-c", _CHILD, str(count), str(path)]
        return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    long = benchmark.pedantic(lambda: child(STREAM), rounds=1)
    short = child(max(STREAM // 8, 64))
    benchmark.extra_info |= {"long": long, "short": short}
    # A stream eight times as long adds its results (9 numbers a crystal), not its graphs.
    assert long["peak_MB"] < short["peak_MB"] + 100
