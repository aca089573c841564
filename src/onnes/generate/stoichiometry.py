"""Whole numbers of atoms for fractions that a network reads: amounts that crystals have come first.

Fractions near 6.5 : 5.5 : 1 in a cell of 13 are 6 : 6 : 1 rather than 7 : 5 : 1, for many crystals have the one and
hardly any the other; a crystal decoded with one atom too many of a kind has no symmetry and often two atoms on each
other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: How sure the fractions are, as a multiple of one observation for every atom; chosen on training crystals
#: (training/cdvae/amounts.py).
CERTAINTY = 4.0
#: Count of amounts that no crystal has.
UNSEEN = 0.5
#: Logarithm of a fraction of zero.
NOTHING = -1e4


class Stoichiometries:
    """Amounts of the elements in cells of N atoms, by how often crystals have them.

    Parameters
    ----------
    known : mapping of int to sequence of (amounts, count)
        For each N: amounts of the elements, falling, and how many crystals have them.
    """

    def __init__(self, known: Mapping[int, Sequence[tuple[Sequence[int], int]]]) -> None:
        self.known = {int(n): [(tuple(a), int(c)) for a, c in rows] for n, rows in known.items()}
        self.tables = {n: _table(rows) for n, rows in self.known.items()}

    @classmethod
    def of(cls, crystals: Iterable[Sequence[int]]) -> Stoichiometries:
        """Count the amounts of crystals given as lists of atomic numbers."""
        counts: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
        for numbers in crystals:
            counts[len(numbers)][tuple(sorted(Counter(numbers).values(), reverse=True))] += 1
        return cls({n: sorted(c.items()) for n, c in sorted(counts.items())})

    def as_dict(self) -> dict[str, Any]:
        """JSON values, for the checkpoint; ``Stoichiometries`` takes them back."""
        return {str(n): [[list(a), c] for a, c in rows] for n, rows in self.known.items()}

    def whole(self, composition: Tensor, n: int, certainty: float = CERTAINTY) -> Tensor:
        """Likeliest numbers of atoms, n in all.

        Maximises ``certainty * sum_z c_z ln(p_z n / c_z) + ln(count of the amounts)``: counts c as draws from
        fractions p, with the crystals known as the prior. For given amounts the best elements are those of the largest
        fractions, in order. The nearest whole numbers (`rounded`) always take part.

        Parameters
        ----------
        composition : Tensor, shape (B, Z)
            Fractions that sum to one; 0 for elements that are not allowed.
        n : int
        certainty : float

        Returns
        -------
        Tensor of int, shape (B, Z)
        """
        nearest = rounded(composition, n)
        if n not in self.tables or not len(composition):
            return nearest
        amounts, prior = self.tables[n]
        width = min(amounts.shape[1], composition.shape[1])
        fractions, elements = composition.double().topk(width, dim=-1)
        score = certainty * _likelihood(fractions[:, None], amounts[None, :, :width], n) + prior
        score = score.masked_fill((amounts[:, width:] > 0).any(1), -torch.inf)
        best = score.argmax(dim=-1)
        own = torch.zeros_like(nearest).scatter(1, elements, amounts[best, :width])
        # Amounts of the nearest numbers that are known are among the rows above, with the same elements or better ones.
        plain = certainty * _likelihood(composition.double(), nearest, n) + torch.log(torch.tensor(UNSEEN))
        better = plain > score.gather(1, best[:, None])[:, 0]
        return torch.where(better[:, None], nearest, own)


def rounded(composition: Tensor, n: int) -> Tensor:
    """Whole numbers of atoms (B, Z), n in all, nearest to fractions (B, Z) by largest remainders.

    Parameters
    ----------
    composition : Tensor, shape (B, Z)
        Sums to one.
    n : int
    """
    ideal = composition * n
    whole = ideal.floor()
    left = n - whole.sum(dim=-1, keepdim=True)
    rank = (ideal - whole).argsort(dim=-1, descending=True).argsort(dim=-1)
    return (whole + (rank < left)).long()


def _likelihood(fractions: Tensor, amounts: Tensor, n: int) -> Tensor:
    """sum_z c_z ln(p_z n / c_z) over the last axis; 0 ln 0 is 0."""
    c = amounts.double()
    logs = torch.log(fractions).clamp(min=NOTHING) - torch.log(c.clamp(min=1.0) / n)
    return (c * logs).sum(dim=-1)


def _table(rows: Sequence[tuple[tuple[int, ...], int]]) -> tuple[Tensor, Tensor]:
    """Amounts (P, K), filled up with zeros, and logarithms of the counts (P,)."""
    width = max(len(a) for a, _ in rows)
    amounts = torch.tensor([[*a, *[0] * (width - len(a))] for a, _ in rows])
    return amounts, torch.log(torch.tensor([float(c) for _, c in rows], dtype=torch.float64))
