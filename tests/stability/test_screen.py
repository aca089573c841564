"""The BCS pre-screen: gates, counts, moduli from labels and from the potential."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

from onnes.crystal.read import Crystal, Refused, read
from onnes.errors import PhysicsError
from onnes.heads import learned_moduli
from onnes.stability.elastic import stiffness
from onnes.stability.screen import counts, from_strains, screen
from onnes.theory.bcs import Screen


def aluminium(**labels) -> Crystal:
    s = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]])
    return Crystal("Al", s, "test", {"labels": labels})


def one(item, **options):
    (row,) = screen([item], Screen(options.pop("min_debye", 300.0), options.pop("min_dos", 0.0)), **options)
    return row


def test_debye_temperature_of_aluminium():
    # K = 76, G = 26 GPa (measured): theta_D about 400 K.
    row = one(aluminium(bulk_modulus_kv_GPa=76.0, shear_modulus_gv_GPa=26.0))
    assert row["status"] == "passed" and row["debye_K"] == pytest.approx(404, abs=10)
    assert "unknown" in row["reason"]


def test_gates_and_their_names():
    moduli = {"bulk_modulus_kv_GPa": 76.0, "shear_modulus_gv_GPa": 26.0}
    assert one(aluminium(**moduli), min_debye=500.0)["reason"].startswith("debye-low")
    assert one(aluminium(**moduli), require_dos=True)["reason"].startswith("dos-unknown")
    low = one(aluminium(**moduli, dos_ef_states_eV_cell=0.4), min_dos=0.5)
    assert low["reason"].startswith("dos-low") and low["dos_ef_states_eV_atom"] == pytest.approx(0.1)
    assert one(aluminium(**moduli, dos_ef_states_eV_cell=4.0), min_dos=0.5)["gate"] == ""
    for value in (float("nan"), float("inf"), -1.0):
        none = one(aluminium(**moduli, dos_ef_states_eV_cell=value), min_dos=0.5)
        assert (none["gate"], none["reason"].split(":")[0]) == ("dos", "dos-unknown")
    assert one(aluminium())["reason"].startswith("debye-unknown")
    assert one(aluminium(debye_T_K=float("nan")))["reason"].startswith("debye-unknown")
    assert one(aluminium(bulk_modulus_kv_GPa=-5.0, shear_modulus_gv_GPa=2.0))["status"] == "refused"
    assert one(Refused("x", "x.cif", "no-cell", "no cell"))["reason"] == "no-cell"


def test_counts():
    rows = [{"gate": ""}, {"gate": "debye"}, {"gate": "debye"}, {"gate": "dos"}]
    assert counts(rows) == {"passed": 1, "debye": 2, "dos": 1}


def test_elastic_constants_obey_cubic_symmetry_and_cauchy():
    """Pair forces make C12 = C44 (Cauchy) at zero pressure; the cell's choice does not matter."""
    lj = LennardJones(sigma=2.5, epsilon=0.3, rc=9.0, smooth=True)
    from onnes.stability.relax import RelaxSettings, relax

    start = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.85), ["Ar"], [[0, 0, 0]])
    cubic = relax(start, RelaxSettings(fmax_eV_A=1e-4), calc=lj).structure
    c = stiffness(cubic, calc=lj)
    assert c[0, 0] == pytest.approx(c[1, 1], rel=1e-3) and c[3, 3] == pytest.approx(c[5, 5], rel=1e-3)
    assert c[0, 1] == pytest.approx(c[3, 3], rel=0.05)
    np.testing.assert_allclose(c, c.T)
    np.testing.assert_allclose(
        stiffness(cubic.get_primitive_structure(), calc=lj)[:3, :3].sum(), c[:3, :3].sum(), rtol=0.01
    )


def test_unrelaxed_crystal_is_refused():
    squeezed = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.7), ["Al"], [[0, 0, 0]])
    with pytest.raises(PhysicsError, match="not-relaxed"):
        stiffness(squeezed)


def test_potential_gives_moduli_where_labels_do_not():
    row = one(Crystal("Al", aluminium().structure, "test", {}), moduli=from_strains)
    assert row["debye_source"] == "potential"
    assert row["bulk_GPa"] == pytest.approx(78, rel=0.1) and row["debye_K"] == pytest.approx(400, rel=0.1)


def test_strains_give_the_same_debye_temperature_as_onnes_elastic():
    """Moduli and density of one crystal, the relaxed one: the input here is 3 % too long, 9 % too light."""
    from onnes.stability.elastic_report import elastic

    wide = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.17), ["Al"], [[0, 0, 0]])
    row = one(Crystal("Al", wide, "test", {}), moduli=from_strains)
    assert row["debye_K"] == pytest.approx(elastic(wide).numbers()["debye_K"], rel=1e-6)


def test_strains_keep_to_the_born_limit_of_onnes_elastic(monkeypatch):
    from onnes.stability import elastic_report

    soft = elastic_report.Elastic(aluminium().structure, "Fm-3m", np.diag([80.0, 80, 80, 30, 30, 0.05]), 0.0)
    monkeypatch.setattr(elastic_report, "elastic", lambda structure: soft)
    row = one(Crystal("Al", aluminium().structure, "test", {}), moduli=from_strains)
    assert row["status"] == "refused" and row["reason"].startswith("unstable-moduli") and "debye_K" in row
    assert "debye_K" not in soft.numbers() and row["debye_K"] is None


def test_learned_moduli_where_labels_do_not():
    row = one(Crystal("Al", aluminium().structure, "test", {}), moduli=learned_moduli, source="learned")
    assert row["debye_source"] == "learned"
    # Measured: 76 and 26 GPa.
    assert row["bulk_GPa"] == pytest.approx(76, rel=0.2) and row["shear_GPa"] == pytest.approx(26, rel=0.3)
    labelled = one(aluminium(bulk_modulus_kv_GPa=50.0, shear_modulus_gv_GPa=20.0), moduli=learned_moduli)
    assert labelled["bulk_GPa"] == 50.0 and labelled["debye_source"] == "moduli"


def test_command_line(tmp_path):
    s = aluminium().structure
    row = {
        "id": "a",
        "lattice": s.lattice.matrix.tolist(),
        "species": ["Al"] * 4,
        "frac": s.frac_coords.tolist(),
    }
    lines = [row | {"bulk_modulus_kv_GPa": 76.0, "shear_modulus_gv_GPa": 26.0}, row | {"id": "b"}]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    command = [sys.executable, "-m", "onnes.cli.main", "screen", str(tmp_path / "set.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "2 crystals: passed 1, debye 1 (1 with N(EF) unknown)" in done.stderr
    assert [r["id"] for r in csv.DictReader(io.StringIO(done.stdout))] == ["a", "b"]
    bad = subprocess.run([*command, "--min-debye", "-1"], capture_output=True, text=True)
    assert bad.returncode == 2 and "bad-threshold" in bad.stderr and "Traceback" not in bad.stderr


def test_jarvis_rows(shared):
    """842 of the 1,036 rows carry usable Voigt moduli: median theta_D 453 K, 770 above 300 K."""
    rows = list(screen(read([shared / "data" / "jarvis_supercon.jsonl.gz"]), Screen()))
    debye = np.array([r["debye_K"] for r in rows if r["debye_K"]])
    assert len(rows) == 1036 and len(debye) == 842
    assert counts(rows) == {"passed": 770, "debye": 266}
    assert np.median(debye) == pytest.approx(452.6, abs=1)
