"""A Slurm of one node, on loopback alone, for the tests marked `slurm`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
_CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=20
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A controller and a node, both on this machine.

    Args:
        folder: For its configuration, its key, its state and its logs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o600)
        port, node_port = _free_ports(2)
        names = {"folder": folder, "user": _user(), "host": socket.gethostname().split(".")[0]}
        text = _CONF.format(port=port, node_port=node_port, cpus=os.cpu_count(), **names)
        (folder / "slurm.conf").write_text(text)
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def begin(self) -> None:
        """Start it, and wait until it accepts jobs."""
        files = [f"--key-file={self.folder}/key", f"--socket={self.folder}/munge.socket"]
        files += [f"--{n}-file={self.folder}/munged.{n}" for n in ("pid", "log", "seed")]
        self("munged", "--force", *files)
        self("slurmctld")
        self.begin_node()
        self.wait_until(lambda: "idle" in self("sinfo", "--noheader", "--format=%T"), 30)

    def begin_node(self) -> None:
        self("slurmd", "-N", "localhost")

    def kill_node(self, job: int) -> None:
        """Kill the node's daemon, a job of it, and the job's keeper, as a power cut does.

        Args:
            job: Process of the job's script.
        """
        keeper = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
        daemon = int((self.folder / "slurmd.pid").read_text())
        for pid in (daemon, keeper, job):
            os.kill(pid, signal.SIGKILL)
        # What the controller itself finds out after some minutes.
        self("scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=killed")

    def revive_node(self) -> None:
        self.begin_node()
        self("scontrol", "update", "NodeName=localhost", "State=RESUME")

    def end(self) -> None:
        """Cancel every job, and stop the daemons."""
        subprocess.run(["scancel", "--me"], env=self.env, check=False)
        for name in ("slurmd", "slurmctld", "munged"):
            try:
                pid = int((self.folder / f"{name}.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                self.wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 20)  # type: ignore[misc]
            except (OSError, ValueError):
                continue

    @staticmethod
    def wait_until(holds: Callable[[], object], seconds: float) -> None:
        """Wait until something holds; it fails after that many seconds."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "It never held."
            time.sleep(0.2)

    def __call__(self, *command: str) -> str:
        """Run one of Slurm's commands; what it says."""
        path = f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}"
        env = {**self.env, "PATH": path}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm; skipped where it is not installed."""
    path = f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}"
    if missing := [name for name in _PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(
            f"needs {', '.join(missing)}: apt-get install --no-install-recommends slurmctld slurmd "
            "slurm-client munge"
        )
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
