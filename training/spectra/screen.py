"""Two-step screen of the metals of the Materials Project set: screen.py --out DIR.

Metals of at most 20 atoms whose elements the networks know. Step 1: `cso`, from the structure. Step 2: `cpd`, with
coarse vibrations of the shipped potential, for those inside the training domain whose Tc passes --first. Parts of
100 crystals are written atomically, so a rerun resumes; ends with the counts. A hit is a formula with a measured Tc
of 5 K and more that the networks were not trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import torch
from ase.data import atomic_numbers
from pymatgen.core import Structure

from data import _rows, alexandria, jarvis, spectra
from onnes.crystal.read import Crystal
from onnes.learn.domain import LEAST
from onnes.spectra import ensemble, predict_spectra

PART = 100


def metals() -> list[dict]:
    """Metals with few enough atoms, in the order of the file."""
    return [r for r in _rows("mp_crystals") if r.get("gap_pbe_eV") == 0 and len(r["species"]) <= 20]


def inside(row: dict, counts: dict[int, int]) -> bool:
    """Whether the networks know the elements of a crystal; f-electron metals are mostly what they do not."""
    return all(counts.get(atomic_numbers[e], 0) >= LEAST for e in set(row["species"]))


def run(rows: list[dict], folder: Path, phonons: str, until: float) -> dict[str, dict]:
    """Predict rows part by part; returns what is finished by id."""
    folder.mkdir(parents=True, exist_ok=True)
    out: dict[str, dict] = {}
    counts = ensemble("cso").element_counts
    for start in range(0, len(rows), PART):
        part = folder / f"part-{start:06d}.json"
        if not part.exists():
            if time.time() > until:
                continue
            begun, found = time.process_time(), {}
            crystals = [
                Crystal(r["id"], Structure(r["lattice"], r["species"], r["frac"]), r["id"])
                for r in rows[start : start + PART]
                if inside(r, counts)
            ]
            for p in predict_spectra(crystals, phonons=phonons):
                found[p.id] = {"status": p.status, "reason": p.reason, **p.numbers}
            seconds = time.process_time() - begun
            temporary = part.with_suffix(".tmp")
            temporary.write_text(json.dumps({"seconds": seconds, "rows": found}))
            os.replace(temporary, part)
            print(phonons, start, f"{seconds:.0f} s", flush=True)
        done = json.loads(part.read_text())
        out |= done["rows"]
        out["seconds"] = {"sum": out.get("seconds", {}).get("sum", 0.0) + done["seconds"]}  # type: ignore[dict-item]
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=float, default=4.2, help="Tc (K) that leads to the second step")
    parser.add_argument("--second", type=float, default=4.2)
    parser.add_argument("--hours", type=float, default=10.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = metals()
    until = time.time() + 3600.0 * args.hours
    one = run(rows, args.out / "cso", "none", until)
    spent = one.pop("seconds", {"sum": 0.0})["sum"]
    by_id = {r["id"]: r for r in rows}
    # Early parts held crystals of elements outside the domain too; the gate is the same for all.
    known_elements = [i for i in one if inside(by_id[i], ensemble("cso").element_counts)]
    trusted = [i for i in known_elements if one[i]["status"] == "ok" and not one[i]["reason"]]
    survivors = [by_id[i] for i in trusted if one[i]["tc_K"] >= args.first]
    two = run(survivors, args.out / "cpd", "coarse", until)
    spent_two = two.pop("seconds", {"sum": 0.0})["sum"]
    passed = [i for i, p in two.items() if not p["reason"] and p.get("tc_K", -1.0) >= args.second]
    known = {r["formula"]: r["Tc_exp_K"] for r in _rows("exp_superconductors_mp")}
    trained = {r["formula"] for r in (*alexandria(), *jarvis(), *spectra())}
    report = {
        "metals": len(rows),
        "of elements in the domain": len(known_elements),
        "in the domain": len(trusted),
        "seconds": round(spent),
        "survivors": len(survivors),
        "second step": len(two),
        "second seconds": round(spent_two),
        "passed": len(passed),
    }
    for label, ids in (
        ("in the domain", trusted),
        ("first step", [s["id"] for s in survivors]),
        ("second step", passed),
    ):
        formulas = {by_id[i]["formula"] for i in ids} - trained
        tested = [f for f in formulas if f in known]
        hits = [f for f in tested if known[f] >= 5.0]
        report[label] = {
            "formulas not trained on": len(formulas),
            "with a measured Tc": len(tested),
            "measured Tc >= 5 K": len(hits),
            "share": round(len(hits) / max(len(tested), 1), 3),
            "names": sorted(hits)[:40],
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
