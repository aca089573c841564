"""Shared data of the theory tests; tests that need it are skipped, by name, where it is absent."""

import json
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"shared data not found at {SHARED}; set ONNES_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def curves(shared):
    """Name -> (manifest entry, Spectrum) of the 24 single-material curves."""
    from onnes.theory.spectral import Spectrum

    entries = json.loads((shared / "data" / "a2f" / "manifest.json").read_text())["curves"]
    return {
        entry["name"]: (entry, Spectrum.from_file(shared / "data" / entry["file"], "meV"))
        for entry in entries
    }
