"""Standard output and errors, whose reader may go away: `ml ... | head`, a terminal that was closed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

# The other end of the pipe is closed; the terminal is gone. Neither ever comes back.
_GONE = (errno.EPIPE, errno.EIO)


class Unbroken(io.FileIO):
    """A file descriptor whose errors do not reach those who write to it. What cannot be written is lost.

    Args:
        descriptor: Stays open when this object is closed.
        report: Called once with the first error.
    """

    def __init__(self, descriptor: int, report: Callable[[OSError], None]):
        super().__init__(descriptor, "w", closefd=False)
        self._report: Callable[[OSError], None] | None = report

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno in _GONE:
                _redirect(self.fileno())
            if self._report is not None:
                report, self._report = self._report, None
                report(error)
            return len(memoryview(data))  # type: ignore[arg-type]


def unbroken_streams() -> None:
    """Make prints of this process harmless, where standard output and errors are the process's own."""
    out, err = sys.stdout, sys.stderr
    with contextlib.suppress(OSError):  # A descriptor that is closed.
        if out is sys.__stdout__ and isinstance(out, io.TextIOWrapper):
            sys.stdout = _unbroken(out, report_lost)
        if err is sys.__stderr__ and isinstance(err, io.TextIOWrapper):
            sys.stderr = _unbroken(err, lambda _: None)


def to_nowhere(stream: TextIO, error: OSError) -> None:
    """Redirect a stream to the null device if its reader is gone.

    Args:
        error: What writing to it raised.
    """
    if error.errno in _GONE:
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # Not every stream is a file.
            _redirect(stream.fileno())


def _redirect(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def write_error(text: str, stream: TextIO | None = None) -> None:
    """Write a line to standard error; if that fails, there is nobody to tell.

    Args:
        stream: Another stream to write it to.
    """
    stream = sys.stderr if stream is None else stream
    if _silent:
        return
    try:
        print(text, file=stream)
    except OSError as error:
        to_nowhere(stream, error)


@contextlib.contextmanager
def silent(wanted: bool) -> Iterator[None]:
    """Runs the block without our words on standard error: on a rank for which another one speaks."""
    global _silent
    before, _silent = _silent, wanted or _silent
    try:
        yield
    finally:
        _silent = before


_silent = False


def report_lost(error: OSError) -> None:
    """Say on standard error that standard output cannot be written.

    Args:
        error: What writing to it raised.
    """
    stream = sys.stderr
    proxies = sys.modules.get("rich.file_proxy")
    if proxies is not None and isinstance(stream, proxies.FileProxy):
        # While a live line is shown, rich prints to standard output.
        stream = stream.rich_proxied_file
    reason = error.strerror or error
    write_error(f"The output cannot be written any more ({reason}). The run continues.", stream)


def _unbroken(stream: io.TextIOWrapper, report: Callable[[OSError], None]) -> TextIO:
    stream.flush()
    raw = Unbroken(stream.fileno(), report)
    raw.name = stream.name
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        # With PYTHONUNBUFFERED, there is no buffer below; here there is one.
        line_buffering=stream.line_buffering or stream.write_through,
        write_through=stream.write_through,
    )
