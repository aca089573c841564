"""Crystals as free parameters: the frame gives back the crystal, the group is kept, shifts of the origin drop out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from onnes.crystal.families import log_lattice
from onnes.crystal.wyckoff import LETTERS, describe
from onnes.crystal.wyckoff_table import changes, wyckoff_positions
from onnes.generate.orbits import (
    FamilyScale,
    Frame,
    frame_batch,
    position_maps,
    positions,
    to_parameters,
    without_drift,
)


def spread(group, cell, species, at):
    return Structure.from_spacegroup(group, cell, species, at)


def crystals() -> list[Structure]:
    third = [1 / 3, 2 / 3]
    return [
        Structure(
            Lattice.hexagonal(3.086, 3.524),
            ["Mg", "B", "B"],
            [[0, 0, 0], [*third, 0.5], [2 / 3, 1 / 3, 0.5]],
        ),
        spread("Pm-3n", Lattice.cubic(4.72), ["V", "Si"], [[0.25, 0, 0.5], [0, 0, 0]]),
        spread(
            "I4/mmm",
            Lattice.tetragonal(3.9, 11.7),
            ["Ba", "Fe", "As"],
            [[0, 0, 0], [0.5, 0, 0.25], [0, 0, 0.354]],
        ),
        spread("R-3m", Lattice.hexagonal(3.3, 23.2), ["Mo", "S"], [[0, 0, 0.1], [0, 0, 0.22]]),
        spread("P6_3mc", Lattice.hexagonal(3.8, 6.2), ["Zn", "S"], [[*third, 0.0], [*third, 0.38]]),
        spread(
            "C2/m",
            Lattice.from_parameters(12, 3.1, 6.2, 90, 104, 90),
            ["Nb", "Se"],
            [[0.13, 0, 0.31], [0.4, 0.5, 0.12]],
        ),
        Structure(
            Lattice.from_parameters(4.1, 5.2, 6.3, 80, 95, 101),
            ["Li", "B", "C"],
            [[0, 0, 0], [0.3, 0.4, 0.2], [0.7, 0.2, 0.6]],
        ),
        spread("Fm-3m", Lattice.cubic(4.47), ["Nb", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ]


def framed(structure: Structure) -> tuple[Frame, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    found = describe(structure)
    kinds = [s.element for s in found.sites]
    from ase.data import atomic_numbers

    frame = Frame(
        found.number,
        tuple(LETTERS.index(s.letter) for s in found.sites),
        tuple(atomic_numbers[k] for k in kinds),
    )
    batch = {k: v.double() if v.is_floating_point() else v for k, v in frame_batch([frame]).items()}
    w = torch.zeros(1, frame.n_atoms, 3, dtype=torch.float64)
    for i, site in enumerate(found.sites):
        w[0, i, : len(site.parameters)] = torch.tensor(site.parameters)
    vector = torch.as_tensor(log_lattice(found.structure().lattice.matrix[None]))
    vector[:, :3] -= batch["log_n"][:, None]
    return frame, batch, w, vector


SCALE = FamilyScale(1.0, 0.3, 0.2)


@pytest.mark.parametrize("structure", crystals(), ids=lambda s: s.composition.reduced_formula)
def test_a_frame_with_its_parameters_is_the_crystal(structure):
    _, batch, w, vector = framed(structure)
    x = SCALE.encode(vector, batch)
    cell = SCALE.cells(x, batch)[1][0].numpy()
    again = Structure(Lattice(cell), batch["types"][0].tolist(), positions(w, batch)[0].numpy())
    assert len(again) == len(structure.get_primitive_structure())
    assert StructureMatcher(stol=0.01, ltol=0.01, angle_tol=0.1).fit(structure, again)


@pytest.mark.parametrize("structure", crystals(), ids=lambda s: s.composition.reduced_formula)
def test_any_parameters_keep_the_group(structure):
    frame, batch, w, vector = framed(structure)
    g = torch.Generator().manual_seed(1)
    w = (w + 0.11 * torch.rand(w.shape, generator=g, dtype=w.dtype) * batch["free"]) % 1.0
    x = SCALE.encode(vector, batch)
    x = x + SCALE.project(0.2 * torch.randn(x.shape, generator=g, dtype=x.dtype), batch)
    cell = SCALE.cells(x, batch)[1][0].numpy()
    again = Structure(Lattice(cell), batch["types"][0].tolist(), positions(w, batch)[0].numpy())
    number = describe(again, 1e-3).number
    # Chance can only add symmetry, and only where nothing is free to break it.
    assert number == frame.number


@pytest.mark.parametrize("structure", crystals(), ids=lambda s: s.composition.reduced_formula)
def test_displacements_of_parameters_come_back(structure):
    _, batch, w, _ = framed(structure)
    g = torch.Generator().manual_seed(2)
    step = 1e-3 * torch.randn(w.shape, generator=g, dtype=w.dtype) * batch["free"]
    moved = positions(w + step, batch) - positions(w, batch)
    moved -= moved.round()
    torch.testing.assert_close(to_parameters(moved, batch), step, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 4, 8, 26, 36, 76, 107, 146, 160, 186])
def test_a_shift_along_polar_axes_is_no_displacement(number):
    every = wyckoff_positions(number)
    general = every[-1].index
    frame = Frame(number, (general, general), (5, 6))
    batch = {k: v.double() if v.is_floating_point() else v for k, v in frame_batch([frame]).items()}
    rng = np.random.default_rng(0)
    w = torch.as_tensor(rng.random((1, frame.n_atoms, 3)))
    from onnes.crystal.wyckoff import primitive_basis

    for axis in np.flatnonzero(changes(number).polar):
        shift = np.eye(3)[axis] * 1e-3 @ np.linalg.inv(primitive_basis(number))
        d = to_parameters(torch.as_tensor(shift).expand(1, frame.n_atoms, 3), batch)
        moved = positions(w + d, batch) - positions(w, batch)
        moved -= moved.round()
        torch.testing.assert_close(moved, torch.as_tensor(shift).expand_as(moved), atol=1e-9, rtol=1e-6)
        torch.testing.assert_close(without_drift(d, batch), torch.zeros_like(d), atol=1e-9, rtol=0.0)
    assert changes(number).polar.any()


def test_all_positions_of_all_groups_map_and_come_back():
    for number in range(1, 231):
        for p in wyckoff_positions(number):
            a, b, back, _ = position_maps(number, p.index)
            assert np.allclose(a * 2, np.rint(a * 2)) and len(a) == len(b)
            mean = (back @ a).mean(0)
            assert np.allclose(mean, np.diag([1.0] * p.freedom + [0.0] * (3 - p.freedom)), atol=1e-9), (
                number,
                p.letter,
            )
