"""Fine-tune the classifier: python training/classifier/finetune.py --out DIR.

Five folds of whole formulas. Four arms that differ in nothing but their name: with and without pre-training, with all
labels of the training folds and with those of a tenth of the formulas; and one that learns longer, which is shipped.
Each finished network is kept, so a rerun resumes. Ends with DIR/oof.npz.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from dataset import FOLDS, SETTINGS, Row, folds, graphs, labelled
from torch.nn.functional import binary_cross_entropy_with_logits

from onnes.graph.batch import collate
from onnes.nets.autoencoder import SuperconductorNet

#: Rows drawn for every step: superconductors, insulators, rare-earth magnets, other magnets, weak metals.
DRAW = {"positive": 48, "insulator": 24, "4f": 12, "magnet": 12, "weak": 32}
RATE = 1.5e-3
#: Name, pre-trained, share of the training formulas that keep their labels, steps as a share of --steps.
ARMS = (
    ("pretrained", True, 1.0, 1.0),
    ("scratch", False, 1.0, 1.0),
    ("pretrained-tenth", True, 0.1, 0.5),
    ("scratch-tenth", False, 0.1, 0.5),
    ("pretrained-long", True, 1.0, 2.5),
)


def pool_of(row: Row) -> str:
    if row.superconductor == 1.0:
        return "positive"
    if row.kind in ("named", "3d"):
        return "magnet"
    return row.kind if row.kind in ("insulator", "4f") else "weak"


def fit(train: np.ndarray, data: tuple, start: dict | None, seed: int, steps: int) -> SuperconductorNet:
    """One network from the rows of ``train``; ``start`` holds the weights of a pre-trained encoder."""
    all_graphs, labels, pools = data
    torch.manual_seed(seed)
    net = SuperconductorNet(SETTINGS)
    if start is not None:
        net.encoder.load_state_dict(start)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    groups = {name: train[pools[train] == name] for name in DRAW}
    # Strong and weak metals are to weigh the same in question 2.
    strong = float((labels[groups["positive"], 1] == 1).mean()) * DRAW["positive"]
    weight = torch.tensor([1.0, DRAW["weak"] / max(strong, 1.0)])
    for _ in range(steps):
        rows = np.concatenate([rng.choice(groups[name], size) for name, size in DRAW.items()])
        out = net(collate([all_graphs[i] for i in rows]))
        target = torch.as_tensor(labels[rows]).float()
        asked = target.isfinite()
        error = binary_cross_entropy_with_logits(
            out, target.nan_to_num(), reduction="none", pos_weight=weight
        )
        loss = ((error * asked).sum(0) / asked.sum(0).clamp(min=1)).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return net.eval()


def logits(net: SuperconductorNet, some: list, batch: int = 256) -> np.ndarray:
    with torch.no_grad():
        parts = [net(collate(some[k : k + batch])).numpy() for k in range(0, len(some), batch)]
    return np.concatenate(parts)


def keep_share(train: np.ndarray, formula: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of a random share of the formulas."""
    names = np.unique(formula[train])
    kept = np.random.default_rng(seed).permutation(names)[: round(share * len(names))]
    return train[np.isin(formula[train], kept)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = labelled()
    built = graphs(rows, args.out)
    kept = [k for k, g in enumerate(built) if g is not None]
    rows, all_graphs = [rows[k] for k in kept], [built[k] for k in kept]
    labels = np.array([[r.superconductor, r.strong] for r in rows])
    pools, fold = np.array([pool_of(r) for r in rows]), folds(rows)
    formula = np.array([r.formula for r in rows])
    print(len(rows), "rows", dict(zip(*np.unique(pools, return_counts=True), strict=True)), flush=True)
    # Only the encoder is taken over; its decoder has served.
    whole = torch.load(args.out / "autoencoder.pt", weights_only=True)
    start = {k.removeprefix("encoder."): v for k, v in whole.items() if k.startswith("encoder.")}
    found = {name: np.full((len(rows), 2), np.nan, np.float32) for name, *_ in ARMS}
    done: dict[str, np.ndarray] = {}
    if (args.out / "oof.npz").exists():
        with np.load(args.out / "oof.npz") as old:
            done = {k.removeprefix("logit_"): old[k] for k in old if k.startswith("logit_")}
    # Fold by fold, so that an interrupted run has every arm of the first folds.
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        for name, pre, share, part in ARMS:
            if name in done:
                found[name] = done[name]
                continue
            path, clock = args.out / f"net-{name}-{k}.pt", time.process_time()
            if path.exists():
                net = SuperconductorNet(SETTINGS)
                net.load_state_dict(torch.load(path, weights_only=True))
                net.eval()
            else:
                some = train if share == 1.0 else keep_share(train, formula, share, k)
                data = (all_graphs, labels, pools)
                net = fit(some, data, start if pre else None, k, round(part * args.steps))
                torch.save(net.state_dict(), path.with_suffix(".tmp"))
                os.replace(path.with_suffix(".tmp"), path)
            found[name][test] = logits(net, [all_graphs[i] for i in test])
            print(k, name, f"{time.process_time() - clock:.0f} s", flush=True)
    np.savez(
        args.out / "oof.npz",
        ids=[r.id for r in rows],
        formula=formula,
        kind=[r.kind for r in rows],
        fold=fold,
        labels=labels,
        **{f"logit_{name}": v for name, v in found.items()},
    )


if __name__ == "__main__":
    main()
