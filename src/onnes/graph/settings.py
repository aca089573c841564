"""Settings of a neighbour graph. They travel in the checkpoint: a network only reads graphs it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from onnes.errors import SettingsError

KINDS = ("nearest", "radius", "soft")


@dataclass(frozen=True)
class GraphSettings:
    """How the bonds of a crystal are chosen.

    Attributes
    ----------
    kind : str
        ``"nearest"``: the k nearest neighbours of every atom, whole shells. ``"radius"``: all neighbours
        within the cut-off, weights fade to 0 at it. ``"soft"``: every atom has its own radius, at which the
        smooth count of neighbours is k; weights fade to 0 at it, so the graph changes smoothly with the
        crystal.
    neighbours : int
        k of ``nearest`` and ``soft``.
    cutoff_A : float
        No bond is longer, in A.
    tolerance_A : float
        Distances closer than this belong to one shell (``nearest``), in A.
    line : bool
        Whether bond angles are needed.
    line_neighbours : int
        ``soft`` only: smooth number of bonds at an atom that form angles; 0 takes all of them.
    fade : float
        Last fraction of a radius over which weights go from 1 to 0 (``radius``, ``soft``).
    merge_A : float
        Atoms, bonds and angles that no symmetric computation can tell apart are computed once; distances
        (in A) and cosines must agree to about this. 0 keeps the full graph.
    """

    kind: str = "nearest"
    neighbours: int = 12
    cutoff_A: float = 8.0
    tolerance_A: float = 0.01
    line: bool = True
    line_neighbours: int = 0
    fade: float = 0.3
    merge_A: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse values no graph can be built with."""
        if self.kind not in KINDS:
            raise SettingsError(
                "bad-setting", f"unknown graph kind {self.kind!r}; use one of {', '.join(KINDS)}"
            )
        ranges = {
            "neighbours": (1, 200),
            "cutoff_A": (0.5, 30.0),
            "tolerance_A": (0.0, 0.5),
            "line_neighbours": (0, 200),
            "fade": (0.01, 0.99),
            "merge_A": (0.0, 1e-2),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError("bad-setting", f"{name} = {value}; use a value from {low} to {high}")
        if self.line_neighbours and self.kind != "soft":
            raise SettingsError("bad-setting", f"line_neighbours needs a soft graph; this one is {self.kind}")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphSettings:
        """Read settings back from a checkpoint.

        Raises
        ------
        SettingsError
            ``unknown-setting`` or ``bad-setting``.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise SettingsError("unknown-setting", f"graph settings do not know {', '.join(unknown)}")
        return cls(**values)
