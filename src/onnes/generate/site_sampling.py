"""Drawing space group, Wyckoff letters and elements; every draw obeys what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from onnes.errors import SettingsError
from onnes.generate.filling import can_fill, can_hold, letters_of
from onnes.generate.orbits import Frame
from onnes.nets.sites import MAX_Z, N_GROUPS, Asked, SiteTransformer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Wish:
    """What is asked of a crystal.

    Attributes
    ----------
    elements : frozenset of int
        Atomic numbers that may be used; empty for all trained ones.
    formula : dict of int to int
        Amounts of the reduced formula; empty where not asked. Overrides ``elements``.
    atoms : int or None
        In the primitive cell.
    group : int or None
    log_tc : float or None
        log10 of the Tc in K.
    guidance : float
        Weight of classifier-free guidance towards the Tc.
    temperature : float
    source : int
        1 + the number of the data set that the crystal is to be like; 0 for any.
    stable : int
        1 dynamically stable, 2 not, 0 either.
    """

    elements: frozenset[int] = frozenset()
    formula: dict[int, int] = field(default_factory=dict)
    atoms: int | None = None
    group: int | None = None
    log_tc: float | None = None
    guidance: float = 0.0
    temperature: float = 1.0
    source: int = 0
    stable: int = 1

    @property
    def unit(self) -> int:
        """Atoms of a formula unit."""
        return sum(self.formula.values())

    def counts(self, n: int) -> dict[int, int]:
        """Atoms of each element in a cell of n; empty where no formula is asked."""
        return {z: a * n // self.unit for z, a in self.formula.items()}

    def words(self) -> str:
        """Say what is asked, for messages."""
        parts = []
        if self.formula:
            parts.append(
                "the composition " + " ".join(f"{chemical_symbols[z]}{a}" for z, a in self.formula.items())
            )
        if self.group:
            parts.append(f"space group {self.group}")
        if self.atoms:
            parts.append(f"{self.atoms} atoms")
        return " and ".join(parts) or "what is asked"

    def fits(self, group: int, n: int) -> bool:
        """Whether the group's orbits can hold n atoms as asked."""
        if self.formula:
            return n % self.unit == 0 and can_fill(group, 0, tuple(self.counts(n).values()))
        return can_hold(group, 0, n)


@dataclass(frozen=True)
class Drawn:
    """A frame with the log-likelihood (nats) that the model gives it under the wish."""

    frame: Frame
    log_p: float


class _State:
    """One sequence that grows."""

    def __init__(self, wish: Wish, every: Sequence[int]) -> None:
        self.wish, self.every = wish, every
        self.n, self.group = 0, 0
        self.letters: list[int] = []
        self.kinds: list[int] = []
        self.left: dict[int, int] = {}
        self.atoms_left = 0
        self.log_p = 0.0

    def start(self, n: int, group: int) -> None:
        self.n, self.group, self.atoms_left = n, group, n
        self.left = self.wish.counts(n)

    @property
    def done(self) -> bool:
        return self.group > 0 and self.atoms_left == 0

    def _rest_fits(self, letter: int, kind: int | None) -> bool:
        """Whether the rest can follow an orbit of this letter and element."""
        _, m, free = letters_of(self.group)[letter]
        if not self.wish.formula:
            return can_hold(self.group, letter if free else letter + 1, self.atoms_left - m)
        assert kind is not None
        rest = {z: c - (m if z == kind else 0) for z, c in self.left.items()}
        if not free:
            return can_fill(self.group, letter + 1, tuple(rest.values()))
        now = tuple(c for z, c in rest.items() if z >= kind)
        return can_fill(self.group, letter, now, tuple(c for z, c in rest.items() if z < kind))

    def kinds_at(self, letter: int) -> list[int]:
        """Elements that may stand at a letter now."""
        _, m, _ = letters_of(self.group)[letter]
        least = self.kinds[-1] if self.letters and self.letters[-1] == letter else 1
        if not self.wish.formula:
            return [z for z in self.every if z >= least] if self._rest_fits(letter, None) else []
        return [z for z, c in self.left.items() if c >= m and z >= least and self._rest_fits(letter, z)]

    def letters_now(self) -> list[int]:
        """Letters that may come next."""
        out = []
        for letter, m, _free in letters_of(self.group):
            if m > self.atoms_left or (self.letters and letter < self.letters[-1]):
                continue
            if self.letters and letter == self.letters[-1] and not letters_of(self.group)[letter][2]:
                continue
            if self.kinds_at(letter):
                out.append(letter)
        return out

    def add(self, letter: int, kind: int) -> None:
        m = letters_of(self.group)[letter][1]
        self.letters.append(letter)
        self.kinds.append(kind)
        self.atoms_left -= m
        if self.wish.formula:
            self.left[kind] -= m


class SiteSampler:
    """Draws frames from trained transformers.

    Parameters
    ----------
    net : SiteTransformer
        In evaluation mode.
    elements : sequence of int
        Trained atomic numbers.
    composed : sequence of SiteTransformer
        Trained with the composition always asked; where a wish has a formula they draw in place of ``net``, each symbol
        by the mean of their log chances.
    """

    def __init__(
        self, net: SiteTransformer, elements: Sequence[int], composed: Sequence[SiteTransformer] = ()
    ) -> None:
        self.net, self.elements, self.composed = net, tuple(sorted(elements)), tuple(composed)

    def check(self, wish: Wish) -> None:
        """Refuse what cannot be drawn.

        Raises
        ------
        SettingsError
            ``cannot-fill`` where no space group and number of atoms hold what is asked.
        """
        most = self.net.settings.max_atoms
        sizes = [wish.atoms] if wish.atoms else list(range(1, most + 1))
        groups = [wish.group] if wish.group else list(range(1, N_GROUPS))
        if not any(wish.fits(g, n) for n in sizes if 1 <= n <= most for g in groups):
            raise SettingsError(
                "cannot-fill",
                f"no crystal of at most {most} atoms in the primitive cell has {wish.words()}",
            )

    def draw(self, wishes: Sequence[Wish], rng: np.random.Generator) -> list[Drawn]:
        """Draw one frame for each wish, all together.

        Parameters
        ----------
        wishes : sequence of Wish
        rng : Generator
            Its state decides the draws.

        Returns
        -------
        list of Drawn
        """
        states = [
            _State(w, sorted(w.elements & set(self.elements)) if w.elements else self.elements)
            for w in wishes
        ]
        self._counts(states, rng)
        self._groups(states, rng)
        while any(not s.done for s in states):
            self._orbit([s for s in states if not s.done], rng)
        return [Drawn(Frame(s.group, tuple(s.letters), tuple(s.kinds)), s.log_p) for s in states]

    def _counts(self, states: Sequence[_State], rng: np.random.Generator) -> None:
        logits = self._logits(states, "count")
        most = self.net.settings.max_atoms
        for s, row in zip(states, logits, strict=True):
            sizes = [s.wish.atoms] if s.wish.atoms else list(range(1, most + 1))
            groups = [s.wish.group] if s.wish.group else range(1, N_GROUPS)
            fine = [n for n in sizes if any(s.wish.fits(g, n) for g in groups)]
            s.n = self._pick(s, row, fine, rng)

    def _groups(self, states: Sequence[_State], rng: np.random.Generator) -> None:
        logits = self._logits(states, "group")
        for s, row in zip(states, logits, strict=True):
            groups = [s.wish.group] if s.wish.group else range(1, N_GROUPS)
            fine = [g for g in groups if s.wish.fits(g, s.n)]
            s.start(s.n, self._pick(s, row, fine, rng))

    def _orbit(self, states: Sequence[_State], rng: np.random.Generator) -> None:
        letters = []
        for s, row in zip(states, self._logits(states, "letter"), strict=True):
            letters.append(self._pick(s, row, s.letters_now(), rng))
        for s, row, letter in zip(states, self._logits(states, "element", letters), letters, strict=True):
            s.add(letter, self._pick(s, row, s.kinds_at(letter), rng))

    @staticmethod
    def _pick(state: _State, row: Floats, fine: Sequence[int], rng: np.random.Generator) -> int:
        values = row[list(fine)]
        p = np.exp((values - values.max()) / state.wish.temperature)
        k = min(int(np.searchsorted(np.cumsum(p / p.sum()), rng.random())), len(fine) - 1)
        plain = values - values.max()
        state.log_p += float(plain[k] - np.log(np.exp(plain).sum()))
        return int(fine[k])

    def _logits(self, states: Sequence[_State], what: str, letters: Sequence[int] = ()) -> Floats:
        """Logits (B, options) of the next symbol, guided towards the Tc where asked."""
        told = self._chances(states, what, letters, hidden_tc=False)
        weight = np.array([s.wish.guidance if s.wish.log_tc is not None else 0.0 for s in states])
        if not weight.any():
            return told
        free = self._chances(states, what, letters, hidden_tc=True)
        return told + weight[:, None] * (told - free)

    def _chances(
        self, states: Sequence[_State], what: str, letters: Sequence[int], *, hidden_tc: bool
    ) -> Floats:
        """Log chances of the next symbol, each state's by the networks that are for it."""
        asked = np.array([bool(s.wish.formula) for s in states]) & bool(self.composed)
        parts = []
        for nets, mine in (((self.net,), ~asked), (self.composed, asked)):
            rows = np.flatnonzero(mine).tolist()
            if not rows:
                continue
            own = [states[i] for i in rows]
            next_letters = [letters[i] for i in rows] if letters else ()
            logs = [self._forward(n, own, what, next_letters, hidden_tc=hidden_tc) for n in nets]
            parts.append((rows, np.mean(logs, axis=0)))
        out = np.empty((len(states), parts[0][1].shape[1]))
        for rows, values in parts:
            out[rows] = values
        return out

    @torch.no_grad()
    def _forward(
        self,
        net: SiteTransformer,
        states: Sequence[_State],
        what: str,
        letters: Sequence[int],
        *,
        hidden_tc: bool,
    ) -> Floats:
        count = max(len(s.letters) for s in states) + (1 if letters else 0)
        grid = torch.full((len(states), max(count, 1)), -1)
        kinds = torch.zeros_like(grid)
        for i, s in enumerate(states):
            row = [*s.letters, letters[i]] if letters else s.letters
            grid[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            kinds[i, : len(s.kinds)] = torch.tensor(s.kinds, dtype=torch.long)
        n, group = torch.tensor([s.n for s in states]), torch.tensor([s.group for s in states])
        hidden = net.trunk(self._asked(states, hidden_tc=hidden_tc), n, group, grid, kinds)
        # Logits of the symbol after the last one known; every sequence has its own length.
        place = {"count": 0, "group": 1}.get(what)
        rows = torch.arange(len(states))
        if place is not None:
            at = hidden[:, place]
            out = net.to_count(at) if what == "count" else net.to_group(at)
        else:
            length = torch.tensor([len(s.letters) for s in states])
            if what == "letter":
                at = hidden[rows, 2 + 2 * length]
                out = net.letter_logits(at[:, None], group)[:, 0]
            else:
                out = net.element_logits(hidden[rows, 3 + 2 * length])
        return torch.log_softmax(out.double(), dim=-1).numpy()

    def _asked(self, states: Sequence[_State], *, hidden_tc: bool) -> Asked:
        b = len(states)
        composition, elements = torch.zeros(b, MAX_Z + 1), torch.zeros(b, MAX_Z + 1)
        log_tc = torch.full((b,), float("nan"))
        for i, s in enumerate(states):
            for z, amount in s.wish.formula.items():
                composition[i, z] = amount / s.wish.unit
            if s.wish.elements and not s.wish.formula:
                elements[i, list(s.every)] = 1.0
            if s.wish.log_tc is not None and not hidden_tc:
                log_tc[i] = s.wish.log_tc
        group = torch.tensor([s.wish.group or 0 for s in states])
        stable = torch.tensor([s.wish.stable for s in states])
        source = torch.tensor([s.wish.source for s in states])
        return Asked(log_tc, stable, group, composition, elements, source)
