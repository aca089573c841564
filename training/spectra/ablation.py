"""What each source of labels and each input buys: ablation.py --work DIR --out JSON.

One member (fold 0, replica 0, seed 1000) trained without one thing each time, scored on the crystals of fold 0 that all
of them could predict, in the convention of the crystals' own labels. 95 % intervals of the difference to the full one:
bootstrap over whole formulas, both models on the same draws.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from score import curve_moments, quantities

from data import SpectrumSettings, fold_of, load
from onnes.nets.spectrum import GRIDS

FULL = "cso/cso"
NAMES = {
    "ablation/curves": "curves alone (60 epochs)",
    "ablation/moments": "lambda and omega_log alone, no curve",
    "ablation/nomodes": "without vibrational spectra as a second target",
    "ablation/nofeatures": "without features of the potentials",
    "ablation/nomse": "without the square error of the curves",
    "ablation/notransport": "without the Wasserstein term of the curves",
}


def held(work: Path, name: str, data, grid) -> tuple[np.ndarray, dict]:
    """Curves (n, K) of a member, NaN where it has seen the crystal, and how it was trained."""
    place = {i: k for k, i in enumerate(data.ids)}
    values = np.full((len(data), len(grid.omega_meV)), np.nan)
    with np.load(work / f"{name}-0-0.npz") as found:
        rows = np.array([place.get(str(i), -1) for i in found["id"]])
        kept = rows >= 0
        shares = found["shares"][kept].astype(float)
        shares /= shares.sum(1, keepdims=True)
        values[rows[kept]] = grid.values(shares, np.exp(found["moments"][kept, 0]))
    return values, torch.load(work / f"{name}-0-0.pt", weights_only=False)["fit"]


def paired(off: np.ndarray, full: np.ndarray, group: np.ndarray) -> list[float]:
    """95 % interval of the mean difference, whole formulas resampled."""
    _, where = np.unique(group, return_inverse=True)
    total = np.bincount(where, off - full)
    count = np.bincount(where)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(count), size=(1000, len(count)))
    return [round(float(q), 4) for q in np.percentile(total[draws].sum(1) / count[draws].sum(1), [2.5, 97.5])]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data, grid = load(SpectrumSettings(), [], None, modes=False), GRIDS["quadratic"]()
    truth = data.moments.copy()
    truth[:, 2] += truth[:, 1]
    curves = grid.values(data.shares, np.exp(truth[:, 0]))
    names = [FULL, *(n for n in NAMES if (args.work / f"{n}-0-0.npz").exists())]
    found = {n: held(args.work, n, data, grid) for n in names}
    own = (fold_of(data.group) == 0) & np.all([np.isfinite(v[:, 0]) for v, _ in found.values()], axis=0)
    report: dict = {}
    for label, rows in (("Alexandria", own & (data.source == 0)), ("JARVIS curves", own & data.has_curve)):
        actual, first = quantities(truth[rows]), {}
        for name in names:
            values = found[name][0][rows]
            guess = quantities(curve_moments(values, grid))
            off = {q: np.abs(guess[q] - actual[q]) for q in ("lambda", "omega_log_K", "tc_K")}
            if label == "JARVIS curves":
                truth_curves = curves[rows]
                off["area"] = (np.abs(values - truth_curves) @ grid.width_meV) / (
                    truth_curves @ grid.width_meV
                )
            first = first or off
            report.setdefault(label, {})[NAMES.get(name, "full")] = {
                "n": int(rows.sum()),
                "epochs": found[name][1]["epochs"],
                **{
                    q: {"mae": round(float(e.mean()), 4), "more": paired(e, first[q], data.group[rows])}
                    for q, e in off.items()
                },
            }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    for label, table in report.items():
        print(label)
        for name, row in table.items():
            cells = [f"{v['mae']:.3g} {v['more']}" for v in row.values() if isinstance(v, dict)]
            print(" |", name, "|", row["n"], "|", row["epochs"], "|", " | ".join(cells))


if __name__ == "__main__":
    main()
