"""Histograms of the training crystals that a report draws behind a run's own.

python training/report/distributions.py [--out src/onnes/pretrained/training_distributions.json]

Crystals: all Alexandria electron-phonon rows and the dynamically stable JARVIS-SC rows (those of the public
616-crystal set that are not set aside), the rows the predictor and the generator learned from. Tc of every
crystal is at mu* = 0.10 by Allen-Dynes: Alexandria's own column is that already; JARVIS' column is not, so it
is computed here from lambda and omega_log with the omega_2/omega_log ratio of the predictor's card.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from onnes.crystal.geometry import geometry
from onnes.data.files import atomic_text
from onnes.theory.tc import tc_array

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ONNES_SHARED", ROOT.parent / "shared"))
PRETRAINED = ROOT / "src" / "onnes" / "pretrained"
MU_STAR = 0.10
#: Width of a bin: fine enough that the report can merge bins to suit a run.
WIDTHS = {"tc_K": 0.5, "density_g_cm3": 0.25, "packing_fraction": 0.02}


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)


def measure(row: dict[str, Any], tc_K: float) -> dict[str, float]:
    found = geometry(Structure(Lattice(row["lattice"]), row["species"], row["frac"]))
    return {
        "tc_K": tc_K,
        "density_g_cm3": float(found["density_g_cm3"]),
        "packing_fraction": float(found["packing_fraction"]),
    }


def jarvis_tc(row: dict[str, Any], ratio: float) -> float:
    lam, omega = float(row["lambda"]), float(row["omega_log_K"])
    return float(tc_array(lam, omega, ratio * omega, mu_star=MU_STAR, formula="allen-dynes"))


def histogram(values: np.ndarray, width: float) -> dict[str, Any]:
    """Counts on a grid that starts at 0 and holds every value."""
    n_bins = int(np.floor(values.max() / width)) + 1
    edges = np.round(width * np.arange(n_bins + 1), 10)
    counts = np.histogram(values, edges)[0]
    if counts.sum() != len(values):
        raise SystemExit("a value lies outside the bins")
    return {"edges": edges.tolist(), "counts": counts.tolist(), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=PRETRAINED / "training_distributions.json")
    args = parser.parse_args()
    card = json.loads((PRETRAINED / "epc.card.json").read_text(encoding="utf-8"))
    ratio = float(card["cross_validation"]["omega_2/omega_log"])
    alexandria = [measure(r, max(float(r["Tc_K"]), 0.0)) for r in rows("alexandria_eph")]
    stable = (r for r in rows("jarvis_supercon") if r["split_616"] is not None)
    jarvis = [measure(r, jarvis_tc(r, ratio)) for r in stable]
    every = alexandria + jarvis
    table: dict[str, Any] = {
        key: histogram(np.array([m[key] for m in every]), width) for key, width in WIDTHS.items()
    }
    table["source"] = (
        f"{len(alexandria)} crystals of Alexandria (electron-phonon set) and {len(jarvis)} dynamically stable "
        f"ones of JARVIS-SC; Tc by Allen-Dynes at mu* = {MU_STAR:.2f}. Computed by training/report/distributions.py."
    )
    with atomic_text(args.out) as handle:
        handle.write(json.dumps(table) + "\n")
    print(args.out.name, {k: v["n"] for k, v in table.items() if k != "source"})


if __name__ == "__main__":
    main()
