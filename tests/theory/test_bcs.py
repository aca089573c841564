import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnes.errors import OnnesError
from onnes.theory.bcs import GAP_RATIO, Screen, bcs_tc, prescreen


def test_equation_of_physics():
    assert bcs_tc(400.0, 0.3) == pytest.approx(1.14 * 400.0 * np.exp(-1 / 0.3))
    assert round(GAP_RATIO, 2) == 3.53


def test_no_attraction_no_superconductivity():
    assert bcs_tc(400.0, [0.0, -0.2, 1e-3, 1e-300]).tolist() == [0.0, 0.0, 0.0, 0.0]


@given(st.floats(0.0, 5000.0), st.floats(0.05, 2.0), st.floats(1.01, 2.0))
def test_rises_with_coupling_and_scales_with_debye(theta, coupling, factor):
    one = bcs_tc(theta, coupling)
    assert np.isfinite(one) and one >= 0.0
    assert bcs_tc(factor * theta, coupling) == pytest.approx(factor * one)
    assert bcs_tc(theta, factor * coupling) >= one


@given(st.floats(0.0, 1e4), st.floats(-1e6, 1e6))
def test_finite_everywhere(theta, coupling):
    assert 0.0 <= bcs_tc(theta, coupling) <= 1.14 * theta


@pytest.mark.parametrize(
    ("theta", "coupling", "code"),
    [(-1.0, 0.3, "negative-frequency"), (np.nan, 0.3, "not-finite"), (300.0, np.inf, "not-finite")],
)
def test_impossible_input_is_a_typed_error(theta, coupling, code):
    with pytest.raises(OnnesError) as caught:
        bcs_tc(theta, coupling)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("debye", "dos", "reason"),
    [
        (450.0, 2.0, ""),
        (300.0, 2.0, "debye-low"),
        (250.0, 2.0, "debye-low"),
        (450.0, 1.0, "dos-low"),
        (None, 2.0, "debye-unknown"),
        (float("nan"), 2.0, "debye-unknown"),
        (450.0, None, "dos-unknown"),
        (450.0, float("nan"), "dos-unknown"),
    ],
)
def test_prescreen_names_its_gate_and_unknown_never_passes(debye, dos, reason):
    result = prescreen(debye, dos)
    assert result.passed is (reason == "") and result.reason.split(":")[0] == reason


def test_thresholds_are_settable_and_checked():
    assert prescreen(250.0, 0.5, Screen(min_debye_K=200.0, min_dos=0.0)).passed
    for bad in ({"min_debye_K": -1.0}, {"min_dos": float("nan")}, {"min_dos": -0.1}):
        with pytest.raises(OnnesError, match="bad-threshold"):
            Screen(**bad)
