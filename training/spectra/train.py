"""Train members of the spectral ensemble: train.py --variant cso --fold 0 --replica 0 --features A:B C:D --out DIR.

Every member is a bootstrap of whole formulas of the four folds other than its own; members of one fold are replicas.
A member's state is written at least every 30 s of training, so a rerun resumes; finished members are skipped. Leaves
DIR/NAME-FOLD-REPLICA.npz with the outputs for all crystals that it was not trained on.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

from data import FOLDS, data_hash, fold_of, load
from onnes.learn.spectrum_fit import FitSettings, Member, SpectrumData, outputs
from onnes.nets.spectrum import SpectrumNet, SpectrumSettings, bete


def settings_of(args, features: int) -> SpectrumSettings:
    """Network of a variant."""
    rest = {"features": features, "phonons": args.variant != "cso"}
    if args.net == "bete":
        return bete(**rest)
    return SpectrumSettings(
        **rest, multiplicity=args.multiplicity, lmax=args.lmax, layers=args.layers, neurons=args.neurons
    )


def predict(net: SpectrumNet, data: SpectrumData, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Moments and shares of rows, in two conventions of labels: their own and Alexandria's."""
    found: dict[str, list] = {"moments": [], "shares": [], "moments0": [], "shares0": []}
    own = data.source
    with torch.no_grad():
        for suffix, source in (("", own), ("0", np.zeros_like(own))):
            data.source = source
            for part in np.array_split(rows, max(1, len(rows) // 128)):
                out = outputs(net, data, part)
                found["moments" + suffix].append(torch.stack(net.moments(out), 1).numpy())
                found["shares" + suffix].append(out.shares.numpy().astype(np.float16))
    data.source = own
    return {k: np.concatenate(v) for k, v in found.items()}


def begun(folder: Path, name: str, data: SpectrumData):
    """Weights of a finished member without vibrations, and its bag: what it has not seen stays unseen."""
    with np.load(folder / f"{name}.npz") as found:
        unseen = np.isin(data.ids, found["id"])
    state = torch.load(folder / f"{name}.pt", weights_only=False)["net"]
    rows = np.flatnonzero(~unseen)
    return state, (rows, np.ones(len(rows)), np.flatnonzero(unseen))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=("cso", "cpd", "fpd"), default="cso")
    parser.add_argument("--net", choices=("onnes", "bete"), default="onnes")
    parser.add_argument("--name")
    parser.add_argument("--fold", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--replica", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--features", nargs="*", default=[])
    parser.add_argument(
        "--phonons", type=Path, help="spectra of the atoms: input of cpd and fpd, target of cso"
    )
    parser.add_argument("--sources", choices=("all", "curves", "moments"), default="all")
    parser.add_argument("--no-modes", action="store_true")
    parser.add_argument("--multiplicity", type=int, default=16)
    parser.add_argument("--lmax", type=int, default=2)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--neurons", type=int, default=48)
    parser.add_argument("--fit", default="{}", help="changes of FitSettings, JSON")
    parser.add_argument("--start", type=Path, help="folder of the finished cso members to begin with")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    width = 1472 if len(args.features) == 2 else 576 * len(args.features)
    settings = settings_of(args, width)
    data = load(settings, args.features, args.phonons, modes=not args.no_modes)
    fold = fold_of(data.group)
    name = args.name or args.variant
    print(
        len(data),
        "crystals",
        int(data.has_curve.sum()),
        "curves",
        int((~np.isnan(data.modes[:, 0])).sum()),
        "mode spectra",
        data_hash(data),
        flush=True,
    )
    may = np.ones(len(data), dtype=bool)
    if args.sources == "curves":
        may = data.has_curve
    elif args.sources == "moments":
        data.shares[:] = np.nan
    for k in args.fold:
        for replica in args.replica:
            path = args.out / f"{name}-{k}-{replica}.pt"
            done = path.with_suffix(".npz")
            if done.exists():
                continue
            fit = FitSettings(**{"seed": 1000 + 100 * k + replica, **json.loads(args.fit)})
            start, bag = begun(args.start, f"cso-{k}-{replica}", data) if args.start else (None, None)
            member = Member(
                data, np.flatnonzero((fold != k) & may), settings, fit, path, bag=bag, start=start
            )
            net = member.run(
                lambda m, k=k, r=replica: (
                    print(
                        f"{name} {k} {r} epoch {m.epoch}/{m.fit.epochs} train {m.curve[-1]['train']:.4f} "
                        f"valid {m.curve[-1]['valid']:.4f} {m.seconds:.0f} s",
                        flush=True,
                    )
                    if m.epoch % max(1, m.fit.epochs // 25) == 0
                    else None
                )
            )
            rows = np.setdiff1d(np.arange(len(data)), member.rows)
            found = predict(net, data, rows)
            temporary = done.with_suffix(".tmp.npz")
            np.savez(
                temporary,
                id=np.array(data.ids)[rows],
                fold=k,
                seconds=member.seconds,
                curve=json.dumps(member.curve),
                **found,
            )
            os.replace(temporary, done)


if __name__ == "__main__":
    main()
