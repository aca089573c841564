"""What the spectral networks stand beside: baselines.py --phonons DIR --direct oof.npz --out DIR.

Same folds, same curves: the mean curve of the training folds, the linear regression of Gibson et al. on N(EF) and
phonon moments, and an ALIGNN with 100 bins of 1 meV (Choudhary and Garrity, npj Comput. Mater. 8, 244 (2022)),
trained on the curves. N(EF) of the regression is the direct predictor's, out of fold; the phonon moments are the
potential's, coarse. Writes DIR/baseline-NAME.npz: ids and moments (ln lambda, ln omega_log/meV, ln omega_2/meV) of
the held-out crystals; curves where there are any.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LinearRegression

from data import FOLDS, SpectrumSettings, fold_of, load, phonons
from onnes.graph.batch import collate, graph_of
from onnes.learn.spectrum_inputs import phonon_cells
from onnes.nets.alignn import Alignn, preset
from onnes.nets.spectrum import GRIDS, PHONON_EDGES_MEV

EPOCHS, BATCH = 150, 16


def mean_curves(data, fold, grid) -> np.ndarray:
    """Mean alpha2F of the other folds' curves, shape (n, K)."""
    out = np.empty((len(data), len(grid.omega_meV)))
    values = grid.values(data.shares, np.exp(data.moments[:, 0]))
    for k in range(FOLDS):
        out[fold == k] = values[data.has_curve & (fold != k)].mean(0)
    return out


def phonon_moments(cells: np.ndarray) -> np.ndarray:
    """omega_log and omega_2 (meV) of a vibrational spectrum F, weighted with F/omega^2 as alpha2F/omega would be."""
    middle = (PHONON_EDGES_MEV[1:] + PHONON_EDGES_MEV[:-1]) / 2.0
    weight = cells / np.maximum(middle, 2.0)
    weight = weight / weight.sum(1, keepdims=True)
    return np.stack([np.exp(weight @ np.log(middle)), np.sqrt(weight @ middle**2)], axis=1)


def linear(data, fold, folder: Path, direct: Path) -> tuple[np.ndarray, np.ndarray]:
    """lambda, omega_log, omega_2 by least squares on N(EF), phonon omega_log and omega_2; rows that have all."""
    seen = phonons(folder)
    with np.load(direct) as found:
        dos = dict(zip(map(str, found["id"]), np.exp(found["log"].mean(0)[:, 2]), strict=True))
    rows = np.array([i for i, name in enumerate(data.ids) if name in seen and name in dos])
    cells = np.stack([phonon_cells(np.arange(-30.0, 300.25, 0.5), seen[data.ids[i]]).mean(0) for i in rows])
    x = np.column_stack([[dos[data.ids[i]] for i in rows], phonon_moments(cells)])
    m = data.moments[rows]
    y = np.column_stack([np.exp(m[:, 0]), np.exp(m[:, 1]), np.exp(m[:, 1] + m[:, 2])])
    out = np.full_like(y, np.nan)
    for k in range(FOLDS):
        for column in range(3):
            use = (fold[rows] != k) & np.isfinite(y[:, column]) & data.has_curve[rows]
            fit = LinearRegression().fit(x[use], y[use, column])
            out[fold[rows] == k, column] = fit.predict(x[fold[rows] == k])
    return rows, np.maximum(out, [0.02, 0.5, 0.5])


def alignn_curves(data, fold, structures) -> np.ndarray:
    """100 bins of 1 meV by ALIGNN, trained on the curves of the other folds; rows with curves only."""
    grid = GRIDS["quadratic"]()
    bins = np.arange(0.5, 100.0)
    values = grid.values(data.shares, np.exp(data.moments[:, 0]))
    rows = np.flatnonzero(data.has_curve)
    y = torch.as_tensor(
        np.stack([np.interp(bins, grid.omega_meV, values[i], left=0.0) for i in rows])
    ).float()
    settings = replace(preset("onnes"), targets=100)
    graphs = [graph_of(structures[data.ids[i]], settings.graph) for i in rows]
    out = np.zeros((len(rows), 100))
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold[rows] != k), np.flatnonzero(fold[rows] == k)
        torch.manual_seed(k)
        net, rng = Alignn(settings), np.random.default_rng(k)
        steps = EPOCHS * -(-len(train) // BATCH)
        optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
        for _ in range(EPOCHS):
            for part in np.array_split(rng.permutation(train), -(-len(train) // BATCH)):
                loss = (net(collate([graphs[i] for i in part])) - y[part]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            out[test] = net.eval()(collate([graphs[i] for i in test])).numpy()
        print("alignn fold", k, float(loss), flush=True)
    return np.maximum(out, 0.0)


def bins_moments(values: np.ndarray) -> np.ndarray:
    """ln lambda, ln omega_log, ln omega_2 (meV) of 100 bins of 1 meV."""
    omega = np.arange(0.5, 100.0)
    weight = 2.0 * values / omega
    lam = np.maximum(weight.sum(1), 1e-3)
    share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    second = np.sqrt(np.maximum(share @ omega**2, 0.25))
    return np.column_stack([np.log(lam), share @ np.log(omega), np.log(second)])


def main() -> None:
    from pymatgen.core import Structure

    from data import spectra

    parser = argparse.ArgumentParser()
    parser.add_argument("--phonons", type=Path, required=True)
    parser.add_argument("--direct", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-alignn", action="store_true", help="leave its file as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = load(SpectrumSettings(), [], None, modes=False)
    fold, grid = fold_of(data.group), GRIDS["quadratic"]()
    ids = np.array(data.ids)

    curves = mean_curves(data, fold, grid)
    parts = curves * grid.coupling
    share = parts / parts.sum(1, keepdims=True)
    moments = np.column_stack(
        [np.log(parts.sum(1)), share @ grid.log_omega, np.log(share @ grid.square_omega) / 2.0]
    )
    np.savez(args.out / "baseline-mean.npz", id=ids, moments=moments, values=curves.astype(np.float32))
    rows, found = linear(data, fold, args.phonons, args.direct)
    np.savez(args.out / "baseline-linear.npz", id=ids[rows], moments=np.log(found))
    if args.no_alignn:
        return
    structures = {r["id"]: Structure(r["lattice"], r["species"], r["frac"]) for r in spectra()}
    values = alignn_curves(data, fold, structures)
    on = np.stack([np.interp(grid.omega_meV, np.arange(0.5, 100.0), v, left=0.0, right=0.0) for v in values])
    np.savez(
        args.out / "baseline-alignn.npz",
        id=ids[data.has_curve],
        moments=bins_moments(values),
        values=on.astype(np.float32),
    )


if __name__ == "__main__":
    main()
