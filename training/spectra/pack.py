"""Calibrate the members and write the shipped ensemble: pack.py --work DIR --direct oof.npz --out FILE.

A crystal's calibration residual comes from the mean of the members that have not seen its formula: those of its own
fold and those that drew a bag without it. There are fewer of them than the ensemble has, so intervals are rather wide.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from score import MU_STAR, read, table

from data import FOLDS, SpectrumSettings, data_hash, fold_of, load
from onnes.learn.domain import coverage_of
from onnes.learn.epc import SOURCES
from onnes.learn.fold_of import KEY, fold_table
from onnes.learn.spectrum_calibrate import band, intervals
from onnes.learn.spectrum_data import FEATURES
from onnes.learn.store import Checkpoint
from onnes.nets.spectrum import GRIDS

FORMULA = "allen-dynes"
POTENTIALS = [{"potential": name, "layers": list(layers)} for name, layers in FEATURES.items()]


def variant(name: str, work: Path, data, grid, tensors: dict) -> tuple[dict, dict]:
    """Settings and card of one variant; its weights go into `tensors`."""
    held = read(work / name, name, data, grid)
    files = sorted((work / name).glob(f"{name}-[0-9]-[0-9].pt"))
    seconds = 0.0
    for m, file in enumerate(files):
        state = torch.load(file, weights_only=False)
        seconds += state["seconds"]
        for key, value in state["net"].items():
            if "output_mask" in key:
                continue
            small = value if key in ("feature_mean", "feature_std") else value.half()
            tensors[f"{name}.{m}.{key}"] = small
    unseen = np.isfinite(held.values[:, :, 0]).any(0)
    both = {}
    for k, source in enumerate(SOURCES):
        some = (data.source == k) & unseen
        both[source] = intervals(
            held.values[:, some], data.moments[some], data.group[some], grid, mu_star=MU_STAR, formula=FORMULA
        )
    settings = {"calibration": {source: found for source, (found, _) in both.items()}}
    card = {"tc_interval_coverage": both[SOURCES[0]][1]["tc_interval_coverage"]} | {
        f"of {source}": about for source, (_, about) in both.items()
    }
    rows = np.flatnonzero(np.isfinite(held.values[:, :, 0]).any(0))
    counts, volumes = coverage_of([data.graphs[i].numbers for i in rows], [VOLUME[data.ids[i]] for i in rows])
    fold = fold_of(data.group)
    curves = np.flatnonzero(data.has_curve & unseen)
    truth = grid.values(data.shares[curves], np.exp(data.moments[curves, 0]))
    settings |= {
        "net": state["settings"],
        "members": len(files),
        "potentials": POTENTIALS,
        "band": band(held.values[:, curves], truth, fold[curves]),
        "element_counts": counts,
        "volume_per_atom_range": volumes,
    }
    card |= {
        "members": [f.stem for f in files],
        "fit": state["fit"],
        "cpu_seconds": round(seconds),
        "crystals": len(rows),
        "curves": int(data.has_curve[rows].sum()),
        "folds": np.bincount(fold[rows]).tolist(),
    }
    return settings, card


VOLUME: dict[str, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--direct", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-hash", required=True, help="what train.py printed for cso")
    parser.add_argument("--variants", nargs="+", default=["cso", "cpd"])
    args = parser.parse_args()
    from data import alexandria, jarvis, spectra

    for row in (*alexandria(), *jarvis(), *spectra()):
        VOLUME[row["id"]] = abs(np.linalg.det(np.array(row["lattice"]))) / len(row["species"])
    data, grid = load(SpectrumSettings(), [], None, modes=False), GRIDS["quadratic"]()
    tensors: dict[str, torch.Tensor] = {}
    settings, card = {}, {}
    for name in args.variants:
        settings[name], card[name] = variant(name, args.work, data, grid, tensors)
        # What begins with the weights of the first variant has learned from its crystals.
        for key in ("element_counts", "volume_per_atom_range"):
            settings[name][key] = settings[args.variants[0]][key]
    result = table(args.work, args.direct)
    fold, digest = fold_of(data.group), data_hash(data)
    rule = dict(zip(data.group.tolist(), fold.tolist(), strict=True))
    folds = fold_table(rule, digest, members_per_fold=settings[args.variants[0]]["members"] // FOLDS)
    tensors |= folds.tensors()
    full = {
        "what": "alpha2F(omega) of a metal, 0.5-250 meV, from its structure (cso) or with its vibrations (cpd, fpd)",
        "split": f"{FOLDS} folds of whole reduced formulas; every member a bootstrap of whole formulas of four of them",
        "data": "JARVIS spectra (stable, clean), Alexandria and JARVIS lambda and omega_log; JARVIS phonon spectra",
        "labels_hash": digest,
        "training_data_hash": args.data_hash,
        "command": "training/spectra/README.md",
        "environment": {"python": platform.python_version(), "torch": torch.__version__},
        "variants": card,
        "cross_validation": {"mu_star": MU_STAR, "formula": FORMULA, "table": result["alexandria"]},
        "held_out": {k: v for k, v in result.items() if k != "alexandria"},
    }
    checkpoint = Checkpoint("spectrum", {"variants": settings, KEY: folds.settings()}, full, tensors)
    checkpoint.save(args.out)
    args.out.with_suffix(".card.json").write_text(json.dumps(full, indent=1) + "\n")
    print(
        checkpoint.hash,
        f"{args.out.stat().st_size / 1e6:.1f} MB",
        {k: v["band"] for k, v in settings.items()},
    )


if __name__ == "__main__":
    main()
