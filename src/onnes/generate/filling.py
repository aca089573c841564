"""Whether orbits of a space group can hold given numbers of atoms: the look-ahead of the symbol sampler.

Letters rise along the sequence, a fixed point is used once, and within one letter elements rise; a choice is
allowed only where something can follow it, so that no sample has to be thrown away.
"""

from __future__ import annotations

from functools import lru_cache

from onnes.crystal.wyckoff import centring_vectors
from onnes.crystal.wyckoff_table import wyckoff_positions

#: (letter, multiplicity in the primitive cell, whether it has free parameters)
_Letter = tuple[int, int, bool]


@lru_cache(maxsize=256)
def letters_of(group: int) -> tuple[_Letter, ...]:
    """Letters of a group in their order."""
    centring = len(centring_vectors(group))
    return tuple((p.index, p.multiplicity // centring, p.freedom > 0) for p in wyckoff_positions(group))


@lru_cache(maxsize=200_000)
def can_fill(group: int, start: int, counts: tuple[int, ...], later: tuple[int, ...] = ()) -> bool:
    """Whether letters from ``start`` on can hold all atoms.

    Parameters
    ----------
    group : int
        Space group.
    start : int
        Place of the first letter that may be used.
    counts : tuple of int
        Atoms of each element still to be placed in the primitive cell, any order.
    later : tuple of int
        The same for elements that may use only letters after ``start``.

    Returns
    -------
    bool
    """
    counts = tuple(sorted(c for c in counts if c))
    later = tuple(sorted(c for c in later if c))
    if not counts and not later:
        return True
    return _fill(group, start, counts, later)


@lru_cache(maxsize=200_000)
def _fill(group: int, start: int, counts: tuple[int, ...], later: tuple[int, ...]) -> bool:
    letters = letters_of(group)
    if start >= len(letters):
        return False
    _, m, free = letters[start]
    if can_fill(group, start + 1, counts + later):
        return True
    for i in range(len(counts)):
        if counts[i] < m or (i and counts[i] == counts[i - 1]):
            continue
        rest = (*counts[:i], counts[i] - m, *counts[i + 1 :])
        if free:
            # The order of elements within a letter does not matter here: any set of them can be sorted.
            if can_fill(group, start, rest, later):
                return True
        elif can_fill(group, start + 1, rest + later):
            return True
    return False


@lru_cache(maxsize=200_000)
def can_hold(group: int, start: int, atoms: int) -> bool:
    """Whether letters from ``start`` on can hold so many atoms of any elements."""
    if atoms == 0:
        return True
    letters = letters_of(group)
    if start >= len(letters) or atoms < 0:
        return False
    _, m, free = letters[start]
    if can_hold(group, start + 1, atoms):
        return True
    return atoms >= m and can_hold(group, start if free else start + 1, atoms - m)
