"""Train the order of prototype substitution (`onnes.generate.evidence`).

    python training/generate/prototype_order.py guess --data DATA --templates T.jsonl --out WORK/guesses.jsonl
    python training/generate/prototype_order.py fit --guesses WORK/guesses.jsonl --train-only --out WORK/t.safetensors
    python training/generate/prototype_order.py fit --guesses WORK/guesses.jsonl --out prototype_order.safetensors

``guess``: for every formula of the train and val rows of JARVIS-SC whose amounts occur among the templates (those of
prototypes.py, test formulas left out), guesses from all templates but those of the formula itself, and whether each
matches the rows. Line by line; rerun to resume. ``fit``: boosted trees on guesses against matches at the loose matcher,
five folds by formula for the figures, then all formulas (or those without a val row) for the weights. Formulas of the
test rows are left out of everything: 20 of them have other rows in the train or val split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from prototypes import MATCHERS, named_templates, split_of, structure_of
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from onnes.errors import CrystalError
from onnes.generate.evidence import COMPARED, KIND, PrototypeOrder, compared, rows_of
from onnes.generate.prototypes import Template, Templates, pool
from onnes.generate.shares import share
from onnes.learn.store import Checkpoint
from onnes.learn.tree_arrays import from_boosting

SETTINGS = {
    "max_iter": 150,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "random_state": 0,
}
FOLDS = 5


class LeftOut:
    """Templates without one formula, with the volumes of the elements from all."""

    def __init__(self, known: list[tuple[str, Template]]) -> None:
        self.volumes = Templates(t for _, t in known).volumes
        self.by_amounts: dict[tuple[int, ...], list[tuple[str, Template]]] = defaultdict(list)
        for formula, t in known:
            self.by_amounts[t.prototype.amounts].append((formula, t))

    def without(self, formula: str, amounts: tuple[int, ...]) -> Templates:
        some = Templates(t for name, t in self.by_amounts[amounts] if name != formula)
        some.volumes = self.volumes
        return some


def guess(data: Path, path: Path, out: Path) -> None:
    held = {r["formula"] for r in split_of(data, "test")}
    rows = defaultdict(list)
    for split in ("train", "val"):
        for row in split_of(data, split):
            if row["formula"] not in held:
                rows[row["formula"]].append(row)
    known = LeftOut(named_templates(path, held))
    done = {json.loads(line)["formula"] for line in out.open()} if out.exists() else set()
    began = time.time()
    with out.open("a", buffering=1) as stream:
        for count, (formula, same) in enumerate(rows.items()):
            if formula not in done:
                stream.write(json.dumps(line_of(formula, same, known)) + "\n")
            if count % 50 == 0:
                print(f"{count} of {len(rows)}, {time.time() - began:.0f} s", flush=True)


def line_of(formula: str, same: list[dict[str, Any]], known: LeftOut) -> dict[str, Any]:
    """Columns and matches of the guesses for one formula."""
    truth = [structure_of(row) for row in same]
    reduced = truth[0].composition.reduced_composition
    amounts = tuple(sorted((round(n) for n in reduced.values()), reverse=True))
    line: dict[str, Any] = {
        "formula": formula,
        # A formula of both splits counts as val.
        "split": same[-1]["split_atomgen"],
        "ids": [row["id"] for row in same],
    }
    try:
        found, total = pool(reduced.formula.replace(" ", ""), known.without(formula, amounts))
    except CrystalError as error:
        return line | {"columns": [], "share": [], "match": {}, "refused": error.code}
    made = [g.crystal.primitive() for g in found]
    return line | {
        "columns": rows_of([g.crystal for g in found], [g.evidence for g in found], total).tolist(),
        "share": [g.share for g in found],
        "match": {name: [[bool(m.fit(t, s)) for t in truth] for s in made] for name, m in MATCHERS.items()},
    }


def odds(lines: list[dict[str, Any]]) -> np.ndarray:
    """Log odds of every guess, from trees that saw neither its formula nor, in a fold, its neighbours."""
    x, y, group = stacked(lines)
    out = np.zeros(len(y))
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=0).split(x, groups=group):
        trees = HistGradientBoostingClassifier(**SETTINGS).fit(x[train], y[train])
        out[test] = trees.decision_function(x[test])
    return out


def stacked(lines: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.concatenate([compared(np.array(line["columns"])) for line in lines])
    y = np.concatenate([np.array(line["match"]["loose"]).any(axis=1) for line in lines])
    return x, y, np.repeat(np.arange(len(lines)), [len(line["share"]) for line in lines])


def rates(lines: list[dict[str, Any]], score: list[np.ndarray]) -> dict[str, Any]:
    """Match rates over rows of first guess, any of three and of six."""
    out: dict[str, Any] = {}
    for name in MATCHERS:
        for label, k in (("first", 1), ("any of three", 3), ("any of six", 6)):
            hits = count = 0
            for line, s in zip(lines, score, strict=True):
                match = np.array(line["match"][name])[np.argsort(-s, kind="stable")[:k]]
                hits += int(match.any(axis=0).sum())
                count += match.shape[1]
            out[f"{label}, {name}"] = share(hits, count).to_dict()
    return out


def fit(path: Path, out: Path, train_only: bool) -> None:
    every = [json.loads(line) for line in path.open()]
    lines = [line for line in every if line["columns"]]
    ends = np.cumsum([len(line["share"]) for line in lines])[:-1]
    learned = np.split(odds(lines), ends)
    votes = [np.array(line["share"]) for line in lines]
    card: dict[str, Any] = {
        "data": "jarvis_supercon, train and val rows of the public generation split; templates: prototypes.py",
        "guesses_hash": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "formulas": len(lines),
        "rows_without_template": sum(len(line["ids"]) for line in every if not line["columns"]),
        "folds": f"{FOLDS}, by formula; the formula's own templates always left out",
        "match_rate": {"learned": rates(lines, learned), "votes": rates(lines, votes)},
        "validation_rows": {
            name: rates(
                [line for line in lines if line["split"] == "val"],
                [s for line, s in zip(lines, score, strict=True) if line["split"] == "val"],
            )
            for name, score in (("learned", learned), ("votes", votes))
        },
    }
    used = [line for line in lines if line["split"] == "train" or not train_only]
    x, y, _ = stacked(used)
    trees = from_boosting(HistGradientBoostingClassifier(**SETTINGS).fit(x, y))
    card |= {"trained_on": len(used), "seed": SETTINGS["random_state"], "settings": SETTINGS}
    Checkpoint(KIND, {"base": trees.base, "columns": list(COMPARED)}, card, trees.tensors("trees")).save(out)
    assert np.allclose(PrototypeOrder(out).trees.predict(x[:100]), trees.predict(x[:100]))
    out.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")
    for name, found in card["match_rate"].items():
        for label, rate in found.items():
            print(
                f"{name}, {label}: {rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f}), n {rate['n']}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("guess", "fit"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--guesses", type=Path)
    parser.add_argument("--train-only", action="store_true", help="weights for choices on the val rows")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.what == "guess":
        guess(args.data, args.templates, args.out)
    else:
        fit(args.guesses, args.out, args.train_only)


if __name__ == "__main__":
    main()
