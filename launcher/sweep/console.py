"""`ml -m seed=1,2,3 lr=1e-3,1e-2`: one run for each combination."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...replay.errors import ConfigError
from ...replay.shown import shown
from ..record.output import write_error
from ..settings.compose import compose
from ..settings.values import is_true
from ..settings.warn import warn_caller
from .driver import Driver
from .grid import Grid, Source, make_trials
from .keywords import combined
from .lines import exit_code, failed_lines
from .places import sweep_folder
from .record import Record
from .trial import Trial
from .words import Words, read_words


def sweep(words: Sequence[str]) -> int:
    """Run every combination that console words ask for; returns the exit code.

    Args:
        words: `-m` included.

    Raises:
        ConfigError: Before any run starts, for words that no run accepts.
        KeyboardInterrupt, SystemExit: After a signal, once the runs that had begun are saved.
    """
    asked = read_words(words)
    if is_true(asked.options.get("slurm.print", "false")):
        _print_script(asked)
        return 0
    driver = make_driver(asked, words, {})
    driver.run()
    driver.say_results()
    if lines := failed_lines(driver.trials, driver.outcomes):
        write_error("\n".join(lines))
    return exit_code(driver.outcomes.values())


def make_driver(asked: Words, said: Sequence[str], keywords: Mapping[str, object]) -> Driver:
    """What runs every combination, or the trials of a search.

    Args:
        asked: The words of the sweep, read.
        said: The same as typed, for `sweep.json`.
        keywords: Settings from Python, some of which list values.

    Raises:
        ConfigError: For what no run accepts.
    """
    here = Path.cwd()
    source: Source
    if "search" in asked.options:
        from .searching import build_search

        source = found = build_search(asked, here, keywords)
        if asked.engine == "slurm" and asked.jobs is None and found.wanted.sampler == "tpe":
            raise ConfigError(
                "search=tpe learns from the trials that have ended, and Slurm would queue all of them at "
                "once. Add jobs=N: so many are queued at a time."
            )
        if caution := found.caution():
            warn_caller(caution)
        composed, folder = found.composed, found.folder
    else:
        runs = combined(asked.words, keywords)
        trials = make_trials(runs, here)
        first, settings = runs[0]
        composed = compose(first.words, settings)
        if composed.resume == "force":
            trials = [replace(t, settings={**t.settings, "resume": "force"}) for t in trials]
        source, folder = Grid(trials), sweep_folder(composed, list(first.swept), here)
    return Driver(
        source,
        Record(folder, said),
        asked,
        resume=bool(composed.resume),
        quiet=not composed.progress,
    )


def print_runs(words: Sequence[str]) -> None:
    """Print the words of each run that console words ask for, as one would start it alone.

    Raises:
        ConfigError: For words that no run accepts, and for a search, which chooses as it goes.
    """
    for trial in _known_trials(read_words(words)):
        print(shown(shlex.join(["ml", *trial.words]), line=True))


def _print_script(asked: Words) -> None:
    """Print the Slurm script that would be submitted."""
    from .engines.slurm import print_script

    trials = _known_trials(asked)
    first = combined(asked.words, {})[0][0]
    folder = sweep_folder(compose(first.words, {}), list(first.swept), Path.cwd())
    print_script(trials, jobs=asked.jobs, folder=folder, options=asked.chosen("slurm."))


def _known_trials(asked: Words) -> list[Trial]:
    if "search" in asked.options:
        raise ConfigError(
            "slurm.print=true, --cfg job: the runs of a search are not known before it starts."
        )
    return make_trials(combined(asked.words, {}), Path.cwd())
