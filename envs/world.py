"""What a run learns from: a sequence of tasks over a data set, or over environments.

What differs between the two is asked of the world and nowhere else. `DataWorld` (tasks.py) and `EnvWorld`
(env_world.py) are worlds; kinds.py has what the worlds of each kind share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..replay import Normalizer, Replay, Spec
from .arrays import Arrays
from .held_out import HeldOut
from .transform import Augment, Transform
from .wishes import Evaluation, Lengths, ReplayWishes, TaskLength

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import VectorEnv

    from .interface import Interface


# Told how much of an evaluation is done, and what is counted.
Show = Callable[[int, str], None]


class Task(Protocol):
    """One task of a sequence."""

    @property
    def name(self) -> str:
        """What errors and headers call it."""


class Actor(Protocol):
    """Chooses actions, and returns what the model wants stored with them."""

    def __call__(
        self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Actions and extras, for stored observations `[N, *shape]` and the fields of `info`.

        Args:
            began: Which observations are an episode's first, bool `[N]`.
        """


class Policy(Protocol):
    """What is evaluated: on held-out rows, or in episodes."""

    def score_rows(self, rows: HeldOut) -> dict[str, float]:
        """Metrics of held-out rows; empty for a model that can predict nothing."""

    def score_episodes(self, returns: list[float], lengths: list[int]) -> dict[str, float]:
        """Metrics of whole episodes, from the return and the length in steps of each."""

    def actor(self) -> Actor:
        """Chooses greedy actions, from an episode's start on."""


class WorldSpec(Protocol):
    """What a model is built from and tried on; the data or the environments may be gone.

    Attributes:
        name: Of the data or the environments, as directories have it.
        kind: Whether it is a data set or environments, for a person and for what settings mean.
        labelled: Whether batches have a `label`, on which a module without `learn` is trained.
        acts: Whether the model acts, and learns from what comes of that.
        scenario: "class", "task" or "domain": what an output means; None: there are no classes.
        normalizer: Running statistics of observations and rewards, or None.
    """

    name: str
    kind: Literal["data", "env"]
    labelled: bool
    acts: bool
    scenario: str | None
    normalizer: Normalizer | None
    spec: Spec

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks, in the order they are learnt."""

    @property
    def told(self) -> bool:
        """Whether the scenario is task: the task is known when labels are predicted."""

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        """How batches are made to learn from, and to evaluate with.

        Args:
            standardize: Whether numbers get zero mean and unit standard deviation; else they are in [0, 1].
            augment: Makes the augmentation, which is called only where batches can be augmented.
        """

    def example(self, n: int, device: torch.device) -> Any:
        """`n` observations as they are stored, `[n, *stored shape]`, to try a model on."""

    def facts(self) -> dict[str, Any]:
        """What our own agents may ask for by a parameter's name."""

    def lengths(self, asked: Lengths) -> Lengths:
        """The lengths asked for, with defaults, and without what does not exist here."""


class Growing(Protocol):
    """A sequence of data sets to which later data can be added.

    Attributes:
        later: For each added task, its `name`, `rows` (number of training rows), `classes` and `digest`.
    """

    later: list[dict[str, Any]]

    @property
    def filled(self) -> int:
        """Number of tasks whose rows are loaded."""

    @property
    def expecting(self) -> bool:
        """Whether rows of an expected task are missing."""

    def add(self, train: Arrays, test: Arrays | None, *, name: str | None = None) -> Task:
        """Add a task, or the rows of the next expected one.

        Args:
            test: Held-out data; None: a fixed fifth of the rows.
            name: Name of the task; None: that of the data.

        Raises:
            ConfigError: If there are more classes than outputs.
            DataError: If the data does not fit, or is not what was expected.
        """

    def expect(self, known: dict[str, Any]) -> None:
        """Expect a task that was added before the run was resumed; its rows are still to be given."""

    def rows(self, task: int) -> Tensor:
        """Which rows of the training table a task learns from, int64 `[N]`."""

    def outputs_of(self, train: Arrays) -> Tensor:
        """The outputs of later data's classes, int64 `[k]`; raises as `add` does."""


class Environments(Protocol):
    """Environments to act in once a model has learnt."""

    @property
    def interfaces(self) -> list[Interface]:
        """Of each task, what its environment gives and takes."""

    @property
    def info_layout(self) -> dict[str, Any] | None:
        """What the fields of `info` are that are kept, the same in all environments; None: none are."""

    def make(self, task: int, **arguments: Any) -> Env[Any, Any] | VectorEnv[Any, Any, Any]:
        """A fresh copy of an environment, made with further arguments such as `render_mode`."""

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an episode of evaluation is cut; None: it ends by itself."""


class World(WorldSpec, Protocol):
    """What a run learns from."""

    @property
    def task_names(self) -> list[str] | None:
        """What tells the tasks apart in pictures; None: their numbers do."""

    @property
    def validates(self) -> bool:
        """Whether rows are held out to evaluate on before a task's end."""

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to evaluate in."""

    # ---------------------------------------------------------------------------- before the run

    def unread(self, *, normalize_obs: bool, eval_episodes: int) -> dict[str, str]:
        """Settings that make no difference here, and why."""

    def wanted_threads(self) -> int | None:
        """Threads that torch should use on a CPU; None: as many as it likes."""

    def place(self, device: torch.device, wanted: str) -> str | None:
        """Bring the data to the device, if it is wanted there and fits.

        Args:
            wanted: "device", "ram", or "auto": on the device if its bytes are less than half of those free.

        Returns:
            Where it is and why, in a few words; None where there is nothing to say.

        Raises:
            ConfigError: If it is wanted on the device and does not fit.
        """

    def replay(self, transform: Transform, wishes: ReplayWishes) -> Replay:
        """The replay over the world's storage.

        Raises:
            CheckpointError: If saved transitions come from another environment.
        """

    def borders(self, *, online: bool) -> bool:
        """Whether learning is told where tasks end."""

    def classes(self, task: int) -> Tensor:
        """The outputs that a task's labels use, int64; empty where there are none."""

    def task_lengths(self, lengths: Lengths, *, batch_size: int, offline: bool) -> list[TaskLength]:
        """Learning steps of each task."""

    def steps(self, lengths: Lengths, *, batch_size: int) -> int:
        """Steps of the whole run, if no task ends early."""

    def describe(self) -> str:
        """One line for a person."""

    def remarks(self, *, asked: bool, eval_episodes: int, eval_limit: int | None) -> dict[str, str]:
        """Further lines of a run's header, by what they are about.

        Args:
            asked: Whether the user said what becomes of integers (`standardize`).
        """

    # ---------------------------------------------------------------------------- during the run

    def begin(self, task: int, replay: Replay) -> None:
        """Begin a task: its rows, or episodes of its environment."""

    def collect(self, task: int, actor: Actor | None, replay: Replay) -> int:
        """Gather what is to be learnt from next; returns the steps that this took."""

    def go_on(self, task: int, replay: Replay) -> None:
        """Continue after an evaluation in mid-task."""

    def episode_metrics(self, task: int) -> dict[str, float]:
        """Metrics of the episodes that ended since the last call."""

    def evaluates(self, episodes: int) -> bool:
        """Whether there is any evaluation."""

    def evaluated(
        self, task: int, how: Evaluation, *, validation: bool = False, whole: bool = False
    ) -> int:
        """How many rows or episodes an evaluation consists of; arguments as for `evaluate`."""

    def evaluate(
        self,
        task: int,
        policy: Policy,
        how: Evaluation,
        *,
        step: int,
        validation: bool = False,
        whole: bool = False,
        show: Show,
    ) -> dict[str, float]:
        """Metrics of a policy on one task.

        Args:
            step: Steps of the run so far.
            validation: Use the rows held out of the training data instead of the test data.
            whole: Use all rows, whatever `how.rows` says.
        """

    # ---------------------------------------------------------------------------- after the run

    def growing(self) -> Growing:
        """This world, if tasks can be added to it.

        Raises:
            ConfigError: If they cannot.
        """

    def environments(self) -> Environments:
        """This world, if it can be acted in.

        Raises:
            ConfigError: If it is a data set.
        """

    # -------------------------------------------------------------------------------- its state

    def state_dict(self, task: int | None, *, pack: Callable[[Any], Any]) -> dict[str, Any]:
        """What a checkpoint holds of the world.

        Args:
            task: The task in progress, whose episodes are kept; None: there is none.
            pack: Turns environments into storable state, or None if that is impossible.
        """

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        task: int | None,
        replay: Replay,
        *,
        unpack: Callable[[Any, Any], None],
        problem: Callable[[str], None],
    ) -> bool:
        """Put the world and its replay back into a checkpoint's state.

        Args:
            state: The whole checkpoint.
            task: The task in progress; None: between tasks.
            unpack: Puts environments into the state that `pack` made.
            problem: Called with what could not be restored.

        Returns:
            Whether the episodes in progress continue, and with them a recurrent model's state.
        """

    def resume(self, task: int | None, replay: Replay, state: dict[str, Any]) -> None:
        """Put the replay back to where it was in `task` (None: between tasks), with new episodes.

        Args:
            state: The replay's `state_dict()`.
        """

    def close(self) -> None:
        """Close the environments, if there are any."""
