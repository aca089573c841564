from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from crystal_inputs import CASES, CRYSTAL, cif, one, put, pw, unreadable
from pymatgen.core import Structure

from onnes.crystal import Crystal, fingerprint, read

# --- formats ------------------------------------------------------------------------------------------


def test_cif_with_symmetry_and_three_digit_coordinates(tmp_path: Path) -> None:
    crystal = one(put(tmp_path, "MgB2.cif", cif()))
    assert crystal.id == "MgB2"
    assert crystal.source == str(tmp_path / "MgB2.cif")
    assert crystal.meta == {}
    assert fingerprint(crystal.structure, 0.001) == "B2Mg|191|B:2(-6m2);Mg:1(6/mmm)"


@pytest.mark.parametrize("name", CASES)
def test_cif_round_trip_of_prototypes(name: str, tmp_path: Path) -> None:
    from pymatgen.io.cif import CifWriter

    for symprec in (None, 0.01):
        path = tmp_path / f"{name}{symprec}.cif"
        CifWriter(CASES[name], symprec=symprec).write_file(path)
        crystal = one(path)
        assert fingerprint(crystal.structure) == fingerprint(CASES[name])
        assert crystal.structure.density == pytest.approx(CASES[name].density, rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_other_formats_round_trip(name: str, tmp_path: Path) -> None:
    from ase.io import write
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp import Poscar

    s = CASES[name]
    atoms = AseAtomsAdaptor.get_atoms(s)
    Poscar(s).write_file(tmp_path / "a.vasp")
    write(tmp_path / "b.xyz", atoms, format="extxyz")
    write(tmp_path / "POSCAR", atoms, format="vasp", direct=False)
    write(
        tmp_path / "c.in",
        atoms,
        format="espresso-in",
        pseudopotentials={e: f"{e}.upf" for e in set(atoms.get_chemical_symbols())},
    )
    put(tmp_path, "d.json", json.dumps(s.as_dict()))
    record = {"id": "rec", "lattice": s.lattice.matrix.tolist(), "species": [x.specie.symbol for x in s]}
    record["frac"] = s.frac_coords.tolist()
    put(tmp_path, "e.json", json.dumps([record]))
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress((json.dumps(record) + "\n").encode()))
    found = list(read(tmp_path))
    assert [c.id for c in found] == ["POSCAR", "a", "b", "c", "d", "rec", "rec~2"]
    for crystal in found:
        assert isinstance(crystal, Crystal), crystal
        assert fingerprint(crystal.structure) == fingerprint(s)
        assert crystal.structure.volume == pytest.approx(s.volume, rel=1e-5)


def test_labels_and_id_of_a_record(tmp_path: Path) -> None:
    row = {"id": "r", "lattice": np.eye(3).tolist(), "species": ["Po"], "frac": [[0, 0, 0]]}
    row["lattice"] = (np.eye(3) * 3.35).tolist()
    row |= {"lambda": 0.5, "stable": True, "note": "x", "Tc_K": None, "labels": {"omega_log_K": 120}}
    crystal = one(put(tmp_path, "r.json", json.dumps(row)))
    assert crystal.meta == {"labels": {"lambda": 0.5, "omega_log_K": 120.0}, "record_id": "r"}


def test_frames_are_independent(tmp_path: Path) -> None:
    good = '2\nLattice="3.5 0 0 0 3.5 0 0 0 3.5" Tc=2.5 pbc="T T T"\nCs 0 0 0\nCl 1.75 1.75 1.75\n'
    text = good + "1\nno cell here\nH 0 0 0\n" + good.replace("Cl", "Xx") + good + "3\ncut"
    found = list(read(put(tmp_path, "t.xyz", text)))
    assert [r.id for r in found] == [f"t#{k}" for k in range(1, 6)]
    assert [getattr(r, "code", "") for r in found] == ["", "no-cell", "unknown-element", "", "truncated"]
    assert isinstance(found[3], Crystal)
    assert found[3].meta["labels"] == {"Tc": 2.5}
    assert found[3].source.endswith("t.xyz#4")


def test_poscar_scale_forms_give_one_crystal(tmp_path: Path) -> None:
    body = "0.5 0.5 0\n0 0.5 0.5\n0.5 0 0.5\nAl\n1\n{mode}\n{pos}\n"
    shapes = {
        "one": "x\n4.05\n" + body.format(mode="Direct", pos="0.5 0.5 0.5"),
        "volume": f"x\n-{4.05**3 / 4}\n" + body.format(mode="Cartesian", pos="0.5 0.5 0.5"),
        "three": "x\n4.05 4.05 4.05\n" + body.format(mode="Selective\nDirect", pos="0.5 0.5 0.5 T T F"),
        "vasp6": "x\n4.05\n" + body.format(mode="Direct", pos="0.5 0.5 0.5").replace("Al", "Al_pv/1a2b"),
        "vasp4": "x\n4.05\n" + body.format(mode="Direct", pos="0.5 0.5 0.5 Al").replace("Al\n1", "1"),
    }
    for name, text in shapes.items():
        s = one(put(tmp_path, f"{name}.vasp", text)).structure
        assert s.volume == pytest.approx(4.05**3 / 4), name
        np.testing.assert_allclose(s.cart_coords[0], [2.025] * 3, atol=1e-9, err_msg=name)
    assert unreadable(put(tmp_path, "false.vasp", shapes["vasp4"].replace(" Al", ""))) == "no-elements"


def test_every_way_to_write_a_pw_cell(tmp_path: Path) -> None:
    bohr, a, c = 0.529177210903, 3.086, 3.524
    hexagonal = f"{a} 0 0\n{-a / 2} {a * 3**0.5 / 2} 0\n0 0 {c}\n"
    in_bohr = f"{a / bohr} 0 0\n{-a / 2 / bohr} {a * 3**0.5 / 2 / bohr} 0\n0 0 {c / bohr}\n"
    in_alat = f"1 0 0\n-0.5 {3**0.5 / 2} 0\n0 0 {c / a}\n"
    y = a / 3**0.5
    angstrom = f"ATOMIC_POSITIONS angstrom\nMg 0 0 0\nB1 0 {y} {c / 2}\nB1 {a / 2} {y / 2} {c / 2}\n"
    alat = f"ATOMIC_POSITIONS alat\nMg 0 0 0\nB1 0 {y / a} {c / 2 / a}\nB1 0.5 {y / 2 / a} {c / 2 / a}\n"
    forms = {
        "celldm": pw(f"ibrav=4, celldm(1)={a / bohr}, celldm(3)={c / a}"),
        "abc": pw(f"ibrav=4, A={a}, C={c}"),
        "angstrom": pw("ibrav=0", f"CELL_PARAMETERS angstrom\n{hexagonal}" + CRYSTAL),
        "bohr": pw("ibrav=0", f"{CRYSTAL}CELL_PARAMETERS (bohr)\n{in_bohr}"),
        "alat": pw(f"ibrav=0, celldm(1)={a / bohr}", f"CELL_PARAMETERS alat\n{in_alat}" + alat),
        "cartesian": pw("ibrav=0", f"CELL_PARAMETERS angstrom\n{hexagonal}" + angstrom),
    }
    for name, text in forms.items():
        s = one(put(tmp_path, f"{name}.in", text)).structure
        assert s.volume == pytest.approx(a * a * c * 3**0.5 / 2, rel=1e-6), name
        assert fingerprint(s, 0.001) == "B2Mg|191|B:2(-6m2);Mg:1(6/mmm)", name


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (pw("ibrav=4, celldm(1)=5.8"), "no-cell"),
        (pw("ibrav=77, celldm(1)=5.8"), "unknown-ibrav"),
        (pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1, A=3"), "ambiguous-cell"),
        (pw("ibrav=0"), "no-cell"),
        (pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1", "ATOMIC_POSITIONS crystal\nMg 0 0 0\n"), "truncated"),
        (
            pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1", CRYSTAL.replace("{crystal}", "furlong")),
            "unknown-unit",
        ),
        (
            pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1", CRYSTAL.replace("{crystal}", "crystal_sg")),
            "unsupported",
        ),
        ("&inputph\n ldisp=.true.\n/\n", "no-structure"),
    ],
)
def test_pw_inputs_that_cannot_be_read(text: str, code: str, tmp_path: Path) -> None:
    assert unreadable(put(tmp_path, "x.in", text)) == code


BRAVAIS = {
    1: (221, 1.0),
    2: (225, 1 / 4),
    3: (229, 1 / 2),
    -3: (229, 1 / 2),
    4: (191, 3**0.5 / 2 * 1.3),
    5: (166, None),
    -5: (166, None),
    6: (123, 1.3),
    7: (139, 1.3 / 2),
    8: (47, 1.2 * 1.3),
    9: (65, 1.2 * 1.3 / 2),
    -9: (65, 1.2 * 1.3 / 2),
    91: (65, 1.2 * 1.3 / 2),
    10: (69, 1.2 * 1.3 / 4),
    11: (71, 1.2 * 1.3 / 2),
    12: (10, None),
    -12: (10, None),
    13: (12, None),
    -13: (12, None),
    14: (2, None),
}


@pytest.mark.parametrize("ibrav", BRAVAIS)
def test_each_ibrav_has_its_symmetry_volume_and_hand(ibrav: int) -> None:
    """One atom on a Bravais lattice has that lattice's holohedry: an independent check of the table."""
    from pymatgen.core import Lattice

    from onnes.crystal import space_group
    from onnes.crystal.formats.bravais import bravais_cell

    cosines = {14: [0.1, 0.2, 0.15], -12: [0, 0.2, 0], -13: [0, 0.2, 0]}.get(ibrav, [0.2, 0, 0])
    cell = bravais_cell(ibrav, [3.0, 1.2, 1.3, *cosines])
    number, volume = BRAVAIS[ibrav]
    assert np.linalg.det(cell) > 0
    assert space_group(Structure(Lattice(cell), ["Po"], [[0, 0, 0]]))[0] == number
    if volume is not None:
        assert np.linalg.det(cell) == pytest.approx(27 * volume)
    if ibrav == 14:
        assert np.cos(np.radians(Lattice(cell).angles)) == pytest.approx(cosines)
        assert Lattice(cell).lengths == pytest.approx([3.0, 3.6, 3.9])
    if ibrav in (5, -5):
        assert np.cos(np.radians(Lattice(cell).angles)) == pytest.approx([0.2] * 3)
        assert Lattice(cell).lengths == pytest.approx([3.0] * 3)


def test_jarvis_atoms_form(tmp_path: Path) -> None:
    atoms = {"lattice_mat": (np.eye(3) * 3.3).tolist(), "elements": ["Cs", "Cl"], "cartesian": True}
    atoms["coords"] = [[0, 0, 0], [1.65, 1.65, 1.65]]
    crystal = one(put(tmp_path, "j.json", json.dumps({"jid": "J-1", "atoms": atoms, "Tc": 1.0})))
    assert crystal.id == "J-1"
    np.testing.assert_allclose(crystal.structure.frac_coords[1], 0.5)
    assert crystal.meta["labels"] == {"Tc": 1.0}


def test_the_data_set_that_a_record_names_is_kept(tmp_path):
    row = {"id": "a", "lattice": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "species": ["Cu"], "frac": [[0, 0, 0]]}
    lines = [row | {"source": "jarvis_supercon"}, row | {"id": "b"}, row | {"id": "c", "source": 7}]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [c.meta.get("data_set") for c in read([path])] == ["jarvis_supercon", None, None]
