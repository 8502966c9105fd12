"""What a search may choose: `lr=log(1e-5,1e-1)`, `model.dropout=interval(0,.5)`, `model.layers=int(1,8)`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...replay.errors import ConfigError
from ..settings.schema import ALIASES, schema
from ..settings.words import interval

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_DIGITS = 4  # Of a number that a search chooses: `lr=0.003162` can be read, and pasted.
_FORMS = "log(1e-5,1e-1), interval(0,0.5) or int(1,8)"
# What the same is called elsewhere (Optuna, Ray Tune, Hyperopt, W&B), without `_`.
_ELSEWHERE = {
    **dict.fromkeys(("loguniform", "qloguniform", "reverseloguniform", "loginterval"), "log"),
    **dict.fromkeys(("uniform", "quniform", "float", "real", "between"), "interval"),
    **dict.fromkeys(("randint", "randrange", "intuniform", "integer", "quniformint"), "int"),
    **dict.fromkeys(("lograndint", "logint", "intloguniform"), "int(log"),
}


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        key: The setting, as typed.
        log: Whether every order of magnitude is as likely as the others.
        whole: Whether only whole numbers are meant.
    """

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """A value as it is typed, to four digits, within the bounds."""
        if self.whole:
            return str(int(value))
        return repr(min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high))

    @property
    def ends(self) -> tuple[str, str]:
        """Both bounds as typed values."""
        return (
            (str(int(self.low)), str(int(self.high)))
            if self.whole
            else (f"{self.low!r}", f"{self.high!r}")
        )

    def __str__(self) -> str:
        name = "log" if self.log else "int" if self.whole else "interval"
        text = f"{name}({self.low:g},{self.high:g})"
        return f"{self.key}=int({text})" if self.log and self.whole else f"{self.key}={text}"


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        key: The setting, as typed.
        values: The values as typed.
    """

    key: str
    values: tuple[str, ...]

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def text(self, value: Any) -> str:
        """A value as it is typed."""
        return str(value)

    @property
    def ends(self) -> tuple[str, ...]:
        """All values."""
        return self.values

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


Space = Range | Choice


def is_range(word: str) -> bool:
    """Whether a word gives a setting a range, or tries to: `lr=log(1e-5,1e-1)`, `lr=loguniform(1,2)`."""
    _, _, value = word.partition("=")
    value = value.strip()
    names = (
        r"log|interval|int\s*\(\s*(log|interval|tag)|tag\s*\(.*interval|float\s*\(\s*(interval|tag)"
    )
    if re.match(rf"({names})\s*[(,]?", value) and value.endswith(")") and "(" in value:
        return True
    if re.fullmatch(r"int\s*\([^()]*,[^()]*\)", value):
        return True
    found = re.fullmatch(r"(?:tune\.|hp\.|np\.)?(\w+)\s*\(\s*[-+.\de]+\s*,[^()]*\)", value)
    return found is not None and _plain(found[1]) in _ELSEWHERE


def read_range(word: str) -> Range:
    """The range that a word gives, read by Hydra's grammar.

    Raises:
        ConfigError: If it cannot be read, its bounds are no bounds, or the setting accepts no such numbers.
    """
    key, _, value = (part.strip() for part in word.lstrip("+").partition("="))
    if (found := re.fullmatch(r"(?:\w+\.)?(\w+)\s*\((.*)\)", value)) and (
        near := _ELSEWHERE.get(_plain(found[1]))
    ):
        closing = ")" * (1 + near.count("("))
        raise ConfigError(f"`{word}`: write {key}={near}({found[2]}{closing}.")
    # Hydra's grammar has no `log`, and reads `int(1,8)` as the values 1 and 8.
    value = re.sub(r"\blog\s*\(([^()]*)\)", r"tag(log,interval(\1))", value)
    value = re.sub(r"^int\s*\(([^()]*,[^()]*)\)$", r"int(interval(\1))", value)
    if (read := interval(f"{key}={value}")) is None:
        raise ConfigError(f"Cannot read `{word}`. Write a range as {key}={_FORMS}.")
    low, high, tags = read
    if unknown := sorted(tags - {"log"}):
        raise ConfigError(f"`{word}`: there is no tag {unknown[0]}; the only one is log.")
    whole = isinstance(low, int) and isinstance(high, int)
    return _checked(Range(key, low, high, "log" in tags, whole), word)


def _checked(given: Range, word: str) -> Range:
    """The range, of whole numbers where its setting accepts no others.

    Raises:
        ConfigError: For bounds that are no bounds.
    """
    low, high = given.low, given.high
    setting = schema().get(ALIASES.get(given.key, given.key))
    if setting is not None and not setting.kind.startswith(("int", "float")):
        raise ConfigError(f"`{word}`: {given.key} is {setting.kind}, which has no ranges.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"`{word}`: the first bound must be below the second, and both finite.")
    if given.log and low <= 0:
        raise ConfigError(
            f"`{word}`: the lower bound of a log range must be above 0. Write interval(...) for one "
            "that holds 0."
        )
    whole = given.whole or (setting is not None and setting.kind.startswith("int"))
    if whole and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(
            f"`{word}`: {given.key} takes whole numbers, so its bounds must be whole, too."
        )
    return Range(given.key, low, high, given.log, whole)


def combinations(spaces: Iterable[Space]) -> float:
    """How many combinations there are; infinite with a range of numbers that are not whole."""
    count = 1.0
    for space in spaces:
        if isinstance(space, Choice):
            count *= len(space.values)
        else:
            count *= space.high - space.low + 1 if space.whole else math.inf
    return count


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
