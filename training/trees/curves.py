"""Learning curves of the classical baselines on Alexandria: python training/trees/curves.py --work DIR --out FILE.png.

Folds of whole formulas, repeated; smaller training sets lie inside larger ones. Every finished curve is kept in DIR,
so a rerun resumes; with all of them there, or with --draw, it only draws what is there.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from onnes.data.records import read_records
from onnes.learn.baselines import baseline
from onnes.learn.descriptors import describe
from onnes.learn.evaluate import Options, learning_curve
from onnes.learn.plan import folds_plan

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDS, REPEATS, SEED = 3, 2, 0
MODELS = {"boosting": ("o-", "#1d5b8f"), "trees": ("s--", "#c05a1c")}
TICKS = {"lambda": (0.09, 0.1, 0.12, 0.14, 0.16, 0.18), "omega_log_K": (25, 30, 35, 40, 45, 50, 55)}
TARGETS = {"lambda": "MAE of lambda", "omega_log_K": "MAE of omega_log (K)"}


def compute(folder: Path) -> None:
    records = read_records(SHARED / "data" / "alexandria_eph.jsonl.gz")
    plan = folds_plan(records, FOLDS, REPEATS, SEED)
    for name in MODELS:
        wanted = [t for t in TARGETS if not (folder / f"{name}-{t}.json").exists()]
        x = describe(records, baseline(name).descriptors) if wanted else np.zeros((0, 0))
        for target in wanted:
            truth = np.array([r.labels[target] for r in records])
            points = learning_curve(baseline(name), x, truth, plan, Options(target=target, seed=SEED))
            median = np.zeros((REPEATS, len(truth)))
            for turn in plan.turns:
                median[turn.repeat, turn.test] = np.median(truth[turn.train])
            result = {
                "split": plan.text,
                "model": baseline(name).words,
                "constant": float(np.abs(median - truth).mean()),
                "points": [{**p, "score": p["score"].to_dict()} for p in points],
            }
            path = folder / f"{name}-{target}.json"
            path.with_suffix(".tmp").write_text(json.dumps(result, indent=1) + "\n")
            path.with_suffix(".tmp").replace(path)
            print(path.name, [round(p["score"].value, 4) for p in points], flush=True)


def draw(folder: Path, out: Path) -> None:
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (target, label) in zip(figure.subplots(1, 2), TARGETS.items(), strict=True):
        for name, (style, color) in MODELS.items():
            path = folder / f"{name}-{target}.json"
            if not path.exists():
                continue
            found = json.loads(path.read_text())
            x = [p["n_train"] for p in found["points"]]
            y, low, high = (
                np.array([p["score"][k] for p in found["points"]]) for k in ("value", "low", "high")
            )
            axes.errorbar(
                x,
                y,
                [y - low, high - y],
                fmt=style,
                color=color,
                capsize=2,
                linewidth=1.2,
                markersize=4,
                label=name,
            )
        axes.axhline(
            found["constant"], color="#8a919b", linewidth=0.8, linestyle=":", label="constant (median)"
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks(TICKS[target], [f"{t:g}" for t in TICKS[target]])
        axes.set_xticks([round(v) for v in x], [f"{v:.0f}" for v in x], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("training crystals (mean over folds)")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{target}, n {found['points'][-1]['score']['n']}", loc="left", fontsize=9)
        axes.legend(frameon=False, fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.draw:
        compute(args.work)
    draw(args.work, args.out)


if __name__ == "__main__":
    main()
