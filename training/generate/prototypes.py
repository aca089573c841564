"""Prototype substitution on the JARVIS-SC test formulas: match rate of the first guess and of any of six.

    python training/generate/prototypes.py templates --data DATA --out templates.jsonl
    python training/generate/prototypes.py score --data DATA --templates templates.jsonl --split test --out out.json
    python training/generate/prototypes.py score ... --learned      # in the order of onnes.generate.evidence

Templates come from mp_crystals (up to 20 atoms), alexandria_eph and jarvis_supercon (train and val rows of the public
generation split). Every row with the reduced formula of one of the 105 test rows is left out of all three: that takes
the test rows, their structure twins (equal crystals have equal formulas) and their polymorphs. ``--split val`` scores
the 102 validation rows with their formulas left out as well; settings were chosen there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from onnes.crystal.wyckoff import Described, Site
from onnes.errors import CrystalError
from onnes.generate.evidence import PrototypeOrder
from onnes.generate.prototypes import Template, Templates, prototype_of, substitute, template
from onnes.generate.shares import share

SOURCES = ("jarvis_supercon", "alexandria_eph", "mp_crystals")
MATCHERS = {
    "loose": StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10),
    "default": StructureMatcher(),
}


def rows_of(data: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


def split_of(data: Path, split: str) -> list[dict[str, Any]]:
    return [r for r in rows_of(data, "jarvis_supercon") if r.get("split_atomgen") == split]


def structure_of(row: dict[str, Any]) -> Structure:
    return Structure(row["lattice"], row["species"], row["frac"])


def amounts_of(row: dict[str, Any]) -> tuple[int, ...]:
    count = sorted(Counter(row["species"]).values(), reverse=True)
    return tuple(n // int(np.gcd.reduce(count)) for n in count)


def write_templates(data: Path, out: Path, max_atoms: int) -> None:
    """Describe every training crystal whose amounts occur among the formulas that are scored; resumes."""
    test = {r["formula"] for r in split_of(data, "test")}
    wanted = {amounts_of(r) for split in ("test", "val") for r in split_of(data, split)}
    done = {json.loads(line)["key"] for line in out.open()} if out.exists() else set()
    began, count = time.time(), Counter()
    with out.open("a") as stream:
        for source in SOURCES:
            for row in rows_of(data, source):
                key = f"{source}/{row['id']}"
                if row["formula"] in test:
                    count[f"{source}: test formula"] += 1
                elif len(row["species"]) > max_atoms:
                    count[f"{source}: too large"] += 1
                elif amounts_of(row) not in wanted:
                    count[f"{source}: other amounts"] += 1
                elif key not in done:
                    try:
                        made = template(row["id"], structure_of(row))
                    except CrystalError as error:
                        count[f"{source}: {error.code}"] += 1
                        continue
                    line = {
                        "key": key,
                        "formula": row["formula"],
                        "id": row["id"],
                        "crystal": asdict(made.crystal),
                    }
                    stream.write(json.dumps(line) + "\n")
                    count[source] += 1
                    if count[source] % 1000 == 0:
                        stream.flush()
                        print(f"{time.time() - began:.0f} s", dict(count), flush=True)
    print(f"{time.time() - began:.0f} s", dict(count), flush=True)


def read_templates(path: Path, without: set[str]) -> list[Template]:
    return [made for _, made in named_templates(path, without)]


def named_templates(path: Path, without: set[str]) -> list[tuple[str, Template]]:
    """Templates with their formulas, those of some formulas left out; home is JARVIS-SC."""
    out = []
    for line in path.open():
        row = json.loads(line)
        if row["formula"] in without:
            continue
        c = row["crystal"]
        sites = tuple(Site(s["letter"], s["element"], tuple(s["parameters"])) for s in c["sites"])
        crystal = Described(c["number"], sites, tuple(c["lattice"]))
        home = row["key"].split("/")[0] == SOURCES[0]
        out.append((row["formula"], Template(row["id"], crystal, *prototype_of(crystal), home=home)))
    return out


def score(
    data: Path, path: Path, split: str, k: int, temperature: float | None, learned: bool = False
) -> dict[str, Any]:
    rows = split_of(data, split)
    without = {r["formula"] for r in rows} | {r["formula"] for r in split_of(data, "test")}
    known = read_templates(path, without)
    templates = Templates(known) if temperature is None else Templates(known, temperature=temperature)
    order = PrototypeOrder() if learned else None
    hits: dict[str, list[list[bool]]] = {name: [] for name in MATCHERS}
    volume = []
    began = time.time()
    seconds = 0.0
    for row in rows:
        true = structure_of(row)
        start = time.perf_counter()
        try:
            if order:
                best = [g for g, _ in order.guesses(row["formula"], templates, k)]
            else:
                best = substitute(row["formula"], templates, k)
            guesses = [g.crystal.primitive() for g in best]
        except CrystalError:
            guesses = []
        seconds += time.perf_counter() - start
        for name, matcher in MATCHERS.items():
            hits[name].append([bool(matcher.fit(g, true)) for g in guesses])
        if guesses:
            volume.append(abs(guesses[0].volume / len(guesses[0]) * len(true) / true.volume - 1.0))
    out: dict[str, Any] = {
        "split": f"jarvis_supercon split_atomgen={split}",
        "n": len(rows),
        "formulas": len({r["formula"] for r in rows}),
        "templates": len(templates),
        "without_guess": sum(not h for h in hits["default"]),
        "order": "learned" if learned else f"votes, temperature {templates.temperature}",
        "median_volume_error_of_first_guess": float(np.median(volume)),
        "seconds_per_formula": seconds / len(rows),
        "wall_s": time.time() - began,
    }
    for name, each in hits.items():
        for label, count in (("first", 1), ("any_of_3", 3), (f"any_of_{k}", k)):
            out[f"{name}_{label}"] = share(sum(any(h[:count]) for h in each), len(each)).to_dict()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("templates", "score"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--learned", action="store_true")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.what == "templates":
        write_templates(args.data, args.out, args.max_atoms)
        return
    found = score(args.data, args.templates, args.split, args.k, args.temperature, args.learned)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
