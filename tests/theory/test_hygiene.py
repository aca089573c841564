import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.errors import PhysicsError
from onnes.theory.hygiene import REFUSE_REMOVED, WARN_REMOVED, Hygiene, clean
from onnes.theory.readers import read_a2f
from onnes.theory.spectral import Spectrum
from onnes.theory.summary import summarise

# A box of height 0.5 on [10, 20] and one of height -h on [1, 2], joined by steps 1e-6 meV wide: the coupling of
# a box is 2 h ln(end/start), so the removed share is h ln 2/(h ln 2 + 0.5 ln 2) by hand.
EDGE = 1e-6


def boxes(height):
    omega = np.array([0.0, 1.0 - EDGE, 1.0, 2.0, 2.0 + EDGE, 10.0 - EDGE, 10.0, 20.0, 20.0 + EDGE])
    return omega, np.array([0.0, 0.0, -height, -height, 0.0, 0.0, 0.5, 0.5, 0.0])


def height_for(share):
    return 0.5 * share / (1.0 - share)


@pytest.mark.parametrize("share", [1e-4, 0.0099, 0.0101, 0.05, 0.0999])
def test_removed_share_is_the_one_by_hand(share):
    x, y, hygiene = clean(*boxes(height_for(share)), "boxes")
    assert hygiene.removed == hygiene.negative == pytest.approx(share, rel=1e-4)
    assert (hygiene.points_dropped, hygiene.points_clipped) == (1, 2)
    assert x[0] > 0 and (y >= 0).all()
    warned = any(line.startswith("warning") for line in hygiene.notes)
    assert warned is (share > WARN_REMOVED)
    assert f"{100 * share:.2g} %" in hygiene.notes[0] or f"{100 * share:.3g} %" in hygiene.notes[0]


@pytest.mark.parametrize("share", [0.101, 0.3, 0.9])
def test_more_than_a_tenth_is_refused_with_the_number(share):
    with pytest.raises(PhysicsError) as caught:
        clean(*boxes(height_for(share)), "boxes")
    assert caught.value.code == "negative-weight"
    assert f"{100 * share:.1f} %" in caught.value.message and "10 %" in caught.value.message


def test_lambda_is_that_of_what_is_kept():
    spectrum = Spectrum.from_arrays(*boxes(height_for(0.05)), "meV")
    assert spectrum.lam == pytest.approx(np.log(2.0), rel=1e-6)


def test_imaginary_share_by_hand():
    omega = np.array([-2.0 - EDGE, -2.0, -1.0, -1.0 + EDGE, 10.0 - EDGE, 10.0, 20.0, 20.0 + EDGE])
    h = height_for(0.04)
    _, _, hygiene = clean(omega, np.array([0.0, h, h, 0.0, 0.0, 0.5, 0.5, 0.0]), "imaginary")
    assert hygiene.removed == hygiene.imaginary == pytest.approx(0.04, rel=1e-4)
    assert hygiene.points_dropped == 4 and "imaginary" in hygiene.notes[0]


def test_value_at_zero_is_counted_and_reported():
    omega, values = boxes(0.0)
    values[0] = 0.02
    _, _, hygiene = clean(omega, values, "zero")
    assert hygiene.zero == pytest.approx(0.02 / (0.02 + np.log(2.0)), rel=1e-4)
    assert "omega = 0" in hygiene.notes[0] and "warning" in hygiene.notes[-1]


def test_stand_in_for_zero_is_zero():
    omega, values = boxes(0.0)
    values[0] = 0.02
    for tiny in (1e-6, -1e-6, 1e-12, -1e-300):
        omega[0] = tiny
        assert clean(omega, values, "tiny")[2].zero == pytest.approx(0.0281, abs=1e-3)


def test_the_input_is_not_overwritten():
    omega, values = boxes(height_for(0.05))
    before = omega.copy(), values.copy()
    clean(omega, values, "boxes")
    Spectrum.from_arrays(omega, values, "meV")
    assert (omega == before[0]).all() and (values == before[1]).all()


def test_nothing_removed_nothing_said():
    assert Hygiene().removed == 0.0 and Hygiene().notes == []


def test_a_file_carries_its_warning_into_the_summary(tmp_path):
    path = tmp_path / "noisy.csv"
    omega, values = boxes(height_for(0.05))
    path.write_text(
        "omega_meV,alpha2F\n" + "\n".join(f"{a:.8f},{b:.8f}" for a, b in zip(omega, values, strict=True))
    )
    summary = summarise(read_a2f(path))
    assert summary["removed_fraction"] == pytest.approx(0.05, rel=1e-3)
    assert any(line.startswith("warning: 5.0 % of lambda") for line in summary["notes"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 20.0), st.floats(-0.5, 5.0)), min_size=2, max_size=25),
    st.floats(0.0, 60.0),
)
def test_clean_or_refused_and_the_shares_add_up(points, shift):
    omega = np.cumsum([step for step, _ in points]) - shift
    values = np.array([value for _, value in points])
    try:
        x, y, hygiene = clean(omega, values, "any")
    except PhysicsError as error:
        assert error.code in ("negative-weight", "no-real-frequencies")
        return
    assert (x > 0).all() and (y >= 0).all() and x.size + hygiene.points_dropped == omega.size
    assert 0.0 <= hygiene.removed <= REFUSE_REMOVED
    # Cleaning twice removes nothing more.
    assert clean(x, y, "again")[2].removed == 0.0
