"""Errors with intervals, and the baselines beside which they stand."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import average_precision_score

from data import FOLDS, FORMULA, MU_STAR, Data
from onnes.learn.ensemble import omega_2, tc_of


def interval(errors: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[float]:
    """95 % interval of the mean by resampling whole formulas."""
    _, where = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(where, errors), np.bincount(where)
    pick = np.random.default_rng(seed).integers(len(sums), size=(1000, len(sums)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    return [round(float(q), 4) for q in np.percentile(means, [2.5, 97.5])]


def precision_interval(hit: np.ndarray, score: np.ndarray, groups: np.ndarray) -> list[float]:
    """95 % interval of the average precision by resampling whole formulas."""
    names, where = np.unique(groups, return_inverse=True)
    rows = [np.flatnonzero(where == k) for k in range(len(names))]
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        pick = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        found.append(average_precision_score(hit[pick], score[pick]))
    return [round(float(q), 4) for q in np.percentile(found, [2.5, 97.5])]


def scores(log: np.ndarray, data: Data, keep: np.ndarray) -> dict:
    """Errors of log outputs (n, 4) on the rows of `keep`."""
    log, formula = log[keep], data.formula[keep]
    tc = tc_of(log, MU_STAR, FORMULA)
    found = {"lambda": np.exp(log[:, 0]), "omega_log_K": np.exp(log[:, 1]), "tc_K": tc}
    out: dict = {}
    for name, predicted in found.items():
        error = np.abs(predicted - data.truth[name][keep])
        out[name] = {"mae": round(float(error.mean()), 4), "ci95": interval(error, formula)}
    ratio = data.truth["omega_2_ratio"][keep]
    known = np.isfinite(ratio)
    if known.any():
        w2 = (data.truth["omega_log_K"][keep] * ratio)[known]
        error = np.abs(omega_2(log)[known] - w2)
        out["omega_2_K"] = {
            "mae": round(float(error.mean()), 4),
            "ci95": interval(error, formula[known]),
            "n": int(known.sum()),
        }
    hit = data.truth["tc_K"][keep] > 5.0
    out["average_precision_tc_5K"] = round(float(average_precision_score(hit, tc)), 4)
    out["average_precision_ci95"] = precision_interval(hit, tc, formula)
    out["share_tc_above_5K"] = round(float(hit.mean()), 4)
    out["n"] = int(keep.sum())
    return out


def baselines(data: Data) -> dict[str, np.ndarray]:
    """Out-of-fold log outputs (n, 4) of the constant and of extra-trees on composition and cell."""
    count = (data.z > 0).sum(1)
    composition = np.zeros((len(count), 101))
    for i, row in enumerate(data.z):
        np.add.at(composition[i], row[row > 0], 1.0 / count[i])
    cells = np.column_stack([composition, data.log_volume, count])
    fold, alex = data.fold, data.source == 0
    out = {n: np.zeros_like(data.y) for n in ("constant median", "extra-trees on composition and cell")}
    for k in range(FOLDS):
        train, test = np.flatnonzero((fold != k) & alex), fold == k
        out["constant median"][test] = np.nanmedian(data.y[train], 0)
        model = ExtraTreesRegressor(300, random_state=k, max_features=0.4)
        trees = out["extra-trees on composition and cell"]
        trees[test, :2] = model.fit(cells[train], data.y[train, :2]).predict(cells[test])
        trees[test, 2:] = np.nanmedian(data.y[train, 2:], 0)
    return out
