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
from onnes.learn.regimes import NEW
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
            "out_of_bag_smoothed": round(member.regimes.values[regime], 3),
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
    figure = Figure(figsize=(9.6, 5.8), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    axis = figure.add_subplot(grid[0, :])
    other = axis.twinx()
    epochs = [c["epoch"] for c in member.curve]
    valid = np.array([c["valid"] for c in member.curve])
    smooth = [valid[0]]
    for value in valid[1:]:
        smooth.append((1.0 - NEW) * smooth[-1] + NEW * value)
    axis.plot(epochs, [c["train"] for c in member.curve], color="#1d5b8f", linewidth=0.8)
    other.plot(epochs, valid, color="#c05a1c", linewidth=0.5, alpha=0.35)
    other.plot(epochs, smooth, color="#c05a1c", linewidth=1.4)
    for regime, epoch in member.regimes.epochs.items():
        axis.axvline(epoch, color="#8a919b", linewidth=0.8)
        axis.text(epoch, 1.02, regime, fontsize=8, ha="center", transform=axis.get_xaxis_transform())
    axis.set(yscale="log", xscale="log", xlabel="epoch")
    axis.set_ylabel("training loss", color="#1d5b8f")
    other.set_ylabel("out-of-bag loss (line: smoothed)", color="#c05a1c")
    other.set_ylim(0.84, 1.06)
    levels = np.linspace(-3.0, 1.5, 19)
    for k, (regime, values) in enumerate(maps.items()):
        axis = figure.add_subplot(grid[1, k])
        shown = np.log10(np.maximum(values.T, 1e-6))
        drawn = axis.contourf(STEPS, STEPS, shown, levels, cmap="viridis", extend="both")
        axis.plot(0, 0, "w+")
        axis.set_title(
            f"{regime}: loss at the centre {values[len(STEPS) // 2, len(STEPS) // 2]:.3f}", fontsize=9
        )
        axis.set_xlabel("first direction")
        axis.set_ylabel("second direction" if k == 0 else "")
    figure.colorbar(drawn, ax=figure.axes[2:], label="log$_{10}$ training loss")
    figure.savefig(out / "spectrum_regimes.png", dpi=110)


if __name__ == "__main__":
    main()
