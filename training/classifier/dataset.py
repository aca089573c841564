"""What the classifier is trained and tested on: rows, labels, folds and graphs."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from magnets import kind_of, named

from onnes.crystal.formula import atomic_numbers
from onnes.errors import CrystalError
from onnes.graph.cache import GraphCache
from onnes.graph.crystal_graph import BondGraph
from onnes.nets.autoencoder import AutoencoderSettings

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
FOLDS, MOST_ATOMS = 5, 20
#: Tc in K: superconductors of question 1; strong and weak ones of question 2.
LEAST_TC, STRONG, WEAK = 1.0, 5.0, 0.5
GAP = 0.1
SETTINGS = AutoencoderSettings()


@dataclass(frozen=True)
class Row:
    """A crystal with labels: 1, 0 or NaN (not asked) for each question."""

    id: str
    formula: str
    kind: str
    species: list[str]
    lattice: list[list[float]]
    frac: list[list[float]]
    superconductor: float
    strong: float


def read(name: str) -> list[dict]:
    with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
        return [json.loads(line) for line in handle]


def gaps(row: dict) -> list[float]:
    """The gaps a Materials Project row states (two releases); empty where it states none."""
    found = (row.get("gap_pbe_eV"), row.get("gap_megnet_eV"))
    return [g for g in found if g is not None]


def is_metal(row: dict) -> bool:
    return bool(gaps(row)) and max(gaps(row)) == 0.0


def held_out() -> set[str]:
    """Formulas of the experimental test set: no crystal of them is seen, not even without label."""
    return {row["formula"] for row in read("exp_superconductors_mp")}


def metals() -> list[dict]:
    """Crystals for pre-training: metals of the Materials Project, at most 20 atoms, not in the test set."""
    test = held_out()
    rows = read("mp_crystals")
    return [r for r in rows if r["nsites"] <= MOST_ATOMS and is_metal(r) and r["formula"] not in test]


def labelled() -> list[Row]:
    """Rows of fine-tuning.

    Alexandria and JARVIS are kept although some of their formulas are in the test set; the test leaves these out.
    """
    rows = [_coupled(r, "alexandria") for r in read("alexandria_eph")]
    rows += [_coupled(r, "jarvis") for r in read("jarvis_supercon") if r["in_616_set"]]
    known, test, positive = named(), held_out(), {r.formula for r in rows}
    for r in read("mp_crystals"):
        if r["nsites"] > MOST_ATOMS or not gaps(r) or r["formula"] in test | positive:
            continue
        kind = kind_of(r["species"], is_metal(r), known)
        if kind is None and min(gaps(r)) > GAP:
            kind = "insulator"
        if kind is not None:
            rows.append(_row(r, kind, 0.0, np.nan))
    return [r for r in rows if np.isfinite(r.superconductor) or np.isfinite(r.strong)]


def _coupled(r: dict, source: str) -> Row:
    """A metal with computed Tc: positive from 1 K. Question 2 is asked of Alexandria only."""
    tc = r["Tc_K"]
    strong = np.nan
    if source == "alexandria":
        strong = 1.0 if tc >= STRONG else 0.0 if tc < WEAK else np.nan
    return _row(r, source, 1.0 if tc >= LEAST_TC else np.nan, strong)


def _row(r: dict, kind: str, superconductor: float, strong: float) -> Row:
    return Row(r["id"], r["formula"], kind, r["species"], r["lattice"], r["frac"], superconductor, strong)


def folds(rows: list[Row]) -> np.ndarray:
    """Fold of every row; a reduced formula is in one fold only."""
    names, where = np.unique([r.formula for r in rows], return_inverse=True)
    return (np.random.default_rng(0).permutation(len(names)) % FOLDS)[where]


def data_hash(rows: list[Row]) -> str:
    text = json.dumps([[r.id, r.kind, str(r.superconductor), str(r.strong)] for r in rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def graphs(rows: list, out: Path) -> list[BondGraph | None]:
    """Graphs of rows or of JSON rows; None for a crystal that the graph refuses."""
    cache, table, found = GraphCache(out / "graphs"), atomic_numbers(), []
    for row in rows:
        species, lattice, frac = (
            (row["species"], row["lattice"], row["frac"])
            if isinstance(row, dict)
            else (row.species, row.lattice, row.frac)
        )
        numbers = np.array([table[s] for s in species])
        try:
            found.append(cache.get(numbers, np.array(lattice), np.array(frac), SETTINGS.graph))
        except CrystalError:
            found.append(None)
    return found
