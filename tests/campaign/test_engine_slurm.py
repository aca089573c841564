"""A real Slurm of one node: pilot jobs do the work, and none is left behind."""

from __future__ import annotations

import subprocess
import time

import pytest

pytest.importorskip("parsl", reason="the engine tests need Parsl: pip install 'onnes[cluster]'")

from engine_kills import attack, content, undisturbed
from slurm_node import Node, missing

from onnes.campaign.engine import open_engine
from onnes.campaign.engine_leftovers import end_leftovers, job_prefix
from onnes.campaign.settings import EnginePart
from onnes.parallel import EngineError, completed

pytestmark = pytest.mark.skipif(
    bool(missing()),
    reason=f"no Slurm here ({missing()}): apt-get install --no-install-recommends slurm-wlm munge, as root",
)

SLURM = {
    "kind": "slurm",
    "partition": "main",
    "cores_per_node": 2,
    "walltime": "00:30:00",
    "address": "127.0.0.1",
    "retries": 20,
}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with Node(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_campaign_in_pilot_jobs_survives_the_death_of_worker_and_driver(tmp_path, node):
    done = attack(tmp_path / "slurm", ["worker", "driver"], 7, SLURM, node.environment)
    assert [row["victim"] for row in done.rows] == ["worker", "driver"]
    assert content(done.run) == content(_local(tmp_path))
    end = time.monotonic() + 60
    while node.jobs() and time.monotonic() < end:
        time.sleep(0.2)
    assert node.jobs() == []


def _local(tmp_path):
    undisturbed(tmp_path / "local")
    return tmp_path / "local" / "run"


def test_jobs_of_a_killed_driver_are_cancelled_by_their_name_and_no_others(node, monkeypatch):
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, node.environment[key])
    for name in (f"{job_prefix('t1')}block-0", f"{job_prefix('t12')}block-0"):
        command = ["sbatch", "--job-name", name, "--output=/dev/null", "--wrap", "sleep 600"]
        subprocess.run(command, check=True, capture_output=True)
    assert len(node.jobs()) == 2
    assert end_leftovers({"kind": "slurm", "token": "t1", "host": "elsewhere", "jobs": []}) == 1
    end = time.monotonic() + 60
    while len(node.jobs()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert [line.split()[1] for line in node.jobs()] == [f"{job_prefix('t12')}block-0"]
    assert end_leftovers({"kind": "slurm", "token": "t12", "host": "elsewhere", "jobs": []}) == 1


@pytest.mark.timeout(600)
def test_a_partition_that_does_not_exist_ends_the_run_with_the_words_of_slurm(tmp_path, node, monkeypatch):
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, node.environment[key])
    part = EnginePart(**{**SLURM, "partition": "nowhere"})
    with (
        open_engine(part, 2, tmp_path, None, lambda entry: None) as engine,
        pytest.raises(EngineError, match=r"invalid partition.*no-workers"),
    ):
        list(completed(engine, abs, [1]))
