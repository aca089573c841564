"""Pack the classifier: python training/classifier/pack.py --out DIR --to FILE.safetensors; the card goes beside it."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from dataset import GAP, LEAST_TC, MOST_ATOMS, STRONG, WEAK
from evaluate import ensemble
from magnets import LEAST_3D, LEAST_4F, OPEN_4F

from onnes.learn.store import Checkpoint

LABELS = {
    "superconductor": {
        "positive": f"dynamically stable rows of Alexandria (DS-A, DS-B) and JARVIS-SC with computed Tc >= {LEAST_TC} K"
        " (Allen-Dynes with f1 f2, mu* 0.10; McMillan-Allen-Dynes, mu* 0.085). 1 K: below it the two conventions and"
        " the smearing decide, and few experiments look",
        "negative": f"Materials Project rows of at most {MOST_ATOMS} atoms whose every stated gap exceeds {GAP} eV"
        " (insulator), or which are magnets by knowledge: named (hand-written textbook list,"
        " training/classifier/magnets.py), 4f (metals with an atomic share of at least"
        f" {LEAST_4F} of {', '.join(sorted(OPEN_4F))}), 3d (metals with at least {LEAST_3D} of the element)",
        "not asked": f"metals with Tc < {LEAST_TC} K",
        "honesty": "no data set at hand carries the moments of metals; 4f and 3d are rules on the composition, so a"
        " model that reads the composition can answer them by looking for an element",
    },
    "strong": {
        "positive": f"Alexandria, computed Tc >= {STRONG} K",
        "negative": f"Alexandria, computed Tc < {WEAK} K",
    },
    "prior": "both answers equally frequent; magnets and insulators equally frequent among the negatives",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    metrics, test, pretraining = (
        json.loads((args.out / f"{name}.json").read_text()) for name in ("metrics", "test", "pretrain")
    )
    nets = ensemble(args.out)
    tensors = {}
    for k, net in enumerate(nets):
        for name, value in net.state_dict().items():
            tensors[f"{k}.{name}"] = value if "centres" in name or "elements" in name else value.half()
    settings = {
        "network": metrics["network"],
        "members": len(nets),
        "calibration": {q: [round(v, 6) for v in ab] for q, ab in metrics["calibration"].items()},
    }
    card = {
        "command": "pretrain.py, finetune.py, evaluate.py, pack.py of training/classifier; see its README.md",
        "labels": LABELS,
        "data": "Alexandria electron-phonon, JARVIS-SC, Materials Project; formulas of the experimental test set are in"
        " no Materials Project row used",
        "pretraining": {k: v for k, v in pretraining.items() if k != "held_out_losses"}
        | {"held_out_losses_last": pretraining["held_out_losses"]["epochs"][-1]},
        "cross_validation": {k: v for k, v in metrics.items() if k not in ("calibration", "network")},
        "test": test,
        "note": "The shipped ensemble is the mean logit of the five fold networks; the out-of-fold figures and the"
        " calibration are of one network.",
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
    }
    Checkpoint("classifier", settings, card, tensors).save(args.to)
    args.to.with_suffix(".card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(args.to, args.to.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
