"""Losses of the two diffusion models: joint (seed paper 002, Algorithm 1) and within a space group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from onnes.generate.orbits import FamilyScale, positions, to_parameters, without_drift
from onnes.generate.process import LatticeScale, alpha_bar, constant, masked, score_rms, sigma, wrapped_score
from onnes.nets.denoiser import MASK, Denoiser, DenoiserSettings

#: Share of graphs trained with all types known, so that one network also predicts structures.
CLEAN_TYPES = 0.3
#: Share of graphs whose Tc (and, separately, stability) is hidden: classifier-free guidance.
HIDE = 0.25

Batch = dict[str, Tensor]


def _times(b: int, like: Tensor) -> Tensor:
    """Stratified times: one in each of b equal slices of [0, 1], in random order."""
    order = torch.rand(b, device=like.device).argsort()
    return (order + torch.rand(b, device=like.device)) / b


def _conditions(batch: Batch, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Tc and stability, hidden with the chance ``HIDE``; ``chance`` (2, B) uniform in [0, 1]."""
    # not torch.where(..., nan, ...): a number of another kind would be copied from the host.
    log_tc = batch["log_tc"].masked_fill(chance[0] < HIDE, float("nan"))
    return log_tc, batch["stable"].masked_fill(chance[1] < HIDE, 0)


class JointDiffusion(nn.Module):
    """Adds noise to lattice, coordinates and types, denoises, and measures the three losses.

    Parameters
    ----------
    settings : DenoiserSettings
    scale : LatticeScale
    """

    WEIGHTS = {"types": 0.5, "lattice": 1.0, "score": 1.0}  # noqa: RUF012

    def __init__(self, settings: DenoiserSettings, scale: LatticeScale) -> None:
        super().__init__()
        self.net = Denoiser(settings)
        self.scale = scale

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Noise a batch of `onnes.generate.groups.load_groups` at random times; weighted losses by channel."""
        x0, f0 = batch["types"], batch["frac"]
        l0 = (batch["lattice"] - constant(self.scale.mean, f0)) / constant(self.scale.std, f0)
        b, n = x0.shape
        kw: dict[str, Any] = {"device": f0.device}
        t = _times(b, f0)
        hide = torch.rand(3, b, **kw)
        a = alpha_bar(t)[:, None]
        noisy = a.sqrt() * l0 + (1 - a).sqrt() * torch.randn(l0.shape, **kw)
        s = sigma(t)[:, None, None]
        shift = s * torch.randn(f0.shape, **kw)
        gone = torch.rand((b, n), **kw) < masked(t)[:, None]
        gone = gone & (hide[0] > CLEAN_TYPES)[:, None]
        log_tc, stable = _conditions(batch, hide[1:])
        out = self.net(
            x0.masked_fill(gone, MASK),
            (f0 + shift) % 1.0,
            noisy,
            self.scale.cell(noisy, n),
            t,
            log_tc,
            stable,
        )
        # A common shift of all atoms is no displacement at all; its score is removed like the network's.
        target = wrapped_score(shift, s.expand_as(shift)) / score_rms(t)[:, None, None]
        target = target - target.mean(dim=1, keepdim=True)
        guess = nn.functional.cross_entropy(out.type_logits.flatten(0, 1), x0.flatten(), reduction="none")
        parts = {
            "types": (guess * gone.flatten()).sum() / gone.sum().clamp(min=1),
            "lattice": (out.lattice - l0).square().mean(),
            "score": (out.score - target).square().mean(),
        }
        return {name: self.WEIGHTS[name] * value for name, value in parts.items()}


class OrbitDiffusion(nn.Module):
    """Adds noise to the free parameters and the free part of the lattice of crystals of known group and types.

    Parameters
    ----------
    settings : DenoiserSettings
        With ``symmetry``.
    scale : FamilyScale
    """

    def __init__(self, settings: DenoiserSettings, scale: FamilyScale) -> None:
        super().__init__()
        self.net = Denoiser(settings)
        self.scale = scale

    def denoise(
        self, x: Tensor, w: Tensor, t: Tensor, log_tc: Tensor, stable: Tensor, frame: Batch
    ) -> tuple[Tensor, Tensor]:
        """Estimate the clean lattice (B, 6) and the scaled score of the parameters (B, S, 3)."""
        out = self.net(
            frame["types"],
            positions(w, frame),
            self.scale.seen(x, frame),
            self.scale.cells(x, frame)[1],
            t,
            log_tc,
            stable,
            frame["group"],
            frame["letter"],
        )
        score = to_parameters(out.score, frame) * frame["free"]
        return self.scale.project(out.lattice, frame), without_drift(score, frame)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch of `onnes.generate.groups.load_frames` at random times."""
        w0, free = batch["w"], batch["free"]
        b = len(w0)
        t = _times(b, w0)
        hide = torch.rand(2, b, device=w0.device)
        l0 = self.scale.encode(batch["lattice"], batch)
        a = alpha_bar(t)[:, None]
        noise = self.scale.project(torch.randn_like(l0), batch)
        noisy = a.sqrt() * l0 + (1 - a).sqrt() * noise
        s = sigma(t)[:, None, None]
        shift = s * torch.randn_like(w0) * free
        clean, score = self.denoise(noisy, (w0 + shift) % 1.0, t, *_conditions(batch, hide), batch)
        target = wrapped_score(shift, s.expand_as(shift)) / score_rms(t)[:, None, None]
        target = without_drift(target * free, batch)
        return {
            "lattice": (clean - l0).square().sum(-1).mean() / 3.0,
            # The mean over free parameters of the batch, so that crystals without any do not count.
            "score": (score - target).square().sum() / free.sum().clamp(min=1),
        }
