"""Which weights and tables a run computes with, and whether those installed now are the same."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnes.campaign.settings import Settings

#: Of the file's sha256.
LENGTH = 16


def fingerprints(settings: Settings) -> dict[str, dict[str, str]]:
    """Hashes of the shipped files, and versions of the packages, behind each stage.

    Nothing is loaded: a second copy of a file, or another version of a package, is enough to tell.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    dict
        Stage -> name of a file or package -> hash or version (``missing`` where it is not there).
    """
    from onnes.learn.predictors import FILES
    from onnes.stability.hull import TABLE
    from onnes.stability.novelty import INDEX

    model = settings.predict.model
    gated = settings.prescreen.min_debye_K > 0
    names = {
        "prescreen": [
            *_weights(FILES["fast"]),
            *(["properties.safetensors", "package sevenn"] if gated else []),
        ]
        if settings.prescreens
        else [],
        "relax": [f"package {settings.relax.potential}"],
        "novel": [INDEX],
        "hull": [TABLE],
        "predict": [
            *_weights(FILES[model]),
            *(["package sevenn"] if model in ("standard", "spectrum") else []),
        ],
    }
    return {stage: {name: _fingerprint(name) for name in given} for stage, given in names.items() if given}


def differences(held: Any, settings: Settings) -> list[str]:
    """One sentence for each file or package that is no longer the one a run computed with.

    Parameters
    ----------
    held : dict
        `fingerprints` as the run noted them; anything else (a run of an older onnes) gives no sentence.
    settings : Settings
        Of the run.
    """
    if not isinstance(held, dict):
        return []
    found = []
    for stage, installed in fingerprints(settings).items():
        before = held.get(stage)
        if not isinstance(before, dict):
            continue
        for name, now in installed.items():
            if name in before and before[name] != now:
                found.append(f"{stage}: {name} was {before[name]} when the run computed, installed is {now}")
    return found


def _weights(names: Any) -> list[str]:
    return [f"{name}.safetensors" for name in names]


@lru_cache(maxsize=32)
def _fingerprint(name: str) -> str:
    if name.startswith("package "):
        # The weights of a potential lie inside its package, whose version stands for them.
        package = name.removeprefix("package ")
        try:
            return version("sevenn" if package.startswith("7net") else package)
        except PackageNotFoundError:
            return "missing"
    file = files("onnes.pretrained").joinpath(name)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:LENGTH] if file.is_file() else "missing"
