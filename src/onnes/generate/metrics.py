"""Metrics of generated crystals as the field computes them, whoever generated them.

Every figure carries its n and a 95 % interval: Wilson's for shares, bootstrap over crystals for the rest. Where a
figure has no natural scale (coverage, Wasserstein distances) the same figure between two random halves of the reference
stands beside it: what a perfect generator would reach with that many crystals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.amd import amd, same_crystal
from onnes.crystal.formula import atomic_numbers, reduced_formula, symbols
from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError, SettingsError
from onnes.generate.prototypes import element_features
from onnes.generate.shares import Figure, resampled, share
from onnes.generate.validity import STRICT_DISTANCE_A, compositionally_valid, shortest, structurally_valid

if TYPE_CHECKING:
    from pymatgen.core import Structure

Floats = NDArray[np.float64]

#: Two crystals cover each other when their average minimum distances differ by less than this (mean of absolute
#: differences in units of (V/n)^(1/3)), and their compositions by less than that (`composition_vector`).
COVER_STRUCTURE, COVER_COMPOSITION = 0.05, 0.5
MANY_ELEMENTS = 5
#: Tolerances of the two matchers used for structure prediction.
LOOSE = {"stol": 0.5, "ltol": 0.3, "angle_tol": 10}
DEFAULT = {"stol": 0.3, "ltol": 0.2, "angle_tol": 5}


@dataclass
class Report:
    """All figures of one set of crystals.

    Attributes
    ----------
    figures : dict of str to Figure
    baselines : dict of str to Figure
        The same figure between halves of the reference, where there is one.
    space_groups : dict of int to int
        Crystals of each space group.
    notes : list of str
        What was left out and which definitions were used.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    baselines: dict[str, Figure] = field(default_factory=dict)
    space_groups: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "figures": {k: f.to_dict() for k, f in self.figures.items()},
            "reference_halves": {k: f.to_dict() for k, f in self.baselines.items()},
            "space_groups": {str(k): n for k, n in sorted(self.space_groups.items())},
            "notes": self.notes,
        }


def composition_vector(structure: Structure) -> Floats:
    """Mean and mean absolute deviation over atoms of the features of the elements.

    Parameters
    ----------
    structure : pymatgen Structure

    Returns
    -------
    ndarray, shape (8,)
        In the units of `onnes.generate.prototypes.element_features`.
    """
    z = [min(atomic_numbers()[s], len(element_features()) - 1) for s in symbols(structure)]
    rows = element_features()[z]
    mean = rows.mean(axis=0)
    return np.concatenate([mean, np.abs(rows - mean).mean(axis=0)])


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of a set of crystals.

    Attributes
    ----------
    structure : ndarray, shape (n, 24)
    composition : ndarray, shape (n, 8)
    """

    structure: Floats
    composition: Floats

    @classmethod
    def of(cls, structures: Iterable[Structure]) -> Fingerprints:
        """Compute those of structures with distinct atoms."""
        rows = [(amd(s), composition_vector(s)) for s in structures]
        if not rows:
            return cls(np.zeros((0, 24)), np.zeros((0, 8)))
        return cls(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))

    def __getitem__(self, pick: NDArray[np.intp]) -> Fingerprints:
        return Fingerprints(self.structure[pick], self.composition[pick])

    def __len__(self) -> int:
        return len(self.structure)


def covered(a: Fingerprints, b: Fingerprints) -> NDArray[np.bool_]:
    """Which crystals of a have one of b near in structure and composition.

    Parameters
    ----------
    a, b : Fingerprints

    Returns
    -------
    ndarray of bool, shape (len(a),)
    """
    out = np.zeros(len(a), dtype=bool)
    if not len(b):
        return out
    for i in range(len(a)):
        d = np.sqrt(((b.composition - a.composition[i]) ** 2).mean(axis=1))
        near = d < COVER_COMPOSITION
        if near.any():
            out[i] = np.abs(b.structure[near] - a.structure[i]).mean(axis=1).min() < COVER_STRUCTURE
    return out


def unique(structures: Sequence[Structure]) -> NDArray[np.bool_]:
    """Which crystals are unlike every earlier one: StructureMatcher (defaults) within a formula.

    Parameters
    ----------
    structures : sequence of pymatgen Structure

    Returns
    -------
    ndarray of bool, shape (n,)
        The first of each set of equals is True.
    """
    kept: dict[str, list[Structure]] = {}
    out = np.zeros(len(structures), dtype=bool)
    for i, s in enumerate(structures):
        others = kept.setdefault(reduced_formula(s), [])
        out[i] = not any(same_crystal(s, o) for o in others)
        if out[i]:
            others.append(s)
    return out


def unlike(reference: Iterable[Structure]) -> Callable[[Structure], bool]:
    """Make a judge of novelty: True for a crystal that equals none of the reference (StructureMatcher, defaults).

    Parameters
    ----------
    reference : iterable of pymatgen Structure

    Returns
    -------
    callable
        ``structure -> bool``.
    """
    known: dict[str, list[Structure]] = {}
    for s in reference:
        known.setdefault(reduced_formula(s), []).append(s)
    return lambda s: not any(same_crystal(s, o) for o in known.get(reduced_formula(s), []))


def displacement(generated: Structure, relaxed: Structure) -> float:
    """Root mean square displacement of the atoms on relaxation, A.

    Atoms keep their order; fractional displacements are minimum images with their mean taken off (the origin is free),
    in the mean of both cells.

    Parameters
    ----------
    generated, relaxed : pymatgen Structure
        Of the same sites in the same order.

    Returns
    -------
    float

    Raises
    ------
    CrystalError
        ``different-atoms``.
    """
    if symbols(generated) != symbols(relaxed):
        raise CrystalError("different-atoms", "generated and relaxed crystal do not have the same sites")
    delta = np.array(relaxed.frac_coords) - np.array(generated.frac_coords)
    # Relative to the first atom, so that a common shift of about half a cell does not wrap some atoms only.
    delta -= delta[0]
    delta -= np.rint(delta)
    delta -= delta.mean(axis=0)
    cell = 0.5 * (np.array(generated.lattice.matrix) + np.array(relaxed.lattice.matrix))
    return float(np.sqrt(((delta @ cell) ** 2).sum(axis=1).mean()))


def prediction(
    guesses: Sequence[Sequence[Structure]],
    truth: Sequence[Structure],
    tolerances: Mapping[str, float] = DEFAULT,
) -> dict[str, Figure]:
    """Structure prediction: how often the first guess, or any, is the true crystal, and how near.

    Parameters
    ----------
    guesses : sequence of sequences of pymatgen Structure
        For each target, best first; may be empty.
    truth : sequence of pymatgen Structure
    tolerances : mapping
        ``stol``, ``ltol``, ``angle_tol`` of pymatgen's StructureMatcher; volumes are scaled to each other.

    Returns
    -------
    dict of str to Figure
        ``match_rate_first``, ``match_rate_any`` over all targets; ``rmsd_first``, ``rmsd_any`` over those matched, in
        units of (V/n)^(1/3), the smallest of all guesses for any.

    Raises
    ------
    SettingsError
        ``length-mismatch``.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if len(guesses) != len(truth):
        raise SettingsError("length-mismatch", f"{len(guesses)} lists of guesses for {len(truth)} targets")
    matcher = StructureMatcher(
        stol=tolerances["stol"], ltol=tolerances["ltol"], angle_tol=tolerances["angle_tol"]
    )
    first, best = [], []
    for each, true in zip(guesses, truth, strict=True):
        found = [matcher.get_rms_dist(true, g) for g in each]
        near = [float(f[0]) for f in found if f is not None]
        if found and found[0] is not None:
            first.append(float(found[0][0]))
        if near:
            best.append(min(near))
    return {
        "match_rate_first": share(len(first), len(truth)),
        "match_rate_any": share(len(best), len(truth)),
        "rmsd_first": resampled(np.mean, first),
        "rmsd_any": resampled(np.mean, best),
    }


def measure(
    structures: Sequence[Structure],
    *,
    reference: Sequence[Structure] | None = None,
    refused: int = 0,
    novel: Callable[[Structure], bool] | None = None,
    relaxed: Sequence[tuple[Structure, Structure]] | None = None,
    energies: tuple[Sequence[float], Sequence[float]] | None = None,
    symprec: float = 0.1,
    seed: int = 0,
    variety: bool = True,
) -> Report:
    """All metrics of a set of crystals.

    Parameters
    ----------
    structures : sequence of pymatgen Structure
        Ordered crystals.
    reference : sequence of pymatgen Structure, optional
        Training or test crystals, for coverage and distributions; without `novel` also for novelty.
    refused : int
        Crystals that could not be read; they count as invalid.
    novel : callable, optional
        ``structure -> bool``.
    relaxed : sequence of pairs, optional
        Generated and relaxed crystal, sites in the same order.
    energies : (generated, reference), optional
        Formation energies, eV/atom.
    symprec : float
        Of the space groups, A; generated crystals are only nearly symmetric, 0.1 is usual.
    seed : int
        Of halves and bootstrap.
    variety : bool
        Whether crystals are compared with each other and with the known ones, which takes quadratic time where all have
        one composition.

    Returns
    -------
    Report

    Raises
    ------
    SettingsError
        ``no-crystals``.
    """
    if not len(structures) + refused:
        raise SettingsError("no-crystals", "there is no crystal to evaluate")
    out = Report()
    valid = _validity(out, structures, refused)
    sound = [s for s, v in zip(structures, valid, strict=True) if v]
    _composition(out, structures)
    _symmetry(out, sound, symprec)
    if variety:
        _variety(out, sound, len(structures) + refused, novel or (unlike(reference) if reference else None))
    if reference:
        _against(out, sound, reference, seed)
    if energies is not None:
        _distance(out, "wasserstein_formation_energy_eV_atom", energies[0], energies[1], seed)
    if relaxed:
        _relaxation(out, relaxed, seed)
    return out


def _validity(out: Report, structures: Sequence[Structure], refused: int) -> list[bool]:
    n = len(structures) + refused
    near = [shortest(s) for s in structures]
    valid = [structurally_valid(s) for s in structures]
    balanced = [compositionally_valid(s) for s in structures]
    out.figures["structural_validity"] = share(sum(valid), n)
    out.figures["min_distance_above_1.5_A"] = share(sum(d > STRICT_DISTANCE_A for d in near), n)
    out.figures["compositional_validity"] = share(sum(balanced), n)
    out.figures["valid"] = share(sum(a and b for a, b in zip(valid, balanced, strict=True)), n)
    if refused:
        out.notes.append(f"{refused} crystals could not be read or were refused; they count as invalid")
    return valid


def _composition(out: Report, structures: Sequence[Structure]) -> None:
    n = len(structures)
    many = sum(len(set(symbols(s))) >= MANY_ELEMENTS for s in structures)
    out.figures["five_or_more_elements"] = share(many, n)
    out.figures["mean_atoms_in_cell"] = resampled(np.mean, [len(s) for s in structures])


def _symmetry(out: Report, sound: Sequence[Structure], symprec: float) -> None:
    count: Counter[int] = Counter()
    for s in sound:
        try:
            count[space_group(s, symprec)[0]] += 1
        except CrystalError:
            count[1] += 1
    out.space_groups = dict(sorted(count.items()))
    out.figures["P1_share"] = share(count[1], len(sound))
    out.notes.append(f"space groups at {symprec:g} A, of the structurally valid")


def _variety(
    out: Report, sound: Sequence[Structure], n: int, novel: Callable[[Structure], bool] | None
) -> None:
    first = unique(sound)
    out.figures["unique"] = share(int(first.sum()), n)
    if novel is None:
        return
    new = np.array([bool(novel(s)) for s in sound], dtype=bool)
    out.figures["novel"] = share(int(new.sum()), n)
    out.figures["unique_and_novel"] = share(int((first & new).sum()), n)


def _against(out: Report, sound: Sequence[Structure], reference: Sequence[Structure], seed: int) -> None:
    ours, theirs = Fingerprints.of(sound), Fingerprints.of(reference)
    order = np.random.default_rng(seed).permutation(len(theirs))
    left, right = np.sort(order[::2]), np.sort(order[1::2])
    for name, a, b, c, d in (
        ("coverage_recall", theirs, ours, theirs[left], theirs[right]),
        ("coverage_precision", ours, theirs, theirs[right], theirs[left]),
    ):
        out.figures[name] = share(int(covered(a, b).sum()), len(a))
        out.baselines[name] = share(int(covered(c, d).sum()), len(c))
    out.notes.append(
        f"coverage: average minimum distances within {COVER_STRUCTURE:g} and composition features within "
        f"{COVER_COMPOSITION:g} (CDVAE uses CrystalNN and Magpie fingerprints: other numbers)"
    )
    columns: dict[str, Callable[[Structure], float]] = {
        "wasserstein_density_g_cm3": lambda s: float(s.density),
        "wasserstein_elements": lambda s: float(len(set(symbols(s)))),
        "wasserstein_atoms": lambda s: float(len(s)),
    }
    for name, column in columns.items():
        _distance(out, name, [column(s) for s in sound], [column(s) for s in reference], seed)


def _distance(out: Report, name: str, ours: Sequence[float], theirs: Sequence[float], seed: int) -> None:
    from scipy.stats import wasserstein_distance

    out.figures[name] = resampled(wasserstein_distance, ours, theirs, seed=seed)
    values = np.asarray(theirs, dtype=float)
    order = np.random.default_rng(seed).permutation(len(values))
    out.baselines[name] = resampled(wasserstein_distance, values[order[::2]], values[order[1::2]], seed=seed)


def _relaxation(out: Report, relaxed: Sequence[tuple[Structure, Structure]], seed: int) -> None:
    moved, volume, lost = [], [], 0
    for before, after in relaxed:
        try:
            moved.append(displacement(before, after))
        except CrystalError:
            lost += 1
            continue
        volume.append(abs(after.volume / before.volume - 1.0))
    out.figures["rmsd_to_relaxed_A"] = resampled(np.mean, moved, seed=seed)
    out.figures["median_rmsd_to_relaxed_A"] = resampled(np.median, moved, seed=seed)
    out.figures["relative_volume_change"] = resampled(np.mean, volume, seed=seed)
    if lost:
        out.notes.append(f"{lost} relaxed crystals do not have the sites of the generated ones")
