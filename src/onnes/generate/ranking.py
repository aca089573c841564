"""Structure prediction: candidates for a composition, ranked by votes and energy.

Candidates come from the symmetric generator (frames drawn most often) and from prototype substitution (in the learned
order of `onnes.generate.evidence`, or by votes). Each says how usual a structure is among compounds like this one, and
not what it costs; a potential says what it costs, and not what is made. Both together: ``log(votes) - energy / SCALE``,
Bayes' rule with the votes as the prior and a Boltzmann factor whose width stands for everything that an energy at 0 K
does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from onnes.crystal.amd import same_crystal
from onnes.crystal.families import constrain
from onnes.crystal.wyckoff import LETTERS, Described, Site
from onnes.crystal.wyckoff_table import wyckoff_positions
from onnes.errors import CrystalError, SettingsError
from onnes.generate.evidence import FEWEST, PrototypeOrder
from onnes.generate.orbits import Frame
from onnes.generate.prototypes import Guess, Templates, prototype_of, substitute
from onnes.generate.site_sampling import Wish

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.generate.symmetric import SymmetricSampler

#: eV/atom, and how much a share of the draws counts beside a chance of prototype substitution; both chosen on the 102
#: validation rows of JARVIS-SC (training/generate/rank_structures.py).
SCALE, DRAWN = 0.4, 0.3
#: Draws of symbols whose shares are the generator's votes.
DRAWS = 48
#: Candidates of each source that are kept; all but the first need this share of its votes.
MOST, LEAST = 4, 0.03
#: Guesses of prototype substitution that are looked at, once those that were not asked for are gone.
GUESSES, EVERY = 20, 10**6
#: Equal crystals that differ by more (eV/atom) are not merged.
SAME_ENERGY = 0.02
#: ln V at which energies are computed, and how far from the middle the lowest may lie.
STRAINS, FARTHEST = (-0.06, 0.0, 0.06), 0.12


class Potential(Protocol):
    """What ranking needs of a potential; `onnes.learn.features.FrozenPotential` has it."""

    def attempt(self, structures: Sequence[Structure]) -> Iterator[Any]:
        """Yield an object with ``energy_eV_atom``, or an error, for each structure."""


@dataclass(frozen=True)
class Candidate:
    """A crystal proposed for a composition.

    Attributes
    ----------
    structure : pymatgen Structure
    drawn, substituted : float
        Share of the generator's draws; chance that prototype substitution gives it (`fitting`).
    energy_eV_atom : float
        NaN before `with_energies`.
    """

    structure: Structure
    drawn: float
    substituted: float
    energy_eV_atom: float = math.nan

    @property
    def votes(self) -> float:
        """Both together, the generator's with the weight `DRAWN`."""
        return DRAWN * self.drawn + self.substituted

    def score(self, scale: float = SCALE) -> float:
        """``log(votes) - energy / scale``: the higher, the likelier.

        Parameters
        ----------
        scale : float
            eV/atom; infinite for the votes alone, 0 for the energy alone.
        """
        if scale == 0.0:
            return -self.energy_eV_atom
        return math.log(self.votes) - self.energy_eV_atom / scale if self.votes > 0 else -math.inf


def frame_of(crystal: Described) -> Frame:
    """Space group, letters and elements of a described crystal."""
    return Frame(
        crystal.number,
        tuple(LETTERS.index(s.letter) for s in crystal.sites),
        tuple(atomic_numbers[s.element] for s in crystal.sites),
    )


def key_of(frame: Frame) -> tuple[Any, ...]:
    """The same for all descriptions of one occupation of one prototype."""
    sites = tuple(
        Site(LETTERS[i], chemical_symbols[z], (0.1,) * wyckoff_positions(frame.number)[i].freedom)
        for i, z in zip(frame.letters, frame.kinds, strict=True)
    )
    # Prototypes know no lengths: any cell of the family will do.
    cell = constrain(frame.number, (5.0, 5.5, 6.0, 80.0, 85.0, 95.0))
    prototype, orders = prototype_of(Described(frame.number, sites, cell))
    return prototype.number, prototype.sites, prototype.amounts, orders


def candidates(
    sampler: SymmetricSampler,
    templates: Templates | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    order: PrototypeOrder | None = None,
) -> list[Candidate]:
    """Propose crystals of the composition that the sampler was asked for.

    Parameters
    ----------
    sampler : SymmetricSampler
        Its settings name a formula; a space group and a number of atoms are kept, too.
    templates : Templates, optional
        Known crystals for prototype substitution. Where it proposes the same frame as the generator, the crystal is the
        template's.
    seed, draws : int
    order : PrototypeOrder, optional
        As for `fitting`.

    Returns
    -------
    list of Candidate
        Most votes first; every prototype and occupation of it once. At most `MOST` of either source.

    Raises
    ------
    SettingsError
        ``no-formula``; ``higher-symmetry`` as `SymmetricSampler.sample`.
    """
    wish = sampler.wish
    if not wish.formula:
        raise SettingsError("no-formula", "candidates are ranked for one composition; give --formula")
    found: dict[Any, dict[str, Any]] = {}
    for guess, chance in fitting(wish, templates, order=order) if templates is not None else []:
        frame = frame_of(guess.crystal)
        if frame.n_atoms <= sampler.sites.net.settings.max_atoms:
            new = {"frame": frame, "drawn": 0.0, "substituted": chance}
            found.setdefault(key_of(frame), new | {"structure": guess.crystal.primitive()})
    try:
        drawn = sampler.exact(draws, np.random.default_rng(seed))
    except SettingsError:
        if not found:
            raise
        drawn = []
    for frame in drawn:
        new = {"frame": frame, "drawn": 0.0, "substituted": 0.0, "structure": None}
        found.setdefault(key_of(frame), new)["drawn"] += 1.0 / len(drawn)
    chosen = _worth([found[k] for k in sorted(found, key=str)])
    bare = [c for c in chosen if c["structure"] is None]
    generator = torch.Generator().manual_seed(seed + 1)
    made = sampler.orbits.draw([c["frame"] for c in bare], generator) if bare else []
    for c, structure in zip(bare, made, strict=True):
        c["structure"] = structure
    return [Candidate(c["structure"], c["drawn"], c["substituted"]) for c in chosen]


def fitting(
    wish: Wish, templates: Templates, k: int = GUESSES, *, order: PrototypeOrder | None = None
) -> list[tuple[Guess, float]]:
    """Guesses of prototype substitution with the composition, space group and number of atoms asked for.

    Parameters
    ----------
    wish : Wish
        With a formula.
    templates : Templates
    k : int
        Guesses looked at; fewer may fit.
    order : PrototypeOrder, optional
        Other than the shipped one.

    Returns
    -------
    list of (Guess, float)
        With the chance of each, best first: the learned one where the templates hold `FEWEST` of the home data set, for
        which it was trained, otherwise the share of the votes. Empty where no template has these amounts.
    """
    name = "".join(f"{chemical_symbols[z]}{a}" for z, a in wish.formula.items())
    try:
        if learned(templates):
            guesses = (order or PrototypeOrder()).guesses(name, templates, EVERY)
        else:
            guesses = [(g, g.share) for g in substitute(name, templates, EVERY)]
    except CrystalError:
        return []
    fit = [
        (g, chance)
        for g, chance in guesses
        if wish.group in (None, g.crystal.number) and wish.atoms in (None, frame_of(g.crystal).n_atoms)
    ]
    # Group and number of atoms are certain where they are asked for: the chances of what is left add up to one.
    total = sum(c for _, c in fit) if wish.group or wish.atoms else 1.0
    return [(g, chance / total if total > 0 else 1.0 / len(fit)) for g, chance in fit[:k]]


def learned(templates: Templates) -> bool:
    """Whether the learned order is used: it needs templates of the data set that it was trained for."""
    return templates.at_home >= FEWEST


def _worth(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best of each source, most votes first."""
    kept: set[int] = set()
    for how in ("substituted", "drawn"):
        for i, c in enumerate(sorted(found, key=lambda c: -c[how])[:MOST]):
            if c[how] > 0 and (i == 0 or c[how] >= LEAST):
                kept.add(id(c))
    order = sorted(found, key=lambda c: -(c["substituted"] + DRAWN * c["drawn"]))
    return [c for c in order if id(c) in kept]


def with_energies(found: Sequence[Candidate], potential: Potential) -> list[Candidate]:
    """Give candidates the volume of lowest energy, and that energy.

    A parabola in ln V through energies at three volumes, all candidates in one batch and without forces: a fifth of the
    cost of a short relaxation.

    Parameters
    ----------
    found : sequence of Candidate
    potential : onnes.learn.features.FrozenPotential

    Returns
    -------
    list of Candidate
        In the same order. Where the potential does not know an element, or has no finite energy, it stays NaN.
    """
    strained = [_scaled(c.structure, x) for c in found for x in STRAINS]
    answers = [getattr(a, "energy_eV_atom", math.nan) for a in potential.attempt(strained)]
    done = []
    for i, c in enumerate(found):
        x, energy = lowest(answers[len(STRAINS) * i : len(STRAINS) * (i + 1)])
        structure = _scaled(c.structure, x) if math.isfinite(x) else c.structure
        done.append(replace(c, structure=structure, energy_eV_atom=energy))
    return done


def lowest(energies: Sequence[float]) -> tuple[float, float]:
    """Place and value of the minimum of the parabola through three energies at `STRAINS`.

    Parameters
    ----------
    energies : sequence of three float

    Returns
    -------
    (float, float)
        ln V relative to the middle one, at most `FARTHEST` away; the energy there. The lowest of the three where they
        do not curve upwards; NaN where one of them is.
    """
    curve = np.polynomial.Polynomial.fit(STRAINS, energies, 2) if np.isfinite(energies).all() else None
    if curve is None:
        return math.nan, math.nan
    c, b, a = (*curve.convert().coef, 0.0, 0.0)[:3]
    if a <= 1e-6:
        at = int(np.argmin(energies))
        return STRAINS[at], float(energies[at])
    x = float(np.clip(-b / (2.0 * a), -FARTHEST, FARTHEST))
    return x, float(a * x * x + b * x + c)


def _scaled(structure: Structure, x: float) -> Structure:
    out = structure.copy()
    out.scale_lattice(structure.volume * math.exp(x))
    return out


def merged(found: Sequence[Candidate]) -> list[Candidate]:
    """One candidate for equal crystals (StructureMatcher, defaults), the lower in energy, with the votes of all.

    Lowest energy first; candidates without one are left out.
    """
    out: list[Candidate] = []
    usable = [c for c in found if math.isfinite(c.energy_eV_atom)]
    for c in sorted(usable, key=lambda c: c.energy_eV_atom):
        for i, other in enumerate(out):
            near = abs(c.energy_eV_atom - other.energy_eV_atom) < SAME_ENERGY
            if near and same_crystal(c.structure, other.structure):
                out[i] = replace(
                    other, drawn=other.drawn + c.drawn, substituted=other.substituted + c.substituted
                )
                break
        else:
            out.append(c)
    return out


def ranked(found: Sequence[Candidate], scale: float = SCALE) -> list[Candidate]:
    """Best first, by `Candidate.score`.

    Parameters
    ----------
    found : sequence of Candidate
        With energies, as `with_energies` and `merged` give them.
    scale : float
        eV/atom.
    """
    return sorted(found, key=lambda c: -c.score(scale))
