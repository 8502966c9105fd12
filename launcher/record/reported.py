"""What a supervisor reports about a run before, during and after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ...envs.world import World
from .console import Console
from .log import Row
from .progress import Progress


class Reported(Protocol):
    """Describes and draws a run, as `launcher.report.Report` does."""

    @property
    def world(self) -> World:
        """The data or environments that the run learns from."""

    def header(self) -> dict[str, str]:
        """The lines that a run begins with, by their label."""

    def problems(self) -> list[str]:
        """Warnings to show before the run begins."""

    def costs(self, task: int) -> dict[str, Any]:
        """The cost of the task that was just learnt, for its entry in status.json.

        Args:
            task: Its number, from 0.
        """

    def untrained(self, *, so_far: bool = False) -> Iterator[str]:
        """A warning if learning steps have trained nothing; `so_far`: whether the run goes on."""

    def last_words(self, *, stepped: bool) -> Iterator[str]:
        """Warnings about settings that had no effect, or less than expected.

        Args:
            stepped: Whether this process took a step of the run.
        """

    def draw_model(self, console: Console) -> None:
        """Draw the user's module."""

    def draw_run(
        self, history: list[Row], progress: Progress, *, parameters: dict[str, Any] | None
    ) -> None:
        """Draw the run's curves and matrices.

        Args:
            history: The rows of train.csv and eval.csv, in order.
            parameters: Number that each task uses, if strategies count them.
        """

    def draw_predictions(self) -> None:
        """Draw the predictions of the last evaluation."""
