"""Pool study with hidden labels: crystals with Tc > 10 K found per 100 queries.

    python training/active/pool.py --data DATA --out pool.json

The pool are the Alexandria electron-phonon crystals; labels of 200 random formulas are known at first, and
their formulas are out of the pool. In each of five rounds a strategy labels 100 crystals of as many formulas
(one crystal a formula, the best of it; its other crystals leave the pool, so that no formula is labelled and
guessed at once), and the surrogate, 200 extremely randomised trees on composition and cell, learns from all
labels known. Five seeds; resumes.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor

from onnes.campaign.active import STRATEGIES, choose
from onnes.data.records import Record
from onnes.learn.descriptors import describe

START, BATCH, ROUNDS, SEEDS, TARGET_K, FLOOR_K = 200, 100, 5, 5, 10.0, 0.3


def load(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, Tc (K) and formulas."""
    with gzip.open(path / "alexandria_eph.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    records = [
        Record(id=r["id"], source="alexandria", lattice=r["lattice"], species=r["species"], frac=r["frac"])
        for r in rows
    ]
    x = describe(records, "structure")
    return x, np.array([r["Tc_K"] for r in rows]), np.array([r["formula"] for r in rows])


def found_by(strategy: str, seed: int, x: np.ndarray, tc: np.ndarray, formulas: np.ndarray) -> list[int]:
    """Hits after each round."""
    rng = np.random.default_rng(seed)
    start = set(rng.choice(np.unique(formulas), START, replace=False).tolist())
    known = np.flatnonzero([f in start for f in formulas])
    free = np.setdiff1d(np.arange(len(tc)), known)
    y, target = np.log10(tc + FLOOR_K), float(np.log10(TARGET_K + FLOOR_K))
    hits, out = 0, []
    for k in range(ROUNDS):
        trees = ExtraTreesRegressor(200, max_features=1 / 3, n_jobs=1, random_state=seed * 100 + k)
        trees.fit(x[known], y[known])
        each = np.stack([t.predict(x[free]) for t in trees.estimators_])
        ranked = choose(
            each.mean(0),
            each.std(0),
            len(free),
            strategy=strategy,
            target=target,
            best=float(y[known].max()),
            seed=seed * 100 + k,
        )
        batch, seen = [], set()
        for i in free[ranked].tolist():
            if formulas[i] not in seen:
                batch.append(i)
                seen.add(formulas[i])
            if len(batch) == BATCH:
                break
        hits += int((tc[batch] > TARGET_K).sum())
        out.append(hits)
        known = np.concatenate([known, batch])
        free = np.array([i for i in free if formulas[i] not in seen])
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    x, tc, formulas = load(args.data)
    log = args.out.with_suffix(".jsonl")
    done = [json.loads(line) for line in log.open()] if log.exists() else []
    for seed in range(SEEDS):
        for strategy in STRATEGIES:
            if any(d["seed"] == seed and d["strategy"] == strategy for d in done):
                continue
            row = {"seed": seed, "strategy": strategy, "hits": found_by(strategy, seed, x, tc, formulas)}
            done.append(row)
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    table = {"n_pool": len(tc), "share_above": float((tc > TARGET_K).mean())}
    for strategy in STRATEGIES:
        hits = np.array([d["hits"] for d in done if d["strategy"] == strategy], dtype=float)
        half = stats.t.ppf(0.975, len(hits) - 1) * hits.std(0, ddof=1) / np.sqrt(len(hits))
        table[strategy] = {"hits": hits.mean(0).round(1).tolist(), "half_ci95": half.round(1).tolist()}
    args.out.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
