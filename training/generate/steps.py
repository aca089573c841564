"""What fewer sampling steps cost: soundness, symmetry and structure prediction by the number of steps.

    python training/generate/steps.py --data DATA --kind symmetric --steps 5 10 30 --out steps.json
    python training/generate/steps.py --data DATA --kind joint --steps 10 20 --out steps.json

48 crystals each of seeds 100 and 101 for the shares. Structure prediction of the 102 validation rows of JARVIS-SC, one
draw each: the symmetric model is told space group, letters and elements (the symbols do not depend on the steps), the
joint model the atoms. Figures are added to the file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from prototypes import split_of, structure_of
from pymatgen.core import Structure

from onnes.crystal.wyckoff import describe
from onnes.generate.asked import SamplerSettings
from onnes.generate.metrics import DEFAULT, LOOSE, measure, prediction
from onnes.generate.ranking import frame_of
from onnes.generate.sampling import Sampler
from onnes.generate.symmetric import SymmetricSampler

SEEDS, COUNT, SEED = (100, 101), 48, 1000


def told_frames(sampler: SymmetricSampler, truth: list[Structure]) -> list[Structure]:
    """A crystal for the group, letters and elements of each true one."""
    frames = [frame_of(describe(t)) for t in truth]
    return sampler.orbits.draw(frames, torch.Generator().manual_seed(SEED))


def told_atoms(sampler: Sampler, truth: list[Structure]) -> list[Structure]:
    """A crystal for the atoms of each true one."""
    made: dict[int, Structure] = {}
    for n in sorted({len(t) for t in truth}):
        where = [i for i, t in enumerate(truth) if len(t) == n]
        types = torch.tensor([truth[i].atomic_numbers for i in where])
        made |= zip(where, sampler.arrange(types, torch.Generator().manual_seed(SEED + n)), strict=True)
    return [made[i] for i in range(len(truth))]


def figures(kind: str, steps: int, truth: list[Structure]) -> dict[str, Any]:
    """Shares of the crystals drawn, and match rates."""
    settings = SamplerSettings(model=kind, steps=steps)
    sampler = SymmetricSampler(settings) if kind == "symmetric" else Sampler(settings)
    began = time.process_time()
    made = [s for seed in SEEDS for _, s in sampler.sample(0, COUNT, seed)]
    seconds = (time.process_time() - began) / len(made)
    out: dict[str, Any] = {"cpu_seconds_a_crystal": round(seconds, 3), **measure(made).to_dict()["figures"]}
    for symprec in (0.01, 0.05):
        found = measure(made, symprec=symprec, variety=False).figures["P1_share"]
        out[f"P1_share at {symprec:g} A"] = found.to_dict()
    guesses = (
        told_frames(sampler, truth) if isinstance(sampler, SymmetricSampler) else told_atoms(sampler, truth)
    )
    for name, tolerances in (("loose", LOOSE), ("default", DEFAULT)):
        for figure, value in prediction([[g] for g in guesses], truth, tolerances).items():
            if figure.endswith("first"):
                out[f"{figure}, {name}"] = value.to_dict()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=("symmetric", "joint"), required=True)
    parser.add_argument("--steps", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth = [structure_of(row).get_primitive_structure() for row in split_of(args.data, "val")]
    for steps in args.steps:
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        known[f"{args.kind}, {steps} steps"] = found = figures(args.kind, steps, truth)
        args.out.write_text(json.dumps(known, indent=1) + "\n")
        short = {k: v["value"] if isinstance(v, dict) else v for k, v in found.items()}
        print(steps, {k: round(v, 3) for k, v in short.items()}, flush=True)


if __name__ == "__main__":
    main()
