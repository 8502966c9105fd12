"""SIGINT, SIGTERM and SIGHUP: noted while a run learns, and acted on where everything is consistent."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := vars(signal).get(name))
)
# How long Python's exit waits for a run in a thread to finish its step and save, in seconds.
_PATIENCE_S = 60.0
# And for what its thread then says: the error, or how to resume. A thread may also go on with other things.
_LAST_WORDS_S = 5.0


class Interrupted(BaseException):
    """A signal asked the run to stop.

    Not an `Exception`: user code that catches those must not keep a run alive.

    Args:
        signum: Number of the signal, which the message names.
        saved: Whether everything that was learnt is in a checkpoint.
        resumable: Whether there is a checkpoint to resume from.
    """

    def __init__(self, signum: int, *, saved: bool, resumable: bool = False):
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved, self.resumable = signum, saved, resumable or saved


class Left(BaseException):
    """A signal came during an evaluation, which is left; what it has computed so far is discarded."""


class SignalExit(SystemExit):
    """What SIGTERM and SIGHUP end in; other code calls `sys.exit` too."""


def mark_resumable(error: BaseException, resumable: bool) -> None:
    """Note whether there is a checkpoint to resume from.

    Args:
        error: What is raised for a signal. It keeps its type: only for KeyboardInterrupt itself, and for no
            class derived from it, Python ends with the exit code of a SIGINT.
    """
    vars(error)["resumable"] = resumable


def is_resumable(error: BaseException) -> bool:
    """Whether there is a checkpoint to resume from."""
    return bool(vars(error).get("resumable"))


class Signals:
    """Notes the first signal, so that a run can stop where everything is consistent.

    While a run is built, nothing is learnt yet, and the first signal raises `Interrupted` at once. From
    `note_only` on it is only noted: SIGTERM and SIGHUP however often, SIGINT once.

    Attributes:
        received: Number of the first signal that came; None: none did.
        shared: Whether to act on a signal only where all ranks of a run have agreed to (`agree`).
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._interrupts = 0  # How often SIGINT came.
        self._at_once = self._acted = False
        self._depth = 0
        self._in_thread = False
        self.shared = False
        self._agreed: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Runs the block with our handlers installed, then restores the previous ones.

        Signals that the process ignores stay ignored, as `nohup` wants it. Python allows handlers in the main
        thread only. A run in another thread is stopped when the main thread ends by a KeyboardInterrupt, or
        when the program ends without waiting for it. A signal that came too late to be acted on is sent
        again at the end, to the previous handler.

        Raises:
            Interrupted: At the first signal, unless signals are only noted.
            KeyboardInterrupt: At the second SIGINT, wherever the block is.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        # The type is that of typeshed's `signal.signal`.
        previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        # A signal of an earlier block was acted on, or handed on.
        self.received, self._interrupts = None, 0
        self._at_once, self._acted, self._depth = True, False, 1
        self._in_thread = threading.current_thread() is not threading.main_thread()
        if self._in_thread:
            _IN_THREADS[self] = threading.get_ident()
        else:
            for signum in CAUGHT:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    previous[signum] = signal.signal(signum, self._receive)
        try:
            yield
        finally:
            self._depth = 0
            _IN_THREADS.pop(self, None)
            for caught, handler in previous.items():
                # None: a C library installed it, and Python cannot reinstall it.
                signal.signal(caught, signal.SIG_DFL if handler is None else handler)
            if self._acted:
                for handler in previous.values():
                    if isinstance(handler, Leaving):
                        handler.begin(128 + (self.received or signal.SIGINT))
        if self.received is not None and not self._acted and previous:
            signal.raise_signal(self.received)

    def note_only(self) -> None:
        """From now on, until `caught` ends, only note signals: there is something to save."""
        self._at_once = False

    def agree(self, signum: int) -> None:
        """Act on a signal that any rank has received; 0: there is none."""
        self._agreed = self.received = signum or self.received
        if not signum:
            self._agreed = None

    def arrived(self) -> int | None:
        """The signal to act on now; None: there is none."""
        return self._agreed if self.shared else self.noted()

    def noted(self) -> int | None:
        """The signal that this process has received; None: it has received none."""
        if self._in_thread and self.received is None and _main_thread_was_interrupted():
            self.received = signal.SIGINT
        return self.received

    def poll(self) -> None:
        """Call between the batches of an evaluation, which can be left at any of them.

        Raises:
            Left: If a signal came.
        """
        if self._depth and self.arrived() is not None:
            raise Left

    def interrupted(self, *, saved: bool, resumable: bool) -> Interrupted:
        """The exception with which the run acts on the signal."""
        assert self.received is not None
        self._acted = True
        return Interrupted(self.received, saved=saved, resumable=resumable)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._acted = True
                raise KeyboardInterrupt  # Do not wait for the step to end.
        if self.received is None:
            self.received = signum
            if self._at_once:
                raise self.interrupted(saved=False, resumable=False)


class Leaving:
    """Signal handler of a console command, which ends it at the first signal."""

    def __init__(self) -> None:
        self._code: int | None = None  # With which the command is ending.
        self._interrupts = 0  # How often SIGINT came.

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._interrupts += signum == signal.SIGINT
        if self._code is not None:
            if self._interrupts > 1:  # While Python waits for a thread, for example.
                os._exit(self._code)
            return
        self.begin(128 + signum)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SignalExit(128 + signum)

    def install(self) -> None:
        """Handle every signal that the process does not ignore."""
        for signum in CAUGHT:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self)

    def begin(self, code: int) -> None:
        """Ignore SIGTERM and SIGHUP from now on: the command is ending with this exit code."""
        self._code = code
        if code == 128 + signal.SIGINT:
            self._interrupts = max(1, self._interrupts)
        for signum in CAUGHT:
            # Python's own end restores what handlers there are, but leaves what is ignored.
            if signum != signal.SIGINT:
                signal.signal(signum, signal.SIG_IGN)


def _main_thread_was_interrupted() -> bool:
    """Whether the main thread has ended by a KeyboardInterrupt, and Python waits for the other threads."""
    last = vars(sys).get("last_value")  # The exception that ended it.
    return not threading.main_thread().is_alive() and isinstance(last, KeyboardInterrupt)


# Runs in threads, and the identifiers of those.
_IN_THREADS: dict[Signals, int] = {}


@atexit.register
def _end_threads() -> None:
    """Stop the runs in threads for which Python does not wait: it would freeze them wherever they are."""
    running = dict(_IN_THREADS)
    for signals in running:
        if signals.arrived() is None:
            signals.received = signal.SIGTERM
    _wait_until(lambda: running.keys().isdisjoint(_IN_THREADS), _PATIENCE_S)
    # Until CPython 3.13, a `join` that Ctrl-C interrupts takes the thread for ended: it would not wait.
    _wait_until(lambda: not set(running.values()) & sys._current_frames().keys(), _LAST_WORDS_S)
    if isinstance(signal.getsignal(signal.SIGINT), Leaving):
        # Python restores the default handler next, which would replace the command's exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wait_until(over: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not over() and time.monotonic() < end:
        time.sleep(0.01)
