"""Results of ``onnes verify`` brought into the ledger, as a verdict ``verify`` that the report shows.

`attach_all` runs at the end of every ``onnes discover``, also of a resumed one, because only the driver may write: so
after verifying candidates into ``RUN/verify``, ``onnes discover --out RUN --resume`` shows them on the page. The runs
with which rounds of active learning labelled crystals (``RUN/round-1/verify``) are taken as well. A report alone never
writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnes.campaign.canonical import content_hash
from onnes.campaign.ledger import Candidate, Ledger, Verdict
from onnes.errors import InputError, OnnesError

#: Folder of a run, and of its rounds, that is looked through, and the file that a finished verification leaves.
FOLDER, ROUND, FILE = "verify", "round-", "result.json"
STAGE = "verify"
#: Verdicts of `onnes.dft.outcome.Verdict` that say nothing of the crystal.
_OPEN = ("not-converged", "failed")
_TIERS = ("quick", "standard", "tight")
#: Points kept of a computed alpha2F.
_POINTS = 200


@dataclass(frozen=True)
class NotAttached:
    """A result that was not taken: its folder relative to the run, a reason code and a line of text."""

    folder: str
    code: str
    message: str


def attach_verification(ledger: Ledger, id: str, folder: str | Path) -> Verdict:
    """Store the result of a verification as the current ``verify`` verdict of a candidate.

    Parameters
    ----------
    ledger : Ledger
        Open for writing.
    id : str
        Candidate.
    folder : path
        Of the run of ``onnes verify``: ``result.json``, ``plan.json`` and, where there is one, ``alpha2F.csv``.

    Returns
    -------
    Verdict
        It has passed only as a superconductor. Numbers begin with ``verify_``.

    Raises
    ------
    InputError
        ``unknown-candidate``; ``cannot-read`` for a file that is missing, damaged or of another form; ``not-final``
        for a calculation that says nothing of the crystal; ``other-crystal`` when the calculation was for other
        elements.
    """
    verdict = _judged(ledger, id, Path(folder))
    ledger.add_verdicts([verdict])
    return verdict


def _judged(ledger: Ledger, id: str, folder: Path) -> Verdict:
    """The verdict that a folder holds for the present structure of a candidate; nothing is written."""
    held = ledger.candidate(id)
    if held is None:
        raise InputError("unknown-candidate", f"the run holds no candidate {id!r}")
    result, plan = _read(folder / FILE), _read(folder / "plan.json")
    structure = current_structure(ledger, id) or held.structure
    try:
        return _verdict(held, structure, result, plan, folder)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(
            "cannot-read", f"cannot read {folder}: a value of the wrong type ({error})"
        ) from None


def _verdict(
    held: Candidate, structure: dict[str, Any], result: dict[str, Any], plan: dict[str, Any], folder: Path
) -> Verdict:
    word = str(result.get("verdict"))
    if word in _OPEN:
        raise InputError("not-final", f"{folder}: {word}, which says nothing of the crystal")
    # What the result says of itself comes first: a later plan may lie in the same folder.
    own = result.get("settings")
    told: dict[str, Any] = own if isinstance(own, dict) else plan
    computed = sorted(told.get("masses_u") or {})
    if computed != sorted(set(structure["species"])):
        raise InputError(
            "other-crystal", f"{folder} holds {'-'.join(computed) or 'nothing'}, which is not {held.id}"
        )
    passed = word == "superconductor"
    return Verdict(
        held.id,
        STAGE,
        passed,
        "" if passed else f"{result.get('reason') or word}: {result.get('detail') or word}",
        _numbers(result, told, folder),
        None,
        content_hash(structure),
        content_hash(plan),
        content_hash(result),
        held.seed,
        0.0,
    )


def _refuse_moved(ledger: Ledger, found: Verdict) -> None:
    """Refuse a result that was first taken for another structure: settings may have changed the candidate since."""
    taken = [
        v.input_hash
        for v in ledger.history(found.candidate, STAGE)
        if (v.settings_hash, v.model_hash) == (found.settings_hash, found.model_hash)
    ]
    if taken and taken[0] != found.input_hash:
        raise InputError(
            "other-structure",
            f"the result was taken for a structure that {found.candidate} no longer has; verify it again",
        )


def attach_all(ledger: Ledger, run: str | Path) -> list[NotAttached]:
    """Bring every result below ``RUN/verify`` and ``RUN/round-*/verify`` into the ledger.

    A result belongs to the candidate whose id is the name of one of its folders, or the end of it as in the names of
    the CIF files (``001_MgB2_g000017``). Of several tiers the highest counts. Verdicts on a structure that the
    candidate no longer has are taken out of the run, and their results are not taken for its new one
    (``other-structure``); what was not taken stands in the run's facts (``unverified``).

    Parameters
    ----------
    ledger : Ledger
        Open for writing.
    run : path
        Folder of the run.
    """
    place = Path(run)
    found = [f for top in [*place.glob(f"{ROUND}*/{FOLDER}"), place / FOLDER] for f in top.rglob(FILE)]
    names = {_safe(id): id for id in ledger.ids()} if found else {}
    asked = _asked(ledger) if any(f.relative_to(place).parts[0] != FOLDER for f in found) else {}
    refused = []
    for file in sorted(found, key=lambda f: (_tier(f), f)):
        relative = file.parent.relative_to(place)
        id = _named(relative.parts, names)
        try:
            if not id:
                raise InputError("unknown-candidate", "no folder in its path is named like a candidate")
            verdict = _judged(ledger, id, file.parent)
            if asked.get((relative.parts[0], id), verdict.input_hash) != verdict.input_hash:
                raise InputError(
                    "other-structure", f"{id} has another structure now than in {relative.parts[0]}"
                )
            _refuse_moved(ledger, verdict)
            ledger.add_verdicts([verdict])
        except OnnesError as error:
            refused.append(NotAttached(str(relative), error.code, error.message))
    stale = [
        v.candidate
        for v in ledger.verdicts(stage=STAGE)
        if v.input_hash != content_hash(current_structure(ledger, v.candidate))
    ]
    ledger.forget(stale, [STAGE])
    held = ledger.get_meta("unverified")
    told = [[r.folder, r.code, r.message] for r in refused] or None
    if told != held:
        ledger.set_meta("unverified", told)
    return refused


def _asked(ledger: Ledger) -> dict[tuple[str, str], str]:
    """Hash of the structure that a round had computed, by its folder and the candidate."""
    return {
        (f"{ROUND}{v.numbers['choose_round']}", v.candidate): content_hash(v.structure)
        for v in ledger.history(stage="choose")
    }


def current_structure(ledger: Ledger, id: str) -> dict[str, Any] | None:
    """Structure of a candidate after the last stage that changed it; None for one that does not exist."""
    order = {stage: k for k, stage in enumerate(ledger.get_meta("stages", []))}
    changed = [(order.get(v.stage, -1), v.structure) for v in ledger.verdicts(candidate=id) if v.structure]
    if changed:
        return max(changed, key=lambda pair: pair[0])[1]
    held = ledger.candidate(id)
    return None if held is None else held.structure


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no JSON"
        raise InputError("cannot-read", f"cannot read {file}: {reason}") from None
    if not isinstance(found, dict):
        raise InputError("cannot-read", f"cannot read {file}: it holds no object")
    return found


def _numbers(result: dict[str, Any], plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    curve = [r for r in result.get("curve") or [] if isinstance(r, dict)]
    numbers = {
        "verify_verdict": result.get("verdict"),
        "verify_detail": result.get("detail"),
        "verify_tc_K": result.get("tc_K"),
        "verify_mu_star": result.get("mu_star"),
        "verify_lambda": result.get("lambda"),
        "verify_omega_log_K": result.get("omega_log_K"),
        "verify_omega_2_K": result.get("omega_2_K"),
        "verify_notes": [str(note) for note in result.get("notes") or []],
        "verify_curve": [[r.get("sigma_Ry") for r in curve], [r.get("lambda") for r in curve]],
        "verify_settings": _settings_words(plan),
    }
    spectrum = _spectrum(folder / "alpha2F.csv")
    return {**numbers, "verify_alpha2F": spectrum} if spectrum else numbers


def _settings_words(plan: dict[str, Any]) -> str:
    tier, grids = plan.get("tier"), plan.get("grids")
    name = tier.get("name") if isinstance(tier, dict) else tier
    words = [f"tier {name}" if name else ""]
    if isinstance(grids, dict):
        words += [
            f"{label} grid {'×'.join(map(str, grids[key]))}"
            for key, label in (("k", "k"), ("q", "q"))
            if key in grids
        ]
    if plan.get("ecutwfc_Ry"):
        words.append(f"cut-off {plan['ecutwfc_Ry']:g} Ry")
    return ", ".join(w for w in words if w)


def _spectrum(file: Path) -> list[list[float]]:
    """Frequency (meV) and alpha2F of a result; empty where there is none."""
    import numpy as np

    try:
        table = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError):
        return []
    if table.shape[1] != 2 or len(table) < 2 or not np.isfinite(table).all():
        return []
    grid = np.linspace(float(table[0, 0]), float(table[-1, 0]), min(_POINTS, len(table)))
    values = np.interp(grid, table[:, 0], table[:, 1])
    return [[round(float(w), 3) for w in grid], [round(float(v), 4) for v in values]]


def _tier(file: Path) -> int:
    """Height of the rung a result stands on, by a folder of its path or else by its settings; 0 for none."""
    words = [part for part in file.parts if part in _TIERS]
    if not words:
        try:
            result = _read(file)
            told = (
                result
                if isinstance(result.get("settings"), dict)
                else {"settings": _read(file.parent / "plan.json")}
            )
            tier = told["settings"].get("tier")
            words = [str(tier.get("name"))] if isinstance(tier, dict) else []
        except InputError:
            return 0
    return max((_TIERS.index(word) + 1 for word in words if word in _TIERS), default=0)


def _named(parts: Sequence[str], names: dict[str, str]) -> str:
    """The candidate that a folder of the path is named after; of several the longest name."""
    fits = [n for n in names for part in parts if part == n or part.endswith(f"_{n}")]
    return names[max(fits, key=len)] if fits else ""


def _safe(id: str) -> str:
    """An id as it stands in the name of a CIF file."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", id).strip("-.")[:80] or "x"
