"""Figures of docs/spectrum.md: figures.py --work DIR --variant cso --out docs/figures.

Held-out predictions only: every curve by the members of its own fold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from score import HIGH_TC_K, curve_moments, quantities, read

from data import SpectrumSettings, load
from onnes.nets.spectrum import GRIDS

BLUE, ORANGE, GREY = "#1d5b8f", "#c05a1c", "#8a919b"


def held_out(work: Path, variant: str):
    """Data, grid, rows with curves, their predicted and true curves."""
    data, grid = load(SpectrumSettings(), [], None, modes=False), GRIDS["quadratic"]()
    found = read(work / variant, variant, data, grid)
    own = np.where(found.own[:, :, None], found.values, np.nan)
    rows = np.flatnonzero(np.isfinite(own[:, :, 0]).any(0))
    mean = np.nanmean(own[:, rows], axis=0)
    return data, grid, rows, mean


def best_and_worst(data, grid, rows, mean, out: Path) -> list[str]:
    """Six best and six worst curves by the area between them over the area of the true one."""
    has = data.has_curve[rows]
    truth = grid.values(data.shares[rows[has]], np.exp(data.moments[rows[has], 0]))
    area = (np.abs(mean[has] - truth) @ grid.width_meV) / (truth @ grid.width_meV)
    order = np.argsort(area)
    names = data.group[rows[has]]
    figure = Figure(figsize=(9.6, 8.2), layout="constrained")
    axes = figure.subplots(4, 3)
    for axis, k in zip(axes.ravel(), [*order[:6], *order[-6:]], strict=True):
        axis.fill_between(grid.omega_meV, truth[k], color=GREY, alpha=0.35, linewidth=0, label="DFT")
        axis.plot(grid.omega_meV, mean[has][k], color=BLUE, label="predicted")
        last = grid.omega_meV[np.maximum(truth[k], mean[has][k]) > 0.02 * truth[k].max()][-1]
        axis.set_xlim(0, 1.05 * last)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{names[k]}: {area[k]:.2f}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("ω (meV)")
    for axis in axes[:, 0]:
        axis.set_ylabel("α²F")
    figure.savefig(out / "spectrum_best_worst.png", dpi=110)
    return [str(n) for n in names[order[:6]]] + [str(n) for n in names[order[-6:]]]


def precision_recall(truth: dict, predicted: dict, label: str, axis) -> dict:
    """Precision against recall for Tc of 5 K and more, and the confusion matrix where F1 is highest."""
    hit, score = truth["tc_K"] >= HIGH_TC_K, predicted["tc_K"]
    order = np.argsort(-score)
    found = np.cumsum(hit[order])
    precision, recall = found / np.arange(1, len(hit) + 1), found / hit.sum()
    axis.plot(recall, precision, label=f"{label} (n = {len(hit)})")
    axis.axhline(hit.mean(), color=GREY, linewidth=0.7, linestyle=":")
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    k = int(f1.argmax())
    return {
        "n": len(hit),
        "threshold_K": round(float(score[order][k]), 2),
        "true positive": int(found[k]),
        "false positive": int(k + 1 - found[k]),
        "false negative": int(hit.sum() - found[k]),
        "true negative": int(len(hit) - (k + 1) - (hit.sum() - found[k])),
        "share_positive": round(float(hit.mean()), 3),
    }


def elements(data, rows, error: np.ndarray, out: Path, title: str) -> None:
    """Mean absolute error of lambda of the crystals that hold each element, as a periodic table."""
    from pymatgen.core import Element

    sums, counts = np.zeros(104), np.zeros(104)
    for i, e in zip(rows, error, strict=True):
        for z in np.unique(data.graphs[i].numbers):
            sums[z] += e
            counts[z] += 1
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axis = figure.add_subplot()
    shown = [z for z in range(1, 104) if counts[z] >= 5]
    values = {z: sums[z] / counts[z] for z in shown}
    top = np.quantile(list(values.values()), 0.95)
    from matplotlib import colormaps

    colours = colormaps["YlOrRd"]
    for z in range(1, 95):
        element = Element.from_Z(z)
        row, column = element.row, element.group
        if 57 <= z <= 71 or 89 <= z <= 94:
            row, column = row + 2.4, z - (57 if z < 80 else 89) + 3
        face = colours(min(values[z] / top, 1.0)) if z in values else "#f0f0f0"
        axis.add_patch(
            __import__("matplotlib.patches", fromlist=["Rectangle"]).Rectangle(
                (column, -row), 0.94, 0.94, color=face
            )
        )
        axis.text(column + 0.47, -row + 0.6, element.symbol, ha="center", va="center", fontsize=9)
        if z in values:
            axis.text(column + 0.47, -row + 0.22, f"{values[z]:.2f}", ha="center", va="center", fontsize=6.5)
    axis.set_xlim(0.8, 19.2)
    axis.set_ylim(-9.6, 0.2)
    axis.set_axis_off()
    axis.set_title(title, fontsize=11, loc="left")
    figure.savefig(out / "spectrum_elements.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variant", default="cso")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data, grid, rows, mean = held_out(args.work, args.variant)
    names = best_and_worst(data, grid, rows, mean, args.out)
    moments = data.moments[rows].copy()
    moments[:, 2] += moments[:, 1]
    truth, predicted = quantities(moments), quantities(curve_moments(mean, grid))
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.add_subplot()
    report = {"best and worst": names}
    for label, keep in (("JARVIS curves", data.has_curve[rows]), ("Alexandria", data.source[rows] == 0)):
        cut = lambda d, k=keep: {name: v[k] for name, v in d.items()}  # noqa: E731
        report[label] = precision_recall(cut(truth), cut(predicted), label, axis)
    axis.set_xlabel("recall of Tc ≥ 5 K")
    axis.set_ylabel("precision")
    axis.set_ylim(0, 1.02)
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.out / "spectrum_precision_recall.png", dpi=120)
    alexandria = data.source[rows] == 0
    error = np.abs(predicted["lambda"] - truth["lambda"])[alexandria]
    elements(
        data,
        rows[alexandria],
        error,
        args.out,
        f"mean |error| of λ by element, {alexandria.sum():,} Alexandria crystals, held out",
    )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
