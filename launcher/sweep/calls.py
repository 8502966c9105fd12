"""`antelope.sweep(...)`: a sweep from Python, with Python objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...replay.errors import SweepFailed
from ..record.output import write_error
from ..settings.compose import compose
from ..settings.schema import ALIASES
from .checks import own_copy
from .console import grid, search
from .driver import Driver
from .keywords import product, split_keywords, text_of
from .lines import failed_lines
from .trial import Trial
from .words import Combination, combinations, read_words

if TYPE_CHECKING:
    from ..run import Run


def sweep(*words: str, **settings: Any) -> list[Run]:
    """Train one run for each combination: `antelope.sweep(model=[A, B], lr=[1e-3, 1e-2], seed=range(3))`.

    Accepts what `ml` does. A list, tuple or range of a setting that has one value lists the runs' values;
    so do words: `"lr=1e-3,1e-2"`. Where one value may be a list itself, `strategy=[["er"], ["ewc"]]` are two
    values, and `strategy=[["er", "ewc"]]` is one.

    Args:
        *words: Console words, such as `"lr=1e-3,1e-2"`.
        **settings: Any setting of `ml --help`, and the words of `ml -m`: `engine`, `jobs`, `search`,
            `trials`, `prune`, `maximize`, `minimize`, `search_tasks`, `slurm={"partition": "gpu"}`. With
            `resume=True`, finished runs are left as they are, and others continue.

    Returns:
        The runs, in the order of the combinations, as `antelope.load` returns them: the newest checkpoint,
        without the replay. Of a search, the best one first: those it has stopped early are among them, those
        that diverged are not.

    Raises:
        ConfigError: Before any run starts, for what no run accepts.
        SweepFailed: At the end, if runs failed or diverged; it holds the others.
        KeyboardInterrupt, SystemExit: After a signal, once the runs that had begun are saved.
    """
    options, keywords = split_keywords(settings)
    asked = read_words([*words, *options])
    said = [*words, *options, *(f"{key}={text_of(v)}" for key, v in keywords.items())]
    if "search" in asked.options:
        driver = search(asked, said, keywords)
    else:
        found = [
            (Combination(c.words, {**c.swept, **swept}), values)
            for c in combinations(asked.words)
            for swept, values in product(keywords)
        ]
        driver = grid(asked, said, found)
    try:
        driver.run()
    except (KeyboardInterrupt, SystemExit):
        write_error("Continue it with the same call and resume=True.")
        raise
    driver.say_results()
    return _loaded(driver)


def _loaded(driver: Driver) -> list[Run]:
    outcomes = driver.outcomes
    # A search goes on after a run that diverged, which may have no checkpoint.
    whole = [t for t in driver.trials if outcomes[t.path].status in ("finished", "stopped")]
    runs = [_load(trial) for trial in whole]
    if lines := failed_lines(driver.trials, driver.outcomes):
        raise SweepFailed("\n".join(lines), runs=runs)
    return runs


def _load(trial: Trial) -> Run:
    """The run in a trial's directory, with what the user named for it, and copies of their objects."""
    from ..inference.loading import load

    composed = compose(trial.words, trial.settings)
    words = [word for word in trial.words if _may_be_given(word.lstrip("+").partition("=")[0])]
    objects = {k: own_copy(k, v) for k, v in trial.settings.items() if _may_be_given(k)}
    return load(trial.path, *words, trust=composed.trusts, **objects)


def _may_be_given(key: str) -> bool:
    from ..inference.saved_settings import MAY_BE_GIVEN

    root = key.partition(".")[0]
    return ALIASES.get(root, root) in MAY_BE_GIVEN
