"""The candidates on the page: a sortable table, and a card with a 3D view of each crystal."""

from __future__ import annotations

import base64
from html import escape
from typing import Any, NamedTuple

import numpy as np

from onnes.errors import CrystalError
from onnes.report import dossiers
from onnes.report.export import cif_name, cif_text
from onnes.report.story import Run, Story
from onnes.report.tables import interval, novelty_words
from onnes.report.viewer import view_model
from onnes.report.words import (
    MISSING,
    finite,
    show,
    space_group_html,
    stage_title,
    subscript_html,
)

#: Cards that are open at once; the others wait behind a fold, so that a long run stays readable.
OPEN_CARDS = 24
#: Rows of the table and cards on a page, so that a browser can hold that of the longest run; the csv has the rest.
MOST_ROWS, MOST_CARDS = 200, 60

#: A candidate with its row of the table.
Found = list[tuple[Story, dict[str, Any]]]

#: Heading, kind of sorting (number or text) and whether the column is set right-aligned.
_COLUMNS = (
    ("#", "number"),
    ("Formula", "text"),
    ("Space group", "number"),
    ("T<sub>c</sub> (K)", "number"),
    ("Interval (K)", "number"),
    ("λ", "number"),
    ("ω<sub>log</sub> (K)", "number"),
    ("E<sub>form</sub> (eV/atom)", "number"),
    ("E<sub>hull</sub> (eV/atom)", "number"),
    ("Novelty", "text"),
    ("Domain", "text"),
    ("File", ""),
)


def table(run: Run, found: Found) -> str:
    """HTML of the table of candidates, or a paragraph that says why there are none.

    Parameters
    ----------
    run : Run
    found : list of (Story, dict)
        `onnes.report.export.records` of the run.
    """
    if not found:
        return f'<section id="candidates">\n<h2>Candidates</h2>\n<p>{_none(run)}</p>\n</section>'
    heads = "".join(
        _heading(title, kind, k == 0 and not run.provisional) for k, (title, kind) in enumerate(_COLUMNS)
    )
    rows = "\n".join(_row(k, story, record) for k, (story, record) in enumerate(found[:MOST_ROWS], start=1))
    order = (
        "not ranked yet; ordered by predicted T<sub>c</sub>"
        if run.provisional
        else "in order of rank: T<sub>c</sub> discounted by distance to the hull and for leaving the predictor’s domain"
    )
    return (
        '<section id="candidates">\n<h2>Candidates</h2>\n'
        f"<p>{len(found):,} crystal{'' if len(found) == 1 else 's'}, {order}. {_cut(len(found))}"
        "Press a heading to sort; a formula leads to its structure.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of candidates">\n'
        '<table class="sortable"><caption>Candidates with predicted properties</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n</section>"
    )


def cards(found: Found, mu_star: Any = None) -> tuple[list[dict[str, Any]], str]:
    """Models for the 3D views, and the HTML: dossiers of the best, a card for each of the others.

    Parameters
    ----------
    found : list of (Story, dict)
        `onnes.report.export.records` of a run.
    mu_star : float, optional
        Of the predictions, where the run says so.
    """
    shown = [(story, {**record, "mu_star": mu_star}) for story, record in found[:MOST_CARDS]]
    if not shown:
        return [], ""
    models = [view_model(story.structure) for story, _ in shown]
    deep: list[str] = []
    flat: list[str] = []
    for k, ((story, record), model) in enumerate(zip(shown, models, strict=True), start=1):
        (deep if dossiers.has_dossier(story) else flat).append(_card(k, story, record, model))
    return models, _dossier_section(deep) + _card_section(flat, bool(deep), len(found) - len(shown))


#: How to turn a crystal, in front of the first of them.
_HANDLING = (
    "Drag a view to turn it (or use the arrow keys), pinch or press + and − to zoom; the wheel zooms once a view has "
    "been pressed. Double-press resets it. Radii are drawn small so that bonds show."
)


def _dossier_section(written: list[str]) -> str:
    if not written:
        return ""
    return (
        '<section id="dossiers">\n<h2>Dossiers</h2>\n<p>A closer look at the best candidates. '
        f"{_HANDLING}</p>\n{''.join(written)}\n</section>\n"
    )


def _card_section(written: list[str], others: bool, left_out: int) -> str:
    if not written:
        return ""
    html = f'<div class="cards">\n{"".join(written[:OPEN_CARDS])}\n</div>'
    if len(written) > OPEN_CARDS:
        rest = "".join(written[OPEN_CARDS:])
        count = len(written) - OPEN_CARDS
        html += f'\n<details><summary>{count:,} more</summary><div class="cards">\n{rest}\n</div></details>'
    told = "The other candidates." if others else _HANDLING
    if left_out:
        told += f" {left_out:,} more are not drawn; their CIF files lie beside this page."
    return f'<section id="structures">\n<h2>Structures</h2>\n<p>{told}</p>\n{html}\n</section>'


def _cut(count: int) -> str:
    if count <= MOST_ROWS:
        return ""
    return f"The first {MOST_ROWS:,} are shown; candidates.csv beside this page has all of them. "


def _none(run: Run) -> str:
    if not run.stories:
        return "There are none: no crystal has entered the funnel."
    last = [s.failed.stage for s in run.stories if s.failed is not None]
    if run.unfinished:
        return "There are none yet: no crystal has got as far as a predicted critical temperature."
    if not last:
        return "There are none."
    stage = max(sorted(set(last)), key=last.count)
    return (
        f"There are none. Most crystals ({last.count(stage):,} of {len(run.stories):,}) were refused at "
        f"“{escape(stage_title(stage))}”; the funnel above says why."
    )


def _heading(title: str, kind: str, sorted_now: bool) -> str:
    side = ' class="n"' if kind == "number" and title != "Space group" else ""
    if not kind:
        return f'<th scope="col"{side}>{title}</th>'
    now = ' aria-sort="ascending"' if sorted_now else ""
    return f'<th scope="col"{side} data-kind="{kind}"{now}><button type="button">{title}</button></th>'


def _row(position: int, story: Story, record: dict[str, Any]) -> str:
    hull = record["e_hull_eV_atom"]
    outside = record["in_domain"] is False
    domain = {True: "inside", False: "outside"}.get(record["in_domain"], "unknown")
    link = _cif_link(position, story, record, "CIF") if position <= MOST_CARDS else MISSING
    formula = subscript_html(record["formula"])
    if position <= MOST_CARDS:
        formula = f'<a href="#c{position}">{formula}</a>'
    cells = [
        _number(record["rank"], show(record["rank"], 0)),
        f'<th scope="row" data-v="{escape(record["formula"])}">{formula}</th>',
        f'<td data-v="{_value(record["space_group_number"])}">{_space_group(record)}</td>',
        _number(record["tc_K"], f"<strong>{show(record['tc_K'], 1)}</strong>"),
        _number(record["tc_low_K"], interval(record["tc_low_K"], record["tc_high_K"])),
        _number(record["lambda"], _spread(record["lambda"], record["lambda_std"], 2)),
        _number(record["omega_log_K"], _spread(record["omega_log_K"], record["omega_log_K_std"], 0)),
        _number(record["formation_energy_eV_atom"], show(record["formation_energy_eV_atom"], 3)),
        _number(hull, "unknown" if finite(hull) is None else show(hull, 3)),
        f"<td>{_novelty(record)}</td>",
        f'<td class="{"flag" if outside else ""}">{domain}</td>',
        f"<td>{link}</td>",
    ]
    return f"<tr{' class=outside' if outside else ''}>{''.join(cells)}</tr>"


def _value(value: Any) -> str:
    number = finite(value)
    return "" if number is None else f"{number:.9g}"


def _number(value: Any, text: str) -> str:
    return f'<td class="n" data-v="{_value(value)}">{text}</td>'


def _spread(value: Any, deviation: Any, digits: int) -> str:
    text = show(value, digits)
    if finite(value) is None or finite(deviation) is None:
        return text
    return f'{text}<span class="pm"> ± {show(deviation, digits)}</span>'


def _space_group(record: dict[str, Any]) -> str:
    symbol, number = record["space_group"], finite(record["space_group_number"])
    if not symbol:
        return MISSING if number is None else f"{number:.0f}"
    text = space_group_html(str(symbol))
    return text if number is None else f'{text} <span class="pm">({number:.0f})</span>'


def _novelty(record: dict[str, Any]) -> str:
    """Novelty in a word or two; the card has the rest."""
    word = str(record["novelty"] or "")
    short = {"known-composition-new-structure": "new structure", "new-composition": "new"}
    return short.get(word) or escape(word) or MISSING


def _cif_link(position: int, story: Story, record: dict[str, Any], label: str) -> str:
    """Link that saves the CIF it carries; a dash for a structure that no CIF can describe."""
    try:
        text = cif_text(story, record)
    except (CrystalError, ValueError, ZeroDivisionError, np.linalg.LinAlgError):
        return MISSING
    data = base64.b64encode(text.encode("utf-8")).decode("ascii")
    name = escape(cif_name(position, record))
    return f'<a class="cif" download="{name}" href="data:chemical/x-cif;base64,{data}" title="{name}">{label}</a>'


def _card(position: int, story: Story, record: dict[str, Any], model: dict[str, Any]) -> str:
    formula = subscript_html(record["formula"])
    rank = finite(record["rank"])
    number = f"{rank:.0f}" if rank is not None else str(position)
    flag = ' <span class="tag">outside domain</span>' if record["in_domain"] is False else ""
    legend = "".join(
        f'<li><span class="dot" style="background:{colour}"></span>{escape(name)}</li>'
        for name, colour, _ in model["elements"]
    )
    atoms = len(story.structure.get("species") or [])
    label = (
        f"Unit cell of {record['formula']} with {atoms} atom{'' if atoms == 1 else 's'}, elements "
        + ", ".join(name for name, *_ in model["elements"])
    )
    deep = dossiers.has_dossier(story)
    # A dossier has a part of its own for the hull.
    facts = "".join(
        f"<div><dt>{k}</dt><dd>{v}</dd></div>"
        for k, v in _card_facts(story, record)
        if not deep or k != "Hull phases"
    )
    if deep:
        return _dossier(position, story, record, _Drawn(formula, number, flag, legend, label, facts))
    return (
        f'<article class="card" id="c{position}" data-id="{escape(story.id)}">\n'
        f'<h3><span class="rank">{number}</span> {formula} '
        f'<span class="sg">{_space_group(record)}</span>{flag}</h3>\n'
        f'<canvas class="view" data-model="{position - 1}" tabindex="0" role="img" '
        f'aria-label="{escape(label)}"></canvas>\n<ul class="legend">{legend}</ul>\n<dl>{facts}</dl>\n</article>\n'
    )


class _Drawn(NamedTuple):
    """HTML of the pieces that a card and a dossier share."""

    formula: str
    number: str
    flag: str
    legend: str
    label: str
    facts: str


def _dossier(position: int, story: Story, record: dict[str, Any], d: _Drawn) -> str:
    return (
        f'<article class="dossier" id="c{position}" data-id="{escape(story.id)}">\n'
        f'<h3><span class="rank">{d.number}</span> {d.formula} '
        f'<span class="sg">{_space_group(record)}</span>{d.flag}</h3>\n'
        f'<p class="verdict">{escape(dossiers.summary(story, record))}</p>\n<div class="parts">\n'
        f'<div class="part"><canvas class="view" data-model="{position - 1}" tabindex="0" role="img" '
        f'aria-label="{escape(d.label)}"></canvas>\n<ul class="legend">{d.legend}</ul></div>\n'
        f'<div class="part"><h4>Facts</h4><dl>{d.facts}</dl></div>\n{dossiers.parts(story, record)}</div>\n</article>\n'
    )


def _card_facts(story: Story, record: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value, both HTML, of what the table has no room for."""
    note, warning = story.numbers.get("domain_note"), story.numbers.get("warning")
    likely = finite(story.numbers.get("p_superconductor"))
    low, high = record["tc_low_K"], record["tc_high_K"]
    between = f' <span class="pm">({interval(low, high)})</span>' if finite(low) is not None else ""
    pairs = [
        ("T<sub>c</sub>", show(record["tc_K"], 1, "K") + between),
        ("Cell", _cell(story.structure)),
        ("Atoms", str(record["n_atoms"])),
        ("Density", show(record["density_g_cm3"], 2, "g/cm³") if finite(record["density_g_cm3"]) else ""),
        ("Hull phases", subscript_html(str(record["decomposition"] or ""))),
        ("Novelty", escape(novelty_words(record))),
        (
            "Classifier",
            "" if likely is None else f"{100 * likely:.0f} % superconductor, not insulator or magnet",
        ),
        ("Domain", escape(str(note or ""))),
        ("Caution", escape(str(warning or ""))),
        ("Id", escape(story.id)),
        ("Source", escape(story.source)),
    ]
    return [(k, v) for k, v in pairs if v]


def _cell(structure: dict[str, Any]) -> str:
    lattice = np.asarray(structure["lattice"], dtype=float)
    lengths = np.linalg.norm(lattice, axis=1)
    if not np.all(lengths > 0):
        return ""
    cosines = [lattice[i] @ lattice[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return ", ".join(f"{x:.3f}" for x in lengths) + " Å; " + ", ".join(f"{x:.1f}" for x in angles) + "°"
