"""Structure prediction with the symmetric generator on the JARVIS-SC formulas.

    python training/generate/predict_structures.py --data DATA --templates templates.jsonl --split val --out val.json

For each formula: frames (space group, letters, elements) drawn from the site transformer and those of prototype
substitution, each frame's crystal by the diffusion of free parameters; ranked by votes. A frame's votes are
``share_of_draws + WEIGHT * share_of_substitution``; WEIGHT was chosen on the validation rows. Three rankings:
``drawn`` (the generator alone), ``substituted`` (templates alone, their coordinates by diffusion), ``both``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

sys.path.insert(0, str(Path(__file__).parent))
from prototypes import MATCHERS, read_templates, split_of, structure_of

from onnes.generate.asked import SamplerSettings
from onnes.generate.prototypes import Templates, substitute
from onnes.generate.ranking import frame_of, key_of
from onnes.generate.shares import share
from onnes.generate.site_sampling import Wish
from onnes.generate.symmetric import SymmetricSampler

#: Chosen on the validation rows.
WEIGHT = 1.0
GUESSES = 6

Key = tuple[Any, ...]


def amounts(species: list[str]) -> dict[int, int]:
    count = Counter(atomic_numbers[s] for s in species)
    unit = int(np.gcd.reduce(list(count.values())))
    return {z: k // unit for z, k in sorted(count.items())}


def votes(
    sampler: SymmetricSampler, formula: dict[int, int], known: Any, draws: int
) -> dict[Key, dict[str, Any]]:
    """Frames by key with their share of the draws and of the substitution."""
    out: dict[Key, dict[str, Any]] = {}
    for drawn in sampler.symbols([Wish(formula=formula)] * draws, 0):
        entry = out.setdefault(key_of(drawn.frame), {"frame": drawn.frame, "drawn": 0.0, "substituted": 0.0})
        entry["drawn"] += 1.0 / draws
    name = "".join(f"{chemical_symbols[z]}{a}" for z, a in formula.items())
    for guess in substitute(name, known, 20):
        frame = frame_of(guess.crystal)
        if frame.n_atoms > 20:
            continue
        entry = out.setdefault(key_of(frame), {"frame": frame, "drawn": 0.0, "substituted": 0.0})
        entry["substituted"] += guess.share
    return out


def ranked(found: dict[Key, dict[str, Any]], how: str, weight: float) -> list[Key]:
    score = {
        "drawn": lambda e: e["drawn"],
        "substituted": lambda e: e["substituted"],
        "both": lambda e: e["drawn"] + weight * e["substituted"],
    }[how]
    return [k for k in sorted(found, key=lambda k: -score(found[k])) if score(found[k]) > 0][:GUESSES]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--templates", type=Path, required=True)
    parser.add_argument("--split", choices=("val", "test"), required=True)
    parser.add_argument("--draws", type=int, default=48)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    held = {r["formula"] for r in split_of(args.data, args.split)}
    known = Templates(read_templates(args.templates, held))
    sampler = SymmetricSampler(SamplerSettings(steps=args.steps), args.model)
    cache = args.out.with_suffix(".jsonl")
    done = {json.loads(line)["id"] for line in cache.open()} if cache.exists() else set()
    started = time.time()
    for row in split_of(args.data, args.split):
        if row["id"] in done:
            continue
        found = votes(sampler, amounts(row["species"]), known, args.draws)
        wanted = {k for how in ("drawn", "substituted") for k in ranked(found, how, 0.0)}
        wanted |= {k for w in (0.3, 1.0, 3.0) for k in ranked(found, "both", w)}
        keys = sorted(wanted, key=str)
        made = sampler.orbits.draw([found[k]["frame"] for k in keys], torch.Generator().manual_seed(1))
        truth = structure_of(row)
        hits = {
            k: {m: bool(x.fit(truth, s)) for m, x in MATCHERS.items()}
            for k, s in zip(keys, made, strict=True)
        }
        line: dict[str, Any] = {"id": row["id"], "formula": row["formula"]}
        for how, weight in (
            ("drawn", 0.0),
            ("substituted", 0.0),
            ("both", 0.3),
            ("both", 1.0),
            ("both", 3.0),
        ):
            name = how if how != "both" else f"both {weight}"
            line[name] = [hits[k] for k in ranked(found, how, weight)]
        with cache.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(row["formula"], round(time.time() - started), flush=True)
    args.out.write_text(json.dumps(score(cache), indent=1) + "\n")
    print(args.out.read_text())


def score(cache: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in cache.open()]
    out: dict[str, Any] = {"n": len(rows)}
    for name in ("drawn", "substituted", "both 0.3", "both 1.0", "both 3.0"):
        for matcher in MATCHERS:
            for first in (1, 3, GUESSES):
                hits = sum(any(h[matcher] for h in row[name][:first]) for row in rows)
                out[f"{name}, {matcher}, any of {first}"] = share(hits, len(rows)).to_dict()
    return out


if __name__ == "__main__":
    main()
