import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnes.errors import SettingsError
from onnes.theory.spectral import Spectrum
from onnes.theory.summary import summarise
from onnes.theory.tc import FORMULAS, Formula, guard_lambda, tc, tc_array

OMEGA = np.linspace(0.1, 60.0, 300)
VALUES = 0.6 * np.exp(-(((OMEGA - 22.0) / 5.0) ** 2)) + 0.3 * np.exp(-(((OMEGA - 45.0) / 4.0) ** 2))
SPECTRUM = Spectrum.from_arrays(OMEGA, VALUES, "meV", source="two humps")


def test_summary_agrees_with_the_formulas_and_is_plain_json():
    summary = summarise(SPECTRUM, mu_star=0.12, mu_band=(0.16, 0.1))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["tc"])[:3] == [str(name) for name in FORMULAS]
    for name in FORMULAS:
        row = summary["tc"][str(name)]
        assert row["tc_K"] == tc(SPECTRUM, mu_star=0.12, formula=name).tc_K
        assert row["low_K"] == tc(SPECTRUM, mu_star=0.16, formula=name).tc_K < row["tc_K"] < row["high_K"]
    assert summary["mu_star"] == 0.12 and summary["guard_lambda"] == pytest.approx(guard_lambda(0.12))


def test_two_mu_star_differ_and_leave_the_spectrum_alone():
    before = SPECTRUM.omega_meV.copy(), SPECTRUM.alpha2F.copy(), SPECTRUM.lam
    first, second = (summarise(SPECTRUM, mu_star=mu) for mu in (0.12, 0.14))
    assert all(first["tc"][str(f)]["tc_K"] > second["tc"][str(f)]["tc_K"] > 0 for f in FORMULAS)
    assert first["lambda"] == second["lambda"] == before[2]
    assert (SPECTRUM.omega_meV == before[0]).all() and (SPECTRUM.alpha2F == before[1]).all()
    assert summarise(SPECTRUM, mu_star=0.12) == first


def test_weak_coupling_says_why_tc_is_zero():
    summary = summarise(SPECTRUM.scaled(coupling=0.05 / SPECTRUM.lam))
    for name in FORMULAS:
        row = summary["tc"][str(name)]
        assert row["tc_K"] == 0.0 and row["reason"].startswith("below-guard")


def test_file_that_contradicts_its_own_lambda_is_pointed_out():
    for stated, said in ((SPECTRUM.lam * 1.1, True), (SPECTRUM.lam * 1.01, False), (float("nan"), False)):
        spectrum = Spectrum.from_arrays(OMEGA, VALUES, "meV", meta={"lambda_file": stated})
        assert any("written in the file" in line for line in summarise(spectrum)["notes"]) is said


@pytest.mark.parametrize("options", [{"mu_star": 1.2}, {"mu_star": -0.1}, {"mu_band": (0.1, 3.0)}])
def test_impossible_mu_star_is_refused(options):
    with pytest.raises(SettingsError, match="bad-mu-star"):
        summarise(SPECTRUM, **options)


# Invariants of the physics.
scale = st.floats(0.05, 10.0)


@settings(max_examples=60, deadline=None)
@given(scale, st.floats(0.0, 0.2))
def test_stretching_omega_stretches_every_frequency_and_tc_and_keeps_lambda(factor, mu):
    stretched = Spectrum.from_arrays(OMEGA * factor, VALUES, "meV")
    assert stretched.lam == pytest.approx(SPECTRUM.lam, rel=1e-9)
    for name in ("omega_log_K", "omega_1_K", "omega_2_K"):
        assert getattr(stretched, name) == pytest.approx(factor * getattr(SPECTRUM, name), rel=1e-9)
    for formula in FORMULAS:
        one, other = (tc(s, mu_star=mu, formula=formula) for s in (SPECTRUM, stretched))
        assert other.tc_K == pytest.approx(factor * one.tc_K, rel=1e-8) and other.reason == one.reason


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 5.0))
def test_multiplying_alpha2f_multiplies_lambda_and_keeps_the_frequencies(factor):
    more = Spectrum.from_arrays(OMEGA, factor * VALUES, "meV")
    assert more.lam == pytest.approx(factor * SPECTRUM.lam, rel=1e-9)
    assert more.omega_log_K == pytest.approx(SPECTRUM.omega_log_K, rel=1e-9)
    assert more.omega_2_K == pytest.approx(SPECTRUM.omega_2_K, rel=1e-9)


@settings(deadline=None)
@given(
    st.floats(0.0, 8.0),
    st.floats(1e-3, 1.0),
    st.floats(1.0, 3.0),
    st.floats(0.0, 0.25),
    st.sampled_from([Formula.MCMILLAN_ALLEN_DYNES, Formula.ALLEN_DYNES]),
)
def test_tc_never_falls_with_lambda(lam, step, ratio, mu, formula):
    low, high = tc_array([lam, lam + step], 300.0, 300.0 * ratio, mu_star=mu, formula=formula)
    assert high > low or (high == low == 0.0)


@settings(deadline=None)
@given(st.floats(0.3, 4.0), st.floats(1.0, 2.0), st.floats(0.05, 0.2), st.floats(0.005, 0.05))
def test_xie_falls_with_mu_star_where_it_stands_on_its_own(lam, ratio, mu, step):
    low, high = (tc(lam, 300.0, 300.0 * ratio, mu_star=m, formula="xie") for m in (mu, mu + step))
    assume(not low.fallback and not high.fallback and lam > 1.5 * guard_lambda(mu + step))
    # Near its pole f_mu rises steeply with mu* before it leaves the window in which it is trusted.
    assume(min(abs(1 / lam - m - 1 / ratio) for m in (mu, mu + step)) > 0.2)
    assert low.tc_K > high.tc_K


def test_allen_dynes_becomes_mcmillan_at_weak_coupling_and_exceeds_it_at_strong():
    lam = np.array([0.2, 0.5, 1.0, 3.0, 10.0])
    ratio = tc_array(lam, 300.0, 300.0) / tc_array(lam, 300.0, formula="mcmillan-allen-dynes")
    assert (np.diff(ratio) > 0).all() and ratio[0] == pytest.approx(1.0, abs=6e-3) and ratio[-1] > 1.4


def test_allen_dynes_grows_as_the_square_root_of_lambda():
    # The asymptote f1 f2 was built for: Tc/(omega_2 sqrt(lambda)) tends to a constant near 0.1827 at mu* = 0.
    lam = np.array([1e4, 1e6, 1e8])
    constant = tc_array(lam, 300.0, 450.0, mu_star=0.0) / (450.0 * np.sqrt(lam))
    assert constant[1] == pytest.approx(constant[2], rel=1e-3)
    assert constant[2] == pytest.approx(0.1827, rel=0.03)
