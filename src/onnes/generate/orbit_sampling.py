"""Lattice and free parameters of crystals whose space group, orbits and elements are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor

from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.orbits import Batch, Frame, frame_batch, positions, without_drift
from onnes.generate.process import alpha_bar, score_rms, sigma

#: Largest estimate of the clean lattice, in standard deviations: strided sampling runs away without it.
CLIP = 4.0


@dataclass(frozen=True)
class OrbitSettings:
    """How to sample.

    Attributes
    ----------
    steps : int
        Noise levels visited (each costs two evaluations: predictor and corrector).
    corrector : float
        Step size of the Langevin corrector relative to (sigma/sigma_min)^2.
    noise : float
        Scale of the noise added back in each step; 0 follows the mean (the likeliest crystal).
    """

    steps: int = 100
    corrector: float = 1e-5
    noise: float = 1.0


class OrbitSampler:
    """Draws lattices and free parameters.

    Parameters
    ----------
    model : OrbitDiffusion
        Trained, in evaluation mode.
    settings : OrbitSettings
    """

    def __init__(self, model: OrbitDiffusion, settings: OrbitSettings | None = None) -> None:
        self.model, self.settings = model, settings or OrbitSettings()

    def draw(
        self, frames: Sequence[Frame], generator: torch.Generator, log_tc: float | None = None
    ) -> list[Structure]:
        """Draw one crystal for each frame, in order.

        Parameters
        ----------
        frames : sequence of Frame
        generator : torch.Generator
        log_tc : float, optional
            Condition on this log10 of the Tc in K.

        Returns
        -------
        list of Structure
            Primitive cells, of exactly the group asked (chance and fully fixed frames can have more symmetry).
        """
        out: list[Structure | None] = [None] * len(frames)
        sizes = np.array([f.n_atoms for f in frames])
        for n in np.unique(sizes):
            where = np.flatnonzero(sizes == n).tolist()
            batch = frame_batch([frames[i] for i in where])
            drawn = self._draw(batch, generator, log_tc)
            for i, structure in zip(where, drawn, strict=True):
                out[i] = structure
        return [s for s in out if s is not None]

    @torch.no_grad()
    def _draw(self, frame: Batch, generator: torch.Generator, log_tc: float | None) -> list[Structure]:
        b, n = frame["types"].shape
        scale, s = self.model.scale, self.settings
        free = frame["free"]
        tc = torch.full((b,), float("nan") if log_tc is None else log_tc)
        stable = torch.ones(b, dtype=torch.long)
        w = torch.rand((b, n, 3), generator=generator) * free
        x = scale.project(torch.randn((b, 6), generator=generator), frame)
        times = torch.linspace(1.0, 0.0, s.steps + 1)

        def normal(like: Tensor) -> Tensor:
            return s.noise * torch.randn(like.shape, generator=generator)

        for k in range(s.steps):
            t, u = times[k], times[k + 1]
            clean, score = self.model.denoise(x, w, t.expand(b), tc, stable, frame)
            x = self._lattice(x, clean, t, u, scale.project(normal(x), frame))
            big, small = sigma(t) ** 2, sigma(u) ** 2
            w = w + (big - small) * score * score_rms(t[None])[0]
            if float(u) > 0.0:
                w = w + (small * (big - small) / big).sqrt() * without_drift(normal(w) * free, frame)
            w = w % 1.0
            if k < s.steps - 1 and s.corrector > 0:
                _, score = self.model.denoise(x, w, u.expand(b), tc, stable, frame)
                step = s.corrector * (sigma(u) / sigma(times[-1])) ** 2
                push = without_drift(normal(w) * free, frame)
                w = (w + step * score * score_rms(u[None])[0] + (2 * step).sqrt() * push) % 1.0
        return _structures(scale.cells(x, frame)[1], frame["types"], positions(w, frame))

    @staticmethod
    def _lattice(x: Tensor, clean: Tensor, t: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """Posterior of the lattice at time u given its value at t and the estimate of the clean one."""
        clean = clean.clamp(-CLIP, CLIP)
        if float(u) == 0.0:
            return clean
        a, b = alpha_bar(t), alpha_bar(u)
        ratio = a / b
        mean = b.sqrt() * (1 - ratio) / (1 - a) * clean + ratio.sqrt() * (1 - b) / (1 - a) * x
        return mean + ((1 - b) * (1 - ratio) / (1 - a)).clamp(min=0).sqrt() * noise


def _structures(cells: Tensor, types: Tensor, frac: Tensor) -> list[Structure]:
    # Double precision before rounding: the group must survive the way through a file.
    return [
        Structure(Lattice(c.double().numpy()), z.tolist(), f.double().numpy() % 1.0)
        for c, z, f in zip(cells, types, frac, strict=True)
    ]
