"""Mix and calibrate the cross-validated heads and write the shipped checkpoint.

python training/epc/pack.py --features DIR DIR --heads DIR:0,1:0.5 DIR:1:0.5 --out src/onnes/pretrained/epc.safetensors

A part is written HEADS:POTENTIALS:WEIGHT, the potentials by their place in --features. The out-of-fold outputs of the
fast predictor (training/alignn, packed before) and of the kernel (kernel.py) are mixed in with the shares of SHARES.
The card also says what the mixture errs when the shares for a fold are chosen on the four others.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scoring import baselines, by_id, gain, scores

from data import FOLDS, FORMULA, MU_STAR, SEEDS, Data, fold_of, load
from onnes.learn.calibrate import Conformal, Space, coverage_report, enough
from onnes.learn.calibrate import fit as conformal
from onnes.learn.epc import FLOOR_K, calibrated, tc_of, tc_spread
from onnes.learn.fold_of import KEY, fold_table
from onnes.learn.kernel import OUTPUTS
from onnes.learn.retrieval import Coverage
from onnes.learn.store import Checkpoint, pretrained

COVERAGE = 0.90
#: Shares of the graph networks and of the kernel in ln lambda, ln omega_log and ln N(EF); the rest is the heads'.
SHARES = {"graph": (0.25, 0.30, 0.35), "kernel": (0.30, 0.20, 0.0)}
#: Shares tried for the nested choice.
TRIED = np.arange(0.0, 0.61, 0.05)
#: Ranges of the predicted Tc (K) with quantiles of their own.
TC_EDGES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
#: Share of the calibration crystals whose heads disagree more than the limit of `in_domain`.
BEYOND = 0.01
#: Quantile of the heads' disagreement beyond which intervals grow no wider: errors do not grow with it any more.
WIDEST = 0.95
#: An element is named in a caution when its crystals' lambda is on average this much too low, significantly.
LOW_BY, LEAST = 0.02, 40


def part(heads: Path, number: int, tensors: dict) -> tuple[dict, np.ndarray]:
    """Collect the heads of one part; return their settings and out-of-fold outputs (SEEDS, n, 4)."""
    metrics = json.loads((heads / "metrics.json").read_text())
    for k in range(FOLDS):
        for seed in range(SEEDS):
            state = torch.load(heads / f"head-{k}-{seed}.pt", weights_only=True)
            for name, value in state.items():
                small = value if name in ("mean", "std") else value.half()
                tensors[f"{number}.{k * SEEDS + seed}.{name}"] = small
    with np.load(heads / "oof.npz") as found:
        log = found["log"]
    kept = ("head", "center", "spread", "data_hash", "epochs", "alexandria")
    return {k: metrics[k] for k in kept}, log


def graph_outputs(folder: Path, data: Data) -> np.ndarray:
    """Out-of-fold ln lambda, ln omega_log, ln N(EF)/atom of the graph networks, shape (n, 3)."""
    out = np.full((len(data.ids), 3), np.nan)
    for k in range(FOLDS):
        rows, found = by_id(folder / f"fast-{k}.npz", data)
        out[rows] = found
        if not (data.fold[rows] == k).all():
            raise SystemExit(f"fold {k} of the graph networks is not fold {k} of the heads")
    if not np.isfinite(out).all():
        raise SystemExit("the graph networks have not predicted every crystal out of fold")
    return out


def kernel_outputs(folder: Path, data: Data, tensors: dict) -> tuple[dict, np.ndarray]:
    """Settings and out-of-fold ln lambda, ln omega_log, shape (n, 2), of the kernel; NaN for JARVIS rows."""
    path = folder / "kernel.safetensors"
    tensors.update(load_file(path))
    with safe_open(path, framework="np") as handle:
        narrow, wide = json.loads((handle.metadata() or {})["widths"])
    with np.load(folder / "oof.npz") as found:
        if list(found["id"]) != data.ids:
            raise SystemExit("the kernel was trained on other crystals than the heads")
        out = found["out"]
    return {"widths": [narrow, wide]}, out


def mixed(
    log: np.ndarray, graphs: np.ndarray, kernel: np.ndarray, g: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """Outputs (..., n, 4) of the heads with shares g and k, shape (3,), of the graph networks and the kernel.

    Rows that the kernel does not know (JARVIS: it has learned one convention of labels) share its part out.
    """
    known = np.column_stack([kernel, np.zeros(len(kernel))])
    there = np.isfinite(known)
    k = k * there
    g = np.where(there, g, g / (1.0 - np.append(SHARES["kernel"][:OUTPUTS], 0.0)))
    out = log.copy()
    out[..., :3] = (1.0 - g - k) * log[..., :3] + g * graphs + k * np.nan_to_num(known)
    return out


def nested(log: np.ndarray, graphs: np.ndarray, kernel: np.ndarray, data: Data) -> np.ndarray:
    """The mixture (n, 4) with the shares of each fold chosen on the four others, by the MAE of each quantity."""
    alex, fold = data.source == 0, data.fold
    out = mixed(log, graphs, kernel, *(np.array(SHARES[n]) for n in ("graph", "kernel")))
    pairs = [(g, k) for g in TRIED for k in TRIED if g + k <= 0.8]
    for column, name in enumerate(("lambda", "omega_log_K")):
        tried = np.array(
            [(1 - g - k) * log[:, column] + g * graphs[:, column] + k * kernel[:, column] for g, k in pairs]
        )
        errors = np.abs(np.exp(tried) - data.truth[name])
        for number in range(FOLDS):
            best = errors[:, alex & (fold != number)].mean(1).argmin()
            test = alex & (fold == number)
            out[test, column] = tried[best, test]
    return out


def calibrate(log: np.ndarray, data: Data, keep: np.ndarray) -> tuple[dict[str, Conformal], list, dict]:
    """Intervals from out-of-fold residuals of the rows of `keep`, their coverage, the limits of the spread."""
    log, group = log[:, keep], data.formula[keep]
    truth = {k: v[keep] for k, v in data.truth.items()}
    mean, std = log.mean(0), log.std(0)
    found: dict[str, Conformal] = {}
    widest: dict[str, float] = {}
    for k, name in enumerate(("lambda", "omega_log_K")):
        space = Space((0.05, 10.0)[k])
        widest[name] = float(np.quantile(std[:, k], WIDEST))
        clipped = np.minimum(std[:, k], widest[name])
        found[name] = conformal(truth[name], np.exp(mean[:, k]), group, level=0.683, space=space, std=clipped)
    tc, spread = tc_spread(log, MU_STAR, FORMULA)
    widest["tc_K"] = float(np.quantile(spread, WIDEST))
    limits = {"spread_limit": float(np.quantile(spread, 1.0 - BEYOND)), "width_limits": widest}
    spread = np.minimum(spread, widest["tc_K"])
    edges = enough(tc, group, TC_EDGES)
    space = Space(FLOOR_K)
    actual = np.maximum(truth["tc_K"], 0.0)
    # The floor of the deviation is chosen where there is a Tc: near zero both deviations and errors vanish.
    some = tc > 0.5
    floor = conformal(actual[some], tc[some], group[some], space=space, std=spread[some]).std_floor
    how = {"level": COVERAGE, "space": space, "std": spread, "std_floor": floor, "edges": edges}
    found["tc_K"] = conformal(actual, tc, group, **how)
    report = coverage_report(actual, tc, group, ranges=(-1e-9, *edges, np.inf), **how)
    return found, [plain(row) for row in report], limits


def plain(row: Coverage) -> dict:
    """Numbers for JSON: unbounded ranges end at None."""
    values = asdict(row)
    return {k: round(v, 4) if np.isfinite(v) else None for k, v in values.items()}


def cautions(log: np.ndarray, data: Data, keep: np.ndarray) -> dict:
    """Where lambda tends to be too low: elements, and predictions beyond which soft modes are likely."""
    predicted = np.exp(log.mean(0)[keep, 0])
    off = data.truth["lambda"][keep] - predicted
    elements = {}
    for number in range(1, 101):
        has = (data.z[keep] == number).any(1)
        if has.sum() >= LEAST:
            mean, error = off[has].mean(), off[has].std() / np.sqrt(has.sum())
            if mean > LOW_BY and mean > 2.5 * error:
                elements[str(number)] = round(float(mean), 3)
    strong = predicted >= 0.9
    return {
        "elements": elements,
        "lambda_from": 0.9,
        "share_above_1.2_beyond": round(float((data.truth["lambda"][keep][strong] > 1.2).mean()), 3),
        "mean_too_low_beyond": round(float(off[strong].mean()), 3),
    }


def table(log: np.ndarray, data: Data, others: Path) -> dict:
    """Out-of-fold errors of the mixture and of the baselines, in rows of their own where the data differ."""
    mean, alex = log.mean(0), data.source == 0
    weak = data.truth["lambda"] <= 1.2
    rows = {
        "shipped ensemble": alex,
        "shipped ensemble, lambda up to 1.2": alex & weak,
        "shipped ensemble, lambda above 1.2": alex & ~weak,
        "shipped ensemble, DS-A (bulk)": alex & (data.group == "DS-A"),
        "shipped ensemble, DS-B (selected for high Tc)": alex & (data.group == "DS-B"),
        "shipped ensemble, JARVIS stable rows (lambda, omega_log)": ~alex,
    }
    out = {name: scores(mean, data, keep) for name, keep in rows.items()}
    for name, other in baselines(data, others).items():
        out[name] = scores(other, data, alex)
        out[f"{name}, lambda up to 1.2"] = scores(other, data, alex & weak)
    return out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--potentials", nargs="+", default=["7net-0", "7net-l3i5"])
    parser.add_argument("--layers", nargs="+", default=["1,2,4", "1,2,3,4"])
    parser.add_argument("--heads", nargs="+", required=True)
    parser.add_argument(
        "--graphs", type=Path, required=True, help="folder of fast-FOLD.npz and trees-FOLD.npz"
    )
    parser.add_argument("--kernel", type=Path, required=True, help="folder of kernel.safetensors")
    parser.add_argument("--oof", type=Path, help="also write the out-of-fold predictions to this csv")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def write_predictions(path: Path, log: np.ndarray, data: Data) -> None:
    """Out-of-fold predictions beside the labels, one row a crystal."""
    mean = log.mean(0)
    columns = {
        "id": data.ids,
        "formula": data.formula,
        "source": np.array(["alexandria", "jarvis"])[data.source],
        "fold": data.fold,
        "lambda": data.truth["lambda"],
        "omega_log_K": data.truth["omega_log_K"],
        "Tc_K": data.truth["tc_K"],
        "lambda_pred": np.exp(mean[:, 0]),
        "omega_log_K_pred": np.exp(mean[:, 1]),
        "tc_K_pred": tc_of(mean, MU_STAR, FORMULA),
    }
    pd.DataFrame(columns).to_csv(path, index=False, float_format="%.6g")


def main() -> None:
    args = arguments()
    data = load(args.features)
    tensors: dict[str, torch.Tensor] = {}
    parts, log = [], np.zeros(())
    for number, text in enumerate(args.heads):
        folder, places, weight = text.split(":")
        settings, one = part(Path(folder), number, tensors)
        potentials = [
            {
                "potential": args.potentials[int(k)],
                "layers": [f"{n}_equivariant_gate" for n in args.layers[int(k)].split(",")],
            }
            for k in places.split(",")
        ]
        parts.append({**settings, "potentials": potentials, "weight": float(weight)})
        log = log + float(weight) * one
    graphs = graph_outputs(args.graphs, data)
    kernel_settings, kernel = kernel_outputs(args.kernel, data, tensors)
    alone, alex = log.mean(0), data.source == 0
    g, k = (np.array(SHARES[n]) for n in ("graph", "kernel"))
    before = mixed(alone, graphs, np.full_like(kernel, np.nan), np.full(3, 0.35) * (1 - k), k)
    parts_alone = {
        "heads": scores(alone, data, alex),
        "graph networks": scores(np.column_stack([graphs, alone[:, 3]]), data, alex),
        "kernel": scores(np.column_stack([kernel, alone[:, 2:]]), data, alex),
        "mixture, shares chosen on the other folds": scores(nested(alone, graphs, kernel, data), data, alex),
        "heads and graph networks (0.65, 0.35)": scores(before, data, alex),
    }
    log = mixed(log, graphs, kernel, g, k)
    gains = gain(log.mean(0), before, data, alex)
    if args.oof:
        write_predictions(args.oof, log, data)
    calibration, coverage, limits = calibrate(log, data, alex)
    rule = fold_of(data.formula)
    folds = fold_table(rule, parts[0]["data_hash"], members_per_fold=SEEDS)
    tensors.update(folds.tensors())
    numbers, counts = np.unique(
        np.concatenate([np.unique(row[row > 0]) for row in data.z]), return_counts=True
    )
    check = calibrated(log[:, alex], calibration, MU_STAR, FORMULA, limits["width_limits"])
    std_error = np.abs(check.lam - data.truth["lambda"][alex]) / check.lam_std
    card = {
        "data": "Alexandria electron-phonon rows and dynamically stable JARVIS-SC rows (label source is an input)",
        "n": len(data.ids),
        "command": "training/epc/features.py, train.py, kernel.py, pack.py; see training/epc/README.md",
        "cross_validation": {
            "split": f"{FOLDS} folds, whole reduced formulas, numpy seed 0",
            "data_hash": [p.pop("data_hash") for p in parts],
            "seeds": SEEDS,
            "epochs": [p.pop("epochs") for p in parts],
            "mu_star": MU_STAR,
            "formula": FORMULA,
            "table": table(log, data, args.graphs),
            "shares": SHARES,
            "alone": parts_alone,
            "gain of the kernel, crystal by crystal": gains,
            "parts_of_the_heads_alone": [p.pop("alexandria") for p in parts],
        },
        "interval": {
            "method": "conformal on ln(Tc + 0.3 K) by ranges of the predicted Tc, out-of-fold residuals scaled by"
            " the ensemble's deviation",
            "nominal": COVERAGE,
            "coverage_cross_fold": coverage,
            "share_of_lambda_errors_within_lambda_std": round(float((std_error <= 1.0).mean()), 3),
        },
        "note": "The shipped ensemble holds the networks of all folds; the errors above are of the 3 heads of one fold"
        " of each part, of the one graph network and of the kernel of that fold. The shares were chosen on the same"
        " folds; 'mixture, shares chosen on the other folds' was not. The components of the kernel come from the"
        " features of all crystals, which know no label.",
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
    }
    model = {
        "parts": parts,
        "graph": {
            "weight": SHARES["graph"],
            "hash": Checkpoint.load(pretrained("fast.safetensors"), "epc-fast").hash,
        },
        "kernel": {**kernel_settings, "weight": SHARES["kernel"], "potentials": list(args.potentials)},
        "members": FOLDS * SEEDS,
        "calibration": {k: v.to_dict() for k, v in calibration.items()},
        "caution": cautions(log, data, alex),
        **limits,
        "element_counts": {str(int(z)): int(n) for z, n in zip(numbers, counts, strict=True)},
        "volume_per_atom_range": [float(q) for q in np.exp(np.quantile(data.log_volume, [0.001, 0.999]))],
        KEY: folds.settings(),
    }
    Checkpoint("epc", model, card, tensors).save(args.out)
    args.out.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(
        json.dumps({**card["cross_validation"], "interval": card["interval"], **model["caution"]}, indent=1)
    )


if __name__ == "__main__":
    main()
