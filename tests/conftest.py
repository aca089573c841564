"""Shared data of the tests; tests that need it are skipped, by name, where it is absent. Order of the files."""

import os
from collections import Counter
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    return SHARED


#: Files that take longest come first, so that processes that share out the files end together.
LONGEST = ["test_quantum_espresso.py", "test_discover.py", "test_engine_parsl.py", "test_engine_slurm.py"]


def pytest_configure(config):
    # Otherwise pytest-xdist sorts files by their number of tests: the longest have few, and would come last.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    place = {name: k - len(LONGEST) for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.name, 0), -slow[item.path]))
