"""Warnings that point at the line that called `ml`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from ...replay.shown import shown

_OURS = str(Path(__file__).parents[1])


def warn_caller(text: str) -> None:
    """Warn with the line that called `ml`, however deep our own stack is.

    Python's `skip_file_prefixes` would do this, but only from 3.12 on.
    """
    frame, level = sys._getframe(1), 2
    # `_main` is the console's own frame: above it there is no line of the user's to point at.
    while frame.f_code.co_filename.startswith(_OURS) and frame.f_code.co_name != "_main":
        if frame.f_back is None:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(shown(text), stacklevel=level)
