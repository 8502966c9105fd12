"""What the user sees during a run. A console that fails does not end it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...replay.randomness import kept_randomness
from ...replay.shown import shown as printable
from ..metrics import METRICS, better, score_names
from .output import report_lost, to_nowhere, write_error
from .progress import Progress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as Bar

_REDRAW_SECONDS = 0.2
_MOST_PARTS = 10  # Numbers such as one per class, up to which they are printed.


class Console:
    """A live progress bar and a few lines; silent when `enabled` is false.

    Args:
        total: Steps of the whole run; None: not known.
        told: Whether the model knows the task (`scenario=task`), so that task-IL accuracy comes first.
    """

    def __init__(self, *, enabled: bool, total: int | None = None, told: bool = False):
        self.enabled, self.total, self.told = enabled, total, told
        self._bar: Bar | None = None
        self._values: list[str] = []  # On the live line.
        self._redrawn = 0.0
        self._rate = _Rate()
        self._failed = False
        if enabled:
            with kept_randomness():  # Rich draws a number when it is imported.
                from rich.console import Console as RichConsole

            class Unbroken(RichConsole):
                def on_broken_pipe(self) -> None:  # Rich itself would end the process.
                    raise

            self._console = Unbroken(highlight=False)

    def problem(self, text: str) -> None:
        """Show a line that the user must see: to stderr if the console is silent, or fails."""
        if not self.enabled or not self._print(text):
            write_error(printable(text))

    def note(self, text: str) -> None:
        if self.enabled:
            self._print(text)

    def header(self, lines: dict[str, str]) -> None:
        """Show what is about to run: labels on the left, values on the right."""
        if self.enabled:
            width = max(map(len, lines))
            for name, text in lines.items():
                self._print(
                    f"[bold]{name:<{width}}[/]  {_escape(printable(text, line=True))}", markup=True
                )

    def update(self, at: Progress, loss: Tensor | float | None) -> None:
        """Redraw the live line.

        Args:
            loss: The newest loss, a number or a tensor of one element; None: there is none.
        """
        rate = self._rate(at.step)
        if not self.enabled or not self._console.is_terminal:
            return
        shown: dict[str, Tensor | float] = {} if loss is None else {"loss": loss}
        # Not the held-out loss, which would overwrite the training loss.
        names = [name for name in score_names(told=self.told) if better(name) == "more"]
        name = next((n for n in names if {n, f"validation_{n}"} & at.metrics.keys()), None)
        shown |= {k: at.metrics[k] for k in (name, f"validation_{name}") if k in at.metrics}
        if rate is not None:
            shown["steps/s"] = rate
        self._values = [f"{name} {_short(value)}" for name, value in shown.items()]
        self._redraw(self._values, completed=at.step)

    def evaluating(self, done: int, total: int, what: str) -> None:
        """Show the progress of an evaluation on the live line. Called often; most calls do nothing.

        Args:
            done: Number evaluated so far.
            total: Number to evaluate.
            what: Their name: "rows" or "episodes".
        """
        if not self.enabled or not self._console.is_terminal:
            return
        if done >= total:
            if self._bar is not None:
                self._redraw(self._values)
        elif time.monotonic() - self._redrawn > _REDRAW_SECONDS:
            self._redraw([f"evaluating {done:,}/{total:,} {what}", *self._values])

    def _redraw(self, values: list[str], **more: Any) -> None:
        with self._spared():
            if self._bar is None:
                self._bar = _bar(self._console, self.total)
            self._bar.update(self._bar.task_ids[0], shown=values, **more)
            self._bar.refresh()
        self._redrawn = time.monotonic()

    def evaluated(self, at: Progress) -> None:
        """Print a line per evaluation if there is no live line (in a log file, on a cluster)."""
        if self.enabled and not self._console.is_terminal:
            self._print(f"step {at.step:,}  {self._in_words(at.metrics)}")

    def task_ended(self, at: Progress, took: dict[str, Any]) -> None:
        """Print the scores of the tasks seen, and the cost of the last; a single task is left to `finished`.

        Args:
            took: An element of `Supervisor.tasks`.
        """
        if not self.enabled or len(at.matrix[-1]) < 2:
            return
        tasks = len(at.matrix[-1])
        used = [f"{took['seconds']:.1f} s"]
        if took.get("memory_bytes"):
            used.append(f"memory {_bytes(took['memory_bytes'])}")
        if parameters := took.get("parameters"):
            used.append(f"{parameters['used'][-1]:,} parameters")
        returns = "return" in at.metrics
        rows = {"return" if returns else "score": at.matrix[-1][: at.task]}
        if at.task_il and at.task_il == at.matrix:  # Tasks share their outputs.
            rows = {"accuracy": at.matrix[-1][: at.task]}
        elif at.task_il:
            rows = {"class-IL": at.matrix[-1][: at.task], "task-IL": at.task_il[-1][: at.task]}
            if self.told:
                rows = dict(reversed(rows.items()))
        which = f", {took['name']}," if "name" in took else ""
        self._print(f"task {at.task} of {tasks}{which} learnt in {', '.join(used)}")
        write = _short if returns else "{:.4f}".format
        for name, seen in rows.items():
            if all(value != value for value in seen):  # Nothing is evaluated.
                continue
            each = "  ".join(map(write, seen))
            self._print(f"  {name:<8}  {each}   mean {write(sum(seen) / len(seen))}")

    def finished(self, at: Progress, path: Path, *, seconds: float, steps: int) -> None:
        with self._spared():
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=at.step)
                self._bar.refresh()
        self.stop()
        if not self.enabled:
            return
        self._print(f"[bold green]{self._in_words(at.metrics) or 'done'}[/]", markup=True)
        rate = steps / seconds if seconds > 0 else 0.0
        self._print(
            f"{at.step:,} steps in {seconds:.1f} s ({rate:,.0f} steps/s). Written to {path}"
        )

    def stop(self) -> None:
        """Stop redrawing the live line, which stays visible."""
        if self._bar is not None:
            with self._spared():
                self._bar.stop()
            self._bar = None

    def _in_words(self, metrics: dict[str, float]) -> str:
        """All metrics in one line, the one that the scenario reports first."""
        told = {metric.told for metric in METRICS if metric.told and metric.better == "more"}
        first = [name for name in metrics if self.told and name.removeprefix("validation_") in told]
        names = list(dict.fromkeys([*first, *metrics]))
        parts = [name for name in names if "/" in name]  # Such as one number per class.
        hidden = parts if len(parts) > _MOST_PARTS else []
        more = f"  (and {len(hidden)} more in eval.csv)" if hidden else ""
        shown = [f"{name} {_short(metrics[name])}" for name in names if name not in hidden]
        return "  ".join(shown) + more

    def _print(self, text: str, *, markup: bool = False) -> bool:
        """Print a line; False if that failed."""
        console = self._bar.console if self._bar is not None else self._console
        with self._spared():
            console.print(printable(text), markup=markup, soft_wrap=True)
            return True
        return False

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """Runs the block; the first error of the terminal, pipe or file is reported, and none is raised."""
        try:
            yield
        except OSError as error:
            to_nowhere(sys.stdout, error)
            if not self._failed:
                self._failed = True
                report_lost(error)


class _Rate:
    """Steps per second, smoothed over a few seconds."""

    def __init__(self) -> None:
        self._time, self._step, self._value = 0.0, 0, 0.0

    def __call__(self, step: int) -> float | None:
        now, before = time.monotonic(), self._time
        if not before:
            self._time, self._step = now, step
            return None
        rate = (step - self._step) / max(now - before, 1e-9)
        self._value = rate if not self._value else 0.8 * self._value + 0.2 * rate
        self._time, self._step = now, step
        return self._value


def _bar(console: RichConsole, total: int | None) -> Bar:
    from rich.progress import Progress

    from .live import Line

    # The loop redraws it: a refresh thread would slow down small models.
    bar = Progress(Line(console), console=console, auto_refresh=False)
    bar.add_task("", total=total, shown=[])
    bar.start()
    return bar


def _short(value: Tensor | float) -> str:
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
