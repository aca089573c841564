"""What a run stands on, as a BibTeX file: the methods and data that its settings say were used.

Entries stand in ``assets/references.bib``, written by hand from the papers. Which ones belong to a run follows from its
settings, stages and models alone, so that nothing is cited that was not used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from onnes.report.models import used
from onnes.report.story import Run

#: What a generator builds on.
_GENERATOR = {
    "symmetric": ("cao2024space", "jiao2023crystal"),
    "joint": ("jiao2023crystal",),
    "cdvae": ("xie2022crystal",),
}
#: Data that each predictor's weights were trained on, and methods it follows; all but trees learn from both sets.
_PREDICTOR = {
    "standard": ("cerqueira2024sampling", "choudhary2022designing"),
    "fast": ("cerqueira2024sampling", "choudhary2022designing"),
    "spectrum": ("cerqueira2024sampling", "choudhary2022designing", "gibson2025accelerating"),
    "trees": ("cerqueira2024sampling",),
}
_FORMULA = {
    "allen-dynes": ("allen1975transition",),
    "mcmillan-allen-dynes": ("mcmillan1968transition", "allen1975transition"),
    "xie": ("xie2022machine", "allen1975transition"),
}


def bibliography(run: Run) -> str:
    """BibTeX text of what a run used, each entry with a note that says what for.

    Parameters
    ----------
    run : Run
    """
    reasons: dict[str, list[str]] = {}
    for key, reason in _reasons(run):
        told = reasons.setdefault(key, [])
        if reason not in told:
            told.append(reason)
    versions = run.meta.get("versions")
    version = str(versions.get("onnes", "")) if isinstance(versions, dict) else ""
    hashes = "".join(f"% {_line(f'{u.stage}: {u.name} {u.hash}')}\n" for u in used(run))
    head = "% What this run of onnes stands on; the models and tables it computed with:\n" + hashes
    return head + "\n" + "\n".join(_entry(key, told, version) for key, told in reasons.items())


def _reasons(run: Run) -> list[tuple[str, str]]:
    """Key and what it was used for, in the order of the funnel."""
    stages, settings = _stages_with_verdicts(run), _settings(run)
    found = [
        ("onnes", "the campaign"),
        ("ong2013python", "structures"),
        ("larsen2017atomic", "atoms and optimisers"),
    ]
    if not settings("generate", "paths"):
        name = str(settings("generate", "model") or "")
        found += [(key, f"generator {name}") for key in _GENERATOR.get(name, ())]
        found += [("jain2013materials", f"crystals that generator {name} learned from")]
    if "prescreen" in stages:
        found += _predicting("fast", "pre-screen")
    if "relax" in stages:
        reason = "energies of crystals as they came" if settings("relax", "skip") else "relaxation"
        found += _potential(str(settings("relax", "potential") or ""), reason)
    if "symmetry" in stages:
        found.append(("moyo", "space groups"))
    if "hull" in stages:
        found.append(("jain2013materials", "phases of the hull"))
    if "novel" in stages:
        found += [
            (key, "known crystals")
            for key in ("jain2013materials", "cerqueira2024sampling", "choudhary2022designing")
        ]
    if "predict" in stages:
        found += _predicting(str(settings("predict", "model") or "standard"), "predictor")
        formula = str(settings("predict", "formula") or "allen-dynes")
        found += [(key, f"Tc by {formula}") for key in _FORMULA.get(formula, ())]
    if "dossier" in stages:
        for name in _PREDICTOR:
            found += _predicting(name, "comparison of models")
    if "phonons" in stages:
        found += [
            ("togo2023first", "phonons"),
            ("togo2024spglib", "phonons"),
            ("setyawan2010high", "path of the bands"),
        ]
        found += _potential(str(settings("relax", "potential") or ""), "phonons")
    if "verify" in stages:
        found += [
            ("giannozzi2017advanced", "verification by DFT"),
            ("allen1975transition", "verification by DFT"),
        ]
    return found


def _potential(name: str, reason: str) -> list[tuple[str, str]]:
    key = "park2024sevennet" if name.startswith("7net") else "deng2023chgnet" if name == "chgnet" else ""
    return [(key, f"{reason} ({name})")] if key else []


def _predicting(name: str, reason: str) -> list[tuple[str, str]]:
    found = [(key, f"{reason}: {name}") for key in _PREDICTOR.get(name, ())]
    if name in ("standard", "spectrum"):
        found.append(("park2024sevennet", f"features of the {name} predictor"))
    return found


def _stages_with_verdicts(run: Run) -> set[str]:
    """Stages that really looked at something: a dossier that passed a crystal by does not count."""
    closer = {"dossier": "dossier_models", "phonons": "phonon_verdict"}
    return {
        v.stage
        for story in run.stories
        for v in story.verdicts
        if v.stage not in closer or closer[v.stage] in (v.numbers or {})
    }


def _settings(run: Run) -> Callable[[str, str], Any]:
    held = run.meta.get("settings")

    def one(section: str, key: str) -> Any:
        part = held.get(section) if isinstance(held, dict) else None
        return part.get(key) if isinstance(part, dict) else None

    return one


@cache
def entries() -> dict[str, str]:
    """All entries by key, without their closing brace."""
    text = files("onnes.report").joinpath("assets", "references.bib").read_text(encoding="utf-8")
    found = (part.strip() for part in text.split("\n@")[1:])
    return {
        part[part.index("{") + 1 : part.index(",")]: "@" + part.removesuffix("}").rstrip() for part in found
    }


def _entry(key: str, reasons: list[str], version: str) -> str:
    body = entries()[key].replace("VERSION", _line(version) or "unknown")
    # "annote" is printed by no usual style.
    return f"{body}\n  annote = {{{_line('; '.join(reasons))}}},\n}}\n"


def _line(text: str) -> str:
    """One line of ASCII without the characters that end or open a field."""
    plain = (
        " ".join(text.split()).replace("{", "(").replace("}", ")").replace("%", "percent").replace("\\", "/")
    )
    return plain.encode("ascii", "replace").decode("ascii")
