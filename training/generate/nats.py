"""How likely the symbols of held-out crystals are, given their composition and data set.

    python training/generate/nats.py --data crystals.npz --out nats.json

Negative log-likelihood of canonical descriptions in nats a crystal, for the transformer that draws freely and for those
that draw where a formula is asked for, of all held-out crystals and of those of one data set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from onnes.generate.asked import SamplerSettings
from onnes.generate.groups import Groups, packed_hash
from onnes.generate.site_loss import composition, in_order, load_sites, symbol_losses
from onnes.generate.symmetric import SymmetricSampler
from onnes.nets.sites import Asked, SiteTransformer

#: Place of JARVIS-SC among the sources of a packed file.
JARVIS = 2


@torch.no_grad()
def nats(net: SiteTransformer, groups: Groups) -> dict[str, float]:
    """Means by part of the sequence, their sum, and the number of crystals."""
    total: dict[str, float] = {}
    count = 0
    for group in groups.values():
        letters, kinds = in_order(group["letters"], group["kinds"])
        b = len(letters)
        fractions = composition(net, group["n"], group["group"], letters, kinds)
        asked = Asked(
            torch.full((b,), float("nan")),
            torch.ones(b, dtype=torch.long),
            torch.zeros(b, dtype=torch.long),
            fractions,
            torch.zeros_like(fractions),
            group["source"] + 1,
        )
        for name, part in symbol_losses(net, asked, group["n"], group["group"], letters, kinds).items():
            total[name] = total.get(name, 0.0) + float(part.sum())
        count += b
    means = {name: round(value / count, 3) for name, value in total.items()}
    return {**means, "sum": round(sum(total.values()) / count, 3), "n": count}


def of(groups: Groups, source: int) -> Groups:
    """Crystals of one data set."""
    out = {}
    for length, group in groups.items():
        mine = group["source"] == source
        if mine.any():
            out[length] = {name: value[mine] for name, value in group.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sampler = SymmetricSampler(SamplerSettings(), args.model)
    held = load_sites(str(args.data), "val")
    result = {"data_hash": packed_hash(args.data), "model": sampler.checkpoint.hash, "split": "val"}
    nets = {"free": sampler.sites.net}
    nets |= {f"composed{i}": net for i, net in enumerate(sampler.sites.composed)}
    for name, net in nets.items():
        result[name] = {"all": nats(net, held), "jarvis": nats(net, of(held, JARVIS))}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
