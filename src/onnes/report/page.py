"""The report of a run: one HTML file that needs no network and no other file."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnes.errors import InputError
from onnes.report import candidates, elements, facts, learning, models
from onnes.report.export import records, write_text
from onnes.report.figures import Chart, charts
from onnes.report.story import LedgerLike, Run, read_run
from onnes.report.tables import funnel_rows, headline
from onnes.report.words import reason_words, show_any, stage_title

#: The page may run its own scripts and styles, and may load nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def write_page(ledger: LedgerLike | Run, path: str | os.PathLike[str]) -> Path:
    """Write the report of a run as one self-contained HTML file.

    Parameters
    ----------
    ledger : Ledger
        Ledger of the run; reading is enough. The same ledger gives the same bytes.
    path : path
        The file to write; it appears when it is complete.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        ``cannot-write`` when the place cannot be written to.
    """
    target = Path(path)
    text = page_html(ledger)
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "is a folder")
        return write_text(target, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError("cannot-write", f"cannot write {target}: {reason}") from error


def page_html(ledger: LedgerLike | Run) -> str:
    """Build the report as text; everything that comes from the ledger is escaped."""
    with no_collection():
        return _page(read_run(ledger))


@contextmanager
def no_collection() -> Iterator[None]:
    """Do without the garbage collector: a long run is millions of objects that live to the end, walked in vain."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _page(run: Run) -> str:
    drawn = charts(run)
    found = records(run)
    views, cards = candidates.cards(found, facts.setting(run, "predict", "mu_star"))
    plotted = any(chart.spec["data"] for chart in drawn)
    data = {"charts": {c.key: c.spec for c in drawn if c.spec["data"]}, "models": views}
    parts = [
        _head(run),
        '<body>\n<a class="skip" href="#candidates">Skip to the candidates</a>\n<main>',
        _summary(run),
        _funnel(run),
        _charts(drawn),
        elements.maps(run),
        learning.section(run),
        candidates.table(run, found),
        cards,
        _trust(run),
        _details(run),
        "</main>",
        f'<script type="application/json" id="data">{script_json(data)}</script>',
        f"<script>{_plotly()}</script>" if plotted else "",
        f"<script>{_asset('viewer.js')}</script>" if views else "",
        f"<script>{_asset('report.js')}</script>",
        "</body>\n</html>\n",
    ]
    # A lone surrogate (a broken file name kept as a source) cannot be written as UTF-8.
    return "\n".join(part for part in parts if part).encode("utf-8", "replace").decode("utf-8")


def script_json(data: Any) -> str:
    """JSON that can stand inside a script element: no ``<`` can end the element or open a comment."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files("onnes.report").joinpath("assets", name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _head(run: Run) -> str:
    n = len(run.final)
    title = f"onnes run: {n:,} candidate{'' if n == 1 else 's'} of {len(run.stories):,} crystals"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_asset('report.css')}</style>\n</head>"
    )


def _summary(run: Run) -> str:
    warning = ""
    if run.unfinished:
        warning = (
            '<p class="notice"><strong>This run is not finished.</strong> What follows is its state when the '
            "page was written; continue it with <code>onnes discover --out RUN --resume</code> and write the "
            "page again.</p>"
        )
    return (
        '<header>\n<p class="kicker">onnes · search for conventional superconductors</p>\n'
        f'<h1>Discovery run</h1>\n<p class="lead">{escape(headline(run))}</p>\n{warning}\n'
        f"{definitions(facts.run_facts(run))}\n</header>"
    )


def definitions(pairs: list[tuple[str, str]]) -> str:
    """A description list of label and value, both plain text."""
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{rows}</dl>' if pairs else ""


def _funnel(run: Run) -> str:
    frame = funnel_rows(run)
    total = max(int(frame["in"].max()), 1)
    rows = "\n".join(_funnel_row(run, row, total) for row in frame.to_dict("records"))
    return (
        '<section id="funnel">\n<h2>Funnel</h2>\n'
        "<p>Each stage sees what the one before it let through. The bar shows what is left.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="Funnel table"><table class="funnel">\n'
        "<caption>Crystals at every stage, the limits that applied and why crystals were refused</caption>\n"
        '<thead><tr><th scope="col">Stage</th><th scope="col" class="n">In</th>'
        '<th scope="col" class="n">Passed</th><th scope="col" class="n">Failed</th>'
        '<th scope="col" class="n">Pending</th><th scope="col">Limits</th>'
        f'<th scope="col">Refused because</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n</section>'
    )


def _funnel_row(run: Run, row: dict[Any, Any], total: int) -> str:
    stage = str(row["stage"])
    about = facts.stage_about(run, stage)
    share = 100 * int(row["passed"]) / total
    limits = "<br>".join(escape(text) for text in facts.stage_limits(run, stage))
    reasons = "".join(
        f'<li><span class="count">{count:,}</span> <span>{escape(reason_words(code))}</span></li>'
        for code, count in row["reasons"].items()
    )
    numbers = "".join(
        f'<td class="n{" zero" if not row[key] else ""}">{int(row[key]):,}</td>'
        for key in ("in", "passed", "failed", "pending")
    )
    return (
        f'<tr><th scope="row">{escape(stage_title(stage))}<span class="about">{escape(about)}</span>'
        f'<span class="bar-back" aria-hidden="true"><span style="width:{share:.2f}%"></span></span></th>'
        f'{numbers}<td class="limits">{limits}</td><td>{f"<ul>{reasons}</ul>" if reasons else ""}</td></tr>'
    )


def _charts(drawn: list[Chart]) -> str:
    figures = []
    for chart in drawn:
        label = escape(f"{chart.title}. {chart.caption}")
        box = ""
        if chart.spec["data"]:
            box = f'<div class="chart" id="chart-{escape(chart.key)}" role="img" aria-label="{label}"></div>'
        figures.append(
            f"<figure>\n<h3>{escape(chart.title)}</h3>\n{box}\n"
            f"<figcaption>{escape(chart.caption)}</figcaption>\n</figure>"
        )
    return (
        '<section id="charts">\n<h2>Distributions</h2>\n<noscript><p>The charts need JavaScript; their '
        f'captions say the same in words.</p></noscript>\n<div class="charts">\n{"".join(figures)}\n</div>\n'
        "</section>"
    )


def _trust(run: Run) -> str:
    other = models.differing(run)
    warning = ""
    if other:
        warning = (
            f'<p class="notice">This installation has other versions of: {escape(", ".join(other))}. Errors quoted '
            "below may not be those of the models that made this run.</p>\n"
        )
    items = "".join(
        f"<div><h3>{escape(title)}</h3><p>{escape(text)}</p></div>" for title, text in facts.notes(run)
    )
    return (
        '<section id="trust">\n<h2>Before you trust a number</h2>\n<p class="quiet">Model errors quoted here '
        f"are those of the models shipped with this installation of onnes.</p>\n{warning}"
        f'<div class="notes">{items}</div>\n'
        "</section>"
    )


def _details(run: Run) -> str:
    settings = [
        (f"{section}.{key}", "not set" if value is None else show_any(value))
        for section, part in facts.settings_of(run).items()
        if isinstance(part, dict)
        for key, value in part.items()
    ]
    blocks = [
        ("Settings", settings),
        ("Time a stage, over all processes", facts.seconds_words(run)),
        ("Models and tables", [(f"{u.stage}: {u.name}", f"{u.hash} ({u.here})") for u in models.used(run)]),
        ("Versions", facts.versions(run)),
        ("Inputs that could not be read", _refused(run, "refused_inputs")),
        ("Verifications that were not taken", _refused(run, "unverified")),
    ]
    body = "".join(
        f"<details><summary>{escape(title)}</summary>{definitions(pairs)}</details>"
        for title, pairs in blocks
        if pairs
    )
    return f'<section id="details">\n<h2>How it was run</h2>\n{body}\n</section>' if body else ""


def _refused(run: Run, key: str) -> list[tuple[str, str]]:
    """Source, message and code of what a run could not use."""
    entries = run.meta.get(key)
    if not isinstance(entries, list):
        return []
    return [(str(e[0]), f"{e[2]} [{e[1]}]") for e in entries if isinstance(e, list) and len(e) == 3]
