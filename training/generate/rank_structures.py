"""Structure prediction ranked by votes and energy, on the JARVIS-SC formulas.

    python training/generate/rank_structures.py --data DATA --templates T.jsonl --split val --order train.safetensors \
        --out val.json
    python training/generate/rank_structures.py --data DATA --templates T.jsonl --split test --out test.json
    python training/generate/rank_structures.py --data DATA --split test --out alone.json

Candidates and ranking are those of `onnes generate --ranked --like jarvis` (`onnes.generate.ranking`). Beside both
sources together: the symbols of the generator alone (with the coordinates of a template where substitution proposes the
same) and prototype substitution alone, ranked in the same way; without --templates, the generator alone. The scale of
the energy was chosen on the validation rows, with the order of prototypes that was trained without them
(prototype_order.py). Candidates are kept line by line beside --out (.jsonl); rerun to resume. --seed is that of the
draws. ``--write DIR`` writes the first guess of each row (both sources, ranked) as a CIF; after
``onnes relax DIR --cifs R``, ``--relaxed R`` adds how many of them match when relaxed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pymatgen.core import Structure

sys.path.insert(0, str(Path(__file__).parent))
from prototypes import MATCHERS, read_templates, split_of, structure_of

from onnes.crystal.read import read
from onnes.generate.asked import SamplerSettings
from onnes.generate.evidence import PrototypeOrder
from onnes.generate.prototypes import Templates
from onnes.generate.ranking import DRAWN, DRAWS, SCALE, Candidate, candidates, merged, ranked, with_energies
from onnes.generate.shares import share
from onnes.generate.site_sampling import Wish
from onnes.generate.symmetric import SymmetricSampler
from onnes.learn.features import FrozenPotential

#: Weights of the draws that are compared on the validation rows.
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
SCALES = (math.inf, 0.8, 0.4, 0.2, 0.1, 0.05, 0.0)
SOURCES = {"substitution": {"drawn": 0.0}, "generator": {"substituted": 0.0}, "both": {}}


def line_of(c: Candidate, truth: Structure) -> dict[str, Any]:
    """What is kept of a candidate: votes, energy, and whether it matches."""
    known = math.isfinite(c.energy_eV_atom)
    return {
        "drawn": c.drawn,
        "substituted": c.substituted,
        "energy": c.energy_eV_atom if known else None,
        "match": {m: bool(x.fit(truth, c.structure)) for m, x in MATCHERS.items()},
        "structure": c.structure.as_dict(),
    }


def scored(rows: list[dict[str, Any]], sources: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Match rates of every source: as proposed, and ranked with each scale."""
    out: dict[str, Any] = {}
    for name, without in sources.items():
        lists: dict[str, list[list[dict[str, bool]]]] = {}
        for row in rows:
            matches: dict[int, dict[str, bool]] = {}
            found = []
            for kept in row["candidates"]:
                structure = Structure.from_dict(kept["structure"])
                energy = math.nan if kept["energy"] is None else kept["energy"]
                c = replace(Candidate(structure, kept["drawn"], kept["substituted"], energy), **without)
                if c.votes > 0:
                    matches[id(structure)] = kept["match"]
                    found.append(c)
            plain = sorted(found, key=lambda c: -c.votes)
            lists.setdefault("as proposed", []).append([matches[id(c.structure)] for c in plain])
            single = merged(found)
            for scale in SCALES:
                best = [matches[id(c.structure)] for c in ranked(single, scale)]
                lists.setdefault(f"scale {scale:g}", []).append(best)
        for way, each in lists.items():
            for label, count in (("first", 1), ("any of four", 4)):
                for m in MATCHERS:
                    hits = sum(any(h[m] for h in x[:count]) for x in each)
                    out[f"{name}, {way}, {label}, {m}"] = share(hits, len(rows)).to_dict()
    return out


def first_of(row: dict[str, Any]) -> Structure:
    """The candidate that is ranked first, both sources together."""
    found = [
        Candidate(
            Structure.from_dict(c["structure"]),
            c["drawn"],
            c["substituted"],
            math.nan if c["energy"] is None else c["energy"],
        )
        for c in row["candidates"]
    ]
    return ranked(merged(found))[0].structure


def relaxed(rows: list[dict[str, Any]], folder: Path, truth: dict[str, Structure]) -> dict[str, Any]:
    """Match rates of the relaxed first guesses; those that did not relax do not match."""
    made = {c.id: c.structure for c in read([folder]) if hasattr(c, "structure")}
    out: dict[str, Any] = {"relaxed": share(sum(r["id"] in made for r in rows), len(rows)).to_dict()}
    for m, matcher in MATCHERS.items():
        hits = sum(r["id"] in made and matcher.fit(truth[r["id"]], made[r["id"]]) for r in rows)
        out[f"first, relaxed, {m}"] = share(hits, len(rows)).to_dict()
    return out


def by_weight(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """First guess of both sources, ranked, for several weights of the draws."""
    out: dict[str, Any] = {}
    for weight in WEIGHTS:
        for m in MATCHERS:
            hits = 0
            for row in rows:
                found, matches = [], {}
                for kept in row["candidates"]:
                    structure = Structure.from_dict(kept["structure"])
                    energy = math.nan if kept["energy"] is None else kept["energy"]
                    drawn = kept["drawn"] * weight / DRAWN
                    found.append(Candidate(structure, drawn, kept["substituted"], energy))
                    matches[id(structure)] = kept["match"][m]
                hits += matches[id(ranked(merged(found))[0].structure)]
            out[f"weight {weight:g}, first, {m}"] = share(hits, len(rows)).to_dict()
    return out


def lowest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the true structure, where it was proposed, lies above the lowest of the candidates."""
    above = []
    for row in rows:
        known = [c for c in row["candidates"] if c["energy"] is not None]
        right = [c["energy"] for c in known if c["match"]["loose"]]
        if right:
            above.append(min(right) - min(c["energy"] for c in known))
    return {
        "proposed": len(above),
        "is the lowest": share(sum(x < 1e-3 for x in above), len(above)).to_dict(),
        "more than 0.05 eV/atom above": share(sum(x > 0.05 for x in above), len(above)).to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--templates", type=Path, help="without: the generator alone, with coordinates of its own"
    )
    parser.add_argument("--split", choices=("val", "test"), required=True)
    parser.add_argument("--order", type=Path, help="other trees than the shipped ones")
    parser.add_argument("--like", default="jarvis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="DIR", help="first guesses as CIF")
    parser.add_argument("--relaxed", type=Path, metavar="DIR", help="the same, relaxed")
    parser.add_argument("--first", type=int, help="only so many rows")
    parser.add_argument(
        "--backwards", action="store_true", help="for a second process; join the .jsonl files"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = split_of(args.data, args.split)[: args.first]
    cache = args.out.with_suffix(".jsonl")
    done = {json.loads(line)["id"] for line in cache.open()} if cache.exists() else set()
    left = [row for row in rows if row["id"] not in done]
    if args.backwards:
        left.reverse()
    if left:
        work(args, left, cache)
    wanted = {row["id"] for row in rows}
    lines = [line for line in map(json.loads, cache.open()) if line["id"] in wanted]
    result = {
        "split": f"jarvis_supercon split_atomgen={args.split}",
        "n": len(lines),
        "candidates": sum(len(x["candidates"]) for x in lines) / len(lines),
        "mean_cpu_s": {k: sum(x["cpu_s"][k] for x in lines) / len(lines) for k in ("candidates", "energies")},
        "scale_eV_atom": SCALE,
        "seed": args.seed,
        "like": args.like,
        "lowest": lowest(lines),
        "weight_of_draws": DRAWN,
        "order": PrototypeOrder(args.order).checkpoint.hash,
    }
    if args.templates:
        result |= {"match": scored(lines, SOURCES), "by_weight": by_weight(lines)}
    else:
        result |= {"match": scored(lines, {"generator": {}}), "by_weight": {}}
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        for line in lines:
            first_of(line).to(filename=str(args.write / f"{line['id']}.cif"))
    if args.relaxed:
        truth = {row["id"]: structure_of(row) for row in rows}
        result["relaxed"] = relaxed(lines, args.relaxed, truth)
        print(json.dumps(result["relaxed"]))
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["lowest"]))
    for name, found in (result["match"] | result["by_weight"]).items():
        print(f"{name}: {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})")


def work(args: argparse.Namespace, rows: list[dict[str, Any]], cache: Path) -> None:
    splits = ("val", "test") if args.split == "val" else ("test",)
    held = {r["formula"] for s in splits for r in split_of(args.data, s)}
    known = Templates(read_templates(args.templates, held)) if args.templates else None
    sampler = SymmetricSampler(SamplerSettings(like=args.like))
    source = sampler.wish.source
    potential, order = FrozenPotential(), PrototypeOrder(args.order)
    for row in rows:
        began = time.process_time()
        sampler.wish = Wish(formula=formula_of(row), source=source)
        found = candidates(sampler, known, seed=args.seed, draws=DRAWS, order=order)
        proposed = time.process_time()
        found = with_energies(found, potential)
        cpu = {"candidates": proposed - began, "energies": time.process_time() - proposed}
        kept = [line_of(c, structure_of(row)) for c in found]
        with cache.open("a") as stream:
            line = {"id": row["id"], "formula": row["formula"], "cpu_s": cpu, "candidates": kept}
            stream.write(json.dumps(line) + "\n")
        print(row["formula"], len(found), {k: round(v, 1) for k, v in cpu.items()}, flush=True)


def formula_of(row: dict[str, Any]) -> dict[int, int]:
    composition = structure_of(row).composition.reduced_composition
    return {int(e.Z): round(n) for e, n in sorted(composition.items(), key=lambda pair: pair[0].Z)}


if __name__ == "__main__":
    main()
