"""Noise processes: schedules, marginals, the lattice vector."""

from __future__ import annotations

import numpy as np
import torch

from onnes.generate.crystals import niggli_primitive
from onnes.generate.process import LatticeScale, alpha_bar, masked, score_rms, sigma, wrapped_score


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
