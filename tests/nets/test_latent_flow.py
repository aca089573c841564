"""The flow is invertible and its density is one."""

from __future__ import annotations

import math

import torch

from onnes.nets.latent_flow import LatentFlow


def flow(size, seed=0):
    torch.manual_seed(seed)
    out = LatentFlow(size, hidden=16, couplings=5, dropout=0.1).double()
    for p in out.parameters():
        torch.nn.init.normal_(p, std=0.3)
    out.mean.copy_(torch.randn(size))
    out.std.copy_(0.5 + torch.rand(size))
    return out.eval()


def test_log_density_is_the_normal_one_plus_the_jacobian():
    f = flow(5)
    z = torch.randn((4, 5), dtype=torch.float64)
    log_p = f.log_prob(z)

    def to_normal(x):
        y = (x[None] - f.mean) / f.std
        for coupling in f.couplings:
            y, _ = coupling(y)
        return y[0]

    for row, value in zip(z, log_p, strict=True):
        jacobian = torch.autograd.functional.jacobian(to_normal, row)
        y = to_normal(row)
        expected = torch.linalg.slogdet(jacobian).logabsdet - 0.5 * (y @ y + 5 * math.log(2 * math.pi))
        torch.testing.assert_close(value, expected)


def test_density_integrates_to_one():
    f = flow(2, seed=3)
    axis = torch.linspace(-15, 15, 900, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = float(f.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2)
    assert abs(total - 1) < 0.02


def test_draws_come_from_the_density():
    f = flow(2, seed=1)
    with torch.no_grad():
        z = f.sample(4000, torch.Generator().manual_seed(0))
        x = (z - f.mean) / f.std
        for coupling in f.couplings:
            x, _ = coupling(x)
    # Mapped back, they are standard normal again.
    torch.testing.assert_close(x.mean(0), torch.zeros(2).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), torch.eye(2).double(), atol=0.08, rtol=0)
