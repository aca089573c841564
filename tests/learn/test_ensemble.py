"""The shipped electron-phonon ensemble: calibration, domain and cautions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onnes.errors import ModelError
from onnes.learn.ensemble import EpcEnsemble
from onnes.learn.epc import FLOOR_K, TARGETS, omega_2, tc_of, tc_spread
from onnes.learn.predictors import predictor
from onnes.learn.store import Checkpoint, pretrained


@pytest.fixture(scope="module")
def ensemble():
    """That of the shipped predictor: its potentials are loaded once a process."""
    return predictor("standard").epc


def logs(members=4, n=50, seed=0, scatter=0.1):
    """Outputs of members around lambda 0.2 to 1.5 and omega_log 80 to 400 K."""
    rng = np.random.default_rng(seed)
    centre = np.column_stack(
        [
            np.log(rng.uniform(0.2, 1.5, n)),
            np.log(rng.uniform(80, 400, n)),
            rng.normal(-0.5, 0.5, n),
            rng.uniform(0.05, 0.4, n),
        ]
    )
    return centre + scatter * rng.normal(size=(members, n, len(TARGETS)))


def test_prediction_follows_from_the_members(ensemble):
    log = logs()
    found = ensemble.calibrated(log)
    np.testing.assert_allclose(found.lam, np.exp(log[..., 0].mean(0)))
    np.testing.assert_allclose(found.tc_K, tc_of(log.mean(0), 0.10, "allen-dynes"))
    assert (found.tc_low_K <= found.tc_K).all() and (found.tc_K <= found.tc_high_K).all()
    assert (found.lam_std > 0).all() and (found.omega_log_K_std > 0).all()
    assert (found.omega_2_K >= found.omega_log_K).all()


def test_disagreement_widens_the_interval(ensemble):
    calm, torn = (ensemble.calibrated(logs(scatter=s)) for s in (0.01, 0.4))
    width = [np.log((f.tc_high_K + FLOOR_K) / (f.tc_low_K + FLOOR_K)) for f in (calm, torn)]
    assert np.median(width[1]) > 1.5 * np.median(width[0])


def test_omega_2_below_omega_log_counts_as_equal():
    log = logs(1, 3)[0]
    log[:, 3] = [-0.5, 0.0, 0.3]
    np.testing.assert_allclose(omega_2(log) / np.exp(log[:, 1]), [1.0, 1.0, np.exp(0.3)])


def test_spread_is_zero_for_equal_members():
    one = logs(1)
    tc, spread = tc_spread(np.repeat(one, 3, axis=0), 0.10, "allen-dynes")
    np.testing.assert_allclose(spread, 0.0, atol=1e-12)
    np.testing.assert_allclose(tc, tc_of(one[0], 0.10, "allen-dynes"))


def test_doubt_begins_at_the_limit(ensemble):
    assert ensemble.doubt(ensemble.spread_limit) == ""
    assert "disagree" in ensemble.doubt(1.01 * ensemble.spread_limit)


def test_warning_names_the_elements_and_strong_coupling(ensemble):
    known = [int(z) for z in ensemble.caution["elements"]]
    quiet = next(z for z in ensemble.element_counts if z not in known)
    assert ensemble.warning(np.array([quiet]), 0.3) == ""
    strong = ensemble.warning(np.array([quiet]), ensemble.caution["lambda_from"])
    assert strong.startswith("lambda may be underestimated") and "soft modes" in strong
    for z in known:
        assert "too low" in ensemble.warning(np.array([quiet, z]), 0.3)


def test_rare_elements_and_odd_volumes_are_outside(ensemble):
    common = max(ensemble.element_counts, key=ensemble.element_counts.__getitem__)
    middle = float(np.mean(ensemble.volume_range))
    assert ensemble.outside(np.array([common]), middle) == ""
    assert "volume" in ensemble.outside(np.array([common]), 10 * middle)
    assert "Ar" in ensemble.outside(np.array([common, 18]), middle)


def test_checkpoint_of_another_layout_is_refused_in_one_line(tmp_path):
    stored = Checkpoint.load(pretrained("epc.safetensors"), "epc")
    settings = {k: v for k, v in stored.settings.items() if k != "calibration"}
    path = tmp_path / "old.safetensors"
    dataclasses.replace(stored, settings=settings).save(path)
    with pytest.raises(ModelError) as error:
        EpcEnsemble(path)
    assert error.value.code == "damaged-model"


def test_card_states_coverage_within_two_points_overall(ensemble):
    rows = ensemble.checkpoint.card["interval"]["coverage_cross_fold"]
    assert rows[0]["share"] == pytest.approx(0.90, abs=0.02)


def test_batched_crystals_are_those_seen_alone(ensemble):
    """Mixed sizes with a refusal of the graph and one of the potentials between them."""
    from pymatgen.core import Lattice, Structure

    nb = Structure(Lattice.cubic(3.3), ["Nb", "Nb"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    gas = Structure(Lattice.cubic(30.0), ["Nb"], [[0, 0, 0]])
    curium = Structure(Lattice.cubic(3.0), ["Cm"], [[0, 0, 0]])
    good = [nb, nb * (3, 3, 2), Structure(Lattice.cubic(4.2), ["Ti", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]), nb]
    found = ensemble.look([good[0], gas, good[1], curium, *good[2:]])
    assert (found[1].code, found[3].code) == ("no-bonds", "unknown-element")
    together = ensemble.outputs([found[k] for k in (0, 2, 4, 5)])
    alone = np.concatenate([ensemble.outputs(ensemble.look([s])) for s in good], axis=1)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert ensemble.look([]) == []
