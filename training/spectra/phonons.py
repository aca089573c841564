"""Site spectra of a universal potential for the spectral network: phonons.py --out DIR --quality coarse.

Clean JARVIS spectra first, then the rest of the stable ones, then Alexandria in the order of numpy seed 0. Parts of
20 crystals are written atomically, so a rerun resumes. Kept: modes of each atom on cells of 0.5 meV.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from data import alexandria, spectra
from onnes.stability.phonons import COARSE, FINE, site_spectra

EDGES = np.arange(-30.0, 300.25, 0.5)
PART = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", choices=("coarse", "fine"), default="coarse")
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--n", type=int, default=100_000)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = replace(COARSE if args.quality == "coarse" else FINE, potential=args.potential)
    rows = list(spectra())
    more = alexandria()
    rows += [more[i] for i in np.random.default_rng(0).permutation(len(more))]
    for start in range(0, min(len(rows), args.n), PART):
        part = args.out / f"part-{start:06d}.npz"
        if part.exists():
            continue
        begun, found = time.time(), {}
        for row in rows[start : start + PART]:
            try:
                seen = site_spectra(Structure(row["lattice"], row["species"], row["frac"]), settings)
            except Exception as error:
                print(row["id"], type(error).__name__, error, flush=True)
                continue
            found[row["id"]] = seen.on(EDGES).astype(np.float16)
        temporary = part.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, **found)
        os.replace(temporary, part)
        print(start, len(found), f"{time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
