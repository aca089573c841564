"""Kernel regression on atoms: invariances, exactness, storage, folds."""

from __future__ import annotations

import numpy as np
import pytest

from onnes.learn.fold_of import FormulaTable
from onnes.learn.kernel import OUTPUTS, PREFIX, AtomKernel, half_log_mass
from onnes.learn.store import Checkpoint, pretrained

FEATURES, SIZE, FOLDS = 12, 6, 2


def kernel(counts=(1, 3, 2, 4), seed=0) -> AtomKernel:
    """Random training crystals, weights of numbers that are exact in single precision."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(FEATURES, FEATURES)))[0][:, :SIZE]
    atoms = rng.integers(-127, 128, (sum(counts), SIZE)).astype(np.int8)
    return AtomKernel(
        np.zeros(FEATURES, np.float32),
        np.ones(FEATURES, np.float32),
        axes.astype(np.float16).astype(np.float32),
        atoms,
        np.full(SIZE, 1 / 64, np.float32),
        np.concatenate([np.full(n, 1 / n, np.float32) for n in counts]),
        np.concatenate([[0], np.cumsum(counts)[:-1]]),
        (1.0, 8.0),
        rng.integers(-3, 4, (FOLDS, len(counts), OUTPUTS)).astype(float),
        np.ones((FOLDS, OUTPUTS)),
    )


def crystals(rng, *sizes):
    return [rng.normal(size=(n, FEATURES)).astype(np.float32) for n in sizes]


def test_a_crystal_is_equal_to_itself_and_to_nothing_more():
    model = kernel()
    vectors, shares = (np.split(v, model.first[1:]) for v in (model.training, model.share))
    alike = model.similarity(vectors, shares)
    np.testing.assert_allclose(np.diag(alike), 1.0, atol=1e-5)
    np.testing.assert_allclose(alike, alike.T, atol=1e-6)
    assert (alike >= 0.0).all() and (alike <= 1.0 + 1e-5).all()
    assert np.linalg.eigvalsh(alike.astype(float)).min() > -1e-6


def test_by_the_formula():
    """Sums over pairs written out."""
    model = kernel()
    (x,) = crystals(np.random.default_rng(1), 2)
    p = (x @ model.axes).astype(float)

    def sums(a, b, width):
        return np.mean([[np.exp(-((i - j) ** 2).sum() / (2 * width)) for j in b] for i in a])

    for c, (start, stop) in enumerate(((0, 1), (1, 4), (4, 6), (6, 10))):
        q = model.training[start:stop].astype(float)
        parts = [sums(p, q, w) / np.sqrt(sums(p, p, w) * sums(q, q, w)) for w in model.widths]
        found = model.similarity([model.vectors(x)], [np.full(2, 0.5, np.float32)])[0, c]
        assert found == pytest.approx(0.5 * (parts[0] + parts[1] ** 2), rel=1e-4)


def test_order_and_supercell_change_nothing_and_neither_does_the_batch():
    model, rng = kernel(), np.random.default_rng(2)
    few = crystals(rng, 3, 1, 200, 5)
    numbers = [rng.integers(1, 80, len(x)) for x in few]
    together = model.outputs(few, numbers)
    assert together.shape == (FOLDS, 4, OUTPUTS)
    for i, (x, z) in enumerate(zip(few, numbers, strict=True)):
        alone = model.outputs([x], [z])[:, 0]
        doubled = model.outputs([np.concatenate([x[::-1], x])], [np.concatenate([z[::-1], z])])[:, 0]
        np.testing.assert_allclose(together[:, i], alone, atol=1e-5)
        np.testing.assert_allclose(doubled, alone, atol=1e-5)
    assert model.outputs([], []).shape == (FOLDS, 0, OUTPUTS)


def test_far_from_everything_the_mean_is_predicted():
    model, z = kernel(), np.array([41])
    found = model.outputs([np.full((1, FEATURES), 50.0)], [z])[:, 0]
    np.testing.assert_allclose(found[:, 0], 1.0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], 1.0 - half_log_mass([z])[0], atol=1e-6)


def test_heavier_atoms_have_lower_frequencies():
    """Force constants come from the surroundings: ln omega falls by half of ln M."""
    model, x = kernel(), crystals(np.random.default_rng(3), 2)
    light, heavy = (model.outputs(x, [np.array([z, z])])[0, 0] for z in (13, 79))
    assert light[0] == heavy[0]
    assert light[1] - heavy[1] == pytest.approx(0.5 * np.log(196.967 / 26.982), abs=1e-4)


def test_stored_and_read_back():
    model = kernel()
    again = AtomKernel.read(model.tensors(), model.widths)
    x, z = crystals(np.random.default_rng(4), 3, 2), [np.array([1, 2, 3]), np.array([4, 5])]
    np.testing.assert_allclose(again.outputs(x, z), model.outputs(x, z), atol=1e-6)
    with pytest.raises(KeyError):
        AtomKernel.read({}, model.widths)


def test_the_shipped_weights_of_a_fold_are_zero_on_its_crystals():
    """Every training crystal is left out by exactly one of the five."""
    stored = Checkpoint.load(pretrained("epc.safetensors"), "epc")
    weights = stored.tensors[f"{PREFIX}weights"].numpy()
    left_out = (weights == 0.0).all(axis=2)
    assert (left_out.sum(axis=0) == 1).all()
    table = FormulaTable.read(stored)
    assert table is not None and len(table.names) == len(weights)
    share = left_out.mean(axis=1)
    assert (np.abs(share - 0.2) < 0.02).all()
