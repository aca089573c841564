"""What a screen of existing crystals found: counts of each gate, the top 50, and how many are known superconductors.

    python known.py W/run --data DATA --out .

`DATA` holds four experimental lists (`exp_superconductors_mp.jsonl.gz`, `threedsc_mp_reconstructed.csv`,
`jarvis_exp_Tc.csv`, `allen_dynes_table.csv`), which are not part of this project. A crystal counts as a known
superconductor where one of them gives its reduced formula a median Tc above 0 (any structure of that formula), as
tested without where all say 0. Written are ``gates.json`` and ``top50.csv`` (ids, formulas and numbers computed here).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from onnes.campaign.ledger import Ledger
from onnes.campaign.status import status
from onnes.crystal.formula import formula_of
from onnes.report.tables import candidate_rows
from onnes.stability.sun import wilson

COLUMNS = ("rank", "id", "formula", "space_group", "tc_K", "tc_low_K", "tc_high_K", "lambda", "omega_log_K")
COLUMNS = (*COLUMNS, "e_hull_eV_atom", "in_domain", "score")
#: Experimental lists beside the first: file, column of the formula, column of Tc in K.
TABLES = (
    ("threedsc_mp_reconstructed.csv", "formula_sc", "Tc_K_median"),
    ("jarvis_exp_Tc.csv", "formula", "Tc_reference_K"),
    ("allen_dynes_table.csv", "material", "Tc_exp_K"),
)
#: Tc of a known superconductor worth finding, K.
HIGH_K = 5.0


def measured(data: Path) -> dict[str, float]:
    """Highest median Tc (K) of each reduced formula in the experimental lists."""
    found: dict[str, float] = {}
    with gzip.open(data / "exp_superconductors_mp.jsonl.gz", "rt") as stream:
        for row in map(json.loads, stream):
            found[row["formula"]] = max(found.get(row["formula"], 0.0), float(row["Tc_exp_K"]))
    for file, formula, tc in TABLES:
        with (data / file).open() as stream:
            for line in csv.DictReader(stream):
                name = _reduced(line[formula])
                if name:
                    found[name] = max(found.get(name, 0.0), float(line[tc] or 0.0))
    return found


def _reduced(formula: str) -> str:
    """Reduced formula of whole numbers, elements in alphabetical order; empty for a doped one or a name."""
    from pymatgen.core import Composition

    try:
        amounts = Composition(formula).get_el_amt_dict()
    except ValueError:  # "amorphous Ga" and the like
        return ""
    if any(abs(x - round(x)) > 1e-3 for x in amounts.values()):
        return ""
    return formula_of([symbol for symbol, x in amounts.items() for _ in range(round(x))])


def groups(formulas: list[str], tc: dict[str, float]) -> dict[str, int]:
    """How many crystals are known superconductors, tested without, and in no list."""
    known = [tc.get(f) for f in formulas]
    return {
        "crystals": len(known),
        "known": sum(t is not None and t > 0 for t in known),
        f"known above {HIGH_K:g} K": sum(t is not None and t > HIGH_K for t in known),
        "tested, no Tc": sum(t == 0 for t in known),
        "in no list": sum(t is None for t in known),
    }


def main() -> None:
    """Read the run and write the two files."""
    parser = argparse.ArgumentParser(description="Counts of a screen and its known superconductors.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tc = measured(given.data)
    with Ledger.open(given.run, read_only=True) as ledger:
        found, table = status(ledger), candidate_rows(ledger)
        formula = {c.id: formula_of(c.structure["species"]) for c in ledger.candidates()}
        tally = ledger.tally()
        predicted = {v.candidate: v.numbers for v in ledger.verdicts(stage="predict")}
    report: dict[str, Any] = {
        "candidates": found.candidates,
        "state": found.state,
        **found.facts,
        "gates": [],
    }
    alive = list(formula)
    for row in found.stages:
        passed = {c for c, s, ok, *_ in tally if s == row.stage and ok}
        lost = Counter(
            code for c, s, ok, code, *_ in tally if s == row.stage and not ok and _high(tc, formula[c])
        )
        alive = [c for c in alive if c in passed]
        entry = {"stage": row.stage, "in": row.entered, "out": row.passed, "waiting": row.waiting}
        entry |= {
            "reasons": row.reasons,
            "seconds": round(row.seconds),
            "left": groups([formula[c] for c in alive], tc),
        }
        report["gates"].append({**entry, f"known above {HIGH_K:g} K lost": dict(lost)})
    report["all"] = groups(list(formula.values()), tc)
    top = [formula[i] for i in table["id"][:50]]
    report["top 50"] = groups(top, tc)
    rate = wilson(report["top 50"]["known"], len(top))
    report["known share of the top 50, 95 %"] = [round(x, 3) for x in (rate.low, rate.high)]
    pairs = [(predicted[i]["tc_K"], tc[formula[i]]) for i in table["id"] if tc.get(formula[i], 0) > 0]
    if pairs:
        ours, theirs = np.array(pairs).T
        report["median error of Tc of known survivors, K"] = round(float(np.median(np.abs(ours - theirs))), 2)
        report["known survivors predicted too high"] = int((ours > theirs).sum())
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gates.json").write_text(json.dumps(report, indent=1) + "\n")
    table[list(COLUMNS)].head(50).to_csv(given.out / "top50.csv", index=False, float_format="%.4g")
    print(json.dumps(report, indent=1))


def _high(tc: dict[str, float], name: str) -> bool:
    return tc.get(name, 0.0) > HIGH_K


if __name__ == "__main__":
    main()
