"""What a dossier shows of a candidate besides its structure: spectrum, Tc(mu*), models, phonons, hull, DFT.

Everything comes from the verdicts of the stages ``dossier``, ``phonons`` and ``verify``. A damaged or missing entry
leaves its part out; it never spoils the page.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from onnes.report.story import Story
from onnes.report.svg import Axis, Plot
from onnes.report.tables import beside_hull, formula_of, interval
from onnes.report.words import finite, show, show_any, subscript_html

#: Relation of a candidate to the nearest known crystal, by ``known_nearness`` (novelty first where it decides).
_RELATION = {
    "same-formula": "a known crystal of the same formula",
    "same-prototype": "the same structure with other elements in the same places",
    "composition": "the nearest composition; no known crystal has this structure",
}


def has_dossier(story: Story) -> bool:
    """Whether a stage looked closer at this candidate."""
    return any(k.startswith(("dossier_", "phonon_", "verify_")) for k in story.numbers)


def parts(story: Story, record: dict[str, Any]) -> str:
    """HTML of all parts that the ledger has numbers for."""
    drawn = (_spectrum, _tc_of_mu, _models, _phonons, _known, _decomposition, _dft)
    return "".join(_safely(part, story, record) for part in drawn)


def summary(story: Story, record: dict[str, Any]) -> str:
    """One sentence of plain text about a candidate."""
    said = []
    if finite(record["tc_K"]) is not None:
        between = interval(record["tc_low_K"], record["tc_high_K"])
        said.append(f"Tc {show(record['tc_K'], 1, 'K')} ({between})")
    hull = finite(record["e_hull_eV_atom"])
    if hull is not None:
        said.append(f"{beside_hull(hull)} the hull")
    rows = [r for r in _model_rows(story) if finite(r[5]) is not None]
    if len(rows) > 1:
        values = [float(r[5]) for r in rows]
        said.append(f"{len(rows)} models between {show(min(values), 1)} and {show(max(values), 1, 'K')}")
    if record.get("phonon_verdict"):
        said.append(f"phonons: {_phonon_word(story)}")
    if record.get("dft_verdict"):
        value = finite(record["dft_tc_K"])
        said.append(
            f"DFT: {record['dft_verdict']}"
            + (f", Tc {show(value, 1, 'K')}{_at_mu_star(story)}" if value is not None else "")
        )
    return "; ".join(said) + "." if said else ""


def _at_mu_star(story: Story) -> str:
    value = finite(story.numbers.get("verify_mu_star"))
    return "" if value is None else f" at μ* = {show_any(value)}"


def _safely(part: Callable[[Story, dict[str, Any]], str], story: Story, record: dict[str, Any]) -> str:
    try:
        return part(story, record)
    except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError):
        return ""


def _figure(title: str, body: str, caption: str, *, wide: bool = False) -> str:
    """A titled part; title and caption are HTML."""
    style = ' class="wide"' if wide else ""
    return f"<figure{style}><h4>{title}</h4>{body}<figcaption>{caption}</figcaption></figure>\n"


def _columns(value: Any, least: int) -> list[list[float]]:
    """Columns of equal length, at least so many; ValueError for anything else."""
    columns = [[float(v) for v in column] for column in value]
    if len(columns) < least or len({len(c) for c in columns}) != 1 or len(columns[0]) < 2:
        raise ValueError("columns do not fit together")
    return columns


def _spectrum(story: Story, record: dict[str, Any]) -> str:
    held = story.numbers.get("dossier_alpha2F")
    computed = story.numbers.get("verify_alpha2F")
    if not held and not computed:
        note = story.numbers.get("dossier_note")
        return _figure("Predicted α²F", "", f"None: {escape(str(note))}.") if note else ""
    curves = _columns(held, 4) if held else None
    dft = _columns(computed, 2) if computed else None
    omega_top = max(c[0][-1] for c in (curves, dft) if c)
    high = 1.05 * max(max(c[-1]) for c in (curves, dft) if c)
    plot = Plot(
        Axis.over(0.0, omega_top, "ω (meV)"), Axis.over(0.0, high, "α²F"), f"alpha2F of {record['formula']}"
    )
    said = []
    if curves:
        omega, mean, low, top = curves[:4]
        plot.area(omega, low, top, "band")
        plot.line(omega, mean, "main")
        said.append("Mean of the ensemble of the spectrum model with its calibrated 68.3 % band.")
    if dft:
        plot.line(dft[0], dft[1], "second")
        said.append("Dashed: DFT.")
    return _figure("α²F" if dft else "Predicted α²F", plot.svg(), " ".join(said))


def _tc_of_mu(story: Story, record: dict[str, Any]) -> str:
    held = story.numbers.get("dossier_tc_mu")
    if not held:
        return ""
    mu, tc, low, high = _columns(held[:4], 4)
    solved = [finite(v) for v in held[4]] if len(held) > 4 else []
    top = 1.05 * max([*high, *(v for v in solved if v is not None)])
    plot = Plot(
        Axis.over(mu[0], mu[-1], "μ*", 7),
        Axis.over(0.0, top, "Tc (K)"),
        f"Critical temperature of {record['formula']} against mu*",
    )
    plot.area(mu, low, high, "band")
    plot.line(mu, tc, "main")
    if len(solved) == len(mu):
        plot.line(mu, solved, "second")
    name = escape(str(story.numbers.get("dossier_tc_formula") or "closed formula"))
    return _figure(
        "T<sub>c</sub>(μ*)",
        plot.svg(),
        f"Spectrum model: {name} with its 90 % interval, calibrated by ranges of T<sub>c</sub>, hence its steps; "
        "dashed: Eliashberg equations for the mean curve.",
    )


def _model_rows(story: Story) -> list[list[Any]]:
    held = story.numbers.get("dossier_models")
    return [r for r in held if isinstance(r, list) and len(r) == 10] if isinstance(held, list) else []


def _models(story: Story, record: dict[str, Any]) -> str:
    rows = _model_rows(story)
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(str(r[0]))}</th>'
        + (
            f'<td class="n">{_pm(r[1], r[2], 2)}</td><td class="n">{_pm(r[3], r[4], 0)}</td>'
            f'<td class="n"><strong>{show(r[5], 1)}</strong><br><span class="pm">{interval(r[6], r[7])}</span></td>'
            if finite(r[5]) is not None
            else f'<td colspan="3">{escape(str(r[9]))}</td>'
        )
        + "</tr>"
        for r in rows
    )
    outside = [f"{r[0]}: {r[9]}" for r in rows if finite(r[5]) is not None and r[8] is False]
    caption = "Each model’s own 90 % interval. Standard errs least; trees see no forces and no potential."
    if outside:
        caption += f" Outside the domain: {'; '.join(outside)}."
    return _figure(
        "Agreement of the models",
        _model_plot(rows, str(record["formula"]))
        + '<div class="scroll" tabindex="0" role="region" aria-label="Models"><table class="small"><thead><tr>'
        '<th scope="col">Model</th><th scope="col" class="n">λ</th>'
        '<th scope="col" class="n">ω<sub>log</sub> (K)</th><th scope="col" class="n">T<sub>c</sub> (K)</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div>",
        escape(caption),
    )


def _model_plot(rows: list[list[Any]], formula: str) -> str:
    known = [r for r in rows if finite(r[5]) is not None]
    if not known:
        return ""
    top = 1.05 * max(finite(r[7]) or float(r[5]) for r in known)
    ticks = tuple((float(len(known) - k), str(r[0])) for k, r in enumerate(known))
    plot = Plot(
        Axis.over(0.0, top, "Tc (K)"),
        Axis(0.4, len(known) + 0.6, "", ticks),
        f"Critical temperature of {formula} by model",
        height=50.0 + 24.0 * len(known),
        left=70.0,
    )
    for (y, _), r in zip(ticks, known, strict=True):
        if finite(r[6]) is not None and finite(r[7]) is not None:
            plot.line([float(r[6]), float(r[7])], [y, y], "range")
        plot.mark(float(r[5]), y, "dot-main" if r[8] else "dot-open")
    return plot.svg()


def _phonon_word(story: Story) -> str:
    numbers = story.numbers
    word = {"acoustic-noise": "stable (acoustic noise)"}.get(
        str(numbers.get("phonon_verdict")), str(numbers.get("phonon_verdict"))
    )
    worst = finite(numbers.get("phonon_worst_cm1"))
    if numbers.get("phonon_verdict") == "unstable" and worst is not None:
        at = str(numbers.get("phonon_worst_label") or numbers.get("phonon_worst_q") or "")
        word += f" ({show(worst, 0, 'cm⁻¹')}" + (f" at {at})" if at else ")")
    return word


def _phonons(story: Story, record: dict[str, Any]) -> str:
    numbers = story.numbers
    if not numbers.get("phonon_bands"):
        note = numbers.get("phonon_note")
        return _figure("Phonons", "", escape(str(note)) + ".") if note else ""
    x, *branches = _columns(numbers["phonon_bands"], 2)
    omega, *dos = _columns(numbers["phonon_dos"], 2)
    lowest, highest = min(map(min, branches)), max(map(max, branches))
    room = 0.04 * (highest - min(lowest, 0.0))
    low, high = (lowest - room if lowest < -0.05 else 0.0), highest + room
    ticks = tuple((float(at), str(name)) for at, name in numbers["phonon_ticks"])
    plot = Plot(
        Axis(x[0], x[-1], "", ticks),
        Axis.over(low, high, "ω (meV)"),
        f"Phonon bands of {record['formula']}",
        400.0,
    )
    for at, _ in ticks:
        plot.upright(at)
    if low < 0:
        plot.level(0.0)
    for first, last in numbers["phonon_legs"]:
        for branch in branches:
            plot.line(x[first : last + 1], branch[first : last + 1], "branch")
    return _figure(
        f"Phonons: {escape(_phonon_word(story))}",
        f'<div class="pair">{plot.svg("bands")}{_dos_plot(omega, dos, numbers, (low, high))}</div>',
        _phonon_caption(numbers),
        wide=True,
    )


def _dos_plot(
    omega: list[float], dos: list[list[float]], numbers: dict[str, Any], span: tuple[float, float]
) -> str:
    names = [str(n) for n in numbers["phonon_elements"]]
    total = [sum(values) for values in zip(*dos, strict=True)]
    inside = [t for w, t in zip(omega, total, strict=True) if span[0] <= w <= span[1]]
    plot = Plot(
        Axis(0.0, 1.05 * max(inside), "modes per meV"),
        Axis(*span, ""),
        "Phonon density of states",
        170.0,
        left=10.0,
    )
    keep = [k for k, w in enumerate(omega) if span[0] <= w <= span[1]]
    plot.line([total[k] for k in keep], [omega[k] for k in keep], "total")
    for n, column in enumerate(dos):
        if len(dos) > 1:
            plot.line([column[k] for k in keep], [omega[k] for k in keep], f"kind{n % 6}")
    body = plot.svg("dos")
    if len(dos) < 2:
        return body
    keys = "".join(f'<li class="kind{n % 6}">{escape(name)}</li>' for n, name in enumerate(names))
    return f'<div>{body}<ul class="keys">{keys}</ul></div>'


def _phonon_caption(numbers: dict[str, Any]) -> str:
    size = str(numbers.get("phonon_supercell")).replace("x", "×")
    noise = show(numbers.get("phonon_tolerance_cm1"), 0, "cm⁻¹")
    said = [
        f"Harmonic, {numbers.get('phonon_potential')}, supercell {size}; modes above −{noise} count as noise"
    ]
    if finite(numbers.get("phonon_debye_K")) is not None:
        said.append(f"Debye temperature {show(numbers['phonon_debye_K'], 0, 'K')}")
    if numbers.get("phonon_note"):
        said.append(str(numbers["phonon_note"]))
    return escape(". ".join(said) + ".")


def _known(story: Story, record: dict[str, Any]) -> str:
    id = str(record["known_id"] or "")
    if not id:
        return ""
    numbers = story.numbers
    formula = str(numbers.get("dossier_known_formula") or "")
    if str(record["novelty"]) == "known":
        relation = "the same crystal"
    else:
        relation = _RELATION.get(str(numbers.get("known_nearness")), "")
    if str(record["novelty"]) == "known-composition-new-structure":
        relation = "the same composition in another structure"
    distance = "Distance"
    if numbers.get("known_nearness") == "composition":
        distance = "Atoms not in common"
    pairs = [
        ("Crystal", f"{subscript_html(formula)} {escape(id)}".strip()),
        ("Relation", escape(relation)),
        (
            distance,
            "" if finite(numbers.get("known_distance")) is None else show(numbers["known_distance"], 3),
        ),
        ("Held by", escape(str(numbers.get("known_source") or ""))),
    ]
    rows = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in pairs if v)
    return f"<div class='part'><h4>Nearest known crystal</h4><dl>{rows}</dl></div>\n"


def _decomposition(story: Story, record: dict[str, Any]) -> str:
    """Phases of the hull below the candidate, by atomic share and by formula units."""
    text = str(record["decomposition"] or "")
    if not text:
        return ""
    atoms = _atoms_of(formula_of(story))
    rows = []
    for term in text.split(" + "):
        share, _, name = term.partition(" ")
        units = float(share) * atoms / _atoms_of(name)
        rows.append(
            f'<tr><th scope="row">{subscript_html(name)}</th><td class="n">{100 * float(share):.1f} %</td>'
            f'<td class="n">{round(units, 2):g}</td></tr>'
        )
    hull = finite(record["e_hull_eV_atom"])
    title, gain = "Phases of the hull at its composition", ""
    where = "" if hull is None else beside_hull(hull)
    if hull is not None and where.endswith("above"):
        title, gain = "What it may decay into", f"Set free: {show(hull, 3, 'eV/atom')}."
    elif where == "on":
        gain = "It lies on the hull: none of its energy is set free."
    elif where:
        gain = f"It lies {where} these known phases together."
    return (
        f"<div class='part'><h4>{title}</h4><table class=\"small\"><thead><tr>"
        '<th scope="col">Phase</th><th scope="col" class="n">Share of atoms</th>'
        f'<th scope="col" class="n">Units a formula</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="quiet">{gain}</p></div>\n'
    )


def _atoms_of(formula: str) -> float:
    from pymatgen.core import Composition

    return float(Composition(formula).num_atoms)


def _dft(story: Story, record: dict[str, Any]) -> str:
    numbers = story.numbers
    verdict = numbers.get("verify_verdict")
    if not verdict:
        return ""
    pairs = [
        ("Verdict", escape(f"{verdict}. {numbers.get('verify_detail') or ''}")),
        ("T<sub>c</sub>", _against(numbers.get("verify_tc_K"), record["tc_K"], 1, "K")),
        ("", "T<sub>c</sub> by the Eliashberg equations where they were solved, else Allen-Dynes"),
        ("μ*", _mu_star(numbers, record.get("mu_star"))),
        ("λ", _against(numbers.get("verify_lambda"), record["lambda"], 2)),
        ("ω<sub>log</sub>", _against(numbers.get("verify_omega_log_K"), record["omega_log_K"], 0, "K")),
        ("Settings", escape(str(numbers.get("verify_settings") or ""))),
        ("Notes", escape("; ".join(str(n) for n in numbers.get("verify_notes") or []))),
    ]
    rows = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in pairs if v)
    return f"<div class='part'><h4>DFT</h4><dl>{rows}</dl>{_broadening(numbers)}</div>\n"


def _mu_star(numbers: dict[str, Any], of_run: Any) -> str:
    """The mu* of the computed Tc, and that of the predictions beside it where it is another one."""
    mine, other = finite(numbers.get("verify_mu_star")), finite(of_run)
    if finite(numbers.get("verify_tc_K")) is None:
        return ""
    if mine is None:
        return "not recorded"
    if other is None or abs(mine - other) < 1e-9:
        return show_any(mine)
    return f"{show_any(mine)}; the prediction is for {show_any(other)}, so compare λ and ω<sub>log</sub>"


def _against(value: Any, predicted: Any, digits: int, unit: str = "") -> str:
    if finite(value) is None:
        return ""
    text = f"<strong>{show(value, digits, unit)}</strong>"
    return text if finite(predicted) is None else f"{text} (predicted {show(predicted, digits, unit)})"


def _broadening(numbers: dict[str, Any]) -> str:
    """Lambda against the broadening of the double delta: where it is level, it may be trusted."""
    rows = [(finite(s), finite(v)) for s, v in zip(*numbers.get("verify_curve") or [[], []], strict=True)]
    known = [(s, v) for s, v in rows if s is not None and v is not None]
    if len(known) < 2:
        return ""
    plot = Plot(
        Axis.over(0.0, max(s for s, _ in known), "broadening (Ry)"),
        Axis.over(0.0, 1.1 * max(v for _, v in known), "λ"),
        "lambda against broadening",
        height=180.0,
    )
    plot.line([s for s, _ in known], [v for _, v in known], "main")
    for s, v in known:
        plot.mark(s, v, "dot-main")
    return plot.svg()


def _pm(value: Any, deviation: Any, digits: int) -> str:
    text = show(value, digits)
    if finite(value) is None or finite(deviation) is None:
        return text
    return f'{text} <span class="pm">± {show(deviation, digits)}</span>'
