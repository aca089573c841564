"""What the spectral network is trained on."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def _rows(name: str) -> list[dict]:
    with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
        return [json.loads(line) for line in handle]


def spectra() -> list[dict]:
    """JARVIS curves of stable crystals, the clean ones first."""
    rows = [r for r in _rows("jarvis_a2f") if r["stability"] == "stable"]
    return sorted(rows, key=lambda r: not r["clean"])


def alexandria() -> list[dict]:
    """Crystals with lambda, omega_log and Tc only."""
    return [r for r in _rows("alexandria_eph") if r["lambda"] > 0 and r["omega_log_K"] > 0]
