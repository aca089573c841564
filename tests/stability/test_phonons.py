"""Phonons: closed forms, invariances, verdicts, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.emt import EMT
from phonon_springs import TO_CM1, TO_THZ, Springs, fcc_frequencies
from pymatgen.core import Lattice, Structure

from onnes.crystal.read import Crystal, read
from onnes.errors import CrystalError, InputError, PhysicsError, SettingsError
from onnes.stability.phonon_bands import standard_path
from onnes.stability.phonon_files import density, write_files
from onnes.stability.phonon_report import AS_GIVEN, RELAXED, phonon_report
from onnes.stability.phonon_thermal import debye_acoustic, heat_capacity
from onnes.stability.phonon_verdict import Modes, commensurate, judge, noise_radius, vote
from onnes.stability.phonons import PhononSettings, harmonic, repetitions, site_spectra
from onnes.units import UNITS

A, MASS, STIFF = 4.0, 63.546, (2.0, 0.5)
SPRINGS = Springs([A / np.sqrt(2), A], STIFF)
# Three times the primitive cell reaches beyond the second neighbours that the springs hold.
QUICK = replace(AS_GIVEN, least_length_A=6.5, mesh_length_A=30.0, zone_edges=False)


def fcc(a: float = A) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Cu"], [[0, 0, 0]])


def cu3au() -> Structure:
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.72), ["Cu", "Au"], [[0.5, 0.5, 0], [0, 0, 0]])


@pytest.fixture(scope="module")
def springs():
    return phonon_report(fcc(), QUICK, calc=SPRINGS)


@pytest.fixture(scope="module")
def alloy():
    return phonon_report(cu3au(), replace(RELAXED, least_length_A=7.0, mesh_length_A=30.0), calc=EMT())


# --- closed forms -------------------------------------------------------------------------------------------------


def test_bands_of_springs_are_the_closed_form(springs):
    reciprocal = np.linalg.inv(springs.structure.lattice.matrix).T
    path = springs.bands.path
    exact = np.array([fcc_frequencies(q @ reciprocal, A, MASS, STIFF) for q in path.q])
    found = springs.bands.omega_meV * UNITS.meV_to_K / UNITS.THz_to_K
    # Displacements of 0.02 A make springs a little anharmonic: 1e-4 of the top.
    assert np.abs(found - exact).max() < 3e-4 * exact.max()
    assert path.lattice == "FCC" and {"Γ", "X", "L", "W", "K", "U"} <= set(path.label)


def test_long_waves_are_the_elastic_ones(springs):
    # Springs of an fcc crystal: C11 = (2 k1 + 4 k2)/a, C12 = C44 = k1/a; Christoffel's equation, averaged.
    k1, k2 = STIFF
    c11, c12 = (2 * k1 + 4 * k2) / A, k1 / A
    ways = np.random.default_rng(0).normal(size=(40_000, 3))
    ways /= np.linalg.norm(ways, axis=1)[:, None]
    tensor = (c12 + c12) * ways[:, :, None] * ways[:, None, :] + c12 * np.eye(3)
    tensor[:, range(3), range(3)] += (c11 - 3 * c12) * ways**2
    density_kg = 4 * MASS * UNITS.amu_kg / (A * UNITS.angstrom_m) ** 3
    v = np.sqrt(np.linalg.eigvalsh(tensor) * UNITS.eV_per_A3_to_GPa * UNITS.GPa_Pa / density_kg)
    mean = (v**-3.0).mean() ** (-1 / 3)
    n = 4 / (A * UNITS.angstrom_m) ** 3
    theta = UNITS.hbar_Js / UNITS.kB_JK * (6 * np.pi**2 * n) ** (1 / 3) * mean
    assert springs.debye_acoustic_K == pytest.approx(theta, rel=5e-3)


def test_second_moment_is_the_trace_of_the_force_constants(springs):
    # <omega^2> = trace Phi_ii / 3m; an atom is held by 12 springs k1 and 6 springs k2.
    omega2 = (12 * STIFF[0] + 6 * STIFF[1]) / 3 / MASS * TO_THZ**2 * (UNITS.THz_to_K) ** 2
    assert springs.debye_K == pytest.approx(np.sqrt(5 / 3 * omega2), rel=2e-3)


def test_heat_capacity_of_one_frequency_and_its_limits(springs):
    omega, t = 250.0, np.array([0.0, 10.0, 100.0, 300.0, 5000.0])
    x = omega / t[1:]
    gas = 8.314462618
    einstein = 3 * gas * x**2 * np.exp(x) / np.expm1(x) ** 2
    assert heat_capacity(np.full((2, 3), omega), [1, 3], t)[1:] == pytest.approx(einstein, rel=1e-9)
    assert heat_capacity([[omega]], [1], t)[0] == 0.0
    curve = springs.heat_capacity_J_mol_K
    assert (np.diff(curve) >= 0).all() and curve[-1] == pytest.approx(3 * gas, rel=0.01)
    assert springs.heat_capacity_300K_J_mol_K == pytest.approx(np.interp(300.0, springs.temperature_K, curve))
    with pytest.raises(PhysicsError, match="imaginary-modes"):
        heat_capacity([[-100.0, 50.0, 60.0]], [1], [300.0])


# --- invariances --------------------------------------------------------------------------------------------------


def test_any_cell_of_a_crystal_gives_the_same_phonons(alloy):
    settings = replace(RELAXED, least_length_A=7.0, mesh_length_A=30.0)
    big = cu3au()
    big.make_supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    angle = 0.4
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = Structure(cu3au().lattice.matrix @ turn, cu3au().species[::-1], cu3au().frac_coords[::-1] + 0.1)
    for other in (big, turned):
        seen = phonon_report(other, settings, calc=EMT())
        assert seen.top_cm1 == pytest.approx(alloy.top_cm1, rel=2e-4)
        assert seen.debye_K == pytest.approx(alloy.debye_K, rel=2e-4)
        assert seen.debye_acoustic_K == pytest.approx(alloy.debye_acoustic_K, rel=2e-3)
        assert (seen.verdict.verdict, len(seen.structure)) == ("stable", 4)
        assert seen.bands.path.ticks()[-1][0] == pytest.approx(alloy.bands.path.ticks()[-1][0], rel=1e-3)
        gold = {r.species.index("Au"): r for r in (seen,)}
        mean = [
            (r.spectra.weight[r.species.index("Au")] * r.spectra.omega_meV).sum()
            for r in (alloy, *gold.values())
        ]
        assert mean[0] == pytest.approx(mean[1], rel=1e-3)


def test_densities_of_states_hold_all_modes(alloy):
    omega, dos = density(alloy)
    step = omega[1] - omega[0]
    assert dos.sum(1) * step == pytest.approx(np.full(4, 3.0), abs=1e-5)
    assert dos.sum() * step == pytest.approx(12.0, abs=1e-4) and dos.min() >= 0.0


def test_translations_cost_nothing(alloy):
    path = alloy.bands.path
    at_gamma = alloy.bands.omega_meV[path.label.index("Γ")]
    assert np.abs(at_gamma[:3]).max() < 1e-3 and at_gamma[3] > 1.0


def test_site_spectra_are_those_of_the_report():
    settings = PhononSettings(least_length_A=7.0, mesh_length_A=30.0)
    seen = site_spectra(cu3au(), settings, EMT())
    report = phonon_report(cu3au(), replace(settings, most_times=12), calc=EMT())
    assert np.abs(np.cumsum(seen.weight - report.spectra.weight, axis=1)).max() < 0.05


# --- isotopes, slabs, what is refused (CASES.md 3, 20, 29) --------------------------------------------------------

CIF = """data_PdX
_cell_length_a 4.09
_cell_length_b 4.09
_cell_length_c 4.09
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Pd1 Pd 0 0 0
X1 {0} 0.5 0.5 0.5
"""


def hydride(tmp_path, symbol):
    (tmp_path / f"Pd{symbol}.cif").write_text(CIF.format(symbol))
    (item,) = read(tmp_path / f"Pd{symbol}.cif")
    assert isinstance(item, Crystal)
    return item


def test_tritium_vibrates_slower(tmp_path):
    calc = Springs([4.09 / 2, 4.09 / np.sqrt(2)], [1.0, 1.0])
    light, heavy = (phonon_report(hydride(tmp_path, s), QUICK, calc=calc) for s in "HT")
    assert light.notes == () and heavy.notes == ("isotopes: 4 H of 3.016 u",)
    palladium = 106.42
    reduced = [1 / (1 / palladium + 1 / m) for m in (1.008, 3.016049281)]
    at_gamma = [r.bands.omega_meV[0, -1] for r in (light, heavy)]
    assert at_gamma[0] / at_gamma[1] == pytest.approx(np.sqrt(reduced[1] / reduced[0]), rel=1e-4)


def test_isotopes_on_equal_sites_keep_their_own_spectra(tmp_path):
    calc = Springs([4.09 / 2, 4.09 / np.sqrt(2)], [1.0, 1.0])
    item = hydride(tmp_path, "H")
    site = next(k for k, s in enumerate(item.structure) if s.specie.symbol == "H")
    mixed = Crystal("PdHD", item.structure, "test", {"isotopes": {site: 2.014101778}})
    seen = phonon_report(mixed, QUICK, calc=calc)
    assert len(seen.structure) == 8 and seen.spectra.weight.sum(1) == pytest.approx(np.full(8, 3.0))
    # m <omega^2> of a site is the trace of its force constants, which know no masses.
    real = np.maximum(seen.spectra.omega_meV, 0.0) ** 2
    mass = np.array([106.42 if s == "Pd" else 1.008 for s in seen.species])
    mass[site] = 2.014101778
    hold = mass * (seen.spectra.weight @ real)
    alike = [k for k, s in enumerate(seen.species) if s == "H"]
    assert hold[alike] == pytest.approx(np.full(4, hold[site]), rel=3e-3)


def test_slab_is_not_repeated_along_its_vacuum():
    layer = Structure(Lattice.tetragonal(2.9, 16.0), ["Cu", "Cu"], [[0, 0, 0.45], [0.5, 0.5, 0.57]])
    seen = phonon_report(layer, replace(QUICK, relax_steps=100, force_left_eV_A=0.01), calc=EMT())
    assert seen.supercell[2] == 1 and min(seen.supercell[:2]) >= 2
    assert any(note.startswith("slab") for note in seen.notes) and seen.debye_acoustic_K is None
    assert np.ptp(seen.bands.path.q[:, 2]) == 0.0 and seen.structure.lattice.c == pytest.approx(16.0)


def test_molecules_are_refused():
    box = Structure(Lattice.cubic(9.0), ["N", "N"], [[0, 0, 0], [0, 0, 1.1 / 9]])
    with pytest.raises(CrystalError, match=r"molecule.*low-dimensional"):
        phonon_report(box, QUICK, calc=EMT())


def test_crystal_that_is_not_at_rest_is_relaxed_or_refused():
    loose = cu3au()
    loose.translate_sites([0], [0.006, 0.0, 0.0])
    with pytest.raises(PhysicsError, match=r"force of 0\.\d+ eV/A.*not-relaxed"):
        phonon_report(loose, QUICK, calc=EMT())
    few = replace(RELAXED, least_length_A=4.0, relax_steps=1)
    with pytest.raises(PhysicsError, match="not-relaxed"):
        phonon_report(loose, few, calc=EMT())
    seen = phonon_report(loose, replace(few, relax_steps=300, mesh_length_A=20.0), calc=EMT())
    assert seen.force_left_eV_A <= 1e-3 and seen.verdict.verdict == "stable"
    assert abs(seen.pressure_GPa) < 0.05 and seen.volume_change != 0.0


def test_cell_under_pressure_stays_and_is_told():
    tight = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.4), ["Cu"], [[0, 0, 0]])
    seen = phonon_report(tight, replace(RELAXED, relax_cell=False, least_length_A=6.0), calc=EMT())
    assert seen.volume_change == 0.0 and seen.pressure_GPa > 10.0
    assert any(note.startswith("pressure") for note in seen.notes)


def test_settings_and_sizes_are_checked():
    with pytest.raises(CrystalError, match="supercell-too-large"):
        phonon_report(fcc(), replace(QUICK, least_length_A=30.0), calc=SPRINGS)
    for wrong in ({"least_length_A": float("nan")}, {"force_left_eV_A": 0.0}, {"relax_steps": -1}):
        with pytest.raises(SettingsError, match="bad-setting"):
            replace(RELAXED, **wrong)
    with pytest.raises(SettingsError, match="bad-setting"):
        phonon_report(fcc(), QUICK, calc=SPRINGS, tolerance_cm1=-1.0)


# --- verdicts (CASES.md 19) ---------------------------------------------------------------------------------------

RECIPROCAL = np.eye(3) / 4.0
NEAR = noise_radius((2, 2, 2), RECIPROCAL)
POINTS = np.array([[0, 0, 0], [0.5, 0.5, 0.0], [0.2, 0.4, 0.1]])


def modes(gamma, edge, between=(50.0, 60.0, 70.0, 100.0, 110.0, 120.0)):
    return [
        Modes(POINTS[:2], np.array([gamma, edge]), ("Γ", "M"), exact=True),
        Modes(POINTS[2:], np.array([between])),
    ]


EDGE = [40.0, 50.0, 60.0, 100.0, 110.0, 120.0]


def test_acoustic_noise_at_gamma_is_not_an_instability():
    seen = judge(modes([-0.3, 0.1, 0.2, 90, 90, 90], EDGE), NEAR, RECIPROCAL, 5.0)
    assert (seen.verdict, seen.worst_cm1, seen.worst_label) == ("acoustic-noise", -0.3, "Γ")
    assert seen.tolerance_cm1 == 5.0 and seen.note == ""
    strict = judge(modes([-0.3, 0.1, 0.2, 90, 90, 90], EDGE), NEAR, RECIPROCAL, 0.2)
    assert strict.verdict == "unstable"


def test_imaginary_mode_at_the_zone_edge_is_one():
    seen = judge(modes([0.0, 0.0, 0.0, 90, 90, 90], [-40.0, *EDGE[1:]]), NEAR, RECIPROCAL, 5.0)
    assert (seen.verdict, seen.worst_cm1, seen.worst_label) == ("unstable", -40.0, "M")
    assert seen.worst_q == (0.5, 0.5, 0.0) and seen.worst_exact_cm1 == -40.0


def test_zero_is_zero_and_small_optical_modes_are_told():
    assert judge(modes([-0.01, 0, 0, 90, 90, 90], EDGE), NEAR, RECIPROCAL, 5.0).verdict == "stable"
    soft = judge(modes([-3.0, 0.0, 0.0, 0.0, 90, 90], EDGE), NEAR, RECIPROCAL, 5.0)
    assert soft.verdict == "stable" and soft.note.startswith("soft-mode: -3.00")
    edge = judge(modes([0, 0, 0, 90, 90, 90], [-2.0, *EDGE[1:]]), NEAR, RECIPROCAL, 5.0)
    assert edge.verdict == "stable" and edge.note.startswith("soft-mode")


def test_instability_between_the_points_of_the_supercell_is_marked():
    seen = judge(modes([0, 0, 0, 90, 90, 90], EDGE, (-12.0, 5, 6, 90, 90, 90)), NEAR, RECIPROCAL, 5.0)
    assert seen.verdict == "unstable" and seen.note.startswith("interpolated")
    assert seen.worst_exact_cm1 == 0.0 and seen.worst_label == ""


def test_unusable_frequencies_are_refused():
    with pytest.raises(InputError, match="not-finite"):
        Modes(POINTS, np.full((3, 3), np.nan))
    with pytest.raises(InputError, match="shape"):
        Modes(POINTS, np.zeros((2, 3)))
    with pytest.raises(InputError, match="shape"):
        judge([Modes(POINTS, np.ones((3, 3)))], NEAR, RECIPROCAL, 5.0)


def test_springs_that_pull_the_wrong_way_are_unstable():
    stiff = (2.0, -1.2)
    calc = Springs([A / np.sqrt(2), A], stiff)
    seen = phonon_report(fcc(), QUICK, calc=calc)
    q = np.array(seen.verdict.worst_q) @ np.linalg.inv(seen.structure.lattice.matrix).T
    exact = fcc_frequencies(q, A, MASS, stiff).min() * TO_CM1
    assert seen.verdict.verdict == "unstable" and seen.verdict.worst_exact_cm1 < -5.0
    assert seen.verdict.worst_cm1 == pytest.approx(exact, rel=1e-3)
    assert seen.debye_K is None and seen.heat_capacity_300K_J_mol_K is None and not len(seen.temperature_K)
    assert any("imaginary-modes" in note for note in seen.notes)


def test_potentials_vote():
    assert vote({"a": "stable"}) == "stable" and vote({}) == ""
    assert vote({"a": "stable", "b": "unstable"}) == "split"
    assert vote({"a": "stable", "b": "unstable", "c": "acoustic-noise"}) == "stable"
    assert vote({"a": "acoustic-noise", "b": "acoustic-noise"}) == "acoustic-noise"
    assert vote({"a": "unstable", "b": "unstable", "c": "stable"}) == "unstable"


# --- q-points and files -------------------------------------------------------------------------------------------


def test_points_of_the_supercell_and_the_radius_of_noise():
    points = commensurate((2, 1, 3))
    assert len(points) == 6 and np.abs(points).max() == 0.5
    assert (points[:, 1] == 0).all() and set(np.round(points[:, 2] * 3)) == {0, 1, -1}
    assert noise_radius((2, 2, 4), np.eye(3)) == pytest.approx(0.125)
    assert noise_radius((2, 2, 1), np.diag([1.0, 1.0, 0.1]), (False, False, True)) == pytest.approx(0.25)


def test_repetitions_are_even_where_the_zone_edge_must_fit():
    cell = np.diag([3.0, 4.0, 12.0])
    assert repetitions(cell, replace(QUICK, least_length_A=9.0)).tolist() == [3, 3, 1]
    assert repetitions(cell, replace(RELAXED, least_length_A=9.0)).tolist() == [4, 4, 1]
    assert repetitions(cell, PhononSettings(least_length_A=9.0, most_times=2)).tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("lattice", "name", "points"),
    [
        (Lattice.hexagonal(3.1, 3.5), "HEX", {"Γ", "M", "K", "A", "L", "H"}),
        (Lattice.orthorhombic(3, 4, 5), "ORC", {"Γ", "X", "Y", "Z", "S", "R"}),
        (Lattice.from_parameters(4, 5, 6, 80, 85, 95), "TRI", {"Γ"}),
    ],
    ids=["hexagonal", "orthorhombic", "triclinic"],
)
def test_paths_of_other_lattices(lattice, name, points):
    path = standard_path(np.array(lattice.matrix))
    assert path.lattice == name and points <= set(path.label)
    assert len(path.q) == len(path.x) == len(path.label) and (np.diff(path.x) >= 0).all()
    assert path.legs[0][0] == 0 and path.legs[-1][1] == len(path.q) - 1


def test_files_hold_what_was_computed(alloy, tmp_path):
    import pandas as pd

    written = write_files(alloy, tmp_path, "x")
    assert sorted(p.name for p in written) == [
        "x.bands.csv",
        "x.cif",
        "x.dos.csv",
        "x.heat-capacity.csv",
        "x.png",
    ]
    bands = pd.read_csv(tmp_path / "x.bands.csv")
    found = bands.filter(like="_meV").to_numpy()
    assert found == pytest.approx(alloy.bands.omega_meV, abs=1e-3)
    dos = pd.read_csv(tmp_path / "x.dos.csv")
    assert dos.columns[:3].tolist() == ["omega_meV", "total_per_meV", f"{alloy.species[0]}0_per_meV"]
    assert np.trapezoid(dos.total_per_meV, dos.omega_meV) == pytest.approx(12.0, abs=0.01)
    assert Structure.from_file(tmp_path / "x.cif").composition.reduced_formula == "Cu3Au"
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    again = write_files(alloy, tmp_path / "again", "x")
    assert all((tmp_path / p.name).read_bytes() == p.read_bytes() for p in again)


def test_long_waves_of_an_unstable_crystal_have_no_debye_temperature():
    found = harmonic(fcc(), QUICK, Springs([A / np.sqrt(2), A], (2.0, -1.2)))
    with pytest.raises(PhysicsError, match="imaginary-modes"):
        debye_acoustic(found.phonon)
