"""Figures exist, are what they claim to be, and repeat to the byte."""

from __future__ import annotations

import numpy as np
import pytest

from onnes.errors import InputError
from onnes.theory.plots import draw_all
from onnes.theory.spectral import Spectrum


@pytest.fixture(scope="module")
def spectrum():
    x = np.linspace(0.0, 30.0, 200)
    return Spectrum.from_arrays(x, 0.8 * x * np.exp(-(((x - 15) / 6) ** 2)) / 10, "meV")


def test_all_figures_in_both_formats(spectrum, tmp_path):
    written = draw_all(spectrum, tmp_path / "figures")
    names = {p.name for p in written}
    assert names == {
        f"{n}.{e}" for n in ("alpha2F", "tc_mu", "gap_imaginary", "gap_real") for e in ("png", "svg")
    }
    for path in written:
        head = path.read_bytes()[:200]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<?xml" in head
    assert {p.name for p in (tmp_path / "figures").iterdir()} == names


def test_no_gap_no_gap_figures(spectrum, tmp_path):
    names = {p.stem for p in draw_all(spectrum.scaled(coupling=0.05), tmp_path, mu_star=0.15)}
    assert names == {"alpha2F", "tc_mu"}


def test_unwritable_folder_is_named(spectrum, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot-write"):
        draw_all(spectrum, tmp_path / "file")
