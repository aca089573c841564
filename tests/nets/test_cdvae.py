"""Symmetries of the autoencoder, in float64."""

from __future__ import annotations

import pytest
import torch

from onnes.nets.cdvae import Cdvae, CdvaeSettings, one_hot

TOL = {"atol": 1e-9, "rtol": 1e-7}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    size = CdvaeSettings(hidden=24, encoder_layers=2, decoder_layers=2, latent=8, fourier=4, radial=6)
    return Cdvae(size).double().eval()


def crystal(n=4, batch=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    kw = {"generator": g, "dtype": torch.float64}
    cell = 4.0 * torch.eye(3, dtype=torch.float64) + 0.4 * torch.randn((batch, 3, 3), **kw)
    return {
        "types": torch.randint(1, 90, (batch, n), generator=g),
        "frac": torch.rand((batch, n, 3), **kw),
        "lattice": torch.randn((batch, 6), **kw),
        "cell": cell,
    }


def decode(net, x, seed=2):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn((3, 8), generator=g, dtype=torch.float64)
    with torch.no_grad():
        return net.decoder(z, **x, time=torch.linspace(0.1, 0.9, 3, dtype=torch.float64))


def encode(net, x):
    with torch.no_grad():
        return torch.cat(net.encoder(**x), dim=-1)


def moved(x):
    """Another order of the atoms, another origin, other images, another orientation."""
    order = torch.tensor([2, 0, 3, 1])
    shift = torch.tensor([0.137, -0.41, 0.29], dtype=torch.float64)
    images = torch.zeros_like(x["frac"])
    images[:, 1] = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn((3, 3), generator=torch.Generator().manual_seed(5)).double())
    return order, {
        "types": x["types"][:, order],
        "frac": (x["frac"] + shift + images)[:, order],
        "lattice": x["lattice"],
        "cell": x["cell"] @ q,
    }


def test_latent_vector_is_invariant(net):
    x = crystal()
    _, y = moved(x)
    a = encode(net, x)
    torch.testing.assert_close(a, encode(net, y), **TOL)
    assert (a - encode(net, x | {"types": x["types"] % 89 + 1})).abs().max() > 1e-3
    assert (a - encode(net, x | {"frac": x["frac"] ** 2})).abs().max() > 1e-6


def test_decoder_moves_with_the_atoms_and_nothing_else(net):
    x = crystal()
    order, y = moved(x)
    a, b = decode(net, x), decode(net, y)
    torch.testing.assert_close(a.score[:, order], b.score, **TOL)
    torch.testing.assert_close(a.type_logits[:, order], b.type_logits, **TOL)
    torch.testing.assert_close(a.lattice, b.lattice, **TOL)


def test_decoder_depends_on_the_latent_vector(net):
    x = crystal()
    a, b = decode(net, x, seed=2), decode(net, x, seed=3)
    for name in ("score", "type_logits", "lattice"):
        assert (getattr(a, name) - getattr(b, name)).abs().max() > 1e-4


def test_score_has_no_common_shift(net):
    torch.testing.assert_close(decode(net, crystal()).score.mean(dim=1), torch.zeros(3, 3).double(), **TOL)


def test_heads_have_the_stated_shapes(net):
    read = net.heads(torch.zeros(5, 8, dtype=torch.float64))
    assert read.count_logits.shape == (5, 21)
    assert read.lattice.shape == (5, 6)
    assert read.composition_logits.shape == (5, 101)
    assert read.log_tc.shape == read.e_form.shape == (5,)
    assert read.stable_logits.shape == (5, 2)


def test_one_hot():
    torch.testing.assert_close(
        one_hot(torch.tensor([[3, 100]])), torch.nn.functional.one_hot(torch.tensor([[3, 100]]), 101).float()
    )
