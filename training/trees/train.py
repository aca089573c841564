"""Cross-validate and write the trees: python training/trees/train.py --out src/onnes/pretrained/trees.safetensors.

Five folds of whole formulas over the Alexandria rows; conformal intervals from their residuals; then one model on
all rows. Without --out only the cross-validation is printed (to compare settings).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import sklearn
from pymatgen.core import Lattice, Structure
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

from onnes.crystal.formula import numbers
from onnes.data.records import Record, read_records
from onnes.data.splits import groups, kfold
from onnes.learn import calibrate, domain, metrics, retrieval
from onnes.learn.calibrate import Space
from onnes.learn.descriptors import describe
from onnes.learn.fallback import KIND, OUTPUTS, REFERENCE
from onnes.learn.store import Checkpoint
from onnes.learn.tree_arrays import from_boosting
from onnes.theory.tc import tc_array

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDS, SEED, RATIO = 5, 0, 1.18
SPACES = {
    "lambda": Space(0.02),
    "omega_log_K": Space(5.0),
    "dos_ef_states_eV_atom": Space(0.01),
    "Tc_K": Space(0.3),
}
EDGES = {"lambda": (0.3, 0.6, 1.2), "omega_log_K": (100.0, 200.0, 300.0), "Tc_K": (1.0, 5.0, 10.0)}
LEVELS = {"lambda": 0.683, "omega_log_K": 0.683, "Tc_K": 0.9}


def make(args: argparse.Namespace, seed: int):
    if args.model == "extra-trees":
        return ExtraTreesRegressor(200, max_features=1 / 3, n_jobs=1, random_state=seed)
    return HistGradientBoostingRegressor(
        loss=args.loss,
        max_iter=args.iterations,
        learning_rate=args.rate,
        max_leaf_nodes=args.leaves,
        l2_regularization=1.0,
        max_features=args.share,
        early_stopping=False,
        random_state=seed,
    )


def truth_of(records) -> dict[str, np.ndarray]:
    dos = np.array([r.labels.get("dos_ef_states_eV_cell", np.nan) / len(r.species) for r in records])
    named = {k: np.array([r.labels[k] for r in records]) for k in ("lambda", "omega_log_K", "Tc_K")}
    return {**named, "dos_ef_states_eV_atom": np.where(dos > 0, dos, np.nan)}


def learn(x: np.ndarray, y: np.ndarray, rows: np.ndarray, name: str, args, seed: int):
    rows = rows[np.isfinite(y[rows]) & np.isfinite(x[rows]).all(axis=1)]
    return make(args, seed).fit(x[rows], SPACES[name].forward(y[rows]))


def tc_of(found: dict[str, np.ndarray]) -> np.ndarray:
    lam, wlog = found["lambda"], found["omega_log_K"]
    return tc_array(lam, wlog, RATIO * wlog, **REFERENCE)


def cross_validate(x, truth, group, args) -> tuple[dict, dict]:
    """Out-of-fold predictions and the medians of the training rows."""
    found = {k: np.full(len(x), np.nan) for k in OUTPUTS}
    median = {k: np.full(len(x), np.nan) for k in truth}
    for k, fold in enumerate(kfold(group, FOLDS, SEED)):
        for name in OUTPUTS:
            model = learn(x, truth[name], fold.train, name, args, 100 * SEED + k)
            found[name][fold.test] = SPACES[name].backward(model.predict(x[fold.test]))
        for name, values in truth.items():
            median[name][fold.test] = np.nanmedian(values[fold.train])
        print(f"fold {k} done", flush=True)
    return {**found, "Tc_K": tc_of(found)}, median


def figures(truth, found, median, group, keep) -> dict:
    out: dict[str, dict] = {}
    for name, values in truth.items():
        rows = np.flatnonzero(keep & np.isfinite(values))
        s = metrics.bootstrap("mae", values[rows], found[name][rows], group[rows])
        constant = metrics.score("mae", values[rows], median[name][rows]).value
        out[name] = {
            "mae": round(s.value, 4),
            "ci95": [round(s.low, 4), round(s.high, 4)],
            "constant": round(constant, 4),
            "n": s.n,
        }
    rows = np.flatnonzero(keep)
    ap = retrieval.average_precision(truth["Tc_K"][rows], found["Tc_K"][rows], group[rows], 5.0)
    out["average_precision_tc_5K"] = {
        "value": round(ap.value, 4),
        "ci95": [round(ap.low, 4), round(ap.high, 4)],
        "constant": round(float((truth["Tc_K"][rows] > 5).mean()), 4),
        "n": ap.n,
    }
    return out


def calibration(truth, found, group) -> tuple[dict, dict]:
    stored, shares = {}, {}
    for name, edges in EDGES.items():
        settings = {"level": LEVELS[name], "space": SPACES[name], "edges": edges}
        stored[name] = calibrate.fit(truth[name], found[name], group, **settings).to_dict()
        report = calibrate.coverage_report(
            truth[name], found[name], group, ranges=(-np.inf, *edges, np.inf), seed=SEED, **settings
        )
        by_truth = calibrate.coverage_report(
            truth[name],
            found[name],
            group,
            ranges=(-np.inf, *edges, np.inf),
            by_truth=True,
            seed=SEED,
            **settings,
        )
        shares[name] = {
            "nominal": LEVELS[name],
            "by_prediction": [[c.low, c.high, round(c.share, 4), c.n] for c in report],
            "by_truth": [[c.low, c.high, round(c.share, 4), c.n] for c in by_truth],
        }
    # JSON has no infinities.
    return stored, json.loads(json.dumps(shares).replace("-Infinity", "null").replace("Infinity", "null"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--oof", type=Path, help="Folder for out-of-fold predictions as csv (never committed)."
    )
    parser.add_argument("--model", default="boosting", choices=["boosting", "extra-trees"])
    parser.add_argument("--descriptors", default="invariant", choices=["cell", "structure", "invariant"])
    parser.add_argument("--loss", default="squared_error")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--leaves", type=int, default=31)
    parser.add_argument("--share", type=float, default=1.0, help="Share of the columns tried at a split.")
    args = parser.parse_args()
    begun = time.process_time()
    path = SHARED / "data" / "alexandria_eph.jsonl.gz"
    records = [r for r in read_records(path) if r.labels["lambda"] > 0 and r.labels["omega_log_K"] > 0]
    x, truth, group = describe(records, args.descriptors), truth_of(records), groups(records)
    found, median = cross_validate(x, truth, group, args)
    sets = np.array([r.meta.get("set") for r in records])
    strong = truth["lambda"] > 1.2
    parts = {
        "all": np.ones(len(x), dtype=bool),
        "DS-A (bulk)": sets == "DS-A",
        "DS-B (selected for high Tc)": sets == "DS-B",
        "lambda up to 1.2": ~strong,
        "lambda above 1.2": strong,
    }
    table = {name: figures(truth, found, median, group, keep) for name, keep in parts.items()}
    print(json.dumps(table["all"], indent=1), f"{time.process_time() - begun:.0f} CPU s", flush=True)
    if args.oof:
        write_oof(args.oof, records, truth, found)
    if not args.out:
        return
    stored, shares = calibration(truth, found, group)
    every = np.arange(len(x))
    models = {name: learn(x, truth[name], every, name, args, SEED) for name in OUTPUTS}
    trees = {name: from_boosting(model) for name, model in models.items()}
    for name in OUTPUTS:
        off = np.abs(trees[name].predict(x) - models[name].predict(x)).max()
        print(f"{name}: arrays and scikit-learn differ by {off:.1e}")
    counts, volumes = domain.coverage_of(
        [numbers(r.structure()) for r in records], [abs(r.volume) / len(r.species) for r in records]
    )
    digest = hashlib.sha256(x.tobytes() + b"".join(truth[k].tobytes() for k in sorted(truth))).hexdigest()[
        :16
    ]
    settings = {
        "descriptors": args.descriptors,
        "columns": int(x.shape[1]),
        "base": {name: t.base for name, t in trees.items()},
        "floor": {name: SPACES[name].floor for name in OUTPUTS},
        "omega_2_ratio": RATIO,
        "calibration": stored,
        "element_counts": counts,
        "volume_per_atom_range": volumes,
    }
    card = {
        "data": "Alexandria electron-phonon rows (alexandria_eph, DS-A and DS-B)",
        "n": len(x),
        "formulas": int(group.max()) + 1,
        "elements": len(counts),
        "model": vars(args) | {"out": args.out.name, "oof": None},
        "command": "training/trees/train.py; see training/trees/README.md",
        "cross_validation": {
            "split": f"{FOLDS} folds of whole reduced formulas, seed {SEED}",
            "data_hash": digest,
            "constant": "median of the training rows; for average precision the share of positives",
            **{k: v for k, v in REFERENCE.items()},
            "omega_2/omega_log": RATIO,
            "table": table,
        },
        "interval": {
            "method": "conformal, one width per range of the prediction (Mondrian), residuals of held-out formulas"
            " in ln(x + floor); Tc at the mu* and formula above, for others the same width in ln(Tc + 0.3 K)",
            "columns of the lists": "from, to, share inside, n (each row calibrated on other folds)",
            "coverage": shares,
        },
        "note": "The shipped trees are trained on all rows; errors and intervals are of five models trained on 80 %.",
        "check": check(models, args.descriptors),
        "cpu_seconds": round(time.process_time() - begun),
        "environment": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
    }
    tensors = {k: v for name, t in trees.items() for k, v in t.tensors(name).items()}
    Checkpoint(KIND, settings, card, tensors).save(args.out)
    args.out.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card["interval"]["coverage"]["Tc_K"]), args.out.stat().st_size, "bytes")


def check(models: dict, kind: str) -> dict:
    """What scikit-learn says of four well-known crystals, for the tests of the arrays."""
    hexagonal = Lattice.hexagonal(3.086, 3.524)
    crystals = {
        "Al": Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]]),
        "Nb": Structure.from_spacegroup("Im-3m", Lattice.cubic(3.30), ["Nb"], [[0, 0, 0]]),
        "NbN": Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(4.39), ["Nb", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ),
        "MgB2": Structure(hexagonal, ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]),
    }
    x = describe([Record.from_structure(s, k) for k, s in crystals.items()], kind)
    found = {name: SPACES[name].backward(model.predict(x)) for name, model in models.items()}
    return {k: {name: float(v[i]) for name, v in found.items()} for i, k in enumerate(crystals)}


def write_oof(folder: Path, records, truth, found) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("lambda", "omega_log_K", "Tc_K")
    lines = ["id,formula," + ",".join([*names, *(f"{k}_pred" for k in names)])]
    for i, r in enumerate(records):
        values = [truth[k][i] for k in names] + [found[k][i] for k in names]
        lines.append(",".join([r.id, r.formula, *(f"{v:.9g}" for v in values)]))
    (folder / "oof.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
