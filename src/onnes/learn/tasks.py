"""What can be learned: targets with their label names, transformations and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from onnes.errors import SettingsError


@dataclass(frozen=True)
class Target:
    """One output of a network.

    Attributes
    ----------
    name : str
        Column of the predictions.
    labels : tuple of str
        Label names it is read from; the first that a record carries counts.
    unit : str
    log : bool
        Learned as its natural logarithm; predictions are positive.
    floor : float
        Smaller values are raised to it before the logarithm (rounded or tiny labels).
    per_atom : bool
        The label is per cell and divided by the number of atoms.
    binary : bool
        0 or 1, learned as a logit.
    weight : float
        In the loss.
    """

    name: str
    labels: tuple[str, ...]
    unit: str = ""
    log: bool = False
    floor: float = 0.0
    per_atom: bool = False
    binary: bool = False
    weight: float = 1.0

    def encode(self, labels: Mapping[str, float], n_atoms: int) -> float:
        """Training value of a record's labels; NaN where it has none."""
        found = next((labels[k] for k in self.labels if k in labels), None)
        if found is None or not np.isfinite(found):
            return float("nan")
        value = found / n_atoms if self.per_atom else float(found)
        if self.binary:
            return float(value > 0)
        return float(np.log(max(value, self.floor))) if self.log else value

    def decode(self, value: Any) -> Any:
        """Physical value of a network's output (probability for a binary target)."""
        if self.binary:
            return 1.0 / (1.0 + np.exp(-value))
        return np.exp(value) if self.log else value


_LAMBDA = Target("lambda", ("lambda",), log=True, floor=0.02)
_OMEGA_LOG = Target("omega_log_K", ("omega_log_K",), "K", log=True, floor=5.0)
_DOS = Target(
    "dos_ef_states_eV_atom",
    ("dos_ef_states_eV_cell",),
    "1/eV/atom",
    log=True,
    floor=1e-3,
    per_atom=True,
    weight=0.3,
)

#: Tasks by name. Tc is not among them: it follows from lambda and omega_log by a named formula.
TASKS: dict[str, tuple[Target, ...]] = {
    "epc": (_LAMBDA, _OMEGA_LOG, _DOS),
    "lambda": (_LAMBDA,),
    "omega-log": (_OMEGA_LOG,),
    "omega-2": (Target("omega_2_K", ("omega_2_K", "omega2_K_from_curve"), "K", log=True, floor=5.0),),
    "dos": (_DOS,),
    "formation-energy": (Target("formation_energy_eV_atom", ("formation_energy_eV_atom",), "eV/atom"),),
    "gap": (Target("gap_eV", ("gap_eV", "gap_pbe_eV", "gap_optb88vdw_eV"), "eV"),),
    "nonmetal": (Target("p_nonmetal", ("gap_eV", "gap_pbe_eV", "gap_optb88vdw_eV"), binary=True),),
    "moduli": (
        Target("bulk_GPa", ("bulk_modulus_GPa", "bulk_modulus_kv_GPa"), "GPa", log=True, floor=1.0),
        Target("shear_GPa", ("shear_modulus_GPa", "shear_modulus_gv_GPa"), "GPa", log=True, floor=1.0),
    ),
    "debye": (Target("debye_K", ("debye_T_K",), "K", log=True, floor=10.0),),
}


def task(name: str) -> tuple[Target, ...]:
    """Return the targets of a task.

    Raises
    ------
    SettingsError
        ``unknown-task``.
    """
    if name not in TASKS:
        raise SettingsError("unknown-task", f"unknown task {name!r}; use one of {', '.join(TASKS)}")
    return TASKS[name]


def targets_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Target, ...]:
    """Rebuild targets that a checkpoint's settings hold as rows; fields of a later version are passed over."""
    names = {f.name for f in fields(Target)}
    found = []
    for row in rows:
        given: dict[str, Any] = {k: v for k, v in row.items() if k in names}
        found.append(Target(**{**given, "labels": tuple(given["labels"])}))
    return tuple(found)
