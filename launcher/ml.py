"""The two doors: `ml(...)` in Python, `ml ...` in a console. Both end in `train(settings)`."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..replay.errors import ConfigError, Diverged

if TYPE_CHECKING:
    from .run import Run

_INPUT, _FAILURE, _DIVERGED = 2, 1, 3


def ml(*overrides: str, **settings: Any) -> Run:
    """Train a model: `ml(model=Model, dataset="CIFAR10")`.

    Args:
        *overrides: Console words, such as `"lr=1e-3"`; they win over keywords.
        **settings: Any setting of `ml --help`; values may be Python objects (a class, an instance, a
            tensor, `{"_target_": AdamW, "lr": 1e-2}`).

    Returns:
        The finished run: `agent`, `spec`, `metrics`, `history`, `replay`, `path`.

    Raises:
        ConfigError, DataError, CheckpointError: Before training, for bad input.
        Diverged: If the loss becomes NaN or infinite.
        KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the run is saved.
    """
    from .config import compose

    composed = compose(overrides, settings)
    from .keeper import Interrupted
    from .process import left_as_found

    try:
        with left_as_found():
            from .train import train  # What is imported adds filters for warnings, too.

            return train(composed)
    except ConfigError as error:
        if composed.preset is not None and composed.preset not in str(error):
            error.args = (f"{error}\n(With the settings of {composed.preset}.)",)
        if composed.debug or _concerns_code_of_the_user(error):
            raise
        raise error.with_traceback(None) from None
    except Interrupted as error:
        print("Continue it with the same call and resume=true.", file=sys.stderr)
        if error.signum == 2:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.signum) from None


def main(argv: list[str] | None = None) -> None:
    """The console command. Exits 0 only for a finished run; see README.md for the other codes."""
    words = sys.argv[1:] if argv is None else argv
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(_main(words))


def _main(words: list[str]) -> int:
    from .commands import command

    try:
        if (run := command(words)) is not None:
            return run() or 0
        ml(*words)
        return 0
    except ConfigError as error:
        if _wants_debug(words):
            traceback.print_exc()
        print(error, file=sys.stderr)
        return _INPUT
    except Diverged as error:
        if _wants_debug(words):
            traceback.print_exc()
        print(error, file=sys.stderr)
        return _DIVERGED
    except KeyboardInterrupt:
        _say_how_to_resume(words)
        return 130
    except SystemExit as error:
        if error.code == 143:
            _say_how_to_resume(words)
        return error.code if isinstance(error.code, int) else _FAILURE
    except BrokenPipeError:  # `ml models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        print(_user_traceback(error, whole=_wants_debug(words)), file=sys.stderr)
        return _FAILURE


def _wants_debug(words: list[str]) -> bool:
    """What the words, or a preset that they name, say of `debug`; also of words that do not compose."""
    from .config import compose, is_true

    if given := [word.partition("=")[2] for word in words if word.lstrip("+").startswith("debug=")]:
        return is_true(given[-1])
    try:
        return bool(compose(words, {}).debug)
    except ConfigError:
        return False


def _concerns_code_of_the_user(error: BaseException | None) -> bool:
    """Whether the user's own code raised it, or what it was raised from."""
    from .construct import user_frames

    while error is not None:
        # Notes hold the frames of an environment in a process of its own.
        if user_frames(error) or getattr(error, "__notes__", None):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say_how_to_resume(words: list[str]) -> None:
    again = [word for word in words if not word.startswith("resume=")]
    print(f"Resume with: {shlex.join(['ml', *again, 'resume=true'])}", file=sys.stderr)


def _user_traceback(error: Exception, *, whole: bool) -> str:
    """The error with the frames of the user's own code; with all of them if `whole`."""
    if whole:
        return "".join(traceback.format_exception(error))
    from .construct import user_frames

    lines = traceback.format_list(user_frames(error)) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()
