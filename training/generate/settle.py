"""How much of the noise the joint model's sampler needs: symmetry and soundness of crystals, settled or not.

    python training/generate/settle.py draw --seeds 100 101 --out dev.json            # the table of the two settings
    python training/generate/settle.py draw --seeds 1 2 3 --only 0,1 10,0.7 --out test.json
    python training/generate/settle.py match --data DATA --out match.json

``draw``: 48 crystals a seed for each pair of steps without noise at the end and scale of the noise on the way; P1 at
several tolerances, shortest distance, compositional validity, uniqueness. ``match``: structure prediction of the 102
validation rows of JARVIS-SC with the atoms told, one draw each, settled with either noise and as it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from prototypes import MATCHERS, split_of, structure_of
from pymatgen.core import Structure

from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError
from onnes.generate.asked import SamplerSettings
from onnes.generate.metrics import measure
from onnes.generate.sampling import NOISE, SETTLE, Sampler
from onnes.generate.shares import share
from onnes.generate.validity import shortest

SETTINGS = ((0, 1.0), (SETTLE, 1.0), (0, NOISE), (SETTLE, NOISE))
TOLERANCES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
SEED = 1000


def is_p1(structure: Structure, symprec: float) -> bool:
    try:
        return space_group(structure, symprec)[0] == 1
    except CrystalError:
        return True


def drawn(settings: Sequence[tuple[int, float]], seeds: Sequence[int], n: int) -> dict[str, Any]:
    """Figures of the crystals of each setting, all seeds together."""
    out: dict[str, Any] = {}
    for settle, noise in settings:
        sampler = Sampler(SamplerSettings(model="joint"), settle=settle, noise=noise)
        made = [s for seed in seeds for _, s in sampler.sample(0, n, seed)]
        found = measure(made).to_dict()["figures"]
        # Atoms on top of each other have no symmetry worth a name.
        sound = [s for s in made if shortest(s) > 0.5]
        found |= {
            f"P1 at {t:g} A": share(sum(is_p1(s, t) for s in sound), len(sound)).to_dict() for t in TOLERANCES
        }
        out[f"settle {settle}, noise {noise:g}"] = found
    return out


def matched(data: Path) -> dict[str, Any]:
    """Match rates of one draw a row, the atoms told."""
    rows = split_of(data, "val")
    truth = [structure_of(r).get_primitive_structure() for r in rows]
    out: dict[str, Any] = {}
    for settle, noise in SETTINGS:
        sampler = Sampler(SamplerSettings(model="joint"), settle=settle, noise=noise)
        made: dict[int, Structure] = {}
        for n in sorted({len(t) for t in truth}):
            where = [i for i, t in enumerate(truth) if len(t) == n]
            types = torch.tensor([truth[i].atomic_numbers for i in where])
            made |= zip(where, sampler.arrange(types, torch.Generator().manual_seed(SEED + n)), strict=True)
        for name, matcher in MATCHERS.items():
            hits = sum(matcher.fit(truth[i], s) for i, s in made.items())
            out[f"settle {settle}, noise {noise:g}, {name}"] = share(hits, len(rows)).to_dict()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("draw", "match"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--n", type=int, default=48, help="crystals a seed")
    parser.add_argument("--only", nargs="+", metavar="SETTLE,NOISE")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [x.split(",") for x in args.only or ()]
    settings = [(int(a), float(b)) for a, b in pairs] or SETTINGS
    found = matched(args.data) if args.what == "match" else drawn(settings, args.seeds, args.n)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
