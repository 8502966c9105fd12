"""The copies of an environment that evaluations take place in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..replay import ConfigError
from .checked import describe_error
from .copies import Copies, Make
from .opening import close
from .recording import developed, filmed, recordable
from .running import RunningStatistics
from .vector import Vector

# Evaluation episodes are the same in each evaluation, and never those of training.
EVALUATION_SEED = 1_000_003
EVALUATED_AT_ONCE = 10


class EvaluationCopies:
    """Copies of one environment to evaluate in, apart from those of training.

    They are opened once, before training, and no more of them than are used at the same time. If none can
    be opened (a robot, a port, a licence), evaluation takes place in the training copies.

    Args:
        make: Builds one environment, with `render_mode=` if it is recorded.
        make_vector: Builds a vector environment of N copies; None: copies are built one by one.
        running: The running statistics of the training copies, which these use.
        video: Whether to record the first episode of each evaluation.
        spare: Environments that are open already, to be used first.
        options: Arguments of `Copies` and `Vector`: `name`, `stack`, `channels` and `infos`.

    Attributes:
        envs: The copies; None: not opened yet, or none could be.
        retries: How often in a row a copy that fails is started again, and plays its episode again.
        lacking: Why fewer copies than wanted could be opened; None: there are enough.
    """

    def __init__(
        self,
        make: Make,
        make_vector: Callable[[int], Any] | None,
        running: RunningStatistics,
        *,
        video: bool,
        spare: list[Any],
        options: dict[str, Any],
    ):
        self._make, self._make_vector, self._running = make, make_vector, running
        self._video, self._spare, self._options = video, spare, options
        self.envs: Copies | Vector | None = None
        self.lacking: str | None = None
        self.retries = 0

    @property
    def opened(self) -> bool:
        """Whether opening has been tried: what failed once is not tried again."""
        return self.envs is not None or self.lacking is not None

    @property
    def num_envs(self) -> int:
        """Number of copies; 0: there are none, and evaluation takes place in the training copies."""
        return 0 if self.envs is None else self.envs.num_envs

    def open(self, episodes: int) -> None:
        """Open as many copies as an evaluation of so many episodes can use, or as can be opened.

        Raises:
            ConfigError: If episodes are to be recorded and cannot be.
        """
        at_once = min(episodes, EVALUATED_AT_ONCE)
        if at_once == 0:
            self._close_spare()
            return
        if self._video:
            film = recordable(self._make, self._options["name"], seed=EVALUATION_SEED)
            if self._make_vector is None:
                # The recorded one takes its place: there may be no room for another.
                self._close_spare()
            self._spare.append(film)
        if self._make_vector is not None:
            self._open_vector(self._make_vector, at_once)
        else:
            self._open_one_by_one(at_once)

    def _open_vector(self, make_vector: Callable[[int], Any], at_once: int) -> None:
        try:
            envs = make_vector(at_once)
        except Exception as error:
            self.lacking = _reason(error)
        else:
            try:
                self.envs = Vector(envs, seed=EVALUATION_SEED, **self._options)
            except BaseException:
                close([envs])
                raise
            self._running.freeze(envs)
        self._close_spare()

    def _open_one_by_one(self, at_once: int) -> None:
        made, self._spare = self._spare, []
        try:
            while len(made) < at_once:
                made.append(self._make())
        except Exception as error:  # Fewer copies are slower, but give the same episodes.
            self.lacking = _reason(error)
        except BaseException:
            close(made)
            raise
        if made:
            options = {**self._options, "num_envs": len(made), "made": made}
            self.envs = Copies(self._make, seed=EVALUATION_SEED, retries=self.retries, **options)
            self.envs.replay_broken = True
            self.envs.on_replaced = lambda old, new: self._running.freeze([new])
            self._running.freeze(made)

    @contextmanager
    def within(
        self, training: Copies | Vector, *, film: Path | None, prefix: str
    ) -> Iterator[Copies | Vector]:
        """The copies to evaluate in: the `training` ones if there are no others.

        Args:
            film: The folder of videos; None: the first copy is not recorded.
            prefix: How the names of videos begin.
        """
        envs = self.envs
        if envs is None:
            # Put back afterwards: with the counts of an evaluation, training would repeat its seeds.
            kept = training.seed, training.episodes
            training.seed = EVALUATION_SEED
            if isinstance(training, Copies):
                training.replay_broken = True
            self._running.freeze()
            try:
                yield training
            finally:
                training.seed, training.episodes = kept
                if isinstance(training, Copies):
                    training.replay_broken = False
                self._running.thaw()
        elif film is not None and isinstance(envs, Copies):
            envs.envs[0] = filmed(envs.envs[0], film, prefix)
            try:
                yield envs
            finally:
                envs.envs[0] = developed(envs.envs[0])
        else:
            yield envs

    def close(self) -> None:
        """Close all copies, used or not."""
        if self.envs is not None:
            self.envs.close()
        self._close_spare()

    def _close_spare(self) -> None:
        close(self._spare)
        self._spare = []


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, ConfigError) else describe_error(error)
