"""Small inputs and shorthands of the reader tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from crystal_prototypes import prototypes

from onnes.crystal import Crystal, Refused, read
from onnes.errors import InputError

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
