"""Shared data of the tests; tests that need it are skipped, by name, where it is absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    return SHARED
