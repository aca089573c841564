"""Which formulas a checkpoint was trained on, inside the checkpoint: a table of short hashes.

Five bytes a formula: the first four of ``sha256(salt:formula)`` and the number of its part (a fold, or training
and validation). The table answers questions about formulas that are asked; it does not list them. A formula
that is not in the table is taken for one that is with a probability of n / 2**32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.errors import ModelError
from onnes.learn.store import Checkpoint

FloatArray = NDArray[np.float64]

#: Key of the settings and prefix of the tensors.
KEY = "formula_table"
#: Part of a formula that is not in the table.
UNSEEN = -1


def _key(salt: str, formula: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{formula}".encode()).digest()[:4], "big")


@dataclass(frozen=True)
class FormulaTable:
    """Part of each formula.

    Attributes
    ----------
    salt : str
    names : tuple of str
        Of the parts.
    keys : uint32 array, shape (n,)
        Rising.
    parts : uint8 array, shape (n,)
    members_per_fold : int
        Networks of an ensemble that left the same fold out; 0 where parts are no folds.
    """

    salt: str
    names: tuple[str, ...]
    keys: NDArray[np.uint32]
    parts: NDArray[np.uint8]
    members_per_fold: int = 0

    @classmethod
    def of(
        cls, parts: Mapping[str, int], names: Iterable[str], salt: str, *, members_per_fold: int = 0
    ) -> FormulaTable:
        """Build a table.

        Parameters
        ----------
        parts : mapping of str to int
            Alphabetical reduced formulas (`onnes.data.records.reduced_formula`) to numbers of parts.
        names : iterable of str
            Of the parts, at most 255.
        salt : str
            Anything, for instance the hash of the data; continued with a number where two formulas of
            different parts would share a hash.
        members_per_fold : int

        Raises
        ------
        ModelError
            ``bad-folds`` for a part without a name.
        """
        named = tuple(names)
        wrong = {p for p in parts.values() if not 0 <= p < len(named)}
        if wrong or not 0 < len(named) <= 255:
            raise ModelError("bad-folds", f"parts {sorted(wrong)} have no name among {len(named)} names")
        for attempt in range(100):
            salted = f"{salt}.{attempt}" if attempt else salt
            found: dict[int, int] = {}
            if all(found.setdefault(_key(salted, f), p) == p for f, p in parts.items()):
                keys = sorted(found)
                return cls(
                    salted,
                    named,
                    np.array(keys, dtype=np.uint32),
                    np.array([found[k] for k in keys], dtype=np.uint8),
                    members_per_fold,
                )
        raise ModelError("bad-folds", f"{len(parts)} formulas are too many for hashes of four bytes")

    def place(self, formula: str) -> int:
        """Row of the formula in the table, `UNSEEN` where it is not there."""
        key = _key(self.salt, formula)
        k = int(np.searchsorted(self.keys, np.uint32(key)))
        return k if k < len(self.keys) and int(self.keys[k]) == key else UNSEEN

    def part(self, formula: str) -> int:
        """Number of the formula's part, `UNSEEN` where it is in none."""
        k = self.place(formula)
        return UNSEEN if k == UNSEEN else int(self.parts[k])

    def parts_of(self, formulas: Iterable[str]) -> NDArray[np.intp]:
        """`part` of each formula, shape (n,)."""
        return np.array([self.part(f) for f in formulas], dtype=np.intp)

    def settings(self) -> dict[str, Any]:
        """What goes into the checkpoint's settings under `KEY`."""
        return {"salt": self.salt, "names": list(self.names), "members_per_fold": self.members_per_fold}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What goes into the checkpoint's tensors: five bytes a formula."""
        keys = self.keys.astype(">u4").view(np.uint8).reshape(-1, 4).copy()
        return {f"{KEY}.key": torch.from_numpy(keys), f"{KEY}.part": torch.from_numpy(self.parts.copy())}

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> FormulaTable | None:
        """The table of a checkpoint; None where it carries none.

        Raises
        ------
        ModelError
            ``damaged-model``.
        """
        settings = checkpoint.settings.get(KEY)
        if settings is None:
            return None
        try:
            raw = np.ascontiguousarray(checkpoint.tensors[f"{KEY}.key"].numpy())
            keys = raw.view(">u4").reshape(-1).astype(np.uint32)
            parts = checkpoint.tensors[f"{KEY}.part"].numpy()
            found = cls(settings["salt"], tuple(settings["names"]), keys, parts, settings["members_per_fold"])
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError("damaged-model", f"the table of formulas cannot be read ({error})") from None
        if len(keys) != len(parts) or (np.diff(keys.astype(np.int64)) <= 0).any():
            raise ModelError("damaged-model", "the table of formulas does not fit itself")
        return found


def fold_table(folds: Mapping[str, int], salt: str, *, members_per_fold: int) -> FormulaTable:
    """Table of a cross-validated ensemble whose member ``fold * members_per_fold + k`` left `fold` out.

    Parameters are those of `FormulaTable.of`.
    """
    count = 1 + max(folds.values(), default=-1)
    names = [f"fold {k}" for k in range(count)]
    return FormulaTable.of(folds, names, salt, members_per_fold=members_per_fold)


def held_out(outputs: FloatArray, folds: NDArray[np.intp], members_per_fold: int) -> FloatArray:
    """Outputs of the members that left each crystal's fold out.

    Parameters
    ----------
    outputs : ndarray, shape (members, n, targets)
        Members ordered by fold.
    folds : ndarray of int, shape (n,)
        Fold of each crystal, none of them `UNSEEN`.
    members_per_fold : int

    Returns
    -------
    ndarray, shape (members_per_fold, n, targets)

    Raises
    ------
    ModelError
        ``bad-folds`` for a fold without members.
    """
    members, n = outputs.shape[:2]
    if members_per_fold < 1 or members % members_per_fold:
        raise ModelError("bad-folds", f"{members} members are not a multiple of {members_per_fold}")
    if len(folds) != n or (n and not (folds.min() >= 0 and folds.max() < members // members_per_fold)):
        raise ModelError("bad-folds", f"a crystal has no fold among {members // members_per_fold}")
    member = folds * members_per_fold + np.arange(members_per_fold)[:, None]
    return outputs[member, np.arange(n)]
