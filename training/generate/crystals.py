"""Pack the crystals that the generators learn from.

    python training/generate/crystals.py --data DATA --set main --out FILE.npz

Each crystal is stored twice: its primitive Niggli cell, and its description by space group, Wyckoff positions
and free parameters (`onnes.crystal.wyckoff`). Set ``main`` is every ordered crystal of at most 20 atoms in the
primitive cell of mp_crystals, alexandria_eph, jarvis_supercon, exp_superconductors_mp and bete_structures. Rows
with the reduced formula of one of the 105 test rows of the public generation split of JARVIS-SC are left out of
every source (their structure twins and polymorphs go with them); the formulas of its 102 validation rows and 2
% of all other formulas are the validation split. Sets ``perov_5`` and ``carbon_24`` keep their published
splits. Chunks are cached beside the output: rerun to resume.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from pymatgen.core import Structure

from onnes.crystal.wyckoff import LETTERS, Described, describe
from onnes.errors import CrystalError
from onnes.generate.crystals import niggli_primitive
from onnes.generate.prototypes import element_features

SOURCES = ("mp_crystals", "alexandria_eph", "jarvis_supercon", "exp_superconductors_mp", "bete_structures")
SPLITS = ("train", "val", "test")
CHUNK = 1000
SYMPREC = 0.05


@dataclass
class Packed:
    """One crystal ready to be stored; ``described`` is None where no symmetry was found."""

    key: str
    formula: str
    source: int
    split: int
    cell: np.ndarray
    types: np.ndarray
    frac: np.ndarray
    described: Described | None
    log_tc: float
    e_form: float
    stable: int


def rows_of(data: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


def labels(name: str, row: dict[str, Any]) -> tuple[float, float, int]:
    """log10 Tc (NaN unknown), formation energy (NaN unknown), 0 unknown / 1 stable / 2 unstable."""
    if name == "mp_crystals":
        energy = row.get("formation_energy_eV_atom")
        return np.nan, np.nan if energy is None else float(energy), 0
    if name == "alexandria_eph":
        return float(np.log10(max(row["Tc_K"], 0.01))), np.nan, 1
    if name == "jarvis_supercon":
        # Unstable rows carry an unphysical Tc: structure yes, label no.
        ok = bool(row.get("in_616_set"))
        return float(np.log10(max(row["Tc_K"], 0.01))) if ok else np.nan, np.nan, 1 if ok else 2
    return np.nan, np.nan, 0


def pack_row(job: tuple[str, int, int, dict[str, Any], int]) -> Packed | None:
    """Both forms of a row; None when it is too large."""
    name, source, split, row, most = job
    numbers = np.array([atomic_numbers[s] for s in row["species"]])
    cell, types, frac = niggli_primitive(np.array(row["lattice"]), numbers, np.array(row["frac"]))
    if len(types) > most or types.max() > 100:
        return None
    described: Described | None = None
    try:
        described = describe(Structure(row["lattice"], row["species"], row["frac"]), SYMPREC)
        if described.n_primitive > most:
            described = None
    except CrystalError:
        pass
    return Packed(
        str(row["id"]), row["formula"], source, split, cell, types, frac, described, *labels(name, row)
    )


def jobs(data: Path, which: str, most: int) -> list[tuple[str, int, int, dict[str, Any], int]]:
    if which != "main":
        return [(which, 0, SPLITS.index(r["split"]), r, most) for r in rows_of(data, which)]
    jarvis = rows_of(data, "jarvis_supercon")
    test = {r["formula"] for r in jarvis if r.get("split_atomgen") == "test"}
    held = {r["formula"] for r in jarvis if r.get("split_atomgen") == "val"}
    out = []
    for source, name in enumerate(SOURCES):
        for row in jarvis if name == "jarvis_supercon" else rows_of(data, name):
            if row["formula"] in test:
                continue
            draw = int(hashlib.sha256(row["formula"].encode()).hexdigest(), 16) % 1000
            out.append((name, source, 1 if row["formula"] in held or draw < 20 else 0, row, most))
    return out


def chunk(job: tuple[Path, list[tuple[str, int, int, dict[str, Any], int]]]) -> Path:
    path, rows = job
    if not path.exists():
        warnings.simplefilter("ignore")
        packed = [p for p in map(pack_row, rows) if p is not None]
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps(packed))
        os.replace(temporary, path)
    return path


def store(packed: list[Packed], out: Path) -> str:
    """Write the arrays; returns their hash."""
    sites = [p.described.sites if p.described else () for p in packed]
    flat = [s for group in sites for s in group]
    parameters = np.full((len(flat), 3), np.nan, dtype=np.float32)
    for i, site in enumerate(flat):
        parameters[i, : len(site.parameters)] = site.parameters
    arrays = {
        "id": np.array([p.key for p in packed]),
        "formula": np.array([p.formula for p in packed]),
        "source": np.array([p.source for p in packed], dtype=np.uint8),
        "split": np.array([p.split for p in packed], dtype=np.uint8),
        "n": np.array([len(p.types) for p in packed], dtype=np.int16),
        "cell": np.array([p.cell for p in packed], dtype=np.float32),
        "types": np.concatenate([p.types for p in packed]).astype(np.uint8),
        "frac": np.concatenate([p.frac for p in packed]).astype(np.float32),
        "log_tc": np.array([p.log_tc for p in packed], dtype=np.float32),
        "e_form": np.array([p.e_form for p in packed], dtype=np.float32),
        "stable": np.array([p.stable for p in packed], dtype=np.uint8),
        "number": np.array([p.described.number if p.described else 0 for p in packed], dtype=np.uint8),
        "lattice": np.array(
            [p.described.lattice if p.described else (0.0,) * 6 for p in packed], dtype=np.float32
        ),
        "n_sites": np.array([len(s) for s in sites], dtype=np.uint8),
        "site_letter": np.array([LETTERS.index(s.letter) for s in flat], dtype=np.uint8),
        "site_z": np.array([atomic_numbers[s.element] for s in flat], dtype=np.uint8),
        "site_parameters": parameters,
        "element_features": element_features()[:101].astype(np.float32),
    }
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    temporary = out.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, out)
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=("main", "perov_5", "carbon_24"), default="main")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    rows = jobs(args.data, args.set, 20 if args.set == "main" else 24)
    cache = args.out.with_suffix(".chunks")
    cache.mkdir(parents=True, exist_ok=True)
    parts = [
        (cache / f"{args.set}-{start:06d}.pkl", rows[start : start + CHUNK])
        for start in range(0, len(rows), CHUNK)
    ]
    packed: list[Packed] = []
    with ProcessPoolExecutor(args.workers) as pool:
        for i, path in enumerate(pool.map(chunk, parts)):
            packed += pickle.loads(path.read_bytes())
            print(f"{i + 1}/{len(parts)} parts, {len(packed)} crystals", flush=True)
    digest = store(packed, args.out)
    described = sum(p.described is not None for p in packed)
    count = {name: sum(p.split == i for p in packed) for i, name in enumerate(SPLITS)}
    print(f"{len(packed)} crystals, {described} described, {count}, hash {digest}")


if __name__ == "__main__":
    main()
