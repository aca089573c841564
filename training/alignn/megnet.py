"""Formation energy with MEGNet: python training/alignn/megnet.py --preset paper --out DIR.

One fold of whole formulas of the Materials Project crystals with at most 20 atoms; ``--preset trees`` and
``--preset constant`` are the baselines. Writes DIR/megnet-PRESET.json; ``--preset table`` joins them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import epc_rows
import numpy as np
import torch
from ase.data import atomic_numbers
from torch import nn
from train import Set, outputs, run

from onnes.nets.megnet import PRESETS, Megnet


class Called(nn.Module):
    """MEGNet, called like the electron-phonon networks."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = Megnet(replace(PRESETS[name], targets=1))

    def forward(self, batch, log_volume, source):
        return self.net(batch), None


def load(most: int) -> list[dict]:
    with gzip.open(epc_rows.SHARED / "data" / "mp_crystals.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in handle]
    energy = "formation_energy_eV_atom"
    return [r for r in rows if len(r["species"]) <= most and r.get(energy) is not None]


def composition(crystals) -> np.ndarray:
    """Element fractions, log volume per atom and number of atoms."""
    x = np.zeros((len(crystals), 105))
    for row, (z, lattice, _) in zip(x, crystals, strict=True):
        np.add.at(row, z, 1 / len(z))
        row[103:] = np.log(abs(np.linalg.det(lattice)) / len(z)), len(z)
    return x


def network(args, rows, crystals, y, train, test) -> tuple[np.ndarray, dict]:
    graphs = epc_rows.graphs(crystals, PRESETS[args.preset].graph, args.out / "mp-graphs")
    train = train[[graphs[i] is not None for i in train]]
    center, spread = y[train].mean(), y[train].std()
    data = Set(
        graphs,
        torch.zeros(len(y)),
        torch.zeros(len(y), dtype=torch.long),
        torch.as_tensor((y - center) / spread).float()[:, None],
        torch.zeros(len(y), 0),
    )
    torch.manual_seed(args.seed)
    path = args.out / f"megnet-{args.preset}.pt"
    net = run(Called(args.preset), data, train, args, path, (1.0,))
    guess = np.full(len(test), np.nan)
    known = np.array([graphs[i] is not None for i in test])
    guess[known] = outputs(net, data, test[known])[:, 0] * spread + center
    spent = torch.load(path.with_suffix(".last.pt"), weights_only=False)["spent"]
    return guess, {"epochs": args.epochs, "cpu_s": round(spent), "n_train": len(train)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", choices=(*PRESETS, "trees", "constant", "table"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=20, help="largest crystal, atoms")
    args = parser.parse_args()
    args.stop_s, args.aux_weight = 0.0, 0.0
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.preset == "table":
        found = {p.stem: json.loads(p.read_text()) for p in sorted(args.out.glob("megnet-*.json"))}
        print(json.dumps(found, indent=1))
        return
    rows = load(args.most)
    crystals = [
        (np.array([atomic_numbers[s] for s in r["species"]]), np.array(r["lattice"]), np.array(r["frac"]))
        for r in rows
    ]
    y = np.array([r["formation_energy_eV_atom"] for r in rows])
    formula = np.array([r["formula"] for r in rows])
    fold = epc_rows.folds(formula)
    train, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    if args.preset == "constant":
        guess, about = np.full(len(test), np.median(y[train])), {}
    elif args.preset == "trees":
        from sklearn.ensemble import ExtraTreesRegressor

        x = composition(crystals)
        model = ExtraTreesRegressor(100, max_features=0.4, n_jobs=1, random_state=0)
        guess, about = model.fit(x[train], y[train]).predict(x[test]), {}
    else:
        guess, about = network(args, rows, crystals, y, train, test)
    known = np.isfinite(guess)
    error = np.abs(guess - y[test])[known]
    digest = hashlib.sha256(repr([r["id"] for r in rows]).encode() + y.tobytes()).hexdigest()[:16]
    about |= {
        "mae_eV_atom": round(float(error.mean()), 4),
        "ci95": epc_rows.interval(error, formula[test][known]),
        "n": int(known.sum()),
        "refused": int((~known).sum()),
        "split": "fold 0 of 5, whole formulas, numpy seed 0",
        "data_hash": digest,
    }
    path = args.out / f"megnet-{args.preset}.json"
    path.with_suffix(".tmp").write_text(json.dumps(about))
    os.replace(path.with_suffix(".tmp"), path)
    print(args.preset, about, flush=True)


if __name__ == "__main__":
    main()
