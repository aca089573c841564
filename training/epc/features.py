"""Evaluate the frozen potential on the labelled crystals: python training/epc/features.py --out DIR.

Writes DIR/part-*.npz of 500 crystals each (atomically; existing parts are kept, so a rerun resumes).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from onnes.learn.features import FrozenPotential

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def rows(names):
    for name in names:
        with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
            for line in handle:
                yield json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["alexandria_eph", "jarvis_supercon"])
    parser.add_argument("--max-atoms", type=int, default=1000)
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    layers = [f"{k}_equivariant_gate" for k in args.layers]
    potential = FrozenPotential(potential=args.potential, layers=layers)
    everything = [r for r in rows(args.data) if len(r["species"]) <= args.max_atoms]
    for start in range(0, len(everything), 500):
        part = args.out / f"part-{start:06d}.npz"
        if part.exists():
            continue
        chunk = everything[start : start + 500]
        structures = [Structure(r["lattice"], r["species"], r["frac"]) for r in chunk]
        keep = [i for i, s in enumerate(structures) if all(e.Z in potential.elements for e in s.elements)]
        found = list(potential.evaluate([structures[i] for i in keep]))
        temporary = part.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            id=np.array([chunk[i]["id"] for i in keep]),
            n=np.array([len(structures[i]) for i in keep]),
            x=np.concatenate([f.x for f in found]).astype(np.float16),
            energy=np.array([f.energy_eV_atom for f in found]),
        )
        os.replace(temporary, part)
        print(start, len(keep), len(chunk), flush=True)


if __name__ == "__main__":
    main()
