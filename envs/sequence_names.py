"""Names the environments of a sequence in pictures, on the console, and in a run's directory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST = 120  # Characters of a directory's name; file systems allow 255 bytes.
_MOST = 4  # Environments named in one line.


def labels(names: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each task: its environment's id, with arguments where ids repeat, and a count if that is
    not enough.

    >>> labels(["Room", "Room", "Hall"], [{"size": 3, "task": 0}, {"size": 3, "task": 1}, {}])
    ['Room(task=0)', 'Room(task=1)', 'Hall']
    >>> labels(["Room", "Room"], [{}, {}])
    ['Room', 'Room (2)']
    """
    found = []
    for name, own in zip(names, arguments, strict=True):
        others = [other for other, n in zip(arguments, names, strict=True) if n == name]
        differ = [key for key in own if any(other.get(key) != own[key] for other in others)]
        words = ", ".join(f"{key}={_short(own[key])}" for key in differ)
        found.append(f"{name}({words})" if words else name)
    seen: Counter[str] = Counter()
    for i, label in enumerate(found):
        seen[label] += 1
        if seen[label] > 1:
            found[i] = f"{label} ({seen[label]})"
    return found


def directory_name(names: Sequence[str]) -> str:
    """All names joined; for many names, the first one and a hash of all."""
    whole = "-".join(names)
    if len(whole) <= _LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{names[0][:60]}-and-{len(names) - 1}-more-{digest}"


def in_a_line(labels: Sequence[str]) -> str:
    """The labels of a sequence in one line, shortened if there are many."""
    if len(labels) <= _MOST:
        return ", ".join(labels)
    return f"{', '.join(labels[:2])}, ..., {labels[-1]} ({len(labels)} tasks)"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:17]}..."
