"""Noise processes: schedules, marginals, the lattice vector."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from onnes.generate.asked import SamplerSettings
from onnes.generate.crystals import niggli_primitive
from onnes.generate.diffusion import CLEAN_TYPES, JointDiffusion
from onnes.generate.process import LatticeScale, alpha_bar, masked, score_rms, sigma, wrapped_score
from onnes.generate.sampling import Sampler, _lattice_step, _predict
from onnes.nets.denoiser import MASK, Denoised, DenoiserSettings


class Spy(nn.Module):
    """Keeps what the network is shown."""

    def forward(self, types, frac, lattice, cell, time, log_tc, stable):
        self.types, self.frac, self.lattice, self.time = types, frac, lattice, time
        return Denoised(torch.zeros(*types.shape, 101), torch.zeros_like(lattice), torch.zeros_like(frac))


def test_forward_process_has_its_marginals():
    """What the loss shows the network, in ten bins of time, against the closed forms of the three channels."""
    torch.manual_seed(0)
    b, n = 20_000, 3
    scale = LatticeScale((0.1,) * 6, (0.7,) * 6)
    model = JointDiffusion(DenoiserSettings(hidden=16, layers=1), scale)
    model.net = spy = Spy()
    clean = torch.tensor([0.5, -1.0, 0.0, 2.0, 0.3, -0.4])
    frac = torch.tensor([[0.0, 0.1, 0.9], [0.5, 0.5, 0.5], [0.3, 0.7, 0.2]])
    model(
        {
            "types": torch.tensor([12, 5, 5]).expand(b, n),
            "frac": frac.expand(b, n, 3),
            "lattice": (0.1 + 0.7 * clean).expand(b, 6),
            "log_tc": torch.zeros(b),
            "stable": torch.ones(b, dtype=torch.long),
        }
    )
    assert np.histogram(spy.time, 10, (0, 1))[0].tolist() == [b // 10] * 10
    for low in np.arange(10) / 10:
        here = (spy.time >= low) & (spy.time < low + 0.1)
        t = spy.time[here]
        a = alpha_bar(t)[:, None]
        noise = (spy.lattice[here] - a.sqrt() * clean) / (1 - a).sqrt()
        # 12,000 normal values: five standard errors of mean and variance.
        assert abs(float(noise.mean())) < 0.046 and abs(float(noise.var()) - 1) < 0.065
        gone = float((spy.types[here] == MASK).double().mean())
        assert abs(gone - (1 - CLEAN_TYPES) * float(masked(t).mean())) < 0.05
        # A wrapped normal has E cos(2 pi x) = exp(-2 pi^2 sigma^2) and no mean sine.
        angle = 2 * np.pi * (spy.frac[here] - frac)
        expected = torch.exp(-2 * (np.pi * sigma(t)) ** 2)[:, None, None]
        assert abs(float((angle.cos() - expected).mean())) < 0.03 and abs(float(angle.sin().mean())) < 0.03


def test_reverse_steps_lead_from_one_marginal_to_the_next():
    """Given the clean crystal, a step from t ends with the marginal of u, strided or not."""
    torch.manual_seed(1)
    for t, u in ((torch.tensor(0.9), torch.tensor(0.5)), (torch.tensor(0.4), torch.tensor(0.38))):
        clean, a, b = torch.full((50_000,), 1.5), alpha_bar(t), alpha_bar(u)
        x = a.sqrt() * clean + (1 - a).sqrt() * torch.randn(50_000)
        x = _lattice_step(x, clean, t, u, torch.randn(50_000))
        torch.testing.assert_close(x.mean(), b.sqrt() * 1.5, atol=0.025, rtol=0)
        torch.testing.assert_close(x.var(), 1 - b, atol=0.0, rtol=0.04)
    t, u = torch.tensor(0.4), torch.tensor(0.2)  # narrow: hardly wrapped
    away = sigma(t) * torch.randn(50_000)
    score = wrapped_score(away, sigma(t).expand(50_000)) / score_rms(t[None])[0]
    moved = _predict(away % 1.0, score, t, u, torch.randn(50_000))
    torch.testing.assert_close((moved - moved.round()).std(), sigma(u), atol=0.0, rtol=0.03)
    sampler = Sampler(SamplerSettings(model="joint"))
    g = torch.Generator().manual_seed(0)
    t, u = torch.tensor(0.8), torch.tensor(0.5)
    types = torch.where(torch.rand((20_000, 2), generator=g) < masked(t), MASK, 5)
    types = sampler._reveal(types, torch.zeros(20_000, 2, 101), t, u, g)
    assert abs(float((types == MASK).double().mean()) - float(masked(u))) < 0.015


def test_schedules_run_from_clean_to_noise():
    t = torch.linspace(0, 1, 101)
    assert abs(float(alpha_bar(t)[0]) - 1) < 1e-6 and float(alpha_bar(t)[-1]) < 1e-3
    assert (alpha_bar(t).diff() <= 0).all() and (sigma(t).diff() > 0).all() and (masked(t).diff() >= 0).all()
    assert float(sigma(t)[0]) == np.float32(0.005) and float(masked(t)[-1]) == 1.0


def test_wrapped_score_is_the_derivative_of_the_log_density():
    x = torch.linspace(-0.49, 0.49, 41, dtype=torch.float64, requires_grad=True)
    for s in (0.02, 0.1, 0.5):
        shifts = torch.arange(-6, 7, dtype=torch.float64)
        density = torch.exp(-0.5 * ((x[:, None] + shifts) / s) ** 2).sum(-1)
        (gradient,) = torch.autograd.grad(density.log().sum(), x)
        score = wrapped_score(x.detach(), torch.full_like(x, s))
        torch.testing.assert_close(score, gradient, atol=1e-6, rtol=1e-5)


def test_score_norm_agrees_with_sampling():
    g = torch.Generator().manual_seed(0)
    for value in (0.0, 0.4, 0.8, 1.0):
        t = torch.full((200_000,), value, dtype=torch.float64)
        shift = sigma(t) * torch.randn(t.shape, generator=g, dtype=torch.float64)
        sampled = wrapped_score(shift, sigma(t)).square().mean().sqrt()
        torch.testing.assert_close(score_rms(t)[0], sampled, rtol=0.02, atol=0.0)


def test_lattice_vector_round_trip_and_rotation():
    rng = np.random.default_rng(0)
    cells = 4 * np.eye(3) + rng.normal(size=(20, 3, 3)) * 0.6
    raw = LatticeScale.raw(cells, 5)
    scale = LatticeScale.fit(raw)
    back = scale.cell(torch.as_tensor(scale.encode(raw)), 5).numpy()
    np.testing.assert_allclose(back @ back.swapaxes(1, 2), cells @ cells.swapaxes(1, 2), rtol=1e-8, atol=1e-8)
    assert (np.linalg.det(back) > 0).all()
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    np.testing.assert_allclose(LatticeScale.raw(cells @ q, 5), raw, atol=1e-9)


def test_niggli_primitive_of_a_conventional_cell():
    frac = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=float)
    cell, numbers, inside = niggli_primitive(4.05 * np.eye(3), np.full(4, 13), frac)
    assert numbers.tolist() == [13] and inside.shape == (1, 3)
    np.testing.assert_allclose(np.linalg.det(cell), 4.05**3 / 4, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cell, axis=1), 4.05 / np.sqrt(2), rtol=1e-6)
