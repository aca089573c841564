"""Learning curve and loss landscapes of a member trained far beyond its first minimum: landscape.py --member FILE.pt.

FILE.pt is a state of train.py with a constant rate (`--fit '{"cycle": false, ...}'`). Draws the training and validation
loss against the epoch with the three regimes marked, and the training loss around the weights of each; prints the loss
and the errors of lambda, omega_log and omega_2 of each regime on the crystals that the member has not seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from score import curve_moments, quantities

from data import fold_of, load
from onnes.learn.landscape import landscape
from onnes.learn.spectrum_fit import FitSettings, Member, outputs
from onnes.nets.spectrum import GRIDS, SpectrumNet, SpectrumSettings

STEPS = np.linspace(-0.6, 0.6, 13)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--member", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    state = torch.load(args.member, weights_only=False)
    settings = SpectrumSettings.from_dict(state["settings"])
    data = load(settings, [], None, modes=False)
    fold, grid = fold_of(data.group), GRIDS[settings.grid]()
    may = np.flatnonzero((fold != args.fold) & data.has_curve)
    member = Member(data, may, settings, FitSettings(**state["fit"]), args.member)
    unseen = np.flatnonzero(data.has_curve & ~np.isin(np.arange(len(data)), member.rows))
    report, maps = {}, {}
    for regime in ("classical", "critical", "modern"):
        weights = member.regimes.state(regime)
        if weights is None:
            continue
        net = SpectrumNet(settings).eval()
        net.load_state_dict(weights)
        member.net = net
        with torch.no_grad():
            values = net.values(outputs(net, data, unseen)).numpy()
        truth = data.moments[unseen].copy()
        truth[:, 2] += truth[:, 1]
        found, actual = quantities(curve_moments(values, grid)), quantities(truth)
        report[regime] = {
            "epoch": member.regimes.epochs[regime],
            "train": round(member.validate(member.rows), 4),
            "unseen": round(member.validate(unseen), 4),
            "n": len(unseen),
            **{q: round(float(np.abs(found[q] - actual[q]).mean()), 3) for q in found},
        }
        maps[regime] = landscape(net, lambda n: _loss(member, n), STEPS)
    _draw(member, maps, args.out)
    print(json.dumps(report, indent=1))


def _loss(member: Member, net) -> float:
    member.net = net
    return member.validate(member.rows)


def _draw(member: Member, maps: dict, out: Path) -> None:
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    axis = figure.add_subplot(grid[0, :])
    epochs = [c["epoch"] for c in member.curve]
    for name, colour in (("train", "#1d5b8f"), ("valid", "#c05a1c")):
        axis.plot(epochs, [c[name] for c in member.curve], color=colour, linewidth=0.8, label=name)
    for regime, epoch in member.regimes.epochs.items():
        axis.axvline(epoch, color="#8a919b", linewidth=0.8)
        axis.text(epoch, 1.02, regime, fontsize=8, ha="center", transform=axis.get_xaxis_transform())
    axis.set_yscale("log")
    axis.set_xscale("log")
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    axis.legend(frameon=False)
    for k, (regime, values) in enumerate(maps.items()):
        axis = figure.add_subplot(grid[1, k])
        drawn = axis.contourf(STEPS, STEPS, np.log10(np.maximum(values.T, 1e-6)), 16, cmap="viridis")
        figure.colorbar(drawn, ax=axis, label="log$_{10}$ training loss")
        axis.plot(0, 0, "w+")
        axis.set_title(regime, fontsize=10)
    figure.savefig(out / "spectrum_regimes.png", dpi=110)


if __name__ == "__main__":
    main()
