"""A Slurm of one node, for tests: munged, slurmctld and slurmd of this user, all on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONF = """
ClusterName=onnes
SlurmctldHost={name}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={munge}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=2
NodeName={name} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={name} Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")


def missing() -> str:
    """What a Slurm needs and this machine lacks."""
    lacking = [p for p in PROGRAMS if shutil.which(p, path=_path()) is None]
    if os.geteuid() != 0:
        lacking.append("root")
    return ", ".join(lacking)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Node:
    """The daemons of a one-node Slurm; use it in a ``with`` statement. `environment` finds it."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder = folder.absolute()
        self.cpus = cpus
        self.name = socket.gethostname().split(".")[0]
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def __enter__(self) -> Node:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        munge = self.folder / "munge"
        munge.chmod(0o700)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        text = CONF.format(
            name=self.name, munge=munge / "socket", ports=_free_ports(2), folder=self.folder, cpus=self.cpus
        )
        (self.folder / "slurm.conf").write_text(text)
        files = {n: f"--{n}-file={munge}/{n}" for n in ("key", "log", "pid", "seed")}
        self._run("munged", "--foreground", f"--socket={munge}/socket", *files.values(), "--force")
        self._until(lambda: (munge / "socket").exists(), "munged")
        self._run("slurmctld", "-D", "-i")
        self._run("slurmd", "-D", "-N", self.name)
        self._until(self._idle, "slurm")

    def _run(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            self.daemons.append(
                subprocess.Popen(command, stdout=output, stderr=output, env=self.environment, cwd=self.folder)
            )

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, env=self.environment
        )
        return done.stdout.strip() == "idle"

    def _until(self, ready, what: str) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if ready():
                return
            if any(d.poll() is not None for d in self.daemons):
                break
            time.sleep(0.1)
        raise RuntimeError(f"{what} does not start; see {self.folder}")

    def jobs(self) -> list[str]:
        """State and name of every job."""
        done = subprocess.run(
            ["squeue", "-h", "-o", "%t %j"], capture_output=True, text=True, env=self.environment
        )
        return done.stdout.splitlines()

    def __exit__(self, *exc: object) -> None:
        # The keeper of a job (slurmstepd) outlives the daemons.
        end = time.monotonic() + 20
        while len(self.daemons) == 3 and self.jobs() and time.monotonic() < end:
            subprocess.run(["scancel", "--partition=main"], capture_output=True, env=self.environment)
            time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
