"""Train the property heads: python training/properties/train.py --mp DIR --jarvis DIR --out DIR.

Formation energy, band gap, metal or not (Materials Project), moduli and dynamical stability (JARVIS-SC) from the
frozen features of the potential, one multi-task head a fold and seed, formula-grouped folds. Each finished head
is kept, so a rerun resumes. Ends with metrics.json: out-of-fold errors beside median and extra-trees.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.metrics import average_precision_score, roc_auc_score

from onnes.nets.property_head import HeadSettings, PropertyHead
from onnes.stability.hull import HullReferences

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDS, SEEDS, MOST = 5, 2, 20
#: Targets of the head. The formation energy is learned as a correction to the potential's own.
TARGETS = ("formation_correction", "gap", "nonmetal", "ln_bulk", "ln_shear", "stable")
LOGITS = (2, 5)
WEIGHTS = (1.0, 0.5, 0.5, 1.0, 1.0, 0.5)


def rows(name: str):
    with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
        yield from map(json.loads, handle)


def features(folder: Path):
    for part in sorted(folder.glob("part-*.npz")):
        with np.load(part) as data:
            blocks = np.split(data["x"], np.cumsum(data["n"])[:-1])
            yield from zip(data["id"].tolist(), blocks, data["energy"].tolist(), strict=True)


def mp_targets(row: dict, energy: float, table: HullReferences) -> list[float]:
    """Targets of a Materials Project row; NaN where unknown."""
    y = [np.nan] * len(TARGETS)
    own = potential_formation(row["species"], energy, table)
    if row.get("formation_energy_eV_atom") is not None and own is not None:
        y[0] = row["formation_energy_eV_atom"] - own
    if row.get("gap_pbe_eV") is not None:
        y[1], y[2] = row["gap_pbe_eV"], float(row["gap_pbe_eV"] > 0.01)
    return y


def jarvis_targets(row: dict) -> list[float]:
    y = [np.nan] * len(TARGETS)
    bulk, shear = row.get("bulk_modulus_kv_GPa"), row.get("shear_modulus_gv_GPa")
    if bulk and shear and bulk > 1 and shear > 1:
        y[3], y[4] = np.log(bulk), np.log(shear)
    y[5] = float(bool(row["in_616_set"]))
    return y


def potential_formation(species: list[str], energy: float, table: HullReferences) -> float | None:
    """Formation energy by the potential alone, eV/atom."""
    if not set(species) <= table.elements.keys():
        return None
    return energy - sum(table.elements[s] for s in species) / len(species)


def load(mp: Path, jarvis: Path):
    table = HullReferences.load()
    known = {r["id"]: (0, r) for r in rows("mp_crystals")}
    known.update({r["id"]: (1, r) for r in rows("jarvis_supercon")})
    xs, zs, y, rest = [], [], [], []
    for folder in (mp, jarvis):
        for name, block, energy in features(folder):
            if name not in known or len(block) > MOST:
                continue
            source, row = known[name]
            pad = MOST - len(block)
            xs.append(np.pad(block, ((0, pad), (0, 0))))
            zs.append(np.pad([atomic_numbers[s] for s in row["species"]], (0, pad)))
            volume = abs(np.linalg.det(np.array(row["lattice"]))) / len(block)
            y.append(mp_targets(row, energy, table) if source == 0 else jarvis_targets(row))
            own = potential_formation(row["species"], energy, table)
            rest.append((row["formula"], source, np.log(volume), np.nan if own is None else own))
    return np.stack(xs), np.stack(zs), np.array(y), rest


def fit(train, settings: HeadSettings, seed: int, epochs: int) -> PropertyHead:
    x, z, v, s, y = train
    torch.manual_seed(seed)
    head = PropertyHead(settings)
    some = np.random.default_rng(0).choice(len(x), min(len(x), 4000), replace=False)
    real = x[some][z[some] > 0].float()
    head.mean.copy_(real.mean(0))
    head.std.copy_(real.std(0).clamp(min=1e-3))
    rng = np.random.default_rng(seed)
    batch, steps = 128, epochs * (len(x) // 128)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1.5e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.5e-3, total_steps=steps)
    weight = torch.tensor(WEIGHTS)
    # The 1,036 JARVIS rows are a twentieth of all: drawn three times as often.
    chance = np.where(s.numpy() == 1, 3.0, 1.0)
    chance /= chance.sum()
    for _ in range(steps):
        i = torch.as_tensor(rng.choice(len(x), batch, replace=False, p=chance))
        width = int((z[i] > 0).sum(1).max())
        out = head(x[i, :width].float(), z[i, :width], v[i], s[i])
        target = torch.nan_to_num(y[i])
        error = (out - target).abs()
        for k in LOGITS:
            error[:, k] = torch.nn.functional.binary_cross_entropy_with_logits(
                out[:, k], target[:, k], reduction="none"
            )
        loss = (error * ~torch.isnan(y[i]) * weight).sum() / batch
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return head.eval()


def out_of_fold(tensors, fold: np.ndarray, settings: HeadSettings, out: Path, epochs: int) -> np.ndarray:
    guess = np.zeros((SEEDS, len(fold), len(TARGETS)), dtype=np.float32)
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        for seed in range(SEEDS):
            path, begun = out / f"head-{k}-{seed}.pt", time.time()
            if path.exists():
                head = PropertyHead(settings)
                head.load_state_dict(torch.load(path, weights_only=True))
                head.eval()
            else:
                head = fit([t[train] for t in tensors], settings, 100 * k + seed, epochs)
                torch.save(head.state_dict(), path.with_suffix(".tmp"))
                os.replace(path.with_suffix(".tmp"), path)
            with torch.no_grad():
                for part in np.array_split(test, 40):
                    guess[seed, part] = head(
                        tensors[0][part].float(), *(t[part] for t in tensors[1:4])
                    ).numpy()
            print(k, seed, f"{time.time() - begun:.0f} s", flush=True)
    return guess


def interval(errors: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[float]:
    names, where = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(where, errors), np.bincount(where)
    pick = np.random.default_rng(seed).integers(len(names), size=(1000, len(names)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    return [round(float(q), 4) for q in np.percentile(means, [2.5, 97.5])]


def regression(name: str, truth, predicted: dict, groups) -> dict:
    known = np.isfinite(truth)
    found = {"n": int(known.sum())}
    for model, values in predicted.items():
        error = np.abs(values[known] - truth[known])
        found[model] = {"mae": round(float(error.mean()), 4), "ci95": interval(error, groups[known])}
    return {name: found}


def classification(name: str, truth, predicted: dict, groups) -> dict:
    known = np.isfinite(truth)
    found = {"n": int(known.sum()), "share_positive": round(float(truth[known].mean()), 4)}
    for model, p in predicted.items():
        right = ((p[known] > 0.5) == (truth[known] > 0.5)).astype(float)
        found[model] = {
            "accuracy": round(float(right.mean()), 4),
            "ci95": interval(right, groups[known]),
            "auroc": round(float(roc_auc_score(truth[known], p[known])), 4),
            "average_precision": round(float(average_precision_score(truth[known], p[known])), 4),
        }
    return {name: found}


def trees(cells, y, fold, logistic: bool) -> np.ndarray:
    guess = np.full(len(y), np.nan)
    kind = ExtraTreesClassifier if logistic else ExtraTreesRegressor
    for k in range(FOLDS):
        train = np.flatnonzero((fold != k) & np.isfinite(y))
        test = np.flatnonzero((fold == k) & np.isfinite(y))
        if not len(test):
            continue
        model = kind(150, n_jobs=1, random_state=k, max_features=0.4).fit(cells[train], y[train])
        guess[test] = model.predict_proba(cells[test])[:, 1] if logistic else model.predict(cells[test])
    return guess


def median(y, fold, logistic: bool) -> np.ndarray:
    guess = np.full(len(y), np.nan)
    for k in range(FOLDS):
        known = (fold != k) & np.isfinite(y)
        guess[fold == k] = y[known].mean() if logistic else np.median(y[known])
    return guess


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mp", type=Path, required=True)
    parser.add_argument("--jarvis", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    x, z, y, rest = load(args.mp, args.jarvis)
    formula = np.array([r[0] for r in rest])
    source = np.array([r[1] for r in rest])
    own = np.array([r[3] for r in rest])
    center, spread = np.nanmean(y, 0), np.nanstd(y, 0)
    for k in LOGITS:
        center[k], spread[k] = 0.0, 1.0
    tensors = (
        torch.as_tensor(x),
        torch.as_tensor(z),
        torch.tensor([r[2] for r in rest]).float(),
        torch.as_tensor(source),
        torch.as_tensor((y - center) / spread).float(),
    )
    names = np.unique(formula)
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([fold_of[f] for f in formula])
    settings = HeadSettings(features=x.shape[-1], hidden=160, targets=len(TARGETS))
    print(len(x), "crystals", len(names), "formulas", np.isfinite(y).sum(0), flush=True)
    guess = out_of_fold(tensors, fold, settings, args.out, args.epochs)
    np.savez(args.out / "oof.npz", guess=guess, y=y, fold=fold, source=source, own=own, formula=formula)
    mean = guess.mean(0) * spread + center
    composition = np.zeros((len(x), 101))
    for i, row in enumerate(z):
        np.add.at(composition[i], row[row > 0], 1 / (row > 0).sum())
    cells = np.column_stack([composition, [r[2] for r in rest], (z > 0).sum(1)])
    formation = y[:, 0] + own
    table = {}
    for name, truth, ours in (
        ("formation_energy_eV_atom", formation, mean[:, 0] + own),
        ("gap_eV", y[:, 1], np.where(mean[:, 2] > 0, np.maximum(mean[:, 1], 0), 0)),
        ("bulk_modulus_GPa", np.exp(y[:, 3]), np.exp(mean[:, 3])),
        ("shear_modulus_GPa", np.exp(y[:, 4]), np.exp(mean[:, 4])),
    ):
        others = {
            "shipped heads": ours,
            "extra-trees on composition and cell": trees(cells, truth, fold, False),
        }
        if name.startswith("formation"):
            others["potential alone"] = own
        others["constant median"] = median(truth, fold, False)
        table |= regression(name, truth, others, formula)
        print(name, json.dumps(table[name]), flush=True)
    for name, k in (("nonmetal", 2), ("dynamically_stable", 5)):
        others = {
            "shipped heads": 1 / (1 + np.exp(-guess[:, :, k].mean(0))),
            "extra-trees on composition and cell": trees(cells, y[:, k], fold, True),
            "constant": median(y[:, k], fold, True),
        }
        table |= classification(name, y[:, k], others, formula)
        print(name, json.dumps(table[name]), flush=True)
    result = {
        "split": f"{FOLDS} folds, whole reduced formulas, numpy seed 0",
        "data": "Materials Project crystals of at most 20 atoms; JARVIS-SC",
        "data_hash": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16],
        "seeds": SEEDS,
        "epochs": args.epochs,
        "targets": TARGETS,
        "center": center.tolist(),
        "spread": spread.tolist(),
        "head": settings.as_dict(),
        "table": table,
    }
    (args.out / "metrics.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
