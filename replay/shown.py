"""Text that may be printed: what others wrote, without control characters and without secrets."""

from __future__ import annotations

import re

_SHORTEST = 6  # Characters; shorter texts are part of unrelated words.
# Control characters but for tab and line feed; lone surrogates, which stand for any byte; and what changes
# the direction in which a line is read.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_HIDDEN: dict[str, str] = {}


def shown(text: str, *, line: bool = False) -> str:
    r"""Text with control characters written out and known secrets hidden, for terminals and messages.

    A class folder, a setting in somebody's file or a package's error may hold sequences that would
    otherwise reach the terminal, and rename its window, clear it, or type into it.

    Args:
        line: Whether it belongs on one line, so that line feeds are written out too.

    >>> shown("\x1b]0;mine\x07 cat")
    '\\x1b]0;mine\\x07 cat'
    """
    for secret, instead in _HIDDEN.items():
        text = text.replace(secret, instead)
    text = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if line else text


def holds_secret(text: str) -> bool:
    """Whether a text holds one of this process's known secrets."""
    return any(secret in text for secret in _HIDDEN)


def hide(secret: str, instead: str) -> None:
    """Let `shown` write something else where a secret of this process appears.

    Args:
        secret: Texts of fewer than six characters are not hidden: they are part of unrelated words.
        instead: Where it comes from: `${oc.env:TOKEN}`.
    """
    if len(secret) >= _SHORTEST:
        _HIDDEN[secret] = instead
