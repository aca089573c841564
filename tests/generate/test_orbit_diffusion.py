"""The diffusion of free parameters: rotations cannot matter, origin shifts and equivalent points do not."""

from __future__ import annotations

import torch

from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.orbit_sampling import OrbitSampler, OrbitSettings
from onnes.generate.orbits import FamilyScale, Frame, frame_batch, positions
from onnes.nets.denoiser import DenoiserSettings

SCALE = FamilyScale(1.0, 0.3, 0.2)


def model() -> OrbitDiffusion:
    torch.manual_seed(0)
    return OrbitDiffusion(DenoiserSettings(hidden=32, layers=2, symmetry=True), SCALE).double().eval()


def batch_of(frames):
    return {k: v.double() if v.is_floating_point() else v for k, v in frame_batch(frames).items()}


def denoise(m, batch, w, x):
    b = len(x)
    t, tc = torch.full((b,), 0.4, dtype=x.dtype), torch.full((b,), float("nan"), dtype=x.dtype)
    return m.denoise(x, w, t, tc, torch.ones(b, dtype=torch.long), batch)


def test_only_free_numbers_get_a_score():
    # I4/mmm 4e has one free parameter, P-1 2i three, Fm-3m 4a none.
    m = model()
    for frame, free in (
        (Frame(139, (4,), (33,)), 1),
        (Frame(2, (8,), (6,)), 3),
        (Frame(225, (0,), (41,)), 0),
    ):
        batch = batch_of([frame])
        w = 0.3 * batch["free"]
        lattice, score = denoise(m, batch, w, torch.zeros(1, 6, dtype=torch.float64))
        assert int((score != 0).sum()) == free
        torch.testing.assert_close(SCALE.project(lattice, batch), lattice)


def test_a_whole_period_and_a_polar_shift_change_nothing():
    m = model()
    frame = Frame(99, (0, 1, 2), (22, 8, 8))
    batch = batch_of([frame])
    w = torch.rand(1, frame.n_atoms, 3, dtype=torch.float64) * batch["free"]
    x = SCALE.project(torch.randn(1, 6, dtype=torch.float64), batch)
    first = denoise(m, batch, w, x)
    for moved in (w + batch["free"], w + 0.17 * batch["free"]):
        again = denoise(m, batch, moved % 1.0, x)
        torch.testing.assert_close(again, first, atol=1e-6, rtol=1e-5)


def test_order_of_orbits_does_not_matter():
    m = model()
    a, b = Frame(14, (4, 4), (40, 8)), Frame(14, (4, 4), (8, 40))
    one, two = batch_of([a]), batch_of([b])
    w = torch.rand(1, a.n_atoms, 3, dtype=torch.float64) * one["free"]
    swapped = w[:, [1, 0, *range(2, a.n_atoms)]]
    x = SCALE.project(torch.randn(1, 6, dtype=torch.float64), one)
    lattice, score = denoise(m, one, w, x)
    other, moved = denoise(m, two, swapped, x)
    torch.testing.assert_close(other, lattice)
    torch.testing.assert_close(moved[:, [1, 0]], score[:, :2])


def test_losses_are_finite_and_fall_on_a_few_crystals():
    m = model().float().train()
    frames = [Frame(139, (0, 4), (56, 33)), Frame(139, (1, 4), (38, 15))]
    batch = frame_batch(frames)
    n = frames[0].n_atoms
    batch |= {
        "w": 0.35 * batch["free"],
        "lattice": torch.tensor([[1.0, 1.0, 2.0, 0, 0, 0]]).repeat(2, 1),
        "log_tc": torch.tensor([0.5, float("nan")]),
        "stable": torch.tensor([1, 0]),
    }
    assert n == 3
    batch = {k: v.repeat_interleave(16, 0) for k, v in batch.items()}
    optimiser = torch.optim.Adam(m.parameters(), lr=3e-3)
    history = []
    for _ in range(150):
        parts = m(batch)
        total = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(float(total.detach()))
    assert sum(history[-20:]) < 0.6 * sum(history[:20])
    drawn = OrbitSampler(m.eval(), OrbitSettings(steps=30)).draw(frames, torch.Generator().manual_seed(0))
    assert [s.composition.reduced_formula for s in drawn] == ["BaAs2", "SrP2"]
    again = OrbitSampler(m, OrbitSettings(steps=30)).draw(frames, torch.Generator().manual_seed(0))
    assert drawn == again and torch.isfinite(positions(batch["w"], batch)).all()
