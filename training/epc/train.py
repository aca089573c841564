"""Cross-validate heads on frozen features: python training/epc/train.py --features DIR [DIR] --out DIR.

Five formula-grouped folds over Alexandria and the stable JARVIS rows; every fold trains SEEDS heads on the other four.
Each finished head is kept (DIR/head-FOLD-SEED.pt), so a rerun resumes. Ends with DIR/oof.npz (out-of-fold outputs of
every head, natural logarithms) and DIR/metrics.json. Several feature folders are read side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from scoring import scores

from data import FOLDS, SEEDS, Data, load
from onnes.nets.property_head import HeadSettings, PropertyHead

BATCH, RATE = 128, 1.5e-3
#: Weights of the four targets' L1 errors.
WEIGHT = (1.0, 1.0, 0.3, 0.1)


def fit(train, settings: HeadSettings, seed: int, epochs: int) -> PropertyHead:
    """Train one head."""
    x, z, v, s, y = train
    torch.manual_seed(seed)
    head = PropertyHead(settings)
    real = x[z > 0].float()
    head.mean.copy_(real.mean(0))
    head.std.copy_(real.std(0).clamp(min=1e-3))
    rng = np.random.default_rng(seed)
    steps = epochs * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    weight = torch.tensor(WEIGHT)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            i = torch.as_tensor(order[start : start + BATCH])
            width = int((z[i] > 0).sum(1).max())
            out = head(x[i, :width].float(), z[i, :width], v[i], s[i])
            error = (out - torch.nan_to_num(y[i])).abs() * ~torch.isnan(y[i]) * weight
            optimiser.zero_grad()
            error.mean().backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return head.eval()


def trained(path: Path, train, settings: HeadSettings, seed: int, epochs: int) -> PropertyHead:
    """Train a head or read it."""
    if path.exists():
        head = PropertyHead(settings)
        head.load_state_dict(torch.load(path, weights_only=True))
        return head.eval()
    head = fit(train, settings, seed, epochs)
    torch.save(head.state_dict(), path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
    return head


def tensors_of(data: Data) -> tuple[list[torch.Tensor], np.ndarray, np.ndarray]:
    """Inputs and standardised targets, and the targets' centre and spread."""
    center, spread = np.nanmean(data.y, 0), np.nanstd(data.y, 0)
    return (
        [
            torch.as_tensor(data.x),
            torch.as_tensor(data.z),
            torch.as_tensor(data.log_volume).float(),
            torch.as_tensor(data.source),
            torch.as_tensor((data.y - center) / spread).float(),
        ],
        center,
        spread,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--attention", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(args.features)
    fold = data.fold
    tensors, center, spread = tensors_of(data)
    settings = HeadSettings(features=data.x.shape[-1], targets=4, attention=args.attention)
    print(len(fold), "crystals", len(np.unique(data.formula)), "formulas", flush=True)
    log = np.zeros((SEEDS, len(fold), 4))
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        kept = [t[train] for t in tensors]
        for seed in range(SEEDS):
            begun = time.time()
            head = trained(args.out / f"head-{k}-{seed}.pt", kept, settings, 100 * k + seed, args.epochs)
            with torch.no_grad():
                for part in np.array_split(test, 8):
                    out = head(tensors[0][part].float(), *(t[part] for t in tensors[1:4]))
                    log[seed, part] = out.double().numpy() * spread + center
            print(k, seed, f"{time.time() - begun:.0f} s", flush=True)
    result = {
        "split": f"{FOLDS} folds, whole reduced formulas, numpy seed 0",
        "data_hash": hashlib.sha256(data.x.tobytes() + data.y.tobytes()).hexdigest()[:16],
        "seeds": SEEDS,
        "epochs": args.epochs,
        "head": settings.as_dict(),
        "center": center.tolist(),
        "spread": spread.tolist(),
        "alexandria": scores(log.mean(0), data, data.source == 0),
    }
    np.savez(args.out / "oof.npz", log=log, id=np.array(data.ids))
    (args.out / "metrics.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result["alexandria"], indent=1))


if __name__ == "__main__":
    main()
