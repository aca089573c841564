"""ph.x outputs, dyn files and couplings: numbers, names of failures, every cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qe_fixtures import FIXTURES, captured, failed, few

from onnes.dft.dyn_file import DynFile, QGrid, parse_dyn, parse_dyn0
from onnes.dft.elph_file import parse_elph
from onnes.dft.failures import Failure, Reason
from onnes.dft.ph_output import lowest_cm1, parse_ph

PH = captured("al_lda/ph.out")
DYN = captured("al_lda/al.dyn5")
ELPH = captured("mgb2/elph.inp_lambda.2")


def test_all_q_run():
    found = parse_ph(captured("al_pbesol/ph.out"))
    assert found.done and found.q_of_run == len(found.points) == 8
    assert [p.k_points for p in found.points] == [72, 728, 378, 588, 1872, 1020, 326, 524]
    assert found.points[4].representations == (1, 1, 1)
    assert found.points[4].omega_cm1 == pytest.approx([180.330056, 229.484277, 302.978249])
    assert len(found.points[4].coupling) == 10
    assert found.points[0].coupling[1].gamma_GHz == pytest.approx([0.07, 0.07, 0.05])
    assert (found.cpu_s, found.wall_s) == (269.77, 434.80)


@pytest.mark.parametrize("q", [1, 2, 3])
def test_one_q_in_its_own_folder(q):
    text = captured(f"al_222/q00{q}/ph.out")
    assert parse_ph(text, q_of_run=1).done
    # The output lists the whole grid and does not say that only one point was asked for.
    assert parse_ph(text).failure.reason is Reason.TRUNCATED


def test_imaginary_modes_are_seen_where_the_program_says_nothing():
    found = parse_ph(captured("sc_al/ph.out"))
    assert found.done and lowest_cm1(found.points) == pytest.approx(-157.401877)
    assert lowest_cm1(parse_ph(captured("al_pbesol/ph.out")).points) > 100.0


@pytest.mark.parametrize(
    ("name", "n_sigma", "reason"),
    [
        ("ph_without_scf/out", 10, Reason.NO_SCF),
        ("elph_without_la2F_scf/out", 10, Reason.NO_DENSE_SCF),
        ("phonon_killed_then_recover/p1.out", None, Reason.TRUNCATED),
        ("phonon_killed_then_recover/p2.out", None, Reason.RECOVERED),
        ("elph_killed_then_recover/ph1.out", 10, Reason.TRUNCATED),
        ("elph_killed_then_recover/ph2.out", 10, Reason.RECOVERED),
        ("phonon_max_seconds_then_recover/p1.out", None, Reason.WALLTIME),
        ("phonon_max_seconds_then_recover/p2.out", None, Reason.RECOVERED),
        ("ph_not_converged/ph.out", 10, Reason.PH_NOT_CONVERGED),
    ],
)
def test_failed_runs_are_named(name, n_sigma, reason):
    assert parse_ph(captured(f"failures/{name}"), n_sigma=n_sigma, **failed(name)).failure.reason is reason


def test_killed_by_signal_9():
    text = captured("failures/phonon_killed_then_recover/p1.out")
    assert parse_ph(text, n_sigma=None, exit_code=137).failure.reason is Reason.KILLED


def test_phonon_on_an_unconverged_scf_looks_good_so_the_scf_is_the_gate():
    assert parse_ph(captured("failures/scf_not_converged/pout"), n_sigma=None).done


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[THz] =     140.112200 [cm-1]", "[THz] =            NaN [cm-1]", Reason.NOT_A_NUMBER),
        ("lambda(    2)=", "lambdb(    2)=", Reason.TRUNCATED),
        ("Convergence has been achieved", "", Reason.TRUNCATED),
    ],
)
def test_a_part_less(old, new, reason):
    assert old in PH
    assert parse_ph(PH.replace(old, new, 1)).failure.reason is reason


@few
@given(st.floats(0.0, 1.0))
def test_a_cut_output_is_incomplete_and_finished_points_keep_their_numbers(part):
    whole, found = parse_ph(PH), parse_ph(cut := PH[: int(part * len(PH))])
    assert found.done == ("JOB DONE.\n" in cut)
    for ours, theirs in zip(found.points, whole.points, strict=False):
        if ours.failure is None:
            assert np.array_equal(ours.omega_cm1, theirs.omega_cm1)
            assert np.array_equal(ours.coupling[-1].lam, theirs.coupling[-1].lam)


@few
@given(st.text(max_size=300))
def test_any_text_is_not_done(text):
    assert not parse_ph(text).done
    assert not parse_dyn(text).done and not parse_elph(text).done
    assert isinstance(parse_dyn0(text), Failure) or text.split()


@pytest.mark.parametrize("folder", ["al_lda", "al_pbesol", "sc_al"])
def test_dyn0_is_the_grid(folder):
    found = parse_dyn0(captured(f"{folder}/al.dyn0"))
    assert isinstance(found, QGrid)
    assert found.grid == ((2, 2, 2) if folder == "sc_al" else (4, 4, 4))
    assert len(found.q) == (4 if folder == "sc_al" else 8)


def test_star_weights_add_up_to_the_grid():
    for folder, count, total in (("al_lda", 8, 64), ("sc_al", 4, 8)):
        files = [parse_dyn(captured(f"{folder}/al.dyn{n}")) for n in range(1, count + 1)]
        assert all(f.done for f in files) and sum(f.weight for f in files) == total


def test_frequencies_of_a_cell_without_bravais_index():
    found = parse_dyn(captured("al_222/q003/onnes.dyn3"))
    assert found.done and found.omega_cm1 == pytest.approx([217.826999, 217.826999, 304.967394])
    assert found.weight == 3 and found.alat_bohr == pytest.approx(5.3048655)


@pytest.mark.parametrize(
    ("name", "lowest"),
    [
        ("al_pbesol/al.dyn1", None),
        ("al_lda/al.dyn5", None),
        ("sc_al/al.dyn2", -101.4),
        ("sc_al/al.dyn3", -157.4),
    ],
)
def test_imaginary_modes_and_noise_at_gamma(name, lowest):
    found = parse_dyn(captured(name)).imaginary()
    if lowest is None:
        assert found is None
    else:
        assert found.reason is Reason.UNSTABLE and f"{lowest}" in found.detail and "-5 cm-1" in found.detail


def test_imaginary_optical_mode_at_gamma_is_no_noise():
    star = np.zeros((1, 3))
    quiet = DynFile(None, 2, None, None, star, np.array([-2.0, -2.0, -1.0, 90.0, 90.0, 100.0]))
    loud = DynFile(None, 2, None, None, star, np.array([-80.0, -2.0, -2.0, -1.0, 90.0, 100.0]))
    assert quiet.imaginary() is None and loud.imaginary().reason is Reason.UNSTABLE


def test_printed_frequencies_must_be_those_of_the_matrix():
    assert "179.869651" in DYN
    wrong = DYN.replace("179.869651", "-124.427075")
    assert parse_dyn(wrong).failure.reason is Reason.INCONSISTENT
    assert parse_dyn("").failure.reason is Reason.NOTHING


@few
@given(st.integers(0, len(DYN) - 1))
def test_a_cut_dyn_file_is_never_done(size):
    found = parse_dyn(DYN[:size])
    assert not found.done
    assert found.failure.reason in (Reason.TRUNCATED, Reason.NOTHING)


def test_coupling_of_nine_modes():
    found = parse_elph(ELPH)
    assert found.done and len(found.omega_cm1) == 9 and len(found.coupling) == 10
    assert found.coupling[0].lam[4] == 1.4404 and found.coupling[0].gamma_GHz[8] == 1532.61
    assert found.omega_cm1[-1] == pytest.approx(810.8, abs=0.1)
    assert parse_elph(ELPH, n_sigma=8).failure.reason is Reason.INCONSISTENT


def test_coupling_agrees_with_the_dyn_file():
    elph, dyn = parse_elph(captured("al_lda/elph.inp_lambda.5")), parse_dyn(DYN)
    assert elph.omega_cm1 == pytest.approx(dyn.omega_cm1, abs=1e-2)


@few
@given(st.integers(0, len(ELPH) - 1))
def test_a_cut_coupling_is_never_done_but_for_the_last_line_end(size):
    found = parse_elph(ELPH[:size])
    assert not found.done or ELPH[size:].strip() == ""


def test_fixtures_hold_no_machine_paths():
    for file in FIXTURES.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="latin-1")
            assert "/usr/share" not in text and "/calc/" not in text and "/work" not in text, file
