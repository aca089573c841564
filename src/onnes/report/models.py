"""Which models and tables a run used, and whether this installation has the same ones.

Hashes are computed from the files alone, without loading a network: a page must not wait for torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, NamedTuple

from onnes.campaign.canonical import content_hash
from onnes.learn.predictors import FILES
from onnes.report.story import Run
from onnes.report.words import finite, stage_title
from onnes.stability.hull import TABLE
from onnes.stability.novelty import INDEX

SAME, OTHER, UNKNOWN = "same here", "another one here", "not in this installation"
#: Weights inside another package: reading them would load it.
INSIDE = "not compared here; it belongs to a package"
#: Learned again from the labels of a run with rounds.
CORRECTED = "learned in this run"
#: Predictors whose features come from potentials inside the sevenn package.
_FROZEN = ("standard", "spectrum")
#: Predictors of a dossier.
_DOSSIER = ("standard", "spectrum", "fast", "trees")
#: Checkpoint of each generator.
GENERATORS = {"symmetric": "symmetric", "joint": "diffusion", "cdvae": "cdvae"}


class Used(NamedTuple):
    """A model or table of a run: where, which, its hash in the ledger, and how this installation compares."""

    stage: str
    name: str
    hash: str
    here: str


def used(run: Run) -> list[Used]:
    """Models and tables of a run in the order of its stages."""
    found = [*_generator(run)]
    potential = f"potential {_part(run, 'relax').get('potential') or ''}".strip()
    for stage, name, installed in (
        (
            "prescreen",
            f"predictor fast{' and property models' if _stiffness(run) else ''}",
            _prescreen_hash(run),
        ),
        ("relax", potential, INSIDE),
        ("novel", "index of known crystals", table_hash(INDEX)),
        ("hull", "hull references", table_hash(TABLE)),
        ("predict", f"predictor {_model(run)}", predictor_hash(_model(run))),
        ("dossier", "all predictors and the index of known crystals", dossier_hash()),
        ("phonons", potential, INSIDE),
    ):
        for hash in _hashes(run, stage):
            here = INSIDE if installed == INSIDE else _compare(hash, installed)
            if stage == "predict" and run.meta.get("rounds") and here == OTHER:
                here = CORRECTED
            found.append(Used(stage_title(stage), name, hash, here))
    return found + _packages(run)


def differing(run: Run) -> list[str]:
    """Names of models, tables and packages that are others in this installation."""
    return [one.name for one in used(run) if one.here == OTHER]


@cache
def checkpoint_hash(name: str) -> str:
    """Hash of a shipped checkpoint as `onnes.learn.store.Checkpoint` defines it; empty when it is not there.

    A safetensors file is the length of its header, the header (JSON), and the tensors' bytes.
    """
    try:
        data = files("onnes.pretrained").joinpath(f"{name}.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        about = json.loads(header.pop("__metadata__")["onnes"])
        digest = hashlib.sha256(json.dumps([about["kind"], about["settings"]], sort_keys=True).encode())
        for tensor in sorted(header):
            start, stop = header[tensor]["data_offsets"]
            digest.update(tensor.encode())
            digest.update(data[8 + size + start : 8 + size + stop])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return digest.hexdigest()[:16]


def predictor_hash(name: str) -> str:
    """Hash of a predictor as `onnes.learn.predictors.model_hash` defines it; empty when a part is not there."""
    hashes = [checkpoint_hash(file) for file in FILES.get(name, ())]
    if name in _FROZEN:
        hashes.append(_installed("sevenn"))
    return "+".join(hashes) if hashes and all(hashes) else ""


def dossier_hash() -> str:
    """Hash of what a dossier is made with, as `onnes.campaign.dossier.dossier_hash`; empty when a part is missing."""
    parts, index = [predictor_hash(name) for name in _DOSSIER], table_hash(INDEX)
    if not index or not all(parts):
        return ""
    return content_hash([parts, index])


def _prescreen_hash(run: Run) -> str:
    """Hash of the networks of the pre-screen, as `onnes.campaign.prescreen.model_hash` defines it."""
    if not _stiffness(run):
        return predictor_hash("fast")
    hashes = [predictor_hash("fast"), checkpoint_hash("properties"), _installed("sevenn")]
    return "+".join(hashes) if all(hashes) else ""


def _stiffness(run: Run) -> bool:
    """Whether the pre-screen asked for a Debye temperature."""
    return (finite(_part(run, "prescreen").get("min_debye_K")) or 0.0) > 0


@cache
def table_hash(name: str) -> str:
    """Hash of a shipped table; empty when it is not there."""
    try:
        data = files("onnes.pretrained").joinpath(name).read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(data).hexdigest()[:16]


def _model(run: Run) -> str:
    return str(_part(run, "predict").get("model") or "standard")


def _part(run: Run, name: str) -> dict[str, Any]:
    """A section of the run's settings; empty where it is not recorded."""
    held = run.meta.get("settings")
    section = held.get(name) if isinstance(held, dict) else None
    return section if isinstance(section, dict) else {}


def _generator(run: Run) -> list[Used]:
    """Generators named in the candidates' sources as ``model hash``."""
    found = []
    for source in sorted({s.source for s in run.stories}):
        name, _, hash = source.partition(" ")
        if name in GENERATORS and hash and " " not in hash:
            here = _compare(hash, checkpoint_hash(GENERATORS[name]))
            here = CORRECTED if run.meta.get("rounds") and here == OTHER else here
            found.append(Used("Generated", f"generator {name}", hash, here))
    return found


def _hashes(run: Run, stage: str) -> list[str]:
    verdicts = (s.verdict(stage) for s in run.stories)
    return sorted({str(v.model_hash) for v in verdicts if v is not None and v.model_hash})


def _packages(run: Run) -> list[Used]:
    """Versions that stand for weights inside another package, and that of onnes itself."""
    held = run.meta.get("versions")
    found = []
    for name in ("sevenn", "onnes"):
        recorded = held.get(name) if isinstance(held, dict) else None
        if not recorded:
            continue
        found.append(Used("Package", name, str(recorded), _compare(str(recorded), _installed(name))))
    return found


def _installed(name: str) -> str:
    """Version of a package; empty when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _compare(held: str, installed: str) -> str:
    if not installed:
        return UNKNOWN
    return SAME if held == installed else OTHER
