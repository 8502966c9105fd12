"""How errors of a run appear to the caller."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..replay.errors import ConfigError

if TYPE_CHECKING:
    from .settings.settings import Settings

T = TypeVar("T")


def plainly(settings: Settings, work: Callable[[], T], *, advise: bool = True) -> T:
    """Run `work`, then restore the process, including imports' side effects.

    Configuration errors are raised without our own frames, unless the user's code is involved or `debug` is
    set. An interrupted run raises what Python raises for the signal.

    Args:
        settings: Say which preset an error names, and whether to debug.
        work: Its result is returned.
        advise: Whether to say how to continue an interrupted run.

    Raises:
        ConfigError: Naming the preset, if there is one.
        KeyboardInterrupt, SystemExit: After a signal.
    """
    from .process import left_as_found
    from .record.output import write_error
    from .record.signals import Interrupted, SignalExit, mark_resumable
    from .settings.import_path import importing_nothing_from

    try:
        # Imports add warning filters.
        with left_as_found(), importing_nothing_from(settings.load):
            return work()
    except ConfigError as error:
        if settings.preset is not None and settings.preset not in str(error):
            error.args = (f"{error}\n(With the settings of {settings.preset}.)",)
        if settings.debug or _concerns_code_of_the_user(error):
            raise
        raise error.with_traceback(None) from None
    except Interrupted as error:
        if advise and error.resumable:
            write_error("Continue it with the same call and resume=true.")
        # A thread ends by SystemExit without a word, and by KeyboardInterrupt with a traceback.
        in_main = threading.current_thread() is threading.main_thread()
        by_user = error.signum == signal.SIGINT and in_main
        stopped = KeyboardInterrupt() if by_user else SignalExit(128 + error.signum)
        mark_resumable(stopped, error.resumable)
        raise stopped from None


def _concerns_code_of_the_user(error: BaseException | None) -> bool:
    """Whether the user's own code raised the error, or one of its causes."""
    from .settings.frames import user_frames

    while error is not None:
        # Notes hold the frames of an environment that runs in its own process.
        if user_frames(error) or getattr(error, "__notes__", None):
            return True
        error = error.__cause__ or error.__context__
    return False
