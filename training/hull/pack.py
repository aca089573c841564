"""Make the shipped hull table: python training/hull/pack.py --energies DIR --elements FILE --out TABLE.csv.gz.

Takes the lowest energy of each composition and of each element (elements.py), keeps the phases on or near
the hull of their own chemical system (others can never be a vertex of any hull), and relaxes a random sample
to show how far unrelaxed energies are from relaxed ones.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from energies import SHARED, rows
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Structure

from onnes.data.files import atomic_write
from onnes.stability.hull import HullReferences, Reference
from onnes.stability.relax import RelaxSettings, relax

#: Phases further above the hull of their own system are left out (eV/atom).
NEAR = 0.02


def lowest(folder: Path) -> dict[str, Reference]:
    """The lowest energy of each reduced formula."""
    energies = {
        k: v for p in sorted(folder.glob("part-*.json")) for k, v in json.loads(p.read_text()).items()
    }
    found: dict[str, Reference] = {}
    for row in rows():
        if row["id"] not in energies:
            continue
        held = found.get(row["formula"])
        if held is None or energies[row["id"]] < held.energy_eV_atom:
            found[row["formula"]] = Reference(row["formula"], energies[row["id"]], row["id"])
    return found


def element_references(found: dict[str, Reference], path: Path) -> list[Reference]:
    """Add the relaxed elements of elements.py where they lie lower than what is there."""
    better = []
    for symbol, best in json.loads(path.read_text()).items():
        energy, held = best["energy_eV_atom"], found.get(symbol)
        if energy is None or energy > 0.0:
            continue  # not bound by the potential (xenon): no reference is better than a wrong one
        if held is None or energy < held.energy_eV_atom:
            name = best["structure"]
            id = name if name.startswith("mp-") else f"onnes-{symbol}-{name}"
            better.append(Reference(symbol, energy, id))
    return better


def near_hull(table: HullReferences, every: list[Reference]) -> list[Reference]:
    """Drop phases far above the hull of their own system."""
    kept = []
    systems: dict[frozenset, list[Reference]] = {}
    for reference in every:
        parts = frozenset(e.symbol for e in Composition(reference.formula).elements)
        systems.setdefault(parts, []).append(reference)
    for parts, members in systems.items():
        if not parts <= table.elements.keys():
            kept += members
            continue
        diagram = PhaseDiagram(
            [
                PDEntry(Composition(p.formula), p.energy_eV_atom * Composition(p.formula).num_atoms)
                for p in table.phases(parts)
            ]
        )
        for m in members:
            above = m.energy_eV_atom - diagram.get_hull_energy_per_atom(Composition(m.formula))
            if above <= NEAR or len(parts) == 1:
                kept.append(m)
    return sorted(kept)


def relaxed_sample(found: dict[str, Reference], n: int, seed: int, seconds: str = "") -> dict:
    """Relax a random sample of the kept phases and compare energies."""
    by_id = {r["id"]: r for r in rows()}
    names = [
        f for f, r in sorted(found.items()) if len(by_id.get(r.id, {"species": [0] * 99})["species"]) <= 20
    ]
    rng = np.random.default_rng(seed)
    falls = []
    for name in rng.choice(names, size=min(n, len(names)), replace=False):
        row = by_id[found[name].id]
        done = relax(Structure(row["lattice"], row["species"], row["frac"]), RelaxSettings(fmax_eV_A=0.03))
        if done.converged:
            falls.append(found[name].energy_eV_atom - done.energy_eV_atom)
    falls_meV = 1e3 * np.array(falls)
    return {
        "n": len(falls),
        "asked": n,
        "seed": seed,
        "mean_meV_atom": round(float(falls_meV.mean()), 2),
        "median_meV_atom": round(float(np.median(falls_meV)), 2),
        "p90_meV_atom": round(float(np.quantile(falls_meV, 0.9)), 2),
        "max_meV_atom": round(float(falls_meV.max()), 2),
    }


def against_dft(found_all: dict[str, float], table: HullReferences) -> dict:
    """Compare formation energies with Materials Project's own (PBE), where it gives them."""
    ours, theirs, shares = [], [], []
    for row in rows():
        value = row.get("formation_energy_eV_atom")
        if value is None or row["id"] not in found_all:
            continue
        made = table.evaluate(Structure(row["lattice"], row["species"], row["frac"]), found_all[row["id"]])
        if made.formation_energy_eV_atom is not None and len(set(row["species"])) > 1:
            ours.append(made.formation_energy_eV_atom)
            theirs.append(value)
            shares.append({s: row["species"].count(s) / len(row["species"]) for s in row["species"]})
    difference = np.array(ours) - np.array(theirs)
    return {
        "n": len(difference),
        "mae_eV_atom": round(float(np.abs(difference).mean()), 4),
        "median_abs_eV_atom": round(float(np.median(np.abs(difference))), 4),
        "mae_after_one_shift_an_element_eV_atom": _shifted(shares, difference),
        "mean_eV_atom": round(float(difference.mean()), 4),
        "note": "Materials Project applies energy corrections (anions, +U); the potential learned without them",
    }


def _shifted(shares: list[dict[str, float]], difference: np.ndarray) -> float:
    """What is left when each element may be shifted: the part that is not a matter of references."""
    names = sorted({s for row in shares for s in row})
    matrix = np.array([[row.get(s, 0.0) for s in names] for row in shares])
    shift = np.linalg.lstsq(matrix, difference, rcond=None)[0]
    return round(float(np.abs(difference - matrix @ shift).mean()), 4)


def write(path: Path, references: list[Reference]) -> None:
    """Write the table; equal content gives equal bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Reference._fields)
    writer.writerows([r.formula, f"{r.energy_eV_atom:.5f}", r.id] for r in references)
    with atomic_write(path) as handle:
        handle.write(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--energies", type=Path, required=True)
    parser.add_argument("--elements", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = lowest(args.energies)
    extra = element_references(found, args.elements)
    found.update({r.formula: r for r in extra})
    every = list(found.values())
    table = HullReferences(every)
    kept = near_hull(table, every)
    write(args.out, kept)
    energies = {
        k: v for p in sorted(args.energies.glob("part-*.json")) for k, v in json.loads(p.read_text()).items()
    }
    sample = {r.formula: r for r in kept if r.id.startswith("mp-")}
    card = {
        "what": "energy per atom of known phases with SevenNet-0 (7net-0) at Materials Project geometries",
        "data": "mp_crystals (Materials Project, CC BY 4.0: compositions and ids); energies are computed here",
        "data_hash": hashlib.sha256((SHARED / "data" / "mp_crystals.jsonl.gz").read_bytes()).hexdigest()[:16],
        "crystals": len(energies),
        "formulas": len(found),
        "kept_within_eV_atom_of_own_hull": NEAR,
        "rows": len(kept),
        "elements": len(table.elements),
        "elements_relaxed_here": sorted(r.formula for r in extra),
        "energy_gained_by_relaxing_a_sample": relaxed_sample(sample, args.sample, args.seed),
        "formation_energy_against_materials_project": against_dft(energies, HullReferences(kept)),
        "command": "python training/hull/{energies,elements}.py; "
        f"python training/hull/pack.py --sample {args.sample}"
        f" --seed {args.seed}",
    }
    args.out.with_name("hull_references.card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
