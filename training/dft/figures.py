"""lambda at every broadening of the computed set, beside what JARVIS stores: docs/figures/dft_lambda_sigma.png.

python training/dft/figures.py computed/electron_phonon.jsonl docs/figures
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from collect import JARVIS, MEASURED

from onnes.data.records import Record, read_records
from onnes.theory.plots import BLUE, GREY, ORANGE, save_figure

COLOURS = {"quick": BLUE, "standard": ORANGE, "tight": "#3c7d4d"}


def main(file: Path, folder: Path) -> None:
    records = [r for r in read_records(file) if any(p["lambda"] for p in r.meta["lambda_of_sigma"])]
    names = [n for n in MEASURED if any(r.id.split("-")[0] == n for r in records)]
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(10, 2.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        panel(axis, name, [r for r in records if r.id.split("-")[0] == name])
    for axis in axes[:, 0]:
        axis.set_ylabel("λ")
    for axis in axes[-1]:
        axis.set_xlabel("broadening σ (Ry)")
    save_figure(figure, folder, "dft_lambda_sigma")


def panel(axis: plt.Axes, name: str, records: list[Record]) -> None:
    """One crystal: a curve a tier, the plateau thick, JARVIS dashed."""
    top = 0.0
    for record in records:
        tier = record.id.split("-")[1]
        points = [(p["sigma_Ry"], p["lambda"]) for p in record.meta["lambda_of_sigma"] if p["lambda"]]
        axis.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, color=COLOURS[tier], label=tier)
        plateau = record.meta.get("plateau")
        if plateau:
            low, high = plateau["sigma_Ry"]
            inside = [p for p in points if low - 1e-9 <= p[0] <= high + 1e-9]
            axis.plot(*zip(*inside, strict=True), "-", lw=4, alpha=0.4, color=COLOURS[tier])
        # The smallest broadenings shoot up; the scale is that of the rest.
        top = max([top, *(value for sigma, value in points if sigma > 0.009)])
    if name in JARVIS:
        axis.axhline(JARVIS[name][0], ls="--", lw=1, color=GREY, label="JARVIS")
        top = max(top, JARVIS[name][0])
    axis.set_ylim(0, 1.15 * top)
    axis.set_title(name)
    axis.legend(fontsize=7, frameon=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
