"""Train one network on one fold: python training/alignn/train.py --model fast --fold 0 --out DIR.

``fast`` is the shipped network (body: small ALIGNN, wide readout), ``onnes`` and ``paper`` are the presets of
`onnes.nets.alignn` with their published readout and one offset a label source. The training is resumed from
DIR/NAME.last.pt; it ends with DIR/NAME.pt (averaged weights) and DIR/NAME.npz (outputs for the held-out fold).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import epc_rows
import numpy as np
import torch
from torch import nn

from onnes.graph.batch import collate
from onnes.graph.settings import GraphSettings
from onnes.learn.graph_inputs import WithSource
from onnes.nets.alignn import Alignn, preset
from onnes.nets.epc_net import EpcNet, EpcNetSettings

WEIGHTS = (1.0, 1.0, 0.3)


class Plain(nn.Module):
    """A preset with its own readout, called like the fast network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = WithSource(Alignn(replace(preset(name), targets=3)), 2, 3)

    def forward(self, batch, log_volume, source):
        return self.net(batch, source), None


def fast_settings(args, auxiliary: int) -> EpcNetSettings:
    graph = GraphSettings(
        kind="soft", neighbours=args.neighbours, line=args.angles > 0, line_neighbours=args.line_neighbours
    )
    body = replace(
        preset("onnes"), graph=graph, hidden=args.width, alignn_layers=args.angles, gcn_layers=args.plain
    )
    return EpcNetSettings(body=body, auxiliary=auxiliary, dropout=args.dropout)


@dataclass
class Set:
    graphs: list
    volume: torch.Tensor
    source: torch.Tensor
    y: torch.Tensor
    aux: torch.Tensor

    def batch(self, index):
        i = torch.as_tensor(index)
        return (
            (collate([self.graphs[k] for k in index]), self.volume[i], self.source[i]),
            self.y[i],
            self.aux[i],
        )


def l1(out, target, weight):
    """Mean absolute error of the known labels of every column, weighted."""
    known = ~torch.isnan(target)
    error = (out - torch.nan_to_num(target)).abs() * known
    return (error.sum(0) / known.sum(0).clamp(min=1) * weight).sum()


def run(net, data: Set, train, args, path: Path, weights=WEIGHTS) -> nn.Module:
    """Train with one-cycle AdamW and return the exponential average of the weights."""
    steps_an_epoch = len(train) // args.batch
    total_steps = args.epochs * steps_an_epoch
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": args.decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, args.rate, total_steps=total_steps, pct_start=0.15
    )
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=False
    )
    last, begin, spent = path.with_suffix(".last.pt"), 0, 0.0
    if last.exists():
        kept = torch.load(last, weights_only=False)
        for name, part in (
            ("net", net),
            ("optimiser", optimiser),
            ("schedule", schedule),
            ("average", average),
        ):
            part.load_state_dict(kept[name])
        begin, spent = kept["epoch"], kept["spent"]
    weight = torch.tensor(weights)
    many = data.aux.shape[1]
    for epoch in range(begin, args.epochs):
        net.train()
        # Order and dropout follow from seed and epoch alone, so that a resumed training is the same training.
        order = train[np.random.default_rng([args.seed, epoch]).permutation(len(train))]
        torch.manual_seed(1000 * args.seed + epoch)
        begun, losses = time.process_time(), []
        for step in range(steps_an_epoch):
            inputs, y, aux = data.batch(order[step * args.batch : (step + 1) * args.batch])
            out, extra = net(*inputs)
            loss = l1(out, y, weight)
            losses.append(loss.item())
            if extra is not None:
                loss = loss + args.aux_weight * l1(extra, aux, torch.full((many,), 1.0 / many))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(net)
        spent += time.process_time() - begun
        state = {"epoch": epoch + 1, "spent": spent}
        state |= {
            k: v.state_dict() for k, v in (("net", net), ("optimiser", optimiser), ("schedule", schedule))
        }
        state["average"] = average.state_dict()
        torch.save(state, last.with_suffix(".tmp"))
        os.replace(last.with_suffix(".tmp"), last)
        print(
            f"{path.name} epoch {epoch + 1}/{args.epochs} loss {np.mean(losses):.4f} {spent:.0f} s",
            flush=True,
        )
        if args.stop_s and spent > args.stop_s:
            raise SystemExit("time is up")
    return average.module


@torch.no_grad()
def outputs(net, data: Set, rows, size: int = 64) -> np.ndarray:
    net.eval()
    found = []
    for start in range(0, len(rows), size):
        found.append(net(*data.batch(rows[start : start + size])[0])[0].numpy())
    return np.concatenate(found)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("fast", "onnes", "paper"), default="fast")
    parser.add_argument("--name")
    parser.add_argument("--fold", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, nargs="*", default=[])
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--aux-weight", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--neighbours", type=int, default=12)
    parser.add_argument("--line-neighbours", type=int, default=6)
    parser.add_argument("--angles", type=int, default=2)
    parser.add_argument("--plain", type=int, default=2)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--stop-s", type=float, default=0.0)
    args = parser.parse_args()
    args.name = args.name or args.model
    return args


def one(args, rows, fold: int) -> None:
    path = args.out / f"{args.name}-{fold}.pt"
    if path.exists():
        return
    train, test = np.flatnonzero(rows.fold != fold), np.flatnonzero(rows.fold == fold)
    center, spread = np.nanmean(rows.y[train], 0), np.nanstd(rows.y[train], 0)
    aux = np.zeros((len(rows.y), 0))
    if args.features and args.model == "fast":
        aux = epc_rows.auxiliary(args.features, rows.ids, train, args.components)
    torch.manual_seed(100 * fold + args.seed)
    settings = fast_settings(args, aux.shape[1]) if args.model == "fast" else None
    net = EpcNet(settings) if settings else Plain(args.model)
    graph = settings.body.graph if settings else preset(args.model).graph
    built = epc_rows.graphs(rows.crystals, graph, args.out / "graphs")
    data = Set(
        built,
        torch.as_tensor(np.log(rows.volume)).float(),
        torch.as_tensor(rows.source),
        torch.as_tensor((rows.y - center) / spread).float(),
        torch.as_tensor(aux).float(),
    )
    train = train[[built[i] is not None for i in train]]
    whole = run(net, data, train, args, path)
    out = np.full((len(test), 3), np.nan)
    known = np.array([built[i] is not None for i in test])
    out[known] = outputs(whole, data, test[known]) * spread + center
    about = {k: (v if isinstance(v, int | float | str) else repr(v)) for k, v in vars(args).items()}
    about |= {"center": center.tolist(), "spread": spread.tolist(), "data_hash": rows.hash}
    about["net"] = settings.as_dict() if settings else preset(args.model).as_dict()
    about["cpu_s"] = torch.load(path.with_suffix(".last.pt"), weights_only=False)["spent"]
    np.savez(path.with_suffix(".npz"), out=out, test=test, about=json.dumps(about))
    torch.save(whole.state_dict(), path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
    alex = rows.source[test] == 0
    lam, wlog = np.exp(out[alex, 0]), np.exp(out[alex, 1])
    keep = test[alex]
    print(
        f"{path.name}: n {len(keep)} MAE lambda {np.abs(lam - rows.truth['lambda'][keep]).mean():.4f} omega_log"
        f" {np.abs(wlog - rows.truth['omega_log_K'][keep]).mean():.2f} K",
        flush=True,
    )


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = epc_rows.load()
    print(len(rows.ids), "crystals", len(np.unique(rows.formula)), "formulas", rows.hash, flush=True)
    for fold in args.fold:
        one(args, rows, fold)


if __name__ == "__main__":
    main()
