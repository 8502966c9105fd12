"""Names close to a misspelled one, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str], *, count: int = 3) -> list[str]:
    """The names most like `word`, best first, whatever their case."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[name] for name in close]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """` Did you mean `x`?`, or nothing when no name is near."""
    close = nearest(word, names)
    return f" Did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else ""
