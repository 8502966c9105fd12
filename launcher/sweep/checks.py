"""What can be said against a sweep's runs before any of them starts."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence

from ...replay.errors import ConfigError
from .trial import Trial


def check_trials(trials: Sequence[Trial]) -> None:
    """Look up every name that the runs use, and let their settings contradict each other here.

    It imports torch and the user's own files, so an engine with workers calls it in one of these.

    Raises:
        ConfigError: With the mistakes of all runs.
    """
    from ..plainly import plainly
    from ..record.signals import SignalExit
    from ..settings.compose import compose
    from ..settings.plan import make_plan

    before = os.getcwd()
    mistakes: dict[str, Trial] = {}
    try:
        for trial in _different(trials):
            os.chdir(trial.folder)
            settings = compose(trial.words, trial.settings)
            try:
                plainly(settings, functools.partial(make_plan, settings))
            except ConfigError as error:
                mistakes.setdefault(str(error), trial)
            except SignalExit:
                raise
            except SystemExit:
                said = "Code of the run called sys.exit() when the names of its settings were looked up."
                mistakes.setdefault(said, trial)
    finally:
        os.chdir(before)
    if mistakes:
        raise ConfigError(
            "\n".join(
                f"{error}\n(In the run {trial.name}.)" if len(trials) > 1 and trial.swept else error
                for error, trial in mistakes.items()
            )
        )


def check_objects(trials: Sequence[Trial], *, travel: bool) -> None:
    """Refuse Python objects of which not every run can have a copy of its own.

    Args:
        travel: Whether they go to other processes.

    Raises:
        ConfigError: Naming the keyword.
    """
    first: dict[int, object] = {}
    for trial in trials:
        for key, value in trial.settings.items():
            if id(value) in first:
                continue
            first[id(value)] = value
            if key in ("dataset", "test_dataset", "env") and hasattr(value, "__next__"):
                raise ConfigError(
                    f"{key}= is an iterator, which the first run would use up. Pass what can be read again."
                )
            try:
                if travel:
                    import cloudpickle

                    cloudpickle.dumps(value)
                else:
                    own_copy(key, value)
            except Exception as error:
                how = "sent to another process" if travel else "copied, and each run needs its own"
                raise ConfigError(
                    f"{key}={value!r:.80} cannot be {how} ({type(error).__name__}: {error}). Pass a class, "
                    "or a function that makes it."
                ) from error


def own_copy(key: str, value: object) -> object:
    """An object that one run of several may change; data is only read, and stays shared."""
    return value if key in ("dataset", "test_dataset") else copy.deepcopy(value)


def _different(trials: Sequence[Trial]) -> list[Trial]:
    """One trial of those that differ in their seed alone."""
    found: dict[tuple[tuple[str, str], ...], Trial] = {}
    for trial in trials:
        found.setdefault(tuple((k, v) for k, v in trial.swept.items() if k != "seed"), trial)
    return list(found.values())
