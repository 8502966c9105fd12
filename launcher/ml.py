"""The doors: `ml(...)` and `ml.tasks(...)` in Python, `ml ...` in a console."""

from __future__ import annotations

import linecache
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..replay.errors import ConfigError, Diverged, NotSaved, RanksDiffer
from .plainly import plainly
from .settings.frames import user_traceback
from .settings.import_path import begin_command

if TYPE_CHECKING:
    from .run import Run
    from .task_by_task import Tasks

_FAILURE = 1


class Launcher:
    """Train a model: `ml(model=Model, dataset="CIFAR10")`; task by task: `ml.tasks(...)`.

    Both take any setting of `ml --help`: as keywords, whose values may be Python objects (a class, an
    instance, a tensor, `{"_target_": AdamW, "lr": 1e-2}`), and as console words, such as `"lr=1e-3"`,
    which win over keywords.
    """

    def __call__(self, *overrides: str, **settings: object) -> Run:
        """Train a model: `ml(model=Model, dataset="CIFAR10")`.

        Args:
            *overrides: Console words, such as `"lr=1e-3"`; they win over keywords.
            **settings: Any setting of `ml --help`; values may be Python objects.

        Returns:
            The finished run: `agent`, `spec`, `metrics`, `history`, `replay`, `path`.

        Raises:
            ConfigError, DataError, CheckpointError: Before training, for bad input.
            Diverged: If the loss becomes NaN or infinite.
            NotSaved: After `save_patience` checkpoints in a row that could not be written.
            KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the run is saved.
        """
        return _train(overrides, settings)

    def tasks(self, *overrides: str, **settings: object) -> Tasks:
        """Train a model task by task: `for task in ml.tasks(dataset="MNIST", tasks=5): task.learn()`.

        Accepts the same arguments as `ml(...)` and has the same results, whatever you do between tasks.

        Returns:
            The tasks to iterate over; `.run` is the `Run` so far.

        Raises:
            ConfigError, DataError, CheckpointError: Before training, for bad input.
        """
        from .settings.compose import compose

        composed = compose(overrides, settings)

        def work() -> Tasks:
            from .distributed import refuse_ranks
            from .task_by_task import Tasks

            refuse_ranks("ml.tasks", composed)
            return Tasks(composed)

        return plainly(composed, work)


ml = Launcher()


def _train(words: Sequence[str], settings: Mapping[str, object], *, console: bool = False) -> Run:
    """Train a model; the console itself says how to continue an interrupted run, with the words for it."""
    from .settings.compose import compose

    composed = compose(words, settings)

    def work() -> Run:
        from .distributed import on_devices
        from .train import train

        return on_devices(composed, lambda: train(composed))

    return plainly(composed, work, advise=not console)


def main(argv: list[str] | None = None) -> None:
    """The console command. It exits with 0 only for a finished run; docs/running.md lists the codes."""
    words = sys.argv[1:] if argv is None else argv
    begin_command()
    before, warnings.formatwarning = warnings.formatwarning, _formatted
    try:
        sys.exit(_alone(words) if argv is None else _main(words))
    finally:
        warnings.formatwarning = before


def _alone(words: list[str]) -> int:
    """Run the command in a process of its own, which survives the readers of its output; the exit code."""
    from .record.output import unbroken_streams
    from .record.signals import Leaving

    leaving = Leaving()
    leaving.install()
    unbroken_streams()
    code = _main(words)
    leaving.begin(code)
    return code


def _formatted(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of Antelope's as its text alone; any other with its file and line, as usual."""
    if Path(filename).is_relative_to(Path(__file__).parent.parent):
        return f"{message}\n"
    text = f"{filename}:{lineno}: {category.__name__}: {message}\n"
    line = linecache.getline(filename, lineno).strip() if line is None else line
    return f"{text}  {line}\n" if line else text


def _main(words: list[str]) -> int:
    try:
        from .commands import command
        from .sweep.words import asks_for_sweep

        if (run := command(words)) is not None:
            return run() or 0
        if asks_for_sweep(words):
            from .sweep.console import sweep

            return sweep(words)
        _train(words, {}, console=True)
        return 0
    except (ConfigError, Diverged, NotSaved, RanksDiffer) as error:
        if _wants_debug(words):
            print(user_traceback(error, whole=True), file=sys.stderr)
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        _say_how_to_resume(words, error)
        return 130
    except SystemExit as error:
        return _code_of(error, words)
    except BrokenPipeError:  # `ml models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        print(user_traceback(error, whole=_wants_debug(words)), file=sys.stderr)
        return _FAILURE


def _wants_debug(words: list[str]) -> bool:
    """Whether the words, or a preset that they name, set `debug`, even if they do not compose."""
    from .settings.compose import compose
    from .settings.values import is_true

    if given := [word.partition("=")[2] for word in words if word.lstrip("+").startswith("debug=")]:
        return is_true(given[-1])
    try:
        return bool(compose(words, {}).debug)
    except ConfigError:
        return False


def _code_of(error: SystemExit, words: list[str]) -> int:
    """The exit code of a command that a signal has ended, or code of the user's that called `sys.exit`."""
    from .commands import command
    from .record.signals import SignalExit

    if isinstance(error, SignalExit):
        _say_how_to_resume(words, error)
    elif error.code is not None and not isinstance(error.code, int):
        print(error.code, file=sys.stderr)
        return _FAILURE
    elif not error.code and command(words) is None:
        print("Code of the run called sys.exit() before the run had finished.", file=sys.stderr)
        return _FAILURE
    return int(error.code or 0)


def _say_how_to_resume(words: list[str], error: KeyboardInterrupt | SystemExit) -> None:
    from .commands import command
    from .record.signals import is_resumable

    if words[:1] == ["resume"]:
        again = words
    elif command(words) is not None:  # Predictions, videos and tables start over.
        return
    elif not is_resumable(error) and "resume=true" not in words:
        print("Interrupted; there is nothing to resume.", file=sys.stderr)
        return
    else:
        once = ("resume=", "override=")  # What was overridden is in the checkpoint now.
        again = [*(word for word in words if not word.startswith(once)), "resume=true"]
    print(f"Resume with: {shlex.join(['ml', *again])}", file=sys.stderr)
