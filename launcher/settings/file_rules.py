"""What a file may not set: whether it is trusted, and folders outside of the working directory."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

from .settings import Settings

_OURS = str(Path(__file__).parents[1])
# Settings that say where a run writes.
_WRITTEN = ("path", "experiment", "replay.folder")


def check_files(settings: Settings, mistakes: list[str]) -> None:
    """Add a message for each setting that whoever gave it may not give; `trust` is then false."""
    before = len(mistakes)
    if settings.from_file("trust") and settings.values["trust"]:
        mistakes.append(
            f"{settings.place('trust')}trust=true: no file can say that it is trusted. Add trust=true to "
            "the words, if you trust everything that the file names."
        )
    if settings.from_text("trust") and settings.values["trust"] and not _written_by_callers():
        mistakes.append(
            "trust=True is not written in the code that calls this, so it may come from a file: "
            "ml(**settings). Write it as a word: ml('trust=true', **settings)."
        )
    if len(mistakes) > before:  # What is wrong otherwise is still asked of names.
        settings.values["trust"] = False
    for key in _WRITTEN:
        if settings.trusts or not settings.from_file(key):
            continue
        group, _, rest = key.partition(".")
        value = settings.values[group][rest] if rest else settings.values[group]
        path = PurePath(value) if isinstance(value, str) else PurePath()
        if path.is_absolute() or ".." in path.parts or str(path).startswith("~"):
            mistakes.append(
                f"{settings.place(key)}{key}={value} lies outside of the working directory, and a file "
                f"cannot say to write there. Name it yourself, as a word: {key}={value}."
            )


def _written_by_callers() -> bool:
    """Whether `trust=True` or `"trust": True` is written in a function, or a script, that is running.

    Python passes `ml(trust=True)` and `ml(**{"trust": True})` alike; only the callers' text tells them apart.
    """
    frame = sys._getframe(1)
    while (above := frame.f_back) is not None:
        frame = above
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            continue
        if text := "".join(linecache.getlines(code.co_filename, frame.f_globals)):
            lines = {line for _, _, line in code.co_lines() if line is not None}
            if not lines.isdisjoint(_lines_that_trust(text)):
                return True
        # Of `python -c`, whose keywords are a tuple of names.
        elif any("trust" in (c if isinstance(c, tuple) else (c,)) for c in code.co_consts):
            return True
    return False


def _lines_that_trust(text: str) -> Iterator[int]:
    """The lines of a file of Python on which a keyword or a key `trust` is set to true."""
    try:
        nodes = ast.walk(ast.parse(text)) if "trust" in text else ()
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        said: list[tuple[object, ast.expr]] = []
        match node:
            # A folder that is trusted says nothing about settings: `antelope.load(RUN, trust=True)`.
            case ast.Call(func=ast.Name(id="load") | ast.Attribute(attr="load")):
                continue
            case ast.Call():
                said = [(keyword.arg, keyword.value) for keyword in node.keywords]
            case ast.Dict():
                said = [(_constant(k), v) for k, v in zip(node.keys, node.values, strict=True)]
            case ast.Assign(targets=[ast.Subscript(slice=key)]):
                said = [(_constant(key), node.value)]
        yield from (v.lineno for key, v in said if key == "trust" and _constant(v) is True)


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None
