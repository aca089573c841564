"""Learned order of prototype substitution: which of several prototypes a composition takes.

Votes of similar compounds say what is usual; they do not say what a data set holds. Boosted trees are trained on known
crystals, each left out with its whole formula, to tell the guess that matches from those that do not
(``training/generate/prototype_order.py``). They see the votes at several widths, of all templates and of the data set
whose like is looked for (``home``), the nearest template, and how large, free and symmetric the prototype is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnes.errors import ModelError, SettingsError
from onnes.generate.prototypes import TEMPERATURES, Evidence, Guess, Templates, pool
from onnes.learn.store import Checkpoint, pretrained
from onnes.learn.tree_arrays import TreeArrays

if TYPE_CHECKING:
    from onnes.crystal.wyckoff import Described

Floats = NDArray[np.float64]

KIND = "prototype-order"
#: Data set that the shipped order was trained for, by its names in ``onnes data`` and in files.
HOME = ("jarvis_supercon", "jarvis-sc-3d")
#: Fewer templates of it than this say too little for the order to be used.
FEWEST = 100
#: Largest numbers of the space groups of the crystal systems.
_SYSTEMS = (2, 15, 74, 142, 167, 194, 230)
#: Smallest shares that are told apart, of all templates and of those at home.
_FLOORS = (1e-6, 1e-4)

COLUMNS = (
    *(f"log share of votes at {t:g}{where}" for where in ("", ", home") for t in TEMPERATURES),
    "distance",
    "distance beyond the nearest",
    "distance, home",
    "log(1 + templates at home)",
    "atoms",
    "orbits",
    "free parameters",
    "crystal system",
    "space group",
)
#: What the trees see: each as it is, and less the largest among the guesses for the composition.
COMPARED = (*COLUMNS, *(f"{name}, less the largest" for name in COLUMNS))


def rows_of(crystals: Sequence[Described], evidence: Sequence[Evidence], total: Floats) -> Floats:
    """What is known of each guess for one composition.

    Parameters
    ----------
    crystals : sequence of Described
    evidence : sequence of Evidence
    total : ndarray, shape (2, 5)
        Votes of all guesses for the composition, kept or not.

    Returns
    -------
    ndarray, shape (n, 19)
        As `COLUMNS`.
    """
    votes = np.array([e.votes for e in evidence]).reshape(-1, 2, len(TEMPERATURES))
    floors = np.array(_FLOORS)[:, None]
    shares = np.log(votes / (total + 1e-12) + floors).reshape(len(votes), -1)
    distance = np.array([e.nearest for e in evidence]).reshape(-1, 2)
    rest = [
        distance[:, 0],
        distance[:, 0] - distance[:, 0].min(initial=np.inf),
        distance[:, 1],
        np.log1p([e.home for e in evidence]),
        [c.n_primitive for c in crystals],
        [len(c.sites) for c in crystals],
        [sum(len(s.parameters) for s in c.sites) for c in crystals],
        np.searchsorted(_SYSTEMS, [c.number for c in crystals]),
        [c.number for c in crystals],
    ]
    return np.column_stack([shares, *(np.asarray(column, dtype=float) for column in rest)])


def compared(rows: Floats) -> Floats:
    """Columns of the trees, shape (n, 38) as `COMPARED`, from `rows_of` all guesses for one composition.

    Parameters
    ----------
    rows : ndarray, shape (n, 19)
    """
    return np.hstack([rows, rows - rows.max(axis=0, initial=-np.inf)])


class PrototypeOrder:
    """The shipped trees.

    Parameters
    ----------
    path : path, optional
        Checkpoint of kind ``prototype-order``.

    Raises
    ------
    ModelError
        As `onnes.learn.store.Checkpoint.load`; ``other-columns``: trained on other columns than these.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("prototype_order.safetensors"), KIND)
        if tuple(self.checkpoint.settings["columns"]) != COMPARED:
            raise ModelError("other-columns", "the order of prototypes was trained on other columns")
        self.trees = TreeArrays.read(
            self.checkpoint.tensors, "trees", float(self.checkpoint.settings["base"])
        )

    def chances(self, guesses: Sequence[Guess], total: Floats) -> Floats:
        """Chance of each guess to be the one, shape (n,); they add up to 1.

        Parameters
        ----------
        guesses : sequence of Guess
            For one composition, with `total` as `onnes.generate.prototypes.pool` gives them.
        total : ndarray, shape (2, 5)
        """
        if not guesses:
            return np.zeros(0)
        rows = rows_of([g.crystal for g in guesses], [g.evidence for g in guesses], total)
        odds = self.trees.predict(compared(rows))
        found: Floats = np.exp(odds - odds.max())
        return found / found.sum()

    def guesses(
        self, composition: str | Mapping[str, float], templates: Templates, k: int = 6
    ) -> list[tuple[Guess, float]]:
        """Best guesses of prototype substitution with their chances, best first.

        Parameters
        ----------
        composition, templates
            As for `onnes.generate.prototypes.substitute`.
        k : int

        Raises
        ------
        CrystalError, SettingsError
            As for `onnes.generate.prototypes.substitute`; ``no-home-templates``: the order was trained to tell what
            its home data set holds, and fewer than `FEWEST` templates are of it.
        """
        if templates.at_home < FEWEST:
            few = f"{templates.at_home} templates of {HOME[0]}, {FEWEST} are needed"
            raise SettingsError("no-home-templates", f"{few}; substitute() orders by votes")
        found, total = pool(composition, templates)
        chance = self.chances(found, total)
        best = np.argsort(-chance, kind="stable")[:k]
        return [(found[i], float(chance[i])) for i in best]
