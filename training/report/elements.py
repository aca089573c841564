"""Periodic table of out-of-fold errors: python training/report/elements.py OOF.csv --out FILE.png.

OOF.csv has the columns id and lambda_pred (training/epc/pack.py); each row was predicted by heads that did not see its
formula. Scored by ``onnes evaluate`` on the Alexandria rows.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from onnes.data.records import read_records
from onnes.learn.evaluate import Options, evaluate, labelled
from onnes.learn.evaluation_files import element_figure
from onnes.learn.plan import whole_plan

SHARED = Path(os.environ.get("ONNES_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("oof", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", default="lambda")
    parser.add_argument("--words", default="shipped predictor, out of fold, Alexandria")
    args = parser.parse_args()
    records = labelled(read_records(SHARED / "data" / "alexandria_eph.jsonl.gz"), args.target)
    found = evaluate(str(args.oof), records, whole_plan(records), Options(target=args.target, draws=200))
    mae = next(line.score for line in found.lines if line.score.name == "mae")
    words = f"{args.words} (n {mae.n}, MAE {mae.value:.3f}, 95 % {mae.low:.3f} to {mae.high:.3f})"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    element_figure(replace(found, words=words)).savefig(args.out, dpi=160)
    for e in sorted(found.elements, key=lambda e: -e.mae)[:8]:
        print(f"{e.element}: n {e.n}, MAE {e.mae:.3f}, bias {e.bias:+.3f}")
    few = [e.element for e in found.elements if e.n < 30]
    print(
        f"{len(found.elements)} elements; fewer than 30 crystals: {', '.join(few) or 'none'}; missing {mae.missing}"
    )


if __name__ == "__main__":
    main()
