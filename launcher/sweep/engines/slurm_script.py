"""The script of a Slurm array: one task for each run, and any option of `sbatch`."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import antelope

from ....replay.errors import ConfigError
from ....replay.suggestions import did_you_mean
from ...settings.secrets import is_secret
from ...settings.values import is_bool, is_true
from ..trial import Trial

OBJECTS = "--objects"
"""In place of words: the trial holds Python objects, which are in a file of their own."""

# What the sweep itself decides, and what to do instead.
_OURS = {
    "array": "There is one task for each run; jobs=N says how many may run at once.",
    "chdir": "The jobs start in the folder in which the sweep was started; change to another one first.",
    "wrap": "The jobs run the trials of this sweep.",
    "test-only": "slurm.print=true prints the script without submitting it.",
    "wait": "The sweep itself waits for its runs.",
    "parsable": "The sweep itself reads the job's number.",
    "quiet": "The sweep itself reads what sbatch says.",
    "input": "The runs read nothing from standard input.",
    "clusters": "A sweep runs on one cluster: start it where its jobs are to run.",
    **dict.fromkeys(("help", "usage", "version"), "It is not an option of a job."),
}
# A batch script has one process, on the first node: the others would be paid for and idle.
_ONE = ("nodes", "ntasks", "ntasks-per-node")
_SHORT = {"p": "partition", "t": "time", "c": "cpus-per-task", "G": "gpus", "A": "account"}
_SHORT |= {"q": "qos", "J": "job-name", "C": "constraint", "w": "nodelist", "x": "exclude"}


def sbatch_options(
    given: Mapping[str, str], known: Collection[str] | None
) -> dict[str, str | None]:
    """The options of `sbatch` that `slurm.partition=gpu slurm.cpus_per_task=4` ask for.

    Args:
        given: As typed, without `slurm.`.
        known: Every option that this machine's `sbatch` has; None: it has no `sbatch`.

    Returns:
        Each option's value; None for one without a value, such as `exclusive`.

    Raises:
        ConfigError: For all that `sbatch` does not know or the sweep itself decides.
    """
    options: dict[str, str | None] = {}
    mistakes = []
    for word, value in given.items():
        if word == "print":
            continue
        name = word.replace("_", "-")
        typed = f"slurm.{word}={value}"
        if name in _OURS:
            mistakes.append(f"{typed}: {_OURS[name]}")
        elif name in _SHORT:
            mistakes.append(f"{typed}: write the long name, slurm.{_SHORT[name]}={value}.")
        elif known is not None and name not in known:
            close = did_you_mean(name, set(known) - set(_OURS))
            mistakes.append(f"{typed}: this machine's sbatch has no option --{name}.{close}")
        elif not value.strip() or not value.isprintable():
            mistakes.append(f"{typed}: give it a value, on one line.")
        elif name in _ONE and value != "1":
            mistakes.append(
                f"{typed}: a run of a sweep is one process on one node. For several devices of a node, set "
                "devices=N with slurm.gpus=N (or slurm.cpus_per_task=N)."
            )
        elif not is_bool(value) or (name in ("exclusive", "requeue") and is_true(value)):
            options[name] = None if is_bool(value) else value
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
    limit = f"%{jobs}" if jobs else ""
    chosen: dict[str, str | None] = {
        "array": f"0-{len(trials) - 1}{limit}",
        "chdir": str(trials[0].folder),
        "output": f"{str(files).replace('%', '%%')}/%a.out",
        "open-mode": "append",
        "requeue": None,
        # A minute before the time limit the run saves, and is queued again.
        "signal": "B:HUP@60",
        **options,
    }
    if "no-requeue" in chosen:
        del chosen["requeue"]
    lines = ["#!/bin/bash", *(f"#SBATCH {_directive(*option)}" for option in chosen.items())]
    # As many threads as the job has cores, unless the user's environment says otherwise.
    cores = "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
    lines += ["", f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cores}}}"']
    if not _installed():
        checkout = shlex.quote(str(Path(antelope.__file__).parents[1]))
        lines.append(f"export PYTHONPATH={checkout}${{PYTHONPATH:+:$PYTHONPATH}}")
    lines.append('case "$SLURM_ARRAY_TASK_ID" in')
    lines += [f"{i}) set -- {shlex.join(_arguments(trial))} ;;" for i, trial in enumerate(trials)]
    # -P: nothing in the working directory stands in for an installed package.
    module = "antelope.launcher.sweep.engines.slurm_job"
    run = f'exec {shlex.quote(python)} -P -m {module} {shlex.quote(str(files))} "$@"'
    return "\n".join([*lines, "esac", run, ""])


def has_objects(trial: Trial) -> bool:
    """Whether the trial needs more than its words."""
    return bool(trial.settings) or trial.study is not None


def _arguments(trial: Trial) -> list[str]:
    if has_objects(trial):
        return [str(trial.path), OBJECTS]
    for word in trial.words:
        key, _, value = word.partition("=")
        if is_secret(key.rpartition(".")[2]) and "${" not in value:
            raise ConfigError(
                f"{key}= is a secret, and everybody can read the script of a Slurm job. Put it into the "
                f"environment, and say '{key}=${{oc.env:NAME}}'."
            )
    return [str(trial.path), *trial.words]


def _directive(name: str, value: str | None) -> str:
    return f"--{name}" if value is None else f"--{name}={shlex.quote(value)}"


def _installed() -> bool:
    try:
        importlib.metadata.distribution("antelope-ml")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def options_in(help_text: str) -> frozenset[str]:
    """Every long option that `sbatch --help` names."""
    return frozenset(re.findall(r"--([a-z][a-z-]+[a-z])", help_text))
