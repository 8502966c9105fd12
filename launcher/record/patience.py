"""A limit on how long a call may hang that waits for a network."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_LOOK_AFTER_SECONDS, _LOOK_EVERY_SECONDS = 5.0, 1.0
_AFTER_SIGNAL_SECONDS = 10.0  # A cluster kills half a minute after SIGTERM.


@contextmanager
def at_most(seconds: float, *, interrupted: Callable[[], bool]) -> Iterator[None]:
    """Runs the block, and leaves it once it has taken too long.

    Only in the main thread of a process with SIGALRM, and only where nobody else uses the system's timer:
    elsewhere the block takes as long as it takes.

    Args:
        seconds: The limit.
        interrupted: Whether the run is asked to stop, so that the block gets ten seconds at most.

    Raises:
        TimeoutError: If the block was left.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "SIGALRM") or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    began, inside = time.monotonic(), True

    def look(signum: int, frame: FrameType | None) -> None:
        taken = time.monotonic() - began
        if not inside:
            return
        if taken > seconds or (taken > _AFTER_SIGNAL_SECONDS and interrupted()):
            raise _TooLong

    previous = signal.signal(signal.SIGALRM, look)
    # Not at once: some libraries do not expect that a signal interrupts what they wait for.
    first = min(seconds, _LOOK_AFTER_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, first, _LOOK_EVERY_SECONDS)
    try:
        try:
            yield
        finally:
            inside = False
    except _TooLong:
        raise TimeoutError(f"no answer for {time.monotonic() - began:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if previous is None else previous)


class _TooLong(BaseException):
    """Not an `Exception`: libraries catch those, and try again."""
