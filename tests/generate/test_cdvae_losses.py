"""Noise and losses of the autoencoder."""

from __future__ import annotations

import pytest
import torch

from onnes.generate.cdvae import (
    PUBLISHED,
    CdvaeWeights,
    draw_types,
    fractions,
    head_labels,
    head_losses,
    losses,
    noisy_types,
    standardised,
    type_sigma,
    weighted,
)
from onnes.generate.process import LatticeScale
from onnes.nets.cdvae import Cdvae, CdvaeSettings
from onnes.nets.denoiser import MAX_Z

SCALE = LatticeScale((0.9, 0.9, 0.9, 0.0, 0.0, 0.0), (0.2,) * 6)
SIZE = CdvaeSettings(hidden=16, encoder_layers=1, decoder_layers=1, latent=6, fourier=3, radial=6)


def batch(b=8, n=4, device="cpu"):
    g = torch.Generator().manual_seed(1)
    out = {
        "types": torch.randint(1, 90, (b, n), generator=g),
        "frac": torch.rand((b, n, 3), generator=g),
        "lattice": torch.randn((b, 6), generator=g),
        "log_tc": torch.where(torch.arange(b) % 2 == 0, torch.nan, 0.5),
        "e_form": torch.full((b,), torch.nan),
        "stable": torch.arange(b) % 3,
    }
    return {name: value.to(device) for name, value in out.items()}


def test_draws_follow_the_probabilities():
    p = torch.tensor([0.0, 0.1, 0.2, 0.7])
    g = torch.Generator().manual_seed(0)
    drawn = draw_types(p.log().expand(40000, 4), torch.rand((40000, 4), generator=g))
    share = torch.bincount(drawn, minlength=4) / 40000
    torch.testing.assert_close(share, p, atol=0.01, rtol=0)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_type_noise_has_its_marginal(t):
    torch.manual_seed(0)
    b = 4000
    types = torch.full((b, 5), 41)
    logits = torch.full((b, MAX_Z + 1), -30.0)
    logits[:, 7] = 0.0
    noisy = noisy_types(types, logits, torch.full((b,), t))
    s = float(type_sigma(torch.tensor(t)))
    assert float((noisy == 41).float().mean()) == pytest.approx(1 / (1 + s), abs=0.012)
    assert set(noisy.unique().tolist()) <= {7, 41}


def test_unknown_labels_do_not_count():
    torch.manual_seed(0)
    net = Cdvae(SIZE)
    data = head_labels(batch())
    read = net.heads(torch.randn(8, 6))
    parts = head_losses(read, data)
    known = torch.nn.functional.huber_loss(read.log_tc[1::2], data["log_tc"][1::2])
    torch.testing.assert_close(parts["log_tc"], known)
    assert parts["e_form"].item() == 0.0
    assert all(torch.isfinite(v) for v in parts.values())
    changed = head_losses(read, data | {"stable": torch.zeros(8, dtype=torch.long)})
    assert changed["stable"].item() == 0.0 < parts["stable"].item()


def test_fractions_are_those_of_the_cell():
    out = fractions(torch.tensor([[5, 5, 12, 5]]))
    assert float(out[0, 5]) == 0.75 and float(out[0, 12]) == 0.25


def test_the_loss_never_waits_for_the_device():
    # Tensors of the meta device have no values: whatever needs one on the host raises.
    net = Cdvae(SIZE).to("meta")
    for n in (1, 5):
        parts = losses(net, standardised(batch(n=n, device="meta"), SCALE), SCALE, types_by_noise=True)
        torch.stack(list(weighted(parts, PUBLISHED).values())).sum().backward()


def test_a_small_net_learns_one_crystal():
    torch.manual_seed(0)
    net = Cdvae(SIZE)
    one = batch(b=1, n=3)
    data = {name: value.expand(16, *value.shape[1:]) for name, value in one.items()}
    data["e_form"] = torch.full((16,), -0.4)
    weights = CdvaeWeights(kl=0.001)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    first = {}
    for _ in range(150):
        parts = losses(net, data, SCALE)
        first = first or {name: value.item() for name, value in parts.items()}
        optimiser.zero_grad()
        torch.stack(list(weighted(parts, weights).values())).sum().backward()
        optimiser.step()
    last = {name: value.item() for name, value in parts.items()}
    for name in ("count", "lattice", "types", "refine", "e_form"):
        assert last[name] < 0.2 * first[name], name
    assert last["score"] < 0.7 * first["score"]
