"""Checks of the numbers that an agent is given."""

from __future__ import annotations

from typing import Any

from ...replay import ConfigError


def check(agent: str, *, counts: Any, amounts: Any, shares: Any, widths: Any) -> None:
    """Every wrong number of these, each a dict of arguments by name, in one error.

    Args:
        counts: Whole numbers from 1.
        amounts: Numbers from 0.
        shares: Numbers from 0 to 1.
        widths: Lists of whole numbers from 1.

    Raises:
        ConfigError: Naming what was given, and what would be right.
    """
    rules = (
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: Any) -> bool:
    return not isinstance(value, str | int | float) and all(_is_count(item) for item in value)
