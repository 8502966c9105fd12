"""The frames of an error that are in the user's own code."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ...replay.shown import shown


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an error that are neither ours, nor a library's, nor Python's."""
    root = Path(__file__).resolve().parents[2]
    ours = tuple(f"{root / folder}{os.sep}" for folder in ("launcher", "replay", "envs", "agents"))
    python = f"{Path(os.__file__).parent}{os.sep}"
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith((*ours, python, "<frozen"))
        and Path(frame.filename) not in (root / "run.py", Path(sys.prefix) / "bin" / "ml")
    ]


def user_frame(error: BaseException) -> str:
    """` (model.py, line 7, in __init__)` for the innermost frame of the user's own code."""
    for frame in reversed(user_frames(error)):
        return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"
    return ""


def user_traceback(error: BaseException, *, whole: bool = False) -> str:
    """The error with the frames of the user's own code, or with all frames if `whole`."""
    if whole:
        return shown("".join(traceback.format_exception(error)))
    lines = traceback.format_list(user_frames(error)) + traceback.format_exception_only(error)
    return shown("".join(lines).rstrip())
