"""Rough cells relaxed with and without docking, and what patience would have saved: rough_cells.py --out FILE.jsonl

Compositions and cells of Materials Project crystals of 2 to 5 atoms, one a formula, numpy seed 0. In the first half the
atoms are shaken by 0.4 A (normal, each coordinate) and the volume is scaled by 0.6 to 1.4; in the second half they lie
anywhere. Each is relaxed twice with 7net-0 (0.05 eV/A, at most 200 steps), with docking and without; every step's
enthalpy and force are kept, so that any patience can be tried afterwards on the same runs. A line a run; a rerun goes
on. Ends with the two tables of docs/relaxation.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError
from onnes.stability import relax as door
from onnes.stability.relax import RelaxSettings, relax
from onnes.stability.relax_watch import Watch
from onnes.stability.sun import wilson

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
STEPS, PATIENCES = 200, (5, 8, 10, 15, 20, 30, 60)
SHAKEN, ANYWHERE = "shaken", "anywhere"


def cells(n: int) -> list[tuple[str, str, Structure]]:
    """Kind, id and rough cell."""
    with gzip.open(SHARED / "data" / "mp_crystals.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in handle]
    random = np.random.default_rng(0)
    seen: set[str] = set()
    found = []
    for i in random.permutation(len(rows)):
        row = rows[i]
        formula = Structure(row["lattice"], row["species"], row["frac"]).composition.reduced_formula
        if not 2 <= len(row["species"]) <= 5 or formula in seen:
            continue
        seen.add(formula)
        kind = SHAKEN if len(found) % 2 == 0 else ANYWHERE
        lattice = Lattice(np.array(row["lattice"]) * random.uniform(0.6, 1.4) ** (1.0 / 3.0))
        frac = np.array(row["frac"])
        if kind == SHAKEN:
            moved = frac + lattice.get_fractional_coords(random.normal(0.0, 0.4, frac.shape))
        else:
            moved = random.uniform(size=frac.shape)
        found.append((kind, row["id"], Structure(lattice, row["species"], moved)))
        if len(found) == n:
            break
    return found


class Recorder(Watch):
    """A watch that keeps what it sees."""

    trace: ClassVar[list[tuple[float, float]]] = []

    def step(self, atoms, enthalpy, fmax):
        Recorder.trace.append((float(enthalpy), float(fmax)))
        return super().step(atoms, enthalpy, fmax)


def run(out: Path, n: int) -> list[dict]:
    """Relax what is missing."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    door.Watch = Recorder  # type: ignore[misc]
    lines = [json.loads(x) for x in out.read_text().splitlines()] if out.exists() else []
    done = {(line["id"], line["dock"]) for line in lines}
    for kind, name, structure in cells(n):
        for dock in (False, True):
            if (name, dock) in done:
                continue
            Recorder.trace = []
            begun = time.process_time()
            line = {"id": name, "kind": kind, "dock": dock, "converged": False}
            try:
                found = relax(structure, RelaxSettings(max_steps=STEPS, dock=dock))
            except CrystalError as error:
                line["reason"] = error.code
            else:
                line |= {"reason": found.reason.split(":")[0], "converged": found.converged}
                line |= {"steps": found.steps, "docked_steps": found.docked_steps}
                line["energy"] = found.energy_eV_atom if np.isfinite(found.energy_eV_atom) else None
            line |= {"trace": Recorder.trace, "seconds": round(time.process_time() - begun, 1)}
            lines.append(line)
            with out.open("a") as handle:
                handle.write(json.dumps(line) + "\n")
    return lines


def stopped_at(trace: list[tuple[float, float]], patience: int) -> int | None:
    """Step at which a patience gives up; None where it does not."""
    watch = Watch(Atoms("H", cell=[1, 1, 1]), 0.0, 4.0, patience)
    for k, (enthalpy, fmax) in enumerate(trace):
        if watch._progress(enthalpy, fmax):
            return k
    return None


def report(lines: list[dict]) -> None:
    """The two tables."""
    print("| cells | docking | n | converged | reasons of the others | steps |\n|---|---|---|---|---|---|")
    for kind in (SHAKEN, ANYWHERE):
        for dock in (False, True):
            some = [x for x in lines if x["kind"] == kind and x["dock"] == dock]
            good = wilson(sum(x["converged"] for x in some), len(some))
            codes = [x["reason"] for x in some if not x["converged"]]
            words = ", ".join(f"{codes.count(c)} {c}" for c in sorted(set(codes)))
            steps = sum(len(x["trace"]) for x in some)
            print(
                f"| {kind} | {'yes' if dock else 'no'} | {len(some)} | {good.count} [{100 * good.low:.0f}, "
                f"{100 * good.high:.0f} %] | {words} | {steps} |"
            )
    by = {(x["id"], x["dock"]): x for x in lines}
    both = [(by[i, False], by[i, True]) for i, d in by if not d and (i, True) in by]
    change = [b["energy"] - a["energy"] for a, b in both if a["converged"] and b["converged"]]
    lower, higher = (sum(s * c > 0.01 for c in change) for s in (-1, 1))
    print(f"\nboth converged: {len(change)}; docked lower by 0.01 eV/atom {lower}, higher {higher}")
    for title, chosen in (("converged", True), ("out of steps", False)):
        some = [x for x in lines if x["converged"] == chosen and (chosen or x["reason"] == "steps")]
        total = sum(len(x["trace"]) for x in some)
        print(
            f"\n{title}: {len(some)} runs, {total} steps\n| patience | stopped | steps saved |\n|---|---|---|"
        )
        for patience in PATIENCES:
            ends = [(stopped_at(x["trace"], patience), len(x["trace"])) for x in some]
            saved = sum(length - 1 - end for end, length in ends if end is not None)
            print(f"| {patience} | {sum(e is not None for e, _ in ends)} | {saved} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=40)
    args = parser.parse_args()
    report(run(args.out, args.n))


if __name__ == "__main__":
    main()
