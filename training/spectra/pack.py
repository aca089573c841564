"""Calibrate the members and write the shipped ensemble: pack.py --work DIR --direct oof.npz --out FILE.

A crystal's calibration residual comes from the mean of the members that have not seen its formula: those of its own
fold and those that drew a bag without it. There are fewer of them than the ensemble has, so intervals are rather wide.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from score import MU_STAR, read, table

from data import FOLDS, MEV, SpectrumSettings, data_hash, fold_of, load
from onnes.learn.calibrate import Space, coverage_report, enough
from onnes.learn.calibrate import fit as conformal
from onnes.learn.domain import coverage_of
from onnes.learn.epc import FLOOR_K, SOURCES, tc_of
from onnes.learn.fold_of import KEY, fold_table
from onnes.learn.spectrum import band_scale, log_moments
from onnes.learn.store import Checkpoint
from onnes.nets.spectrum import GRIDS

TC_EDGES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
WIDEST, BEYOND = 0.95, 0.01
FORMULA = "allen-dynes"
POTENTIALS = [
    {"potential": "7net-0", "layers": [f"{k}_equivariant_gate" for k in (1, 2, 4)]},
    {"potential": "7net-l3i5", "layers": [f"{k}_equivariant_gate" for k in (1, 2, 3, 4)]},
]


def calibrate(values: np.ndarray, data, keep: np.ndarray, grid) -> tuple[dict, dict]:
    """Intervals of lambda, omega_log, Tc from unseen crystals, and how often they hold."""
    values, group = values[:, keep], data.group[keep]
    truth = data.moments[keep].copy()
    with np.errstate(all="ignore"):
        mean = np.nanmean(values, axis=0)
    logs = log_moments(values, mean, grid)
    middle = np.nanmean(logs, axis=0)
    found, widest = {}, {}
    names = ("lambda", "omega_log_K")
    actual = (np.exp(truth[:, 0]), np.exp(truth[:, 1]) * MEV)
    for k, name in enumerate(names):
        std = np.nanstd(logs[:, :, k], axis=0)
        widest[name] = float(np.quantile(std, WIDEST))
        space = Space((0.05, 10.0)[k])
        clipped = np.minimum(std, widest[name])
        found[name] = conformal(actual[k], np.exp(middle[:, k]), group, level=0.683, space=space, std=clipped)
    known = np.isfinite(truth[:, 2])
    ratio = np.where(known, truth[:, 2], np.log(1.18))
    zero = np.zeros(len(truth))
    labels = np.column_stack([truth[:, 0], truth[:, 1] + np.log(MEV), zero, ratio])
    tc_true, tc = tc_of(labels, MU_STAR, FORMULA), tc_of(middle, MU_STAR, FORMULA)
    each = np.full(logs.shape[:2], np.nan)
    seen = np.isfinite(logs[:, :, 0])
    each[seen] = tc_of(logs[seen], MU_STAR, FORMULA)
    spread = np.nanstd(np.log(each + FLOOR_K), axis=0)
    widest["tc_K"] = float(np.quantile(spread, WIDEST))
    limit = float(np.quantile(spread, 1.0 - BEYOND))
    spread = np.minimum(spread, widest["tc_K"])
    some = tc > 0.5
    space = Space(FLOOR_K)
    floor = conformal(tc_true[some], tc[some], group[some], space=space, std=spread[some]).std_floor
    how = {
        "level": 0.9,
        "space": space,
        "std": spread,
        "std_floor": floor,
        "edges": enough(tc, group, TC_EDGES),
    }
    found["tc_K"] = conformal(tc_true, tc, group, **how)
    report = coverage_report(tc_true, tc, group, ranges=(-1e-9, *how["edges"], np.inf), **how)
    plain = [{k: round(v, 4) if np.isfinite(v) else None for k, v in asdict(row).items()} for row in report]
    settings = {
        "intervals": {k: v.to_dict() for k, v in found.items()},
        "width_limits": widest,
        "spread_limit": limit,
    }
    return settings, {"tc_interval_coverage": plain, "unseen_members": float(seen.sum(0).mean())}


def band(values: np.ndarray, data, grid, level: float = 0.683) -> dict:
    """Half width of the band over `band_scale`, from curves that the members had not seen."""
    rows = np.flatnonzero(data.has_curve & np.isfinite(values[:, :, 0]).any(0))
    truth = grid.values(data.shares[rows], np.exp(data.moments[rows, 0]))
    mean, deviation = np.nanmean(values[:, rows], axis=0), np.nanstd(values[:, rows], axis=0)
    peak = mean.max(1, keepdims=True)
    # Points where there is something to predict: beyond both curves everything is right.
    inside = np.maximum(mean, truth) > 0.02 * peak
    best = None
    for floor in (0.05, 0.1, 0.2, 0.4, 0.8):
        width = np.maximum(band_scale(mean, deviation, floor), 1e-9)
        ratio = (np.abs(mean - truth) / width)[inside]
        factor = float(np.quantile(ratio, level))
        mean_width = float((factor * width)[inside].mean())
        if best is None or mean_width < best[0]:
            best = (mean_width, factor, floor)
    assert best is not None
    # Held out for the card: factor of four folds on the fifth.
    fold, held = fold_of(data.group)[rows], []
    width = np.maximum(band_scale(mean, deviation, best[2]), 1e-9)
    for k in range(FOLDS):
        ratio = np.abs(mean - truth) / width
        factor = np.quantile(ratio[fold != k][inside[fold != k]], level)
        held.append((ratio[fold == k] <= factor)[inside[fold == k]])
    return {
        "factor": best[1],
        "floor": best[2],
        "level": level,
        "n": len(rows),
        "held_out_coverage": round(float(np.concatenate(held).mean()), 3),
    }


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
    both = {
        source: calibrate(held.values, data, (data.source == k) & unseen, grid)
        for k, source in enumerate(SOURCES)
    }
    settings = {"calibration": {source: found for source, (found, _) in both.items()}}
    card = {"tc_interval_coverage": both[SOURCES[0]][1]["tc_interval_coverage"]} | {
        f"of {source}": about for source, (_, about) in both.items()
    }
    rows = np.flatnonzero(np.isfinite(held.values[:, :, 0]).any(0))
    counts, volumes = coverage_of([data.graphs[i].numbers for i in rows], [VOLUME[data.ids[i]] for i in rows])
    fold = fold_of(data.group)
    settings |= {
        "net": state["settings"],
        "members": len(files),
        "potentials": POTENTIALS,
        "band": band(held.values, data, grid),
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
