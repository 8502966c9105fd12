"""Console words that say no more than a name or a number, read without Hydra.

Importing Hydra's grammar costs 60 ms of CPU, and most words do not need it: `lr=1e-3`, `dataset=CIFAR10`.
Whatever is read here means the same to Hydra (a property test compares them); the rest is left to it.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(\S+)", re.ASCII)
_INT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(
    r"[+-]?(?:(?:0|[1-9][0-9]*)\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]+)?[eE][+-]?[0-9]+)", re.ASCII
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[./:-][A-Za-z0-9_]+)*", re.ASCII)
_CONSTANTS = {"true": True, "false": False, "null": None}
_NUMBERS = ("inf", "nan")  # Hydra reads them as numbers, although they look like names.


def plain_word(word: str) -> tuple[str, str | float | bool | None] | None:
    """The key and the value of a plain word; None for any other, which needs Hydra's grammar.

    >>> plain_word("lr=1e-3"), plain_word("env=CartPole-v1"), plain_word("seed=1,2")
    (('lr', 0.001), ('env', 'CartPole-v1'), None)
    """
    if (parts := _WORD.fullmatch(word)) is None:
        return None
    key, text = parts.groups()
    if text.lower() in _CONSTANTS:
        return key, _CONSTANTS[text.lower()]
    if _INT.fullmatch(text):
        return key, int(text)
    if _FLOAT.fullmatch(text):
        return key, float(text)
    if _NAME.fullmatch(text) and text.lower() not in _NUMBERS:
        return key, text
    return None
