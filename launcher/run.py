"""The result of a call of `ml`: `Run`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from ..envs.world import WorldSpec
from ..replay import ConfigError, Replay, Spec

if TYPE_CHECKING:
    from .inference.examining import Examiner
    from .inference.policy import Policies
    from .inference.predicting import Predictor
    from .inference.trained import Trained


class Behind(Protocol):
    """What a `Run` calls to act or learn further: an open run, or a loaded model."""

    @property
    def world(self) -> WorldSpec:
        """The world it learnt from."""

    def learn_later(
        self, result: Run, data: Any, name: str | None, test_dataset: Any
    ) -> dict[str, float]:
        """Learn one more task and bring `result` up to date; see `Run.learn_task`."""

    def predictor(self) -> Predictor:
        """Predicts for raw inputs, in a run on data."""

    def examiner(self) -> Examiner:
        """Evaluates on held-out rows, or on other data, in a run on data."""

    def exporting(self) -> AbstractContextManager[Trained]:
        """Runs the block with the process settings of an evaluation, and the model ready to be exported."""

    def policies(self) -> Policies:
        """Policies that accept the environments' raw observations and return their actions."""

    def make_env(self, task: int, **arguments: Any) -> Any:
        """Make a new copy of an environment, with further arguments such as `render_mode`."""

    def eval_limit(self, task: int) -> int | None:
        """Number of steps after which an episode is cut; None: episodes end by themselves."""

    def playing(self) -> AbstractContextManager[None]:
        """Runs the block with the process settings of an evaluation."""


@dataclass
class Run:
    """A finished run.

    Attributes:
        agent: The trained module, the user's own object, in eval mode on the run's device.
        spec: The observation and action spaces that it was built for.
        metrics: The final evaluation, by metric; over a sequence of tasks, the mean over all.
        history: The rows of train.csv and eval.csv, in order. Those of a long run are read back from these
            files: `list(run.history)` holds them all in memory.
        replay: The replay it learnt from; absent from a run that `antelope.load` returned.
        path: The run directory.
        accuracy_matrix: float64 `[tasks, tasks]`: row i after learning task i, column j on task j; NaN for
            tasks after the next one, unless `eval_future=true`. With `eval_rows`, all rows but the last are
            measured on the sample.
            It holds the main metric: accuracy, return or R2. If classes are split into tasks, it is
            class-IL: all classes compete.
        task_il_matrix: The same with the task known, so that only its classes compete. Equals
            `accuracy_matrix` if tasks share their classes; empty if there are no classes.
        tasks: For each task, `steps` and `seconds`; with strategies, their `memory_bytes` and `parameters`.
    """

    agent: nn.Module
    spec: Spec
    metrics: dict[str, float]
    history: Sequence[dict[str, Any]]
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

    def predict(self, inputs: Any, *, task: int | None = None) -> np.ndarray:
        """The classes or values that the model predicts for raw inputs.

            run.predict(images)         # an array, as `dataset=` had them
            run.predict("holiday.jpg")  # or a folder of pictures
            run.predict(test_set)       # a torch data set; its targets are left out

        Inputs are decoded, resized, laid out and standardised as the training data was.

        Args:
            inputs: In the form in which the data came in: an array, tensor, data frame or nested list of
                numbers (uint8 images with channels first, last or missing; floats, integers or booleans); a
                PIL image or a list of them; the path of a picture, of a folder of pictures, or a list of
                paths; a torch data set or `DataLoader`, of `(input, target)` or of inputs alone; the name of
                a data set. A single input, without the dimension of N, is one prediction too.
            task: Their task in a sequence, from 0: only its classes compete. None: all classes do, and the
                model does not know the task.

        Returns:
            `[N]` classes as the data had them: names where they have any, else the original labels (numbers
            with gaps, words). `[N]` or `[N, K]` floats for targets that are values, in their own units.

        Raises:
            DataError: If the inputs are not what the run was trained on.
            ConfigError: If the run learnt in environments, or there is no such task.
        """
        return self.predictor("predict").predict(inputs, task)

    def predict_proba(self, inputs: Any, *, task: int | None = None) -> np.ndarray:
        """The probability of each class for raw inputs, float32 `[N, n]`, in the outputs' order.

        Args:
            inputs, task: As for `predict`. With `task`, other tasks' classes have probability 0.

        Raises:
            DataError, ConfigError: As for `predict`; also if the targets are values.
        """
        return self.predictor("predict_proba").probabilities(inputs, task)

    def __call__(self, inputs: Any, *, task: int | None = None) -> Tensor:
        """The model's outputs for raw inputs, a tensor `[N, *spec.action.shape]` on the CPU.

        Args:
            inputs, task: As for `predict`.

        Raises:
            DataError, ConfigError: As for `predict`.
        """
        return self.predictor("run(inputs)").outputs(inputs, task)

    def evaluate(
        self, dataset: Any = None, metrics: Any = None, *, task: int | None = None
    ) -> dict[str, float]:
        """Metrics on the held-out rows, or on other data.

            run.evaluate()                    # as at the end of training
            run.evaluate("photos/new")        # a folder of class folders
            run.evaluate((images, labels))

        Args:
            dataset: Other data, in any form that `dataset=` accepts: its test part if it has one, else all of
                it. Its labels are matched with the run's classes by their value or name. None: the held-out
                rows of every task learnt so far; a run from `antelope.load` reads its data again.
            metrics: Further metrics, as for `metrics=`.
            task: The task that other data belongs to, from 0; None: not known.

        Returns:
            Metrics by name; over a sequence of tasks their means, and each task's own as `accuracy/task_0`.

        Raises:
            DataError: If the data cannot be read, is not what the run was trained on, or has other classes.
            ConfigError: If the run learnt in environments, or the data has to be given.
        """
        return self._examiner("evaluate").evaluate(dataset, metrics, task=task)

    def outputs(self) -> dict[str, np.ndarray]:
        """The model's outputs for the held-out rows, in order, task by task.

        Returns:
            `index` int64 `[N]`, the rows' numbers in the held-out data; `task` int64 `[N]`, from 0; `label`,
            the numbers of the outputs that are right, int64 `[N]`, or the true values, float `[N, ...]`;
            `output` float `[N, *spec.action.shape]`.

        Raises:
            ConfigError, DataError: As for `evaluate`.
        """
        return self._examiner("outputs").outputs()

    def export(self, format: str = "onnx", path: str | Path | None = None) -> Path:
        """Write the model for other tools, for any batch size.

        Before the call returns, the file is read by its own library, and its outputs are compared with the
        module's at several batch sizes. Inputs are what the data had (uint8 images `[B, C, H, W]`): the file
        standardises them itself. In environments they are observations as the module receives them. Names
        and meanings are in the file's metadata, with the classes.

        Args:
            format: "onnx" (needs `antelope-ml[export]`), "torch" (a program of `torch.export`), or
                "safetensors" (the weights alone, by the module's own names; inputs must be prepared as the
                metadata says).
            path: The file, or an existing folder; None: `model` in the run directory. It appears whole or
                not at all.

        Returns:
            The file, absolute.

        Raises:
            ConfigError: If the model cannot be exported, its outputs differ, or the file cannot be written.
        """
        from .export.exporting import export

        with self._opened("export").exporting() as trained:
            return export(trained, format, path)

    def act(self, obs: Any, info: Any = None, *, task: int | None = None) -> Any:
        """The greedy action for an environment's own observation, as `env.step` accepts it.

            obs, info = env.reset()
            run.reset()
            while True:
                obs, reward, terminated, truncated, info = env.step(run.act(obs))
                ...

        Handles frame stacks, image layout, one-hot choices, running statistics (`normalize_obs`), a recurrent
        model's state and the range of actions. Call `reset()` at an episode's start if the model remembers
        earlier steps: with `frame_stack`, or a recurrent state.

        Args:
            obs: What `env.reset()` or `env.step()` returned, of the environment with its wrappers (what
                `env=` makes, and what settings such as `discrete` put around it). Or what a vector
                environment returned, recognised by its shape: N actions for N observations.
            info: The `info` that came with it, if the model receives fields of it (`env_info`).
            task: Which environment of a sequence, from 0, if their spaces differ.

        Raises:
            DataError: If it is not an observation of the environment (naming the part and what is expected),
                or a field of `info` is missing.
            ConfigError: If this run has no environment.
        """
        return self._policies("act").of(task).act(obs, info)

    def reset(self, began: Any = None) -> None:
        """Tell `act` that the next observation is an episode's first.

        Args:
            began: For a vector environment, which of them begin an episode, bool `[N]`; None: all.
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
            seed: Seeds the episodes; None: as the run's evaluations do.
            task: Which environment of a sequence, from 0; None: the last one.
            show: Called after each episode with its number, return, and length in steps.

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

    def _opened(self, method: str) -> Behind:
        if (opened := self._open) is None:
            raise ConfigError(
                f"This Run is a copy and holds only results. Call {method} on the Run that ml returned, or "
                f"on antelope.load({str(self.path)!r})."
            )
        return opened

    def predictor(self, method: str = "predict") -> Predictor:
        """What predicts for raw inputs, part by part, in a run on data.

        Args:
            method: What errors call the use that is made of it.
        """
        opened = self._opened(method)
        if opened.world.acts:
            raise ConfigError(
                f"{method} is for runs on data, and this run learnt in {opened.world.name}. Call "
                "run.act(obs) with an observation, or run.play()."
            )
        if "_predicting" not in vars(self):
            vars(self)["_predicting"] = opened.predictor()
        predictor: Predictor = vars(self)["_predicting"]
        return predictor

    def _examiner(self, method: str) -> Examiner:
        self.predictor(method)  # Raises in environments, and for copies.
        return self._opened(method).examiner()

    def _policies(self, method: str) -> Policies:
        opened = self._opened(method)
        if not opened.world.acts:
            raise ConfigError(
                f"run.{method} needs an environment, and this run learnt from a data set, "
                f"{opened.world.name}. Call run.predict(inputs)."
            )
        # Made once: they remember the frames and the recurrent state of the current episode.
        if "_acting" not in vars(self):
            vars(self)["_acting"] = opened.policies()
        policies: Policies = vars(self)["_acting"]
        return policies

    def __getattr__(self, name: str) -> Any:
        if name == "replay":
            raise AttributeError(
                f"antelope.load does not load the replay, which stays in {self.path}. To learn from it: "
                f"ml(env=..., offline={str(self.path)!r}); to continue the run: ml(..., resume=True)."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """The results only: copies and pickles cannot act or learn further."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("_open", "_acting", "_predicting")
        }

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics.items())
        return f"Run({metrics}, path={str(self.path)!r})"
