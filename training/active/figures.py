"""Figure and table of the pool study from the rows that pool.py wrote.

    python training/active/figures.py --rows pool.jsonl [--rows MORE.jsonl] --out docs/figures/active_pool.png

Only seeds that all strategies have finished count. Intervals are Student's t over seeds; the last lines compare
strategies seed by seed, where the same formulas are known at first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from pool import BATCH, ROUNDS, TARGET_K
from scipy import stats

from onnes.campaign.active import STRATEGIES
from onnes.theory.plots import save_figure

COLOURS = {
    "probability": "#1d5b8f",
    "greedy": "#c05a1c",
    "expected-improvement": "#3c8c5a",
    "random": "#8a919b",
}
STYLES = {"probability": "o-", "greedy": "s--", "expected-improvement": "^-.", "random": "x:"}


def read(paths: list[Path]) -> dict[str, np.ndarray]:
    """Hits (seeds, rounds) of each strategy, over the seeds that all of them have."""
    found: dict[tuple[int, str], list[int]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            key = (row["seed"], row["strategy"])
            # The same seed gives the same hits, whichever run wrote them.
            assert found.setdefault(key, row["hits"]) == row["hits"], key
    seeds = sorted(s for s in {k[0] for k in found} if all((s, name) in found for name in STRATEGIES))
    print("seeds", seeds)
    return {name: np.array([found[s, name] for s in seeds], dtype=float) for name in STRATEGIES}


def half(values: np.ndarray) -> np.ndarray:
    """Half a 95 % interval of the mean over seeds."""
    n = len(values)
    return stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)


def draw(hits: dict[str, np.ndarray], out: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    queries = BATCH * np.arange(1, ROUNDS + 1)
    for k, name in enumerate(("probability", "greedy", "expected-improvement", "random")):
        axes.errorbar(
            queries + 5 * (k - 1.5),
            hits[name].mean(0),
            half(hits[name]),
            fmt=STYLES[name],
            color=COLOURS[name],
            capsize=2,
            linewidth=1.3,
            markersize=4,
            label=name.replace("-", " "),
        )
    axes.set_xlabel("crystals labelled")
    axes.set_ylabel(f"crystals with Tc > {TARGET_K:g} K among them")
    axes.set_xticks(queries)
    axes.set_ylim(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    n = len(hits["random"])
    axes.set_title(f"Alexandria pool, {n} seeds, 95 % intervals", loc="left", fontsize=9)
    save_figure(figure, out.parent, out.stem)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    hits = read(args.rows)
    for name, values in hits.items():
        mean, reach = values.mean(0), half(values)
        cells = " | ".join(f"{m:.0f} ± {r:.0f}" for m, r in zip(mean, reach, strict=True))
        print(f"| {name} | {cells} |")
    for a, b in (("probability", "greedy"), ("expected-improvement", "greedy"), ("probability", "random")):
        difference = hits[a][:, -1] - hits[b][:, -1]
        print(
            f"{a} minus {b} after {BATCH * ROUNDS}: {difference.mean():.1f} ± {half(difference[:, None])[0]:.1f}"
        )
    draw(hits, args.out)


if __name__ == "__main__":
    main()
