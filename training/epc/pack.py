"""Calibrate the cross-validated heads and write the shipped checkpoint.

python training/epc/pack.py --features DIR --heads DIR --out src/onnes/pretrained/epc.safetensors
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from train import FOLDS, MU_STAR, RATIO, SEEDS, load

from onnes.learn.ensemble import FLOOR_K, tc_spread
from onnes.learn.store import Checkpoint
from onnes.nets.property_head import HeadSettings, PropertyHead

COVERAGE = 0.90


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    metrics = json.loads((args.heads / "metrics.json").read_text())
    x, z, rest = load(args.features)
    formula = np.array([r[0] for r in rest])
    source = np.array([r[1] for r in rest])
    names = np.unique(formula)
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([fold_of[f] for f in formula])
    settings = HeadSettings(features=x.shape[-1])
    center, spread = np.array(metrics["center"]), np.array(metrics["spread"])
    volume = torch.tensor([r[2] for r in rest]).float()
    log = np.zeros((SEEDS, len(x), 3))
    tensors: dict[str, torch.Tensor] = {}
    for k in range(FOLDS):
        test = np.flatnonzero(fold == k)
        for seed in range(SEEDS):
            state = torch.load(args.heads / f"head-{k}-{seed}.pt", weights_only=True)
            for name, value in state.items():
                small = value if name in ("mean", "std") else value.half()
                tensors[f"{k * SEEDS + seed}.{name}"] = small
            head = PropertyHead(settings)
            head.load_state_dict(state)
            head.eval()
            with torch.no_grad():
                for part in np.array_split(test, 8):
                    out = head(
                        torch.as_tensor(x[part]).float(),
                        torch.as_tensor(z[part]),
                        volume[part],
                        torch.as_tensor(source[part]),
                    )
                    log[seed, part] = out.numpy() * spread + center
    alex = source == 0
    log, fold = log[:, alex], fold[alex]
    lam, wlog, tc = (np.array([r[i] for r in rest], dtype=float)[alex] for i in (6, 7, 8))
    truth = np.column_stack([np.log(np.maximum(lam, 0.02)), np.log(np.maximum(wlog, 5.0))])
    std = log.std(0)[:, :2]
    floor = 4.0 * np.median(std, axis=0)
    scores = np.abs(log.mean(0)[:, :2] - truth) / np.hypot(std, floor)
    centre, tc_std = tc_spread(log, RATIO, MU_STAR, "allen-dynes")
    # Members of one fold agree more than they should: a floor of several typical deviations keeps the interval
    # of a crystal on which they happen to differ from growing without bound.
    tc_floor = 4.0 * float(np.median(tc_std[tc > 1.0]))
    tc_score = np.abs(np.log(centre + FLOOR_K) - np.log(np.maximum(tc, 0) + FLOOR_K)) / np.hypot(
        tc_std, tc_floor
    )
    covered = np.zeros(len(tc), dtype=bool)
    for k in range(FOLDS):
        covered[fold == k] = tc_score[fold == k] <= np.quantile(tc_score[fold != k], COVERAGE)
    calibration = {
        "lambda_floor": float(floor[0]),
        "omega_log_floor": float(floor[1]),
        "lambda_scale": float(np.quantile(scores[:, 0], 0.683)),
        "omega_log_scale": float(np.quantile(scores[:, 1], 0.683)),
        "tc_floor": tc_floor,
        "tc_quantile": float(np.quantile(tc_score, COVERAGE)),
    }
    counts: dict[str, int] = {}
    for row in z:
        for number in np.unique(row[row > 0]):
            counts[str(int(number))] = counts.get(str(int(number)), 0) + 1
    card = {
        "data": "Alexandria electron-phonon rows and dynamically stable JARVIS-SC rows (label source is an input)",
        "n": len(x),
        "command": "training/epc/features.py, training/epc/train.py, training/epc/pack.py; see training/epc/README.md",
        "cross_validation": metrics,
        "interval": {
            "method": "conformal on ln(Tc + 0.3 K), out-of-fold residuals scaled by ensemble deviation",
            "nominal": COVERAGE,
            "coverage_cross_fold": round(float(covered.mean()), 4),
            "coverage_cross_fold_tc_above_5K": round(float(covered[tc > 5].mean()), 4),
            "n": len(tc),
        },
        "note": "The shipped ensemble holds the heads of all folds; the errors above are of the 3 heads of one fold.",
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
    }
    volumes = np.exp([r[2] for r in rest])
    model = {
        "head": settings.as_dict(),
        "members": FOLDS * SEEDS,
        "center": center.tolist(),
        "spread": spread.tolist(),
        "calibration": calibration,
        "omega_2_ratio": RATIO,
        "element_counts": counts,
        "volume_per_atom_range": [float(q) for q in np.quantile(volumes, [0.001, 0.999])],
        "potential": "7net-0",
    }
    Checkpoint("epc", model, card, tensors).save(args.out)
    args.out.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps({"calibration": calibration, "interval": card["interval"]}, indent=1))


if __name__ == "__main__":
    main()
