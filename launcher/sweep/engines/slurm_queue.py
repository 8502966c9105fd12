"""What Slurm's own commands say."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

_ANSWER_S = 60  # A busy controller may need half a minute.
_ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING"}
_ALIVE |= {"STAGE_OUT", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}


class NoAnswer(Exception):
    """A command of Slurm's failed: it refuses what was asked, or its controller is down."""


class Task(NamedTuple):
    """A task of an array, as the queue shows it.

    Attributes:
        job: `123_4`: the job's number and the task's index.
        name: The job's name.
        number: The task's index.
        state: "PENDING", "RUNNING", "COMPLETING", "CANCELLED", ...
        why: Why it is not running.
    """

    job: str
    name: str
    number: int
    state: str
    why: str

    @property
    def alive(self) -> bool:
        """Whether it runs, or will."""
        return self.state in _ALIVE


def tasks(name: str) -> list[Task]:
    """Our tasks of all jobs called `name-NUMBER`, those that ended minutes ago too.

    Raises:
        NoAnswer: If Slurm cannot be asked, which says nothing about the jobs.
    """
    # --array: a line for each task, also of those that wait. The name comes last: it may hold anything.
    said = ask("squeue", "--me", "--states=all", "--array", "--noheader", "--format=%F|%K|%T|%r|%j")
    found = []
    for line in said.splitlines():
        job, index, state, why, called = line.split("|", 4)
        if re.fullmatch(re.escape(name) + r"-\d+", called.strip()) and index.isdigit():
            found.append(Task(f"{job}_{index}", called.strip(), int(index), state, why))
    return found


def ask(*command: str, script: str | None = None) -> str:
    """What a command prints.

    Raises:
        NoAnswer: If it fails; with its reasons, without its prefixes and advice.
        FileNotFoundError: If there is no such command.
    """
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]} did not answer within {_ANSWER_S} s") from error
    if done.returncode:
        lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line) for line in done.stderr.splitlines()]
        said = "; ".join(line.strip() for line in lines if line and not line.startswith("Try "))
        raise NoAnswer(said or f"{command[0]} ended with {done.returncode}")
    return done.stdout
