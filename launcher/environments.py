"""The environments that the settings name, with their wrappers. Imported where there are any."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..envs.env_world import EnvWorld, normalized_shapes
from ..envs.environments import EnvTask
from ..envs.infos import Layout, check_names
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
    env_info, layout = settings.env_info or (), Layout()
    check_names(env_info)
    for number, ((target, arguments), make) in enumerate(env_makers(settings)):
        tasks.append(
            EnvTask(
                make,
                name=getattr(target, "__name__", type(target).__name__),
                num_envs=settings.num_envs,
                vectorization=settings.vectorization,
                make_vector=_wrapped_vector(vector_form(target, arguments), _wrappers(settings)),
                stack=settings.frame_stack,
                channels=settings.channels,
                seed=settings.seed + number,
                video=settings.video,
                env_info=env_info,
                layout=layout,
            )
        )
    world = EnvWorld(tasks, seed=settings.seed)
    if settings.normalize_obs or settings.normalize_reward:
        world.normalizer = Normalizer(
            normalized_shapes(world.spec.obs),
            num_envs=world.num_envs,
            discount=settings.discount,
            obs=settings.normalize_obs,
            reward=settings.normalize_reward,
        )
    return world


def env_makers(settings: Settings) -> list[tuple[tuple[Any, dict[str, Any]], Callable[..., Any]]]:
    """For each environment that the settings name: what that is, with its arguments, and what makes a copy.

    Raises:
        ConfigError: If one cannot be made or copied.
    """
    makers = []
    for target, arguments in named_objects(settings, "env"):
        if not callable(target):
            raise ConfigError(
                f"env={name_of(target)} cannot be copied. Give a gymnasium id, a class, or a function "
                "that makes the environment."
            )
        # Constructed without a word of the spec: environments are where it comes from.
        make = functools.partial(_make_env, target, arguments)
        wrappers = _wrappers(settings)
        makers.append(((target, arguments), functools.partial(wrapped, make, **wrappers)))
    return makers


def _wrappers(settings: Settings) -> dict[str, Any]:
    return {
        "discrete": settings.discrete,
        "bins": settings.bins,
        "action_repeat": settings.action_repeat,
        "time_limit": settings.time_limit,
    }


def _wrapped_vector(
    form: Callable[[int], Any] | None, wrappers: dict[str, Any]
) -> Callable[[int], Any] | None:
    """A vector form that refuses what can only be put around single environments."""
    if form is None:
        return None
    return lambda n: wrapped(functools.partial(form, n), **wrappers)


def _make_env(target: Any, arguments: dict[str, Any], **more: Any) -> Any:
    return construct(target, {**arguments, **more}, {}, setting="env")
