"""Formation energies and hull distances of the potential against the Materials Project's, and what they are worth.

    python training/stability/formation_mp.py energies --out WORK/formation [--n 4000] [--seed 0]
    python training/stability/formation_mp.py score --energies WORK/formation --out WORK/formation_mp.json
    python training/stability/formation_mp.py threshold --energies WORK/formation --out formation_check.json

``energies`` takes crystals of the Materials Project at random, among those that have a formation energy and a distance
to the hull, at the geometry given there: the potential's energy, and the formation energy of the shipped property heads
(those of the fold that had not seen the formula, and the mean of all, as a user gets it). Parts of 200 crystals,
resumable. ``score`` makes the table of docs/stability.md, ``threshold`` the table behind the flag of `onnes stability`.

What is compared is not independent: SevenNet-0 was trained on relaxations of these crystals, and most of them are rows
of the hull table themselves, as each is a vertex or a point of its own hull in the Materials Project.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from onnes.crystal.formula import numbers
from onnes.data.files import atomic_text
from onnes.formation import shift_names
from onnes.learn.features import FrozenPotential
from onnes.learn.fold_of import UNSEEN, FormulaTable, held_out
from onnes.learn.metrics import bootstrap
from onnes.learn.properties import PropertyEnsemble
from onnes.stability.hull import HullReferences

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
PART = 200
#: Crystals above it are unstable, by either hull (eV/atom).
CUT = 0.05
#: The Materials Project corrects the energies of compounds of these; metals, borides and carbides it leaves alone.
CORRECTED = frozenset(("O", "S", "F", "Cl", "Br", "I", "N", "H", "Se", "Si", "Sb", "Te"))
#: Elements in fewer crystals get no shift: their rows are not flagged.
LEAST = 5


def rows() -> list[dict]:
    """Crystals that have both values, in the order of the file."""
    with gzip.open(SHARED / "data" / "mp_crystals.jsonl.gz", "rt") as handle:
        every = map(json.loads, handle)
        return [r for r in every if None not in (r.get("formation_energy_eV_atom"), r.get("ehull_eV_atom"))]


def evaluate(chunk: list[dict], potential: FrozenPotential, heads: PropertyEnsemble) -> dict:
    """Energies and predicted formation energies of some crystals, by id."""
    held = [(r, Structure(r["lattice"], r["species"], r["frac"])) for r in chunk]
    held = [(r, s) for r, s in held if all(e.Z in potential.elements for e in s.elements)]
    features = list(potential.evaluate([s for _, s in held]))
    inputs = [(f, numbers(s), s.volume / len(s)) for f, (_, s) in zip(features, held, strict=True)]
    outputs, table = heads.outputs(inputs), FormulaTable.read(heads.checkpoint)
    fold = table.parts_of(r["formula"] for r, _ in held)
    everyone = heads.properties(outputs, inputs).formation_energy_eV_atom
    apart = heads.properties(
        held_out(outputs, np.maximum(fold, 0), table.members_per_fold), inputs
    ).formation_energy_eV_atom
    return {
        r["id"]: {
            "energy_eV_atom": f.energy_eV_atom,
            "model": float(everyone[k]),
            "model_unseen": float(apart[k]),
            "in_training": bool(fold[k] != UNSEEN),
        }
        for k, ((r, _), f) in enumerate(zip(held, features, strict=True))
    }


def energies(out: Path, n: int, seed: int) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    every = rows()
    chosen = np.random.default_rng(seed).choice(len(every), n, replace=False)
    heads = PropertyEnsemble()
    potential = FrozenPotential(potential=heads.potential)
    for start in range(0, n, PART):
        part = out / f"part-{start:06d}.json"
        if part.exists():
            continue
        found = evaluate([every[i] for i in chosen[start : start + PART]], potential, heads)
        with atomic_text(part) as handle:
            json.dump(found, handle)
        print(start, len(found), flush=True)


class Compared:
    """The sample with both formation energies and both distances to the hull; elements are left out.

    Attributes are arrays of shape (n,): formula, fractions (list of dict), mine, theirs, model (eV/atom), above_mine,
    above_without (the hull without the crystal itself), above_theirs, in_table, corrected.
    """

    def __init__(self, folder: Path) -> None:
        found = {
            k: v for p in sorted(folder.glob("part-*.json")) for k, v in json.loads(p.read_text()).items()
        }
        table = HullReferences.load()
        kept, self.elements, self.no_reference = [], 0, 0
        for row in (r for r in rows() if r["id"] in found):
            energy = found[row["id"]]["energy_eV_atom"]
            structure = Structure(row["lattice"], row["species"], row["frac"])
            if len(set(row["species"])) == 1:
                self.elements += 1
                continue
            place = table.evaluate(structure, energy)
            if place.e_hull_eV_atom is None:
                self.no_reference += 1
                continue
            own = [p.id for p in table.phases(row["species"]) if p.formula == row["formula"]]
            without = energy - _hull_without(table, structure, row["formula"])
            kept.append((row, place, without, own == [row["id"]], found[row["id"]]))
        self.formula = np.array([r["formula"] for r, *_ in kept])
        named = [shift_names(r["species"]) for r, *_ in kept]
        self.fractions = [{s: names.count(s) / len(names) for s in names} for names in named]
        self.mine = np.array([p.formation_energy_eV_atom for _, p, *_ in kept])
        self.theirs = np.array([r["formation_energy_eV_atom"] for r, *_ in kept])
        self.model = np.array([f["model_unseen"] for *_, f in kept])
        self.above_mine = np.array([p.e_hull_eV_atom for _, p, *_ in kept])
        self.above_without = np.array([w for _, _, w, *_ in kept])
        self.above_theirs = np.array([r["ehull_eV_atom"] for r, *_ in kept])
        self.in_table = np.array([i for *_, i, _ in kept])
        self.corrected = np.array([bool(CORRECTED & set(r["species"])) for r, *_ in kept])

    def parts(self, shares: tuple[float, ...], seed: int) -> list[np.ndarray]:
        """Split the rows at random, whole formulas together."""
        names = np.unique(self.formula)
        order = dict(
            zip(names, np.random.default_rng(seed).permutation(len(names)) / len(names), strict=True)
        )
        place = np.array([order[f] for f in self.formula])
        ends = np.cumsum((0.0, *shares))
        return [np.flatnonzero((place >= a) & (place < b)) for a, b in pairwise(ends)]

    def shifts(self, some: np.ndarray, difference: np.ndarray) -> dict[str, float]:
        """Least-squares shift of each element, eV an atom, that explains a difference on some rows."""
        names = sorted({s for k in some for s in self.fractions[k]})
        x = np.array([[self.fractions[k].get(s, 0.0) for s in names] for k in some])
        ridge = 0.05 * np.eye(len(names))
        found = np.linalg.solve(x.T @ x + ridge, x.T @ difference[some])
        counts = (x > 0).sum(axis=0)
        return {s: round(float(v), 4) for s, v, c in zip(names, found, counts, strict=True) if c >= LEAST}

    def expected(self, shifts: dict[str, float]) -> np.ndarray:
        """Sum of the shifts of each row; NaN where an element has none."""
        return np.array([sum(n * shifts.get(s, np.nan) for s, n in f.items()) for f in self.fractions])


def _hull_without(table: HullReferences, structure: Structure, formula: str) -> float:
    """Energy of the hull per atom without any phase of this composition: what a crystal nobody knew would meet."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    names = [s.symbol for s in structure.elements]
    phases = [(Composition(p.formula), p) for p in table.phases(names) if p.formula != formula]
    diagram = PhaseDiagram([PDEntry(c, p.energy_eV_atom * c.num_atoms, p.id) for c, p in phases])
    return float(diagram.get_hull_energy_per_atom(structure.composition))


def confusion(truth: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """Counts; positive is at most `CUT` above the hull."""
    t, p = truth <= CUT, found <= CUT
    return {
        "both": int((t & p).sum()),
        "ours_only": int((~t & p).sum()),
        "theirs_only": int((t & ~p).sum()),
        "neither": int((~t & ~p).sum()),
    }


def precision(t: np.ndarray, p: np.ndarray) -> float:
    called = p <= CUT
    return float((called & (t <= CUT)).sum() / called.sum()) if called.any() else float("nan")


def recall(t: np.ndarray, p: np.ndarray) -> float:
    stable = t <= CUT
    return float((stable & (p <= CUT)).sum() / stable.sum()) if stable.any() else float("nan")


def f1(t: np.ndarray, p: np.ndarray) -> float:
    both = ((t <= CUT) & (p <= CUT)).sum()
    return float(2 * both / ((t <= CUT).sum() + (p <= CUT).sum()))


def _score(name: str, truth, predicted, group, statistic=None) -> dict:
    found = bootstrap(name, truth, predicted, group, statistic=statistic)
    return {"value": round(found.value, 4), "ci95": [round(found.low, 4), round(found.high, 4)]}


def _classified(c: Compared, found: np.ndarray, some: np.ndarray) -> dict:
    t, p, g = c.above_theirs[some], found[some], c.formula[some]
    statistics = {"precision": precision, "recall": recall, "f1": f1}
    return {
        "n": len(some),
        "confusion": confusion(t, p),
        **{name: _score(name, t, p, g, statistic) for name, statistic in statistics.items()},
        "f1_calling_all_stable": round(f1(t, np.zeros(len(t))), 4),
    }


def _distances(c: Compared) -> dict:
    """Distance to the hull with the crystal in it, as the Materials Project's is meant."""
    t, g = c.above_theirs, c.formula
    constant = np.full(len(t), np.median(t))
    return {
        "n": len(t),
        "potential": _score("mae", t, c.above_mine, g),
        "constant_median": _score("mae", t, constant, g),
    }


def score(folder: Path, seed: int) -> dict:
    c = Compared(folder)
    fit, rest = c.parts((0.5, 0.5), seed)
    shifted = c.mine - c.expected(c.shifts(fit, c.mine - c.theirs))
    whole = np.arange(len(c.mine))
    inside = rest[np.isfinite(shifted[rest])]
    constant = np.full(len(c.mine), np.median(c.theirs[fit]))

    def mae(predicted: np.ndarray, some: np.ndarray) -> dict:
        return {"n": len(some), **_score("mae", c.theirs[some], predicted[some], c.formula[some])}

    return {
        "n": len(whole),
        "left_out": {"elements": c.elements, "no_reference": c.no_reference},
        "formation_energy_mae_eV_atom": {
            "hull of the potential": mae(c.mine, whole),
            "  of compounds the Materials Project corrects": mae(c.mine, whole[c.corrected]),
            "  of the others": mae(c.mine, whole[~c.corrected]),
            "constant median, other half": mae(constant, rest),
            "hull of the potential, half": mae(c.mine, rest),
            "  after a shift an element fitted on the other half": mae(shifted, inside),
            "property heads that had not seen the formula": mae(c.model, whole[np.isfinite(c.model)]),
        },
        "e_hull_at_0.05_eV_atom": {
            "with the crystal in the table": _classified(c, c.above_mine, whole),
            "without its composition in the table": _classified(c, c.above_without, whole),
        },
        "e_hull_mae_eV_atom": _distances(c),
        "in_the_table": int(c.in_table.sum()),
        "seed": seed,
    }


def threshold(folder: Path, seed: int) -> dict:
    """Shifts on half of the formulas, threshold on a quarter, what the flag is worth on the last quarter."""
    c = Compared(folder)
    fit, tune, test = c.parts((0.5, 0.25, 0.25), seed)
    shifts = c.shifts(fit, c.mine - c.model)
    left = c.mine - c.model - c.expected(shifts)
    known = np.isfinite(left)
    cut = float(np.quantile(np.abs(left[tune][known[tune]]), 0.95))
    test = test[known[test]]
    flagged = np.abs(left[test]) > cut
    # Errors of the hull, and of the heads, against DFT; the hull's after the shift between the conventions.
    hull = np.abs(c.mine - c.theirs - c.expected(c.shifts(fit, c.mine - c.theirs)))[test]
    heads = np.abs(c.model - c.theirs)[test]
    worst = np.fmax(hull, heads) > 0.2

    def middle(x: np.ndarray) -> float:
        return round(float(np.nanmean(x)), 4) if len(x) else float("nan")

    return {
        "what": "formation energy of the potential's hull minus that of the property heads: shift of each element, and "
        "how much may be left",
        "shift_eV": shifts,
        "threshold_eV_atom": round(cut, 4),
        "potential": "7net-0",
        "n": {"shifts": len(fit), "threshold": int(known[tune].sum()), "test": len(test)},
        "on_the_test_part": {
            "flagged": int(flagged.sum()),
            "hull_mae_flagged": middle(hull[flagged]),
            "hull_mae_not_flagged": middle(hull[~flagged]),
            "heads_mae_flagged": middle(heads[flagged]),
            "heads_mae_not_flagged": middle(heads[~flagged]),
            "either_off_by_0.2": int(worst.sum()),
            "of_those_flagged": int((worst & flagged).sum()),
        },
        "data": "Materials Project crystals at random (mp_crystals), heads that had not seen the formula",
        "command": f"python training/stability/formation_mp.py threshold --seed {seed}",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("energies", "score", "threshold"))
    parser.add_argument("--energies", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what == "energies":
        return energies(args.out, args.n, args.seed)
    found = (score if args.what == "score" else threshold)(args.energies, args.seed)
    with atomic_text(args.out) as handle:
        handle.write(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "shift_eV"}, indent=1))


if __name__ == "__main__":
    main()
