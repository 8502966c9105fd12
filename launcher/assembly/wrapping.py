"""`env_wrappers=`: turns names, classes and functions into wrappers around every copy of an environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from ...replay import ConfigError
from ..settings.construct import construct, unknown_arguments
from ..settings.names import resolve
from ..settings.object_names import class_name, name_of
from ..settings.plan import Plan

_KEY = "env_wrappers"
# Gymnasium wrappers that cannot serve their purpose here, each with the reason.
_REFUSED = {
    "RecordVideo": "every copy would write to the same files. video=true records the first episode of "
    "each evaluation",
    "NumpyToTorch": "an environment must return NumPy arrays; batches hold tensors anyway. "
    "Leave it out",
    "JaxToTorch": "an environment must return NumPy arrays; batches hold tensors anyway. "
    "JaxToNumpy does that",
    "RenderCollection": "render() then returns lists, which a run does not use. video=true records the "
    "first episode of each evaluation",
}


@dataclass(frozen=True)
class Wrap:
    """Puts one wrapper around an environment.

    Attributes:
        target: A wrapper class, or a function that takes an environment and returns one.
        arguments: Keyword arguments of `target`, beside the environment.
        name: Its name in errors, and the prefix of its arguments on the command line.
    """

    target: Callable[..., Any]
    arguments: dict[str, Any]
    name: str

    def __call__(self, env: Any) -> Any:
        """The environment with the wrapper around it.

        Args:
            env: A `gymnasium.Env`, or a `VectorEnv` for a wrapper of vector environments.

        Raises:
            ConfigError: If the wrapper does not fit, or does not return an environment.
        """
        several = isinstance(env, VectorEnv)
        of_several = inspect.isclass(self.target) and issubclass(self.target, VectorWrapper)
        if of_several and not several:
            single = class_name(self.target)
            instead = (
                f" Use gymnasium.wrappers.{single}." if hasattr(gymnasium.wrappers, single) else ""
            )
            raise ConfigError(
                f"{_KEY}={self.name} wraps vector environments, but {_KEY} goes around each single "
                f"environment.{instead}"
            )
        if several and not of_several:
            raise ConfigError(
                f"{_KEY}={self.name} wraps single environments, but this is a vector environment. Put it "
                "around each environment inside; with a gymnasium id, use vectorization=sync or async."
            )
        made = construct(
            self.target, self.arguments, {}, setting=f"{_KEY}.{self.name}", positional=(env,)
        )
        if not isinstance(made, VectorEnv if several else gymnasium.Env):
            given = (
                "None: does it end with `return env`?"
                if made is None
                else f"a {type(made).__name__}."
            )
            raise ConfigError(
                f"{_KEY}={self.name} must return a gymnasium.Env, but returned {given}"
            )
        return made


def build_wrappers(plan: Plan) -> tuple[Wrap, ...]:
    """The wrappers that `env_wrappers` names, the innermost first.

    Raises:
        ConfigError: Listing all mistakes.
    """
    mistakes: list[str] = []
    found: list[Wrap] = []
    for named in plan.env_wrappers or ():
        target, arguments, name = named.target, named.arguments, named.short_name
        if (problem := _problem(target, name)) is not None:
            mistakes.append(problem)
            continue
        # The first parameter is the environment, which no user passes.
        mistakes += unknown_arguments(target, arguments, setting=f"{_KEY}.{name}", skip=1)
        try:
            fitted = _fitted(target, arguments)
        except ConfigError as error:
            mistakes.append(f"{_KEY}.{name}: {error}")
            continue
        found.append(Wrap(target, fitted, name))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return tuple(found)


def _problem(target: object, name: str) -> str | None:
    """Why something cannot wrap an environment, as far as its type tells; None if it may."""
    if name in _REFUSED and name_of(target).startswith("gymnasium."):
        return f"{_KEY}={name}: {_REFUSED[name]}."
    if isinstance(target, gymnasium.Env):
        return (
            f"{_KEY} lists a {type(target).__name__} that already wraps an environment. Give its "
            f'class, with its arguments: {{"_target_": {type(target).__name__}, ...}}.'
        )
    if inspect.isclass(target):
        if issubclass(target, (gymnasium.Wrapper, VectorWrapper)):
            return None
        if issubclass(target, gymnasium.Env):
            return f"{_KEY}={name} is an environment, not a wrapper. env={name} learns in it."
        return f"{_KEY}={name} is a class, but not a gymnasium.Wrapper."
    if not callable(target):
        return (
            f"{_KEY} lists {target!r:.60}. Give names, classes, or functions that take an environment "
            "and return one."
        )
    return None


def _fitted(target: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Plain values converted to what the constructor's annotations ask for.

    YAML and the command line have no tuples, arrays or functions.

    Raises:
        ConfigError: If a value names a function that does not exist.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # Without a signature there is nothing to convert by.
        return arguments
    found = {}
    for key, value in arguments.items():
        kind = str(parameters[key].annotation) if key in parameters else ""
        if isinstance(value, list) and "ndarray" in kind:
            value = np.array(value)
            value = value.astype(np.float32) if value.dtype.kind in "fi" else value
        elif isinstance(value, float) and "floating" in kind:
            value = np.float32(value)  # Gymnasium warns of any other precision.
        elif isinstance(value, list) and "tuple" in kind.lower():
            value = tuple(value)
        elif isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, str) and ("Callable" in kind or key == "func"):
            value = _function(value)
        found[key] = value
    return found


def _function(name: str) -> Any:
    """The function with this name.

    Raises:
        ConfigError: If there is none.
    """
    try:
        value = resolve(name, _KEY)
    except ConfigError:
        raise ConfigError(
            f"there is no function `{name}`. Write file.py:name for one in the working directory, or a "
            "dotted path such as numpy.sign."
        ) from None
    if not callable(value):
        raise ConfigError(f"`{name}` is a {type(value).__name__}, not a function.")
    return value
