"""A finished run as a record: structure, alpha2F, moments, settings, checksums of pseudopotentials, versions.

Labels stand where every other data set has them, so that training reads a file of these rows like any other. What is no
superconductor's number (unstable, insulator, magnetic, no plateau) has its verdict and no labels of coupling.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.data.records import Record
from onnes.dft.outcome import Outcome

if TYPE_CHECKING:
    from onnes.dft.plan import Plan

#: Name of the convention in `Record.source`; functional and formula are in `meta`.
SOURCE = "onnes-dft"


def record_of_run(id: str, plan: Plan, outcome: Outcome, folder: Path) -> Record:
    """Build the record of a run.

    Parameters
    ----------
    id : str
    plan : Plan
        Of the relaxed cell (`RunState.plan`).
    outcome : Outcome
    folder : Path
        Of the run: the versions of the programs are read from it.

    Returns
    -------
    Record
        ``Tc_K`` is that of Allen and Dynes (f1, f2 included) at the mu* in ``meta``; ``meta["eliashberg"]`` has the
        other.
    """
    labels: dict[str, float] = {}
    result = outcome.as_dict()
    meta: dict[str, Any] = {
        "verdict": result["verdict"],
        "reason": result["reason"],
        "detail": result["detail"],
        "lambda_of_sigma": [
            {key: row[key] for key in ("sigma_Ry", "lambda", "omega_log_K", "lambda_q_sum")}
            for row in result["curve"]
        ],
        "dft": settings(plan, folder),
    }
    if outcome.spectrum is not None and outcome.summary:
        s = outcome.spectrum
        labels = {
            "lambda": s.lam,
            "omega_log_K": s.omega_log_K,
            "omega_2_K": s.omega_2_K,
            "Tc_K": float(outcome.summary["tc"]["allen-dynes"]["tc_K"]),
        }
        if outcome.dos_ef is not None:
            labels["dos_ef_states_eV_cell"] = outcome.dos_ef
        meta |= {
            "omega_meV": [float(f"{x:.6g}") for x in s.omega_meV],
            "alpha2F": [float(f"{x:.6g}") for x in s.alpha2F],
            "Tc_formula": "allen-dynes",
            "mu_star": outcome.summary["mu_star"],
            "plateau": result["plateau"],
            "eliashberg": {
                key: (outcome.summary["eliashberg"] or {}).get(key)
                for key in ("tc_K", "gap_meV", "gap_ratio", "mu_star", "cutoff_meV")
            },
            "notes": result["notes"],
        }
    return Record.from_structure(plan.cell.structure, id, source=SOURCE, labels=labels, meta=meta)


def settings(plan: Plan, folder: Path) -> dict[str, Any]:
    """Everything that decided the numbers: settings, grids, cut-offs, checksums, versions."""
    from onnes import __version__

    told = plan.summary()
    return {
        "tier": told["tier"],
        "grids": told["grids"],
        "ecutwfc_Ry": told["ecutwfc_Ry"],
        "ecutrho_Ry": told["ecutrho_Ry"],
        "masses_u": told["masses_u"],
        "pseudopotentials": told["pseudopotentials"],
        "onnes": __version__,
        "onnes_code": code_digest(),
        "quantum_espresso": qe_version(folder),
    }


def qe_version(folder: Path) -> str:
    """Version of the programs from the records of the finished steps; several, where they differ, in order."""
    found: set[str] = set()
    for file in sorted(folder.glob("*/*.done.json")):
        with suppress(OSError, ValueError, AttributeError):
            found.add(str(json.loads(file.read_text(encoding="utf-8")).get("version", "")))
    return ", ".join(sorted(found - {""}))


@lru_cache(maxsize=1)
def code_digest() -> str:
    """First 12 digits of the SHA-256 of the sources that make inputs, read outputs and compute Tc."""
    place = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted([*(place / "dft").glob("*.py"), *(place / "theory").glob("*.py")]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]
