"""The plain sum over q against what lambda.x printed for the same files."""

from __future__ import annotations

import re
import shutil

import pytest
from qe_fixtures import FIXTURES

from onnes.dft.q_sum import q_sums


@pytest.fixture
def gathered(tmp_path):
    (tmp_path / "elph_dir").mkdir()
    for n in (1, 2, 3):
        source = FIXTURES / "al_222" / f"q00{n}"
        shutil.copyfile(source / f"onnes.dyn{n}", tmp_path / f"onnes.dyn{n}")
        shutil.copyfile(
            source / "elph_dir" / f"elph.inp_lambda.{n}", tmp_path / "elph_dir" / f"elph.inp_lambda.{n}"
        )
    return tmp_path


def test_weights_are_those_of_the_stars(gathered):
    found = q_sums(gathered, 3, 10)
    assert len(found) == 10 and all(f is not None for f in found)
    # By hand at the fifth broadening: stars of 1, 4 and 3 points.
    lam = 0.0
    for n, weight in ((1, 1), (2, 4), (3, 3)):
        text = (gathered / "elph_dir" / f"elph.inp_lambda.{n}").read_text()
        block = text.split("Gaussian Broadening")[5]
        values = [float(x) for x in re.findall(r"lambda\(\s*\d+\)=\s*(\S+)", block)]
        assert len(values) == 3
        lam += weight / 8 * sum(values)
    assert found[4][0] == pytest.approx(lam, rel=1e-6) and 200.0 < found[4][1] < 450.0


def test_missing_q_gives_nothing(gathered):
    (gathered / "onnes.dyn2").unlink()
    assert q_sums(gathered, 3, 10) == [None] * 10
