"""A search: Optuna proposes the trials of a sweep, one after another, and learns how each one ended.

Its state is the journal `study.jsonl`, which Optuna writes, and the run directories. Started again, a search
first continues the trials that had not ended, then goes on as it would have.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...replay.errors import ConfigError
from .search_words import Wanted
from .spaces import Space, combinations
from .standing import done
from .study import ENOUGH, PRUNED, REFUSED, VALIDATION, Study, open_study
from .table import searched

if TYPE_CHECKING:
    import optuna

    from ..settings.settings import Settings
    from .trial import Outcome, Trial

JOURNAL = "study.jsonl"
_SWEPT, _ABOUT, _AGAIN = "swept", "search", "again"
_FAILURES = 3  # In a row, from the first trial on, after which the words must be what is wrong.


class Search:
    """The trials of a search, as its driver asks for them.

    Args:
        wanted: What the user asks for.
        spaces: What is chosen.
        about: What all trials share, as text: a search that is continued must share the same.
        constant: The console words that all trials share, to be pasted; None: there is more than words.
        composed: The settings of one trial. With one trial at a time, a search with the same seed is the
            same every time.
        folder: Where the journal is; absolute.
        make: The trial with these values, by key as typed; the study is added here.
        examples: Trials with the values at the ends of what is chosen, to be checked beforehand.

    Attributes:
        total: How many trials there will be.
        waits: A trial depends on how earlier ones ended, so it is asked for when it can run.

    Raises:
        ConfigError: If Optuna is missing, there is nothing to search, or the folder holds another search.
    """

    def __init__(
        self,
        wanted: Wanted,
        spaces: Sequence[Space],
        *,
        about: Sequence[str],
        constant: Sequence[str] | None,
        composed: Settings,
        folder: Path,
        make: Callable[[Mapping[str, str]], Trial],
        examples: Sequence[Trial] = (),
    ):
        _check_spaces(wanted, spaces)
        _check_installed()
        self.wanted, self.composed, self.folder = wanted, composed, folder
        self.examples, self.total, self.waits = examples, wanted.trials, True
        self._spaces, self._make, self._seed = spaces, make, int(composed.seed)
        self._constant, self._journal = constant, folder / JOURNAL
        self._about = {
            "words": list(about),
            "spaces": [str(space) for space in spaces],
            "metric": wanted.metric,
            "more": wanted.more,
            "search_tasks": wanted.tasks,
        }
        self._numbers: dict[Path, list[int]] = {}  # Of the trials in progress, by run directory.
        self._begun: set[int] = set()
        self._told: list[str] = []
        self._before = 0  # Trials of earlier processes,
        self._earlier: deque[Trial] = deque()  # those that have ended,
        self._left: deque[int] = deque()  # and those that have not.
        if self._journal.exists():
            self._continue()

    def _continue(self) -> None:
        """Look at what earlier processes have begun; their words were checked."""
        known = self._study.get_trials()
        self._before, self.examples = len(_counted(self._study)), ()
        self._left += [trial.number for trial in known if trial.state.name == "RUNNING"]
        self._earlier += self._ended_earlier()

    @functools.cached_property
    def _study(self) -> optuna.Study:
        """The study in its journal, begun when the first trial is asked for: until then, words may be wrong.

        Raises:
            ConfigError: If that is another search, or one that must be continued by `resume=true`.
        """
        about = self._about
        try:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            if not self.composed.resume:
                self._journal.touch(exist_ok=False)
            study = open_study(self._journal, more=self.wanted.more, pruner=self.wanted.pruner)
        except FileExistsError as error:
            raise ConfigError(
                f"{self._journal} holds an earlier search. Continue it with resume=true, or begin another "
                "with experiment=NAME."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"Cannot write {self._journal} ({error.strerror or error}). Set another experiment=."
            ) from error
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"{self._journal} is damaged ({error}). Begin another search with experiment=NAME."
            ) from error
        before = study.user_attrs.get(_ABOUT)
        if before is None:
            study.set_user_attr(_ABOUT, about)
        elif before != about:
            different = [
                f"{key}: {before.get(key)}, now {value}"
                for key, value in about.items()
                if value != before.get(key)
            ]
            raise ConfigError(
                f"{self._journal} holds a search with other words: {'; '.join(different)}. Continue it with "
                "its own words, or begin another with experiment=NAME."
            )
        _retry_failed(study)
        return study

    def ask(self) -> Trial | None:
        """The next trial; None if all have been begun.

        Raises:
            ConfigError: If no trial can be judged, or the first ones have all failed.
        """
        self._check_hopeless()
        if self._earlier:
            return self._earlier.popleft()
        while (chosen := self._next()) is not None:
            swept: dict[str, str] = chosen.user_attrs[_SWEPT]
            trial = self._make(swept)
            if (going := self._numbers.get(trial.path)) is not None:
                going.append(chosen.number)  # The same values: the same run, with the same result.
                continue
            if (twin := self._ended_before(swept, chosen.number)) is not None:
                self._copy(twin, chosen.number)
                continue
            self._numbers[trial.path] = [chosen.number]
            return self._reporting(trial, chosen.number)
        return None

    def _reporting(self, trial: Trial, number: int) -> Trial:
        """A trial that reports its evaluations to the journal, under its number there."""
        wanted = self.wanted
        pruner, tasks = wanted.pruner, wanted.tasks
        study = Study(self._journal, number, wanted.metric, wanted.more, pruner, tasks)
        return dataclasses.replace(trial, study=study)

    def _ended_earlier(self) -> list[Trial]:
        """The trials of earlier processes that have a result, with their runs: they are not run again."""
        found: dict[Path, Trial] = {}
        for known in self._study.get_trials():
            if known.state.name in ("COMPLETE", "PRUNED"):
                trial = self._reporting(self._make(known.user_attrs[_SWEPT]), known.number)
                if done(trial) is not None:
                    found[trial.path] = trial
                    self._numbers[trial.path] = []
        return list(found.values())

    def _next(self) -> optuna.trial.FrozenTrial | None:
        """A trial that had begun in an earlier process, or a new one; None if there are enough."""
        if self._left:
            number = self._left.popleft()
        elif len(_counted(self._study)) >= self.wanted.trials:
            return None
        else:
            # Seeded by the number of the trial: a search that is continued proposes what it would have.
            self._study.sampler = _sampler(
                self.wanted.sampler, self._seed + len(self._study.get_trials())
            )
            number = self._study.ask({s.key: s.distribution() for s in self._spaces}).number
        self._begun.add(number)
        asked = self._study.get_trials()[number]
        if _SWEPT not in asked.user_attrs:  # Else it was begun earlier.
            self._describe(asked)
        return self._study.get_trials()[number]

    def _describe(self, trial: optuna.trial.FrozenTrial) -> None:
        """Write the values of a trial as they are typed: those are what runs."""
        import optuna

        swept = {space.key: space.text(trial.params[space.key]) for space in self._spaces}
        optuna.Trial(self._study, trial._trial_id).set_user_attr(_SWEPT, swept)

    def _ended_before(self, swept: Mapping[str, str], number: int) -> Any:
        """An earlier trial with the same values that has a result."""
        return next(
            (
                trial
                for trial in self._study.get_trials()[:number]
                if trial.user_attrs.get(_SWEPT) == swept
                and trial.state.name in ("COMPLETE", "PRUNED")
            ),
            None,
        )

    def _copy(self, twin: optuna.trial.FrozenTrial, number: int) -> None:
        """End a trial with the result of another one."""
        import optuna

        trial = optuna.Trial(self._study, self._study.get_trials()[number]._trial_id)
        for step, value in twin.intermediate_values.items():
            trial.report(value, step)
        if PRUNED in twin.user_attrs:
            trial.set_user_attr(PRUNED, twin.user_attrs[PRUNED])
        value = twin.value if twin.state.name == "COMPLETE" else None
        self._end(number, value, twin.state)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Record how a trial ended. One that was interrupted stays open, to be continued."""
        from optuna.trial import TrialState

        numbers = self._numbers.pop(trial.path)
        if not numbers or outcome.status == "interrupted":
            return
        number, *twins = numbers
        found, metric = self._study.get_trials()[number], self.wanted.metric
        value = _value(found, outcome, metric)
        if outcome.status == "diverged" or (outcome.status == "stopped" and is_pruned(found)):
            # Optuna's samplers keep away from pruned trials, and would forget failed ones.
            self._end(number, None, TrialState.PRUNED)
            self._told.append("")
        elif outcome.status == "failed" or value is None:
            self._end(number, None, TrialState.FAIL)
            self._told.append(outcome.reason or f"It has no {metric}, or one that is not a number")
        else:
            self._end(number, value, TrialState.COMPLETE)
            self._told.append("")
        for twin in twins:
            ended = self._study.get_trials()[number]
            if ended.state == TrialState.FAIL:
                self._end(twin, None, TrialState.FAIL)
            else:
                self._copy(ended, twin)

    def _end(self, number: int, value: float | None, state: optuna.trial.TrialState) -> None:
        """Note the end of a trial, unless another process that runs the same search has done so."""
        self._study.tell(number, value, state, skip_if_finished=True)

    def _check_hopeless(self) -> None:
        """Raise if no later trial can end better.

        Raises:
            ConfigError: If no trial has what the search optimises, or the first ones have all failed.
        """
        for trial in self._study.get_trials():
            if trial.number in self._begun and (message := trial.user_attrs.get(REFUSED)):
                raise ConfigError(message)
        if len(self._told) >= _FAILURES and all(self._told):
            raise ConfigError(
                f"The search ends here: its first {len(self._told)} trials have all failed, the last with: "
                f"{self._told[-1]}"
            )

    def best(self) -> list[tuple[dict[str, str], float]]:
        """The values of the trials that have a result, as typed, and the result: the best one first."""
        ended = [trial for trial in self._study.get_trials() if trial.state.name == "COMPLETE"]
        ended.sort(key=_result, reverse=self.wanted.more)
        found: dict[str, tuple[dict[str, str], float]] = {}
        for trial in ended:  # Equal values are one run.
            swept = trial.user_attrs[_SWEPT]
            found.setdefault(str(swept), (swept, _result(trial)))
        return list(found.values())

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials, the best one first; those without a result come last."""
        places: list[Mapping[str, str]] = [swept for swept, _ in self.best()]
        last = len(places)
        return sorted(trials, key=lambda t: places.index(t.swept) if t.swept in places else last)

    def table(self, trials: Sequence[Trial]) -> str:
        """The results by which the search has chosen; a trial that was stopped early has none."""
        ended = [trial for trial in self._study.get_trials() if trial.state.name == "COMPLETE"]
        values = [(trial.user_attrs[_SWEPT], trial.value) for trial in ended]
        found = [next((v for swept, v in values if swept == t.swept), None) for t in trials]
        return searched(list(zip(trials, found, strict=True)), self.wanted.metric)

    def title(self) -> str:
        """What is searched: the first line of a search."""
        wanted, spaces = self.wanted, " ".join(map(str, self._spaces))
        aim = f"{'highest' if wanted.more else 'lowest'} {wanted.metric}"
        before = f" ({self._before} of them begun earlier)" if self._before else ""
        return f"Search by {wanted.sampler} for the {aim} over {spaces}: {_trials(wanted.trials)}{before}"

    def caution(self) -> str:
        """What to know before the results are reported; maybe empty."""
        if self.wanted.metric.startswith(VALIDATION) or self.composed.env is not None:
            return ""
        instead = "Hold rows out of the training data with validation=0.1, say"
        if self.composed.validation is not None:
            instead = f"Leave out maximize= and minimize=, or name {VALIDATION}{self.wanted.metric}"
        return (
            f"This search judges its trials by the {self.wanted.metric} on the test rows, so the best result "
            f"is too good to be reported. {instead}."
        )

    def summary(self) -> str:
        """What the search has found, with words to paste."""
        trials = _counted(self._study)
        names = {
            "COMPLETE": "ended",
            "PRUNED": "stopped early",
            "FAIL": "failed",
            "RUNNING": "unfinished",
        }
        count = Counter(
            "diverged"
            if trial.state.name == "PRUNED" and PRUNED not in trial.user_attrs
            else names.get(trial.state.name, "unfinished")
            for trial in trials
        )
        counts = ", ".join(f"{n} {name}" for name, n in count.items())
        if not (found := self.best()):
            return f"No trial has a result ({counts})."
        swept, value = found[0]
        name = self.wanted.metric
        lines = [f"Best of {_trials(len(trials))} ({counts}): {name} {value:.4g}, with"]
        shared = [] if self._constant is None else ["ml", *self._constant]
        chosen = [f"{key}={text}" for key, text in swept.items()]
        lines.append(f"  {shlex.join([*shared, *chosen])}")
        lines.append(f"All trials: {self._journal}")
        return "\n".join(lines)


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def is_pruned(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial was stopped because others are better, and not because it had seen enough."""
    return PRUNED in trial.user_attrs and ENOUGH not in trial.user_attrs


def _result(trial: optuna.trial.FrozenTrial) -> float:
    """The result of a completed trial."""
    assert trial.value is not None
    return trial.value


def _value(trial: optuna.trial.FrozenTrial, outcome: Outcome, metric: str) -> float | None:
    """A trial's result: what it reported last, else the metric of its last evaluation."""
    reported = trial.intermediate_values
    value = reported[max(reported)] if reported else outcome.metrics.get(metric)
    return None if value is None or value != value else value


def _retry_failed(study: optuna.Study) -> None:
    """Propose the values of trials that failed once more: what they failed of may be mended by now."""
    before = study.user_attrs.get(_AGAIN, [])
    failed = [t for t in study.get_trials() if t.state.name == "FAIL" and t.number not in before]
    # First: enqueued twice, a trial would only be run twice.
    for trial in failed:
        study.enqueue_trial(trial.params)
    if failed:
        study.set_user_attr(_AGAIN, [*before, *(trial.number for trial in failed)])


def _counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that have begun, without those that failed and are tried again."""
    again = study.user_attrs.get(_AGAIN, [])
    known = study.get_trials()
    return [t for t in known if t.state.name != "WAITING" and t.number not in again]


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if name == "tpe":
        # Trials in progress count as bad ones: others then look elsewhere.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def _check_spaces(wanted: Wanted, spaces: Sequence[Space]) -> None:
    if not spaces:
        raise ConfigError(
            "search= has nothing to choose. Give a setting a range, as in 'lr=log(1e-5,1e-1)', or several "
            "values, as in model.hidden=32,64,128."
        )
    if any(space.key == "seed" for space in spaces):
        raise ConfigError(
            "A search does not choose a seed: the luckiest is not the best. Leave one seed, and run the "
            "words that are found with several."
        )
    if (count := combinations(spaces)) <= wanted.trials:
        raise ConfigError(
            f"There are only {count:.0f} combinations, for trials={wanted.trials}. Without search= and "
            "trials=, each is run once."
        )


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError("search= needs Optuna: pip install 'antelope-ml[search]'") from error
