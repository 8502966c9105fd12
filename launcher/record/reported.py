"""What a supervisor says of a run before, during and after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ...envs.world import World
from .console import Console
from .log import Row
from .progress import Progress


class Reported(Protocol):
    """What there is to say of a run; `launcher.report.Report` is the one there is."""

    @property
    def world(self) -> World:
        """What the run learns from."""

    def header(self) -> dict[str, str]:
        """The lines that a run begins with, by what they are about."""

    def problems(self) -> list[str]:
        """What a person should know before the run begins."""

    def costs(self, task: int) -> dict[str, Any]:
        """What a task has cost that was just learnt: a part of its entry in status.json."""

    def last_words(self, *, stepped: bool) -> Iterator[str]:
        """Settings that had no effect, or less than expected."""

    def draw_model(self, console: Console) -> None:
        """Draw the user's module."""

    def draw_run(
        self, history: list[Row], progress: Progress, *, parameters: dict[str, Any] | None
    ) -> None:
        """Draw the run's curves and matrices."""
