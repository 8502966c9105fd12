"""SIGINT and SIGTERM: noted while a step runs, and acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked the run to stop.

    Not an `Exception`: user code that catches those must not keep a run alive.

    Args:
        signum: Number of the signal, which the message names.
        saved: Whether a checkpoint was written.
    """

    def __init__(self, signum: int, *, saved: bool):
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved = signum, saved


class Signals:
    """Notes the first SIGINT or SIGTERM, so that a run can stop where everything is consistent.

    Attributes:
        received: Number of the signal that came; None: none did.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Runs the block with our handlers installed, then restores the previous ones.

        Python allows handlers in the main thread only. In other threads, signals act as before.

        Raises:
            KeyboardInterrupt: At a second signal, wherever the block is.
        """
        # The type is that of typeshed's `signal.signal`.
        previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                previous[signum] = signal.signal(signum, self._receive)
        try:
            yield
        finally:
            for caught, handler in previous.items():
                # None: a C library installed it, and Python cannot reinstall it.
                signal.signal(caught, signal.SIG_DFL if handler is None else handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt  # A second request: do not wait for the step to end.
        self.received = signum
