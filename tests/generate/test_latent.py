"""Latent priors and ascent."""

from __future__ import annotations

import math

import pytest
import torch

from onnes.errors import SettingsError
from onnes.generate.fitting import FitSettings
from onnes.generate.latent import AscentSettings, LatentPrior, Reweighted, ascend
from onnes.generate.latent_fit import Encoded, encode, fit_critic, fit_flow, fit_mixture
from onnes.generate.process import LatticeScale
from onnes.nets.cdvae import Cdvae, CdvaeSettings, Heads
from onnes.nets.latent_critic import LatentCritic
from onnes.nets.latent_flow import LatentFlow


def rings(count, seed):
    """Posteriors whose means form three clusters in two of four coordinates; one coordinate is inactive."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.tensor([[3.0, 0.0], [-2.0, 2.0], [-2.0, -2.0]])
    mean = torch.zeros(count, 4)
    mean[:, :2] = centre[torch.randint(3, (count,), generator=g)]
    mean[:, 2] = 0.5 * mean[:, 0] + 0.3 * torch.randn(count, generator=g)
    log_var = torch.full((count, 4), math.log(0.05))
    log_var[:, 3] = 0.0
    return Encoded(mean, log_var)


@pytest.fixture(scope="module")
def fitted():
    return fit_mixture(rings(900, 0), rings(300, 1), (1, 3, 6), seed=0)


def test_standard_prior_is_the_standard_normal():
    prior = LatentPrior.standard(3)
    z = torch.randn(5, 3)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(prior.log_prob(z), normal)
    drawn = prior.sample(20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cov(drawn.T), torch.eye(3), atol=0.05, rtol=0)


def test_held_out_likelihood_finds_the_clusters(fitted):
    prior, report = fitted
    assert report["active"] == 3 and prior.active.tolist() == [0, 1, 2]
    assert report["mixture_3"] > report["mixture_1"] > report["gaussian"]
    assert report["mixture_3"] >= report["mixture_6"] - 0.1
    assert len(prior.weights) in (3, 6)


def test_mixture_density_is_that_of_torch(fitted):
    prior, _ = fitted
    z = torch.randn(7, 4)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(prior.weights),
        torch.distributions.MultivariateNormal(prior.means, scale_tril=prior.factors),
    )
    inactive = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 3])
    torch.testing.assert_close(prior.log_prob(z), mixture.log_prob(z[:, :3]) + inactive, atol=1e-3, rtol=1e-4)


def test_draws_have_the_moments_of_the_data(fitted):
    prior, _ = fitted
    data = rings(6000, 2).draw(torch.Generator().manual_seed(3))
    drawn = prior.sample(6000, torch.Generator().manual_seed(4))
    torch.testing.assert_close(drawn.mean(0), data.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(data.T), atol=0.35, rtol=0)


def test_mixture_survives_the_checkpoint(fitted):
    prior, _ = fitted
    again = LatentPrior.from_tensors({k: v.half() for k, v in prior.as_tensors().items()}, 4)
    z = prior.sample(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.log_prob(z), prior.log_prob(z), atol=0.2, rtol=0.02)


def test_flow_beats_the_normal_on_held_out_vectors(tmp_path):
    settings = FitSettings(steps=400, lr=5e-3, warmup=20, batch=128, ema=0.95, every=100)
    flow = LatentFlow(4, hidden=32, couplings=6, dropout=0.0)
    fit_flow(rings(900, 0), rings(300, 1), flow, settings, tmp_path)
    z = rings(300, 5).draw(torch.Generator().manual_seed(6))
    with torch.no_grad():
        assert flow.log_prob(z).mean() > LatentPrior.standard(4).log_prob(z).mean() + 2.0


def test_critic_brings_a_poor_prior_towards_the_data(tmp_path):
    torch.manual_seed(0)
    heads = Heads(CdvaeSettings(latent=4, head_hidden=8)).eval()
    base = LatentPrior.standard(4)
    settings = FitSettings(steps=400, lr=5e-3, warmup=20, batch=128, ema=0.95, every=100)
    critic = LatentCritic(4, hidden=32, dropout=0.0)
    fit_critic(critic, base, heads, rings(900, 0), rings(300, 1), settings, tmp_path)
    better = Reweighted(base, critic, heads, tries=64)
    real = rings(1000, 5).draw(torch.Generator().manual_seed(6))
    plain = base.sample(1000, torch.Generator().manual_seed(7))
    drawn = better.sample(1000, torch.Generator().manual_seed(7))

    def miss(z):
        """Distance of the vectors to the nearest cluster of the data."""
        centre = torch.tensor([[3.0, 0.0], [-2.0, 2.0], [-2.0, -2.0]])
        return torch.cdist(z[:, :2], centre).min(dim=1).values.mean().item()

    assert miss(real) < miss(drawn) < 0.7 * miss(plain)
    with torch.no_grad():
        assert better.log_prob(real).mean() > base.log_prob(real).mean() + 1.0


def test_ascent_raises_the_reward_and_stays_on_the_data(fitted):
    prior, _ = fitted
    z = prior.sample(64, torch.Generator().manual_seed(0))

    def reward(x):
        return x[:, 2]

    kept = ascend(reward, prior, z, AscentSettings(steps=150, rate=0.02, penalty=20.0))
    free = ascend(reward, prior, z, AscentSettings(steps=150, rate=0.02, penalty=0.0))
    assert (reward(kept) >= reward(z) - 1e-6).all()
    assert reward(free).mean() > reward(kept).mean() > reward(z).mean() + 0.05
    lost = (prior.log_prob(z) - prior.log_prob(kept)).mean()
    assert lost < 2.0 < (prior.log_prob(z) - prior.log_prob(free)).mean()


def test_bad_ascents_are_refused():
    for wrong in ({"steps": 0}, {"rate": 0.0}, {"penalty": -1.0}, {"penalty": math.nan}):
        with pytest.raises(SettingsError, match="bad-setting"):
            AscentSettings(**wrong)


def test_encoding_keeps_the_order_whatever_the_batch():
    torch.manual_seed(0)
    net = Cdvae(CdvaeSettings(hidden=16, encoder_layers=1, decoder_layers=1, latent=6, fourier=3, radial=6))
    scale = LatticeScale((0.9, 0.9, 0.9, 0.0, 0.0, 0.0), (0.2,) * 6)
    groups = {
        n: {
            "types": torch.randint(1, 90, (5, n)),
            "frac": torch.rand(5, n, 3),
            "lattice": torch.tensor(scale.mean) + 0.2 * torch.randn(5, 6),
        }
        for n in (2, 3)
    }
    a, b = encode(net, scale, groups, batch=2), encode(net, scale, groups)
    torch.testing.assert_close(a.mean, b.mean)
    one = {3: {k: v[1:2] for k, v in groups[3].items()}}
    torch.testing.assert_close(encode(net, scale, one).mean[0], a.mean[6])
