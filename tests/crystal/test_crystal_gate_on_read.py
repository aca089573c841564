from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from crystal_inputs import CASES, ROWS, cif, one, put, pw, refusal

from onnes.crystal import Crystal, as_crystal, fingerprint, read

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
