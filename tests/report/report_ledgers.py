"""Small ledgers for the report's tests: a few hand-written crystals with verdicts of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnes.campaign.ledger import Candidate, Ledger, Verdict

STAGES = ["check", "unique", "relax", "symmetry", "novel", "hull", "predict", "rank"]

MGB2 = {
    "lattice": [[3.086, 0.0, 0.0], [-1.543, 2.67256, 0.0], [0.0, 0.0, 3.524]],
    "species": ["Mg", "B", "B"],
    "frac": [[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
}
NIOBIUM = {
    "lattice": [[-1.65, 1.65, 1.65], [1.65, -1.65, 1.65], [1.65, 1.65, -1.65]],
    "species": ["Nb"],
    "frac": [[0, 0, 0]],
}
NBN = {
    "lattice": [[0.0, 2.2, 2.2], [2.2, 0.0, 2.2], [2.2, 2.2, 0.0]],
    "species": ["Nb", "N"],
    "frac": [[0, 0, 0], [0.5, 0.5, 0.5]],
}

SETTINGS: dict[str, Any] = {
    "run": {"n": 7, "seed": 11, "workers": 2},
    "generate": {"paths": [], "elements": []},
    "check": {"max_atoms": 60, "min_distance_A": 0.5, "min_packing": 0.05, "max_packing": 2.5},
    "relax": {"potential": "7net-0", "fmax_eV_A": 0.05, "max_steps": 200},
    "hull": {"max_formation_energy_eV_atom": 0.0, "max_e_hull_eV_atom": 0.17, "unknown": "keep"},
    "predict": {"min_tc_K": 6.5, "mu_star": 0.1, "formula": "allen-dynes", "in_domain_only": False},
}


class Writer:
    """Collects candidates and verdicts in a readable way."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.verdicts: list[Verdict] = []

    def candidate(self, id: str, structure: dict[str, Any], source: str = "diffusion test") -> str:
        index = len(self.candidates)
        self.candidates.append(Candidate(id, index, structure, source, 100 + index))
        return id

    def verdict(
        self, id: str, stage: str, reason: str = "", structure: dict[str, Any] | None = None, **numbers: Any
    ) -> None:
        self.verdicts.append(
            Verdict(id, stage, not reason, reason, numbers, structure, "in", "set", "", 0, 0.5)
        )

    def until_predict(
        self, id: str, tc: float, *, hull: float | None, in_domain: bool = True, **more: Any
    ) -> None:
        """Pass every stage up to and including ``predict``."""
        self.verdict(id, "check", n_atoms=3, density_g_cm3=2.6, packing_fraction=0.7)
        self.verdict(id, "unique")
        self.verdict(id, "relax", structure=more.pop("relaxed", None), energy_eV_atom=-5.0, converged=True)
        self.verdict(id, "symmetry", space_group_number=191, space_group=more.pop("symbol", "P6/mmm"))
        self.verdict(id, "novel", novelty="new", known_id=more.pop("known_id", ""))
        formation = None if hull is None else -0.25
        self.verdict(id, "hull", formation_energy_eV_atom=formation, e_hull_eV_atom=hull, decomposition="")
        numbers = {"lambda": 0.7, "lambda_std": 0.05, "omega_log_K": 700.0, "omega_log_K_std": 20.0}
        span = {"tc_K": tc, "tc_low_K": tc - 4.0, "tc_high_K": tc + 6.0}
        self.verdict(id, "predict", **numbers, **span, in_domain=in_domain, **more)

    def write(self, path: Path, **meta: Any) -> Ledger:
        ledger = Ledger.create(path, SETTINGS)
        ledger.update_meta({"stages": STAGES, "created": "2026-01-02T03:04:05+00:00", **meta})
        ledger.add_candidates(self.candidates)
        ledger.add_verdicts(self.verdicts)
        return ledger


FINISHED = {
    "state": "finished",
    "started": "2026-01-02T03:04:05+00:00",
    "finished": "2026-01-02T04:06:05+00:00",
    "versions": {"onnes": "0.1.0"},
    "peak_memory_MB": 2345,
}


def finished(path: Path, **meta: Any) -> Ledger:
    """Seven crystals: MgB2 and Nb ranked, five refused at three gates."""
    w = Writer()
    moved = {**MGB2, "lattice": [[3.0, 0.0, 0.0], [-1.5, 2.598076, 0.0], [0.0, 0.0, 3.4]]}
    w.until_predict(w.candidate("g000000", NIOBIUM), 9.2, hull=None, in_domain=False, domain_note="too dense")
    w.until_predict(w.candidate("g000001", MGB2), 35.4, hull=0.012, relaxed=moved)
    w.verdict(w.candidate("g000002", NIOBIUM), "check", "overlapping-atoms: sites 0 and 1 are 0.2 A apart")
    w.verdict(w.candidate("g000003", NIOBIUM), "check", "overlapping-atoms: sites 0 and 2 are 0.3 A apart")
    w.verdict(w.candidate("g000004", NIOBIUM), "check", "flat-cell: planes 0.1 A apart")
    w.verdict(w.candidate("g000005", NIOBIUM), "check")
    w.verdict("g000005", "unique", "duplicate: of g000000", duplicate_of="g000000")
    w.until_predict(w.candidate("g000006", NBN), 2.0, hull=0.05)
    w.verdicts[-1] = Verdict(
        "g000006",
        "predict",
        False,
        "tc-below-limit: 2.0 K",
        w.verdicts[-1].numbers,
        None,
        "in",
        "set",
        "",
        0,
        0.5,
    )
    w.verdict("g000001", "rank", rank=1, score=30.0)
    w.verdict("g000000", "rank", rank=2, score=4.0)
    return w.write(path, **{**FINISHED, **meta})


def unfinished(path: Path) -> Ledger:
    """Three crystals: one predicted, one waiting for its relaxation, one refused; the run was stopped."""
    w = Writer()
    w.until_predict(w.candidate("g000000", MGB2), 30.0, hull=0.02)
    w.verdict(w.candidate("g000001", NBN), "check", density_g_cm3=8.0, packing_fraction=0.8)
    w.verdict("g000001", "unique")
    w.verdict(w.candidate("g000002", NIOBIUM), "check", "flat-cell: planes 0.1 A apart")
    return w.write(path, state="running", started="2026-01-02T03:04:05+00:00")


HOSTILE = '<script>alert("x")</script>'


def hostile(path: Path) -> Ledger:
    """A ranked crystal whose every text tries to leave its place on the page."""
    w = Writer()
    bad = f"</script>{HOSTILE}<!-- ' &amp; \u2028"
    w.until_predict(
        w.candidate(HOSTILE, MGB2, source=f"/data/{bad}.cif#<b>"),
        20.0,
        hull=0.01,
        known_id=HOSTILE,
        symbol=HOSTILE,
        in_domain=False,
        domain_note=bad,
    )
    w.verdict(HOSTILE, "rank", rank=1, score=1.0)
    w.verdict(w.candidate("g2", NBN), "check", f"{HOSTILE}: {bad}")
    return w.write(
        path,
        **{**FINISHED, "machine": bad, "versions": {HOSTILE: bad}, "finished": bad},
        refused_inputs=[[bad, HOSTILE, bad]],
    )


def dossier_numbers(word: str = "") -> dict[str, Any]:
    """What the stages ``dossier``, ``phonons`` and ``verify`` leave, every text with a word in it."""
    omega = [float(k) for k in range(0, 101, 5)]
    mean = [max(0.0, 1.0 - abs(w - 60) / 40) for w in omega]
    path = [0.0, 0.1, 0.2, 0.2, 0.3]
    return {
        "dossier": {
            "dossier_models": [
                ["standard", 0.7, 0.1, 700.0, 20.0, 35.4, 31.4, 41.4, True, word],
                ["spectrum", 0.8, 0.1, 650.0, 20.0, 38.0, 30.0, 45.0, False, f"far away {word}"],
                ["fast", 0.6, 0.1, 690.0, 20.0, 25.0, 20.0, 32.0, True, ""],
                ["trees", *[None] * 8, f"unknown-element{word}"],
            ],
            "dossier_known_formula": f"AlB2{word}",
            "dossier_alpha2F": [omega, mean, [0.7 * v for v in mean], [1.3 * v for v in mean]],
            "dossier_tc_mu": [
                [0.08, 0.1, 0.12],
                [40.0, 38.0, 36.0],
                [33.0, 30.0, 27.0],
                [48.0, 45.0, 43.0],
                [42, 41, None],
            ],
            "dossier_tc_formula": f"allen-dynes{word}",
        },
        "phonons": {
            "phonon_verdict": "unstable",
            "phonon_tolerance_cm1": 5.0,
            "phonon_worst_cm1": -44.0,
            "phonon_worst_label": f"K{word}",
            "phonon_bands": [path, [0.0, 3.0, -5.5, -5.5, 4.0], [0.0, 9.0, 12.0, 12.0, 20.0]],
            "phonon_ticks": [[0.0, "Γ"], [0.2, f"K|M{word}"], [0.3, "A"]],
            "phonon_legs": [[0, 2], [3, 4]],
            "phonon_dos": [
                [-10.0, 0.0, 10.0, 20.0, 30.0],
                [0.0, 0.1, 0.4, 0.2, 0.0],
                [0.0, 0.2, 0.1, 0.1, 0.0],
            ],
            "phonon_elements": [f"B{word}", "Mg"],
            "phonon_potential": f"7net-0{word}",
            "phonon_supercell": "4x4x4",
            "phonon_note": f"soft-mode: {word}",
        },
        "verify": {
            "verify_verdict": f"superconductor{word}",
            "verify_detail": f"lambda 0.9 {word}",
            "verify_tc_K": 39.0,
            "verify_lambda": 0.9,
            "verify_omega_log_K": 660.0,
            "verify_curve": [[0.01, 0.02, 0.03], [None, 0.95, 0.9]],
            "verify_alpha2F": [omega, [0.9 * v for v in mean]],
            "verify_settings": f"tier quick {word}",
            "verify_notes": [f"note {word}"],
        },
    }


def deep(path: Path, word: str = "", **meta: Any) -> Ledger:
    """The finished run with everything a dossier can hold for MgB2, and rounds of active learning."""
    ledger = finished(path, **meta)
    for stage, numbers in dossier_numbers(word).items():
        ledger.add_verdicts([Verdict("g000001", stage, True, "", numbers, None, "in", "set", "", 0, 1.0)])
    rounds = [
        {"round": k, "n_labelled": 5, "n_hits": k, "best_tc_K": 20.0 + k, "target_tc_K": 10.0}
        | {"strategy": f"ei{word}", "model_hash": f"m{k}{word}"}
        for k in (1, 2, 3)
    ]
    ledger.update_meta({"stages": [*STAGES, "dossier", "phonons"], "rounds": rounds})
    return ledger
