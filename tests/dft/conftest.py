"""The faulty web server of the data tests serves here as well; caches are kept out of the user's home."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ONNES_CACHE", str(folder))
    return folder


def pytest_configure(config):
    config.addinivalue_line("markers", "qe: runs Quantum ESPRESSO; skipped where it is not installed")
