"""Round trip crystal -> description -> crystal, and invariance of descriptions, on sets of crystals.

    python training/wyckoff/round_trip.py --n 800 mp_crystals.jsonl.gz alexandria_eph.jsonl.gz jarvis_supercon.jsonl.gz

A crystal passes when pymatgen's StructureMatcher (defaults) finds the rebuilt primitive cell equal to the original
and moyopy (symprec 0.01 A) finds the same space group in it. Invariance: the same crystal with another origin, order of
sites and cell (a random unimodular one, and a supercell of two) must have the same letters and elements, and, counted
apart, the same parameters to 0.002 and lattice to 0.1 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from onnes.crystal.symmetry import space_group
from onnes.crystal.wyckoff import Described, describe
from onnes.errors import CrystalError


def sample(path: Path, n: int, max_atoms: int, seed: int) -> list[tuple[str, Structure]]:
    """Random crystals of a file."""
    with gzip.open(path, "rt") as stream:
        rows = [json.loads(line) for line in stream]
    rows = [r for r in rows if len(r["species"]) <= max_atoms]
    pick = np.random.default_rng(seed).permutation(len(rows))[:n]
    return [(rows[i]["id"], Structure(rows[i]["lattice"], rows[i]["species"], rows[i]["frac"])) for i in pick]


def other_cell(structure: Structure, rng: np.random.Generator, double: bool) -> Structure:
    """The same crystal in another cell, with another origin and order of sites."""
    change = np.eye(3, dtype=int)
    for _ in range(2):
        i, j = rng.choice(3, 2, replace=False)
        change[i] += int(rng.choice([-1, 1])) * change[j]
    if double:
        change[int(rng.integers(3))] *= 2
    out = structure.make_supercell(change, in_place=False)
    out.translate_sites(range(len(out)), rng.random(3), to_unit_cell=True)
    order = rng.permutation(len(out))
    return Structure(Lattice(out.lattice.matrix), [out[i].specie for i in order], out.frac_coords[order])


def compare(a: Described, b: Described) -> tuple[bool, bool]:
    """Same group, letters and elements; same numbers, too."""
    same = a.number == b.number and [(s.letter, s.element) for s in a.sites] == [
        (s.letter, s.element) for s in b.sites
    ]
    if not same:
        return False, False
    u = np.array([x for s in a.sites for x in s.parameters])
    v = np.array([x for s in b.sites for x in s.parameters])
    near = bool(np.abs(u - v - np.rint(u - v)).max(initial=0.0) < 2e-3)
    return True, near and np.allclose(a.lattice, b.lattice, rtol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--n", type=int, default=800)
    parser.add_argument("--max-atoms", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--invariance", type=int, default=200, help="crystals of each file")
    args = parser.parse_args()
    matcher = StructureMatcher()
    for path in args.files:
        rng = np.random.default_rng(args.seed)
        count: Counter[str] = Counter()
        began, spent = time.time(), 0.0
        for index, (name, structure) in enumerate(sample(path, args.n, args.max_atoms, args.seed)):
            count["crystals"] += 1
            try:
                start = time.perf_counter()
                found = describe(structure)
                spent += time.perf_counter() - start
            except CrystalError as error:
                count["not described"] += 1
                print(path.stem, name, error)
                continue
            built = found.primitive()
            equal = matcher.fit(built, structure)
            group = space_group(built)[0]
            count["equal and same group"] += equal and group == found.number
            if not equal or group != found.number or len(built) != found.n_primitive:
                print(path.stem, name, f"equal {equal}, group {found.number} -> {group}", structure.formula)
            if index < args.invariance:
                for kind, double in (("cell", False), ("supercell", True)):
                    letters, values = compare(found, describe(other_cell(structure, rng, double)))
                    count[f"{kind}: letters"] += letters
                    count[f"{kind}: all"] += values
                    count[f"{kind}: tried"] += 1
                    if not letters:
                        print(path.stem, name, kind, "letters differ", found.number, found.letters)
        print(
            path.name,
            dict(count),
            f"describe {1e3 * spent / count['crystals']:.1f} ms, {time.time() - began:.0f} s",
        )


if __name__ == "__main__":
    main()
