"""What a run learns from: a sequence of tasks over a data set, or over environments.

Only the world knows how the two differ. `DataWorld` (tasks.py) and `EnvWorld` (env_world.py) implement
the protocol `World`; kinds.py has what worlds of the same kind share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..replay import Normalizer, Replay, Spec
from .arrays import Arrays
from .fingerprint import Fingerprint
from .held_out import HeldOut
from .transform import Augment, Transform
from .wishes import Evaluation, Lengths, ReplayWishes, TaskLength

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import VectorEnv

    from .interface import Interface
    from .table_columns import Columns


# Called during an evaluation with how much is done, and the word for what is counted.
Show = Callable[[int, str], None]


class Task(Protocol):
    """One task of a sequence."""

    @property
    def name(self) -> str:
        """The name in errors and headers."""


class Actor(Protocol):
    """Chooses actions, and returns them with the extras that the model wants stored."""

    def __call__(
        self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Actions and extras, for stored observations `[N, *shape]` and the fields of `info`.

        Args:
            began: Which observations are an episode's first, bool `[N]`.
        """


class Policy(Protocol):
    """A model that is evaluated, on held-out rows or in episodes."""

    def score_rows(self, rows: HeldOut) -> dict[str, float]:
        """Metrics on held-out rows; empty if the model makes no predictions."""

    def score_episodes(self, returns: list[float], lengths: list[int]) -> dict[str, float]:
        """Metrics of whole episodes, from their returns and their lengths in steps."""

    def actor(self) -> Actor:
        """An actor that chooses greedy actions, with the memory of an episode's start."""


class WorldSpec(Protocol):
    """What a model is built from and tried on; the data or the environments need not be open.

    Attributes:
        name: Name of the data or the environments, as directories have it.
        kind: "data" or "env", for messages and for what settings mean.
        labelled: Whether batches have a `label`, on which a module without `learn` is trained.
        acts: Whether the model acts, and learns from the outcome.
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
        """The tasks, in the order in which they are learnt."""

    @property
    def told(self) -> bool:
        """Whether the scenario is task: the task is known when labels are predicted."""

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        """The transforms of batches for learning and for evaluation.

        Args:
            standardize: Whether numbers get zero mean and unit standard deviation; else they are in [0, 1].
            device: The device of the model.
            augment: Makes the augmentation; called only if batches can be augmented. None: there is none.
        """

    def example(self, n: int, device: torch.device) -> Any:
        """`n` observations as they are stored, `[n, *stored shape]`, or a tree of them, to try a model on."""

    def facts(self) -> dict[str, Any]:
        """Values that our own agents receive if they have a parameter of that name."""

    def lengths(self, asked: Lengths) -> Lengths:
        """The lengths asked for, with defaults, and without those that do not apply here."""


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

    @property
    def columns(self) -> Columns | None:
        """How the columns of its tables become inputs; None: it holds none."""

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
        """Expect a task that was added before the run was resumed; its rows have yet to be given again."""

    def rows(self, task: int) -> Tensor:
        """The rows of the training table that a task learns from, int64 `[N]`."""

    def outputs_of(self, train: Arrays) -> Tensor:
        """The outputs of later data's classes, int64 `[k]`; raises as `add` does."""


class Environments(Protocol):
    """Environments to act in after training."""

    @property
    def interfaces(self) -> list[Interface]:
        """The interface of each task's environment."""

    @property
    def info_layout(self) -> dict[str, Any] | None:
        """Shapes and dtypes of the stored fields of `info`, for all environments; None: none is stored."""

    def make(self, task: int, **arguments: Any) -> Env[Any, Any] | VectorEnv[Any, Any, Any]:
        """A fresh copy of an environment, made with further arguments such as `render_mode`."""

    def eval_limit(self, task: int) -> int | None:
        """Steps after which an evaluation episode is cut; None: it ends by itself."""


class World(WorldSpec, Protocol):
    """What a run learns from."""

    @property
    def task_names(self) -> list[str] | None:
        """The names of tasks in pictures; None: tasks are numbered."""

    @property
    def validates(self) -> bool:
        """Whether rows are held out for validation, to evaluate on before a task's end."""

    @property
    def closed(self) -> bool:
        """Whether the environments are closed, so that nothing can be evaluated."""

    # ---------------------------------------------------------------------------- before the run

    def unread(self, *, normalize_obs: bool, eval_episodes: int) -> dict[str, str]:
        """Settings that have no effect here, and why: `{setting: reason}`."""

    def wanted_threads(self) -> int | None:
        """Number of threads that torch should use on a CPU; None: torch's own choice."""

    def place(self, device: torch.device, wanted: str) -> str | None:
        """Move the data to the device, if it is wanted there and fits.

        Args:
            wanted: "device", "ram", or "auto": on the device if its bytes are less than half of those free.

        Returns:
            A remark on where it is and why, for the run's header; None: there is nothing to say.

        Raises:
            ConfigError: If it is wanted on the device and does not fit.
        """

    def replay(self, transform: Transform, wishes: ReplayWishes) -> Replay:
        """The replay over the world's storage.

        Raises:
            CheckpointError: If saved transitions come from another environment.
        """

    def borders(self, *, online: bool) -> bool:
        """Whether the learner knows where tasks end."""

    def classes(self, task: int) -> Tensor:
        """The outputs that a task's labels use, int64 `[k]`; empty if there are no classes."""

    def task_lengths(self, lengths: Lengths, *, batch_size: int, offline: bool) -> list[TaskLength]:
        """Learning steps of each task."""

    def steps(self, lengths: Lengths, *, batch_size: int) -> int:
        """Number of steps of the whole run, if no task ends early."""

    def describe(self) -> str:
        """One line for the run's header."""

    def remarks(self, *, asked: bool, eval_episodes: int, eval_limit: int | None) -> dict[str, str]:
        """Further lines of the run's header, `{topic: text}`.

        Args:
            asked: Whether the user decided how integers are treated (`standardize`).
        """

    # ---------------------------------------------------------------------------- during the run

    def begin(self, task: int, replay: Replay) -> None:
        """Begin a task: its rows, or episodes of its environment."""

    def collect(self, task: int, actor: Actor | None, replay: Replay) -> int:
        """Collect experience to learn from, if there is any to collect; returns the number of steps taken."""

    def go_on(self, task: int, replay: Replay) -> None:
        """Continue a task after an evaluation in the middle of it."""

    def episode_metrics(self, task: int) -> dict[str, float]:
        """Metrics of the episodes that ended since the last call."""

    def evaluates(self, episodes: int) -> bool:
        """Whether there is any evaluation."""

    def evaluated(
        self, task: int, how: Evaluation, *, validation: bool = False, whole: bool = False
    ) -> int:
        """Number of rows or episodes in an evaluation; arguments as for `evaluate`."""

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
        """The world's part of a checkpoint.

        Args:
            task: The task in progress, whose episodes are saved; None: between tasks.
            pack: Turns environments into state that can be saved, or into None if that is impossible.
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
        """Restore the world and its replay from a checkpoint.

        Args:
            state: The whole checkpoint.
            task: The task in progress; None: between tasks.
            unpack: Restores environments from the state that `pack` made.
            problem: Called with a message on what could not be restored.

        Returns:
            Whether the episodes in progress continue, and with them a recurrent model's state.
        """

    def resume(self, task: int | None, replay: Replay, state: dict[str, Any]) -> None:
        """Restore the replay in `task` (None: between tasks), and begin new episodes.

        Args:
            state: The replay's `state_dict()`.
        """

    @property
    def fingerprint(self) -> Fingerprint:
        """What identifies the data or the environments, as plain data; see fingerprint.py."""

    def close(self) -> None:
        """Close the environments, if there are any."""
