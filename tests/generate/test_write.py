"""What is written beside the crystals: latent vectors left aside, through interruptions, and on the command line."""

from __future__ import annotations

import json

import pytest

from in_process import onnes
from onnes.errors import InputError
from onnes.generate import write
from onnes.generate.asked import SamplerSettings, wish_of
from onnes.generate.cdvae_sampling import CANDIDATES, CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.langevin import LangevinSettings
from onnes.generate.latent import AscentSettings
from onnes.generate.sampling import BLOCK
from onnes.generate.write import rejections, write_crystals

ASKED = SamplerSettings(model="cdvae", elements=("Li", "B"))
ASIDE = "latent vectors far from the conditions were left aside"


@pytest.fixture
def rough(monkeypatch):
    """The shipped autoencoder with the shortest decoding, after which most crystals overlap: none is drawn anew."""
    return shortened(monkeypatch, again=0)


def shortened(monkeypatch, again):
    def opened(settings, model):
        wish = wish_of(settings, range(1, 84), 20)
        decoding, search = LangevinSettings(levels=2, steps=1, settle=0), AscentSettings(steps=1)
        asked = CdvaeSamplerSettings(wish, decoding, prior="gaussian", search=search, again=again)
        return CdvaeSampler(asked, model)

    monkeypatch.setattr(write, "open_sampler", opened)


def test_each_block_counts_once_however_often_it_is_drawn(rough, tmp_path):
    begun = []
    assert list(write_crystals(tmp_path, 3, 0, ASKED, begin=lambda *b: begun.append(b))) == [1, 2, 3]
    assert rejections(tmp_path) == {ASIDE: CANDIDATES - BLOCK} and begun == [(0, 3)]
    # A block that was interrupted is drawn again, a finished one is not; a longer run of the same settings goes on.
    (tmp_path / "g000001.cif").unlink()
    run = write_crystals(tmp_path, BLOCK + 1, 0, ASKED)
    for _ in range(BLOCK + 1):
        next(run)
    assert rejections(tmp_path) == {ASIDE: 2 * (CANDIDATES - BLOCK)}
    assert list(write_crystals(tmp_path, 2, 0, ASKED, begin=lambda *b: begun.append(b))) == [1, 2]
    assert begun == [(0, 3)]
    with pytest.raises(InputError, match=r"settings \(seed\).*other-run"):
        next(write_crystals(tmp_path, 1, 1, ASKED))


def test_crystals_left_aside_count_once_a_block_too(monkeypatch, tmp_path):
    shortened(monkeypatch, again=1)
    list(write_crystals(tmp_path, 3, 0, SamplerSettings(model="cdvae")))
    counted = rejections(tmp_path)
    anew = counted["crystals whose atoms overlap were left aside"]
    assert 0 < anew <= BLOCK
    assert 0 < counted["crystals whose atoms overlap were kept, as others did, too"] <= anew
    (tmp_path / "g000001.cif").unlink()
    list(write_crystals(tmp_path, 3, 0, SamplerSettings(model="cdvae")))
    assert rejections(tmp_path) == counted


def test_a_folder_without_counts_goes_on(rough, tmp_path):
    list(write_crystals(tmp_path, 1, 0, ASKED))
    manifest = tmp_path / "manifest.txt"
    facts = json.loads(manifest.read_text())
    del facts[write.COURSE]
    manifest.write_text(json.dumps(facts, indent=1) + "\n")
    assert list(write_crystals(tmp_path, 1, 0, ASKED)) == [1] and rejections(tmp_path) == {}


def test_the_command_says_what_was_left_aside(rough, tmp_path):
    asked = ["generate", "--model", "cdvae", "--n", "2", "--out"]
    done = onnes(*asked, tmp_path / "o", "--elements", "Li,B")
    assert done.returncode == 0, done.stderr
    assert f"{CANDIDATES - BLOCK} {ASIDE}, in blocks of {BLOCK} crystals" in done.stdout
    assert "drawing a block of 48 crystals, from g000000 on" in done.stderr
    free = onnes(*asked, tmp_path / "p")
    assert free.returncode == 0 and "left aside" not in free.stdout
    bad = onnes(*asked, tmp_path / "q", "--elements", "Xx")
    assert bad.returncode == 2 and "drawing" not in bad.stderr
