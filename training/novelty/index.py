"""Index the known crystals: python training/novelty/index.py --work DIR --out known_crystals.npz.xz.

Computes the descriptor of every crystal of the shared sets (DIR/part-*.npz, resumable), compares the
descriptor with StructureMatcher on pairs of equal formula, and packs the index with its card.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
from itertools import combinations
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from onnes.crystal.amd import same_crystal
from onnes.crystal.formula import reduced_formula
from onnes.data.files import atomic_write
from onnes.stability.novelty import STEP, TOLERANCE, descriptor

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
# File and the name of its source. Sets that hold the same crystal under another id are left to the deduplication below.
SETS = {
    "mp_crystals": "materials-project",
    "alexandria_eph": "alexandria",
    "jarvis_supercon": "jarvis",
    "jarvis_a2f": "jarvis",
    "exp_superconductors_mp": "3dsc",
    "invdesflow_105": "invdesflow",
    "bete_structures": "bete-net",
    "inverted_perovskites": "inverted-perovskites",
    "invdesflow_74": "invdesflow",
    "perov_5": "perov-5",
    "carbon_24": "carbon-24",
}
SOURCES = tuple(dict.fromkeys(SETS.values()))
PART = 2000


def rows():
    """Yield source, id and structure of every crystal."""
    for name, source in SETS.items():
        with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt") as handle:
            for line in handle:
                row = json.loads(line)
                prefix = "perov5-" if name == "perov_5" else ""
                yield source, prefix + str(row["id"]), Structure(row["lattice"], row["species"], row["frac"])


def parents() -> set[str]:
    """Materials Project ids of the parents of 3DSC; of some only the id is at hand, not the structure."""
    with open(SHARED / "data" / "threedsc_mp_reconstructed.csv") as handle:
        return {row["mp_id"] for row in csv.DictReader(handle)}


def compute(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    waiting, start = [], 0
    for item in rows():
        waiting.append(item)
        if len(waiting) == PART:
            _part(work, start, waiting)
            waiting, start = [], start + PART
    _part(work, start, waiting)


def _part(work: Path, start: int, items) -> None:
    path = work / f"part-{start:06d}.npz"
    if path.exists() or not items:
        return
    vectors = [descriptor(s) for _, _, s in items]
    with atomic_write(path) as handle:
        np.savez(
            handle,
            source=np.array([source for source, _, _ in items]),
            id=np.array([i for _, i, _ in items]),
            formula=np.array([reduced_formula(s) for _, _, s in items]),
            width=np.array([len(v) for v in vectors]),
            values=np.concatenate(vectors),
        )
    print(start, len(items), flush=True)


def entries(work: Path):
    for path in sorted(work.glob("part-*.npz")):
        with np.load(path) as z:
            cuts = np.cumsum(z["width"])[:-1]
            names = (z[k].tolist() for k in ("source", "id", "formula"))
            yield from zip(*names, np.split(z["values"], cuts), strict=True)


def calibrate(found: dict[str, list], seed: int, n: int) -> dict:
    """Compare the descriptor with StructureMatcher on random pairs of equal formula."""
    rng = np.random.default_rng(seed)
    structures = {id: structure for _, id, structure in rows()}
    pairs = [p for f, e in sorted(found.items()) if f != "C" and len(e) < 60 for p in combinations(e, 2)]
    chosen = [pairs[i] for i in rng.choice(len(pairs), size=min(n, len(pairs)), replace=False)]
    distance = np.array([np.abs(a[1] - b[1]).max() for a, b in chosen])
    equal = np.array([same_crystal(structures[a[0]], structures[b[0]]) for a, b in chosen])
    table = {}
    for tolerance in (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0):
        called = distance <= tolerance
        table[str(tolerance)] = {
            "recall": round(float((called & equal).sum() / equal.sum()), 4),
            "precision": round(float((called & equal).sum() / max(called.sum(), 1)), 4),
        }
    return {"pairs": len(chosen), "equal": int(equal.sum()), "seed": seed, "by_tolerance": table}


def pack(found: dict[str, list], out: Path) -> int:
    """Write the index; entries of a formula with the same rounded descriptor are kept once, with all sources."""
    formulas, starts, ids, values, sources = sorted(found), [0], [], [], []
    of_3dsc = parents()
    for formula in formulas:
        seen: dict[bytes, int] = {}
        for id, vector, source in found[formula]:
            bits = 1 << SOURCES.index(source)
            if id in of_3dsc:
                bits |= 1 << SOURCES.index("3dsc")
            rounded = np.round(vector / STEP).astype(np.uint16)
            place = seen.setdefault(rounded.tobytes(), len(ids))
            if place < len(ids):
                sources[place] |= bits
                continue
            ids.append(id)
            sources.append(bits)
            values.append(rounded)
        starts.append(len(ids))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        formulas=np.frombuffer("\n".join(formulas).encode(), dtype=np.uint8),
        ids=np.frombuffer("\n".join(ids).encode(), dtype=np.uint8),
        starts=np.array(starts, dtype=np.int32),
        values=np.concatenate(values),
        source_names=np.frombuffer("\n".join(SOURCES).encode(), dtype=np.uint8),
        sources=np.array(sources, dtype=np.uint16),
    )
    with atomic_write(out) as handle:
        handle.write(lzma.compress(buffer.getvalue(), preset=9))
    return len(ids)


def by_source(found: dict[str, list]) -> dict[str, int]:
    """How many crystals of each source are in the index."""
    of_3dsc = parents()
    held: dict[str, set] = {name: set() for name in SOURCES}
    for entries_of in found.values():
        for id, _, source in entries_of:
            held[source].add(id)
            if id in of_3dsc:
                held["3dsc"].add(id)
    return {name: len(ids) for name, ids in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=4000)
    args = parser.parse_args()
    compute(args.work)
    found: dict[str, list] = {}
    for source, id, formula, vector in entries(args.work):
        found.setdefault(formula, []).append((id, vector, source))
    kept = pack(found, args.out)
    digest = hashlib.sha256(b"".join((SHARED / "data" / f"{n}.jsonl.gz").read_bytes() for n in SETS))
    card = {
        "what": "descriptors (see onnes.stability.novelty) of known crystals; no structures",
        "sets": list(SETS),
        "data_hash": digest.hexdigest()[:16],
        "crystals": sum(map(len, found.values())),
        "entries": kept,
        "crystals_by_source": by_source(found),
        "parents_of_3dsc": {
            "in_the_index": by_source(found)["3dsc"],
            "all": len(parents()),
            "note": "of the others only formula and id of the doped crystal are at hand, no structure",
        },
        "tolerance": TOLERANCE,
        "against_structure_matcher": calibrate(found, args.seed, args.pairs),
        "command": f"python training/novelty/index.py --seed {args.seed} --pairs {args.pairs}",
    }
    args.out.with_name("known_crystals.card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
