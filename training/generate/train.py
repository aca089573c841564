"""Train one of the generators; rerun to resume.

    python training/generate/train.py --model orbits --data FILE.npz --out DIR

Models: ``joint`` (lattice, coordinates and types together), ``orbits`` (lattice and free parameters within a
space group), ``sites`` (space group, Wyckoff letters and elements). FILE.npz is packed by crystals.py. Pre-
training draws every crystal alike; in the last fifth the electron-phonon crystals are drawn eight times as
often as the others, those with Tc above 5 K forty times (up-sampling of the rare ones, after seed paper 002).
``--tell-source`` (sites) adds the data set as a condition: one vector for each data set is learned. With ``--start``
all other weights stay as they are (unless ``--all``), and so does what is drawn without it, and data sets are drawn
as SHARES says; in a training from the beginning in the last part only. ``--composed 1`` (sites) trains a network for
compositions that are asked for (`pack.py composed`).
Every ``--check-every`` steps and at the end, ``--check-draws`` crystals are drawn with the averaged weights and
measured (`onnes.generate.quality`); ``--keep-best`` keeps the weights whose crystals were best. This needs what onnes
needs; the rest needs torch and numpy only, and where there is no more it is left out, which is said.
DIR gets last.pt every two minutes, log.jsonl, and at the end weights.pt with everything that pack.py needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from onnes.generate.diffusion import JointDiffusion, OrbitDiffusion
from onnes.generate.fitting import Fit, FitSettings, Judge
from onnes.generate.groups import Groups, load_frames, load_groups, packed_hash, read_packed
from onnes.generate.orbits import FamilyScale
from onnes.generate.process import LatticeScale
from onnes.generate.site_loss import COMPOSED, SiteLoss, load_sites
from onnes.nets.denoiser import DenoiserSettings
from onnes.nets.sites import SiteSettings

#: Sources of the electron-phonon crystals in a packed file.
EPH = (1, 2)
#: Names of the sources in a packed file, as they are asked for, and their shares of the draws with --tell-source.
LIKE = ("mp", "alexandria", "jarvis", "experiment", "bete-net")
SHARES = (0.15, 0.15, 0.5, 0.1, 0.1)


def weigh(groups: Groups, by_source: bool, further: bool) -> None:
    """Weights of the last part of the training, and of all of it where sources are told to a trained network."""
    source = torch.cat([g["source"] for g in groups.values()])
    for group in groups.values():
        group["tuned_weight"] = last_weights(group["source"], group["log_tc"])
        if by_source:
            count = torch.bincount(source, minlength=len(SHARES)).clamp(min=1)
            share = torch.tensor(SHARES, device=source.device) / count * len(source)
            group["tuned_weight"] = share[group["source"]]
            if further:
                group["weight"] = group["tuned_weight"]


def last_weights(source: torch.Tensor, log_tc: torch.Tensor) -> torch.Tensor:
    """Electron-phonon crystals 8 times as often as others, those above 5 K 40 times."""
    eph = torch.stack([source == s for s in EPH]).any(0).float()
    high = (torch.nan_to_num(log_tc, nan=-9.0) > 0.69897).float()
    return 0.125 + 0.875 * eph + 4.0 * high


def build(args: argparse.Namespace) -> tuple[torch.nn.Module, Groups, Groups, dict[str, object]]:
    """Module, training and validation groups, and what the checkpoint must know beside the weights."""
    load = {"joint": load_groups, "orbits": load_frames, "sites": load_sites}[args.model]
    train, val = (load(args.data, split, args.device) for split in ("train", "val"))
    if args.model == "sites":
        told = len(LIKE) if args.tell_source else 0
        sites = SiteSettings(hidden=args.hidden, layers=args.layers, dropout=args.dropout, sources=told)
        arrays = read_packed(args.data, "train")
        trained = torch.as_tensor(arrays["types"][train_atoms(arrays)].astype(int)).unique()
        features = torch.as_tensor(arrays["element_features"])
        module = SiteLoss(sites, features, trained, shuffle=not args.canonical, composed=args.composed)
        return module, train, val, {"network": sites.as_dict(), "like": list(LIKE[:told])}
    net = DenoiserSettings(
        hidden=args.hidden,
        layers=args.layers,
        max_atoms=max(max(train), max(val)),
        symmetry=args.model == "orbits",
        dropout=args.dropout,
    )
    if args.model == "joint":
        scale = LatticeScale.fit(torch.cat([g["lattice"] for g in train.values()]).cpu().numpy())
        known = {"lattice_mean": list(scale.mean), "lattice_std": list(scale.std)}
        return JointDiffusion(net, scale), train, val, {"network": net.as_dict(), **known}
    family = FamilyScale.fit(torch.cat([g["lattice"] for g in train.values()]))
    known = {"lattice_scale": [family.mean, family.diagonal, family.other]}
    return OrbitDiffusion(net, family), train, val, {"network": net.as_dict(), **known}


def judge_of(args: argparse.Namespace, module: torch.nn.Module, known: dict[str, object]) -> Judge | None:
    """What draws crystals in the course of the training; None where it is not wanted or cannot be had."""
    if args.check_draws < 1:
        return None
    if importlib.util.find_spec("pymatgen") is None:
        return unjudged(args, "no pymatgen here")
    from onnes.generate import quality

    elements, framed = known["elements"], args.model != "joint"
    held = quality.held_out(read_packed(args.data, "val"), args.check_draws, elements, framed=framed)
    if not held:
        return unjudged(args, "no held-out crystals")
    if args.model == "joint":
        return quality.joint(known, held, args.check_draws)
    if args.model == "orbits":
        return quality.orbits(module.net.settings, module.scale, held)
    return quality.sites(module.net.settings, elements, held, args.check_draws)


def unjudged(args: argparse.Namespace, why: str) -> None:
    """Go on without drawn crystals, and say so; with --keep-best nothing could be kept."""
    if args.keep_best:
        raise SystemExit(f"{why}: --keep-best cannot be obeyed")
    print(f"{why}: no crystals are drawn in the course of the training", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("joint", "orbits", "sites"), required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--canonical", action="store_true", help="sites: no change of description")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=12000)
    parser.add_argument("--tuned", type=float, default=0.8)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="begin from these weights.pt, for another round")
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--tell-source", action="store_true", help="sites: the data set is a condition")
    parser.add_argument(
        "--all", action="store_true", help="with --tell-source and --start: train all weights"
    )
    parser.add_argument(
        "--composed", type=float, default=COMPOSED, help="sites: share with the composition asked"
    )
    parser.add_argument("--half", action="store_true", help="messages in bfloat16")
    parser.add_argument("--check-draws", type=int, default=24, help="crystals of a check; 0 for none")
    parser.add_argument("--check-every", type=int, default=5000, help="steps; 0 for the end only")
    parser.add_argument("--keep-best", action="store_true", help="by the drawn crystals, not by the loss")
    args = parser.parse_args()
    if args.keep_best and args.check_draws < 1:
        parser.error("--keep-best goes by the crystals of --check-draws")
    if args.model != "sites" and (args.tell_source or args.all or args.composed != COMPOSED):
        parser.error("--tell-source, --all and --composed are for --model sites")
    if args.all and not (args.start and args.tell_source):
        parser.error("--all goes with --start and --tell-source")
    if not 0 <= args.composed <= 1:
        parser.error("--composed is a share, 0 to 1")
    torch.manual_seed(args.seed)
    if args.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    else:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    module, train, val, known = build(args)
    first_round = {}
    if args.start:
        torch.serialization.add_safe_globals([torch.torch_version.TorchVersion])
        stored = torch.load(args.start, map_location="cpu", weights_only=True)
        start, first_round = stored["weights"], {"start": stored["card"]}
        # A condition that the first round did not have starts at zero.
        new = {k: v for k, v in module.net.state_dict().items() if args.tell_source and k not in start}
        module.net.load_state_dict({name: value.float() for name, value in start.items()} | new)
        for name, parameter in module.net.named_parameters():
            parameter.requires_grad_(not args.tell_source or args.all or name.startswith("like."))
    module.to(args.device).train()
    if args.half and args.model != "sites":
        module.net.in_half = True
    weigh(train, args.tell_source, args.start is not None)
    count = {
        name: sum(len(g["weight"]) for g in groups.values())
        for name, groups in (("train", train), ("val", val))
    }
    size = sum(p.numel() for p in module.parameters())
    print(f"{args.model}: {count}, {size} parameters", flush=True)
    settings = FitSettings(
        steps=args.steps,
        seconds=args.seconds,
        lr=args.lr,
        batch=args.batch,
        pairs=args.pairs if args.model != "sites" else 10**9,
        weight_decay=args.weight_decay,
        tuned=args.tuned,
        every=args.every,
        warmup=args.warmup,
        ema=args.ema,
        seed=args.seed,
        checks=30 if args.model == "sites" else 10,
        # Symbols are soon learnt by heart. Of the free parameters, too, the validation loss rises in the end, but
        # crystals drawn with the last weights match more often (README).
        keep_best=args.model == "sites",
        draw_every=args.check_every,
        keep_drawn=args.keep_best,
    )
    arrays = read_packed(args.data, "train")
    known |= {
        "atom_counts": atom_counts(arrays),
        "elements": torch.as_tensor(arrays["types"][train_atoms(arrays)].astype(int)).unique().tolist(),
        "conditions": conditions(arrays),
    }
    run = Fit(module, module, train, settings, args.out)
    line = run.run((lambda: run.mean_loss(val)) if val else None, judge_of(args, module, known))
    weights = run.weights()
    card = {
        "file": args.data.name,
        "n_train": count["train"],
        "n_val": count["val"],
        "data_hash": packed_hash(args.data),
        "command": "python training/generate/train.py " + " ".join(sys.argv[1:]),
        "seed": args.seed,
        "last": line,
        "drawn": run.drawn,
        **({"step_kept": run.finest_step} if args.keep_best else {}),
        "parameters": size,
        "environment": {
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        },
        **first_round,
    }
    temporary = args.out / "weights.tmp"
    # Half precision: what is shipped, too.
    weights = {name.removeprefix("net."): value.half() for name, value in weights.items()}
    torch.save({"weights": weights, "settings": known, "card": card}, temporary)
    os.replace(temporary, args.out / "weights.pt")
    print("done", json.dumps(line), flush=True)


def atom_counts(arrays) -> dict[str, float]:
    """How often each number of atoms is drawn: as in the last part of the training."""
    weight = last_weights(torch.as_tensor(arrays["source"].astype(int)), torch.as_tensor(arrays["log_tc"]))
    n = torch.as_tensor(arrays["n"].astype(int))
    return {str(k): round(float(weight[n == k].sum()), 3) for k in n.unique().tolist()}


def conditions(arrays) -> list[str]:
    """Labels that at least one row has: only these can be asked for when crystals are drawn."""
    seen = {"log_tc": np.isfinite(arrays["log_tc"]).any(), "stable": (arrays["stable"] > 0).any()}
    return [name for name, there in seen.items() if there]


def train_atoms(arrays) -> torch.Tensor:
    """Indices of the atoms of the rows read."""
    starts, n = arrays["start"].astype(int), arrays["n"].astype(int)
    return torch.cat([torch.arange(s, s + k) for s, k in zip(starts.tolist(), n.tolist(), strict=True)])


if __name__ == "__main__":
    main()
