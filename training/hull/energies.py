"""Evaluate the potential on the Materials Project crystals: python training/hull/energies.py --out DIR.

Small cells first, so that a run cut short still covers most formulas. Writes DIR/part-*.json of 500 crystals
each (atomically; existing parts are kept, so a rerun resumes). `pack.py` makes the shipped table of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import torch
from pymatgen.core import Structure

from onnes.data.files import atomic_text
from onnes.learn.features import FrozenPotential

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
PART = 500


def rows() -> list[dict]:
    """Read the crystals, smallest cells first."""
    with gzip.open(SHARED / "data" / "mp_crystals.jsonl.gz", "rt") as handle:
        return sorted(map(json.loads, handle), key=lambda r: (len(r["species"]), r["id"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    potential = FrozenPotential()
    everything = rows()
    for start in range(0, len(everything), PART):
        part = args.out / f"part-{start:06d}.json"
        if part.exists():
            continue
        chunk = everything[start : start + PART]
        structures = [Structure(r["lattice"], r["species"], r["frac"]) for r in chunk]
        keep = [i for i, s in enumerate(structures) if all(e.Z in potential.elements for e in s.elements)]
        found = potential.evaluate([structures[i] for i in keep])
        energies = {chunk[i]["id"]: f.energy_eV_atom for i, f in zip(keep, found, strict=True)}
        with atomic_text(part) as handle:
            json.dump(energies, handle)
        print(start, len(keep), len(chunk), flush=True)


if __name__ == "__main__":
    main()
