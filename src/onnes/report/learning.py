"""The curve of an active-learning campaign: what every round found, beside what was labelled for it."""

from __future__ import annotations

from html import escape
from itertools import accumulate
from typing import Any

from onnes.report.story import Run
from onnes.report.svg import Axis, Plot
from onnes.report.words import finite, show


def rounds_of(run: Run) -> list[dict[str, Any]]:
    """Rounds of a run in order, with counts from the first round on; empty for a run without rounds.

    `onnes.campaign.rounds` writes a dict a round: ``round``, ``n_labelled`` and ``n_hits`` of that round, ``best_tc_K``
    so far, ``target_tc_K``, ``strategy``, ``model_hash``. Here ``labelled`` and ``hits`` are their running sums.
    """
    held = run.meta.get("rounds")
    if not isinstance(held, list):
        return []
    good = [r for r in held if isinstance(r, dict) and finite(r.get("n_labelled")) is not None]
    good.sort(key=lambda r: finite(r.get("round")) or 0.0)
    labelled = accumulate(finite(r["n_labelled"]) or 0.0 for r in good)
    hits = accumulate(finite(r.get("n_hits")) or 0.0 for r in good)
    return [{**r, "labelled": n, "hits": h} for r, n, h in zip(good, labelled, hits, strict=True)]


def section(run: Run) -> str:
    """HTML of the active-learning curve and its table; empty for a run without rounds."""
    rounds = rounds_of(run)
    if not rounds:
        return ""
    target = finite(rounds[-1].get("target_tc_K"))
    above = show(target, 1, "K") if target is not None else "the target"
    last = rounds[-1]
    told = (
        f"{len(rounds):,} round{'' if len(rounds) == 1 else 's'}, {show(last['labelled'], 0)} crystals labelled, "
        f"{show(last['hits'], 0)} of them with a labelled Tc above {above}; "
        f"highest {show(last.get('best_tc_K'), 1, 'K')}."
    )
    figures = "".join(
        f"<figure><h3>{title}</h3>{plot}</figure>"
        for title, plot in (
            ("Hits", _curve(rounds, "hits", "hits")),
            ("Highest T<sub>c</sub>", _curve(rounds, "best_tc_K", "Tc (K)")),
        )
        if plot
    )
    rows = "".join(_row(r) for r in rounds)
    return (
        f'<section id="learning">\n<h2>Active learning</h2>\n<p>{escape(told)}</p>\n'
        f'<div class="charts">{figures}</div>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Rounds"><table><thead><tr>'
        '<th scope="col" class="n">Round</th><th scope="col" class="n">Labelled</th><th scope="col" class="n">Hits</th>'
        '<th scope="col" class="n">Highest T<sub>c</sub> (K)</th><th scope="col">Strategy</th>'
        '<th scope="col">Model</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>\n</section>"
    )


def _curve(rounds: list[dict[str, Any]], key: str, name: str) -> str:
    pairs = [(float(r["labelled"]), v) for r in rounds if (v := finite(r.get(key))) is not None]
    if not pairs:
        return ""
    high = max(v for _, v in pairs)
    plot = Plot(
        Axis.over(0.0, max(x for x, _ in pairs) or 1.0, "crystals labelled"),
        Axis.over(0.0, 1.1 * high or 1.0, name),
        f"{name} against crystals labelled",
    )
    plot.line([x for x, _ in pairs], [v for _, v in pairs], "main")
    for x, v in pairs:
        plot.mark(x, v, "dot-main")
    return plot.svg()


def _row(r: dict[str, Any]) -> str:
    numbers = "".join(
        f'<td class="n">{show(r.get(key), digits)}</td>'
        for key, digits in (("round", 0), ("n_labelled", 0), ("n_hits", 0), ("best_tc_K", 1))
    )
    words = "".join(f"<td>{escape(str(r.get(key) or ''))}</td>" for key in ("strategy", "model_hash"))
    return f"<tr>{numbers}{words}</tr>"
