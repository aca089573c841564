"""What a page says around the results: facts of the run, limits at each gate, and how far to trust it."""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from importlib.resources import files
from typing import Any

from onnes.report.story import Run
from onnes.report.words import STAGES, finite, show, show_any, show_seconds, stage_title

#: Limits of a stage: section and key of the run's settings, and how a reader sees the value.
LIMITS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "check": (
        ("check", "max_atoms", "at most {} atoms"),
        ("check", "min_distance_A", "distances ≥ {} Å"),
        ("check", "min_packing", "packing ≥ {}"),
        ("check", "max_packing", "packing ≤ {}"),
        ("check", "dimensions", "dimensions: {}"),
        ("chemistry", "no_radioactive", "no radioactive elements"),
        ("chemistry", "no_toxic", "no toxic elements"),
        ("chemistry", "min_abundance_ppm", "elements of at least {} ppm of the crust"),
        ("chemistry", "exclude", "without {}"),
        ("chemistry", "require", "with {}"),
        ("chemistry", "max_elements", "at most {} different elements"),
    ),
    "prescreen": (
        ("prescreen", "min_p_superconductor", "classifier: p ≥ {}"),
        ("prescreen", "min_tc_K", "Tc of the fast network > {} K"),
        ("prescreen", "min_dos_ef_states_eV_atom", "N(EF) > {} states/eV/atom"),
        ("prescreen", "min_debye_K", "Debye temperature > {} K"),
    ),
    "relax": (
        ("relax", "fmax_eV_A", "forces < {} eV/Å"),
        ("relax", "max_steps", "within {} steps"),
        ("relax", "skip_max_force_eV_A", "as they came: forces ≤ {} eV/Å"),
    ),
    "novel": (("novel", "keep", "keep: {}"),),
    "hull": (
        ("hull", "max_formation_energy_eV_atom", "E_form < {} eV/atom"),
        ("hull", "max_e_hull_eV_atom", "E_hull < {} eV/atom"),
        ("hull", "unknown", "unknown hull: {}"),
    ),
    "predict": (
        ("predict", "model", "model: {}"),
        ("predict", "min_tc_K", "Tc > {} K"),
        ("predict", "max_gap_eV", "gap ≤ {} eV"),
        ("predict", "min_p_superconductor", "classifier: p ≥ {}"),
        ("predict", "mu_star", "μ* = {}"),
        ("predict", "formula", "formula: {}"),
        ("predict", "in_domain_only", "in domain only: {}"),
    ),
}


#: Values that refuse nothing, by section.
_OFF: dict[str, dict[str, Any]] = {
    "check": {"dimensions": "any"},
    "chemistry": {
        "no_radioactive": False,
        "no_toxic": False,
        "min_abundance_ppm": 0.0,
        "exclude": [],
        "require": [],
        "max_elements": 118,
    },
    "prescreen": {
        "min_p_superconductor": 0.0,
        "min_tc_K": 0.0,
        "min_dos_ef_states_eV_atom": 0.0,
        "min_debye_K": 0.0,
    },
}


def settings_of(run: Run) -> dict[str, Any]:
    """Settings of a run, or an empty dict when its ledger holds none."""
    found = run.meta.get("settings")
    return found if isinstance(found, dict) else {}


def setting(run: Run, section: str, key: str) -> Any:
    """One setting of a run; None when it is not recorded."""
    part = settings_of(run).get(section)
    return part.get(key) if isinstance(part, dict) else None


def stage_limits(run: Run, stage: str) -> list[str]:
    """Limits that a stage applied, in words, as far as the settings record them."""
    words = []
    for section, key, text in LIMITS.get(stage, ()):
        value = setting(run, section, key)
        if value is not None and _applied(run, section, key, value):
            words.append(text.format(show_any(value)))
    return words


def _applied(run: Run, section: str, key: str, value: Any) -> bool:
    """Whether a limit could refuse anything under the settings of the run."""
    if section == "relax":
        return (key == "skip_max_force_eV_A") == relaxed_elsewhere(run)
    part = _OFF.get(section, {})
    return not (key in part and value == part[key])


def relaxed_elsewhere(run: Run) -> bool:
    """Whether the crystals were taken as they came, with one energy each, instead of being relaxed."""
    return bool(setting(run, "relax", "skip"))


def stage_about(run: Run, stage: str) -> str:
    """What a stage asked in this run, in a few words."""
    if stage == "relax" and relaxed_elsewhere(run):
        return "taken as relaxed before: one energy each with the interatomic potential"
    if stage == "distinct" and relaxed_elsewhere(run):
        return "still not a duplicate in its primitive cell"
    if stage == "prescreen" and (finite(setting(run, "prescreen", "min_debye_K")) or 0.0) > 0:
        return "metallic and stiff enough for phonon-mediated pairing"
    return STAGES[stage][1] if stage in STAGES else ""


def run_facts(run: Run) -> list[tuple[str, str]]:
    """Label and value of every plain fact of a run; what the ledger does not say is left out."""
    meta = run.meta
    paths = setting(run, "generate", "paths")
    facts = [
        ("State", _state(run)),
        ("Crystals", f"{len(run.stories):,} " + ("read from files" if paths else "entered the funnel")),
        ("Seed", _given(setting(run, "run", "seed"))),
        ("Started", _moment(meta.get("started") or meta.get("created"))),
        ("Finished", _moment(meta.get("finished")) if not run.unfinished else ""),
        ("Elapsed", "" if run.unfinished else _elapsed(meta)),
        ("Processes", _given(setting(run, "run", "workers"))),
        ("Machine", _given(meta.get("machine"))),
        ("Peak memory", _memory(meta.get("peak_memory_MB"))),
        ("Potential", _given(setting(run, "relax", "potential"))),
        ("Tc formula", _given(setting(run, "predict", "formula"))),
        ("μ*", _given(setting(run, "predict", "mu_star"))),
    ]
    return [(label, value) for label, value in facts if value]


def versions(run: Run) -> list[tuple[str, str]]:
    """Packages and their versions as the run recorded them."""
    found = run.meta.get("versions")
    return [(str(k), str(v)) for k, v in found.items()] if isinstance(found, dict) else []


def stage_seconds(run: Run) -> list[tuple[str, int, float]]:
    """Stage, number of verdicts and the seconds spent on them, over all processes."""
    rows = []
    for stage in run.stages:
        times = [finite(v.seconds) or 0.0 for s in run.stories if (v := s.verdict(stage)) is not None]
        if times:
            rows.append((stage, len(times), sum(times)))
    return rows


def seconds_words(run: Run) -> list[tuple[str, str]]:
    """Title of each stage and the time it took, ready to show."""
    return [
        (stage_title(stage), f"{show_seconds(total)} for {n:,} crystal{'' if n == 1 else 's'}")
        for stage, n, total in stage_seconds(run)
    ]


def card(name: str) -> dict[str, Any]:
    """A shipped model card; empty when this installation has none."""
    try:
        loaded = json.loads(files("onnes.pretrained").joinpath(f"{name}.card.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def notes(run: Run) -> list[tuple[str, str]]:
    """What to know before trusting a candidate: heading and paragraph, plain text.

    Errors of the models come from the cards shipped with this installation.
    """
    skip = relaxed_elsewhere(run)
    looked = "looks at the crystal as it came" if skip else "looks at the relaxed crystal"
    formula = setting(run, "predict", "formula") or "a closed Tc formula"
    mu_star = setting(run, "predict", "mu_star")
    at = f" at μ* = {show_any(mu_star)}" if mu_star is not None else ""
    found = [
        (
            "Structures and energies",
            _structure_note(run),
        ),
        ("Stability", _hull_note()),
        (
            "Critical temperature",
            f"λ and ω_log come from a network that {looked}; Tc follows from them by "
            f"the {formula} formula{at}. {_error_note(run)} The prediction assumes a metal with "
            "phonon-mediated pairing. Crystals with a predicted band gap are screened out, and those a classifier "
            "takes for insulators or magnets; magnetic moments and imaginary phonons are not computed.",
        ),
        ("Interval and domain", _interval_note(run)),
        ("Novelty", _novelty_note()),
        (
            "What comes next",
            "A candidate is a suggestion for a phonon and electron-phonon calculation, not a discovered "
            "superconductor.",
        ),
    ]
    return [(title, " ".join(text.split())) for title, text in found if text]


def _structure_note(run: Run) -> str:
    potential = _potential_words(run)
    if relaxed_elsewhere(run):
        return (
            "No crystal was relaxed in this run: each was taken as it came, and its energy is that of one evaluation "
            f"with a machine-learned interatomic potential, {potential}, not of density functional theory. How it was "
            "relaxed before, the ledger does not say."
        )
    return (
        f"Every crystal was relaxed with a machine-learned interatomic potential, {potential}, not with "
        "density functional theory. Relax again with a first-principles code before relying on a number."
    )


def _potential_words(run: Run) -> str:
    """Title and citation of the run's potential, or its bare name when this installation lacks it."""
    from onnes.stability.potentials import POTENTIALS

    name = str(setting(run, "relax", "potential") or "not recorded in the ledger")
    found = POTENTIALS.get(name)
    return name if found is None else f"{found.title} [{found.citation}]"


#: Card of each predictor, its row in the table of errors, the name of Tc there, and where the shares of crystals inside
#: their interval stand, range by range.
_PREDICTORS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "standard": ("epc", "shipped ensemble", "tc_K", ("interval", "coverage_cross_fold")),
    "fast": ("fast", "fast network (shipped)", "tc_K", ("interval", "tc_K", "coverage_cross_fold")),
    "spectrum": ("spectrum", "cso", "tc_K", ("variants", "cso", "tc_interval_coverage")),
    "trees": ("trees", "all", "Tc_K", ("interval", "coverage", "Tc_K", "by_prediction")),
}


def _predictor(run: Run) -> str:
    """The predictor of a run; runs from before there was a choice used the standard one."""
    name = str(setting(run, "predict", "model") or "standard")
    return name if name in _PREDICTORS else "standard"


def _error_note(run: Run) -> str:
    file, row, tc_name, _ = _PREDICTORS[_predictor(run)]
    table = _dig(card(file), "cross_validation", "table", row)
    tc, lam, omega = (_dig(table, key, "mae") for key in (tc_name, "lambda", "omega_log_K"))
    if None in (finite(tc), finite(lam), finite(omega)):
        return "The error of the predictor is not part of this installation."
    text = (
        f"In cross-validation over whole formulas ({_given(_dig(table, 'n') or _dig(table, 'lambda', 'n'))}"
        f" crystals) the mean absolute errors of the {_predictor(run)} predictor "
        f"are {show(tc, 1, 'K')} in Tc, {show(lam, 3)} in λ and {show(omega, 0, 'K')} in ω_log"
    )
    constant = _dig(card("epc"), "cross_validation", "table", "constant median", "tc_K", "mae")
    if finite(constant) is not None:
        text += f" (always answering the median: {show(constant, 1, 'K')})"
    return text + "; most of those crystals have a low Tc, and errors grow with it."


def _interval_note(run: Run) -> str:
    file, _, _, where = _PREDICTORS[_predictor(run)]
    rows = _dig(card(file), *where)
    # A row is a mapping, or (from, to, share, n); the first is all crystals together.
    found = [finite(r.get("share") if isinstance(r, dict) else r[2]) for r in rows or []]
    shares = [x for x in found if x is not None]
    text = "The interval of Tc is meant to hold the calculated value of 90% of crystals"
    if shares:
        text += (
            f"; by range of predicted Tc it held {min(shares):.1%} to {max(shares):.1%} in cross-validation"
        )
    return text + (
        ". It covers crystals like those of the training set. One marked “outside” is unlike them (an element, or a "
        "volume per atom, that was not seen; a likely gap; networks that disagree): there neither value nor "
        "interval is to be trusted."
    )


def _hull_note() -> str:
    found = card("hull_references")
    rows, error = finite(found.get("rows")), found.get("formation_energy_against_materials_project")
    text = "Energy above the hull is measured against known phases evaluated with the same potential"
    text += f" ({rows:,.0f} of them). " if rows is not None else ". "
    middle = finite(_dig(error, "median_abs_eV_atom"))
    if middle is not None:
        text += (
            f"Formation energies differ from those of the Materials Project by {show(middle, 3)} eV/atom in the "
            f"median and {show(_dig(error, 'mae_eV_atom'), 3)} eV/atom in the mean. "
        )
    return text + "“Unknown” means that an element has no reference: it is not zero, and not stable."


def _novelty_note() -> str:
    found = card("known_crystals")
    entries = finite(found.get("entries"))
    known = f"{entries:,.0f} known crystals" if entries is not None else "the shipped index of known crystals"
    text = f"“New” means: no match among {known}. It does not mean that nobody has made it."
    table, used = _dig(found, "against_structure_matcher", "by_tolerance"), found.get("tolerance")
    recall = finite(_dig(table, str(used), "recall"))
    if recall is not None:
        text += f" Of crystals that a structure matcher calls equal, the index recognises {recall:.0%}."
    return text


def _dig(found: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def _given(value: Any) -> str:
    return "" if value is None else show_any(value)


def _state(run: Run) -> str:
    return "not finished" if run.unfinished else "finished"


def _time(value: Any) -> datetime.datetime | None:
    with suppress(TypeError, ValueError):
        return datetime.datetime.fromisoformat(str(value))
    return None


def _moment(value: Any) -> str:
    moment = _time(value)
    if moment is None:
        return "" if value is None else str(value)
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f" {moment:%Z}" if moment.tzinfo else "")


def _elapsed(meta: dict[str, Any]) -> str:
    start, end = _time(meta.get("started")), _time(meta.get("finished"))
    if start is None or end is None or (start.tzinfo is None) != (end.tzinfo is None):
        return ""
    seconds = (end - start).total_seconds()
    return show_seconds(seconds) if seconds >= 0 else ""


def _memory(value: Any) -> str:
    number = finite(value)
    if number is None:
        return ""
    return f"{number / 1000:.1f} GB" if number >= 1000 else f"{number:.0f} MB"
