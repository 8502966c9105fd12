"""The trials of a sweep that runs every combination: all known before the first one starts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...replay.errors import ConfigError
from .places import make_trial
from .trial import Outcome, Trial
from .words import Combination


class Source(Protocol):
    """Where the trials of a sweep come from: a grid, or a search."""

    @property
    def waits(self) -> bool:
        """Whether what comes next depends on how others end; then only as many are asked for as can run."""

    @property
    def total(self) -> int:
        """How many trials there will be."""

    @property
    def examples(self) -> Sequence[Trial]:
        """Trials that are only checked, before the first is asked for: they stand for those to come."""

    def title(self) -> str:
        """What to say at first; maybe empty."""

    def ask(self) -> Trial | None:
        """The next trial; None if there is none, or none before another has ended."""

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Learn how a trial ended."""

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials in the order of the results."""

    def table(self, trials: Sequence[Trial]) -> str:
        """Their results as a Markdown table, the best first; maybe empty."""

    def summary(self) -> str:
        """What to say at the end; maybe empty."""


class Grid:
    """Every combination, in order.

    Args:
        trials: One for each combination.
    """

    waits = False
    examples: Sequence[Trial] = ()

    def __init__(self, trials: Sequence[Trial]):
        self._left = deque(trials)
        self.total = len(trials)

    def title(self) -> str:
        """The driver says it."""
        return ""

    def ask(self) -> Trial | None:
        """The next trial."""
        return self._left.popleft() if self._left else None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Nothing depends on it."""

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """As they were asked for."""
        return list(trials)

    def table(self, trials: Sequence[Trial]) -> str:
        """The last evaluations, over seeds."""
        from .table import ranked

        return ranked(trials)

    def summary(self) -> str:
        """Nothing to add to the table."""
        return ""


def make_trials(
    combinations: Sequence[tuple[Combination, Mapping[str, object]]], folder: Path
) -> list[Trial]:
    """A trial for each combination of words and keywords.

    Raises:
        ConfigError: With the mistakes of all runs, or if two runs would have the same directory.
    """
    trials, mistakes = [], dict[str, str]()
    for combination, settings in combinations:
        try:
            trials.append(make_trial(combination.words, combination.swept, settings, folder))
        except ConfigError as error:
            said = " ".join(f"{key}={value}" for key, value in combination.swept.items())
            mistakes.setdefault(str(error), said)
    if mistakes:
        several = len(combinations) > 1
        raise ConfigError(
            "\n".join(
                f"{error}\n(In the run {said}.)" if several and said else error
                for error, said in mistakes.items()
            )
        )
    counts = Counter(trial.path for trial in trials)
    path, most = counts.most_common(1)[0]
    if most > 1:
        raise ConfigError(
            f"{most} of {len(trials)} runs would write to the same directory, {path}. Leave path= out, and "
            "name the sweep by experiment=NAME."
        )
    return trials
