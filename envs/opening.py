"""Opens environments one by one, and closes them all whatever goes wrong, each only once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import gymnasium
from gymnasium.vector import VectorWrapper

from ..replay import ConfigError


def open_copies(make: Any, num_envs: int, made: Iterable[Any] = ()) -> list[Any]:
    """`num_envs` open environments, of which some are `made` already; on an error none stays open."""
    envs = list(made)
    try:
        while len(envs) < num_envs:
            envs.append(make())
    except ConfigError as error:
        close(envs)
        if not envs:
            raise
        found = f"Only {len(envs)} of num_envs={num_envs} copies could be opened"
        raise ConfigError(f"{found}: {error}") from error
    except BaseException:  # KeyboardInterrupt too: a simulator may take a minute to open.
        close(envs)
        raise
    return envs


def close(envs: Iterable[Any]) -> None:
    """Close every environment; an error in one must not leave the others open, or end the run."""
    for env in envs:
        try:
            env.close()
        except Exception as error:
            name = type(getattr(env, "unwrapped", env)).__name__
            warnings.warn(
                f"{name}.close() raised {type(error).__name__}: {error}. The run is not affected.",
                stacklevel=2,
            )


class Given:
    """A factory for an environment that the user has opened: it can be used once at a time.

    Closing the environment is left to the user.
    """

    def __init__(self, env: Any):
        self.env, self._taken = env, False
        self.__name__ = type(env.unwrapped).__name__

    def __call__(self, **arguments: Any) -> Any:
        if arguments:
            raise ConfigError(
                f"env={self.__name__} is already constructed, so {', '.join(arguments)} cannot be set. "
                "Give a function that makes it."
            )
        if self._taken:
            raise ConfigError(
                f"env= is one instance of {self.__name__} and cannot be copied; for more, give a function "
                "that makes it"
            )
        self._taken = True
        if isinstance(self.env, gymnasium.vector.VectorEnv):
            return _LeftOpenVector(self)
        return _LeftOpen(self)

    def give_back(self) -> None:
        """Allow the environment to be taken again."""
        self._taken = False


class _LeftOpen(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, given: Given):
        super().__init__(given.env)
        self._given = given

    def close(self) -> None:
        """Whoever opened it closes it."""
        self._given.give_back()


class _LeftOpenVector(VectorWrapper):
    def __init__(self, given: Given):
        super().__init__(given.env)
        self._given = given

    def close(self, **_: Any) -> None:
        """Whoever opened it closes it."""
        self._given.give_back()
