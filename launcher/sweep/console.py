"""`ml -m seed=1,2,3 lr=1e-3,1e-2`: one run for each combination."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ...replay.errors import ConfigError
from ...replay.shown import shown
from ..record.output import write_error
from ..settings.compose import compose
from ..settings.values import is_true
from ..settings.warn import warn_caller
from .driver import Driver
from .engines import NAMES
from .grid import Grid, make_trials
from .lines import exit_code, failed_lines
from .places import sweep_folder
from .record import Record
from .words import Combination, Words, combinations, engine_of, read_words

Combinations = Sequence[tuple[Combination, Mapping[str, object]]]
"""What each run is made of: its words, and keywords of Python."""


def sweep(words: Sequence[str]) -> int:
    """Run every combination that console words ask for; returns the exit code.

    Args:
        words: `-m` included.

    Raises:
        ConfigError: Before any run starts, for words that no run accepts.
        KeyboardInterrupt, SystemExit: After a signal, once the runs that had begun are saved.
    """
    asked = read_words(words)
    printed = is_true(asked.options.get("slurm.print", "false"))
    if "search" in asked.options and printed:
        raise ConfigError("slurm.print=true: the runs of a search are not known before it starts.")
    if "search" in asked.options:
        driver = search(asked, words, {})
    elif printed:
        print_script(asked)
        return 0
    else:
        found = combinations(asked.words)
        driver = grid(asked, words, [(combination, {}) for combination in found])
    driver.run()
    driver.say_results()
    if lines := failed_lines(driver.trials, driver.outcomes):
        write_error("\n".join(lines))
    return exit_code(driver.outcomes.values())


def grid(asked: Words, words: Sequence[str], found: Combinations) -> Driver:
    """What runs every combination.

    Args:
        asked: The words of the sweep, read.
        words: The same as typed, for `sweep.json`.
        found: The combinations.

    Raises:
        ConfigError: For what no run accepts.
    """
    here = Path.cwd()
    trials = make_trials(found, here)
    first, settings = found[0]
    composed = compose(first.words, settings)
    if composed.resume == "force":
        trials = [replace(t, settings={**t.settings, "resume": "force"}) for t in trials]
    return Driver(
        Grid(trials),
        Record(sweep_folder(composed, list(first.swept), here), words),
        **about_engine(asked),
        resume=bool(composed.resume),
        quiet=not composed.progress,
    )


def search(asked: Words, words: Sequence[str], settings: Mapping[str, object]) -> Driver:
    """What runs the trials of a search; arguments as for `grid`.

    Raises:
        ConfigError: For what no run accepts, or a range or a metric that there is not.
    """
    from .searching import build_search

    found, about = build_search(asked, Path.cwd(), settings), about_engine(asked)
    composed = found.composed
    if about["engine"] == "slurm" and about["jobs"] is None and found.wanted.sampler == "tpe":
        raise ConfigError(
            "search=tpe learns from the trials that have ended, and Slurm would queue all of them at once. "
            "Add jobs=N: so many are queued at a time."
        )
    if caution := found.caution():
        warn_caller(caution)
    return Driver(
        found,
        Record(found.folder, words),
        **about,
        resume=bool(composed.resume),
        quiet=not composed.progress,
    )


def print_runs(words: Sequence[str]) -> None:
    """Print the words of each run that console words ask for, as one would start it alone.

    Raises:
        ConfigError: For words that no run accepts, and for a search, which chooses as it goes.
    """
    asked = read_words(words)
    if "search" in asked.options:
        raise ConfigError("--cfg job: the runs of a search are not known before it starts.")
    for trial in make_trials([(c, {}) for c in combinations(asked.words)], Path.cwd()):
        print(shown(shlex.join(["ml", *trial.words]), line=True))


def print_script(asked: Words) -> None:
    """Print the Slurm script that would be submitted."""
    from .engines.slurm import print_script as print_trials

    about = about_engine(asked)
    if about["engine"] != "slurm":
        raise ConfigError("slurm.print=true belongs to Slurm: add engine=slurm.")
    found = combinations(asked.words)
    composed = compose(found[0].words, {})
    folder = sweep_folder(composed, list(found[0].swept), Path.cwd())
    trials = make_trials([(combination, {}) for combination in found], Path.cwd())
    print_trials(trials, jobs=about["jobs"], folder=folder, options=about["options"])


class About(TypedDict):
    """Where runs are to run."""

    engine: str
    jobs: int | None
    options: Mapping[str, str]


def about_engine(asked: Words) -> About:
    """Which engine the words ask for, and what they say to it.

    Raises:
        ConfigError: If there is no such engine.
    """
    name = engine_of(asked.options, NAMES)
    jobs = int(asked.options["jobs"]) if "jobs" in asked.options else None
    return {"engine": name, "jobs": jobs, "options": asked.chosen(f"{name}.")}
