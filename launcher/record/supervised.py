"""What a supervisor needs of a session."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .console import Console
from .progress import Progress
from .reported import Reported


class Supervised(Protocol):
    """The part of a session that its supervisor uses.

    Attributes:
        path: The run directory, absolute.
        console: Shows messages and progress to the user.
        progress: Counts steps and tasks, and holds the scores so far.
        first_step: The step at which this process began or resumed the run.
    """

    path: Path
    console: Console
    progress: Progress
    first_step: int

    @property
    def report(self) -> Reported:
        """Header, costs, warnings and pictures of the run."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""

    @property
    def finished(self) -> bool:
        """Whether all tasks are learnt."""

    def awake(self) -> AbstractContextManager[None]:
        """Runs the block with the weights that are trained, in place of averaged ones."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; tensors may be the session's own."""

    def model_state(self) -> dict[str, Tensor]:
        """The weights of the user's module that the finished run would have, by the module's own names."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""

    def pool(self) -> None:
        """Make this rank's state that of all ranks, before rank 0 saves it."""

    def check_finite(self, *, closely: bool = False) -> None:
        """Raise Diverged if a weight, or what trains it, is not finite: then it is not worth saving."""

    def roll_back(self, state: dict[str, Any]) -> None:
        """Return what learns to its state in a checkpoint, while steps and data go on."""

    def check_fresh(self) -> None:
        """Refuse strategies that another run has used already."""

    def config_text(self) -> str:
        """The text of config.yaml: what the run uses, and what it used before it was resumed."""

    def newest_loss(self) -> Tensor | float | None:
        """The loss for the live line, on any device; None: nothing was learnt since the last row."""
