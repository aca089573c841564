"""Pack the heads: python training/properties/pack.py --heads DIR --out src/onnes/pretrained/properties.safetensors."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from onnes.learn.fold_of import KEY, fold_table
from onnes.learn.store import Checkpoint
from onnes.stability.hull import HullReferences


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    metrics = json.loads((args.heads / "metrics.json").read_text())
    tensors: dict[str, torch.Tensor] = {}
    paths = sorted(args.heads.glob("head-*.pt"))
    for member, path in enumerate(paths):
        for name, value in torch.load(path, weights_only=True).items():
            tensors[f"{member}.{name}"] = value if name in ("mean", "std") else value.half()
    seeds, cross = metrics["seeds"], np.load(args.heads / "oof.npz")
    rule = {str(f): int(k) for f, k in zip(cross["formula"], cross["fold"], strict=True)}
    folds = fold_table(rule, metrics["data_hash"], members_per_fold=seeds)
    tensors.update(folds.tensors())
    card = {
        "command": "training/epc/features.py, training/properties/train.py, training/properties/pack.py;"
        " see training/properties/README.md",
        "cross_validation": {k: v for k, v in metrics.items() if k not in ("center", "spread", "head")},
        "caution": "SevenNet-0 was itself trained on relaxations of the Materials Project: its energies of these"
        " crystals are no predictions, and the formation-energy error on crystals new to the potential is larger",
        "note": "The shipped ensemble holds the heads of all folds; the errors are of the 2 heads of one fold.",
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
    }
    settings = {
        "head": metrics["head"],
        "members": len(paths),
        "center": metrics["center"],
        "spread": metrics["spread"],
        "element_energies": {
            str(atomic_numbers[s]): round(e, 6) for s, e in sorted(HullReferences.load().elements.items())
        },
        "potential": "7net-0",
        KEY: folds.settings(),
    }
    Checkpoint("properties", settings, card, tensors).save(args.out)
    args.out.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
