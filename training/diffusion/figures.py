"""How good are the generated crystals? python training/diffusion/figures.py --model FILE --out CARD.json.

Draws crystals with the settings `onnes discover` uses and without any target, relaxes all that pass the gate,
and writes shares with their 95 % (Wilson) intervals next to the training card of the weights.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from onnes.campaign.funnel import Item
from onnes.campaign.settings import CheckPart, GeneratePart, HullPart, PredictPart, RelaxPart
from onnes.campaign.source import sampler_settings
from onnes.campaign.stages import check, hull, novel, plain, predict, relax, symmetry, unique
from onnes.generate.sampling import Sampler, SamplerSettings

# The defaults of `onnes discover`, whatever they are.
CHECK, RELAX = CheckPart().model_dump(), RelaxPart().model_dump()
HULL, PREDICT = HullPart().model_dump(), PredictPart().model_dump()


def share(k: int, n: int) -> dict:
    """A share with its Wilson interval."""
    p, z = k / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"share": round(p, 3), "ci95": [round(middle - half, 3), round(middle + half, 3)], "of": n}


def one(item: Item):
    torch.set_num_threads(1)
    return relax([item], RELAX)[0]


def kept(items: list[Item], outcomes) -> list[Item]:
    by_id = {o.id: o for o in outcomes}
    return [
        Item(i.id, i.index, o.structure or i.structure, {**i.numbers, **o.numbers}, i.seed)
        for i in items
        if (o := by_id[i.id]).passed
    ]


def measure(model: Path, settings: SamplerSettings, n: int, seed: int, workers: int) -> dict:
    drawn = [Item(f"g{k}", k, plain(s), {}) for k, s in Sampler(settings, model).sample(0, n, seed)]
    good = kept(drawn, check(drawn, CHECK))
    different = kept(good, unique(good))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        relaxed = kept(good, list(pool.map(one, good)))
    found = kept(relaxed, symmetry(relaxed))
    new = kept(found, novel(found, {"keep": "new"}))
    stable = kept(new, hull(new, HULL))
    groups = Counter(i.numbers["space_group_number"] for i in found)
    superconducting = kept(stable, predict(stable, PREDICT))
    rmsd = sorted(i.numbers["rmsd_A"] for i in relaxed)
    steps = sorted(i.numbers["steps"] for i in relaxed)
    return {
        "n": n,
        "seed": seed,
        "settings": {k: v for k, v in vars(settings).items() if v not in ((), None)},
        "pass_the_gate": share(len(good), n),
        "unique_of_those": share(len(different), len(good)),
        "relaxed_converged_of_all": share(len(relaxed), n),
        "new_of_relaxed": share(len(new), len(relaxed)),
        "new_and_stable_of_all": share(len(stable), n),
        "new_stable_and_tc_above_5K_of_all": share(len(superconducting), n),
        "space_group_P1_of_relaxed": share(groups[1], len(found)),
        "five_or_more_elements": share(sum(len(set(i.structure["species"])) >= 5 for i in drawn), n),
        "median_rmsd_A": round(rmsd[len(rmsd) // 2], 3),
        "median_steps": steps[len(steps) // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = {
        "no target": SamplerSettings(steps=100),
        "as onnes discover": sampler_settings(GeneratePart()),
    }
    card = dict(Sampler(SamplerSettings(), args.model).checkpoint.card)
    card["generated"] = {k: measure(args.model, s, args.n, args.seed, args.workers) for k, s in how.items()}
    card["generated_command"] = f"python training/diffusion/figures.py --n {args.n} --seed {args.seed}"
    args.out.write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card["generated"], indent=1))


if __name__ == "__main__":
    main()
