"""The live line of a run, in as many columns as the console has. Imported where there is one."""

from __future__ import annotations

import math
from typing import Any

from rich.progress import ProgressColumn
from rich.text import Text

_LONGEST, _SHORTEST = 30, 8  # Columns of the bar.


class Line(ProgressColumn):
    """The live line: a bar, the percentage and the time left, then values.

    Where the console is narrow, the last values are left out first, then the bar.
    """

    def __init__(self, console: Any):
        super().__init__()
        self._console = console

    def render(self, task: Any) -> Text:
        width = self._console.width - 1  # A full line would make some terminals begin another.
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
    """`1:02:03`, as long as that is known."""
    if seconds is None:
        return "-:--:--"
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{int(seconds):02}"
