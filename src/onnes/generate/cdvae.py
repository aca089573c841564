"""Losses and noise of the crystal diffusion variational autoencoder (Xie et al. 2022, arXiv:2110.06197).

Coordinates get wrapped-normal noise at the geometric levels of `onnes.generate.process` (fractions of a cell vector,
0.005 to 0.5; the published model adds Cartesian noise of 0.01 to 10 angstrom and takes the nearest image for
the whole). Types get the published noise: with weight s_A / (1 + s_A) an atom's type is drawn from the
composition that the heads read from z, s_A falling geometrically from 5 to 0.01.

All of it is free of synchronisation with the host, so that a training step can be captured in a CUDA graph.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from onnes.generate.process import LatticeScale, constant, score_rms, sigma, wrapped_score
from onnes.nets.cdvae import Cdvae, Read, one_hot
from onnes.nets.denoiser import MAX_Z

TYPE_SIGMA_MIN, TYPE_SIGMA_MAX = 0.01, 5.0
#: Share of crystals whose decoder sees the lattice read from z instead of the true one, as it will when sampling.
OWN_LATTICE = 0.5

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class CdvaeWeights:
    """Weights of the parts of the loss.

    Attributes
    ----------
    kl : float
        Of the divergence of the posterior from the standard normal, summed over z.
    count, lattice, composition, log_tc, e_form, stable : float
        Of the heads.
    score, types, refine : float
        Of the decoder: coordinates, types, clean lattice.
    types_by_noise : bool
        Divide the cross entropy of the types by s_A, as published.
    """

    kl: float = 0.01
    count: float = 1.0
    lattice: float = 10.0
    composition: float = 2.0
    log_tc: float = 0.5
    e_form: float = 0.5
    stable: float = 0.2
    score: float = 10.0
    types: float = 2.0
    refine: float = 10.0
    types_by_noise: bool = False

    def as_dict(self) -> dict[str, float | bool]:
        """Return plain numbers, for the card."""
        return asdict(self)


#: The published weights. Their coordinate loss is half a sum over three components where ours is a mean, so that their
#: 10 is 15 here; properties other than the one optimised and the refined lattice are ours.
PUBLISHED = CdvaeWeights(
    kl=0.01, count=1.0, lattice=10.0, composition=1.0, log_tc=1.0, score=15.0, types=1.0, types_by_noise=True
)


def type_sigma(t: Tensor) -> Tensor:
    """Strength s_A of the type noise at time t in [0, 1]."""
    return TYPE_SIGMA_MIN ** (1 - t) * TYPE_SIGMA_MAX**t


def draw_types(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw from softmax(logits) over the last axis by the Gumbel maximum, ``noise`` uniform of the same shape."""
    return (logits - torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7)))).argmax(dim=-1)


def noisy_types(types: Tensor, composition_logits: Tensor, t: Tensor) -> Tensor:
    """Types (B, N) with the noise of time t (B,) added; see the module."""
    b, n = types.shape
    s = type_sigma(t)[:, None]
    other = draw_types(
        composition_logits.detach()[:, None].expand(b, n, MAX_Z + 1),
        torch.rand((b, n, MAX_Z + 1), device=t.device),
    )
    keep = torch.rand((b, n), device=t.device) < 1 / (1 + s)
    return torch.where(keep, types, other)


def fractions(types: Tensor) -> Tensor:
    """Fractions of the elements (B, MAX_Z + 1) of types (B, N)."""
    return one_hot(types).mean(dim=1)


def head_losses(read: Read, labels: Batch) -> Batch:
    """Losses of the heads; properties that are unknown (NaN, or stable = 0) do not count.

    Parameters
    ----------
    read : Read
    labels : dict of str to Tensor
        count (B,), composition (B, MAX_Z + 1; fractions), lattice (B, 6, standardised), log_tc, e_form, stable (B,).
    """
    log_fraction = torch.log_softmax(read.composition_logits, dim=-1)
    known = (labels["stable"] > 0).float()
    stable = cross_entropy(read.stable_logits, (labels["stable"] - 1).clamp(min=0), reduction="none")
    return {
        "count": cross_entropy(read.count_logits, labels["count"]),
        "lattice": (read.lattice - labels["lattice"]).square().mean(),
        "composition": -(labels["composition"] * log_fraction).sum(-1).mean(),
        "log_tc": _known_mean(read.log_tc, labels["log_tc"]),
        "e_form": _known_mean(read.e_form, labels["e_form"]),
        "stable": (stable * known).sum() / known.sum().clamp(min=1),
    }


def head_labels(group: Batch) -> Batch:
    """What the heads should read from crystals of one size; ``lattice`` as it is in the group."""
    types = group["types"]
    return {
        "count": torch.full_like(types[:, 0], types.shape[1]),
        "composition": fractions(types),
        **{name: group[name] for name in ("lattice", "log_tc", "e_form", "stable")},
    }


def _known_mean(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean Huber loss over the labels that are known."""
    known = (~torch.isnan(truth)).float()
    miss = torch.nn.functional.huber_loss(guess, torch.nan_to_num(truth), reduction="none")
    return (miss * known).sum() / known.sum().clamp(min=1)


def losses(net: Cdvae, batch: Batch, scale: LatticeScale, *, types_by_noise: bool = False) -> Batch:
    """All parts of the loss of a batch of crystals with N atoms each, unweighted.

    Parameters
    ----------
    net : Cdvae
    batch : dict of str to Tensor
        types (B, N), frac (B, N, 3), lattice (B, 6, standardised), log_tc, e_form, stable (B,).
    scale : LatticeScale
    types_by_noise : bool
        See `CdvaeWeights`.
    """
    x0, f0, l0 = batch["types"], batch["frac"], batch["lattice"]
    b, n = x0.shape
    mean, log_var = net.encoder(x0, f0, l0, scale.cell(l0, n))
    z = mean + torch.exp(0.5 * log_var) * torch.randn(mean.shape, device=mean.device)
    read = net.heads(z)
    # Stratified times: one in each of b equal slices of [0, 1]; the crystals come in random order.
    t = (torch.arange(b, device=z.device) + torch.rand(b, device=z.device)) / b
    s = sigma(t)[:, None, None].expand(f0.shape)
    shift = s * torch.randn(f0.shape, device=z.device)
    own = (torch.rand(b, device=z.device) < OWN_LATTICE)[:, None]
    seen = torch.where(own, read.lattice.detach(), l0)
    out = net.decoder(
        z,
        noisy_types(x0, read.composition_logits, t),
        (f0 + shift) % 1.0,
        seen,
        scale.cell(seen.clamp(-6.0, 6.0), n),
        t,
    )
    target = wrapped_score(shift, s)
    target = (target - target.mean(dim=1, keepdim=True)) / score_rms(t)[:, None, None]
    guess = cross_entropy(out.type_logits.transpose(1, 2), x0, reduction="none").mean(dim=1)
    if types_by_noise:
        guess = guess / type_sigma(t)
    divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(dim=-1)
    return head_losses(read, head_labels(batch)) | {
        "kl": divergence.mean(),
        "score": (out.score - target).square().mean(),
        "types": guess.mean(),
        "refine": (out.lattice - l0).square().mean(),
    }


def weighted(parts: Batch, weights: CdvaeWeights) -> Batch:
    """Parts of the loss times their weights; the loss is their sum."""
    return {name: getattr(weights, name) * value for name, value in parts.items()}


def standardised(group: Batch, scale: LatticeScale) -> Batch:
    """Return the group with its raw lattice vectors standardised."""
    mean, std = constant(scale.mean, group["lattice"]), constant(scale.std, group["lattice"])
    return group | {"lattice": (group["lattice"] - mean) / std}
