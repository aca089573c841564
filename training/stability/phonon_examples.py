"""Phonons of eight known crystals beside experiment: phonon_examples.py --out DIR [--potential NAME] [--lattice NAME].

Starts from the experimental lattice constants, writes every figure and csv to DIR, and prints the table of
docs/phonons.md. With --lattice the cell is relaxed by that potential and kept (``onnes relax --symmetry --fmax 0.001``,
then ``onnes phonons --fixed-cell``). A crystal whose numbers are already in DIR is not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from onnes.data.files import atomic_text
from onnes.errors import OnnesError, PhysicsError
from onnes.stability.phonon_files import write_files
from onnes.stability.phonon_report import RELAXED, phonon_report
from onnes.stability.relax import RelaxSettings, relax

CUBIC = Lattice.cubic
# Name: space group, lattice (experiment, room temperature), species, positions, highest frequency measured in meV
# (None: not known to us), calorimetric Debye temperature in K (None likewise). Sources: docs/phonons.md.
CRYSTALS = {
    "Al": ("Fm-3m", CUBIC(4.0495), ["Al"], [[0, 0, 0]], 40.0, 428),
    "Nb": ("Im-3m", CUBIC(3.3004), ["Nb"], [[0, 0, 0]], 26.9, 275),
    "Pb": ("Fm-3m", CUBIC(4.9508), ["Pb"], [[0, 0, 0]], 9.0, 105),
    "MgB2": (
        "P6/mmm",
        Lattice.hexagonal(3.086, 3.524),
        ["Mg", "B"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.5]],
        97.0,
        None,
    ),
    "NbC": ("Fm-3m", CUBIC(4.470), ["Nb", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]], None, None),
    "V3Si": ("Pm-3n", CUBIC(4.725), ["V", "Si"], [[0.25, 0, 0.5], [0, 0, 0]], None, None),
    "CsCl": ("Pm-3m", CUBIC(4.123), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], None, None),
    "Si": ("Fd-3m", CUBIC(5.431), ["Si"], [[0, 0, 0]], 64.4, 645),
}


def relaxed(structure: Structure, potential: str) -> Structure:
    done = relax(structure, RelaxSettings(potential, fmax_eV_A=1e-3, symmetry=True))
    if not done.converged:
        raise PhysicsError("not-relaxed", done.reason)
    return done.structure


def computed(name: str, potential: str, out: Path, cell_by: str | None) -> dict[str, object]:
    label = f"{name}.{potential}" + (f".at-{cell_by}" if cell_by else "")
    kept = out / f"{label}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    group, lattice, species, positions, _, _ = CRYSTALS[name]
    structure = Structure.from_spacegroup(group, lattice, species, positions)
    begun = time.time()
    try:
        if cell_by:
            structure = relaxed(structure.get_primitive_structure(), cell_by)
        settings = replace(RELAXED, potential=potential, relax_cell=cell_by is None)
        report = phonon_report(structure, settings)
    except OnnesError as error:
        numbers: dict[str, object] = {"name": name, "potential": potential, "error": str(error)}
    else:
        write_files(report, out, label)
        cell = SpacegroupAnalyzer(report.structure, 1e-3).get_conventional_standard_structure().lattice
        numbers = {"name": name, "a": cell.a, "c": cell.c, "seconds": time.time() - begun, **report.numbers()}
    with atomic_text(kept) as handle:
        handle.write(json.dumps(numbers, indent=2))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--potential", nargs="+", default=["7net-0"])
    parser.add_argument(
        "--lattice", help="potential that relaxes the cell, instead of the one of the phonons"
    )
    parser.add_argument("--only", nargs="+", default=list(CRYSTALS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(
        "| crystal | potential | a, c (A) | off | verdict | lowest | top (meV) | measured | theta_D (K) | measured |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for potential in args.potential:
        for name in args.only:
            row = computed(name, potential, args.out, args.lattice)
            if "error" in row:
                print(f"| {name} | {potential} | {row['error']} |", flush=True)
                continue
            _, lattice, *_, top, debye = CRYSTALS[name]
            size, off = f"{row['a']:.3f}", f"{100 * (row['a'] / lattice.a - 1):+.2f} %"
            if abs(lattice.c - lattice.a) > 1e-3:
                size += f", {row['c']:.3f}"
                off += f", {100 * (row['c'] / lattice.c - 1):+.2f} %"
            sound = row["debye_acoustic_K"]
            print(
                f"| {name} | {potential} | {size} | {off} | {row['verdict']} | {row['worst_cm1']:.1f} cm-1"
                f" | {row['top_cm1'] / 8.06554:.1f} | {top or '-'} | {sound and round(sound)} | {debye or '-'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
