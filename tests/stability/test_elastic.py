"""Elastic tensors: symmetry, frame, Born criterion, table and command."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

from onnes.crystal.read import Refused
from onnes.errors import CrystalError, PhysicsError
from onnes.stability.elastic import stiffness
from onnes.stability.elastic_report import Elastic, elastic, elastic_all, rotated
from onnes.stability.relax import RelaxSettings, relax

AL = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]])


def turn(angle, axis):
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(angle * np.asarray(axis) / np.linalg.norm(axis)).as_matrix()


def test_a_tensor_turned_and_turned_back_is_itself_and_keeps_its_invariants():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(6, 6))
    c = c @ c.T + 10 * np.eye(6)
    r = turn(0.7, [1, 2, 3])
    there = rotated(c, r)
    np.testing.assert_allclose(rotated(there, r.T), c, atol=1e-10)
    e = Elastic(AL, "", c, 0.0).moduli("voigt")
    f = Elastic(AL, "", there, 0.0).moduli("voigt")
    assert e == pytest.approx(f)
    assert np.abs(there - c).max() > 0.1


def test_a_stretch_along_a_turned_axis_costs_what_it_costs_along_the_axis():
    """C' of the turned crystal along z is the energy of the first one stretched along R^T z."""
    c = np.diag([200.0, 150.0, 100.0, 40.0, 30.0, 20.0])
    r = turn(np.pi / 2, [0, 1, 0])  # x goes to -z
    assert rotated(c, r)[2, 2] == pytest.approx(200.0)
    assert rotated(c, r)[0, 0] == pytest.approx(100.0)


def test_aluminium_is_cubic_whatever_the_cell_and_its_orientation():
    first = elastic(AL, calc=EMT())
    c = first.stiffness_GPa
    assert first.space_group == "Fm-3m" and first.stable and first.asymmetry_GPa < 0.5
    assert c[0, 0] == pytest.approx(c[1, 1], abs=1e-8) and c[0, 1] == pytest.approx(c[0, 2], abs=1e-8)
    assert np.abs(c[:3, 3:]).max() < 1e-8 and c[3, 3] > 0
    lattice = Lattice(AL.get_primitive_structure().lattice.matrix @ turn(0.4, [1, 0, 2]).T)
    again = elastic(Structure(lattice, ["Al"], [[0, 0, 0]]), calc=EMT())
    np.testing.assert_allclose(again.stiffness_GPa, c, atol=0.5)


def test_bulk_modulus_is_the_curvature_of_the_energy_over_volume():
    found = elastic(AL, calc=EMT())
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(found.structure)
    atoms.calc = EMT()
    volumes, energies = [], []
    cell = np.array(atoms.cell)
    for scale in np.linspace(0.99, 1.01, 9):
        atoms.set_cell(cell * scale, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    fit = np.polyfit(np.array(volumes) - volumes[4], energies, 3)
    assert found.moduli("voigt").bulk_GPa == pytest.approx(2 * fit[1] * volumes[4] * 160.21766, rel=0.02)


def test_hexagonal_crystal_has_five_constants():
    lj = LennardJones(sigma=2.5, epsilon=0.3, rc=9.0, smooth=True)
    hcp = Structure(Lattice.hexagonal(2.72, 4.44), ["Ar", "Ar"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    c = elastic(hcp, calc=lj).stiffness_GPa
    assert c[0, 0] == pytest.approx(c[1, 1]) and c[3, 3] == pytest.approx(c[4, 4])
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2)
    numbers = elastic(hcp, calc=lj).numbers()
    assert numbers["bulk_reuss_GPa"] <= numbers["bulk_GPa"] <= numbers["bulk_voigt_GPa"]
    assert numbers["shear_reuss_GPa"] <= numbers["shear_voigt_GPa"] and numbers["anisotropy"] >= 0.0
    nu, e, g = numbers["poisson"], numbers["young_GPa"], numbers["shear_GPa"]
    assert e == pytest.approx(2 * g * (1 + nu)) and numbers["debye_K"] > 0


def test_a_soft_shear_is_no_modulus_but_a_verdict():
    c = np.diag([100.0, 100.0, 100.0, 20.0, 20.0, -5.0])
    numbers = Elastic(AL, "Fm-3m", c, 0.0).numbers()
    assert numbers["born"] == "unstable" and numbers["least_eigenvalue_GPa"] == pytest.approx(-5.0)
    assert "bulk_GPa" not in numbers and "debye_K" not in numbers and numbers["c66_GPa"] == -5.0


def test_vacuum_and_unrest_are_refused():
    sheet = Structure(Lattice.hexagonal(2.46, 20.0), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    with pytest.raises(CrystalError, match="vacuum"):
        elastic(sheet)


def test_atoms_that_do_not_come_to_rest_are_no_stress(monkeypatch):
    from onnes.stability import elastic as module

    rest = relax(AL, RelaxSettings(fmax_eV_A=0.01), EMT()).structure
    rattled = rest.copy()
    rattled.perturb(0.02)
    monkeypatch.setattr(module, "STEPS", 1)
    with pytest.raises(PhysicsError, match="not come to rest"):
        stiffness(rattled, calc=EMT())


def test_rows_of_refused_crystals_stay():
    rows = list(elastic_all([Refused("x", "x.cif", "no-cell", "no cell")]))
    assert rows[0][0]["status"] == "refused" and rows[0][0]["reason"] == "no-cell" and rows[0][1] is None


def test_the_command_writes_a_row_a_structure(tmp_path):
    AL.to(str(tmp_path / "Al.cif"))
    (tmp_path / "bad.cif").write_text("data_x\n")
    command = [sys.executable, "-m", "onnes.cli.main", "elastic", "Al.cif", "bad.cif", "--out", "e.csv"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    good, bad = csv.DictReader((tmp_path / "e.csv").read_text().splitlines())
    assert good["status"] == "ok" and good["born"] == "stable" and bad["status"] == "refused"
    # Measured: 76 GPa (bulk), 26 GPa (shear), 428 K.
    assert 60 < float(good["bulk_GPa"]) < 90 and 300 < float(good["debye_K"]) < 500
