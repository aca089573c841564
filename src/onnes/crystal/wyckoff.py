"""A crystal as space group, occupied Wyckoff positions, free parameters and free cell parameters, and back.

`describe` writes a crystal in the standard setting of the International Tables; `Described.structure` builds it again.
One crystal has several such descriptions (origins and axes that the group does not tell apart, equivalent points of an
orbit); `describe` chooses one of them by fixed rules, see there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.families import (
    cell_of,
    constrain,
    family,
    family_projection,
    lattice_mask,
    lattice_of,
    log_lattice,
    project_strain,
)
from onnes.crystal.formula import atomic_numbers, formula_of, numbers, symbols
from onnes.crystal.symmetry import _TIGHTEN, _quiet_moyopy
from onnes.crystal.wyckoff_table import (
    LETTERS,
    WyckoffPosition,
    changes,
    group_operations,
    valid_number,
    wyckoff_position,
    wyckoff_positions,
)
from onnes.errors import CrystalError

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = [
    "LETTERS",
    "Described",
    "Site",
    "WyckoffPosition",
    "cell_of",
    "centring_vectors",
    "constrain",
    "describe",
    "family",
    "family_projection",
    "group_operations",
    "lattice_mask",
    "log_lattice",
    "primitive_basis",
    "project_strain",
    "wyckoff_position",
    "wyckoff_positions",
]

Floats = NDArray[np.float64]

#: Fractions nearer than this are one point of an orbit (refined coordinates agree to rounding).
_SAME_POINT = 1e-4
#: Parameters and lengths are compared to this when one of several descriptions is chosen.
_DIGITS = 3


@dataclass(frozen=True)
class Site:
    """One occupied orbit.

    Attributes
    ----------
    letter : str
        Wyckoff letter.
    element : str
        Symbol.
    parameters : tuple of float
        Free parameters in [0, 1).
    """

    letter: str
    element: str
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Described:
    """A crystal by its symmetry.

    Attributes
    ----------
    number : int
        Space group.
    sites : tuple of Site
        Sorted by letter, then atomic number.
    lattice : tuple of six float
        a, b, c in A, alpha, beta, gamma in degrees of the conventional standard cell.

    Raises
    ------
    CrystalError
        ``unknown-space-group``, ``unknown-wyckoff-letter``, ``unknown-element``, ``wrong-parameters``,
        ``wrong-lattice``, ``no-atoms``.
    """

    number: int
    sites: tuple[Site, ...]
    lattice: tuple[float, ...]

    def __post_init__(self) -> None:
        valid_number(self.number)
        if not self.sites:
            raise CrystalError("no-atoms", "a crystal without sites cannot be described")
        for site in self.sites:
            if site.element not in atomic_numbers():
                raise CrystalError("unknown-element", f"{site.element!r} is not an element")
            wyckoff_position(self.number, site.letter).orbit(site.parameters)
        cell = np.asarray(self.lattice, dtype=float)
        if cell.shape != (6,) or not np.isfinite(cell).all() or (cell <= 0).any() or (cell[3:] >= 180).any():
            raise CrystalError("wrong-lattice", f"{self.lattice} are no six parameters of a cell")
        if not np.allclose(cell, constrain(self.number, self.lattice), rtol=1e-6, atol=1e-6):
            raise CrystalError(
                "wrong-lattice", f"{self.lattice} do not fit the {family(self.number)} group {self.number}"
            )

    @property
    def letters(self) -> str:
        """Letters of the sites, sorted: ``"af"``."""
        return "".join(sorted((site.letter for site in self.sites), key=LETTERS.index))

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Atoms of each site in the conventional cell."""
        return tuple(wyckoff_position(self.number, s.letter).multiplicity for s in self.sites)

    @property
    def n_atoms(self) -> int:
        """Atoms in the conventional cell."""
        return sum(self.multiplicities)

    @property
    def n_primitive(self) -> int:
        """Atoms in the primitive cell."""
        return self.n_atoms // len(centring_vectors(self.number))

    @property
    def formula(self) -> str:
        """Reduced alphabetical formula."""
        pairs = zip(self.sites, self.multiplicities, strict=True)
        return formula_of(s.element for s, m in pairs for _ in range(m))

    def _lattice(self) -> Any:
        return lattice_of(self.lattice)

    def structure(self) -> Structure:
        """Conventional cell.

        Returns
        -------
        pymatgen Structure
            Atoms in the order of the sites and of their orbits.
        """
        from pymatgen.core import Structure as PmgStructure

        orbits = [wyckoff_position(self.number, s.letter).orbit(s.parameters) for s in self.sites]
        species = [s.element for s, orbit in zip(self.sites, orbits, strict=True) for _ in orbit]
        return PmgStructure(self._lattice(), species, np.concatenate(orbits))

    def primitive(self) -> Structure:
        """Primitive cell: one of the atoms that a centring translation joins is kept.

        Returns
        -------
        pymatgen Structure
        """
        from pymatgen.core import Structure as PmgStructure

        basis = primitive_basis(self.number)
        whole = self.structure()
        frac = np.mod(whole.frac_coords @ np.linalg.inv(basis), 1.0)
        kept: list[int] = []
        start = 0
        for m in self.multiplicities:
            kept += [
                start + i for i in _distinct(frac[start : start + m], m // len(centring_vectors(self.number)))
            ]
            start += m
        names = symbols(whole)
        return PmgStructure(basis @ whole.lattice.matrix, [names[i] for i in kept], frac[kept])


def _distinct(frac: Floats, count: int) -> list[int]:
    """First of each set of equal points; centring leaves exactly ``count`` of them."""
    kept: list[int] = []
    for i, x in enumerate(frac):
        delta = frac[kept] - x
        if not kept or np.abs(delta - np.rint(delta)).max(axis=1).min() > 1e-6:
            kept.append(i)
        if len(kept) == count:
            break
    return kept


def centring_vectors(number: int) -> Floats:
    """Translations (c, 3) of a group within its conventional cell, zero among them."""
    rotations, translations = group_operations(number)
    found: Floats = translations[(rotations == np.eye(3)).all(axis=(1, 2))]
    return found


#: Rows of a primitive cell in the axes of the conventional one, by the vectors of the centring.
_PRIMITIVE = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 0.5, -0.5], [0, 0.5, 0.5]],
    "C": [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]],
    "I": [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]],
    "F": [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}


def primitive_basis(number: int) -> Floats:
    """Rows (3, 3) of the primitive cell of `Described.primitive` in the axes of the conventional one."""
    vectors = centring_vectors(number)
    if len(vectors) in (1, 3, 4):
        return np.array(_PRIMITIVE[{1: "P", 3: "R", 4: "F"}[len(vectors)]], dtype=float)
    shift = vectors[np.abs(vectors).sum(axis=1) > 0][0]
    kind = "I" if (shift > 0).all() else "A" if shift[0] == 0 else "C"
    return np.array(_PRIMITIVE[kind], dtype=float)


def describe(structure: Structure, symprec: float = 0.01, *, canonical: bool = True) -> Described:
    """Find the symmetry of a crystal and write it as orbits.

    Of the equivalent descriptions one is chosen: over the changes of origin and axes that map the group onto itself
    (`onnes.crystal.wyckoff_table.changes`; handedness is kept) first the smallest list of (letter, atomic number), then
    the smallest lengths a, b, c, then the smallest parameters, each rounded to 0.001. On axes that the group
    leaves polar, the first site is at 0. Where two choices tie to within noise, noise decides, and
    parameters (never letters) may differ. In monoclinic and triclinic groups the cell is the reduced one that
    moyopy chooses.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered structure, any cell.
    symprec : float
        Distance tolerance in A. Where the search fails it is tightened by 5, 25 and 1000.
    canonical : bool
        Without it the first description found is returned, which is faster.

    Returns
    -------
    Described

    Raises
    ------
    CrystalError
        ``symmetry-failed``.
    """
    lattice = np.array(structure.lattice.matrix, dtype=float)
    frac = np.mod(np.array(structure.frac_coords, dtype=float), 1.0)
    z = numbers(structure)
    for factor in _TIGHTEN:
        found = _standard(lattice, frac, z, symprec / factor)
        if found is None:
            continue
        number, parameters, points, kinds = found
        orbits = _orbits(number, lattice_of(parameters).matrix, points, kinds, symprec)
        if orbits is not None:
            return (_chosen if canonical else _first)(number, parameters, orbits)
    raise CrystalError("symmetry-failed", f"no symmetry found for {formula_of(symbols(structure))}")


def _standard(
    lattice: Floats, frac: Floats, z: Any, symprec: float
) -> tuple[int, tuple[float, ...], Floats, Any] | None:
    """Group, cell parameters, points and atomic numbers of the standard conventional cell."""
    moyopy = _quiet_moyopy()
    from pymatgen.core import Lattice

    cell = moyopy.Cell(lattice.tolist(), frac.tolist(), z.tolist())
    try:
        found = moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard())
    except Exception:  # moyopy raises several undocumented types; all mean "try the next tolerance"
        return None
    std = found.std_cell
    kinds = np.array(std.numbers, dtype=int)
    # The standard cell must hold the same composition as the input.
    here, there = Counter(z.tolist()), Counter(kinds.tolist())
    if any(here[k] * len(kinds) != there[k] * len(z) for k in here | there):
        return None
    basis = Lattice(np.array(std.basis))
    parameters = constrain(int(found.number), (*basis.abc, *basis.angles))
    return int(found.number), parameters, np.mod(np.array(std.positions), 1.0), kinds


#: Letter index, atomic number and a point of each orbit.
_Orbit = tuple[int, int, Floats]


def _orbits(number: int, lattice: Floats, points: Floats, kinds: Any, symprec: float) -> list[_Orbit] | None:
    """Orbits of the atoms of a standard cell; None when they do not close under the group."""
    rotations, translations = group_operations(number)
    free = np.ones(len(points), dtype=bool)
    out: list[_Orbit] = []
    for i in range(len(points)):
        if not free[i]:
            continue
        moved = rotations @ points[i] + translations
        delta = points[None, :, :] - moved[:, None, :]
        delta -= np.rint(delta)
        far = np.sqrt(((delta @ lattice) ** 2).sum(-1))
        far[:, kinds != kinds[i]] = np.inf
        members = np.unique(far.argmin(axis=1))
        if far.min(axis=1).max() > max(symprec, 1e-3) or not free[members].all():
            return None
        free[members] = False
        position = _position(number, lattice, points[i], len(members))
        if position is None:
            return None
        out.append((position.index, int(kinds[i]), points[i]))
    return out


def _position(number: int, lattice: Floats, point: Floats, size: int) -> WyckoffPosition | None:
    """Position of ``size`` points whose subspaces come nearest to a point."""
    fitting = [p for p in wyckoff_positions(number) if p.multiplicity == size]
    near = [p.project(point, lattice)[1] for p in fitting]
    if not fitting or min(near) > 0.05:
        return None
    return fitting[int(np.argmin(near))]


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.round(np.array(list(values)), _DIGITS))


def _first(number: int, parameters: tuple[float, ...], orbits: Sequence[_Orbit]) -> Described:
    """The description that moyopy's cell gives."""
    from ase.data import chemical_symbols

    every = wyckoff_positions(number)
    sites = sorted((letter, z, tuple(every[letter].project(x)[0].tolist())) for letter, z, x in orbits)
    return Described(
        number, tuple(Site(LETTERS[letter], chemical_symbols[z], u) for letter, z, u in sites), parameters
    )


def _chosen(number: int, parameters: tuple[float, ...], orbits: Sequence[_Orbit]) -> Described:
    """Of all equivalent descriptions, the one that comes first."""
    from ase.data import chemical_symbols

    known = changes(number)
    keys = [
        tuple(sorted((int(known.letters[c][letter]), z) for letter, z, _ in orbits))
        for c in range(len(known.shifts))
    ]
    first = min(keys)
    best: tuple[Any, ...] | None = None
    for c, key in enumerate(keys):
        if key != first:
            continue
        lengths = tuple(float(x) for x in np.abs(known.matrices[c]) @ parameters[:3])
        if 143 <= number <= 194:
            lengths = (parameters[0], parameters[1], parameters[2])
        moved = [
            (int(known.letters[c][letter]), z, known.matrices[c] @ x + known.shifts[c])
            for letter, z, x in orbits
        ]
        for shifted in _polar_shifts(number, known.polar, moved):
            sites = sorted((letter, z, _parameters(number, letter, x)) for letter, z, x in shifted)
            rank = (_rounded(lengths), [(a, z, _rounded(np.mod(_rounded(u), 1.0))) for a, z, u in sites])
            if best is None or rank < best[0]:
                best = (rank, lengths, sites)
    assert best is not None
    _, lengths, sites = best
    return Described(
        number,
        tuple(Site(LETTERS[letter], chemical_symbols[z], u) for letter, z, u in sites),
        constrain(number, (*lengths, *parameters[3:])),
    )


def _polar_shifts(number: int, polar: NDArray[np.bool_], orbits: list[_Orbit]) -> list[list[_Orbit]]:
    """The orbits with each site that could be the first at 0 on the polar axes."""
    if not polar.any():
        return [orbits]
    smallest = min((letter, z) for letter, z, _ in orbits)
    out = []
    rotations, translations = group_operations(number)
    for letter, z, x in orbits:
        if (letter, z) != smallest:
            continue
        # Points of one orbit can lie at different heights (screw axes, glides, centring): each is tried.
        heights = np.mod((rotations @ x + translations)[:, polar], 1.0)
        _, first = np.unique(np.round(heights, 6), axis=0, return_index=True)
        for height in heights[first]:
            shift = np.zeros(3)
            shift[polar] = -height
            out.append([(a, k, y + shift) for a, k, y in orbits])
    return out


def _parameters(number: int, letter: int, x: Floats) -> tuple[float, ...]:
    """Smallest parameters of the position that make the orbit of a point."""
    position = wyckoff_positions(number)[letter]
    if position.freedom == 0:
        return ()
    u, distance = position.nearest(x)
    u = u[distance <= distance.min() + _SAME_POINT]
    # A value just below 1 is a rounded 0, and comparison must not see the difference.
    rounded = np.mod(np.round(u, _DIGITS), 1.0)
    row = u[np.lexsort(rounded.T[::-1])[0]]
    # Sites are sorted by these numbers: a 0 that rounding left just below 1 must not go to the end.
    return tuple(float(v) for v in np.where(row > 1.0 - 1e-6, 0.0, row))
