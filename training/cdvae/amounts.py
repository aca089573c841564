"""Numbers of atoms that crystals have, for the decoder of a packed CDVAE.

    python training/cdvae/amounts.py PACKED.safetensors --data crystals.npz --out FILE

Amounts (AB2, A6B6C, ...) of the training crystals are counted and stored with the weights, which stay as they are.
Printed: how often the whole composition is read right from one draw of the posterior of 900 training crystals, for
several certainties (`onnes.generate.stoichiometry.CERTAINTY` was chosen so) and for the nearest whole numbers.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from onnes.generate.cdvae_sampling import CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.groups import load_groups
from onnes.generate.latent_fit import encode
from onnes.generate.stoichiometry import Stoichiometries, rounded
from onnes.learn.store import Checkpoint

CERTAINTIES = (0.5, 1.0, 2.0, 4.0, 8.0)


def right(model: CdvaeSampler, amounts: Stoichiometries, groups: dict, count: int) -> dict[str, float]:
    """Share of compositions read right, by certainty."""
    generator = torch.Generator().manual_seed(0)
    total = sum(len(g["types"]) for g in groups.values())
    picked = torch.zeros(total, dtype=torch.bool)
    picked[torch.randperm(total, generator=generator)[:count]] = True
    hits = dict.fromkeys(["nearest", *map(str, CERTAINTIES)], 0)
    start = 0
    for n, group in groups.items():
        at = picked[start : start + len(group["types"])]
        start += len(at)
        part = {n: {k: v[at] for k, v in group.items()}}
        if not at.any():
            continue
        with torch.no_grad():
            z = encode(model.net, model.scale, part).draw(generator)
            p = torch.softmax(model.net.heads(z).composition_logits, dim=-1)
        true = torch.stack([torch.bincount(t, minlength=p.shape[1]) for t in part[n]["types"]])
        for name in hits:
            guess = rounded(p, n) if name == "nearest" else amounts.whole(p, n, float(name))
            hits[name] += int((guess == true).all(-1).sum())
    return {name: round(k / min(count, total), 4) for name, k in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    groups = load_groups(args.data, "train")
    amounts = Stoichiometries.of(t.tolist() for g in groups.values() for t in g["types"])
    found = right(CdvaeSampler(CdvaeSamplerSettings(prior="gaussian"), args.model), amounts, groups, 900)
    print(json.dumps(found))
    old = Checkpoint.load(args.model, "cdvae")
    card = old.card | {"composition_right_by_certainty": {"n": 900, "split": "train", **found}}
    Checkpoint("cdvae", old.settings | {"amounts": amounts.as_dict()}, card, old.tensors).save(args.out)


if __name__ == "__main__":
    main()
