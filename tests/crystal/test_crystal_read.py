from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crystal_prototypes import prototypes
from pymatgen.core import Structure

from onnes.crystal import Crystal, Limits, Refused, as_crystal, fingerprint, read
from onnes.errors import CrystalError, InputError

CASES = prototypes()

MGB2 = """data_MgB2
_cell_length_a 3.086(2)
_cell_length_b 3.086(2)
_cell_length_c 3.524
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
{symmetry}
_chemical_formula_sum '{formula}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{rows}
"""
P6MMM = "_symmetry_space_group_name_H-M 'P 6/m m m'\n_symmetry_Int_Tables_number 191"
ROWS = "Mg1 Mg 0 0 0 1.0\nB1 B 0.333 0.667 0.5(1) 1"


def cif(rows: str = ROWS, formula: str = "Mg1 B2", symmetry: str = P6MMM) -> str:
    return MGB2.format(rows=rows, formula=formula, symmetry=symmetry)


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def one(path: Path, **options: bool) -> Crystal:
    (result,) = read(path, **options)
    assert isinstance(result, Crystal), result
    return result


def refusal(path: Path, **options: bool) -> Refused:
    (result,) = read(path, **options)
    assert isinstance(result, Refused), result
    assert "\n" not in result.message
    assert path.name in result.message
    return result


def unreadable(path: Path | str | list[str]) -> str:
    with pytest.raises(InputError) as caught:
        list(read(path))
    assert "\n" not in str(caught.value)
    return caught.value.code


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


PW = """&CONTROL
 calculation = 'scf' /
&SYSTEM
 {system}, ntyp=2, nat=3, ecutwfc=40
/
&ELECTRONS
/
ATOMIC_SPECIES
Mg 24.305 Mg.upf
B1 10.81 B.upf
{cards}
K_POINTS automatic
4 4 4 0 0 0
"""
CRYSTAL = "ATOMIC_POSITIONS {crystal}\nMg 0 0 0\nB1 1/3 2/3 0.5 0 0 0\nB1 2/3 1/3 1.d0/2\n"


def pw(system: str, cards: str = CRYSTAL) -> str:
    return PW.format(system=system, cards=cards)


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


# --- what the gate says -------------------------------------------------------------------------------


def test_partial_occupancy_names_file_site_and_occupancies(tmp_path: Path) -> None:
    rows = "M1 Nb 0 0 0 0.8\nM1 Zr 0 0 0 0.2\nB1 B 0.333 0.667 0.5 1"
    path = put(tmp_path, "alloy.cif", cif(rows, "Nb0.8 Zr0.2 B2"))
    refused = refusal(path)
    assert refused.code == "partial-occupancy"
    for part in ("alloy.cif", "M1", "Nb 0.8", "Zr 0.2"):
        assert part in refused.message


def test_ordering_keeps_composition_and_says_so(tmp_path: Path) -> None:
    rows = "M1 Nb 0 0 0 0.75\nM1 Zr 0 0 0 0.25\nB1 B 0.333 0.667 0.5 1"
    path = put(tmp_path, "alloy.cif", cif(rows, "Nb0.75 Zr0.25 B2"))
    crystal = one(path, order_disorder=True)
    assert crystal.structure.composition.as_dict() == {"Nb": 3, "Zr": 1, "B": 8}
    assert crystal.meta["flags"] == ["ordered-model"]
    assert np.prod(crystal.meta["ordering"]["supercell"]) == 4
    assert crystal.structure.volume == pytest.approx(4 * 29.0642, rel=1e-4)
    again = one(path, order_disorder=True)
    assert again.structure == crystal.structure


def test_ordering_spreads_like_atoms(tmp_path: Path) -> None:
    """Half-filled simple cubic 2x2x2: the rock-salt pattern has no like neighbours."""
    from onnes.crystal.ordering import _spread

    frac = np.array([[x, y, z] for x in (0, 0.5) for y in (0, 0.5) for z in (0, 0.5)])
    names = _spread(frac, np.eye(3) * 6, {"Na": 4, "Cl": 4})
    parity = (frac * 2).sum(axis=1) % 2
    assert {(n, p) for n, p in zip(names, parity, strict=True)} in (
        {("Na", 0.0), ("Cl", 1.0)},
        {("Na", 1.0), ("Cl", 0.0)},
    )


def test_vacancies_are_ordered_and_odd_occupancies_refused(tmp_path: Path) -> None:
    half = cif("M1 Nb 0 0 0 0.5\nB1 B 0.333 0.667 0.5 1", "Nb0.5 B2")
    crystal = one(put(tmp_path, "half.cif", half), order_disorder=True)
    assert crystal.structure.composition.as_dict() == {"Nb": 1, "B": 4}
    odd = cif("M1 Nb 0 0 0 0.97\nM1 H 0 0 0 0.03\nB1 B 0.333 0.667 0.5 1", "Nb0.97 H0.03 B2")
    refused = refusal(put(tmp_path, "odd.cif", odd), order_disorder=True)
    assert refused.code == "cannot-order"  # 3 % of H would be rounded away


def test_hydrogen_and_oxygen_on_one_site_is_disorder(tmp_path: Path) -> None:
    rows = "O1 O 0 0 0 0.8\nH1 H 0 0 0 0.2\nB1 B 0.333 0.667 0.5 1"
    path = put(tmp_path, "oh.cif", cif(rows, "O0.8 H0.2 B2"))
    refused = refusal(path)
    assert refused.code == "partial-occupancy"
    assert "H 0.2" in refused.message
    assert one(path, order_disorder=True).structure.composition["H"] == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (cif(formula="Mg1 B2 H1"), "formula-mismatch"),
        (cif(formula="Mg1 B4"), "formula-mismatch"),
        (cif(ROWS + "\nH1 H ? ? ? 1", "Mg1 B2 H1"), "missing-coordinates"),
        (cif(ROWS.replace("B1 B ", "B1 Bq ")), "unknown-element"),
        (cif(ROWS.replace("1.0", "1.7")), "bad-occupancy"),
        (cif(ROWS + "\nMg2 Mg 0 0 0 1", "Mg2 B2"), "overlapping-atoms"),
        (cif(symmetry="_symmetry_space_group_name_H-M 'Q 9 9'"), "unknown-symmetry"),
        (cif(symmetry="_symmetry_space_group_name_H-M 'F d -3 m'"), "ambiguous-origin"),
        (cif(symmetry="_symmetry_Int_Tables_number 221"), "symmetry-mismatch"),
    ],
)
def test_crystals_a_cif_describes_wrongly(text: str, code: str, tmp_path: Path) -> None:
    assert refusal(put(tmp_path, "x.cif", text)).code == code


def test_magnetic_cif_gives_the_chemical_structure(tmp_path: Path) -> None:
    operations = """loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 -x,-y,-z,-1
loop_
_space_group_symop_magn_centering.id
_space_group_symop_magn_centering.xyz
1 x,y,z,+1
2 x+1/2,y+1/2,z+1/2,-1"""
    text = "data_m\n" + "".join(f"_cell_length_{k} 4\n" for k in "abc")
    text += "".join(f"_cell_angle_{k} 90\n" for k in ("alpha", "beta", "gamma")) + operations
    text += "\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
    text += "".join(f"_atom_site_fract_{k}\n" for k in "xyz") + "Fe1 Fe 0 0 0\n"
    crystal = one(put(tmp_path, "m.mcif", text))
    assert fingerprint(crystal.structure) == "Fe|229|Fe:1(m-3m)"
    assert len(crystal.structure) == 2


@pytest.mark.parametrize(
    ("label", "formula", "symbol"),
    [
        ("Co1", "Co", "Co"),
        ("CO1", "Co", "Co"),
        ("CO1", "C", "C"),
        ("Nb2A", "Nb", "Nb"),
        ("D1", "D", "H"),
        ("B1", "?", "B"),
    ],
)
def test_element_from_a_label(label: str, formula: str, symbol: str, tmp_path: Path) -> None:
    text = cif(f"{label} ? 0 0 0 1", formula)
    assert {s.specie.symbol for s in one(put(tmp_path, "l.cif", text)).structure} == {symbol}


def test_ambiguous_label_is_refused(tmp_path: Path) -> None:
    assert refusal(put(tmp_path, "l.cif", cif("CO1 ? 0 0 0 1", "?"))).code == "unknown-element"


def test_pauling_file_occupancies_are_seen(tmp_path: Path) -> None:
    text = cif("Nb,Zr '0.8Nb + 0.2Zr' 0 0 0 1", "Nb0.8 Zr0.2")
    assert refusal(put(tmp_path, "p.cif", text)).code == "partial-occupancy"


def test_implicit_hydrogen_is_refused(tmp_path: Path) -> None:
    text = cif().replace("_atom_site_occupancy", "_atom_site_occupancy\n_atom_site_attached_hydrogens")
    text = text.replace("0 0 0 1.0", "0 0 0 1.0 2").replace("0.5(1) 1", "0.5(1) 1 0")
    assert refusal(put(tmp_path, "h.cif", text)).code == "implicit-hydrogen"


def test_symbol_with_two_origins_needs_operations(tmp_path: Path) -> None:
    # With C at 1/8 (origin at the centre) the wrong origin would silently give 16 atoms of another lattice.
    head = "data_C\n" + "".join(f"_cell_length_{k} 3.567\n" for k in "abc")
    head += "".join(f"_cell_angle_{k} 90\n" for k in ("alpha", "beta", "gamma"))
    rows = (
        "loop_\n_atom_site_label\n"
        + "".join(f"_atom_site_fract_{k}\n" for k in "xyz")
        + "C1 .125 .125 .125\n"
    )
    head += "_symmetry_space_group_name_H-M 'F d -3 m'\n"
    path = put(tmp_path, "C.cif", head + rows)
    assert refusal(path).code == "ambiguous-origin"


def test_deuterium_in_every_format(tmp_path: Path) -> None:
    put(tmp_path, "a.cif", cif("Pd1 Pd 0 0 0 1\nD1 D 0.333 0.667 0.5 1", "Pd D2"))
    put(tmp_path, "b.vasp", "x\n1\n3 0 0\n0 3 0\n0 0 3\nPd D\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    put(tmp_path, "c.xyz", '2\nLattice="3 0 0 0 3 0 0 0 3"\nPd 0 0 0\nD 1.5 1.5 1.5\n')
    body = "ibrav=1, celldm(1)=5.67"
    cards = "ATOMIC_POSITIONS crystal\nMg 0 0 0\nH 0.5 0.5 0.5\n"
    text = pw(body, cards).replace("B1 10.81", "H 2.014").replace("nat=3", "nat=2")
    put(tmp_path, "d.in", text)
    record = {
        "lattice": (np.eye(3) * 3).tolist(),
        "species": ["Pd", "T"],
        "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
    }
    put(tmp_path, "e.json", json.dumps(record))
    found = list(read(tmp_path))
    masses = [next(iter(c.meta["isotopes"].values())) for c in found if isinstance(c, Crystal)]
    assert masses == pytest.approx([2.0141, 2.0141, 2.0141, 2.0141, 3.0160], abs=1e-3)
    for crystal in found:
        assert isinstance(crystal, Crystal)
        for k in crystal.meta["isotopes"]:
            assert crystal.structure[k].specie.symbol == "H"


def test_deuterium_mixed_with_hydrogen_is_one_element_with_a_mean_mass(tmp_path: Path) -> None:
    rows = "Pd1 Pd 0 0 0 1\nD1 D 0.333 0.667 0.5 0.75\nH1 H 0.333 0.667 0.5 0.25"
    crystal = one(put(tmp_path, "a.cif", cif(rows, "Pd D1.5 H0.5")))
    mass = next(iter(crystal.meta["isotopes"].values()))
    assert mass == pytest.approx(0.75 * 2.0141 + 0.25 * 1.008, abs=1e-3)


def test_oxidation_states_are_kept_aside(tmp_path: Path) -> None:
    crystal = one(put(tmp_path, "x.cif", cif(ROWS.replace("Mg1 Mg", "Mg1 Mg2+").replace("B1 B", "B1 B1-"))))
    assert crystal.meta["oxidation_states"] == [2.0, -1.0, -1.0]
    assert {type(s.specie).__name__ for s in crystal.structure} == {"Element"}
    charged = CASES["CsCl"].copy()
    charged.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    made = as_crystal(charged)
    assert made.meta["oxidation_states"] == [1.0, -1.0]
    assert made.structure.charge == 0


# --- files and folders --------------------------------------------------------------------------------


def test_two_blocks_are_both_read_even_with_one_name(tmp_path: Path) -> None:
    other = cif().replace("3.524", "3.7")
    found = list(read(put(tmp_path, "Zwei Blöcke 二.cif", cif() + other.replace("data_MgB2", "data_x"))))
    assert [c.id for c in found] == ["Zwei Blöcke 二#MgB2", "Zwei Blöcke 二#x"]
    volumes = [c.structure.volume for c in found if isinstance(c, Crystal)]
    assert volumes[1] / volumes[0] == pytest.approx(3.7 / 3.524)
    same_name = list(read(put(tmp_path, "same.cif", "data_global\n_audit_author 'x'\n" + cif() + other)))
    assert len({c.id for c in same_name}) == 2
    assert all(isinstance(c, Crystal) for c in same_name)


def test_bad_input_does_not_stop_a_batch(tmp_path: Path) -> None:
    put(tmp_path, "1.cif", b"")
    put(tmp_path, "2.cif", cif())
    put(tmp_path, "sub/3.cif", cif()[:-12])
    put(tmp_path, "sub/2.cif", cif())
    put(tmp_path, ".hidden.cif", cif())
    put(tmp_path, "README.md", "text")
    put(tmp_path, "ph.in", "&inputph\n/\n")
    found = list(read([tmp_path / "nowhere", tmp_path]))
    assert [(r.id, getattr(r, "code", "")) for r in found] == [
        ("nowhere", "missing-path"),
        ("1", "empty-file"),
        ("2", ""),
        ("2~2", ""),
        ("3", "truncated"),
    ]


def test_nothing_readable_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.cif").mkdir()
    put(tmp_path, "docs/README.md", "text")
    assert unreadable(tmp_path / "nope.cif") == "missing-path"
    assert unreadable(tmp_path / "empty") == "empty-folder"
    assert unreadable(tmp_path / "dir.cif") == "empty-folder"
    assert unreadable(tmp_path / "docs") == "no-structure-file"
    assert unreadable(put(tmp_path, "zero.cif", b"")) == "empty-file"
    assert unreadable(put(tmp_path, "blank.cif", b" \n\n")) == "empty-file"
    assert unreadable(put(tmp_path, "elf.cif", bytes(range(256)) * 9)) == "binary-file"
    assert unreadable(put(tmp_path, "a.cif.gz", gzip.compress(cif().encode())[:-30])) == "truncated"
    assert unreadable(put(tmp_path, "what.dat", b"hello")) == "unknown-format"
    assert unreadable(put(tmp_path, "s.json", b'{"a": 1}')) == "no-structure"
    assert unreadable(put(tmp_path, "t.json", b'{"lattice": [')) == "bad-json"
    assert unreadable(put(tmp_path, "deep.json", b"[" * 100_000)) == "bad-json"
    assert unreadable(put(tmp_path, "no.cif", b"data_x\n_audit_author me\n")) == "no-structure"
    assert unreadable([]) == "no-input"
    assert unreadable("x" * 5000) == "unreadable"
    assert unreadable("nul\0byte") == "unreadable"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.cif")
        assert unreadable(tmp_path / "pipe.cif") == "not-a-file"


def test_format_is_recognised_without_an_ending(tmp_path: Path) -> None:
    poscar = "x\n1\n3 0 0\n0 3 0\n0 0 3\nPo\n1\nDirect\n0 0 0\n"
    record = json.dumps({"lattice": (np.eye(3) * 3).tolist(), "species": ["Po"], "frac": [[0, 0, 0]]})
    texts = [cif(), poscar, '1\nLattice="3 0 0 0 3 0 0 0 3"\nPo 0 0 0\n', record, f"{record}\n{record}\n"]
    texts += [pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1"), cif().replace("\n", "\r\n"), "\ufeff" + cif()]
    for k, text in enumerate(texts):
        assert all(isinstance(r, Crystal) for r in read(put(tmp_path, f"file{k}", text))), k
    utf16 = put(tmp_path, "win", cif().encode("utf-16"))
    assert isinstance(one(utf16), Crystal)


def test_size_limit_is_applied_while_reading(tmp_path: Path) -> None:
    big = CASES["CsCl"] * (5, 5, 5)
    path = put(tmp_path, "big.json", json.dumps(big.as_dict()))
    assert refusal(path).code == "too-many-atoms"
    (passed,) = read(path, limits=Limits(max_atoms=300))
    assert isinstance(passed, Crystal)


def test_flags_reach_meta(tmp_path: Path) -> None:
    text = '2\nLattice="15 0 0 0 15 0 0 0 15" pbc="F F F"\nN 0 0 0\nN 0 0 1.1\n'
    assert one(put(tmp_path, "n2.xyz", text)).meta["flags"] == ["molecule", "made-periodic"]


def test_libraries_stay_silent(tmp_path: Path) -> None:
    """A fresh interpreter, because pytest itself captures warnings."""
    put(tmp_path, "a.cif", cif("Pd1 Pd 0 0 0 1\nD1 D 0.333 0.667 0.5 1", "Pd D2"))
    put(tmp_path, "b.cif", cif("O1 O 0 0 0 0.8\nH1 H 0 0 0 0.2\nB1 B 0.333 0.667 0.5 1", "O0.8 H0.2 B2"))
    put(tmp_path, "c.vasp", "x\n1\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n")
    put(tmp_path, "d.cif", cif()[:-12])
    put(tmp_path, "e.vasp", "x\n1\n3 0 0\n0 3 0\n0 0 3\nAm Cm\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    code = (
        "import sys\nfrom onnes.crystal import *\nfor r in read(sys.argv[1]):\n"
        "    isinstance(r, Crystal) and (fingerprint(r.structure * (2, 1, 1)), geometry(r.structure))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reading_does_not_import_torch(tmp_path: Path) -> None:
    path = put(tmp_path, "a.cif", cif())
    code = "import sys\nfrom onnes.crystal import read\nlist(read(sys.argv[1]))\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0


@pytest.mark.parametrize("nat", ["nan", "1d400", "2.5", "-1", "0"])
def test_counts_that_are_no_counts(nat: str, tmp_path: Path) -> None:
    text = pw("ibrav=4, celldm(1)=5.8, celldm(3)=1.1").replace("nat=3", f"nat={nat}")
    assert unreadable(put(tmp_path, "n.in", text)) in ("bad-number", "truncated")


def test_digits_that_are_no_numbers(tmp_path: Path) -> None:
    assert unreadable(put(tmp_path, "a.xyz", "²\nx\nH 0 0 0\n")) == "bad-frame"
    poscar = "x\n1\n3 0 0\n0 3 0\n0 0 3\nPo\n¹\nDirect\n0 0 0\n"
    assert unreadable(put(tmp_path, "a.vasp", poscar)) == "truncated"


def test_a_fault_of_the_reader_is_reported_and_the_batch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnes.crystal import files

    def broken(text: str) -> list[object]:
        raise KeyError("oops")

    monkeypatch.setitem(files.PARSERS, "poscar", broken)
    put(tmp_path, "a.vasp", "x")
    put(tmp_path, "b.cif", cif())
    bad, good = read(tmp_path)
    assert isinstance(bad, Refused)
    assert bad.code == "internal-error"
    assert isinstance(good, Crystal)


# --- objects ------------------------------------------------------------------------------------------


def test_as_crystal_accepts_what_users_hold() -> None:
    from pymatgen.io.ase import AseAtomsAdaptor

    s = CASES["MgB2"]
    record = {"id": "m", "lattice": s.lattice.matrix.tolist(), "species": ["Mg", "B", "B"]}
    record["frac"] = s.frac_coords.tolist()
    for obj in (s, AseAtomsAdaptor.get_atoms(s), record, s.as_dict(), as_crystal(s)):
        assert fingerprint(as_crystal(obj).structure) == fingerprint(s)
    assert as_crystal(record).id == "m"
    assert as_crystal(s).id == "B2Mg"
    assert as_crystal(s, id="mine").id == "mine"


def test_as_crystal_keeps_isotopes_and_flags_of_atoms() -> None:
    from ase import Atoms

    atoms = Atoms("PdH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3, 3, 3], pbc=True)
    assert as_crystal(atoms).meta == {}
    atoms.set_masses([106.42, 2.014])
    assert as_crystal(atoms).meta == {"isotopes": {1: 2.014}}


@pytest.mark.parametrize(
    ("obj", "code"),
    [
        (42, "unknown-object"),
        ("MgB2", "unknown-object"),
        ({}, "bad-record"),
        ({"lattice": [[1]], "species": ["H"], "frac": [[0, 0, 0]]}, "bad-record"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": ["H", "H"], "frac": [[0, 0, 0]]}, "bad-record"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": [], "frac": []}, "no-atoms"),
        ({"lattice": (np.eye(3) * 3).tolist(), "species": [None], "frac": [[0, 0, 0]]}, "unknown-element"),
        ({"lattice": (np.eye(3) * -3).tolist(), "species": ["Po"], "frac": [[0, 0, 0]]}, "left-handed"),
    ],
)
def test_as_crystal_refuses_with_a_code(obj: object, code: str) -> None:
    with pytest.raises(CrystalError) as caught:
        as_crystal(obj)
    assert caught.value.code == code
