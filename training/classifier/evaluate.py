"""Score the classifier: python training/classifier/evaluate.py --out DIR [--open-test].

Without the flag: out-of-fold figures of the arms of finetune.py, a composition-only baseline and the constant,
and the calibration that pack.py ships (DIR/metrics.json). With it, once and at the end: the experimental set and the
105 superconductors of InvDesFlow (DIR/test.json).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from dataset import FOLDS, SETTINGS, Row, data_hash, folds, graphs, labelled, metals, read
from finetune import ARMS, logits
from magnets import kind_of, named
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from onnes.crystal.formula import atomic_numbers
from onnes.learn.descriptors import element_table
from onnes.nets.autoencoder import QUESTIONS, SuperconductorNet

DRAWS = 1000
#: Arm of finetune.py that is calibrated, tested and shipped.
SHIPPED = "pretrained-long"
SUPERCONDUCTORS = ("alexandria", "jarvis")
MAGNETS = ("named", "4f", "3d")


def composition(species: list[str]) -> np.ndarray:
    """Element fractions, and mean, deviation, least and largest of the element properties; no cell."""
    z = np.array([atomic_numbers()[s] for s in species])
    values = element_table()[z]
    share = np.bincount(z, minlength=104)[:104] / len(z)
    return np.concatenate([share, values.mean(0), values.std(0), values.min(0), values.max(0)])


class Ranking:
    """Truth and prediction of some rows, scored under weights of the rows.

    Drawing whole formulas with replacement is the same as counting each row as often as its formula was drawn;
    with the rows ranked once, a thousand draws cost seconds.
    """

    def __init__(self, truth: np.ndarray, p: np.ndarray) -> None:
        self.t, self.p = truth, p
        values, self.place = np.unique(p, return_inverse=True)
        self.m = len(values)

    def __call__(self, w: np.ndarray) -> np.ndarray:
        """AUROC, average precision, balanced accuracy at one half."""
        positive = np.bincount(self.place, w * self.t, self.m)
        negative = np.bincount(self.place, w * (1 - self.t), self.m)
        p, n = positive.sum(), negative.sum()
        area = (positive * (negative.cumsum() - negative / 2)).sum() / (p * n)
        found = positive[::-1].cumsum()
        passed = found + negative[::-1].cumsum()
        average = (positive[::-1] * found / np.maximum(passed, 1e-9)).sum() / p
        above = w * (self.p > 0.5)
        balanced = ((above * self.t).sum() / p + 1 - (above * (1 - self.t)).sum() / n) / 2
        return np.array([area, average, balanced])


STATISTICS = ("auroc", "average_precision", "balanced_accuracy")


def draws(formula: np.ndarray) -> np.ndarray:
    """Ones, then how often each row is drawn in every bootstrap sample of whole formulas, (DRAWS + 1, n)."""
    names, where = np.unique(formula, return_inverse=True)
    rng = np.random.default_rng(0)
    counts = [
        np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(DRAWS)
    ]
    return np.concatenate([np.ones((1, len(where))), np.stack(counts).astype(np.float32)[:, where]])


def summary(values: np.ndarray) -> dict:
    """Each statistic as [value, low, high]; the first row is that of the rows as they are."""
    low, high = np.percentile(values[1:], [2.5, 97.5], axis=0)
    triples = zip(values[0], low, high, strict=True)
    return {name: [round(float(v), 4) for v in t] for name, t in zip(STATISTICS, triples, strict=True)}


def scores(truth, p, formula) -> dict:
    ranking = Ranking(truth, p)
    found = {"n": len(truth), "formulas": len(np.unique(formula)), "positive": int(truth.sum())}
    return found | summary(np.array([ranking(w) for w in draws(formula)]))


def difference(truth, a, b, formula) -> dict:
    """Statistics of a minus b, on the same samples."""
    first, second = Ranking(truth, a), Ranking(truth, b)
    return summary(np.array([first(w) - second(w) for w in draws(formula)]))


def weights(kind, truth) -> np.ndarray:
    """Both answers weigh the same, and among the negatives of question 1 insulators as much as magnets."""
    group = np.where(truth == 1, 0, np.where(np.isin(kind, MAGNETS), 1, 2))
    size = np.bincount(group, minlength=3)
    share = np.where(size[1] > 0, 0.5, 0.0) * np.array([0, 1, 1]) + np.array([1, 0, 0])
    if size[1] == 0:
        share[2] = 1.0
    return (share / np.maximum(size, 1))[group] * len(truth) / 2


def platt(logit, truth, weight) -> tuple[float, float]:
    model = LogisticRegression(C=1e6).fit(logit[:, None], truth, weight)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def calibrated(logit, truth, kind, fold) -> np.ndarray:
    """Probabilities by Platt's scaling, fitted on the other folds each time."""
    p = np.full(len(truth), np.nan)
    for k in range(FOLDS):
        rest = fold != k
        a, b = platt(logit[rest], truth[rest], weights(kind[rest], truth[rest]))
        p[~rest] = sigmoid(a * logit[~rest] + b)
    return p


def reliability(truth, p, weight) -> dict:
    """Expected calibration error over ten bins and Brier score, in the balanced mixture."""
    where = np.minimum((p * 10).astype(int), 9)
    total = np.bincount(where, weight, 10)
    gap = np.abs(np.bincount(where, weight * p, 10) - np.bincount(where, weight * truth, 10))
    return {
        "expected_calibration_error": round(float(gap.sum() / total.sum()), 4),
        "brier": round(float((weight * (p - truth) ** 2).sum() / weight.sum()), 4),
        "brier_constant": 0.25,
    }


def trees(x, truth, weight, seed: int) -> ExtraTreesClassifier:
    return ExtraTreesClassifier(200, max_features=1 / 3, n_jobs=1, random_state=seed).fit(x, truth, weight)


def tree_logit(model, x) -> np.ndarray:
    p = model.predict_proba(x)[:, 1].clip(1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))


def questions(kind, labels) -> dict[str, tuple[int, np.ndarray]]:
    """Question, column of the logits, and rows asked."""
    one, two = np.isfinite(labels[:, 0]), np.isfinite(labels[:, 1])
    positive = labels[:, 0] == 1
    asked = {"superconductor against insulator or magnet": (0, one)}
    for name in ("insulator", *MAGNETS):
        asked[f"  against {name}"] = (0, positive | (kind == name))
    asked["Tc >= 5 K against < 0.5 K among Alexandria metals"] = (1, two)
    return asked


def out_of_fold(out: Path) -> None:
    data = np.load(out / "oof.npz")
    rows = {r.id: r for r in labelled()}
    kind, fold, labels, formula = (data[k] for k in ("kind", "fold", "labels", "formula"))
    x = np.array([composition(rows[i].species) for i in data["ids"]])
    models = {name: data[f"logit_{name}"].astype(float) for name, *_ in ARMS}
    models["trees on composition"] = np.full(labels.shape, np.nan)
    probability = {name: np.full(labels.shape, np.nan) for name in models}
    # What an earlier call scored stays as it is.
    if (out / "probabilities.npz").exists():
        with np.load(out / "probabilities.npz") as old:
            probability |= {k.removeprefix("p_"): old[k] for k in old if k.removeprefix("p_") in models}
    fresh = [name for name in models if np.isnan(probability[name]).all()]
    result: dict = {"shipped": SHIPPED, "calibration": {}, "reliability": {}}
    for column, question in enumerate(QUESTIONS):
        asked = np.flatnonzero(np.isfinite(labels[:, column]))
        t, k, f = labels[asked, column], kind[asked], fold[asked]
        for member in range(FOLDS) if "trees on composition" in fresh else ():
            train, test = asked[f != member], asked[f == member]
            w = weights(kind[train], labels[train, column])
            model = trees(x[train], labels[train, column], w, member)
            models["trees on composition"][test, column] = tree_logit(model, x[test])
        for name in fresh:
            probability[name][asked, column] = calibrated(models[name][asked, column], t, k, f)
        w = weights(k, t)
        result["calibration"][question] = platt(models[SHIPPED][asked, column], t, w)
        result["reliability"][question] = reliability(t, probability[SHIPPED][asked, column], w)
    table: dict = {}
    for name, (column, asked) in questions(kind, labels).items():
        t, g = labels[asked, column], formula[asked]
        row = {m: scores(t, probability[m][asked, column], g) for m in models}
        row["constant"] = {
            "auroc": 0.5,
            "average_precision": round(float(t.mean()), 4),
            "balanced_accuracy": 0.5,
        }
        p = {m: probability[m][asked, column] for m in models}
        row["pre-training: gain"] = difference(t, p["pretrained"], p["scratch"], g)
        row["pre-training: gain with a tenth"] = difference(t, p["pretrained-tenth"], p["scratch-tenth"], g)
        row["network: gain over trees"] = difference(t, p[SHIPPED], p["trees on composition"], g)
        table[name.strip()] = row
        print(name, json.dumps(row), flush=True)
    result |= {
        "split": f"{FOLDS} folds, whole reduced formulas, numpy seed 0",
        "rows": {k: int((kind == k).sum()) for k in np.unique(kind)},
        "data_hash": data_hash(list(rows.values())),
        "intervals": f"95 %, {DRAWS} bootstrap samples of whole formulas",
        "table": table,
        "network": SETTINGS.as_dict(),
    }
    (out / "metrics.json").write_text(json.dumps(result, indent=1))
    np.savez(out / "probabilities.npz", **{f"p_{k}": v for k, v in probability.items()})


def ensemble(out: Path, arm: str = SHIPPED) -> list[SuperconductorNet]:
    nets = []
    for k in range(FOLDS):
        net = SuperconductorNet(SETTINGS)
        net.load_state_dict(torch.load(out / f"net-{arm}-{k}.pt", weights_only=True))
        nets.append(net.eval())
    return nets


def guesses(nets, rows: list[dict], fold_of: dict[str, int], out: Path, calibration: dict) -> np.ndarray:
    """Probabilities (n, 2), by the network that has not seen the formula, or by all where none has."""
    built = graphs(rows, out)
    good = [i for i, g in enumerate(built) if g is not None]
    each = np.stack([logits(net, [built[i] for i in good]) for net in nets])
    p = np.full((len(rows), 2), np.nan)
    for j, i in enumerate(good):
        member = fold_of.get(rows[i]["formula"])
        logit = each[:, j].mean(0) if member is None else each[member, j]
        p[i] = [
            sigmoid(calibration[q][0] * x + calibration[q][1]) for q, x in zip(QUESTIONS, logit, strict=True)
        ]
    return p


def experiment(out: Path, rows: list[Row], nets, calibration: dict) -> dict:
    """Tc > 0 against 0 in the experimental set, formulas of the training rows left out."""
    seen = {r.formula for r in rows}
    test = [r for r in read("exp_superconductors_mp") if r["formula"] not in seen]
    p = guesses(nets, test, {}, out, calibration)
    truth = np.array([float(r["Tc_exp_K"] > 0) for r in test])
    formula = np.array([r["formula"] for r in test])
    columns = {"superconductor": p[:, 0], "strong": p[:, 1], "product": p[:, 0] * p[:, 1]}
    x = np.array([composition(r["species"]) for r in test])
    for column, question in enumerate(QUESTIONS):
        asked = [r for r in rows if np.isfinite((r.superconductor, r.strong)[column])]
        t = np.array([(r.superconductor, r.strong)[column] for r in asked])
        w = weights(np.array([r.kind for r in asked]), t)
        model = trees(np.array([composition(r.species) for r in asked]), t, w, 0)
        columns[f"{question}, trees on composition"] = model.predict_proba(x)[:, 1]
    conventional = np.array([r["class"] == "other" for r in test])
    open_shell = np.array([set(r["species"]) & {"Mn", "Fe", "Co", "Ni", "Cr"} != set() for r in test])
    parts = {"all": np.ones(len(test), bool), "class other": conventional}
    parts["class other, no Cr, Mn, Fe, Co, Ni"] = conventional & ~open_shell
    found: dict = {"left_out": len(read("exp_superconductors_mp")) - len(test)}
    for part, mask in parts.items():
        found[part] = {"constant": {"auroc": 0.5, "average_precision": round(float(truth[mask].mean()), 4)}}
        for name, values in columns.items():
            good = mask & np.isfinite(values)
            found[part][name] = scores(truth[good], values[good], formula[good]) | {
                "pass_share_superconductors": round(float((values[good & (truth == 1)] > 0.5).mean()), 4),
                "pass_share_zero": round(float((values[good & (truth == 0)] > 0.5).mean()), 4),
                "refused": int((mask & ~np.isfinite(values)).sum()),
            }
    return found


def share(p: np.ndarray, formula: np.ndarray) -> dict:
    """Share above one half, with a Wilson interval; a refused crystal does not pass."""
    n, hits, z = len(p), int((p > 0.5).sum()), 1.96
    centre, half = (hits + z**2 / 2) / (n + z**2), z * np.sqrt(hits * (n - hits) / n + z**2 / 4) / (n + z**2)
    low, high = round(float(centre - half), 4), round(float(centre + half), 4)
    return {
        "n": n,
        "formulas": len(set(formula)),
        "pass": hits,
        "share": round(hits / n, 4),
        "ci95": [low, high],
    }


def in_sample(out: Path, rows: list[Row], nets, calibration: dict) -> dict:
    """The 105 judged by the four networks that were trained on them: what a figure without folds would claim."""
    fold_of = dict(zip([r.formula for r in rows], folds(rows).tolist(), strict=True))
    some = [r for r in read("invdesflow_105") if r["formula"] in fold_of]
    each = np.stack([logits(net, graphs(some, out)) for net in nets])
    p = np.zeros((len(some), len(QUESTIONS)))
    for j, row in enumerate(some):
        logit = np.delete(each[:, j], fold_of[row["formula"]], axis=0).mean(0)
        p[j] = [
            sigmoid(calibration[q][0] * x + calibration[q][1]) for q, x in zip(QUESTIONS, logit, strict=True)
        ]
    formula = [r["formula"] for r in some]
    return {q: share(p[:, k], formula) for k, q in enumerate(QUESTIONS)}


def passing(out: Path, rows: list[Row], nets, calibration: dict) -> dict:
    """Recall of the 105 beside the share of random metals that pass as well."""
    fold_of = dict(zip([r.formula for r in rows], folds(rows).tolist(), strict=True))
    the_105 = read("invdesflow_105")
    every = metals()
    known = named()
    others = [r for r in every if kind_of(r["species"], True, known) is None]
    found: dict = {}
    sets = {"invdesflow_105": the_105}
    for name, some in (("random metals", every), ("random metals, magnets left out", others)):
        sets[name] = [some[i] for i in np.random.default_rng(0).permutation(len(some))[:1000]]
    for name, some in sets.items():
        p = guesses(nets, some, fold_of, out, calibration)
        formula = [r["formula"] for r in some]
        found[name] = {q: share(p[:, k], formula) for k, q in enumerate(QUESTIONS)}
        found[name]["median"] = [round(float(v), 4) for v in np.nanmedian(p, axis=0)]
        found[name]["formulas in training, judged by the network of another fold"] = sum(
            f in fold_of for f in formula
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--open-test", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.open_test:
        out_of_fold(args.out)
        return
    calibration = json.loads((args.out / "metrics.json").read_text())["calibration"]
    rows, nets = labelled(), ensemble(args.out)
    found = {
        "experiment": experiment(args.out, rows, nets, calibration),
        "passing": passing(args.out, rows, nets, calibration),
        "invdesflow_105 in sample": in_sample(args.out, rows, nets, calibration),
    }
    (args.out / "test.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
