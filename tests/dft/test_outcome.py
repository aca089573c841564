"""Verdicts: from captured files and from runs that stopped; result.json, figures, records that training reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from qe_fixtures import FIXTURES

import onnes.dft.outcome as outcome_module
from onnes.data.records import read_records, write_records
from onnes.dft.failures import Reason
from onnes.dft.outcome import COARSE, FINAL, LEAST_TC_K, Verdict, judge, write_outcome
from onnes.dft.plan import make_cell, make_plan
from onnes.dft.plots import draw_run
from onnes.dft.tiers import TIERS, TierName
from onnes.dft.to_record import code_digest, record_of_run
from onnes.units import UNITS

A = 3.97
AL = Structure(Lattice.cubic(A), ["Al"] * 4, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
TIER = TIERS[TierName.QUICK]
#: Broadening -> lambda of an invented plateau from 0.02 Ry on.
LEVEL = [0.9, 0.7, 0.55, 0.45, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]


def a2f_text(lam: float, peak_meV: float = 30.0) -> str:
    """A file as matdyn.x writes it: a triangle around the peak, scaled to lambda."""
    ry = UNITS.Ry_to_K * UNITS.kB_meV
    omega = np.linspace(0.25, 40.0, 160)
    shape = np.clip(1.0 - np.abs(omega - peak_meV) / 8.0, 0.0, None)
    shape *= lam / (2.0 * (omega[1] - omega[0]) * (shape / omega).sum())
    step = (omega[1] - omega[0]) / ry
    own = 2.0 * step * (shape / (omega / ry)).sum()
    rows = "".join(f" {w / ry:.10e} {a:.8e} {a:.8e}\n" for w, a in zip(omega, shape, strict=True))
    head = "# Eliashberg function a2F\n# frequencies in Rydberg\n#\n#\n#\n"
    return f"{head}{rows} lambda =  {own:.8f}  Delta =  {step:.8e}\n"


@pytest.fixture
def run(tmp_path):
    """A folder with captured dyn files and invented spectra, its plan, and its verdict."""

    def make(curve=LEVEL, folder="al_222", count=3):
        place = tmp_path / "bands"
        (place / "elph_dir").mkdir(parents=True, exist_ok=True)
        for n in range(1, count + 1):
            source = FIXTURES / folder / f"q00{n}" / f"onnes.dyn{n}"
            source = source if source.exists() else FIXTURES / folder / f"al.dyn{n}"
            shutil.copyfile(source, place / f"onnes.dyn{n}")
        elph = FIXTURES / "al_222" / "q001" / "elph_dir" / "elph.inp_lambda.1"
        shutil.copyfile(elph, place / "elph_dir" / "elph.inp_lambda.1")
        for name in ("onnes.freq.gp", "onnes.phdos"):
            shutil.copyfile(FIXTURES / "al_222" / "bands" / name, place / name)
        for s, lam in enumerate(curve, start=1):
            (place / f"a2F.dos{s}").write_text(a2f_text(lam))
        plan = make_plan(make_cell(AL, TIER), TIER, relax=False)
        state = SimpleNamespace(
            status="done", reason="", detail="", plan=SimpleNamespace(q_weights=(1,) * count, tier=TIER)
        )
        return tmp_path, plan, judge(state, tmp_path)

    return make


def test_superconductor_has_every_number(run):
    folder, _, outcome = run()
    assert outcome.verdict is Verdict.SUPERCONDUCTOR and outcome.reason == ""
    assert outcome.plateau.sigma_Ry == pytest.approx(0.02) and outcome.spectrum.lam == pytest.approx(
        0.45, rel=0.01
    )
    assert set(outcome.summary["tc"]) >= {"mcmillan-allen-dynes", "allen-dynes", "xie"}
    solved = outcome.summary["eliashberg"]
    assert outcome.tc_K == solved["tc_K"] > 1.0 and solved["gap_ratio"] == pytest.approx(3.55, abs=0.1)
    # The density of states of the captured file, 0.02 Ry, both spins, in eV.
    assert 0.2 < outcome.dos_ef < 0.6
    told = json.loads(write_outcome(outcome, folder).read_text())
    assert told["verdict"] == "superconductor" and len(told["curve"]) == 10
    assert (
        told["plateau"]["sigma_Ry"] == pytest.approx([0.02, 0.05]) and "10 %" in told["plateau"]["criterion"]
    )
    assert (folder / "alpha2F.csv").read_text().startswith("omega_meV,alpha2F\n")


def test_plateau_too_weak_for_a_tc_is_no_superconductor(run):
    _, _, outcome = run([0.15] * 10)
    assert outcome.verdict is Verdict.NORMAL and outcome.reason == "tc-below-limit"
    assert outcome.tc_K < LEAST_TC_K and outcome.spectrum is not None


def test_no_plateau_has_a_curve_and_no_number(run):
    folder, plan, outcome = run([0.9 / (n + 1) for n in range(10)])
    assert outcome.verdict is Verdict.NO_PLATEAU and outcome.tc_K is None and not outcome.summary
    assert outcome.results.rows[0].lam == pytest.approx(0.9, rel=0.01)
    record = record_of_run("x", plan, outcome, folder)
    assert record.labels == {} and len(record.meta["lambda_of_sigma"]) == 10
    write_outcome(outcome, folder)
    assert not (folder / "alpha2F.csv").exists()


def test_imaginary_modes_outrank_the_finite_lambda_beside_them(run):
    folder, plan, outcome = run(folder="sc_al", count=4)
    assert outcome.verdict is Verdict.UNSTABLE and "-157.4 cm-1" in outcome.detail and outcome.tc_K is None
    assert record_of_run("x", plan, outcome, folder).labels == {}


@pytest.mark.parametrize(
    ("status", "reason", "verdict"),
    [
        ("insulator", Reason.INSULATOR, Verdict.INSULATOR),
        ("magnetic", Reason.MAGNETIC, Verdict.MAGNETIC),
        ("failed", Reason.SCF_NOT_CONVERGED, Verdict.NOT_CONVERGED),
        ("failed", Reason.PH_NOT_CONVERGED, Verdict.NOT_CONVERGED),
        ("failed", Reason.RELAX_NOT_CONVERGED, Verdict.NOT_CONVERGED),
        ("failed", Reason.KILLED, Verdict.FAILED),
        ("failed", Reason.DISK_FULL, Verdict.FAILED),
    ],
)
def test_runs_that_stopped(tmp_path, status, reason, verdict):
    state = SimpleNamespace(status=status, reason=str(reason), detail="words", plan=None)
    outcome = judge(state, tmp_path)
    assert (outcome.verdict, outcome.reason, outcome.detail) == (verdict, str(reason), "words")
    assert (outcome.verdict in FINAL) == (verdict not in (Verdict.FAILED, Verdict.NOT_CONVERGED))


@pytest.mark.parametrize(
    ("q_sum", "verdict"), [(0.40, Verdict.SUPERCONDUCTOR), (0.33, Verdict.NOT_CONVERGED)]
)
def test_a_q_grid_too_coarse_to_interpolate_on_gives_no_number(run, monkeypatch, q_sum, verdict):
    folder, plan, sound = run()
    rows = tuple(replace(row, lam_q_sum=q_sum) for row in sound.results.rows)
    monkeypatch.setattr(outcome_module, "read_results", lambda *_: replace(sound.results, rows=rows))
    state = SimpleNamespace(
        status="done", reason="", detail="", plan=SimpleNamespace(q_weights=(1,) * 3, tier=TIER)
    )
    outcome = judge(state, folder)
    assert outcome.verdict is verdict
    if verdict is Verdict.NOT_CONVERGED:
        # 0.45 against 0.33: a curve and both numbers, nothing to train on, nothing left to compute at this tier.
        assert outcome.reason == COARSE and "0.330 summed" in outcome.detail and outcome.final
        assert record_of_run("x", plan, outcome, folder).labels == {} and outcome.tc_K is None
    else:
        assert any("coarse q grid" in note for note in outcome.notes)


def test_bands_below_zero_between_the_points_are_pointed_out(run):
    folder, _, outcome = run()
    assert not any("interpolated bands" in note for note in outcome.notes)
    file = folder / "bands" / "onnes.freq.gp"
    lines = file.read_text().splitlines()
    words = lines[5].split()
    lines[5] = " ".join([words[0], "-40.0", *words[2:]])
    file.write_text("\n".join(lines) + "\n")
    state = SimpleNamespace(
        status="done", reason="", detail="", plan=SimpleNamespace(q_weights=(1,) * 3, tier=TIER)
    )
    assert any("-40.0 cm-1" in note for note in judge(state, folder).notes)


def test_record_is_read_like_any_other_data_set(run, tmp_path):
    folder, plan, outcome = run()
    record = record_of_run("al", plan, outcome, folder)
    write_records(tmp_path / "set.jsonl", [record])
    (back,) = read_records(tmp_path / "set.jsonl")
    assert back.source == "onnes-dft" and back.formula == "Al"
    assert back.labels["lambda"] == outcome.spectrum.lam and back.labels["Tc_K"] > 1.0
    assert back.meta["Tc_formula"] == "allen-dynes" and back.meta["mu_star"] == 0.10
    dft = back.meta["dft"]
    assert dft["ecutwfc_Ry"] == 40.0 and dft["grids"]["q"] == list(plan.grids.q)
    assert set(dft["pseudopotentials"]["Al"]) == {"file", "sha256"}
    assert dft["onnes_code"] == code_digest() and len(code_digest()) == 12


def test_spectral_training_takes_the_curve_of_the_record(run, tmp_path):
    from onnes.learn.spectrum_data import prepare
    from onnes.nets.spectrum import SpectrumSettings

    folder, plan, outcome = run()
    good = record_of_run("al", plan, outcome, folder)
    _, _, none = run([0.9 / (n + 1) for n in range(10)])
    write_records(tmp_path / "set.jsonl", [good, record_of_run("without", plan, none, folder)])
    found = prepare(read_records(tmp_path / "set.jsonl"), SpectrumSettings(), {}, tmp_path / "cache")
    assert found.sources == ["onnes-dft"] and list(found.data.has_curve) == [True]
    assert np.exp(found.data.moments[0][0]) == pytest.approx(outcome.spectrum.lam, rel=1e-3)
    assert found.refused == {"without": "no-labels: neither a curve nor lambda and omega_log_K"}


def test_figures(run):
    folder, plan, outcome = run()
    made = draw_run(plan.cell.structure, outcome, folder)
    assert {f.name for f in made} == {
        f"{name}.{ending}" for name in ("phonons", "lambda_sigma", "alpha2F") for ending in ("png", "svg")
    }
    svg = (folder / "figures" / "phonons.svg").read_text()
    assert svg.count("<path") > 10 and all(f.stat().st_size > 5000 for f in made if f.suffix == ".png")
