"""Downloads: verified, resumed, retried once, or refused with one line."""

from __future__ import annotations

import hashlib
import threading

import pytest

from onnes.data import transfer
from onnes.data.catalog import DataSet, RemoteFile
from onnes.data.fetch import cache_folder, fetch, fetch_set, pin_file, read_pin
from onnes.errors import DataError, InputError

CONTENT = bytes(range(256)) * 4000  # about 1 MB: several blocks
SHA = hashlib.sha256(CONTENT).hexdigest()


def leftovers(folder):
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def test_download_is_verified_pinned_and_cached(site, tmp_path):
    web = site(CONTENT)
    steps = []
    first = fetch(
        web.url, tmp_path / "sub" / "a.bin", sha256=SHA, progress=lambda done, all: steps.append((done, all))
    )
    assert first.path.read_bytes() == CONTENT
    assert (first.status, first.sha256, first.pinned) == ("downloaded", SHA, False)
    assert leftovers(tmp_path / "sub") == {"a.bin", "a.bin.sha256"}
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and len(steps) > 1
    again = fetch(web.url, tmp_path / "sub" / "a.bin", sha256=SHA)
    assert again.status == "cached" and len(web.asked) == 1


def test_first_use_pins_and_a_changed_source_is_reported(site, tmp_path):
    web, path = site(CONTENT), tmp_path / "a.bin"
    first = fetch(web.url, path)
    assert first.pinned and read_pin(path) == SHA
    web.content, web.etag = b"another release", '"v2"'
    assert fetch(web.url, path).status == "cached"
    with pytest.raises(DataError, match="now serves another file") as error:
        fetch(web.url, path, refresh=True)
    assert error.value.code == "source-changed"
    assert path.read_bytes() == CONTENT, "the old copy stays"
    new = hashlib.sha256(web.content).hexdigest()
    assert new in str(error.value)
    assert fetch(web.url, path, sha256=new).path.read_bytes() == b"another release"
    assert read_pin(path) == new


def test_truncated_file_in_the_cache_is_replaced(site, tmp_path):  # CASES 13
    web, path = site(CONTENT), tmp_path / "a.bin"
    fetch(web.url, path)
    path.write_bytes(CONTENT[:1000])
    again = fetch(web.url, path)
    assert again.status == "downloaded" and path.read_bytes() == CONTENT


def test_truncated_file_in_the_cache_and_a_bad_source(site, tmp_path):  # CASES 13
    web, path = site(CONTENT, faults=["flip", "flip"]), tmp_path / "a.bin"
    path.write_bytes(CONTENT[:1000])
    with pytest.raises(DataError) as error:
        fetch(web.url, path, sha256=SHA)
    assert error.value.code == "checksum-mismatch"
    assert "removed" in str(error.value) and "\n" not in str(error.value)
    assert len(web.asked) == 2, "one retry, not more"
    assert leftovers(tmp_path) == set()


def test_corrupt_once_is_mended_by_the_retry(site, tmp_path):
    web = site(CONTENT, faults=["flip"])
    assert fetch(web.url, tmp_path / "a.bin", sha256=SHA).path.read_bytes() == CONTENT
    assert web.asked == ["", ""], "a corrupt download is not continued"


def test_cut_connection_is_continued(site, tmp_path):
    web = site(CONTENT, faults=["cut:500000"])
    assert fetch(web.url, tmp_path / "a.bin", sha256=SHA).path.read_bytes() == CONTENT
    assert web.asked == ["", "bytes=500000-"]


def test_cut_connection_without_range_support_starts_over(site, tmp_path):
    web = site(CONTENT, ranges=False, faults=["cut:500000"])
    assert fetch(web.url, tmp_path / "a.bin", sha256=SHA).path.read_bytes() == CONTENT
    assert len(web.asked) == 2


def test_cut_twice_keeps_the_part_for_another_day(site, tmp_path):
    web, path = site(CONTENT, faults=["cut:300000", "cut:200000"]), tmp_path / "a.bin"
    with pytest.raises(DataError, match="500000 of 1024000 bytes") as error:
        fetch(web.url, path)
    assert error.value.code == "truncated-download"
    assert not path.exists() and not pin_file(path).exists()
    assert transfer.part_file(path).stat().st_size == 500000
    assert fetch(web.url, path).path.read_bytes() == CONTENT
    assert web.asked[-1] == "bytes=500000-"


def test_part_without_a_validator_is_not_continued(site, tmp_path):
    web, path = site(CONTENT, etag="", faults=["cut:300000", "cut:200000"]), tmp_path / "a.bin"
    with pytest.raises(DataError):
        fetch(web.url, path)
    assert leftovers(tmp_path) == set()
    assert web.asked == ["", ""]


def test_part_of_an_older_version_is_thrown_away(site, tmp_path):
    web, path = site(CONTENT, faults=["cut:300000", "cut:200000"]), tmp_path / "a.bin"
    with pytest.raises(DataError):
        fetch(web.url, path)
    web.content, web.etag = CONTENT[::-1], '"v2"'
    assert fetch(web.url, path).path.read_bytes() == CONTENT[::-1], "no head of v1 on a tail of v2"


def test_complete_part_needs_no_transfer(site, tmp_path):
    web, path = site(CONTENT, faults=["cut:300000", "cut:200000"]), tmp_path / "a.bin"
    with pytest.raises(DataError):
        fetch(web.url, path)
    transfer.part_file(path).write_bytes(CONTENT)
    assert fetch(web.url, path, sha256=SHA).path.read_bytes() == CONTENT


def test_part_longer_than_the_file(site, tmp_path):
    web, path = site(CONTENT, faults=["cut:300000", "cut:200000"]), tmp_path / "a.bin"
    with pytest.raises(DataError):
        fetch(web.url, path)
    transfer.part_file(path).write_bytes(CONTENT + b"x")
    assert fetch(web.url, path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 2), (429, 2)])
def test_http_errors(site, tmp_path, status, requests):
    web = site(CONTENT, faults=[status] * 5)
    with pytest.raises(DataError) as error:
        fetch(web.url, tmp_path / "a.bin")
    assert error.value.code == f"http-{status}"
    assert len(web.asked) == requests
    assert leftovers(tmp_path) == set()


def test_server_fault_once(site, tmp_path):
    web = site(CONTENT, faults=[503])
    assert fetch(web.url, tmp_path / "a.bin").status == "downloaded"


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("onnes.data.fetch.PAUSE_S", 0.0)
    with pytest.raises(DataError) as error:
        fetch("http://127.0.0.1:9/set.bin", tmp_path / "a.bin")
    assert error.value.code == "no-network" and "\n" not in str(error.value)


def test_size_alone_is_checked(site, tmp_path):
    web = site(CONTENT)
    with pytest.raises(DataError, match="1024000 bytes instead of 7") as error:
        fetch(web.url, tmp_path / "a.bin", size=7)
    assert error.value.code == "checksum-mismatch"
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "set.bin", "http://", ""])
def test_only_http(tmp_path, url):
    with pytest.raises(InputError) as error:
        fetch(url, tmp_path / "a.bin")
    assert error.value.code == "bad-url"


def test_bad_checksum_is_a_usage_error(tmp_path):
    with pytest.raises(InputError) as error:
        fetch("http://127.0.0.1:9/x", tmp_path / "a.bin", sha256="abc")
    assert error.value.code == "bad-checksum"


def test_folder_that_is_a_file(site, tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(DataError) as error:
        fetch(site(CONTENT).url, tmp_path / "f" / "a.bin")
    assert error.value.code == "cannot-write"


def test_second_process_is_refused(site, tmp_path):
    pytest.importorskip("fcntl")
    path, entered = tmp_path / "a.bin", threading.Event()
    with transfer.locked(path):
        entered.set()
        with pytest.raises(DataError) as error:
            fetch(site(CONTENT).url, path)
    assert error.value.code == "in-use"


def test_set_with_own_address(site, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNES_CACHE", str(tmp_path / "cache"))
    web = site(CONTENT)
    data = DataSet("x", "t", "l", "c", "p", "f", (RemoteFile("x.bin", web.url, "0" * 64, bytes=3),))
    with pytest.raises(DataError):
        fetch_set(data)
    done = fetch_set(data, url=web.url)
    assert done.path == tmp_path / "cache" / "x" / "x.bin" and done.pinned
    assert fetch_set(data, sha256=SHA.upper()).status == "cached"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNES_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ONNES_CACHE")
    assert cache_folder().name == "onnes"
