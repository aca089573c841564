import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import al, lowsym, mgb2, perovskite

from onnes.errors import DataError, SettingsError
from onnes.graph.batch import graph_of
from onnes.learn.spectrum_fit import FitSettings, Member, SpectrumData, begin, bootstrap, loss_terms, outputs
from onnes.nets.spectrum import PHONON_EDGES_MEV, SpectrumNet, SpectrumSettings

NET = SpectrumSettings(multiplicity=4, embed=8, readout=16, neurons=8, lmax=1, layers=1, dropout=0.0)


@pytest.fixture(scope="module")
def data():
    """Twelve crystals: four with curves, all with moments, three with vibrational spectra."""
    rng = np.random.default_rng(0)
    crystals = [
        s.copy().apply_strain(0.01 * k) for k in range(3) for s in (al(), mgb2(), perovskite(), lowsym())
    ]
    shares = np.full((12, 100), np.nan)
    shares[:4] = rng.dirichlet(np.ones(100), 4)
    modes = np.full((12, len(PHONON_EDGES_MEV) - 1), np.nan)
    modes[:3] = rng.dirichlet(np.ones(modes.shape[1]), 3)
    moments = np.column_stack([rng.normal(-1, 0.4, 12), rng.normal(2.9, 0.4, 12), np.full(12, 0.17)])
    moments[5, 2] = np.nan
    return SpectrumData(
        [f"c{k}" for k in range(12)],
        [graph_of(s, NET.graph) for s in crystals],
        np.array([f"f{k % 6}" for k in range(12)]),
        np.arange(12) % 2,
        moments,
        shares,
        modes,
    )


def test_a_bootstrap_draws_whole_groups_and_leaves_the_others_out():
    group = np.repeat(np.arange(1000), 3)
    rows = np.flatnonzero(group < 900)
    drawn, times, left = bootstrap(group, rows, 1)
    assert set(drawn) | set(left) == set(rows) and not set(group[drawn]) & set(group[left])
    assert len(drawn) / len(rows) == pytest.approx(1 - np.exp(-1), abs=0.04)
    assert times.sum() == pytest.approx(len(rows), rel=0.1)
    for g in np.unique(group[drawn])[:50]:
        assert len(set(times[group[drawn] == g])) == 1


def test_labels_that_are_unknown_cost_nothing(data):
    torch.manual_seed(0)
    net = SpectrumNet(NET)
    rows = np.arange(12)
    target = {k: torch.as_tensor(getattr(data, k)).float() for k in ("moments", "shares", "modes")}
    target |= {"width": torch.ones(100), "mean_square": torch.tensor(1.0)}
    terms = loss_terms(net, outputs(net, data, rows), target)
    assert torch.isfinite(torch.stack(list(terms.values()))).all()
    assert (terms["curve_transport"][4:] == 0).all() and (terms["curve_transport"][:4] > 0).all()
    assert (terms["modes"][3:] == 0).all() and (terms["modes"][:3] > 0).all()
    perfect = {**target, "shares": outputs(net, data, rows).shares.detach()}
    log = net.moments(outputs(net, data, rows))
    perfect["moments"] = torch.stack([log[0], log[1], log[2] - log[1]], 1).detach()
    none = loss_terms(net, outputs(net, data, rows), perfect)
    assert (
        max(float(none[k].detach().abs().max()) for k in ("moments", "curve_mse", "curve_transport")) < 1e-5
    )


def test_training_learns_and_a_killed_run_goes_on_as_if_nothing_had_happened(data, tmp_path):
    fit = FitSettings(epochs=8, batch=4, rate=0.01, seed=3)
    rows = np.arange(12)
    whole = Member(data, rows, NET, fit, tmp_path / "whole.pt")
    net = whole.run()
    assert whole.curve[-1]["train"] < 0.9 * whole.curve[0]["train"]

    class KilledError(Exception):
        pass

    def kill(member):
        member.save()
        if member.epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        Member(data, rows, NET, fit, tmp_path / "cut.pt").run(kill)
    again = Member(data, rows, NET, fit, tmp_path / "cut.pt")
    assert again.epoch == 3
    for a, b in zip(net.state_dict().values(), again.run().state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [c["epoch"] for c in again.curve] == list(range(1, 9))


def test_a_file_of_another_run_is_not_gone_on_with(data, tmp_path):
    path = tmp_path / "m.pt"
    Member(data, np.arange(12), NET, FitSettings(epochs=1, batch=8), path).run()
    with pytest.raises(DataError, match="other-run"):
        Member(data, np.arange(12), NET, FitSettings(epochs=2, batch=8), path)
    with pytest.raises(DataError, match="other-data"):
        Member(data, np.arange(10), NET, FitSettings(epochs=1, batch=8), path)
    with pytest.raises(DataError, match="other-data"):
        relabelled = replace(data, moments=data.moments + 0.1)
        Member(relabelled, np.arange(12), NET, FitSettings(epochs=1, batch=8), path)


def test_every_row_is_validated_whatever_the_batch(data, tmp_path):
    # CASES.md 11: validation sets smaller than a batch.
    member = Member(data, np.arange(12), NET, FitSettings(epochs=1, batch=8), tmp_path / "v.pt")
    each = [member.validate(np.array([k])) for k in range(5)]
    assert member.validate(np.arange(5)) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize(("regime", "epoch"), [("classical", 3), ("critical", 6), ("modern", 8)])
def test_the_regime_chooses_the_weights_of_a_constant_rate(data, tmp_path, monkeypatch, regime, epoch):
    # A double descent on order: real ones take thousands of epochs.
    monkeypatch.setattr("onnes.learn.regimes.NEW", 1.0)
    losses = iter([1.0, 0.8, 0.6, 0.7, 0.9, 1.0, 0.8, 0.5, 0.55])
    monkeypatch.setattr(Member, "validate", lambda self, rows: next(losses))
    fit = FitSettings(epochs=9, batch=12, rate=0.02, cycle=False, regime=regime)
    seen = {}
    member = Member(data, np.arange(12), NET, fit, tmp_path / "m.pt")
    kept = member.run(lambda m: seen.setdefault(m.epoch, [p.detach().clone() for p in m.net.parameters()]))
    assert member.regimes.epochs == {"classical": 3, "critical": 6, "modern": 8}
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), seen[epoch], strict=True))


def test_a_network_with_vibrations_begins_where_the_one_without_stood(data, tmp_path):
    cells = len(PHONON_EDGES_MEV) - 1
    torch.manual_seed(1)
    plain = replace(NET, features=5)
    with_more = replace(plain, phonons=True)
    rng = np.random.default_rng(2)
    full = replace(
        data,
        features=[rng.normal(size=(len(g.numbers), 5)) for g in data.graphs],
        phonons=[rng.dirichlet(np.ones(cells), len(g.numbers)) for g in data.graphs],
    )
    before, after = SpectrumNet(plain).eval(), SpectrumNet(with_more).eval()
    begin(after, before.state_dict())
    with torch.no_grad():
        after.read.gain.zero_()
        a, b = outputs(before, full, np.arange(12)), outputs(after, full, np.arange(12))
    assert torch.allclose(a.shares, b.shares, atol=1e-6)
    assert torch.allclose(a.log_lambda, b.log_lambda, atol=1e-6)
    with pytest.raises(DataError, match="other-network"):
        begin(after, SpectrumNet(replace(plain, multiplicity=5)).state_dict())


def test_bad_settings_are_refused(data, tmp_path):
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings(regime="romantic")
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings(epochs=0)
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings(moments=0.0, curve_mse=0.0, curve_transport=0.0)
    with pytest.raises(SettingsError, match="bad-setting"):
        FitSettings(regime="critical")
    with pytest.raises(DataError, match="no-rows"):
        Member(data, np.array([], dtype=int), NET, FitSettings(), tmp_path / "none.pt")


def test_only_the_parameters_asked_for_are_trained(data, tmp_path):
    fit = FitSettings(epochs=2, batch=12, rate=0.01, only=("read.shape", "read.scalars"), weight_decay=0.1)
    member = Member(data, np.arange(12), NET, fit, tmp_path / "m.pt")
    before = {k: v.detach().clone() for k, v in member.net.named_parameters()}
    after = dict(member.run().named_parameters())
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved and all(k.startswith(fit.only) for k in moved)
    with pytest.raises(DataError, match="other-network"):
        Member(data, np.arange(12), NET, FitSettings(only=("colour",)), tmp_path / "n.pt")
