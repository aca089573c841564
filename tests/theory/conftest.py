"""Spectra of the shared data."""

import json

import pytest


@pytest.fixture(scope="session")
def curves(shared):
    """Name -> (manifest entry, Spectrum) of the 24 single-material curves."""
    from onnes.theory.spectral import Spectrum

    entries = json.loads((shared / "data" / "a2f" / "manifest.json").read_text())["curves"]
    return {
        entry["name"]: (entry, Spectrum.from_file(shared / "data" / entry["file"], "meV"))
        for entry in entries
    }
