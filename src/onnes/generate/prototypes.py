"""Prototype substitution: known crystals with their elements exchanged for others like them.

The baseline that a generator of crystals has to beat, and a generator itself. A template is a known crystal written by
`onnes.crystal.wyckoff.describe`; its prototype is the space group with the occupied Wyckoff positions, elements
replaced by labels. For a composition, every template with the same amounts is a candidate for each assignment of
elements to labels. Templates vote for their prototype with ``exp(-d / TEMPERATURE)``, d the mean distance per atom
between the elements that are exchanged; the crystal of a prototype is that of its nearest template, with the volume
scaled by the volumes of the elements.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.families import lattice_of
from onnes.crystal.formula import atomic_numbers, covalent_radii
from onnes.crystal.wyckoff import LETTERS, Described, describe
from onnes.crystal.wyckoff_table import changes
from onnes.errors import CrystalError, SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

Floats = NDArray[np.float64]

#: Of the votes, in units of the distance between elements.
TEMPERATURE = 0.05
#: At which votes are kept as `Evidence`, and the distance to a template that does not exist.
TEMPERATURES, FAR = (0.03, 0.05, 0.1, 0.2, 0.4), 9.0
#: Guesses of each kind that `pool` keeps.
POOL = 8
#: More elements than this have too many assignments to try.
MAX_ELEMENTS = 6
_MAX_Z = 103


@dataclass(frozen=True)
class Prototype:
    """Space group and occupied positions, elements replaced by labels.

    Attributes
    ----------
    number : int
        Space group.
    sites : tuple of (int, int)
        Index of the Wyckoff letter and label of the element, sorted.
    amounts : tuple of int
        Atoms of each label in the reduced formula.
    """

    number: int
    sites: tuple[tuple[int, int], ...]
    amounts: tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """A known crystal and its prototype.

    Attributes
    ----------
    id : str
    crystal : Described
    prototype : Prototype
    orders : tuple of tuple of str
        Element of each label; several where exchanging elements gives the same prototype (NaCl).
    home : bool
        Whether it comes from the data set whose like is looked for; see `Evidence`.
    """

    id: str
    crystal: Described
    prototype: Prototype
    orders: tuple[tuple[str, ...], ...]
    home: bool = False


@dataclass(frozen=True)
class Evidence:
    """What templates say about one prototype with one assignment of elements.

    Two rows: all templates, and those of the ``home`` data set alone. What a data set holds is a choice (metals with a
    high Debye temperature, say), and its own crystals tell that choice.

    Attributes
    ----------
    votes : float array, shape (2, 5)
        Sums of ``exp(-d / T)`` for each T of `TEMPERATURES`.
    nearest : (float, float)
        Distance to the nearest template; `FAR` where there is none.
    home : int
        Templates of the home data set with this prototype.
    """

    votes: Floats
    nearest: tuple[float, float]
    home: int


@dataclass(frozen=True)
class Guess:
    """A crystal proposed for a composition.

    Attributes
    ----------
    crystal : Described
    prototype : Prototype
    template : str
        Id of the crystal whose elements were exchanged.
    distance : float
        Mean distance between exchanged elements per atom.
    share : float
        Of all votes.
    evidence : Evidence
    """

    crystal: Described
    prototype: Prototype
    template: str
    distance: float
    share: float
    evidence: Evidence


def prototype_of(crystal: Described) -> tuple[Prototype, tuple[tuple[str, ...], ...]]:
    """Prototype of a crystal, the same for all its equivalent descriptions.

    Parameters
    ----------
    crystal : Described

    Returns
    -------
    Prototype
        The smallest list of (letter, label) over changes of origin and axes and all labellings in the order of
        falling amounts.
    tuple of tuple of str
        The element of each label, for every labelling that gives it.
    """
    count: Counter[str] = Counter()
    for site, m in zip(crystal.sites, crystal.multiplicities, strict=True):
        count[site.element] += m
    unit = math.gcd(*count.values())
    index = [LETTERS.index(s.letter) for s in crystal.sites]
    exchanged = np.unique(changes(crystal.number).letters[:, index], axis=0)
    best: tuple[tuple[int, int], ...] | None = None
    orders: set[tuple[str, ...]] = set()
    for order in _labellings(count):
        label = {element: i for i, element in enumerate(order)}
        labels = [label[s.element] for s in crystal.sites]
        for row in exchanged.tolist():
            key = tuple(sorted(zip(row, labels, strict=True)))
            if best is None or key < best:
                best, orders = key, set()
            if key == best:
                orders.add(order)
    assert best is not None
    amounts = tuple(sorted((n // unit for n in count.values()), reverse=True))
    return Prototype(crystal.number, best, amounts), tuple(sorted(orders))


def _labellings(count: Mapping[str, int]) -> Iterable[tuple[str, ...]]:
    """Elements by falling amount, in every order of those with equal amounts."""
    by_amount: dict[int, list[str]] = defaultdict(list)
    for element, n in sorted(count.items()):
        by_amount[n].append(element)
    parts = [list(permutations(by_amount[n])) for n in sorted(by_amount, reverse=True)]
    return (tuple(e for part in parts_ for e in part) for parts_ in product(*parts))


def template(id: str, structure: Structure, symprec: float = 0.01, *, home: bool = False) -> Template:
    """Make a template of a structure.

    Parameters
    ----------
    id : str
    structure : pymatgen Structure
    symprec : float
        Tolerance of the symmetry search in A.
    home : bool
        As `Template.home`.

    Returns
    -------
    Template

    Raises
    ------
    CrystalError
        ``symmetry-failed``; ``too-many-elements``.
    """
    # Any description will do: the prototype is the same for all.
    crystal = describe(structure, symprec, canonical=False)
    if len({site.element for site in crystal.sites}) > MAX_ELEMENTS:
        raise CrystalError(
            "too-many-elements", f"{crystal.formula}: templates have at most {MAX_ELEMENTS} elements"
        )
    return Template(id, crystal, *prototype_of(crystal), home=home)


@lru_cache(maxsize=1)
def element_features() -> Floats:
    """Features of the elements, scaled so that a difference of 1 is a clear one.

    Mendeleev number / 10, electronegativity (Pauling) / 0.5, covalent radius / 0.2 A and group / 4 (values of
    pymatgen and of `onnes.crystal.formula.covalent_radii`).

    Returns
    -------
    ndarray, shape (104, 4)
        By atomic number; row 0 is not used.
    """
    import warnings

    from pymatgen.core import Element

    features = np.zeros((_MAX_Z + 1, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # light noble gases have no electronegativity
        for z in range(1, _MAX_Z + 1):
            element = Element.from_Z(z)
            x = element.X
            features[z] = (
                element.mendeleev_no / 10.0,
                (2.2 if not math.isfinite(x) else x) / 0.5,
                covalent_radii()[z] / 0.2,
                element.group / 4.0,
            )
    return features


@lru_cache(maxsize=1)
def element_distances() -> Floats:
    """Distances between elements: root mean square differences of `element_features`.

    Returns
    -------
    ndarray, shape (104, 104)
        By atomic number; row and column 0 are not used.
    """
    features = element_features()
    delta = features[:, None, :] - features[None, :, :]
    found: Floats = np.sqrt((delta**2).mean(-1))
    return found


def atomic_volumes(crystals: Iterable[Described]) -> Floats:
    """Volumes of the elements in crystals: ridge regression of the volume per atom on the fractions of the elements.

    Parameters
    ----------
    crystals : iterable of Described

    Returns
    -------
    ndarray, shape (104,)
        A^3 by atomic number, at least 2. An element that does not occur keeps the prior, that of a sphere packing
        (0.64) of its covalent radius.
    """
    prior = 4.0 / 3.0 * np.pi * covalent_radii()[: _MAX_Z + 1] ** 3 / 0.64
    rows, rest = [], []
    for crystal in crystals:
        share = np.zeros(_MAX_Z + 1)
        for site, m in zip(crystal.sites, crystal.multiplicities, strict=True):
            share[atomic_numbers()[site.element]] += m / crystal.n_atoms
        rows.append(share)
        rest.append(lattice_of(crystal.lattice).volume / crystal.n_atoms - share @ prior)
    if not rows:
        return prior
    x, y = np.array(rows), np.array(rest)
    found: Floats = np.maximum(prior + np.linalg.solve(x.T @ x + 0.1 * np.eye(len(prior)), x.T @ y), 2.0)
    return found


class Templates:
    """Templates, sorted for substitution.

    Parameters
    ----------
    templates : iterable of Template
    distances : ndarray, shape (104, 104), optional
        Between elements; `element_distances` by default.
    temperature : float
        Of the votes.
    """

    def __init__(
        self,
        templates: Iterable[Template],
        *,
        distances: Floats | None = None,
        temperature: float = TEMPERATURE,
    ) -> None:
        self.distances = element_distances() if distances is None else distances
        self.temperature = temperature
        self._rows: dict[tuple[int, ...], dict[Prototype, list[Template]]] = {}
        for t in templates:
            self._rows.setdefault(t.prototype.amounts, {}).setdefault(t.prototype, []).append(t)
        self.volumes = atomic_volumes(t.crystal for t in self)
        #: Crystals of the home data set that were looked at; more than are kept, where only some amounts are wanted.
        self.at_home = sum(t.home for t in self)

    def __iter__(self) -> Iterator[Template]:
        return (t for group in self._rows.values() for rows in group.values() for t in rows)

    def __len__(self) -> int:
        return sum(len(rows) for group in self._rows.values() for rows in group.values())

    def of(self, amounts: tuple[int, ...]) -> Mapping[Prototype, list[Template]]:
        """Templates with these amounts (falling), by prototype."""
        return self._rows.get(amounts, {})


@dataclass
class _Candidate:
    """Votes for one prototype with one assignment of elements."""

    prototype: Prototype
    votes: float
    distance: float
    template: Template
    exchange: dict[str, str]
    evidence: Evidence


def substitute(composition: str | Mapping[str, float], templates: Templates, k: int = 6) -> list[Guess]:
    """Crystals of a composition from templates with other elements.

    Parameters
    ----------
    composition : str or mapping
        Formula (``"MgB2"``) or amounts of the elements.
    templates : Templates
    k : int
        Guesses wanted; fewer come where fewer prototypes have these amounts.

    Returns
    -------
    list of Guess
        The prototype with most votes first; prototype or assignment of elements differ between any two.

    Raises
    ------
    CrystalError
        ``no-template`` when no template has these amounts.
    SettingsError
        ``bad-composition`` for an unknown element, amounts that are not whole, or too many elements.
    """
    found, total = _found(composition, templates)
    found.sort(key=lambda c: (-c.votes, c.distance, c.template.id))
    return [_guess(c, templates, total) for c in found[:k]]


def pool(composition: str | Mapping[str, float], templates: Templates) -> tuple[list[Guess], Floats]:
    """Guesses that are worth a closer look, and the evidence of all.

    Parameters
    ----------
    composition, templates
        As for `substitute`.

    Returns
    -------
    list of Guess
        The `POOL` with most votes at a low and at a high temperature and among templates of the home data set; most
        votes first.
    ndarray, shape (2, 5)
        Votes of all guesses together, as in `Evidence`.

    Raises
    ------
    CrystalError, SettingsError
        As for `substitute`.
    """
    found, total = _found(composition, templates)
    found.sort(key=lambda c: (-c.votes, c.distance, c.template.id))
    votes = np.array([c.evidence.votes for c in found])
    kept: set[int] = set()
    for row, column in ((0, 1), (0, 3), (1, 2)):
        kept |= set(np.argsort(-votes[:, row, column], kind="stable")[:POOL].tolist())
    return [_guess(found[i], templates, total) for i in sorted(kept)], votes.sum(axis=0)


def _found(composition: str | Mapping[str, float], templates: Templates) -> tuple[list[_Candidate], float]:
    """All candidates and the sum of their votes."""
    amounts = _amounts(composition)
    falling = tuple(sorted(amounts.values(), reverse=True))
    groups = templates.of(falling)
    if not groups:
        raise CrystalError("no-template", f"no template has the amounts {falling} of {composition}")
    targets = list(_labellings(amounts))
    found = [c for p, rows in groups.items() for c in _candidates(p, rows, targets, templates)]
    return found, sum(c.votes for c in found)


def _amounts(composition: str | Mapping[str, float]) -> dict[str, int]:
    from pymatgen.core import Composition

    try:
        parsed = Composition(composition).get_el_amt_dict()
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError("bad-composition", f"{composition!r} is no composition: {error}") from error
    unknown = [e for e in parsed if atomic_numbers().get(e, 999) > _MAX_Z]
    whole = {e: round(n) for e, n in parsed.items()}
    if not parsed or unknown or any(abs(n - whole[e]) > 1e-6 or whole[e] < 1 for e, n in parsed.items()):
        raise SettingsError(
            "bad-composition", f"{composition!r}: whole amounts of elements H to Lr are needed"
        )
    if len(parsed) > MAX_ELEMENTS:
        raise SettingsError("bad-composition", f"{composition!r} has more than {MAX_ELEMENTS} elements")
    unit = math.gcd(*whole.values())
    return {e: n // unit for e, n in whole.items()}


def _candidates(
    prototype: Prototype, rows: list[Template], targets: list[tuple[str, ...]], templates: Templates
) -> list[_Candidate]:
    z = atomic_numbers()
    # Exchanges of labels that leave the prototype as it is: the same for all its templates.
    first = rows[0].orders[0]
    same = [[first.index(e) for e in order] for order in rows[0].orders]
    known = np.array([[z[e] for e in t.orders[0]] for t in rows])
    home = np.array([t.home for t in rows])
    weights = np.array(prototype.amounts) / sum(prototype.amounts)
    out, done = [], set()
    for target in targets:
        name = min(tuple(target[i] for i in s) for s in same)
        if name in done:
            continue
        done.add(name)
        wanted = np.array([z[e] for e in target])
        d = np.stack([templates.distances[wanted, known[:, s]] @ weights for s in same])
        nearest = d.min(axis=0)
        at = int(nearest.argmin())
        by = same[int(d[:, at].argmin())]
        exchange = {rows[at].orders[0][s]: e for s, e in zip(by, target, strict=True)}
        votes = float(np.exp(-nearest / templates.temperature).sum())
        seen = _evidence(nearest, home)
        out.append(_Candidate(prototype, votes, float(nearest[at]), rows[at], exchange, seen))
    return out


def _evidence(nearest: Floats, home: NDArray[np.bool_]) -> Evidence:
    each = np.exp(-nearest[:, None] / np.array(TEMPERATURES))
    least = float(nearest[home].min()) if home.any() else FAR
    return Evidence(
        np.stack([each.sum(axis=0), each[home].sum(axis=0)]), (float(nearest.min()), least), int(home.sum())
    )


def _guess(candidate: _Candidate, templates: Templates, total: float) -> Guess:
    crystal, z = candidate.template.crystal, atomic_numbers()
    before = after = 0.0
    for site, m in zip(crystal.sites, crystal.multiplicities, strict=True):
        before += m * templates.volumes[z[site.element]]
        after += m * templates.volumes[z[candidate.exchange[site.element]]]
    scale = float((after / before) ** (1.0 / 3.0))
    exchanged = (replace(s, element=candidate.exchange[s.element]) for s in crystal.sites)
    sites = sorted(exchanged, key=lambda s: (LETTERS.index(s.letter), z[s.element], s.parameters))
    lattice = (*(x * scale for x in crystal.lattice[:3]), *crystal.lattice[3:])
    return Guess(
        Described(crystal.number, tuple(sites), lattice),
        candidate.prototype,
        candidate.template.id,
        candidate.distance,
        candidate.votes / total if total > 0 else 0.0,
        candidate.evidence,
    )
