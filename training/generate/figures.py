"""How good are the generated crystals? The whole funnel on crystals of one model.

    python training/generate/figures.py --kind symmetric --out src/onnes/pretrained/symmetric.card.json

Draws crystals with the settings `onnes discover` uses and without any target, relaxes all that pass the gate,
and writes shares with their 95 % (Wilson) intervals next to the training card of the weights.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from onnes.campaign.funnel import Item
from onnes.campaign.settings import GeneratePart, Settings
from onnes.campaign.source import sampler_settings
from onnes.campaign.stages import build, plain
from onnes.generate.asked import MODELS, SamplerSettings
from onnes.generate.models import open_sampler
from onnes.generate.shares import share

# The defaults of `onnes discover`, whatever they are.
STAGES = {stage.name: stage.process for stage in build(Settings())}


def one(item: Item):
    torch.set_num_threads(1)
    return STAGES["relax"]([item])[0]


def kept(items: list[Item], outcomes) -> list[Item]:
    by_id = {o.id: o for o in outcomes}
    return [
        Item(i.id, i.index, o.structure or i.structure, {**i.numbers, **o.numbers}, i.seed)
        for i in items
        if (o := by_id[i.id]).passed
    ]


def measure(model: Path | None, settings: SamplerSettings, n: int, seed: int, workers: int) -> dict:
    drawn = [Item(f"g{k}", k, plain(s), {}) for k, s in open_sampler(settings, model).sample(0, n, seed)]
    good = kept(drawn, STAGES["check"](drawn))
    different = kept(good, STAGES["unique"](good))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        relaxed = kept(good, list(pool.map(one, good)))
    found = kept(relaxed, STAGES["symmetry"](relaxed))
    new = kept(found, STAGES["novel"](found))
    stable = kept(new, STAGES["hull"](new))
    groups = Counter(i.numbers["space_group_number"] for i in found)
    superconducting = kept(stable, STAGES["predict"](stable))
    rmsd = sorted(i.numbers["rmsd_A"] for i in relaxed)
    steps = sorted(i.numbers["steps"] for i in relaxed)
    return {
        "n": n,
        "seed": seed,
        "settings": {k: v for k, v in vars(settings).items() if v not in ((), None)},
        "pass_the_gate": share(len(good), n).to_dict(),
        "unique_of_those": share(len(different), len(good)).to_dict(),
        "relaxed_converged_of_all": share(len(relaxed), n).to_dict(),
        "new_of_relaxed": share(len(new), len(relaxed)).to_dict(),
        "new_and_stable_of_all": share(len(stable), n).to_dict(),
        "new_stable_and_tc_above_5K_of_all": share(len(superconducting), n).to_dict(),
        "space_group_P1_of_relaxed": share(groups[1], len(found)).to_dict(),
        "five_or_more_elements": share(
            sum(len(set(i.structure["species"])) >= 5 for i in drawn), n
        ).to_dict(),
        "median_rmsd_A": round(rmsd[len(rmsd) // 2], 3),
        "median_steps": steps[len(steps) // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=MODELS, default=MODELS[0])
    parser.add_argument("--model", type=Path, help="checkpoint; the shipped one by default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = {
        "no target": SamplerSettings(model=args.kind),
        "as onnes discover": sampler_settings(GeneratePart(model=args.kind)),
    }
    card = dict(open_sampler(how["no target"], args.model).checkpoint.card)
    card["generated"] = {}
    card["generated_command"] = (
        f"python training/generate/figures.py --kind {args.kind} --n {args.n} --seed {args.seed}"
    )
    for name, settings in how.items():
        card["generated"][name] = measure(args.model, settings, args.n, args.seed, args.workers)
        # After each: relaxing takes long, and what is measured shall not be lost.
        args.out.write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card["generated"], indent=1))


if __name__ == "__main__":
    main()
