"""Phonon moments of SevenNet-0 for a sample of the labelled crystals: phonons.py --out DIR --n 1200.

One displaced supercell a degree of freedom (phonopy), supercells of 12 to 24 atoms, residual forces subtracted: an
input for heads, not a phonon calculation to publish. Crystals in the order of numpy seed 0; parts of 50 are written
atomically and kept, so a rerun resumes. Columns an element of a crystal: mean omega^2, mean omega, exp(mean ln omega),
mean omega^-2 (THz powers, over its atoms' projected density of states), share of imaginary modes.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import spglib
import torch
from ase import Atoms
from ase.data import atomic_numbers
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from data import labels
from onnes.stability.potentials import calculator, elements

#: Frequencies below are clipped before logarithm and inverse.
LEAST_THZ = 0.5
MESH = (4, 4, 4)


def supercell(conventional_atoms: int, lengths: np.ndarray) -> np.ndarray:
    """Double the shortest axes until there are 12 atoms; never more than 24."""
    times = np.ones(3, dtype=int)
    while conventional_atoms * times.prod() < 12:
        times[np.argmin(lengths * times)] *= 2
    return np.diag(times)


def moments(row: dict, calc) -> list[tuple]:
    """Return (atomic number, count, five numbers) of every element."""
    cell = (row["lattice"], row["frac"], [atomic_numbers[s] for s in row["species"]])
    lattice, positions, numbers = spglib.standardize_cell(cell, symprec=1e-3)
    if len(numbers) > 24:
        lattice, positions, numbers = spglib.standardize_cell(cell, to_primitive=True, symprec=1e-3)
    unit = PhonopyAtoms(numbers=numbers, cell=lattice, scaled_positions=positions)
    matrix = supercell(len(numbers), np.linalg.norm(lattice, axis=1))
    phonon = Phonopy(unit, supercell_matrix=matrix, primitive_matrix="auto", symprec=1e-3)
    phonon.generate_displacements(distance=0.02, is_plusminus=False)

    def forces(cell) -> np.ndarray:
        atoms = Atoms(
            numbers=cell.numbers,
            cell=cell.cell,
            scaled_positions=cell.scaled_positions,
            pbc=True,
            calculator=calc,
        )
        return atoms.get_forces()

    rest = forces(phonon.supercell)
    phonon.forces = [forces(c) - rest for c in phonon.supercells_with_displacements]
    phonon.produce_force_constants()
    phonon.run_mesh(MESH, with_eigenvectors=True, is_mesh_symmetry=False)
    mesh = phonon.get_mesh_dict()
    omega = mesh["frequencies"]
    # (q, 3N, band) -> weight of each atom in each band.
    weight = (np.abs(mesh["eigenvectors"]) ** 2).reshape(len(omega), -1, 3, omega.shape[1]).sum(2)
    kept = np.maximum(omega, LEAST_THZ)
    functions = (np.sign(omega) * omega**2, omega, np.log(kept), kept**-2.0, (omega < -0.1).astype(float))
    out = []
    z = np.array(phonon.primitive.numbers)
    for number in np.unique(z):
        w = weight[:, z == number].sum(1)
        means = [float((w * f).sum() / w.sum()) for f in functions]
        out.append((int(number), int((z == number).sum()), *means))
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1200)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    calc, known = calculator("7net-0"), elements("7net-0")
    rows = [r for source, r in labels().values() if source == 0]
    order = np.random.default_rng(0).permutation(len(rows))[: args.n]
    for start in range(0, len(order), 50):
        part = args.out / f"part-{start:06d}.npz"
        if part.exists():
            continue
        begun, ids, table = time.time(), [], []
        for i in order[start : start + 50]:
            if not all(atomic_numbers[s] in known for s in rows[i]["species"]):
                continue
            try:
                found = moments(rows[i], calc)
            except Exception as error:
                print(rows[i]["id"], type(error).__name__, error, flush=True)
                continue
            ids += [rows[i]["id"]] * len(found)
            table += found
        temporary = part.with_suffix(".tmp.npz")
        np.savez(temporary, id=np.array(ids), table=np.array(table, dtype=np.float32))
        os.replace(temporary, part)
        print(start, len(set(ids)), f"{time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
