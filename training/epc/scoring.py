"""Errors with intervals, and the baselines beside which they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from data import FOLDS, FORMULA, MU_STAR, Data
from onnes.learn.epc import omega_2, tc_of


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
    w2 = data.truth["omega_log_K"][keep] * data.truth["omega_2_ratio"][keep]
    dos = np.exp(data.y[keep, 2])
    for name, predicted, actual in (
        ("omega_2_K", omega_2(log), w2),
        ("dos_ef_states_eV_atom", np.exp(log[:, 2]), dos),
    ):
        known = np.isfinite(actual) & np.isfinite(predicted)
        if known.any():
            error = np.abs(predicted - actual)[known]
            out[name] = {
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


def by_id(path: Path, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Rows and outputs of a file of training/alignn, which keeps its crystals in the order of their ids."""
    order = np.argsort(np.array(data.ids))
    with np.load(path) as found:
        return order[found["test"]], found["out"]


def gain(log: np.ndarray, other: np.ndarray, data: Data, keep: np.ndarray) -> dict:
    """How much smaller the errors of `log` (n, 4) are than those of `other`, on the same crystals."""
    out = {}
    for name in ("lambda", "omega_log_K", "tc_K"):
        errors = []
        for one in (other[keep], log[keep]):
            lam, wlog = np.exp(one[:, 0]), np.exp(one[:, 1])
            found = {"lambda": lam, "omega_log_K": wlog, "tc_K": tc_of(one, MU_STAR, FORMULA)}
            errors.append(np.abs(found[name] - data.truth[name][keep]))
        difference = errors[0] - errors[1]
        out[name] = {
            "mae": round(float(difference.mean()), 4),
            "ci95": interval(difference, data.formula[keep]),
        }
    return out


def baselines(data: Data, folder: Path) -> dict[str, np.ndarray]:
    """Out-of-fold log outputs (n, 4) of the constant and of the package's extra-trees on composition and cell.

    The trees (lambda and omega_log; omega_2/omega_log is the constant) are those of training/alignn/baselines.py, in
    the same folds: `folder` holds trees-FOLD.npz.
    """
    fold, alex = data.fold, data.source == 0
    constant = np.zeros_like(data.y)
    for k in range(FOLDS):
        constant[fold == k] = np.nanmedian(data.y[(fold != k) & alex], 0)
    trees = constant.copy()
    trees[:, 2] = np.nan
    for k in range(FOLDS):
        rows, out = by_id(folder / f"trees-{k}.npz", data)
        if not (fold[rows] == k).all():
            raise SystemExit(f"fold {k} of the trees is not fold {k} of the heads")
        trees[rows, :2] = out[:, :2]
    return {"constant median": constant, "extra-trees on composition and cell": trees}
