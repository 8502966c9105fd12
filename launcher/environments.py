"""The environments that the settings name, with their wrappers. Imported where there are any."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..envs.env_world import EnvWorld, normalized_shapes
from ..envs.environments import EnvTask
from ..envs.wrappers import wrapped
from ..replay import ConfigError, Normalizer
from .config import Settings, name_of
from .construct import construct, vector_form
from .naming import named_objects


def build_environments(settings: Settings) -> EnvWorld:
    """Environments, one per task, and what normalises their observations and rewards.

    Raises:
        ConfigError: If one cannot be made or copied, or its spaces are not known.
    """
    tasks: list[EnvTask] = []
    named = list(named_objects(settings, "env"))
    for number, (target, arguments) in enumerate(named):
        if not callable(target):
            raise ConfigError(
                f"env={name_of(target)} cannot be copied. Give a gymnasium id, a class, or a function "
                "that makes the environment."
            )
        # Constructed without a word of the spec: environments are where it comes from.
        make = functools.partial(_make_env, target, arguments)
        wrappers = {
            "discrete": settings.discrete,
            "bins": settings.bins,
            "action_repeat": settings.action_repeat,
            "time_limit": settings.time_limit,
        }
        tasks.append(
            EnvTask(
                functools.partial(wrapped, make, **wrappers),
                name=getattr(target, "__name__", type(target).__name__),
                num_envs=settings.num_envs,
                vectorization=settings.vectorization,
                make_vector=_wrapped_vector(vector_form(target, arguments), wrappers),
                stack=settings.frame_stack,
                channels=settings.channels,
                seed=settings.seed + number,
                video=settings.video,
            )
        )
    arguments_of = [arguments for _, arguments in named]
    world = EnvWorld(tasks, arguments=arguments_of, seed=settings.seed)
    if settings.normalize_obs or settings.normalize_reward:
        world.normalizer = Normalizer(
            normalized_shapes(world.spec.obs),
            num_envs=world.num_envs,
            discount=settings.discount,
            obs=settings.normalize_obs,
            reward=settings.normalize_reward,
        )
    return world


def _wrapped_vector(
    form: Callable[[int], Any] | None, wrappers: dict[str, Any]
) -> Callable[[int], Any] | None:
    """A vector form that refuses what can only be put around single environments."""
    if form is None:
        return None
    return lambda n: wrapped(functools.partial(form, n), **wrappers)


def _make_env(target: Any, arguments: dict[str, Any], **more: Any) -> Any:
    return construct(target, {**arguments, **more}, {}, setting="env")
