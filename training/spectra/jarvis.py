"""JARVIS spectra through our solver: python training/spectra/jarvis.py --out docs/figures.

Compares lambda and omega_log of the curves with the stored ones and draws the ratio of the Eliashberg Tc to
Allen-Dynes for all stable spectra.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from onnes.errors import OnnesError
from onnes.theory.eliashberg import Eliashberg
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import tc

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def spectra():
    with gzip.open(SHARED / "data" / "jarvis_a2f.jsonl.gz", "rt") as handle:
        for line in handle:
            row = json.loads(line)
            if row["stability"] != "stable":
                continue
            try:
                yield row, Spectrum.from_arrays(row["omega_meV"], row["alpha2F"], "meV", source=row["id"])
            except OnnesError as error:
                yield row, error


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    refused, lam, log, points = {}, [], [], []
    for row, s in spectra():
        if isinstance(s, OnnesError):
            refused[s.code] = refused.get(s.code, 0) + 1
            continue
        if s.lam <= 0:
            refused["no-coupling"] = refused.get("no-coupling", 0) + 1
            continue
        lam.append((s.lam, row["lambda"]))
        log.append((s.omega_log_K, row["omega_log_K"]))
        closed, full = tc(s).tc_K, Eliashberg(s).tc()
        points.append((s.lam, closed, full))
    lam, log, points = map(np.array, (lam, log, points))
    both = points[points[:, 1] > 0.1]
    ratio = both[:, 2] / both[:, 1]
    facts = {
        "stable spectra": len(lam) + sum(refused.values()),
        "refused": refused,
        "lambda within 10 %": round(float((np.abs(lam[:, 0] / lam[:, 1] - 1) < 0.1).mean()), 3),
        "lambda median ratio": round(float(np.median(lam[:, 0] / lam[:, 1])), 3),
        "omega_log within 10 %": round(float((np.abs(log[:, 0] / log[:, 1] - 1) < 0.1).mean()), 3),
        "omega_log median ratio": round(float(np.median(log[:, 0] / log[:, 1])), 3),
        "Eliashberg/Allen-Dynes, Tc > 0.1 K": {
            "n": len(ratio),
            "quartiles": np.quantile(ratio, [0.25, 0.5, 0.75]).round(3).tolist(),
            "5-95 %": np.quantile(ratio, [0.05, 0.95]).round(3).tolist(),
        },
    }
    print(json.dumps(facts, indent=1))
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    colour = axes.scatter(both[:, 0], ratio, c=np.log10(both[:, 1]), s=14, cmap="viridis")
    axes.axhline(1.0, color="#8a919b", linewidth=0.8)
    axes.set_xlabel("λ")
    axes.set_ylabel("T$_c$ (Eliashberg) / T$_c$ (Allen-Dynes)")
    axes.set_ylim(0.9, min(3.0, ratio.max() * 1.03))
    bar = figure.colorbar(colour)
    bar.set_label("log$_{10}$ T$_c$ (Allen-Dynes) / K")
    axes.spines[["top", "right"]].set_visible(False)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "jarvis_eliashberg_ratio.png", dpi=130)


if __name__ == "__main__":
    main()
