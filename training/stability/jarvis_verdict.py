"""Verdicts of potentials beside the DFT flag of JARVIS-SC: jarvis_verdict.py run --potential 7net-0 --out FILE.jsonl

`run` computes phonons (cell and atoms relaxed, symmetry kept, supercell of at most 2x2x2) for 300 crystals of the
616-material set (dynamically stable in DFT) and 300 of those left out of it (unstable), drawn with numpy seed 0, one
crystal a formula, at most 8 atoms; a line a crystal, so a rerun resumes; stable and unstable ones take turns, so a run
that was stopped is a smaller sample of the same kind. `score` chooses the tolerance of each potential on one half of
the crystals (the same half for all) and reports the other, by potential and by vote, beside the majority class.
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
from onnes.stability.sun import wilson

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
        found = wilson(int((mask & right).sum()), int(mask.sum()))
        return {
            "share": round(found.share, 3),
            "ci95": [round(found.low, 3), round(found.high, 3)],
            "n": found.n,
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


def balanced(stable: np.ndarray, said: np.ndarray) -> float:
    """Mean of the shares of both classes that are recognised."""
    return float(((stable & said).sum() / stable.sum() + (~stable & ~said).sum() / (~stable).sum()) / 2.0)


def halves() -> dict[str, bool]:
    """Whether a crystal is one of those that choose the tolerance."""
    names = [row["id"] for row in crystals()]
    order = np.random.default_rng(1).permutation(len(names))
    return {names[i]: k % 2 == 0 for k, i in enumerate(order)}


def score(files: list[Path], key: str = "worst_cm1") -> dict:
    """Tolerance of each potential from one half of the crystals, confusion matrices on the other."""
    runs = {f.stem: {r["id"]: r for r in map(json.loads, f.read_text().splitlines())} for f in files}
    chooses, out = halves(), {}
    said: dict[str, dict[str, bool]] = {}
    for name, rows in runs.items():
        good = sorted((r for r in rows.values() if "error" not in r), key=lambda r: r["id"])
        stable, worst = np.array([r["dft"] for r in good]), np.array([r[key] for r in good])
        choosing = np.array([chooses[r["id"]] for r in good])
        by = {t: balanced(stable[choosing], worst[choosing] >= -t) for t in TOLERANCES}
        best = max(TOLERANCES, key=lambda t: by[t])
        said[name] = {r["id"]: bool(r[key] >= -best) for r in good}
        codes = [r["error"] for r in rows.values() if "error" in r]
        out[name] = {
            "tolerance_cm1": best,
            "balanced_by_tolerance": {str(t): round(v, 3) for t, v in by.items()},
            "n_choosing": int(choosing.sum()),
            "other_half": table(stable[~choosing], worst[~choosing] >= -best),
            "other_half_at_5_cm1": table(stable[~choosing], worst[~choosing] >= -5.0),
            "failed": {code: codes.count(code) for code in sorted(set(codes))},
            "cpu_seconds_median": float(np.median([r["seconds"] for r in rows.values()])),
        }
    common = set.intersection(*(set(x) for x in said.values()))
    both = sorted(i for i in common if not chooses[i])
    if len(runs) > 1 and both:
        first = next(iter(runs.values()))
        stable = np.array([first[i]["dft"] for i in both])
        votes = np.array([[said[name][i] for i in both] for name in runs])
        agreed = votes.all(0) | ~votes.any(0)
        out["vote"] = {
            "all call it stable": table(stable, votes.all(0)),
            "any calls it stable": table(stable, votes.any(0)),
            "where all agree": table(stable[agreed], votes[0][agreed])
            | {"share_agreed": round(float(agreed.mean()), 3)},
            "each alone": {name: table(stable, v) for name, v in zip(runs, votes, strict=True)},
        }
    return out


def markdown(found: dict) -> str:
    """The table of docs/phonons.md."""

    def line(name: str, tolerance: str, t: dict) -> str:
        shares = [
            f"{t[k]['share']:.2f} [{t[k]['ci95'][0]:.2f}, {t[k]['ci95'][1]:.2f}]"
            for k in ("stable_called_stable", "unstable_called_unstable", "accuracy")
        ]
        counts = " | ".join(str(v) for v in t["counts"].values())
        n = t["accuracy"]["n"]
        return f"| {name} | {tolerance} | {n} | {counts} | {' | '.join(shares)} | {t['majority']:.2f} |"

    head = (
        "| | tolerance (cm-1) | n | stable, called stable | stable, called unstable | unstable, called stable "
        "| unstable, called unstable | of the stable, recognised | of the unstable | accuracy | majority class |"
    )
    lines = [head, "|" + "---|" * 11]
    for name, one in found.items():
        if name == "vote":
            for label in ("all call it stable", "any calls it stable", "where all agree"):
                lines.append(line(f"vote: {label}", "each its own", one[label]))
            lines += [line(f"{k} on the vote's crystals", "", t) for k, t in one["each alone"].items()]
            continue
        lines.append(line(name, f"{one['tolerance_cm1']:g} (chosen)", one["other_half"]))
        lines.append(line(name, "5 (default)", one["other_half_at_5_cm1"]))
    return "\n".join(lines)


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
    print(markdown(found["worst_cm1"]))


if __name__ == "__main__":
    main()
