"""What an engine costs: start-up, seconds a task that does nothing, end. ``python benchmarks/engine_overhead.py``."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from onnes.campaign.engine import open_engine
from onnes.campaign.settings import EnginePart
from onnes.parallel import completed


def measure(kind: str, workers: int, tasks: int, folder: Path) -> dict[str, float | str | int]:
    """Times of one engine; the second thousand is counted, when all workers are up."""
    began = time.perf_counter()
    with open_engine(EnginePart(kind=kind), workers, folder, None, lambda entry: None) as engine:
        next(completed(engine, abs, [-1]))
        first = time.perf_counter()
        for _ in completed(engine, abs, range(tasks)):
            pass
        again = time.perf_counter()
        for _ in completed(engine, abs, range(tasks)):
            pass
        ended = time.perf_counter()
    closed = time.perf_counter()
    return {
        "kind": kind,
        "workers": workers,
        "first_result_s": round(first - began, 2),
        "tasks": tasks,
        "ms_a_task": round(1e3 * (ended - again) / tasks, 2),
        "tasks_a_second": round(tasks / (ended - again)),
        "close_s": round(closed - ended, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for _ in range(args.repeats):
        for kind in ("local", "parsl"):
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(measure(kind, args.workers, args.tasks, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
