from __future__ import annotations

import numpy as np
import pytest
from crystal_prototypes import disguise, prototypes
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from onnes.crystal import amd, fingerprint, reduced_formula, same_crystal, space_group, standardise
from onnes.crystal.symmetry import analyse, point_group, space_group_symbol
from onnes.errors import CrystalError

CASES = prototypes()

EXPECTED = {
    "fcc-Al": "Al|225|Al:1(m-3m)",
    "bcc-Nb": "Nb|229|Nb:1(m-3m)",
    "hcp-Mg": "Mg|194|Mg:2(-6m2)",
    "MgB2": "B2Mg|191|B:2(-6m2);Mg:1(6/mmm)",
    "CsCl": "ClCs|221|Cl:1(m-3m);Cs:1(m-3m)",
    "zincblende": "SZn|216|S:1(-43m);Zn:1(-43m)",
    "perovskite": "O3SrTi|221|O:3(4/mmm);Sr:1(m-3m);Ti:1(m-3m)",
    "rutile": "O2Ti|136|O:4(mm2);Ti:2(mmm)",
    "A15": "Nb3Sn|223|Nb:6(-42m);Sn:2(m-3)",
    "CrB": "BCr|63|B:2(mm2);Cr:2(mm2)",
    "P3121": "O2Si|152|O:6(1);Si:3(2)",
    "monoclinic": "O2Zr|14|O:4(1),4(1);Zr:4(1)",
    "triclinic": "LiPS2|1|Li:1(1);P:1(1);S:1(1),1(1)",
}


@pytest.mark.parametrize("name", CASES)
def test_fingerprint_reads_as_the_tables_say(name: str) -> None:
    assert fingerprint(CASES[name]) == EXPECTED[name]


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-9, -4))
@settings(max_examples=12, deadline=None)
def test_one_label_for_every_cell_of_a_crystal(name: str, seed: int, exponent: float) -> None:
    other = disguise(CASES[name], np.random.default_rng(seed), noise=10**exponent)
    assert fingerprint(other) == EXPECTED[name]


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None)
def test_amd_does_not_depend_on_the_cell(name: str, seed: int) -> None:
    other = disguise(CASES[name], np.random.default_rng(seed))
    np.testing.assert_allclose(amd(other), amd(CASES[name]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_standardise_returns_the_same_crystal_in_a_primitive_right_handed_cell(name: str) -> None:
    big = disguise(CASES[name], np.random.default_rng(3))
    small = standardise(big)
    assert small.lattice.matrix[0].dot(np.cross(*small.lattice.matrix[1:])) > 0
    assert len(small) == len(CASES[name].get_primitive_structure(tolerance=0.01))
    assert small.volume / len(small) == pytest.approx(big.volume / len(big), rel=1e-6)
    assert [s.specie.symbol for s in small] == sorted(s.specie.symbol for s in small)
    np.testing.assert_allclose(amd(small), amd(CASES[name]), atol=1e-6)
    assert same_crystal(small, CASES[name])


def test_mirror_images_share_a_label() -> None:
    right = CASES["P3121"]
    left = Structure(right.lattice, right.species, right.frac_coords * [-1, -1, -1])
    assert space_group(right)[0] == 152
    assert space_group(left)[0] == 154
    assert fingerprint(left) == fingerprint(right)


def test_rocksalt_and_zincblende_differ_but_so_does_amd() -> None:
    rocksalt = Structure.from_spacegroup(225, Lattice.cubic(5.2), ["Zn", "S"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    zincblende = CASES["zincblende"]
    assert reduced_formula(rocksalt) == reduced_formula(zincblende) == "SZn"
    assert fingerprint(rocksalt) != fingerprint(zincblende)
    assert not same_crystal(rocksalt, zincblende)
    assert np.abs(amd(rocksalt) - amd(zincblende)).max() > 0.05


def test_free_coordinates_share_a_label_and_are_told_apart_by_the_matcher() -> None:
    a = CASES["triclinic"]
    b = Structure(
        a.lattice, a.species, [[0.1, 0.2, 0.3], [0.2, 0.9, 0.61], [0.65, 0.21, 0.82], [0.6, 0.7, 0.25]]
    )
    assert fingerprint(a) == fingerprint(b)
    assert not same_crystal(a, b)


def test_same_crystal_ignores_scale_and_tells_formulas_apart() -> None:
    al = CASES["fcc-Al"]
    assert same_crystal(al, Structure.from_spacegroup(225, Lattice.cubic(4.3), ["Al"], [[0, 0, 0]]))
    assert not same_crystal(al, Structure.from_spacegroup(225, Lattice.cubic(4.05), ["Cu"], [[0, 0, 0]]))


def test_amd_is_free_of_scale_and_continuous() -> None:
    base = CASES["MgB2"]
    big = Structure(Lattice(base.lattice.matrix * 1.7), base.species, base.frac_coords)
    np.testing.assert_allclose(amd(big), amd(base), atol=1e-12)
    rng = np.random.default_rng(0)
    kick = rng.normal(size=(3, 3))
    for size in (1e-6, 1e-4, 1e-2):
        moved = Structure(
            base.lattice, base.species, base.cart_coords + size * kick, coords_are_cartesian=True
        )
        assert np.abs(amd(moved) - amd(base)).max() < 3 * size


def test_amd_of_simple_cubic_counts_shells() -> None:
    sc = Structure(Lattice.cubic(3.0), ["Po"], [[0, 0, 0]])
    shells = [1.0] * 6 + [np.sqrt(2)] * 12 + [np.sqrt(3)] * 8
    np.testing.assert_allclose(amd(sc, k=26), shells, atol=1e-12)


@pytest.mark.parametrize(
    ("oriented", "group"),
    [
        ("m2m.", "mm2"),
        ("2mm", "mm2"),
        ("m.2m", "mm2"),
        ("mmm..", "mmm"),
        ("-4m.2", "-42m"),
        ("-62m", "-6m2"),
        ("4/mm.m", "4/mmm"),
        (".-3m", "-3m"),
        ("m-3.", "m-3"),
        ("23.", "23"),
        (".32", "32"),
        (".3.", "3"),
        ("..2", "2"),
        ("-43m", "-43m"),
        ("432", "432"),
        ("2/m..", "2/m"),
    ],
)
def test_point_group_names(oriented: str, group: str) -> None:
    assert point_group(oriented) == group


def test_space_group_symbols() -> None:
    assert space_group(CASES["MgB2"]) == (191, "P6/mmm")
    assert space_group_symbol(225) == "Fm-3m"
    with pytest.raises(CrystalError, match="unknown-space-group"):
        space_group_symbol(231)


def test_spglib_takes_over_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnes.crystal import symmetry

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(symmetry, "_moyo", fail)
    for name, structure in CASES.items():
        assert fingerprint(structure * (2, 1, 1)) == EXPECTED[name]


def test_failure_of_both_libraries_is_an_error_with_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnes.crystal import symmetry

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(symmetry, "_moyo", fail)
    monkeypatch.setattr(symmetry, "_spglib", fail)
    with pytest.raises(CrystalError) as caught:
        analyse(CASES["MgB2"])
    assert caught.value.code == "symmetry-failed"


def test_symmetry_search_is_silent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnes.crystal import symmetry

    fingerprint(CASES["fcc-Al"] * (3, 1, 1))
    twisted = CASES["A15"].copy()
    twisted.perturb(0.05)
    for symprec in (1e-5, 0.02, 0.1, 0.3, 1.0):
        monkeypatch.setattr(symmetry, "_moyo", lambda *_: 1 / 0)
        fingerprint(twisted, symprec)
    assert capfd.readouterr() == ("", "")
