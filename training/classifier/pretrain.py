"""Pre-train the auto-encoder: python training/classifier/pretrain.py --out DIR.

Resumes from the last finished epoch. Ends with DIR/autoencoder.pt and DIR/pretrain.json.
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
from dataset import SETTINGS, graphs, metals

from onnes.graph.batch import collate
from onnes.nets.autoencoder import Autoencoder

BATCH, NODES, HIDDEN, RATE = 64, 256, 0.15, 2e-3


def save(state: dict, path: Path) -> None:
    part = path.with_suffix(".tmp")
    torch.save(state, part)
    os.replace(part, path)


def losses(model: Autoencoder, chunk: list, generator: torch.Generator) -> torch.Tensor:
    batch = collate(chunk)
    n = len(batch.numbers)
    hidden = torch.rand(n, generator=generator) < HIDDEN
    nodes = torch.randperm(n, generator=generator)[:NODES].sort().values
    found = model(batch, hidden, nodes)
    return torch.stack([found.element, found.shell, found.neighbours])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = metals()
    all_graphs = [g for g in graphs(rows, args.out) if g is not None]
    order = np.random.default_rng(0).permutation(len(all_graphs))
    held = [all_graphs[i] for i in order[:500]]
    train = [all_graphs[i] for i in order[500:]]
    print(len(train), "crystals to learn from,", len(held), "to look at", flush=True)
    torch.manual_seed(0)
    model = Autoencoder(SETTINGS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = args.epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    path, history, begun, seconds = args.out / "pretrain-state.pt", [], 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=False)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        history, begun, seconds = state["history"], state["epoch"], state["seconds"]
    for epoch in range(begun, args.epochs):
        clock = time.process_time()
        torch.manual_seed(1000 + epoch)
        generator = torch.Generator().manual_seed(epoch)
        shuffled = np.random.default_rng(100 + epoch).permutation(len(train))
        for k in range(len(train) // BATCH):
            loss = losses(model, [train[i] for i in shuffled[k * BATCH : (k + 1) * BATCH]], generator).sum()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            look = torch.Generator().manual_seed(0)
            parts = [losses(model, held[k : k + BATCH], look) for k in range(0, len(held), BATCH)]
            history.append([round(float(x), 4) for x in torch.stack(parts).mean(0)])
        seconds += time.process_time() - clock
        print(epoch, history[-1], f"{seconds:.0f} s", flush=True)
        save(
            {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "history": history,
                "epoch": epoch + 1,
                "seconds": seconds,
            },
            path,
        )
    save(model.state_dict(), args.out / "autoencoder.pt")
    result = {
        "data": "Materials Project, every stated gap 0, at most 20 atoms, formulas of the experimental test left out",
        "data_hash": hashlib.sha256(json.dumps([r["id"] for r in rows]).encode()).hexdigest()[:16],
        "crystals": len(train),
        "epochs": args.epochs,
        "batch": BATCH,
        "hidden_share": HIDDEN,
        "cpu_seconds": round(seconds),
        "held_out_losses": {"columns": ["element", "shell_A2", "neighbours"], "epochs": history},
    }
    (args.out / "pretrain.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
