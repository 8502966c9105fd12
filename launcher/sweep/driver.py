"""A sweep, from its trials to how each of them ended.

It keeps no state that matters: started again with `resume=true`, it reads the run directories and goes on.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...replay.errors import ConfigError
from ..record.output import to_nowhere, write_error
from ..record.signals import SignalExit, mark_resumable
from ..settings.compose import compose
from .checks import check_objects, check_trials
from .engines import Engine, engine_named
from .engines.local import Local
from .grid import Source
from .lines import began, ended
from .places import digest
from .record import Record
from .standing import done, is_live, move_aside
from .table import live
from .trial import Outcome, Trial

_MANY = 10_000  # Slots of an engine that leaves it to others how many runs there are at once.
_POLL_S = 2.0  # How often runs of another process are looked at.


class Driver:
    """Asks for trials, hands them to an engine, and notes how each one ends.

    Args:
        source: Where the trials come from.
        record: The sweep's file.
        engine: Its name.
        jobs: How many trials may run at once; None: the engine decides.
        options: Words for the engine.
        resume: Whether finished runs are left, and others continued.
        quiet: Whether to say nothing while all goes well.

    Attributes:
        trials: All that were asked for, in order; after a search the best one first.
        outcomes: How each of them ended, by its directory.
    """

    def __init__(
        self,
        source: Source,
        record: Record,
        *,
        engine: str,
        jobs: int | None,
        options: Mapping[str, str],
        resume: bool,
        quiet: bool = False,
    ):
        self._source, self._record, self._resume, self._quiet = source, record, resume, quiet
        self._name, self._jobs, self._options = engine, jobs, options
        self._engine: Engine | None = None
        self._running: set[Path] = set()
        self._elsewhere: dict[Path, Trial] = {}
        self._checked = False
        self.trials: list[Trial] = []
        self.outcomes: dict[Path, Outcome] = {}

    def run(self) -> None:
        """Run everything that is left.

        Raises:
            ConfigError: Before any run starts, if one of them cannot work.
            KeyboardInterrupt, SystemExit: After a signal, once the runs that had begun are saved.
        """
        # One after another, the runs show their own progress.
        shown = not self._quiet and self._name != "here"
        with live(self.trials, self.outcomes, enabled=shown):
            self._run()

    def _run(self) -> None:
        cancel = True
        try:
            while (asked := self._ask()) or self._running or self._elsewhere:
                self._begin(asked)
                if (found := self._wait()) is None:
                    continue
                self._ended(*found)
            cancel = False
            self.trials = self._source.ranked(self.trials)
        except (KeyboardInterrupt, SystemExit) as error:
            mark_resumable(error, True)
            self._say_interrupted()
            # Slurm's jobs outlive a login, whose end is a SIGHUP: only Ctrl-C is about them too.
            cancel = self._name != "slurm" or isinstance(error, KeyboardInterrupt)
            raise
        finally:
            if self._engine is not None:
                self._engine.close(cancel=cancel)

    def say_results(self) -> None:
        """Print the runs' results, the best first."""
        if not self._quiet:
            for text in filter(None, (self._source.table(self.trials), self._source.summary())):
                self._say(f"\n{text}")

    def _ask(self) -> list[Trial]:
        """The trials that may start now: all of a grid, or as many of a search as there are free slots."""
        asked: list[Trial] = []
        if self._source.examples:
            self._check([])
        while not self._source.waits or len(self._running) + len(asked) < self._slots():
            if (trial := self._source.ask()) is None:
                break
            asked.append(trial)
        self.trials += asked
        return asked

    def _slots(self) -> int:
        slots = self._opened().slots
        return slots if self._jobs is None else min(slots, self._jobs)

    def _opened(self) -> Engine:
        """The engine, made when the first run needs it: where all are finished, nothing is imported."""
        if self._engine is None:
            self._engine = engine_named(
                self._name, jobs=self._jobs, folder=self._record.path.parent, options=self._options
            )
        return self._engine

    def _begin(self, trials: Sequence[Trial]) -> None:
        """Start trials, except those that are done, or going on in another process.

        Raises:
            ConfigError: If one of them cannot work.
        """
        left, moved = [], []
        for trial in trials:
            composed = compose(trial.words, trial.settings)
            said = digest(composed)
            # With other settings, or objects such as data, the run itself says whether it is the same.
            same = not composed.live and self._record.digest_of(trial) == said
            if self._resume and same and (outcome := done(trial)) is not None:
                self.outcomes[trial.path] = outcome
            else:
                left.append(trial)
            self._record.add(trial, said)
            if trial.path in self.outcomes:
                self._record.ended(trial, self.outcomes[trial.path])
        if left:
            self._check(left)
        if not self._resume:
            moved = move_aside(left)
        elif (
            self._name != "slurm"
        ):  # There, the jobs of an earlier start go on, and are taken over.
            self._elsewhere |= {trial.path: trial for trial in left if is_live(trial.path)}
        if trials:
            self._record.write()
            self._say_began(trials, len(left), len(moved))
        for trial in left:
            if trial.path not in self._elsewhere:
                self._start(trial)
        for trial in trials:
            if trial.path in self.outcomes:
                self._source.tell(trial, self.outcomes[trial.path])

    def _start(self, trial: Trial) -> None:
        self._opened().start(trial)
        self._running.add(trial.path)

    def _check(self, trials: Sequence[Trial]) -> None:
        if self._checked:
            return
        self._checked = True
        engine = self._opened()
        trials = [*trials, *self._source.examples]
        check_objects(trials, travel=self._name != "here")
        if isinstance(engine, Local):
            engine.call(check_trials, trials)
        else:
            check_trials(trials)

    def _wait(self) -> tuple[Trial, Outcome] | None:
        """Wait for a trial to end; None if none has, but one of another process may be over."""
        for path in [path for path in self._elsewhere if not is_live(path)]:
            trial = self._elsewhere.pop(path)
            if (outcome := done(trial)) is not None:
                return trial, outcome
            self._start(trial)  # It was killed, or stopped: it goes on here.
        if self._running:
            trial, outcome = self._opened().wait()
            self._running.discard(trial.path)
            return trial, outcome
        if self._elsewhere:
            time.sleep(_POLL_S)
        return None

    def _ended(self, trial: Trial, outcome: Outcome) -> None:
        """Note how a trial ended.

        Raises:
            KeyboardInterrupt, SystemExit: If a signal has ended it, which ends the sweep.
        """
        if outcome.exit_code == ConfigError.exit_code and is_live(trial.path):
            self._elsewhere[trial.path] = trial  # Another sweep has begun it in the meantime.
            return
        if self._source.waits and outcome.status == "diverged":
            outcome = replace(outcome, exit_code=0)  # A result: the search looks elsewhere.
        self.outcomes[trial.path] = outcome
        self._record.ended(trial, outcome)
        try:
            self._record.write()
        except ConfigError as error:  # A full disk: the run directories are the truth.
            write_error(str(error))
        of = max(self._source.total, len(self.trials))
        self._say(ended(trial, outcome, number=len(self.outcomes), of=of))
        if outcome.status == "interrupted":
            if outcome.exit_code == 128 + signal.SIGINT:
                raise KeyboardInterrupt
            raise SignalExit(outcome.exit_code)
        self._source.tell(trial, outcome)

    def _say_began(self, trials: Sequence[Trial], left: int, moved: int) -> None:
        if self._source.waits:
            if len(trials) == len(self.trials):  # Not when more of them are asked for.
                self._say(f"{self._source.title()}; {self._where()}.")
        else:
            skipped, elsewhere = len(trials) - left, len(self._elsewhere)
            self._say(
                began(
                    len(trials),
                    skipped=skipped,
                    elsewhere=elsewhere,
                    moved=moved,
                    where=self._where() if left else "",
                )
            )

    def _where(self) -> str:
        slots = self._slots()
        if slots == 1:
            return "one after another"
        return f"on {self._name}, {slots} at once" if slots < _MANY else f"on {self._name}"

    def _say_interrupted(self) -> None:
        over = sum(not outcome.exit_code for outcome in self.outcomes.values())
        line = f"Interrupted: {over} of {len(self.trials)} runs are finished."
        if self._running:
            line += (
                f" {len(self._running)} others are asked to save and to stop, or have not begun."
            )
        write_error(line)

    def _say(self, line: str) -> None:
        if self._quiet:
            return
        try:
            print(line, flush=True)
        except OSError as error:  # The reader of the output has gone.
            to_nowhere(sys.stdout, error)
