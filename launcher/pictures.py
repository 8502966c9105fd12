"""Pictures that are drawn while a run goes on, or when it ends: none is worth the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Spared:
    """Calls a function that draws; what it raises is said, once, and not raised.

    Args:
        draw: Draws.
        what: The pictures, as the message calls them: `learning curves`.
        report: Shows a line to the person.
    """

    def __init__(self, draw: Callable[..., Any], what: str, report: Callable[[str], None]):
        self._draw, self._what, self._report = draw, what, report
        self._failed = False

    def __call__(self, *args: Any, **options: Any) -> None:
        try:
            self._draw(*args, **options)
        except Exception as error:  # Of a display, a disk, a model's own `sample`.
            if not self._failed:
                reason = " ".join(str(error).split())[:200]
                self._report(f"No {self._what}: {type(error).__name__}: {reason}")
            self._failed = True
