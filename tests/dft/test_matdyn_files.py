"""q2r.x and matdyn.x: outputs, force constants, bands, DOS, alpha2F; what must be on disk after each step."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qe_fixtures import FIXTURES, captured, few

from onnes.dft.dyn_file import parse_dyn
from onnes.dft.failures import Reason
from onnes.dft.matdyn_files import (
    parse_a2f,
    parse_bands,
    parse_fc,
    parse_matdyn,
    parse_phdos,
    parse_q2r,
)
from onnes.dft.scratch import (
    check_a2fsave,
    check_q,
    check_scf,
    parse_scf_record,
    wave_function_bytes,
)
from onnes.errors import InputError
from onnes.theory.lambda_table import read_lambda_table
from onnes.theory.readers import read_a2f

A2F = captured("al_pbesol/a2F.dos3")
FC = captured("al_lda/al.fc")
Q2R = captured("al_lda/q2r.out")
XML = captured("al_222/scf/data-file-schema.xml")
A2FSAVE = captured("al_222/scf/onnes.a2Fsave")


def test_outputs():
    assert parse_q2r(Q2R, n_sigma=10).sigmas_Ry == pytest.approx(0.005 * np.arange(1, 11))
    assert parse_q2r(Q2R, n_sigma=10).failure is None
    assert parse_q2r(Q2R, n_sigma=12).failure.reason is Reason.TRUNCATED
    assert parse_matdyn(captured("al_lda/a2f.out")).cpu_s == 0.78
    assert parse_matdyn(captured("al_lda/bands.out")).failure is None
    assert parse_matdyn(Q2R).failure.reason is Reason.NOT_QE
    assert parse_q2r(Q2R.replace("q-space grid ok", "")).failure.reason is Reason.GRID


def test_alpha2f_of_a_stable_crystal():
    found = parse_a2f(A2F, points=200)
    assert found.failure is None and found.modes.shape == (200, 3)
    assert found.lam == 0.43852346349910304 and found.imaginary_share == 0.0
    assert found.modes.sum(1) == pytest.approx(found.alpha2f, abs=2e-6)
    assert parse_a2f(A2F, points=100).failure.reason is Reason.TRUNCATED


def test_alpha2f_file_and_the_reader_of_spectra_agree(tmp_path):
    (tmp_path / "a2F.dos3").write_text(A2F)
    spectrum = read_a2f(tmp_path / "a2F.dos3")
    assert spectrum.lam == pytest.approx(parse_a2f(A2F).lam, rel=0.01)


def test_imaginary_modes_show_in_the_weight_below_zero():
    found = parse_a2f(captured("sc_al/a2F.dos5"), points=60)
    assert found.failure is None and found.imaginary_share > 0.02
    assert parse_matdyn(captured("sc_al/a2f.out")).failure is None


def test_lambda_table_beside_alpha2f():
    rows = read_lambda_table(FIXTURES / "al_222" / "bands" / "lambda")
    lam = parse_a2f(captured("al_222/bands/a2F.dos5")).lam
    assert rows[4].lam == pytest.approx(lam, rel=0.02)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0.43852346349910304", "0.53852346349910304", Reason.INCONSISTENT),
        ("0.43852346349910304", "NaN", Reason.NOT_A_NUMBER),
        ("1.6000305108742449E-005", "3.2000305108742449E-005", Reason.INCONSISTENT),
        ("0.105281E-02    0.000000E+00", "*********** 0.000000E+00", Reason.NOT_A_NUMBER),
    ],
)
def test_alpha2f_that_contradicts_itself(old, new, reason):
    assert old in A2F
    assert parse_a2f(A2F.replace(old, new)).failure.reason is reason


@few
@given(st.integers(0, len(A2F) - 1))
def test_cut_alpha2f_is_never_done(size):
    assert parse_a2f(A2F[:size]).failure is not None


@few
@given(st.integers(0, len(FC) - 1))
def test_cut_force_constants_are_never_done(size):
    assert parse_fc(FC[:size]).failure is not None


@few
@given(st.floats(0.0, 1.0))
def test_cut_q2r_output(part):
    cut = Q2R[: int(part * len(Q2R))]
    assert (parse_q2r(cut, n_sigma=10).failure is None) == ("JOB DONE.\n" in cut)


def test_force_constants():
    assert parse_fc(FC).failure is None and parse_fc(FC).grid == (4, 4, 4)
    assert parse_fc(captured("al_222/bands/onnes.fc")).failure is None
    assert parse_fc(FC.replace("E-", "*-", 1)).failure.reason is Reason.NOT_A_NUMBER


def test_bands_and_dos():
    bands = parse_bands(captured("al_222/bands/onnes.freq.gp"), points=202)
    assert bands.failure is None and bands.omega_cm1.shape == (202, 3)
    assert parse_bands(captured("al_222/bands/onnes.freq.gp"), points=203).failure.reason is Reason.TRUNCATED
    for name in ("al_lda/al.phdos", "al_pbesol/al.phdos", "al_222/bands/onnes.phdos"):
        assert parse_phdos(captured(name)).modes == pytest.approx(3.0, abs=0.02)


@few
@given(st.text(max_size=200))
def test_any_text_is_refused(text):
    for parse in (parse_a2f, parse_fc, parse_q2r, parse_matdyn, parse_scf_record):
        assert parse(text).failure is not None
    assert check_a2fsave(text) is not None


def test_metal_and_insulator():
    metal, insulator = parse_scf_record(XML), parse_scf_record(captured("si/data-file-schema.xml"))
    assert metal.failure is None and not metal.insulator and metal.gap_eV == 0.0
    assert insulator.insulator and insulator.gap_eV == pytest.approx(0.62, abs=0.01)
    assert metal.fermi_eV == pytest.approx(8.3198, abs=1e-3)


@few
@given(st.integers(0, len(XML) - 20))
def test_cut_record_of_the_scf(size):
    assert parse_scf_record(XML[:size]).failure is not None


@few
@given(st.integers(0, len(A2FSAVE) - 1))
def test_cut_dense_grid_file(size):
    assert check_a2fsave(A2FSAVE[:size]) is not None


def test_dense_grid_file():
    assert check_a2fsave(A2FSAVE) is None


@pytest.fixture
def scf(tmp_path):
    """Scratch of a self-consistent run; wave functions of the size Fortran writes."""
    save = tmp_path / "onnes.save"
    save.mkdir()
    (save / "data-file-schema.xml").write_text(XML)
    (save / "charge-density.dat").write_bytes(b"x" * 100)
    record = parse_scf_record(XML)
    for n, waves in enumerate(record.plane_waves, start=1):
        (save / f"wfc{n}.dat").write_bytes(b"x" * wave_function_bytes(waves, record.bands))
    (tmp_path / "onnes.a2Fsave").write_text(A2FSAVE)
    return tmp_path


def test_whole_scratch(scf):
    assert check_scf(scf, "onnes", dense=True) is None
    # Measured: 113 plane waves and 6 bands are 12,416 bytes, 104 are 11,444.
    assert [wave_function_bytes(n, 6) for n in (113, 104)] == [12416, 11444]


@pytest.mark.parametrize(
    "name", ["wfc7.dat", "wfc16.dat", "charge-density.dat", "data-file-schema.xml", "../onnes.a2Fsave"]
)
@pytest.mark.parametrize("how", ["emptied", "removed", "halved"])
def test_full_disk_leaves_short_files_behind_an_output_that_is_fine(scf, name, how):
    file = scf / "onnes.save" / name
    if how == "removed":
        file.unlink()
    elif name != "charge-density.dat" or how == "emptied":
        file.write_bytes(file.read_bytes()[: 0 if how == "emptied" else file.stat().st_size // 2])
    else:
        return
    assert check_scf(scf, "onnes", dense=True) is not None


@pytest.mark.parametrize("q", [1, 2, 3])
def test_files_of_one_q(q, tmp_path):
    shutil.copytree(FIXTURES / "al_222" / f"q00{q}", tmp_path / "q")
    assert check_q(tmp_path / "q", "onnes", q, 10) is None
    assert check_q(tmp_path / "q", "onnes", 4, 10).reason is Reason.GRID
    table = tmp_path / "q" / "elph_dir" / f"a2Fq2r.60.{q}"
    table.write_text(table.read_text()[:-30])
    assert check_q(tmp_path / "q", "onnes", q, 10).reason is Reason.TRUNCATED
    (tmp_path / "q" / f"onnes.dyn{q}").write_text("")
    assert check_q(tmp_path / "q", "onnes", q, 10).reason is Reason.NOTHING


def test_files_of_another_q(tmp_path):
    shutil.copytree(FIXTURES / "al_222" / "q002", tmp_path / "q")
    (tmp_path / "q" / "onnes.dyn3").write_text(captured("al_222/q002/onnes.dyn2"))
    assert check_q(tmp_path / "q", "onnes", 3, 10).reason is Reason.INCONSISTENT


def test_programs_print_a_lambda_or_nan_where_there_is_none():
    with pytest.raises(InputError, match="not-finite"):  # lambda.x after an acoustic mode at -2 cm-1
        read_lambda_table(FIXTURES / "al_pbesol" / "lambda.NaN.out")
    # matdyn.x on real imaginary modes: finite numbers, so the dyn files must decide.
    assert all(0.3 < row.lam < 1.1 for row in read_lambda_table(FIXTURES / "sc_al" / "lambda"))
    assert parse_dyn(captured("sc_al/al.dyn3")).imaginary() is not None
