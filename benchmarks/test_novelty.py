"""Candidates against the index of known crystals, on one core: the aim is 10,000 in two minutes.

    OMP_NUM_THREADS=1 pytest benchmarks/test_novelty.py --benchmark-enable

The candidates are common structure types with random elements under small noise (rocksalt, perovskite, A15, AlB2,
full Heusler) and random cells of five elements and up to 12 atoms: known, known formula, and mostly new. A run answers
500 of them; its time is the process's own, so that a busy machine does not count.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.stability.novelty import KnownCrystals

N = 500
ATOMS = ("Li", "Mg", "Al", "Si", "Ca", "Ti", "V", "Ni", "Y", "Zr", "Nb", "Mo", "Pd", "La", "Hf", "Ta")
LIGHT = ("H", "B", "C", "N", "O")


def templates() -> list[tuple[Structure, str]]:
    """Common structure types and what stands for their elements: A and B any metal, X a light element."""

    def cubic(group: str, species, sites) -> Structure:
        return Structure.from_spacegroup(group, Lattice.cubic(5.0), species, sites).get_primitive_structure()

    lattice = Lattice.hexagonal(3.1, 3.5)
    return [
        (cubic("Fm-3m", ["Mo", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]), "rocksalt"),
        (cubic("Pm-3m", ["Mo", "Ta", "N"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]), "perovskite"),
        (cubic("Pm-3n", ["Mo", "Ta"], [[0.25, 0, 0.5], [0, 0, 0]]), "A15"),
        (Structure.from_spacegroup("P6/mmm", lattice, ["Mo", "N"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]]), "AlB2"),
        (cubic("Fm-3m", ["Mo", "Ta", "N"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]), "Heusler"),
    ]


def candidates(n: int, seed: int) -> list[Structure]:
    """Templates with random elements, and one random cell for every five of them, all with noise on the sites."""
    rng, held, made = np.random.default_rng(seed), templates(), []
    for _ in range(n):
        kind = int(rng.integers(len(held) + 1))
        if kind == len(held):
            metals = [str(s) for s in rng.choice(ATOMS, 4, replace=False)]
            names = metals + [str(rng.choice(LIGHT))] * int(rng.integers(1, 9))
            made.append(
                Structure(Lattice.cubic(len(names) ** (1 / 3) * 2.6), names, rng.random((len(names), 3)))
            )
            continue
        structure = held[kind][0]
        a, b = (str(s) for s in rng.choice(ATOMS, 2, replace=False))
        swap = {"Mo": a, "Ta": b, "N": str(rng.choice(LIGHT))}
        moved = structure.frac_coords + rng.normal(0.0, 0.004, (len(structure), 3))
        made.append(Structure(structure.lattice, [swap[s.specie.symbol] for s in structure], moved))
    return made


@pytest.mark.benchmark(group="novelty", timer=time.process_time)
def test_candidates_against_the_index(benchmark):
    index, given = KnownCrystals.load(), candidates(N, 0)
    found = benchmark.pedantic(lambda: [index.find(s) for s in given], rounds=2, warmup_rounds=1)
    words = {f.novelty for f in found}
    assert words == {"known", "known-composition-new-structure", "new-composition"}
    if benchmark.enabled:
        benchmark.extra_info["seconds_for_10000"] = round(benchmark.stats.stats.median * 10_000 / N, 1)
        assert benchmark.extra_info["seconds_for_10000"] < 120
