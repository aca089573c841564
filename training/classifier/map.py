"""Map of the latent space: python training/classifier/map.py --out DIR --figure docs/figures/classifier-map.png.

t-SNE of the latents of the first network, of crystals whose formula that network has not seen (a map of training
crystals would show what was learned by heart).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from dataset import folds, graphs, labelled
from evaluate import MAGNETS, ensemble
from sklearn.manifold import TSNE

from onnes.graph.batch import collate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

#: Label, colour (Okabe & Ito), marker; drawn in this order, crowds first.
GROUPS = (
    ("insulator (gap > 0.1 eV)", "#999999", "s"),
    ("magnet (named, 4f or 3d rule)", "#56B4E9", "^"),
    ("metal, computed Tc < 0.5 K", "#F0E442", "D"),
    ("superconductor, 1 to 5 K", "#E69F00", "o"),
    ("superconductor, 5 K and more", "#000000", "o"),
)


def group_of(row) -> int:
    if row.kind == "insulator":
        return 0
    if row.kind in MAGNETS:
        return 1
    if row.superconductor != 1.0:
        return 2
    return 4 if row.strong == 1.0 else 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = labelled()
    # JARVIS rows are not asked question 2, so they have no place among the five groups.
    rows = [r for r, k in zip(rows, folds(rows), strict=True) if k == 0 and r.kind != "jarvis"]
    built = graphs(rows, args.out)
    kept = [(r, g) for r, g in zip(rows, built, strict=True) if g is not None]
    net = ensemble(args.out)[0]
    with torch.no_grad():
        parts = [net.latent(collate([g for _, g in kept[k : k + 256]])) for k in range(0, len(kept), 256)]
    latent = torch.cat(parts).numpy()
    place = TSNE(perplexity=40, init="pca", random_state=0).fit_transform(latent)
    groups = np.array([group_of(r) for r, _ in kept])
    figure, axes = plt.subplots(figsize=(7.2, 5.6), dpi=130)
    for k, (label, colour, marker) in enumerate(GROUPS):
        some = groups == k
        axes.scatter(
            *place[some].T, s=9, c=colour, marker=marker, edgecolors="#444444", linewidths=0.15, alpha=0.85,
            label=f"{label}: {some.sum()}",
        )  # fmt: skip
    axes.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    axes.set_title(f"Latents of {len(kept)} crystals of formulas the network has not seen", fontsize=10)
    axes.legend(
        fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncol=2, frameon=False
    )
    figure.savefig(args.figure, bbox_inches="tight", pil_kwargs={"optimize": True})
    print(args.figure, args.figure.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
