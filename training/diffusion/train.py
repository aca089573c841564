"""Train the shipped generator: python training/diffusion/train.py --out DIR [--steps N]; rerun to resume.

Data: every crystal of the two electron-phonon sets (Alexandria, JARVIS-SC), dynamically unstable ones
labelled so. Writes DIR/last.ckpt at least every 3 minutes and DIR/diffusion.safetensors at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import torch
from ase.data import atomic_numbers
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from onnes.generate.crystals import arrays_hash, group_by_size, niggli_primitive
from onnes.generate.diffusion import DiffusionTask, SameSizeBatches, to_batch
from onnes.generate.process import LatticeScale
from onnes.learn.store import Checkpoint
from onnes.nets.denoiser import DenoiserSettings

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def rows():
    for name in ("alexandria_eph", "jarvis_supercon"):
        with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
            for line in handle:
                yield name, json.loads(line)


def load(max_atoms: int):
    cells, log_tc, stable, formulas = [], [], [], []
    for name, row in rows():
        numbers = np.array([atomic_numbers[s] for s in row["species"]])
        cell = niggli_primitive(np.array(row["lattice"]), numbers, np.array(row["frac"]))
        if len(cell[1]) > max_atoms:
            continue
        ok = name == "alexandria_eph" or bool(row.get("in_616_set"))
        cells.append(cell)
        # Unstable rows carry unphysical lambda: structure yes, label no.
        log_tc.append(np.log10(max(row["Tc_K"], 0.01)) if ok else np.nan)
        stable.append(1 if ok else 2)
        formulas.append(row["formula"])
    return cells, np.array(log_tc), np.array(stable), formulas


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--max-atoms", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    L.seed_everything(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    cells, log_tc, stable, formulas = load(args.max_atoms)
    rng = np.random.default_rng(args.seed)
    held = set(rng.choice(sorted(set(formulas)), size=60, replace=False).tolist())
    val = np.array([f in held for f in formulas])
    train_groups = group_by_size(
        [c for c, v in zip(cells, val, strict=True) if not v], log_tc[~val], stable[~val]
    )
    val_groups = group_by_size([c for c, v in zip(cells, val, strict=True) if v], log_tc[val], stable[val])
    scale = LatticeScale.fit(np.concatenate([g.raw_lattice for g in train_groups.values()]))
    print(
        f"{(~val).sum()} training crystals, {val.sum()} held out, {time.time() - started:.0f} s", flush=True
    )
    settings = DenoiserSettings(hidden=args.hidden, layers=args.layers, max_atoms=20)
    task = DiffusionTask(settings, scale, lr=args.lr, steps=args.steps)
    data = SameSizeBatches(train_groups, scale, seed=args.seed + int(time.time()) % 100000)
    vals = [to_batch(g, scale, np.arange(len(g))) for g in val_groups.values()]
    saver = ModelCheckpoint(
        dirpath=args.out, filename="last", every_n_train_steps=500, enable_version_counter=False
    )
    trainer = L.Trainer(
        accelerator="auto",
        max_steps=args.steps,
        val_check_interval=1000,
        check_val_every_n_epoch=None,
        gradient_clip_val=1.0,
        callbacks=[saver, EMAWeightAveraging(decay=0.999)],
        logger=CSVLogger(args.out, name="log", version=0),
        log_every_n_steps=200,
        enable_progress_bar=False,
        enable_model_summary=True,
    )
    last = args.out / "last.ckpt"
    trainer.fit(
        task,
        torch.utils.data.DataLoader(data, batch_size=None),
        torch.utils.data.DataLoader(vals, batch_size=None),
        ckpt_path=str(last) if last.exists() else None,
        weights_only=False,
    )
    counts = {int(n): len(g) for n, g in train_groups.items()}
    elements = sorted({int(z) for g in train_groups.values() for z in np.unique(g.types)})
    card = {
        "data": "Alexandria electron-phonon (all rows) + JARVIS-SC (all rows, unstable ones labelled)",
        "data_hash": arrays_hash(train_groups),
        "n_train": int((~val).sum()),
        "n_val": int(val.sum()),
        "split": "60 reduced formulas held out for the validation loss",
        "seed": args.seed,
        "steps": trainer.global_step,
        "command": "python training/diffusion/train.py " + " ".join(a for a in sys.argv[1:]),
        "environment": {
            "torch": torch.__version__,
            "lightning": L.__version__,
            "python": platform.python_version(),
        },
        "validation": {k: round(float(v), 5) for k, v in trainer.callback_metrics.items()},
    }
    model_settings = {
        "network": settings.as_dict(),
        "lattice_mean": list(scale.mean),
        "lattice_std": list(scale.std),
        "atom_counts": counts,
        "elements": elements,
    }
    weights = {k.removeprefix("net."): v for k, v in task.state_dict().items() if k.startswith("net.")}
    Checkpoint("diffusion", model_settings, card, weights).save(args.out / "diffusion.safetensors")
    print("done", json.dumps(card["validation"]), flush=True)


if __name__ == "__main__":
    main()
