import numpy as np
import pytest
import torch
from torch import nn

from onnes.learn.landscape import directions, landscape


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def test_every_filter_moves_by_its_own_length_and_biases_stay():
    net = network()
    for direction in directions(net, 1):
        for name, weight in net.named_parameters():
            if weight.ndim > 1:
                assert torch.allclose(direction[name].norm(dim=1), weight.norm(dim=1), rtol=1e-6)
            else:
                assert not direction[name].any()
    a, b = directions(net, 1)
    assert not torch.allclose(a["0.weight"], b["0.weight"])
    again, _ = directions(net, 1)
    assert torch.equal(a["0.weight"], again["0.weight"])


def test_a_weight_kept_as_a_vector_is_one_filter():
    from e3nn import o3

    net = o3.Linear("4x0e+2x1o", "3x0e+2x1o")
    direction, _ = directions(net, 0)
    assert float(direction["weight"].norm()) == pytest.approx(float(net.weight.detach().norm()), rel=1e-6)


def test_a_quadratic_loss_gives_a_bowl_of_known_curvature_and_weights_come_back():
    net = network()
    before = {k: v.detach().clone() for k, v in net.named_parameters()}

    def loss(n):
        return float(sum(((p - before[k]) ** 2).sum() for k, p in n.named_parameters()))

    steps = np.linspace(-1.0, 1.0, 5)
    found = landscape(net, loss, steps, seed=3)
    first, second = directions(net, 3)
    norms = [sum(float((d[k] ** 2).sum()) for k in d) for d in (first, second)]
    cross = sum(float((first[k] * second[k]).sum()) for k in first)
    a, b = np.meshgrid(steps, steps, indexing="ij")
    assert found == pytest.approx(a**2 * norms[0] + b**2 * norms[1] + 2 * a * b * cross, rel=1e-4, abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in net.named_parameters())
    with pytest.raises(ZeroDivisionError):
        landscape(net, lambda n: 1 / 0, steps)
    assert all(torch.equal(v, before[k]) for k, v in net.named_parameters())
