"""The live line of a run, fitted to the console's width. Imported only for a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

_LONGEST, _SHORTEST = 30, 8  # Columns of the bar.


class Line(ProgressColumn):
    """The live line: a bar, the percentage and the time left, then values.

    In a narrow console, the last values are dropped first, then the bar.
    """

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        width = self._console.width - 1  # A full line would wrap in some terminals.
        line = Text(no_wrap=True, overflow="crop")
        if task.total is not None:
            line.append(f"{task.percentage:>3.0f}% {_clock(task.time_remaining)}")
        values = Text()
        for text in task.fields["shown"]:
            gap = "  " if values or line else ""
            if line.cell_len + values.cell_len + len(gap + text) > width:
                break
            values.append(gap + text)
        if task.total is not None and line.cell_len + values.cell_len + _SHORTEST < width:
            size = min(_LONGEST, width - line.cell_len - values.cell_len - 1)
            done = round(size * task.percentage / 100)
            bar = Text("━" * done, style="bar.complete").append("━" * (size - done), "bar.back")
            line = bar.append(" ").append(line)
        return line.append(values)


def _clock(seconds: float | None) -> str:
    """`1:02:03`; dashes if the time is unknown."""
    if seconds is None:
        return "-:--:--"
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{int(seconds):02}"
