"""Moduli of a potential beside the DFT ones of JARVIS-SC: elastic_jarvis.py --n 60 --out FILE.jsonl

Crystals of the 616-material set with bulk and shear moduli (OptB88vdW, Voigt averages), at most 6 atoms, numpy seed 0,
one a formula. A line a crystal, so a rerun resumes; ends with errors beside the median's, intervals over formulas.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from onnes.crystal.geometry import geometry
from onnes.errors import OnnesError
from onnes.learn.metrics import bootstrap, median_baseline
from onnes.stability.elastic_report import elastic
from onnes.theory.debye import debye_temperature

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
MOST_ATOMS = 6


def crystals(n: int) -> list[dict]:
    """Rows with usable moduli."""
    with gzip.open(SHARED / "data" / "jarvis_supercon.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in handle]
    seen: set[str] = set()
    kept = []
    for i in np.random.default_rng(0).permutation(len(rows)):
        row = rows[i]
        moduli = row.get("bulk_modulus_kv_GPa"), row.get("shear_modulus_gv_GPa")
        if not row.get("in_616_set") or any(not m or not 1.0 < m < 1000.0 for m in moduli):
            continue
        if len(row["species"]) > MOST_ATOMS or row["formula"] in seen:
            continue
        seen.add(row["formula"])
        kept.append(row)
    return kept[:n]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [json.loads(x) for x in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {line["id"] for line in lines}
    for row in crystals(args.n):
        if row["id"] in done:
            continue
        begun = time.process_time()
        structure = Structure(row["lattice"], row["species"], row["frac"])
        line = {"id": row["id"], "formula": row["formula"]}
        k, g = row["bulk_modulus_kv_GPa"], row["shear_modulus_gv_GPa"]
        shape = geometry(structure)
        theta = float(debye_temperature(k, g, shape["density_g_cm3"], shape["volume_per_atom_A3"]))
        line["dft"] = {"bulk_voigt_GPa": k, "shear_voigt_GPa": g, "debye_K": theta}
        try:
            numbers = elastic(structure, args.potential).numbers()
            line["ours"] = {name: numbers.get(name) for name in line["dft"]} | {"born": numbers["born"]}
        except OnnesError as error:
            line["error"] = error.code
        line["seconds"] = round(time.process_time() - begun, 1)
        lines.append(line)
        with args.out.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
    good = [x for x in lines if "ours" in x and x["ours"]["born"] == "stable"]
    report = {
        "crystals": len(lines),
        "failed": sum("error" in x for x in lines),
        "born_unstable": sum(x.get("ours", {}).get("born") == "unstable" for x in lines),
        "cpu_seconds_median": float(np.median([x["seconds"] for x in lines])),
    }
    for name in ("bulk_voigt_GPa", "shear_voigt_GPa", "debye_K"):
        truth, ours = (np.array([x[side][name] for x in good]) for side in ("dft", "ours"))
        score = bootstrap("mae", truth, ours, np.array([x["formula"] for x in good]), draws=400)
        report[name] = {
            "mae": round(score.value, 2),
            "ci95": [round(score.low, 2), round(score.high, 2)],
            "median_mae": round(median_baseline(truth, truth).value, 2),
            "median_ratio": round(float(np.median(ours / truth)), 3),
            "median_relative_error": round(float(np.median(np.abs(ours / truth - 1.0))), 3),
            "n": len(good),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
