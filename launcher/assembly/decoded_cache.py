"""The cache of decoded pictures, and what the user sees while it is filled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.decoded import Cache
from ...envs.sources import default_data_dir
from ...replay.randomness import kept_randomness
from ..settings.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def decoded_cache(plan: Plan, data_dir: Path) -> Cache:
    """The cache of decoded pictures: beside the data sets, or among the user's own files."""
    folders = dict.fromkeys(folder / "decoded" for folder in (data_dir, default_data_dir()))
    report = _Shown(enabled=plan.progress)
    return Cache(list(folders), report, storage=plan.storage, window=plan.shuffle_buffer)


class _Shown:
    """A line, and a progress bar on a terminal; nothing when `enabled` is false."""

    def __init__(self, *, enabled: bool):
        self.enabled = enabled
        self._bar: Progress | None = None

    def begin(self, text: str, done: int, total: int) -> None:
        if not self.enabled:
            return
        console = _console()
        console.print(text, markup=False, soft_wrap=True)
        if console.is_terminal:
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (*Progress.get_default_columns()[1:3], MofNCompleteColumn())
            # Redrawn with each block: a thread of its own would be copied into the workers.
            self._bar = Progress(
                *columns, TimeRemainingColumn(), console=console, auto_refresh=False, transient=True
            )
            self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def advance(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, refresh=True)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        if self.enabled:
            _console().print(text, markup=False, soft_wrap=True)


def _console() -> Console:
    with kept_randomness():  # Rich draws a number when it is imported.
        from rich.console import Console

    return Console(highlight=False)
