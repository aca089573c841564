"""Ordered models of disordered crystals: smallest fitting supercell, like atoms kept apart."""

from __future__ import annotations

from itertools import product

import numpy as np

from onnes.crystal.parsed import Parsed, Site, Species
from onnes.errors import CrystalError

#: One species at this occupancy or more is an ordered site.
FULL = 0.999
#: Largest supercell tried, in multiples of the given cell.
MAX_MULTIPLE = 8
#: Occupancies may be off by this much in the ordered model.
OCCUPANCY_TOLERANCE = 0.02

_RESTARTS = 6


def disordered(site: Site) -> bool:
    """Return whether a site holds several elements or is partly empty."""
    inside = site.occupancies()
    return len(inside) != 1 or next(iter(inside.values())) < FULL


def order(parsed: Parsed, max_atoms: int) -> tuple[Parsed, dict[str, object]]:
    """Replace shared and partly empty sites by an ordered arrangement.

    Sites with the same content form a sublattice. The smallest supercell (up to 8 cells) is taken in which
    every sublattice holds whole numbers of each element. Within it atoms of one kind are placed as far from
    each other as a descent by exchanges finds, i.e. the sum of ``1/d**2`` over like pairs is a minimum;
    this is a geometric choice, not the ground state. No element is ever lost by rounding.

    Parameters
    ----------
    parsed : Parsed
        Crystal with at least one disordered site.
    max_atoms : int
        Largest supercell.

    Returns
    -------
    Parsed
        Ordered crystal.
    dict
        What was done: ``supercell`` (3 ints), ``occupancies`` (list of str).

    Raises
    ------
    CrystalError
        ``cannot-order`` when no small supercell holds the occupancies.
    """
    groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for k, site in enumerate(parsed.sites):
        if disordered(site):
            key = tuple(sorted((s, round(x, 4)) for s, x in site.occupancies().items()))
            groups.setdefault(key, []).append(k)
    for multiple in range(1, MAX_MULTIPLE + 1):
        counts = [_counts(dict(key), multiple * len(sites)) for key, sites in groups.items()]
        if multiple * len(parsed.sites) <= 2 * max_atoms and all(c is not None for c in counts):
            shape = _shape(parsed.lattice, multiple)
            done = _fill(parsed, shape, list(groups.values()), [c for c in counts if c is not None])
            note = {
                "supercell": list(shape),
                "occupancies": [parsed.sites[g[0]].describe() for g in groups.values()],
            }
            return done, dict(note)
    raise CrystalError(
        "cannot-order",
        f"no supercell of up to {MAX_MULTIPLE} cells holds whole atoms of"
        f" {', '.join(parsed.sites[g[0]].describe() for g in groups.values())}",
    )


def _counts(occupancies: dict[str, float], n: int) -> dict[str, int] | None:
    """Return whole numbers of atoms on n sites, or None when rounding would change the composition."""
    counts = {s: round(x * n) for s, x in occupancies.items()}
    off = max(abs(counts[s] / n - x) for s, x in occupancies.items())
    if off > OCCUPANCY_TOLERANCE or min(counts.values()) < 1 or sum(counts.values()) > n:
        return None
    return counts


def _shape(lattice: np.ndarray, multiple: int) -> tuple[int, int, int]:
    """Return the diagonal supercell nearest to a cube."""
    lengths = np.linalg.norm(lattice, axis=1)
    steps = range(1, multiple + 1)
    shapes = [(a, b, c) for a, b, c in product(steps, steps, steps) if a * b * c == multiple]
    return min(shapes, key=lambda s: (float(np.ptp(lengths * s)), s))


def _fill(
    parsed: Parsed, shape: tuple[int, int, int], groups: list[list[int]], counts: list[dict[str, int]]
) -> Parsed:
    cells = np.array(list(product(*(range(k) for k in shape))))
    scale = np.array(shape, dtype=float)
    lattice = parsed.lattice * scale[:, None]
    member = {k: g for g, sites in enumerate(groups) for k in sites}
    fixed: list[Site] = []
    places: list[list[tuple[np.ndarray, Site]]] = [[] for _ in groups]
    for k, site in enumerate(parsed.sites):
        for cell in cells:
            frac = (np.mod(site.frac, 1.0) + cell) / scale
            if k in member:
                places[member[k]].append((frac, site))
            else:
                fixed.append(Site(frac, site.content, site.label))
    for place, count in zip(places, counts, strict=True):
        names = _spread(np.array([f for f, _ in place]), lattice, count)
        for (frac, site), name in zip(place, names, strict=True):
            if name:
                fixed.append(Site(frac, [(_pick(site, name), 1.0)], site.label))
    flags = [*parsed.flags, "ordered-model"]
    return Parsed(lattice, fixed, parsed.block, parsed.labels, parsed.record_id, flags, parsed.data_set)


def _pick(site: Site, symbol: str) -> Species:
    return next(species for species, _ in site.content if species.symbol == symbol)


def _spread(frac: np.ndarray, lattice: np.ndarray, counts: dict[str, int]) -> list[str]:
    """Distribute elements ("" is a vacancy) over positions so that like atoms keep apart."""
    n = len(frac)
    names = [s for s, k in sorted(counts.items()) for _ in range(k)]
    names += [""] * (n - len(names))
    shift = np.array(list(product((-1, 0, 1), repeat=3)))
    difference = frac[:, None] - frac[None]
    difference -= np.round(difference)
    images = (difference[:, :, None, :] + shift) @ lattice
    square = np.sum(images**2, axis=-1)
    square[square < 1e-8] = np.inf  # the atom itself
    repulsion = np.sum(1.0 / square, axis=-1)
    rng = np.random.default_rng(0)
    best: tuple[float, list[str]] | None = None
    for _ in range(_RESTARTS):
        trial = _descend(np.array([names[k] for k in rng.permutation(n)]), repulsion)
        if best is None or trial[0] < best[0] - 1e-9:
            best = trial
    assert best is not None
    return best[1]


def _descend(names: np.ndarray, repulsion: np.ndarray) -> tuple[float, list[str]]:
    """Exchange pairs of unlike atoms while that lowers the repulsion between like atoms."""
    kinds, label = np.unique(names, return_inverse=True)
    for _ in range(10 * len(names)):
        one_hot = np.eye(len(kinds))[label]
        field = repulsion @ one_hot  # (n, kinds): repulsion a site would feel if it were of that kind
        own = field[np.arange(len(label)), label]
        swapped = field[:, label]  # site i as the kind of j
        same = label[:, None] == label[None, :]
        change = swapped + swapped.T - own[:, None] - own[None, :] - 2 * repulsion * ~same
        # A site repels its own images whatever it holds: put back what `own` took away.
        change += np.diag(repulsion)[:, None] + np.diag(repulsion)[None, :]
        i, j = np.unravel_index(int(np.argmin(np.where(same, 0.0, change))), change.shape)
        if change[i, j] > -1e-9 or same[i, j]:
            break
        label[i], label[j] = label[j], label[i]
    one_hot = np.eye(len(kinds))[label]
    return float(np.sum(one_hot * (repulsion @ one_hot))), [str(kinds[k]) for k in label]
