"""Checks of agents' numeric arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeGuard

from ...replay import ConfigError

Values = Mapping[str, object]  # Arguments by name.


def check(agent: str, *, counts: Values, amounts: Values, shares: Values, widths: Values) -> None:
    """Report all invalid arguments of an agent in one error.

    Args:
        agent: The agent's name, for the error.
        counts: Arguments that must be ints from 1.
        amounts: Arguments that must be numbers from 0.
        shares: Arguments that must be numbers in [0, 1].
        widths: Arguments that must be lists of ints from 1.

    Raises:
        ConfigError: Naming each invalid argument, its value and what it must be.
    """
    rules: tuple[tuple[Values, Callable[[object], bool], str], ...] = (
        (counts, _is_count, "a whole number from 1"),
        (amounts, lambda value: _is_number(value) and value >= 0, "a number from 0"),
        (shares, lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
        (widths, _are_counts, "a list of whole numbers from 1, as in [64,64]"),
    )
    wrong = [
        f"{name}={value!r} must be {rule}"
        for arguments, is_right, rule in rules
        for name, value in arguments.items()
        if not is_right(value)
    ]
    if wrong:
        raise ConfigError(f"Invalid arguments for {agent}: {'; '.join(wrong)}.")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and all(map(_is_count, value))
