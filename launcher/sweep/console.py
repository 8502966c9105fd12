"""`ml -m seed=1,2,3 lr=1e-3,1e-2`: one run for each combination."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..settings.compose import compose
from .driver import Driver
from .engines import NAMES
from .grid import Grid, make_trials
from .lines import exit_code, say_failed
from .places import sweep_folder
from .record import Record
from .words import combinations, engine_of, read_words


def sweep(words: Sequence[str]) -> int:
    """Run every combination that console words ask for; returns the exit code.

    Args:
        words: `-m` included.

    Raises:
        ConfigError: Before any run starts, for words that no run accepts.
        KeyboardInterrupt, SystemExit: After a signal, once the runs that had begun are saved.
    """
    asked = read_words(words)
    engine = engine_of(asked.options, NAMES)
    jobs = int(asked.options["jobs"]) if "jobs" in asked.options else None
    found = combinations(asked.words)
    trials = make_trials([(combination, {}) for combination in found], Path.cwd())
    composed = compose(found[0].words, {})
    options = asked.chosen(f"{engine}.")
    folder = sweep_folder(composed, [*found[0].swept], Path.cwd())
    driver = Driver(
        Grid(trials),
        Record(folder, words),
        engine=engine,
        jobs=jobs,
        options=options,
        resume=bool(composed.resume),
        quiet=not composed.progress,
    )
    driver.run()
    say_failed(driver.trials, driver.outcomes)
    return exit_code(driver.outcomes.values())
