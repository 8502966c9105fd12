"""What a call of `ml` gives back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from torch import nn

from ..envs.world import WorldSpec
from ..replay import ConfigError, Replay, Spec

if TYPE_CHECKING:
    from .inference.policy import Policies


class Behind(Protocol):
    """What a `Run` can still do: the session that it was, or a model that was loaded."""

    @property
    def world(self) -> WorldSpec:
        """What it learnt from."""

    def learn_later(
        self, result: Run, data: Any, name: str | None, test_dataset: Any
    ) -> dict[str, float]:
        """Learn one more task and bring `result` up to date; see `Run.learn_task`."""

    def policies(self) -> Policies:
        """What the model does in each environment, by their own observations and actions."""

    def make_env(self, task: int, **arguments: Any) -> Any:
        """A fresh copy of an environment, made with further arguments such as `render_mode`."""

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an episode is cut; None: it ends by itself."""

    def playing(self) -> AbstractContextManager[None]:
        """Inside, the process is set up as for an evaluation."""


@dataclass
class Run:
    """A finished run.

    Attributes:
        agent: The trained module, the user's own object, in eval mode on the run's device.
        spec: What it was built from.
        metrics: The final evaluation; over a sequence of tasks, the mean of all of them.
        history: The rows of train.csv and eval.csv, in order.
        replay: What it learnt from; a run that `antelope.load` returned has none.
        path: The run directory.
        accuracy_matrix: float64 `[tasks, tasks]`: row i after learning task i, column j on task j; NaN for
            tasks after the next one, unless `eval_future=true`. With `eval_rows`, all rows but the last are
            measured on the sample.
            The main metric (return, accuracy or R2) where that is not accuracy. Of classes split
            into tasks it is class-IL: all classes compete.
        task_il_matrix: The same with the task known, so that only its classes compete; the same as
            `accuracy_matrix` where tasks share their classes, empty where there are no classes.
        tasks: For each task `steps`, `seconds`, and `memory_bytes` and `parameters` of strategies.
    """

    agent: nn.Module
    spec: Spec
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    replay: Replay
    path: Path
    accuracy_matrix: np.ndarray = field(repr=False)
    task_il_matrix: np.ndarray = field(repr=False)
    tasks: list[dict[str, Any]] = field(default_factory=list, repr=False)
    # Not a field: copying or comparing a Run concerns its results only.
    _open: ClassVar[Behind | None] = None

    def learn_task(
        self, data: Any, name: str | None = None, *, test_dataset: Any = None
    ) -> dict[str, float]:
        """Learn data that arrived later, as one more task of this finished run.

            run = ml(model=Model, dataset=first, num_classes=10, strategy="er")
            run.learn_task(second, "second")

        The run keeps its settings; `metrics`, the matrices (which gain a row and a column) and the run
        directory are updated. Inputs are standardised by the statistics of the run's first data. With
        `resume=true`, the same calls with the same data skip what was learnt and continue.

        Args:
            data: As for `dataset=`, such as a `DataLoader`, but a single data set.
            name: Name of the task; None: that of the data.
            test_dataset: Its held-out data; None: its own test part, else a fixed fifth.

        Returns:
            The row of eval.csv at the task's end: the means over all tasks so far, and each score.

        Raises:
            ConfigError, DataError: Before training, for data that the run cannot learn.
            Diverged, KeyboardInterrupt, SystemExit: As `ml` does.
        """
        if (opened := self._open) is None:
            raise ConfigError(
                "This Run is a copy and holds only results. Call learn_task on the Run that ml returned, "
                "or on one that ml returns with resume=True."
            )
        return opened.learn_later(self, data, name, test_dataset)

    def act(self, obs: Any, info: Any = None, *, task: int | None = None) -> Any:
        """The greedy action for an environment's own observation, as `env.step` takes it.

            obs, info = env.reset()
            run.reset()
            while True:
                obs, reward, terminated, truncated, info = env.step(run.act(obs))
                ...

        Stacks of frames, image layout, one-hot choices, running statistics (`normalize_obs`), a recurrent
        model's state and the range of actions are taken care of. `reset()` is needed at an episode's start
        where the model remembers anything of an episode: with `frame_stack`, or a state.

        Args:
            obs: What `env.reset()` or `env.step()` returned, of the environment with its wrappers (what
                `env=` makes, and what settings such as `discrete` put around it). Or what a vector
                environment returned: told by the shape, with N actions for N observations.
            info: What came with it, where the model receives fields of it (`env_info`).
            task: Which environment of a sequence, from 0, where their spaces differ.

        Raises:
            DataError: If it is not an observation of the environment (which part, and what is expected), or
                a field of `info` is missing.
            ConfigError: If this run has no environment.
        """
        return self._policies("act").of(task).act(obs, info)

    def reset(self, began: Any = None) -> None:
        """Tell `act` that the next observation is an episode's first.

        Args:
            began: With a vector environment, whose next observation is one, bool `[N]`; None: all.
        """
        self._policies("reset").reset(began)

    def play(
        self,
        episodes: int = 1,
        *,
        render: bool = False,
        video: str | Path | None = None,
        seed: int | None = None,
        task: int | None = None,
        show: Callable[[int, float, int], None] | None = None,
    ) -> list[float]:
        """Play greedy episodes in a fresh copy of the environment; returns their returns.

        Args:
            render: Show them in a window (`render_mode="human"`).
            video: Film them: a file that ends in `.mp4`, or a folder for a film of each episode. Needs
                `moviepy`.
            seed: Of the episodes; None: those of the run's evaluations.
            task: Which environment of a sequence, from 0; None: the last one.
            show: Called with the number, the return and the length of each episode that has ended.

        Raises:
            ConfigError: If this run has no environment, or it cannot be shown or filmed.
        """
        from .inference.playing import play

        policies, opened = self._policies("play"), self._open
        assert opened is not None
        number = policies.number(task)
        with opened.playing():
            make = functools.partial(opened.make_env, number)
            return play(
                policies.new(number),
                make,
                episodes=episodes,
                render=render,
                video=video,
                seed=seed,
                limit=opened.eval_limit(number),
                show=show,
            )

    def _policies(self, method: str) -> Policies:
        if (opened := self._open) is None:
            raise ConfigError(
                f"This Run is a copy and holds only results. Call {method} on the Run that ml returned, or "
                f"on antelope.load({str(self.path)!r})."
            )
        if not opened.world.acts:
            raise ConfigError(
                f"run.{method} is for environments, and this run learnt from a data set, "
                f"{opened.world.name}. `run.agent` is the module itself."
            )
        if "_acting" not in vars(self):
            vars(self)["_acting"] = opened.policies()
        policies: Policies = vars(self)["_acting"]
        return policies

    def __getattr__(self, name: str) -> Any:
        if name == "replay":
            raise AttributeError(
                f"antelope.load leaves the replay where it is, in {self.path}. To learn from it: "
                f"ml(env=..., offline={str(self.path)!r}); to continue the run: ml(..., resume=True)."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """The results, without the run itself."""
        return {
            name: value for name, value in vars(self).items() if name not in ("_open", "_acting")
        }

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics.items())
        return f"Run({metrics}, path={str(self.path)!r})"
