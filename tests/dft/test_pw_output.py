"""pw.x outputs: numbers of good runs, names of failed ones, and every cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qe_fixtures import captured, failed, few

from onnes.dft.failures import Reason
from onnes.dft.pw_output import BOHR_A, parse_pw
from onnes.dft.qe_text import real, seconds, timing

SCF = captured("al_lda/scf.out")
RELAX = captured("al_222/relax/relax.out")


def test_scf_numbers():
    found = parse_pw(captured("al_pbesol/scf.out"))
    assert found.done
    assert (found.atoms, found.k_points, found.bands, found.symmetries) == (1, 72, 6, 48)
    assert (found.energy_Ry, found.fermi_eV, found.electrons) == (-4.640664, 7.9674, 3.0)
    assert found.volume_A3 == pytest.approx(109.1861 * BOHR_A**3)
    assert (found.ecutwfc_Ry, found.ecutrho_Ry, found.degauss_Ry, found.smearing) == (40, 160, 0.02, True)
    assert (found.ram_MB, found.cpu_s, found.wall_s) == (5.4, 2.45, 4.33)


@pytest.mark.parametrize("name", ["al_pbesol/relax.out", "al_222/relax/relax.out"])
def test_relaxed_cell_has_the_volume_of_the_output(name):
    found = parse_pw(captured(name), relax=True)
    assert found.done and found.positions == (("Al", (0.0, 0.0, 0.0)),)
    assert abs(np.linalg.det(found.lattice_A)) == pytest.approx(found.volume_A3, rel=1e-5)


def test_relaxation_asked_for_and_scf_given():
    assert parse_pw(SCF, relax=True).failure.reason is Reason.RELAX_NOT_CONVERGED
    assert parse_pw(SCF).done


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scf_not_converged/out", Reason.SCF_NOT_CONVERGED),
        ("bad_keyword/out", Reason.BAD_INPUT),
        ("missing_pseudopotential/out", Reason.MISSING_PSEUDOPOTENTIAL),
        ("missing_pseudopotential/out2", Reason.MISSING_PSEUDOPOTENTIAL),
        ("overlapping_atoms/out", Reason.OVERLAP),
    ],
)
def test_failed_runs_are_named_and_job_done_does_not_help(name, reason):
    text = captured(f"failures/{name}")
    assert parse_pw(text, **failed(name)).failure.reason is reason
    assert parse_pw(text).failure.reason is reason
    assert not parse_pw(text + "\n   JOB DONE.\n", **failed(name)).done


def test_crash_file_alone_names_the_reason():
    crash = captured("failures/missing_pseudopotential/CRASH")
    found = parse_pw(captured("failures/missing_pseudopotential/out")[:900], crash=crash)
    assert found.failure.reason is Reason.MISSING_PSEUDOPOTENTIAL and "Nope.UPF" in found.failure.detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [(137, Reason.KILLED), (-9, Reason.KILLED), (None, Reason.TRUNCATED), (0, Reason.TRUNCATED)],
)
def test_killed_and_truncated(code, reason):
    assert parse_pw(SCF[: len(SCF) // 2], exit_code=code).failure.reason is reason


def test_exit_code_of_a_wrapper_does_not_spoil_a_good_output():
    assert parse_pw(SCF, exit_code=1).done


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("-4.18634465 Ry", "NaN Ry", Reason.NOT_A_NUMBER),
        ("-4.18634465 Ry", "********** Ry", Reason.NOT_A_NUMBER),
        ("the Fermi energy is     8.1777 ev", "", Reason.NOT_A_NUMBER),
        ("convergence has been achieved in   4 iterations", "", Reason.SCF_NOT_CONVERGED),
        ("Writing output data file", "", Reason.TRUNCATED),
        ("Program PWSCF", "Program PHONON", Reason.NOT_QE),
    ],
)
def test_a_line_less_or_a_number_that_is_none(old, new, reason):
    assert old in SCF
    assert parse_pw(SCF.replace(old, new)).failure.reason is reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("forrtl: No space left on device", Reason.DISK_FULL),
        ("slurmstepd: error: *** JOB 1 CANCELLED DUE TO TIME LIMIT ***", Reason.WALLTIME),
        ("slurmstepd: error: Detected 1 oom-kill event(s)", Reason.OUT_OF_MEMORY),
        ("Fortran runtime error: Cannot allocate memory", Reason.OUT_OF_MEMORY),
    ],
)
def test_standard_error_names_the_cause(line, reason):
    assert parse_pw(SCF[:5000], stderr=line).failure.reason is reason


@pytest.mark.parametrize(
    ("routine", "message", "reason"),
    [
        ("cdiaghg (   35)", "S matrix not positive definite", Reason.S_MATRIX),
        ("potrf (1)", "problems computing cholesky", Reason.S_MATRIX),
        ("c_bands (1)", "too many bands are not converged", Reason.DIAGONALISATION),
        ("electrons (1)", "charge is wrong", Reason.WRONG_CHARGE),
        ("efermig (1)", "internal error, cannot bracket Ef", Reason.FERMI_LEVEL),
        ("davcio (25)", "error writing file ./tmp/onnes.wfc1", Reason.FILE),
        ("set_irr_sym_new (922)", "wrong representation", Reason.SYMMETRY),
        ("something_new (7)", "of which nobody has heard", Reason.CRASH),
    ],
)
def test_error_messages_of_the_program(routine, message, reason):
    """Written after the form of the captured errors; these messages themselves were not captured."""
    bar = " " + "%" * 78
    error = f"     Error in routine {routine.replace(' (', '  (')}:\n     {message}"
    block = f"\n{bar}\n{error}\n{bar}\n\n     stopping ...\n"
    assert parse_pw(SCF[:5000] + block).failure.reason is reason


GOOD = {"al_lda/scf.out": (SCF, False), "relax": (RELAX, True)}


@few
@given(st.sampled_from(sorted(GOOD)), st.floats(0.0, 1.0))
def test_a_cut_output_is_incomplete_and_its_numbers_are_those_of_the_whole_one(name, part):
    text, relax = GOOD[name]
    cut = text[: int(part * len(text))]
    found, whole = parse_pw(cut, relax=relax), parse_pw(text, relax=relax)
    if found.done:
        assert "JOB DONE." in cut and found.energy_Ry == whole.energy_Ry
        assert not relax or np.array_equal(found.lattice_A, whole.lattice_A)
        return
    assert found.failure.reason in (Reason.TRUNCATED, Reason.NOTHING)
    for field in ("electrons", "ecutwfc_Ry", "bands"):
        assert getattr(found, field) in (None, getattr(whole, field))
    energies = {real(line.split()[4]) for line in text.splitlines() if line.startswith("!")}
    assert found.energy_Ry is None or found.energy_Ry in energies


@few
@given(st.text(max_size=400))
def test_any_text_is_not_done_and_never_raises(text):
    assert not parse_pw(text).done
    assert not parse_pw(SCF[:3000] + text).done


@pytest.mark.parametrize(
    ("text", "value"),
    [("4m29.76s", 269.76), ("1h 2m", 3720.0), ("0.44s", 0.44), ("1d 1h 1m", 90060.0), ("", None)],
)
def test_times(text, value):
    assert seconds(text) == (pytest.approx(value) if value is not None else None)


def test_timing_line():
    assert timing("PHONON", "     PHONON       :   4m29.76s CPU   7m14.80s WALL\n") == (269.76, 434.8)
    assert real("-0.7790-307") == 0.0 or real("-0.7790-307") == pytest.approx(-7.79e-308)
