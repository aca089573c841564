"""A ledger of as many candidates as wanted, with a funnel like that of a real run, for timing what reads it.

    python benchmarks/synthetic_ledger.py --n 10000 --out W/run10k
    onnes campaign status W/run10k
    onnes report W/run10k

Crystals are random cells of 2 to 20 atoms; shares that pass, numbers, reasons and their sizes are those of runs of the
shipped generator. Nothing in it is a prediction.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from onnes.campaign.ledger import Candidate, Ledger, Verdict, content_hash, now
from onnes.campaign.models import fingerprints
from onnes.campaign.settings import Settings

ELEMENTS = (
    "H",
    "B",
    "C",
    "N",
    "Mg",
    "Al",
    "Si",
    "Ca",
    "Ti",
    "V",
    "Y",
    "Zr",
    "Nb",
    "Mo",
    "La",
    "Hf",
    "Ta",
    "W",
)
#: Stage -> share that passes, reasons of those that do not.
FUNNEL: dict[str, tuple[float, tuple[str, ...]]] = {
    "check": (0.93, ("overlapping-atoms: atoms 0 and 3 are 0.41 A apart", "packing-out-of-range: 2.61")),
    "unique": (0.98, ("duplicate: of g000000",)),
    "relax": (0.85, ("steps: 0.081 eV/A left after 200 steps", "volume: the volume grew 4.2 times")),
    "symmetry": (1.0, ("",)),
    "distinct": (0.97, ("duplicate: of g000000",)),
    "novel": (0.85, ("known-crystal: mp-763",)),
    "hull": (0.35, ("e-hull-above-limit: 0.312 eV/atom", "positive-formation-energy: 0.105 eV/atom")),
    "predict": (0.25, ("tc-below-limit: 2.1 K", "gap-above-limit: 0.83 eV", "classifier: probability 0.01")),
    "rank": (1.0, ("",)),
}
#: Candidates written together, as a run does with its batches.
BLOCK = 500


def make(out: Path, n: int, seed: int = 0) -> Path:
    """Write the ledger of a finished run.

    Parameters
    ----------
    out : Path
        Folder of the run; must hold none.
    n : int
        Candidates.
    """
    rng = np.random.default_rng(seed)
    settings = Settings.from_dict({"run": {"n": n, "seed": seed}})
    with Ledger.create(out, settings.model_dump()) as ledger:
        alive: list[tuple[Candidate, dict[str, Any]]] = []
        for start in range(0, n, BLOCK):
            block = [_candidate(rng, k) for k in range(start, min(start + BLOCK, n))]
            ledger.add_candidates(block, chunk=("synthetic", start, start + len(block)))
            alive += [(c, c.structure) for c in block]
        for stage in FUNNEL:
            verdicts = [_verdict(rng, stage, c, s, k) for k, (c, s) in enumerate(alive)]
            for start in range(0, len(verdicts), BLOCK):
                ledger.add_verdicts(verdicts[start : start + BLOCK])
            pairs = zip(alive, verdicts, strict=True)
            alive = [(c, v.structure or s) for (c, s), v in pairs if v.passed]
        ledger.update_meta(
            {
                "stages": list(FUNNEL),
                "source": "synthetic",
                "state": "finished",
                "started": now(),
                "finished": now(),
                "models": fingerprints(settings),
                "versions": {"onnes": "synthetic"},
                "machine": "none",
                "peak_memory_MB": 0,
            }
        )
    return out


def _candidate(rng: np.random.Generator, k: int) -> Candidate:
    atoms = int(rng.integers(2, 21))
    return Candidate(f"g{k:06d}", k, _crystal(rng, atoms), "symmetric 0123456789abcdef", k)


def _crystal(rng: np.random.Generator, atoms: int) -> dict[str, Any]:
    edge = (atoms * rng.uniform(10.0, 25.0)) ** (1 / 3)
    cell = np.eye(3) * edge + rng.normal(0.0, 0.05 * edge, (3, 3))
    kinds = rng.choice(len(ELEMENTS), size=min(3, atoms), replace=False)
    return {
        "lattice": np.round(cell, 8).tolist(),
        "species": [ELEMENTS[kinds[i % len(kinds)]] for i in range(atoms)],
        "frac": np.round(rng.random((atoms, 3)), 8).tolist(),
    }


def _verdict(
    rng: np.random.Generator, stage: str, c: Candidate, structure: dict[str, Any], place: int
) -> Verdict:
    share, reasons = FUNNEL[stage]
    passed = bool(rng.random() < share)
    reason = "" if passed else str(rng.choice(reasons))
    changed = _crystal(rng, len(structure["species"])) if stage in ("relax", "symmetry") and passed else None
    return Verdict(
        c.id,
        stage,
        passed,
        reason,
        _numbers(rng, stage, structure, place),
        changed,
        content_hash([c.id, stage]),
        content_hash(stage),
        content_hash(["model", stage]) if stage in ("relax", "novel", "hull", "predict") else "",
        c.seed,
        float(rng.exponential(20.0 if stage == "relax" else 0.1)),
    )


def _numbers(rng: np.random.Generator, stage: str, structure: dict[str, Any], place: int) -> dict[str, Any]:
    atoms = len(structure["species"])
    shape = {
        "density_g_cm3": float(rng.uniform(2, 15)),
        "formula": "".join(sorted(set(structure["species"]))),
        "min_distance_A": float(rng.uniform(1, 3)),
        "n_atoms": atoms,
        "packing_fraction": float(rng.uniform(0.3, 1.2)),
        "volume_per_atom_A3": float(rng.uniform(8, 30)),
    }
    tc = float(rng.gamma(1.2, 4.0))
    by_stage: dict[str, dict[str, Any]] = {
        "check": shape,
        "relax": {
            "energy_eV_atom": float(rng.normal(-6, 1)),
            "energy_start_eV_atom": float(rng.normal(-5, 1)),
            "steps": int(rng.integers(5, 200)),
            "fmax_eV_A": 0.04,
            "converged": True,
            "volume_change": float(rng.normal(0, 0.1)),
            "rmsd_A": float(rng.uniform(0, 0.5)),
        },
        "symmetry": {**shape, "space_group_number": 225, "space_group": "Fm-3m", "fingerprint": "x" * 40},
        "novel": {"novelty": "new-composition", "known_id": f"mp-{place}", "known_distance": 0.2},
        "hull": {
            "formation_energy_eV_atom": float(rng.normal(-0.3, 0.2)),
            "e_hull_eV_atom": float(rng.exponential(0.1)),
            "decomposition": "0.5 MgB2 + 0.5 Nb",
            "unknown_references": [],
        },
        "predict": {
            "tc_K": tc,
            "tc_low_K": 0.5 * tc,
            "tc_high_K": 1.8 * tc,
            "lambda": float(rng.uniform(0.3, 1.5)),
            "lambda_std": 0.1,
            "omega_log_K": float(rng.uniform(80, 500)),
            "omega_log_K_std": 20.0,
            "omega_2_K": float(rng.uniform(100, 600)),
            "p_superconductor": float(rng.random()),
            "gap_eV": 0.0,
            "in_domain": bool(rng.random() < 0.7),
            "domain_note": "",
            "warning": "",
        },
        "rank": {"rank": place + 1, "score": tc},
    }
    return by_stage.get(stage, {})


def main() -> None:
    """Make a ledger from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(make(given.out, given.n, given.seed))


if __name__ == "__main__":
    main()
