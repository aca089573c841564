"""Verdicts of potentials beside the DFT flag of JARVIS-SC: jarvis_verdict.py run --potential 7net-0 --out FILE.jsonl

`run` computes phonons (cell and atoms relaxed, symmetry kept, supercell of at most 2x2x2) for 300 crystals of the
616-material set (dynamically stable in DFT) and 300 of those left out of it (unstable), drawn with numpy seed 0, one
crystal a formula, at most 8 atoms; a line a crystal, so a rerun resumes. `score` chooses the tolerance on one half of
the formulas and reports the other half, for each potential, by vote, and beside the majority class.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from onnes.errors import OnnesError
from onnes.stability.phonon_report import RELAXED, phonon_report

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
EACH, MOST_ATOMS = 300, 8
SETTINGS = replace(RELAXED, least_length_A=8.0, most_times=2, mesh_length_A=30.0)
TOLERANCES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0)


def crystals() -> list[dict]:
    """The chosen crystals, stable and unstable in turns, with the flag under ``dft``."""
    with gzip.open(SHARED / "data" / "jarvis_supercon.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in handle]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    seen: set[str] = set()
    found: dict[bool, list[dict]] = {True: [], False: []}
    for row in rows:
        stable = bool(row.get("in_616_set"))
        if len(row["species"]) > MOST_ATOMS or row["formula"] in seen or len(found[stable]) == EACH:
            continue
        seen.add(row["formula"])
        found[stable].append({**row, "dft": stable})
    return [row for pair in zip(found[True], found[False], strict=True) for row in pair]


def run(potential: str, out: Path, most: int) -> None:
    """Compute what is missing, line by line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    done = {json.loads(line)["id"] for line in out.read_text().splitlines()} if out.exists() else set()
    settings = replace(SETTINGS, potential=potential)
    for row in crystals()[: 2 * most]:
        if row["id"] in done:
            continue
        begun = time.process_time()
        line = {"id": row["id"], "formula": row["formula"], "dft": row["dft"]}
        try:
            report = phonon_report(Structure(row["lattice"], row["species"], row["frac"]), settings)
            verdict = report.verdict
            line |= {
                "worst_cm1": verdict.worst_cm1,
                "exact_cm1": verdict.worst_exact_cm1,
                "verdict": verdict.verdict,
            }
        except OnnesError as error:
            line["error"] = error.code
        line["seconds"] = round(time.process_time() - begun, 1)
        with out.open("a") as handle:
            handle.write(json.dumps(line) + "\n")


def table(stable: np.ndarray, said: np.ndarray) -> dict:
    """Confusion matrix of "stable" with Wilson intervals, accuracy beside that of the majority class."""

    def share(mask: np.ndarray, right: np.ndarray) -> dict:
        low, high = wilson(int((mask & right).sum()), int(mask.sum()))
        return {
            "share": round(float(right[mask].mean()), 3),
            "ci95": [round(low, 3), round(high, 3)],
            "n": int(mask.sum()),
        }

    right = stable == said
    return {
        "stable_called_stable": share(stable, right),
        "unstable_called_unstable": share(~stable, right),
        "called_stable_that_are": share(said, right),
        "accuracy": share(np.ones(len(stable), dtype=bool), right),
        "majority": round(float(max(stable.mean(), 1.0 - stable.mean())), 3),
        "counts": {
            "stable, called stable": int((stable & said).sum()),
            "stable, called unstable": int((stable & ~said).sum()),
            "unstable, called stable": int((~stable & said).sum()),
            "unstable, called unstable": int((~stable & ~said).sum()),
        },
    }


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not n:
        return float("nan"), float("nan")
    middle, width = (
        (hits + z * z / 2) / (n + z * z),
        z * np.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z),
    )
    return float(middle - width), float(middle + width)


def balanced(stable: np.ndarray, said: np.ndarray) -> float:
    """Mean of the shares of both classes that are recognised."""
    return float(((stable & said).sum() / stable.sum() + (~stable & ~said).sum() / (~stable).sum()) / 2.0)


def score(files: list[Path], key: str = "worst_cm1") -> dict:
    """Tolerance of each potential from one half of the formulas, confusion matrix on the other."""
    runs = {f.stem: {r["id"]: r for r in map(json.loads, f.read_text().splitlines())} for f in files}
    out: dict = {}
    votes: dict[str, dict[str, bool]] = {}
    for name, rows in runs.items():
        good = sorted((r for r in rows.values() if "error" not in r), key=lambda r: r["id"])
        stable = np.array([r["dft"] for r in good])
        worst = np.array([r[key] for r in good])
        choosing = np.random.default_rng(1).permutation(len(good)) % 2 == 0
        best = max(TOLERANCES, key=lambda t: balanced(stable[choosing], worst[choosing] >= -t))
        out[name] = {
            "tolerance_cm1": best,
            "balanced_by_tolerance": {
                str(t): round(balanced(stable[choosing], worst[choosing] >= -t), 3) for t in TOLERANCES
            },
            "other_half": table(stable[~choosing], worst[~choosing] >= -best),
            "other_half_at_5_cm1": table(stable[~choosing], worst[~choosing] >= -5.0),
            "failed": {
                c: sum(r.get("error") == c for r in rows.values())
                for c in {r["error"] for r in rows.values() if "error" in r}
            },
            "cpu_seconds_median": float(np.median([r["seconds"] for r in rows.values()])),
        }
        for r, w in zip(good, worst, strict=True):
            votes.setdefault(r["id"], {})[name] = bool(w >= -5.0)
    both = [i for i, v in votes.items() if len(v) == len(runs)]
    if len(runs) > 1 and both:
        first = next(iter(runs.values()))
        stable = np.array([first[i]["dft"] for i in both])
        agreed = np.array([len(set(votes[i].values())) == 1 for i in both])
        said = np.array([all(votes[i].values()) for i in both])
        out["all call it stable (5 cm-1)"] = table(stable, said)
        out["where all agree (5 cm-1)"] = table(stable[agreed], said[agreed]) | {
            "share_agreed": round(float(agreed.mean()), 3)
        }
        for name in runs:
            alone = np.array([votes[i][name] for i in both])
            out[f"{name} on the crystals of the vote (5 cm-1)"] = table(stable, alone)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--potential", default="7net-0")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--most", type=int, default=EACH, help="of each kind")
    two = commands.add_parser("score")
    two.add_argument("files", type=Path, nargs="+")
    two.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "run":
        run(args.potential, args.out, args.most)
        return
    found = {key: score(args.files, key) for key in ("worst_cm1", "exact_cm1")}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["worst_cm1"], indent=1))


if __name__ == "__main__":
    main()
