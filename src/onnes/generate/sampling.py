"""Sampling crystals from the joint diffusion model (seed paper 002, Algorithm 2, strided)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from onnes.errors import SettingsError
from onnes.generate.process import LatticeScale, alpha_bar, masked, score_rms, sigma
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.denoiser import MASK, MAX_Z, Denoised, Denoiser, DenoiserSettings

#: Crystals are always sampled in these blocks of consecutive indices, whatever is asked for, so that the same
#: seed and index give the same crystal in every run, interrupted or not.
BLOCK = 48


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes
    ----------
    steps : int
        Noise levels visited (each costs two evaluations: predictor and corrector).
    corrector : float
        Step size of the Langevin corrector relative to (sigma/sigma_min)^2.
    temperature : float
        Of the atom-type draw; below 1 prefers common chemistry.
    elements : tuple of str
        Only these elements; empty for all trained ones.
    exclude : tuple of str
        None of these elements.
    target_tc : float or None
        Condition on this Tc in kelvin.
    guidance : float
        Classifier-free guidance towards the target (Ho & Salimans, arXiv:2207.12598): 0 samples the
        conditioned model, w extrapolates w times further away from the unconditioned one. Doubles the cost.
    """

    steps: int = 150
    corrector: float = 1e-5
    temperature: float = 0.9
    elements: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target_tc: float | None = None
    guidance: float = 0.0


class Sampler:
    """A trained diffusion model ready to draw from.

    Parameters
    ----------
    settings : SamplerSettings
    path : path, optional
        Checkpoint of kind ``diffusion``; the shipped one by default.

    Raises
    ------
    SettingsError
        ``untrained-element`` when an element was never in the training set, ``bad-setting`` otherwise.
    """

    def __init__(self, settings: SamplerSettings, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("diffusion.safetensors"), "diffusion")
        stored = self.checkpoint.settings
        self.net = Denoiser(DenoiserSettings(**stored["network"]))
        self.net.load_state_dict(self.checkpoint.tensors)
        self.net.eval()
        self.scale = LatticeScale(tuple(stored["lattice_mean"]), tuple(stored["lattice_std"]))
        self.counts = {int(k): v for k, v in stored["atom_counts"].items()}
        self.settings = settings
        self.allowed = self._allowed(set(stored["elements"]))
        if settings.steps < 2 or settings.temperature <= 0 or min(settings.corrector, settings.guidance) < 0:
            raise SettingsError(
                "bad-setting", f"steps >= 2, temperature > 0, corrector and guidance >= 0 needed: {settings}"
            )
        if not np.isfinite([settings.temperature, settings.corrector, settings.guidance]).all():
            raise SettingsError(
                "bad-setting", f"temperature, corrector and guidance must be finite: {settings}"
            )
        if settings.target_tc is not None and not 0 < settings.target_tc < np.inf:
            raise SettingsError(
                "bad-setting", f"target Tc {settings.target_tc} K is not allowed; give a positive one"
            )

    def _allowed(self, trained: set[int]) -> Tensor:
        """Logits that leave only the elements allowed."""
        numbers = set(trained)
        if self.settings.elements:
            numbers = {self._number(symbol, trained) for symbol in self.settings.elements}
        for symbol in self.settings.exclude:
            if not Element.is_valid_symbol(symbol):
                raise SettingsError("unknown-element", f"{symbol!r} is no element")
            numbers.discard(Element(symbol).Z)
        if not numbers:
            raise SettingsError("bad-setting", "no element is left: all are excluded")
        mask = torch.full((MAX_Z + 1,), -torch.inf)
        mask[sorted(numbers)] = 0.0
        return mask

    def _number(self, symbol: str, trained: set[int]) -> int:
        if not Element.is_valid_symbol(symbol) or Element(symbol).Z not in trained:
            names = ", ".join(Element.from_Z(z).symbol for z in sorted(trained))
            raise SettingsError("untrained-element", f"element {symbol!r} is not one of {names}")
        return int(Element(symbol).Z)

    def sample(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, Structure]]:
        """Yield ``(index, structure)`` for start <= index < stop; the same for the same seed and index."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            drawn = self._block(block, seed)
            for i, structure in enumerate(drawn):
                index = block * BLOCK + i
                if start <= index < stop:
                    yield index, structure

    def _block(self, block: int, seed: int) -> list[Structure]:
        rng = np.random.default_rng([seed, block])
        sizes = np.array(sorted(self.counts))
        share = np.array([self.counts[n] for n in sizes], dtype=float)
        drawn = rng.choice(sizes, size=BLOCK, p=share / share.sum())
        out: list[Structure | None] = [None] * BLOCK
        for n in np.unique(drawn):
            where = np.flatnonzero(drawn == n)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for i, structure in zip(where, self.draw(len(where), int(n), generator), strict=True):
                out[i] = structure
        return [s for s in out if s is not None]

    @torch.no_grad()
    def draw(self, count: int, n: int, generator: torch.Generator) -> Sequence[Structure]:
        """Draw ``count`` crystals of ``n`` atoms each."""
        s = self.settings
        types = torch.full((count, n), MASK)
        frac = torch.rand((count, n, 3), generator=generator)
        lattice = torch.randn((count, 6), generator=generator)
        log_tc = torch.full((count,), float("nan") if s.target_tc is None else float(np.log10(s.target_tc)))
        stable = torch.ones(count, dtype=torch.long)
        times = torch.linspace(1.0, 0.0, s.steps + 1)

        def evaluate(t: Tensor) -> Denoised:
            cell = self.scale.cell(lattice, n)
            at = t.expand(count)
            asked = self.net(types, frac, lattice, cell, at, log_tc, stable)
            if s.target_tc is None or s.guidance == 0.0:
                return asked
            free = self.net(types, frac, lattice, cell, at, torch.full_like(log_tc, torch.nan), stable)
            return _guided(asked, free, s.guidance)

        for k in range(s.steps):
            t, u = times[k], times[k + 1]
            said = evaluate(t)
            types = self._reveal(types, said.type_logits, t, u, generator)
            lattice = _lattice_step(lattice, said.lattice, t, u, generator)
            frac = _predict(frac, said.score, t, u, generator)
            if k < s.steps - 1:
                # Corrector at the new level: one Langevin step.
                score = evaluate(u).score * score_rms(u[None])[0]
                step = s.corrector * (sigma(u) / sigma(times[-1])) ** 2
                frac = (
                    frac + step * score + (2 * step).sqrt() * torch.randn(frac.shape, generator=generator)
                ) % 1.0
        return [_structure(c, z, f) for c, z, f in zip(self.scale.cell(lattice, n), types, frac, strict=True)]

    def _reveal(
        self, types: Tensor, logits: Tensor, t: Tensor, u: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Give a type to some of the unknown atoms: each with the probability of the reverse process."""
        before, after = masked(t), masked(u)
        if float(before) == 0.0:
            return types
        chance = (before - after) / before
        now = (torch.rand(types.shape, generator=generator) < chance) & (types == MASK)
        p = torch.softmax(logits / self.settings.temperature + self.allowed, dim=-1)
        drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(types.shape)
        return torch.where(now, drawn, types)


def _guided(asked: Denoised, free: Denoised, weight: float) -> Denoised:
    """Extrapolate from the unconditioned answer through the conditioned one."""
    logits = torch.log_softmax(asked.type_logits, -1), torch.log_softmax(free.type_logits, -1)
    pairs = (logits, (asked.lattice, free.lattice), (asked.score, free.score))
    types, lattice, score = (a + weight * (a - b) for a, b in pairs)
    return Denoised(type_logits=types, lattice=lattice, score=score)


def _lattice_step(x: Tensor, clean: Tensor, t: Tensor, u: Tensor, generator: torch.Generator) -> Tensor:
    """Posterior of the lattice at time u given its value at t and the (clipped) estimate of the clean one."""
    clean = clean.clamp(-4.0, 4.0)
    a, b = alpha_bar(t), alpha_bar(u)
    ratio = a / b
    mean = b.sqrt() * (1 - ratio) / (1 - a) * clean + ratio.sqrt() * (1 - b) / (1 - a) * x
    spread = ((1 - b) * (1 - ratio) / (1 - a)).clamp(min=0).sqrt()
    if float(u) == 0.0:
        return clean
    return mean + spread * torch.randn(x.shape, generator=generator)


def _predict(frac: Tensor, score: Tensor, t: Tensor, u: Tensor, generator: torch.Generator) -> Tensor:
    """Ancestral step of the variance-exploding process from sigma(t) to sigma(u)."""
    big, small = sigma(t) ** 2, sigma(u) ** 2
    moved = frac + (big - small) * score * score_rms(t[None])[0]
    if float(u) > 0.0:
        moved = moved + (small * (big - small) / big).sqrt() * torch.randn(frac.shape, generator=generator)
    return moved % 1.0


def _structure(cell: Tensor, types: Tensor, frac: Tensor) -> Structure:
    # Rounding makes files of the same seed identical to the last digit.
    return Structure(Lattice(np.round(cell.numpy(), 6)), types.tolist(), np.round(frac.numpy(), 6) % 1.0)
