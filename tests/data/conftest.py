"""Shared data and a local web server for the tests of data sets."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    return SHARED / "data"


@pytest.fixture
def site(monkeypatch):
    """Start a server for a `Site`; retries do not wait."""
    import web

    monkeypatch.setattr("onnes.data.fetch.PAUSE_S", 0.0)
    with ExitStack() as stack:

        def start(*args, **options):
            return stack.enter_context(web.serving(web.Site(*args, **options)))

        yield start
