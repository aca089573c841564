"""Held-out errors of the spectral networks beside their baselines: score.py --work DIR --direct oof.npz --out JSON.

Every crystal is predicted by the members of its own fold only (grouped cross-validation). Rows with a curve are
compared with the moments of the curve, in its convention of labels; rows of Alexandria with their lambda, omega_log
and Tc. Intervals: 95 %, bootstrap over whole formulas.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from data import FOLDS, MEV, SpectrumSettings, fold_of, load
from onnes.learn.spectrum_fit import SpectrumData
from onnes.nets.spectrum import GRIDS
from onnes.theory.tc import tc_array

MU_STAR = 0.10
QUANTITIES = ("lambda", "omega_log_K", "omega_2_K", "tc_K")
HIGH_TC_K = 5.0


@dataclass
class Held:
    """Predictions of crystals by networks that had not seen their formula.

    Attributes
    ----------
    values : ndarray, shape (members, n, K)
        alpha2F in the convention of the crystal's own labels; NaN where the member has seen the crystal.
    own : ndarray of bool, shape (members, n)
        Whether the crystal is of the member's own fold.
    """

    values: np.ndarray
    own: np.ndarray


def read(folder: Path, name: str, data: SpectrumData, grid) -> Held:
    """Outputs of all finished members."""
    place = {i: k for k, i in enumerate(data.ids)}
    fold = fold_of(data.group)
    files = sorted(folder.glob(f"{name}-[0-9]-[0-9].npz"))
    values = np.full((len(files), len(data), len(grid.omega_meV)), np.nan, dtype=np.float32)
    own = np.zeros((len(files), len(data)), dtype=bool)
    for m, file in enumerate(files):
        with np.load(file) as found:
            rows = np.array([place.get(str(i), -1) for i in found["id"]])
            kept = rows >= 0
            shares = found["shares"][kept].astype(float)
            shares /= shares.sum(1, keepdims=True)
            values[m, rows[kept]] = grid.values(shares, np.exp(found["moments"][kept, 0]))
            own[m, rows[kept]] = fold[rows[kept]] == int(found["fold"])
    return Held(values, own)


def quantities(moments: np.ndarray) -> dict[str, np.ndarray]:
    """lambda, omega_log, omega_2, Tc of ln lambda, ln omega_log/meV, ln omega_2/meV."""
    lam, log = np.exp(moments[:, 0]), np.exp(moments[:, 1]) * MEV
    second = np.exp(moments[:, 2]) * MEV
    # Where omega_2 is unknown the usual ratio stands in (Alexandria's median).
    usual = np.where(np.isfinite(second), np.maximum(second, log), 1.18 * log)
    return {
        "lambda": lam,
        "omega_log_K": log,
        "omega_2_K": second,
        "tc_K": tc_array(lam, log, usual, mu_star=MU_STAR),
    }


def curve_moments(values: np.ndarray, grid) -> np.ndarray:
    """ln lambda, ln omega_log, ln omega_2 (meV) of curves (n, K)."""
    parts = values * grid.coupling
    lam = np.maximum(parts.sum(1), 1e-6)
    share = parts / lam[:, None]
    return np.column_stack([np.log(lam), share @ grid.log_omega, np.log(share @ grid.square_omega) / 2.0])


def interval(statistic, group: np.ndarray, n: int = 400) -> list[float]:
    """95 % interval of a function of row indices, whole groups resampled."""
    _, where = np.unique(group, return_inverse=True)
    rows = [np.flatnonzero(where == g) for g in range(where.max() + 1)]
    rng, found = np.random.default_rng(0), []
    for _ in range(n):
        found.append(statistic(np.concatenate([rows[g] for g in rng.integers(len(rows), size=len(rows))])))
    return [round(float(q), 4) for q in np.nanpercentile(found, [2.5, 97.5])]


def errors(predicted: dict, truth: dict, group: np.ndarray, *, precise: bool = False) -> dict:
    """MAE, RMSE and R2 of each quantity with the interval of the MAE, and average precision for high Tc."""
    out: dict = {"n": len(group)}
    for name in QUANTITIES:
        t, p = truth[name], predicted[name]
        known = np.isfinite(t) & np.isfinite(p)
        if not known.any():
            continue
        off = (p - t)[known]
        absolute = np.abs(off)
        out[name] = {
            "mae": round(float(np.abs(off).mean()), 4),
            "ci95": interval(lambda i, a=absolute: a[i].mean(), group[known]),
            "rmse": round(float(np.sqrt((off**2).mean())), 4),
            "r2": round(float(1.0 - (off**2).sum() / ((t[known] - t[known].mean()) ** 2).sum()), 3),
            "n": int(known.sum()),
        }
    hit = truth["tc_K"] >= HIGH_TC_K
    if hit.any():
        score = predicted["tc_K"]
        out["average_precision_tc_5K"] = round(float(average_precision_score(hit, score)), 3)
        out["average_precision_ci95"] = interval(
            lambda i: average_precision_score(hit[i], score[i]) if hit[i].any() else np.nan, group, 200
        )
        out["share_tc_above_5K"] = round(float(hit.mean()), 3)
    return out


def curve_errors(values: np.ndarray, truth: np.ndarray, group: np.ndarray, grid) -> dict:
    """Errors of whole curves: area between the curves over the area of the true one, and R2 of the values."""
    area = (np.abs(values - truth) @ grid.width_meV) / (truth @ grid.width_meV)
    square = ((values - truth) ** 2) @ grid.width_meV
    total = ((truth - truth.mean(0)) ** 2) @ grid.width_meV
    return {
        "area_between": round(float(area.mean()), 3),
        "ci95": interval(lambda i: area[i].mean(), group),
        "r2": round(float(1.0 - square.sum() / total.sum()), 3),
        "r2_ci95": interval(lambda i: 1.0 - square[i].sum() / total[i].sum(), group),
    }


def table(work: Path, direct: Path) -> dict:
    """Everything, by set of rows and model."""
    data, grid = load(SpectrumSettings(), [], None, modes=False), GRIDS["quadratic"]()
    fold, place = fold_of(data.group), {i: k for k, i in enumerate(data.ids)}
    truth = data.moments.copy()
    truth[:, 2] += truth[:, 1]
    true_curves = grid.values(data.shares, np.exp(truth[:, 0]))
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for name in ("mean", "linear", "alignn"):
        with np.load(work / f"baseline-{name}.npz") as z:
            rows = [place[str(i)] for i in z["id"]]
            moments = np.full((len(data), 3), np.nan)
            moments[rows] = z["moments"]
            values = None
            if "values" in z.files:
                values = np.full((len(data), len(grid.omega_meV)), np.nan)
                values[rows] = z["values"]
            found[name] = (moments, values)
    with np.load(direct) as z:
        log = z["log"].mean(0)
        moments = np.full((len(data), 3), np.nan)
        for k, i in enumerate(z["id"]):
            if str(i) in place:
                moments[place[str(i)]] = [
                    log[k, 0],
                    log[k, 1] - np.log(MEV),
                    log[k, 1] + max(log[k, 3], 0) - np.log(MEV),
                ]
        found["direct"] = (moments, None)
    for name in ("cso", "cpd", "fpd"):
        if not list((work / name).glob(f"{name}-[0-9]-[0-9].npz")):
            continue
        held = read(work / name, name, data, grid)
        strict = np.where(held.own[:, :, None], held.values, np.nan)
        with np.errstate(all="ignore"):
            mean = np.nanmean(strict, axis=0)
        moments = np.full((len(data), 3), np.nan)
        known = np.isfinite(mean[:, 0])
        moments[known] = curve_moments(mean[known], grid)
        found[name] = (moments, mean)
    medians = np.empty_like(truth)
    for k in range(FOLDS):
        for s in (0, 1):
            here = (data.source == s) & (fold == k)
            medians[here] = np.nanmedian(truth[(data.source == s) & (fold != k)], 0)
    found["constant median"] = (medians, None)
    result: dict = {}
    sets = {
        "curves": data.has_curve,
        "alexandria": data.source == 0,
        "jarvis moments": (data.source == 1) & ~data.has_curve,
    }
    for label, keep in sets.items():
        for model, (moments, values) in found.items():
            rows = np.flatnonzero(keep & np.isfinite(moments[:, 0]))
            if len(rows) < 30:
                continue
            entry = errors(quantities(moments[rows]), quantities(truth[rows]), data.group[rows])
            if label == "curves" and values is not None:
                entry["curve"] = curve_errors(values[rows], true_curves[rows], data.group[rows], grid)
            result.setdefault(label, {})[model] = entry
    common = np.flatnonzero(
        data.has_curve & np.all([np.isfinite(m[:, 0]) for m, _ in found.values()], axis=0)
    )
    for model, (moments, values) in found.items():
        if len(common) < 30:
            break
        entry = errors(quantities(moments[common]), quantities(truth[common]), data.group[common])
        if values is not None:
            entry["curve"] = curve_errors(values[common], true_curves[common], data.group[common], grid)
        result.setdefault("curves that every model has", {})[model] = entry
    if "cpd" in found:
        rows = np.flatnonzero((data.source == 0) & np.isfinite(found["cpd"][0][:, 0]))
        for model in ("constant median", "direct", "cso", "cpd", "linear"):
            good = rows[np.isfinite(found[model][0][rows, 0])]
            entry = errors(quantities(found[model][0][good]), quantities(truth[good]), data.group[good])
            result.setdefault("alexandria crystals with phonons", {})[model] = entry
    return result


def lines(result: dict) -> list[str]:
    """The table in Markdown."""
    out = []
    for label, models in result.items():
        out += [
            f"\n{label}:\n",
            "| model | n | lambda | omega_log / K | omega_2 / K | Tc / K | AP | area | R2 |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for model, e in models.items():
            cells = [model, str(e["n"])]
            for q in QUANTITIES:
                digits = 3 if q == "lambda" else 2 if q == "tc_K" else 1
                if q in e:
                    x = e[q]
                    cells.append(
                        f"{x['mae']:.{digits}f} [{x['ci95'][0]:.{digits}f}, {x['ci95'][1]:.{digits}f}] R2 {x['r2']}"
                    )
                else:
                    cells.append("")
            cells.append(f"{e.get('average_precision_tc_5K', '')} {e.get('average_precision_ci95', '')}")
            c = e.get("curve", {})
            cells += [f"{c.get('area_between', '')} {c.get('ci95', '')}", str(c.get("r2", ""))]
            out.append("| " + " | ".join(cells) + " |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--direct", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = table(args.work, args.direct)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    print("\n".join(lines(result)))


if __name__ == "__main__":
    main()
