"""The cost model against captured timings, and what a table warns of."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from qe_fixtures import captured

from onnes.dft.estimate import (
    bands_of,
    estimate,
    fermi_sum_s,
    fft_grid,
    linear_response_s,
)
from onnes.dft.grids import irreducible, k_points_at, point_rotations
from onnes.dft.ph_output import parse_ph
from onnes.dft.plan import make_cell, make_plan
from onnes.dft.pw_output import BOHR_A, parse_pw
from onnes.dft.tiers import TIERS, TierName

FCC = np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]]) / 2.0
#: Captured runs: cell in A, density cut-off in Ry, coarse and dense k, FFT, processes.
RUNS = {
    "al_pbesol": (FCC * 7.5871 * BOHR_A, 160.0, 12, 24, (24, 24, 24), 2),
    "al_lda": (FCC * 7.5 * BOHR_A, 60.0, 8, 16, (15, 15, 15), 2),
    "sc_al": (np.eye(3) * 5.1 * BOHR_A, 60.0, 8, 16, (15, 15, 15), 1),
}
#: CPU seconds of one q on one core, measured with this project's inputs (q, coarse k, dense k, valence electrons).
SINGLE = {
    "Nb": (
        Structure(Lattice(np.array([[1, 1, 1], [-1, 1, 1], [-1, -1, 1]]) * 3.1 * BOHR_A), ["Nb"], [[0, 0, 0]]),
        4, 8, 16, 13.0, 12, True, 178.0,
    ),
    "MgB2": (
        Structure(
            Lattice.hexagonal(5.808 * BOHR_A, 5.808 * 1.142 * BOHR_A),
            ["Mg", "B", "B"],
            [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
        ),
        2, 6, 12, 16.0, 1, False, 116.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_fft_grid_and_bands_are_those_of_pw(name):
    lattice, cutoff, *_, fft, _ = RUNS[name]
    assert fft_grid(lattice, cutoff) == fft
    found = parse_pw(captured(f"{name}/scf.out"))
    assert bands_of(found.electrons) == found.bands


@pytest.mark.parametrize("name", RUNS)
def test_phonon_runs_within_a_factor_of_1_6(name):
    lattice, cutoff, _, dense, _, processes = RUNS[name]
    run = parse_ph(captured(f"{name}/ph.out"))
    ours = sum(
        linear_response_s(p.k_points, 3, 6, fft_grid(lattice, cutoff)) + fermi_sum_s(dense**3, 3, 6, 10)
        for p in run.points
    )
    assert 1 / 1.6 < ours / (run.cpu_s * processes) < 1.6


@pytest.mark.parametrize("name", SINGLE)
def test_single_q_of_other_crystals_within_a_factor_of_1_6(name):
    structure, q, k, dense, electrons, star, heavy, measured = SINGLE[name]
    rotations = point_rotations(structure)
    points, weights = irreducible((q,) * 3, rotations)
    at = next(p for p, w in zip(points, weights, strict=True) if w == star and np.abs(p).max() > 0)
    fft = fft_grid(structure.lattice.matrix, 240.0)
    bands, modes = bands_of(electrons), 3 * len(structure)
    ours = linear_response_s(k_points_at(at, (k,) * 3, rotations), modes, bands, fft, d_electrons=heavy)
    ours += fermi_sum_s(dense**3, modes, bands, 10)
    assert 1 / 1.6 < ours / measured < 1.6


def made(structure, tier=TierName.QUICK, **options):
    plan = make_plan(make_cell(structure, TIERS[tier], **options), TIERS[tier])
    return plan, estimate(plan)


def test_estimate_of_a_plan():
    structure = Structure(Lattice(FCC * 4.04), ["Al"], [[0, 0, 0]])
    plan, cost = made(structure, TierName.STANDARD)
    assert plan.grids.q == (4, 4, 4) and plan.grids.k == (12, 12, 12)
    phonons = next(s for s in cost.steps if s.kind == "ph.x")
    assert phonons.count == 8 and phonons.k_points == 5508
    assert cost.electrons == 3.0 and cost.symmetries == 48
    assert cost.wall_s(1) == pytest.approx(cost.cpu_s)
    assert cost.longest_q_s < cost.wall_s(1000) < cost.wall_s(2) < cost.cpu_s
    # pw.x on one core, and enough workers for every q: the serial rest does not shrink.
    serial = sum(s.cpu_s for s in cost.steps if s.kind != "ph.x")
    assert cost.wall_s(1, 1000) == pytest.approx(cost.longest_q_s + serial)
    assert cost.disk_MB(1) < cost.disk_MB(2) <= cost.disk_MB(8) == cost.disk_MB(100)
    assert not any("insulator" in text for text in cost.cautions)  # an odd number of electrons


def test_tiers_cost_more_and_more():
    structure = Structure(Lattice(FCC * 4.04), ["Al"], [[0, 0, 0]])
    costs = [made(structure, tier)[1].cpu_s for tier in TierName]
    assert costs[0] * 3 < costs[1] < costs[2] / 3


@pytest.mark.parametrize(
    ("species", "words"),
    [
        (["Na", "Cl"], "likely an insulator"),
        (["Mg", "Mg"], "may be an insulator"),
        (["Fe", "Al"], "magnetic"),
        (["Al", "Al"], "PseudoDojo"),
    ],
)
def test_cautions(species, words):
    structure = Structure(Lattice.cubic(3.5), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert any(words in text for text in made(structure)[1].cautions)


def test_element_outside_the_table_is_said_so():
    structure = Structure(Lattice.cubic(3.5), ["Ce", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert any("Ce: valence charge unknown" in text for text in made(structure, ecut_Ry=60.0)[1].cautions)
