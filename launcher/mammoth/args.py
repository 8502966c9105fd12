"""Options that many of Mammoth's models declare, and their argument types."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

_TRUE = ("true", "1", "t", "y", "yes")
_FALSE = ("false", "0", "f", "n", "no")


def add_rehearsal_args(parser: ArgumentParser) -> None:
    """Declare `buffer_size` and `minibatch_size`, which defaults to the batch size."""
    parser.add_argument("--buffer_size", type=int, required=True, help="rows of the memory")
    parser.add_argument("--minibatch_size", type=int, help="rows of a batch from the memory")


def binary_to_boolean_type(value: Any) -> bool:
    """Convert a word to bool: `1`, `true`, `t`, `yes` and `y` are True, in any case.

    Raises:
        ArgumentTypeError: If it is neither true nor false.
    """
    word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ArgumentTypeError(f"{value!r} must be one of {', '.join((*_TRUE, *_FALSE))}")
    return word in _TRUE


def none_or_float(value: Any) -> float | None:
    """A number, or None for the word `None`."""
    return None if value in (None, "None") else float(value)


def custom_str_underscore(value: Any) -> str:
    """A name with `-` in place of `_`."""
    return str(value).replace("_", "-").strip()
