import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))
from graph_crystals import al, bain, everyday, lowsym, mgb2, needle, roughness, views

from onnes.errors import ModelError, SettingsError
from onnes.graph.batch import collate, graph_of
from onnes.graph.settings import GraphSettings
from onnes.nets.autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    SuperconductorNet,
    _samples,
    _sets,
    _shell,
    sinkhorn,
)

SMALL = AutoencoderSettings(width=16, layers=2, latent=8, bond_bins=12)


def network(settings=SMALL):
    torch.manual_seed(0)
    return SuperconductorNet(settings).double().eval()


def batch_of(structures, settings=SMALL, dtype=torch.float64):
    return collate([graph_of(s, settings.graph) for s in structures], dtype)


def run(model, structures):
    with torch.no_grad():
        return model(batch_of(structures, model.settings)).numpy()


@pytest.mark.parametrize("s", everyday(), ids=lambda s: s.composition.reduced_formula)
def test_the_same_crystal_has_one_latent(s):
    model = network()
    want = run(model, [s])[0]
    for name, view in views(s).items():
        assert run(model, [view])[0] == pytest.approx(want, abs=1e-6), name


def test_merging_changes_nothing_and_crystals_differ():
    model = network()
    full = network(replace(SMALL, graph=replace(SMALL.graph, merge_A=0)))
    structures = [*everyday(), needle(), lowsym(4)]
    values = run(model, structures)
    assert np.abs(values - run(full, structures)).max() < 1e-6
    assert np.diff(np.sort(values[:, 0])).min() > 1e-4


def test_a_batch_is_its_crystals_one_by_one():
    model = network()
    structures = everyday() * 2
    one_by_one = np.concatenate([run(model, [s]) for s in structures])
    assert np.allclose(run(model, structures), one_by_one, atol=1e-12)


def test_a_strained_crystal_moves_smoothly():
    path = [bain(ratio) for ratio in np.linspace(0.9, 1.5, 201)]
    assert roughness(run(network(), path)[:, 0]) < 0.2


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    # All five crystals and one whose element is hidden; the loss of the classifier touches the rest.
    auto, net = Autoencoder(SMALL), SuperconductorNet(SMALL)
    batch = batch_of(everyday(), dtype=torch.float32)
    hidden = torch.zeros(len(batch.numbers), dtype=torch.bool)
    hidden[-1] = True
    auto(batch, hidden).total.backward()
    net(batch).square().sum().backward()
    for model in (auto, net):
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().sum() > 0, name


def test_a_hidden_element_is_not_seen():
    encoder = network().encoder
    plain, hidden = batch_of([mgb2()]), torch.tensor([True, True])
    swapped = replace(plain, numbers=plain.numbers.flip(0))
    assert len(plain.numbers) == 2  # Mg and one B of two, which are equal
    shown = [s[-1] for s in (encoder(plain), encoder(swapped))]
    assert not torch.allclose(shown[0], shown[1])
    blind = [s[-1] for s in (encoder(plain, hidden), encoder(swapped, hidden))]
    assert torch.equal(blind[0], blind[1])


@pytest.mark.parametrize("seed", range(2))
def test_sinkhorn_approaches_the_exact_assignment(seed):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(3, 6, 6, generator=generator, dtype=torch.float64) + 0.05
    mass = torch.full((3, 6), 1 / 6, dtype=torch.float64)
    exact = []
    for c in cost.numpy():
        i, j = linear_sum_assignment(c)
        exact.append(c[i, j].mean())
    costs = []
    for regularisation in (1.0, 0.1, 0.01):
        plan = sinkhorn(cost, mass, mass, regularisation, 600)
        assert torch.allclose(plan.sum(2), mass, atol=1e-9)
        assert torch.allclose(plan.sum(1), mass, atol=1e-3)
        costs.append((plan * cost).sum((1, 2)).numpy())
    assert (costs[2] <= costs[1] + 1e-9).all() and (costs[1] <= costs[0] + 1e-9).all()
    assert costs[2] == pytest.approx(exact, rel=0.02)
    assert (costs[0] > 1.05 * np.array(exact)).all()  # strong entropy is visibly not the assignment


def test_sinkhorn_with_unequal_masses_and_padding():
    cost = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 9.0]]])
    plan = sinkhorn(cost, torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25, 0.0]]), 0.02, 500)
    assert plan[0, :, 2].abs().max() == 0.0
    # All mass stays at home but a quarter, which has to move.
    assert (plan * cost).sum().item() == pytest.approx(0.25, abs=0.01)


def test_the_sets_are_the_bonds_of_the_nodes():
    batch = batch_of([al(), mgb2()])
    nodes = torch.tensor([2, 0])
    bond, (row, column), mass = _sets(batch, nodes)
    assert torch.allclose(mass.sum(1), torch.ones(2, dtype=mass.dtype))
    for k, node in enumerate(nodes):
        mine = torch.nonzero(batch.dst == node).squeeze(1)
        assert sorted(bond[row == k].tolist()) == mine.tolist()
        weight = batch.weight[bond[row == k]]
        assert torch.allclose(mass[k, column[row == k]], weight / weight.sum())


def test_the_shell_is_that_of_the_crystal():
    settings = replace(SMALL, graph=GraphSettings(kind="radius", cutoff_A=3.5, line=False, fade=0.01))
    mean, spread, least = _shell(batch_of([al()], settings))[0].tolist()
    assert mean == pytest.approx(4.05 / np.sqrt(2), abs=1e-4)  # twelve equal bonds
    assert least == pytest.approx(mean, abs=1e-4) and spread < 1e-2


def test_samples_follow_their_distribution():
    torch.manual_seed(0)
    drawn = _samples(torch.tensor([[2.0, -1.0, 0.0, np.log(0.1)]]), 20_000)[0]
    assert drawn.mean(0).tolist() == pytest.approx([2.0, -1.0], abs=0.03)
    assert drawn.std(0).tolist() == pytest.approx([1.0, 0.1], rel=0.03)


def test_it_learns_neighbourhoods():
    torch.manual_seed(0)
    auto = Autoencoder(SMALL)
    batch = batch_of(everyday(), dtype=torch.float32)
    optimiser = torch.optim.Adam(auto.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = auto(batch)
        loss.total.backward()
        optimiser.step()
        losses.append([loss.element.item(), loss.shell.item(), loss.neighbours.item()])
    assert (np.array(losses[-1]) < 0.5 * np.array(losses[0])).all()


def test_settings_travel_and_are_checked():
    settings = AutoencoderSettings(width=24, graph=GraphSettings(kind="radius", line=False))
    assert AutoencoderSettings.from_dict(settings.as_dict()) == settings
    with pytest.raises(SettingsError, match="do not know deepness"):
        AutoencoderSettings.from_dict({"deepness": 3})
    for bad in ({"layers": 0}, {"dropout": 1.0}, {"regularisation": 0.0}, {"bond_bins": 1}):
        with pytest.raises(SettingsError):
            AutoencoderSettings(**bad)
    with pytest.raises(ModelError, match="other graphs"):
        network()(batch_of([al()], replace(SMALL, graph=GraphSettings(kind="nearest", line=False))))


def test_it_is_small():
    count = sum(p.numel() for p in Autoencoder(AutoencoderSettings()).parameters())
    assert 100_000 < count < 400_000
