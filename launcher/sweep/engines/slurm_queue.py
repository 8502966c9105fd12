"""What is asked of Slurm's own commands: `sbatch`, `squeue`, `scancel`, `scontrol`."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ....replay.errors import ConfigError
from .slurm_script import options_in

_ANSWER_S = 60  # A busy controller may need half a minute.
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
_ENDED |= {"BOOT_FAIL", "DEADLINE", "PREEMPTED", "REVOKED"}
_HELD = re.compile(
    r"held|JobHeld|InvalidQOS|InvalidAccount|DependencyNeverSatisfied", re.IGNORECASE
)


class NoAnswer(Exception):
    """Slurm could not be asked: its controller is down, or too busy. It says nothing about the jobs."""


@dataclass(frozen=True)
class Task:
    """A task of an array, as the queue shows it.

    Attributes:
        job: `123_4`: the job's number and the task's index.
        name: The job's name.
        index: The task's index.
        state: As `squeue` says: "PENDING", "RUNNING", "COMPLETING", "CANCELLED", ...
        why: Why it is not running.
    """

    job: str
    name: str
    index: int
    state: str
    why: str

    @property
    def alive(self) -> bool:
        """Whether it runs, or will."""
        return self.state not in _ENDED

    @property
    def held(self) -> bool:
        """Whether it will not start before somebody does something about it."""
        return self.state == "PENDING" and bool(_HELD.search(self.why))


def tasks(name: str) -> list[Task]:
    """Our tasks of all jobs called `name-NUMBER`, those that ended minutes ago too.

    Raises:
        NoAnswer: If Slurm cannot be asked.
    """
    # --array: a line for each task, also of those that wait. The name comes last: it may hold anything.
    wanted = ("--me", "--states=all", "--array", "--noheader", "--format=%F|%K|%T|%r|%j")
    found = []
    for line in _said("squeue", *wanted).splitlines():
        job, index, state, why, called = line.split("|", 4)
        if re.fullmatch(re.escape(name) + r"-\d+", called.strip()) and index.isdigit():
            found.append(Task(f"{job}_{index}", called.strip(), int(index), state, why))
    return found


def submit(script: str) -> str:
    """Submit a script; the job's number.

    Raises:
        ConfigError: If `sbatch` refuses it.
    """
    try:
        return _said("sbatch", "--parsable", script=script).strip().partition(";")[0]
    except NoAnswer as error:
        raise ConfigError(f"sbatch refused the sweep: {error}") from error


def check(script: str) -> None:
    """Raise ConfigError if `sbatch` would refuse the script, as for a partition that does not exist."""
    try:
        _said("sbatch", "--test-only", script=script)
    except NoAnswer as error:
        raise ConfigError(f"sbatch refuses the sweep: {error}") from error


def cancel(jobs: Collection[str]) -> None:
    """End tasks; those that run are asked to save (SIGTERM).

    Raises:
        NoAnswer: If Slurm cannot be asked.
    """
    if jobs:
        _said("scancel", *jobs)


def requeue(job: str) -> None:
    """Queue our own job again.

    Raises:
        NoAnswer: If Slurm does not.
    """
    _said("scontrol", "requeue", job)


@functools.cache
def known_options() -> frozenset[str]:
    """Every option that this machine's `sbatch` has.

    Raises:
        FileNotFoundError: If it has no `sbatch`.
        NoAnswer: If there is one, which finds no cluster.
    """
    return options_in(_said("sbatch", "--help"))


def largest_array() -> int:
    """How many tasks an array may have."""
    found = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", _said("scontrol", "show", "config"), re.MULTILINE
    )
    return int(found[1]) if found else 1001  # Slurm's own default.


def _said(*command: str, script: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]} did not answer within {_ANSWER_S} s") from error
    if done.returncode:
        raise NoAnswer(_reason(done.stderr.splitlines()) or f"{command[0]}: {done.returncode}")
    return done.stdout


def _reason(lines: Iterable[str]) -> str:
    """What the command complained about, without its prefixes and advice."""
    plain = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in lines]
    return "; ".join(line for line in plain if line and not line.startswith("Try "))
