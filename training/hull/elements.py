"""Relax every element in common structures: python training/hull/elements.py --out elements.json.

The Materials Project crystals at hand hold some elements only in unusual structures (or not at all); a wrong
elemental reference would shift every formation energy of that element. Resumable: elements in the file stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from energies import rows
from pymatgen.core import Lattice, Structure

from onnes.data.files import atomic_text
from onnes.stability.potentials import elements
from onnes.stability.relax import RelaxSettings, relax

#: Bond lengths of the diatomic molecules, angstrom.
DIMERS = {"H": 0.74, "N": 1.10, "O": 1.21, "F": 1.42, "Cl": 1.99, "Br": 2.28, "I": 2.67}


def prototypes(symbol: str) -> Iterator[tuple[str, Structure]]:
    """Common structures of elements at a distance of two covalent radii between neighbours."""
    d = 2.0 * float(covalent_radii[chemical_symbols.index(symbol)])

    def crystal(group: str, lattice: Lattice, *sites: tuple[float, float, float]) -> Structure:
        return Structure.from_spacegroup(
            group, lattice, [symbol] * len(sites), list(sites)
        ).get_primitive_structure()

    yield "fcc", crystal("Fm-3m", Lattice.cubic(d * np.sqrt(2)), (0, 0, 0))
    yield "bcc", crystal("Im-3m", Lattice.cubic(2 * d / np.sqrt(3)), (0, 0, 0))
    yield "hcp", crystal("P6_3/mmc", Lattice.hexagonal(d, 1.633 * d), (1 / 3, 2 / 3, 1 / 4))
    yield (
        "dhcp",
        crystal("P6_3/mmc", Lattice.hexagonal(d, 3.266 * d), (0, 0, 0), (1 / 3, 2 / 3, 1 / 4)),
    )
    yield "sc", crystal("Pm-3m", Lattice.cubic(d), (0, 0, 0))
    yield "diamond", crystal("Fd-3m", Lattice.cubic(4 * d / np.sqrt(3)), (1 / 8, 1 / 8, 1 / 8))
    yield "A15", crystal("Pm-3n", Lattice.cubic(2 * d), (0, 0, 0), (1 / 4, 0, 1 / 2))
    if symbol in DIMERS:
        bond = DIMERS[symbol]
        a = (2 * bond + 4.0) * 0.95
        u = bond / 2 / (a * np.sqrt(3))
        yield "molecular", crystal("Pa-3", Lattice.cubic(a), (u, u, u))


def lowest(symbol: str, known: list[tuple[str, Structure]]) -> dict:
    """Relax all structures of an element and keep the lowest energy."""
    tried = {}
    for name, structure in [*prototypes(symbol), *known]:
        # Molecules: stiff bonds keep small forces alive that are worth less than 1 meV/atom.
        fmax = 0.06 if name == "molecular" else 0.02
        done = relax(structure, RelaxSettings(fmax_eV_A=fmax, max_steps=200))
        if done.converged:
            tried[name] = round(done.energy_eV_atom, 5)
    best = min(tried, key=lambda k: tried[k]) if tried else ""
    return {"structure": best, "energy_eV_atom": tried.get(best), "tried": tried}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, list[tuple[str, Structure]]] = {}
    for r in rows():
        if len(set(r["species"])) == 1 and len(r["species"]) <= 16:
            structure = Structure(r["lattice"], r["species"], r["frac"])
            known.setdefault(r["species"][0], []).append((r["id"], structure))
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    for z in sorted(elements()):
        symbol = chemical_symbols[z]
        if symbol in found:
            continue
        found[symbol] = lowest(symbol, known.get(symbol, [])[:6])
        with atomic_text(args.out) as handle:
            json.dump(found, handle, indent=1)
        print(symbol, found[symbol], flush=True)


if __name__ == "__main__":
    main()
