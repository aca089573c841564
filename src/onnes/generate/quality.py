"""How good crystals are that a generator draws in the course of its training.

A loss says little about crystals: it falls while they do not get better, or rises while they do. These judges
(`onnes.generate.fitting.Judge`) put the averaged weights into the sampler that users have, draw a few crystals with a
fixed seed, and measure them as `onnes evaluate` does. The same figures of held-out crystals stand beside. Few draws
make wide intervals, which are given.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from pymatgen.core import Lattice, Structure
from torch import Tensor

from onnes.generate.asked import SamplerSettings
from onnes.generate.cdvae_sampling import CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.fitting import Judge
from onnes.generate.groups import Arrays, frame_of
from onnes.generate.langevin import LangevinSettings
from onnes.generate.metrics import LOOSE, measure, prediction
from onnes.generate.orbit_sampling import OrbitSampler, OrbitSettings
from onnes.generate.orbits import FamilyScale, Frame
from onnes.generate.ranking import key_of
from onnes.generate.sampling import Sampler
from onnes.generate.shares import Figure, share
from onnes.generate.site_sampling import SiteSampler, Wish
from onnes.generate.validity import compositionally_valid
from onnes.learn.store import Checkpoint
from onnes.nets.denoiser import DenoiserSettings
from onnes.nets.sites import SiteSettings, SiteTransformer

#: Of all draws: figures of different steps differ by the weights only.
SEED = 20240
#: Figures of drawn crystals, as `onnes.generate.metrics.measure` names them.
FIGURES = ("structural_validity", "min_distance_above_1.5_A", "compositional_validity", "P1_share")


@dataclass(frozen=True)
class Held:
    """A held-out crystal: its primitive cell, and its orbits where they are packed."""

    structure: Structure
    frame: Frame | None


def held_out(arrays: Arrays, n: int, elements: Sequence[int], *, framed: bool = False) -> list[Held]:
    """Take crystals of a split at random, always the same ones.

    Parameters
    ----------
    arrays : dict of str to ndarray
        As `onnes.generate.groups.read_packed` gives them.
    n : int
        At most so many.
    elements : sequence of int
        Atomic numbers of the training set: crystals of others are left out.
    framed : bool
        Only crystals with known orbits.
    """
    out: list[Held] = []
    for row in np.random.default_rng(SEED).permutation(len(arrays["n"])).tolist():
        atoms = slice(int(arrays["start"][row]), int(arrays["start"][row]) + int(arrays["n"][row]))
        types = arrays["types"][atoms].astype(int).tolist()
        known = arrays["number"][row] > 0
        if len(out) == n or not set(types) <= set(elements) or (framed and not known):
            continue
        cell = Structure(
            Lattice(arrays["cell"][row].astype(float)), types, arrays["frac"][atoms].astype(float)
        )
        out.append(Held(cell, frame_of(arrays, row) if known else None))
    return out


def joint(settings: dict[str, Any], held: Sequence[Held], n: int, steps: int | None = None) -> Judge:
    """Judge of the joint diffusion: n crystals without conditions.

    Parameters
    ----------
    settings : dict
        Of a checkpoint of kind ``diffusion``.
    held : sequence of Held
    n : int
    steps : int, optional
        Noise levels; the sampler's own number by default.
    """
    known = _measured([h.structure for h in held])

    def judge(weights: dict[str, Tensor]) -> dict[str, Any]:
        began = time.time()
        with tempfile.TemporaryDirectory() as folder:
            path = _stored(Path(folder), "diffusion", settings, _bare(weights))
            sampler = Sampler(SamplerSettings(model="joint", steps=steps), path)
        # Sizes as often as in training; `sample` would draw whole blocks.
        sizes, often = zip(*sorted(sampler.counts.items()), strict=True)
        p = np.array(often, dtype=float)
        count = Counter(np.random.default_rng(SEED).choice(sizes, size=n, p=p / p.sum()).tolist())
        generator = torch.Generator().manual_seed(SEED)
        drawn = [s for size in sorted(count) for s in sampler.draw(count[size], size, generator)]
        figures = _measured(drawn)
        return _said(_soundness(figures), figures, known, began)

    return judge


def orbits(
    net: DenoiserSettings, scale: FamilyScale, held: Sequence[Held], settings: OrbitSettings | None = None
) -> Judge:
    """Judge of the diffusion of free parameters: one crystal for the true symbols of each held-out one.

    Parameters
    ----------
    net : DenoiserSettings
    scale : FamilyScale
    held : sequence of Held
        With frames.
    settings : OrbitSettings, optional
        Those of ``onnes generate`` by default. The quality is the match rate at the loose matcher.
    """
    truth, frames = [h.structure for h in held], [h.frame for h in held if h.frame is not None]
    known = _measured(truth)
    asked = SamplerSettings()
    levels = settings or OrbitSettings(steps=asked.n_steps, corrector=asked.corrector)

    def judge(weights: dict[str, Tensor]) -> dict[str, Any]:
        began = time.time()
        model = OrbitDiffusion(net, scale)
        model.load_state_dict(weights)
        drawn = OrbitSampler(model.eval(), levels).draw(frames, torch.Generator().manual_seed(SEED))
        match = prediction([[s] for s in drawn], truth, LOOSE)["match_rate_first"]
        figures = {"match_rate_loose": match, **_measured(drawn)}
        return _said(match.value, figures, known, began)

    return judge


def sites(net: SiteSettings, elements: Sequence[int], held: Sequence[Held], n: int) -> Judge:
    """Judge of the symbols: one draw for the composition of each held-out crystal, and n without conditions.

    Parameters
    ----------
    net : SiteSettings
    elements : sequence of int
        Atomic numbers of the training set.
    held : sequence of Held
        With frames. The quality is the share whose drawn symbols are the true ones, in any description.
    n : int
    """
    frames = [h.frame for h in held if h.frame is not None]
    known, temperature = _of_symbols(frames), SamplerSettings().temperature

    def judge(weights: dict[str, Tensor]) -> dict[str, Any]:
        began = time.time()
        model = SiteTransformer(net)
        model.load_state_dict(_bare(weights))
        sampler = SiteSampler(model.eval(), sorted(elements))
        wishes = [Wish(formula=_formula(f), temperature=temperature) for f in frames]
        drawn = sampler.draw(wishes, np.random.default_rng(SEED))
        free = sampler.draw([Wish(temperature=temperature)] * n, np.random.default_rng(SEED))
        right = sum(key_of(d.frame) == key_of(f) for d, f in zip(drawn, frames, strict=True))
        figures = {"true_symbols": share(right, len(frames)), **_of_symbols([d.frame for d in free])}
        return _said(figures["true_symbols"].value, figures, known, began)

    return judge


def cdvae(
    settings: dict[str, Any], held: Sequence[Held], n: int, decoding: LangevinSettings | None = None
) -> Judge:
    """Judge of the autoencoder: held-out crystals encoded and decoded, and n decoded from the standard normal.

    Parameters
    ----------
    settings : dict
        Of a checkpoint of kind ``cdvae``; the fitted latent priors come after the training.
    held : sequence of Held
    n : int
    decoding : LangevinSettings, optional
        The quality is the mean of the match rate (loose matcher, nothing given besides z) and of that of the draws.
    """
    truth = [h.structure for h in held]
    known = _measured(truth)

    def judge(weights: dict[str, Tensor]) -> dict[str, Any]:
        began = time.time()
        with tempfile.TemporaryDirectory() as folder:
            path = _stored(Path(folder), "cdvae", settings, weights)
            asked = CdvaeSamplerSettings(prior="gaussian", decoding=decoding or LangevinSettings())
            sampler = CdvaeSampler(asked, path)
        copies = sampler.reconstruct(truth, SEED)
        match = prediction([[s] for s in copies], truth, LOOSE)["match_rate_first"]
        z = sampler.prior.sample(n, torch.Generator().manual_seed(SEED))
        drawn = _measured(sampler.decode(z, [], SEED))
        figures = {"reconstruction_match_rate_loose": match, **drawn}
        return _said(0.5 * (match.value + _soundness(drawn)), figures, known, began)

    return judge


def _stored(folder: Path, kind: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a checkpoint for the samplers, which open files."""
    path = folder / f"{kind}.safetensors"
    Checkpoint(kind, settings, {}, tensors).save(path)
    return path


def _bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of the network, not of the loss that holds it."""
    return {name.removeprefix("net."): value for name, value in weights.items()}


def _measured(structures: Sequence[Structure]) -> dict[str, Figure]:
    found = measure(structures, variety=False).figures
    return {name: found[name] for name in FIGURES}


def _soundness(figures: dict[str, Figure]) -> float:
    """Mean of four shares, 1 for the best: valid, above 1.5 A, balanced, and (of the valid ones) not P1."""
    valid, apart, balanced, p1 = (figures[name].value for name in FIGURES)
    symmetric = 1.0 - p1 if figures["P1_share"].n else 0.0
    return (valid + apart + balanced + symmetric) / 4.0


def _formula(frame: Frame) -> dict[int, int]:
    count: Counter[int] = Counter()
    for z, m in zip(frame.kinds, frame.multiplicities, strict=True):
        count[z] += m
    unit = gcd(*count.values())
    return {z: k // unit for z, k in sorted(count.items())}


def _of_symbols(frames: Sequence[Frame]) -> dict[str, Figure]:
    def balanced(frame: Frame) -> bool:
        # The rule reads the elements only: the cell and the places are of no account.
        kinds = [chemical_symbols[z] for z, amount in _formula(frame).items() for _ in range(amount)]
        return compositionally_valid(Structure(Lattice.cubic(9.0), kinds, np.zeros((len(kinds), 3))))

    n = len(frames)
    return {
        "compositional_validity": share(sum(map(balanced, frames)), n),
        "P1_share": share(sum(f.number == 1 for f in frames), n),
    }


def _said(
    quality: float, figures: dict[str, Figure], known: dict[str, Figure], began: float
) -> dict[str, Any]:
    """One line of the log."""
    return {
        "quality": round(quality, 4),
        "draw_seconds": round(time.time() - began, 1),
        "figures": {name: _short(f) for name, f in figures.items()},
        "held_out": {name: _short(f) for name, f in known.items()},
    }


def _short(figure: Figure) -> dict[str, Any]:
    told = figure.to_dict()
    return {k: v if v is None else round(v, 4) for k, v in told.items() if k != "interval"}
