import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import bain, everyday, mgb2, roughness, supercell, views

from onnes.errors import SettingsError
from onnes.graph.batch import collate, graph_of
from onnes.nets.spectrum import PHONON_EDGES_MEV, SpectrumNet, SpectrumSettings, bete
from onnes.theory.spectral_grid import SpectralGrid

KINDS = {
    "scaled": SpectrumSettings(multiplicity=6, embed=16, readout=24, neurons=8),
    "scaled with both parities": SpectrumSettings(
        multiplicity=4, embed=16, readout=24, neurons=8, parity=True
    ),
    "published": bete(multiplicity=4, embed=16, neurons=8),
}


def network(settings, *, fresh=False):
    """A network as far from its start as a trained one: a fresh one hardly looks at its input."""
    torch.manual_seed(0)
    net = SpectrumNet(settings).double().eval()
    if fresh:
        return net
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return net


def run(net, structures, features=None, phonons=None):
    graphs = [graph_of(s, net.settings.graph, allow_isolated=True) for s in structures]
    given = [None if x is None else torch.as_tensor(np.concatenate(x)) for x in (features, phonons)]
    with torch.no_grad():
        return net(collate(graphs, torch.float64), torch.zeros(len(graphs), dtype=torch.long), *given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_spectrum(kind, s):
    net = network(KINDS[kind])
    want = run(net, [s])
    other = dict(views(s))
    # An inversion turns a crystal into its mirror image, which has the same alpha2F.
    other["inverted"] = type(s)(s.lattice, s.species, -s.frac_coords)
    for name, view in other.items():
        found = run(net, [view])
        tolerance = 1e-4 if name == "noisy" else 1e-5
        assert float(found.log_lambda) == pytest.approx(float(want.log_lambda), abs=tolerance), name
        assert torch.allclose(found.shares, want.shares, atol=tolerance), name


def test_bond_directions_matter():
    # Networks of lengths alone cannot tell these bond angles apart; this one must.
    net = network(KINDS["scaled"])
    s = mgb2()
    graph = graph_of(s, net.settings.graph)
    flat = replace(
        graph, vector=graph.vector * np.array([1.0, 1.0, -1.0]) ** np.arange(len(graph.src))[:, None]
    )
    with torch.no_grad():
        a, b = (
            net(collate([g], torch.float64), torch.zeros(1, dtype=torch.long)).log_lambda
            for g in (graph, flat)
        )
    assert abs(float(a - b)) > 1e-3


def test_a_crystal_strained_through_its_shells_changes_smoothly():
    net = network(KINDS["scaled"])
    path = [bain(x) for x in np.linspace(1.0, 1.45, 161)]
    assert roughness(run(net, path).log_lambda.numpy()) < 0.3


def test_batches_do_not_mix_and_moments_are_those_of_the_values():
    for settings in KINDS.values():
        # A fresh one spreads its curve; one point at the bottom of the grid is what readers of curves cut.
        net = network(settings, fresh=True)
        crystals = everyday()
        together = run(net, crystals)
        alone = torch.cat([run(net, [s]).shares for s in crystals])
        assert torch.allclose(together.shares, alone, atol=1e-10)
        assert torch.allclose(together.shares.sum(1), torch.ones(len(crystals), dtype=torch.float64))
        values = net.values(together).numpy()
        assert (values >= 0.0).all()
        grid = SpectralGrid.linear() if settings.output == "bins" else SpectralGrid.quadratic()
        for row, lam, log, second in zip(values, *(m.numpy() for m in net.moments(together)), strict=True):
            s = grid.spectrum(row, "test")
            assert np.exp([lam, log, second]) == pytest.approx(
                [s.lam, s.omega_log_meV, s.omega_2_meV], rel=1e-5
            )


def test_vibrations_move_the_spectrum_with_them():
    net = network(replace(KINDS["scaled"], phonons=True), fresh=True)
    with torch.no_grad():
        net.read.gain.copy_(torch.tensor([0.3, 0.7, 0.5]))
    s = mgb2()
    cells = len(PHONON_EDGES_MEV) - 1
    soft, stiff = (np.tile(np.eye(cells)[k], (3, 1)) for k in (10, 25))
    low, high = (run(net, [s], phonons=[x]) for x in (soft, stiff))
    omega = np.sqrt(PHONON_EDGES_MEV[1:] * PHONON_EDGES_MEV[:-1])
    shift = float(net.moments(high)[1] - net.moments(low)[1])
    # Its scale goes 0.7 of the way before training; the shape brings the rest.
    assert 0.7 < shift / np.log(omega[25] / omega[10]) < 1.3
    assert float(high.log_lambda) < float(low.log_lambda)
    # Any cell of the crystal: the supercell's atoms bring the same spectra along.
    big = supercell(s)
    order = [s.species.index(x) for x in big.species]
    mixed = np.stack([np.eye(cells)[8], np.eye(cells)[20], np.eye(cells)[20]])
    a, b = run(net, [s], phonons=[mixed]), run(net, [big], phonons=[mixed[order]])
    assert torch.allclose(a.shares, b.shares, atol=1e-8)


def test_missing_inputs_and_bad_settings_are_refused():
    with pytest.raises(SettingsError, match="missing-input"):
        run(network(replace(KINDS["scaled"], phonons=True)), [mgb2()])
    with pytest.raises(SettingsError, match="bad-setting"):
        SpectrumSettings(output="histogram")
    with pytest.raises(SettingsError, match="bad-setting"):
        SpectrumSettings(multiplicity=0)
    with pytest.raises(SettingsError, match="unknown-setting"):
        SpectrumSettings.from_dict({"colour": 1})
    for settings in KINDS.values():
        assert SpectrumSettings.from_dict(settings.as_dict()) == settings


def test_the_published_sizes():
    s = bete()
    assert (s.graph.cutoff_A, s.embed, s.multiplicity, s.layers, s.radial, s.neurons) == (
        4.0,
        64,
        32,
        2,
        10,
        100,
    )
    assert len(SpectrumNet(s).coupling) == 51
