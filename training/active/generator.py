"""What the fine-tuning of the generator pays: share of new crystals above the target, before and after.

    python training/active/generator.py --out generator.json [--n 144] [--steps 100]

A round in small: n crystals are drawn as ``onnes discover`` draws them, the 24 with the highest Tc of the predictor
``trees`` are labelled by the predictor ``fast`` (which stands in for DFT), the generator is tuned on the labels, and n
crystals are drawn with another seed from the shipped and from the tuned generator. Both are judged by ``fast``; nothing
is relaxed. Resumes from the files beside --out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from onnes.campaign.retrain_generator import tune
from onnes.campaign.settings import GeneratePart
from onnes.campaign.source import sampler_settings
from onnes.crystal.formula import reduced_formula
from onnes.generate.models import open_sampler
from onnes.generate.shares import share
from onnes.learn.store import pretrained
from onnes.parallel import single_thread
from onnes.prediction import predict

TARGET_K, LABELLED = 10.0, 24


def drawn(path: Path, n: int, seed: int, checkpoint: Path | None) -> list[Structure]:
    if not path.exists():
        began = time.monotonic()
        sampler = open_sampler(sampler_settings(GeneratePart()), checkpoint)
        made = [s.as_dict() for _, s in sampler.sample(0, n, seed)]
        path.write_text(json.dumps(made))
        print(path.name, f"{time.monotonic() - began:.0f} s", flush=True)
    return [Structure.from_dict(d) for d in json.loads(path.read_text())]


def tc_of(crystals: list[Structure], model: str) -> np.ndarray:
    return predict(crystals, model=model)["tc_K"].to_numpy(dtype=float)


def judged(crystals: list[Structure], labelled: set[str]) -> dict:
    tc = tc_of(crystals, "fast")
    formulas = [reduced_formula(c) for c in crystals]
    high = np.nan_to_num(tc, nan=-1.0) > TARGET_K
    fresh = [f not in labelled for f in formulas]
    first = {f: i for i, f in reversed(list(enumerate(formulas)))}
    return {
        "above": share(int(high.sum()), len(tc)).to_dict(),
        "above_and_other_formula_than_labelled": share(int((high & fresh).sum()), len(tc)).to_dict(),
        "different_formulas": share(len(first), len(tc)).to_dict(),
        "different_formulas_above_not_labelled": int(sum(high[i] and fresh[i] for i in first.values())),
        "median_tc_K": round(float(np.nanmedian(tc)), 3),
        "n": len(tc),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=144)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    single_thread()
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def beside(name: str) -> Path:
        return args.out.with_name(f"{args.out.stem}-{name}")

    first = drawn(beside("first.json"), args.n, 0, None)
    guess = np.nan_to_num(tc_of(first, "trees"), nan=-1.0)
    picked = [first[i] for i in np.argsort(-guess, kind="stable")[:LABELLED]]
    labels = tc_of(picked, "fast")
    rows = [(s, float(t), 1.0) for s, t in zip(picked, labels, strict=True) if np.isfinite(t)]
    path = beside("tuned.safetensors")
    began = time.monotonic()
    kept = beside("tuned.json")
    if not kept.exists():
        found = tune(
            pretrained("symmetric.safetensors"),
            rows,
            target_tc_K=TARGET_K,
            asked_tc_K=15.0,
            steps=args.steps,
            path=path,
            seed=0,
        )
        kept.write_text(json.dumps({**found, "seconds": round(time.monotonic() - began)}))
    found = json.loads(kept.read_text())
    print(found, flush=True)
    known = {reduced_formula(s) for s, _, _ in rows}
    table = {"labelled": len(rows), "hits": sum(t > TARGET_K for _, t, _ in rows), "tuning": found}
    table["shipped"] = judged(drawn(beside("before.json"), args.n, 1, None), known)
    if found["used"]:
        table["tuned"] = judged(drawn(beside("after.json"), args.n, 1, path), known)
    args.out.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
