import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.errors import InputError, OnnesError
from onnes.theory.readers import Format, read_a2f, sniff
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import Formula, tc
from onnes.units import TO_KELVIN

OMEGA_MEV = np.linspace(0.2, 44.0, 220)
VALUES = 0.5 * np.exp(-(((OMEGA_MEV - 26.0) / 6.0) ** 2)) + 1e-4 * OMEGA_MEV**2 * (OMEGA_MEV < 20)
REFERENCE = Spectrum.from_arrays(OMEGA_MEV, VALUES, "meV")


def in_unit(unit):
    return OMEGA_MEV * TO_KELVIN["meV"] / TO_KELVIN[unit]


def rows(omega, *columns, sep=" "):
    return "\n".join(sep.join(f"{value:.10e}" for value in row) for row in zip(omega, *columns, strict=True))


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def qe_a2f_dos(lam=None):
    footer = f"\n  lambda = {lam if lam is not None else REFERENCE.lam:.12f}   Delta = 1.0E-5\n"
    head = "\n # Eliashberg function a2F\n #  frequencies in Rydberg\n # total, modes\n\n"
    return head + rows(in_unit("Ry"), VALUES, VALUES / 3, VALUES / 3, VALUES / 3) + footer


def qe_alpha2f():
    return "# E(THz)  0.005  0.010\n" + rows(in_unit("THz"), 2 * VALUES, VALUES)


def epw():
    head = " w[meV] a2f and integrated 2*a2f/w for   2 smearing values\n"
    foot = "\n Integrated el-ph coupling\n  #  {:.8f} {:.8f}\n Phonon smearing (meV)\n  #  0.05 0.10\n"
    return (
        head
        + rows(OMEGA_MEV, VALUES, 2 * VALUES, 0 * VALUES, 0 * VALUES)
        + foot.format(REFERENCE.lam, 2 * REFERENCE.lam)
    )


def abinit():
    return "# ABINIT package : a2f file\n# Frequency, a2F\n" + rows(in_unit("Ha"), VALUES)


# name, text, options of read_a2f, format, unit
FILES = [
    ("a2F.dos5", qe_a2f_dos(), {}, "qe-a2f-dos", "Ry"),
    ("alpha2F.dat", qe_alpha2f(), {"column": 2}, "qe-alpha2f", "THz"),
    ("alpha2F.dat", qe_alpha2f(), {"smearing": 0.01}, "qe-alpha2f", "THz"),
    ("pb.a2f", epw(), {"smearing": 0.05}, "epw", "meV"),
    ("al_A2F", abinit(), {}, "abinit", "Ha"),
    ("ALPHA2F.OUT", rows(in_unit("Ha"), VALUES), {}, "elk", "Ha"),
    ("two.csv", "omega_meV,alpha2F\n" + rows(OMEGA_MEV, VALUES, sep=","), {}, "columns", "meV"),
    ("two.csv", "omega (cm-1);a2F\n" + rows(in_unit("cm-1"), VALUES, sep=";"), {}, "columns", "cm-1"),
    ("two.dat", "# w [THz]  a2F\n" + rows(in_unit("THz"), VALUES), {}, "columns", "THz"),
    ("bare.dat", rows(in_unit("Ry"), VALUES), {"unit": "Ry"}, "columns", "Ry"),
    ("with space é.csv", "omega_THz,a2F\r\n" + rows(in_unit("THz"), VALUES, sep=","), {}, "columns", "THz"),
]


@pytest.mark.parametrize(("name", "text", "options", "form", "unit"), FILES)
def test_one_curve_in_every_format_gives_one_lambda_and_tc(tmp_path, name, text, options, form, unit):
    spectrum = read_a2f(write(tmp_path, name, text), **options)
    assert (spectrum.meta["format"], spectrum.meta["unit"]) == (form, unit)
    assert spectrum.lam == pytest.approx(REFERENCE.lam, rel=1e-6)
    assert spectrum.omega_log_K == pytest.approx(REFERENCE.omega_log_K, rel=1e-6)
    for formula in Formula:
        ours, theirs = (tc(s, formula=formula).tc_K for s in (spectrum, REFERENCE))
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("unit", list(TO_KELVIN))
def test_stated_unit_of_bare_columns(tmp_path, unit):
    spectrum = Spectrum.from_file(write(tmp_path, "c.txt", rows(in_unit(unit), VALUES)), unit)
    assert tc(spectrum).tc_K == pytest.approx(tc(REFERENCE).tc_K, rel=1e-6)


def test_the_codes_own_lambda_is_kept_for_the_cross_check(tmp_path):
    assert read_a2f(write(tmp_path, "a2F.dos1", qe_a2f_dos(0.77))).meta["lambda_file"] == 0.77
    second = read_a2f(write(tmp_path, "x.a2f", epw()), column=2)
    assert second.meta["lambda_file"] == pytest.approx(second.lam, rel=1e-6)


GOOD = rows(OMEGA_MEV, VALUES)
BAD = [
    ("no unit anywhere", GOOD, {}, "no-unit"),
    ("header without a unit", "omega,alpha2F\n" + rows(OMEGA_MEV, VALUES, sep=","), {}, "no-unit"),
    ("two units in one header", "# meV or THz\n" + GOOD, {}, "no-unit"),
    ("unknown unit", GOOD, {"unit": "eV2"}, "unknown-unit"),
    ("contradicting unit", "omega_meV,a2F\n" + GOOD, {"unit": "THz"}, "unit-conflict"),
    ("QE file said to be in meV", qe_a2f_dos(), {"unit": "meV"}, "unit-conflict"),
    ("NaN", "1 0\n2 NaN\n3 0\n", {"unit": "meV"}, "not-finite"),
    ("inf", "1 0\ninf 1\n", {"unit": "meV"}, "not-finite"),
    ("stars for overflow", "1 0\n2 ******\n3 0\n", {"unit": "meV"}, "not-a-number"),
    ("omega goes back", "1 0\n3 1\n2 0\n", {"unit": "meV"}, "grid-not-increasing"),
    ("omega repeats", "1 0\n2 1\n2 0\n", {"unit": "meV"}, "grid-not-increasing"),
    ("empty", "", {"unit": "meV"}, "empty-file"),
    ("blank", " \n\n\t\n", {"unit": "meV"}, "empty-file"),
    ("comments only", "# omega alpha2F\n", {"unit": "meV"}, "no-numbers"),
    ("prose", "nothing to\nsee here\n", {"unit": "meV"}, "no-numbers"),
    ("one column", "1\n2\n3\n", {"unit": "meV"}, "bad-columns"),
    ("cut-off last line", "1 0\n2 1\n3\n", {"unit": "meV"}, "bad-columns"),
    ("one row", "1 0\n", {"unit": "meV"}, "too-few-points"),
    ("text in the middle", "1 0\n2 1\noops\n3 0\n", {"unit": "meV"}, "not-a-number"),
    ("several smearings, none chosen", qe_alpha2f(), {}, "choose-smearing"),
    ("smearing that is not there", qe_alpha2f(), {"smearing": 0.5}, "choose-smearing"),
    ("column that is not there", qe_alpha2f(), {"column": 3}, "choose-smearing"),
    ("column zero", qe_alpha2f(), {"column": 0}, "choose-smearing"),
    ("unknown format", GOOD, {"unit": "meV", "format": "vasp"}, "unknown-format"),
    ("table of lambda", "# degauss lambda\n0.005 0.65 0.65\n0.01 0.48 0.48\n", {"unit": "meV"}, "not-a2f"),
    ("phonon DOS", "# Frequency[cm^-1] DOS PDOS\n0 0 0\n1 1 1\n", {}, "not-a2f"),
]


@pytest.mark.parametrize(("text", "options", "code"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_files_are_one_line_with_a_code_and_the_file_name(tmp_path, text, options, code):
    with pytest.raises(InputError) as caught:
        read_a2f(write(tmp_path, "curve.txt", text), **options)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert "curve.txt" in caught.value.message or code in ("unknown-unit", "unknown-format")


def test_what_is_no_text_file(tmp_path):
    for path, code in [
        (tmp_path / "nothing.csv", "not-found"),
        (tmp_path, "not-a-file"),
        (tmp_path / "binary.dat", "binary-file"),
    ]:
        (tmp_path / "binary.dat").write_bytes(b"\x89HDF\0\0\0" * 20)
        with pytest.raises(InputError) as caught:
            read_a2f(path, unit="meV")
        assert caught.value.code == code


def test_numbers_as_fortran_and_windows_write_them(tmp_path):
    text = "\ufeff# w (meV) a2F\r\n1.0D0 0.0\r\n2.0d+00 0.1D+01\r\n! comment\r\n\r\n3.0 0.7790-307\r\n"
    (tmp_path / "f.dat").write_bytes(text.encode("utf-8"))
    spectrum = read_a2f(tmp_path / "f.dat")
    assert spectrum.omega_meV.tolist() == [1.0, 2.0, 3.0] and spectrum.alpha2F[1] == 1.0


def test_latin1_comments_do_not_hide_the_numbers(tmp_path):
    (tmp_path / "l.dat").write_bytes("# Å, meV\n1 0\n2 1\n3 0\n".encode("latin-1"))
    assert read_a2f(tmp_path / "l.dat", unit="meV").omega_meV.size == 3


def test_more_columns_are_said_to_be_ignored(tmp_path):
    spectrum = read_a2f(write(tmp_path, "m.dat", rows(OMEGA_MEV, VALUES, VALUES)), unit="meV")
    assert "3 columns" in spectrum.notes[0]


def test_sniff_names_each_format():
    assert sniff("a2F.dos1", qe_a2f_dos()) is Format.QE_A2F_DOS
    assert sniff("alpha2F.dat", qe_alpha2f()) is Format.QE_ALPHA2F
    assert sniff("ALPHA2F.OUT", GOOD) is Format.ELK
    assert sniff("any", GOOD) is Format.COLUMNS


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789.eEdD+-, ;\t\n#!naifNAI*mVTHz", max_size=120))
def test_any_text_gives_a_spectrum_or_a_typed_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.dat"
    path.write_text(text)
    try:
        spectrum = read_a2f(path, unit="meV")
        assert np.isfinite(tc(spectrum).tc_K)
    except OnnesError as error:
        assert error.code and "\n" not in str(error)


# Real Quantum ESPRESSO runs.
@pytest.fixture
def aluminium(shared):
    folder = shared / "qe_outputs" / "al_pbesol_444"
    if not folder.is_dir():
        pytest.skip(f"no Quantum ESPRESSO outputs at {folder}")
    return folder


def signed_lambda(spectrum):
    """Lambda with the negative bins summed in, as Quantum ESPRESSO does: what we kept minus what we cut."""
    assert spectrum.hygiene.removed == spectrum.hygiene.negative
    cut = spectrum.hygiene.negative
    return spectrum.lam * (1.0 - cut / (1.0 - cut))


def test_every_a2f_dos_of_a_real_run_meets_its_own_lambda_and_omega_log(aluminium):
    table = re.findall(r"omega_ln \[K\]\s+(\S+)", (aluminium / "lambda").read_text())
    assert len(table) == 10
    for number, omega_log in enumerate(map(float, table), start=1):
        spectrum = read_a2f(aluminium / f"a2F.dos{number}")
        assert signed_lambda(spectrum) == pytest.approx(spectrum.meta["lambda_file"], rel=1e-4), number
        # QE weighs ln(omega) with the negative bins too.
        assert spectrum.omega_log_K == pytest.approx(omega_log, rel=4e-3), number


def test_alpha2f_dat_of_a_real_run_meets_lambda_x(aluminium):
    table = np.loadtxt(aluminium / "lambda.dat")
    assert len(table) == 10
    for degauss, _, integral, omega_log, _ in table:
        spectrum = read_a2f(aluminium / "alpha2F.dat", smearing=degauss)
        assert 0.03 < spectrum.hygiene.negative < 0.04  # a coarse q grid's overshoot, reported
        assert signed_lambda(spectrum) == pytest.approx(integral, rel=3e-4), degauss
        assert spectrum.omega_log_K == pytest.approx(omega_log, rel=4e-3), degauss


def test_neighbours_of_a_real_spectrum_are_refused(aluminium):
    with pytest.raises(InputError, match="choose-smearing"):
        read_a2f(aluminium / "alpha2F.dat")
    with pytest.raises(InputError, match="not-finite"):
        read_a2f(aluminium / "alpha2F.NaN.dat", column=1)
    for wrong in ("lambda.dat", "al.phdos"):
        with pytest.raises(InputError, match="not-a2f"):
            read_a2f(aluminium / wrong, unit="meV")
