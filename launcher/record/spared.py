"""What is not the model's (a tracker, a picture, a file) never ends a run: it is said, and tried again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

_LONGEST = 200  # Characters of a reason: some libraries raise whole pages.


class Spared:
    """Calls a function that may fail for reasons outside the run; what it raises is reported, not raised.

    The first error is said, and so is the first success after it. A function that goes on failing now and
    then is said to do so at the 2nd, 4th, 8th, ... time, so that it never floods the console.

    Args:
        call: The function.
        what: How the message begins, such as `No picture of the model`.
        report: Shows a line to the user.
        but: Errors of the user's, which are raised.

    Attributes:
        in_a_row: Number of calls that have failed since the last one that succeeded.
        failed: Number of calls that have failed in all.
        reason: Why the newest of them failed, in a few words.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        what: str,
        report: Callable[[str], None],
        *,
        but: tuple[type[Exception], ...] = (),
    ):
        self._call, self._what, self._report, self._but = call, what, report, but
        self.in_a_row = self.failed = self._series = 0
        self.reason = ""

    def __call__(self, *args: Any, **options: Any) -> bool:
        """Call the function; returns whether it succeeded."""
        try:
            self._call(*args, **options)
        except self._but:
            raise
        except Exception as error:  # From a disk, a network, a display, or any library.
            self._note(error)
            return False
        if self.in_a_row and self._is_said():
            self._say(f"{self._what}: solved after {_times(self.in_a_row)}.")
        self.in_a_row = 0
        return True

    def _note(self, error: Exception) -> None:
        self.reason = reason(error)
        self._series += not self.in_a_row
        self.in_a_row += 1
        self.failed += 1
        if self.in_a_row == 1 and self._is_said():
            self._say(f"{self._what}: {self.reason}")

    def _is_said(self) -> bool:
        return self._series & (self._series - 1) == 0  # A power of two.

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # The console may be what has failed.
            self._report(text)


def reason(error: BaseException) -> str:
    """An error in a few words: what the system says, or its type and the beginning of its message."""
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)  # Without the random name of a partial file.
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_LONGEST].rstrip(": ")


def _times(count: int) -> str:
    return "1 failure" if count == 1 else f"{count} failures"
