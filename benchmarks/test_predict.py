"""Peak memory and speed of predicting a stream of crystals, in a process of its own.

    OMP_NUM_THREADS=1 ONNES_BENCH_N=10000 pytest benchmarks/test_predict.py -o addopts=-q --benchmark-disable -s

The file is a ``.jsonl.gz`` of ONNES_BENCH_N crystals (default 300) made from the Alexandria set of the shared data,
repeated under new ids when it is too short. The process reads, predicts and writes as ``onnes predict`` does: a
batch of crystals at a time, rows straight to the csv. Memory is ``ru_maxrss`` of that process, and beside it the
same after the first batch: what is left grows with the file. The command line is measured with every model.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[2] / "shared"))
COUNT = int(os.environ.get("ONNES_BENCH_N", "300"))

#: Python's own share (imports, weights) is in the first figure; a second batch must not cost what the first did.
STREAM = """
import json, resource, sys, time
from itertools import islice
from pathlib import Path
import numpy as np
from onnes.crystal.read import Crystal, read
from onnes.data.files import atomic_text
from onnes.learn.fallback import TreesEpc

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

source, out, batch = sys.argv[1], Path(sys.argv[2]), 256
model, stream = TreesEpc(), read([source])
first, count, begun = None, 0, time.process_time()
with atomic_text(out) as handle:
    while items := list(islice(stream, batch)):
        good = [item for item in items if isinstance(item, Crystal)]
        found = model.predict([item.structure for item in good])
        for item, lam, tc in zip(good, found.lam, found.tc_K, strict=True):
            handle.write(f"{item.id},{lam:.6g},{tc:.6g}\\n")
        count += len(good)
        first = first or peak()
took = time.process_time() - begun
print(json.dumps({"n": count, "first_MB": first, "peak_MB": peak(), "per_s": count / took}))
"""


@pytest.fixture(scope="module")
def crystals(tmp_path_factory) -> Path:
    path = SHARED / "data" / "alexandria_eph.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    with gzip.open(path, "rt") as handle:
        rows = [json.loads(line) for line in islice(handle, COUNT)]
    target = tmp_path_factory.mktemp("stream") / "crystals.jsonl.gz"
    with gzip.open(target, "wt") as handle:
        for k, row in enumerate(islice(cycle(rows), COUNT)):
            kept = {name: row[name] for name in ("lattice", "species", "frac")}
            handle.write(json.dumps({"id": f"c{k}", **kept}) + "\n")
    return target


def told(command: list[str]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), done.stderr[-2000:]  # 1: some crystals were refused
    return done.stdout


def test_trees_on_a_stream(crystals, tmp_path):
    found = json.loads(told([sys.executable, "-c", STREAM, str(crystals), str(tmp_path / "out.csv")]))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == found["n"] > 0.99 * COUNT
    growth = found["peak_MB"] - found["first_MB"]
    print(
        f"\n{found['n']} crystals: peak {found['peak_MB']:.0f} MB ({growth:.0f} MB above the first batch of 256), "
        f"{found['per_s']:.0f} structures per CPU second"
    )
    # The text of the file is held while it is parsed: about a kilobyte a crystal, so 20 MB at 10,000.
    assert growth < 40.0 + 8.0 * COUNT / 1000


@pytest.mark.parametrize("model", ["trees", "fast", "standard"])
def test_command(crystals, tmp_path, model):
    """The same through ``onnes predict``, its whole process measured."""
    code = (
        "import resource, sys; from onnes.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code in (0, 1, None)\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)\n"
        "print('cpu', sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), file=sys.stderr)\n"
    )
    out = tmp_path / "out.csv"
    command = [sys.executable, "-c", code, "predict", str(crystals), "--model", model, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    words = dict(line.split(" ") for line in done.stderr.splitlines() if line.startswith(("peak ", "cpu ")))
    assert words, done.stderr[-2000:]
    assert len(out.read_text().splitlines()) == COUNT + 1
    peak, cpu = float(words["peak"]), float(words["cpu"])
    print(f"\nonnes predict --model {model}: peak {peak:.0f} MB, {COUNT / cpu:.0f} structures per CPU second")
    assert peak < 2000.0
