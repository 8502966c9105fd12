"""The script of a Slurm array: one task for each run, and any option of `sbatch`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....replay.errors import ConfigError
from ...settings.secrets import holds_secret
from ...settings.values import is_bool, is_true
from ..trial import Trial

OBJECTS = "--objects"
"""In place of words: the trial holds Python objects, which are in a file of their own."""

# What the sweep itself decides, and what to do instead.
_OURS = {
    "array": "It submits one task for each run; jobs=N says how many may run at once.",
    "chdir": "Jobs start in the folder in which the sweep was started.",
    "wrap": "Jobs run the trials of this sweep.",
    "wait": "The sweep itself waits for its runs.",
    "test-only": "slurm.print=true prints the script without submitting it.",
    "clusters": "Start the sweep on the cluster where its jobs are to run.",
}
# A batch script has one process, on the first node: the others would be paid for and idle.
_ONE = ("nodes", "ntasks", "ntasks-per-node")


def sbatch_options(given: Mapping[str, str]) -> dict[str, str | None]:
    """The options of `sbatch` that `slurm.partition=gpu slurm.cpus_per_task=4` ask for.

    Whether there are such options, `sbatch` says itself.

    Args:
        given: As typed, without `slurm.`.

    Returns:
        Each option's value; None for one without a value, such as `exclusive`.

    Raises:
        ConfigError: For all that the sweep itself decides, or that would become another line of the script.
    """
    options: dict[str, str | None] = {}
    mistakes = []
    for word, value in given.items():
        name = word.replace("_", "-")
        if name in _OURS:
            mistakes.append(f"slurm.{word}={value}: not an option of a sweep. {_OURS[name]}")
        elif name in _ONE and value != "1":
            mistakes.append(
                f"slurm.{word}={value}: a run of a sweep is one process, on one node. For several devices of "
                "the node, set devices=N with slurm.gpus=N (or slurm.cpus_per_task=N)."
            )
        elif not f"{name}{value}".isprintable():
            mistakes.append(f"slurm.{word}={value!r}: a value must be a single printable line.")
        elif not is_bool(value):
            options[name] = value
        elif is_true(value):
            options[name] = None
        elif name == "requeue":
            options["no-requeue"] = None
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return options


def script(
    trials: Sequence[Trial],
    *,
    files: Path,
    jobs: int | None,
    options: Mapping[str, str | None],
    python: str = sys.executable,
) -> str:
    """The script to hand to `sbatch`.

    Args:
        trials: Its tasks, from task 0 on; all start in the same folder.
        files: Folder of what the tasks print (`0.out`) and how they ended (`0.json`).
        jobs: How many tasks may run at once; None: as many as Slurm lets.
        options: Of `sbatch`, `job-name` included; they win over ours.
        python: The interpreter, absolute.

    Raises:
        ConfigError: If a word holds a secret, which everybody could read in the script.
    """
    chosen: dict[str, str | None] = {
        "array": f"0-{len(trials) - 1}" + (f"%{jobs}" if jobs else ""),
        "chdir": str(trials[0].folder),
        "output": f"{str(files).replace('%', '%%')}/%a.out",
        "open-mode": "append",
        "requeue": None,
        "signal": "B:HUP@60",  # A minute before the time limit the run saves, and is queued again.
        **options,
    }
    if "no-requeue" in chosen:
        del chosen["requeue"]
    given = [n if v is None else f"{n}={shlex.quote(v)}" for n, v in chosen.items()]
    words = [shlex.join([str(trial.path), *_words(trial)]) for trial in trials]
    # As many threads as the job has cores, unless the user's environment says otherwise.
    cores = "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
    # -P: nothing in the working directory stands in for an installed package.
    command = shlex.join([python, "-P", "-m", f"{__package__}.slurm_job", str(files)])
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{option}" for option in given),
        "",
        f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cores}}}"',
        'case "$SLURM_ARRAY_TASK_ID" in',
        *(f"{index}) set -- {each} ;;" for index, each in enumerate(words)),
        "esac",
        f'exec {command} "$@"',
    ]
    return "\n".join(lines) + "\n"


def has_objects(trial: Trial) -> bool:
    """Whether the trial needs more than its words."""
    return bool(trial.settings) or trial.study is not None


def _words(trial: Trial) -> Sequence[str]:
    for word in trial.words:
        key, _, value = word.partition("=")
        if holds_secret(value, key.rpartition(".")[2]) and "${oc.env:" not in value:
            raise ConfigError(
                f"{key} holds a secret, and others may read the files of a Slurm job. Put it into the "
                f"environment, and write '{key}=${{oc.env:NAME}}'."
            )
    return [OBJECTS] if has_objects(trial) else trial.words
