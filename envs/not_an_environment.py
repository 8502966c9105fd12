"""Refuses what is not an environment, with advice for those of other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np

from ..replay import ConfigError

_WANTED = (
    "Give a gymnasium id, a class that subclasses gymnasium.Env, or a function that makes such an "
    "environment."
)
_PETTINGZOO = (
    "It has several agents, and a run trains one. Make it a gymnasium.Env in which one of them acts and "
    "the others follow policies of your own; or, where all share one policy, a vector environment: "
    "supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(parallel_env), 1, "
    "base_class='gymnasium')."
)
_DM = (
    "pip install 'shimmy[dm-control]' and give a function that makes shimmy.DmControlCompatibilityV0(env), "
    "or, of dm_control's own, the id it registers: env=shimmy:dm_control/cheetah-run-v0, say."
)
_OLD_API = (
    "Give a function that wraps it: shimmy.GymV21CompatibilityV0(env=env) for gym before 0.26, "
    "shimmy.GymV26CompatibilityV0(env=env) for gym 0.26. Code of your own imports gymnasium as gym, and "
    "returns (obs, info) from reset(self, *, seed=None, options=None) and (obs, reward, terminated, "
    "truncated, info) from step."
)
# By the package that a class, or one of its bases, comes from: what that is, and what helps.
_ADVICE = {
    "pettingzoo": ("a PettingZoo environment", _PETTINGZOO),
    "gym": ("an environment of gym, which gymnasium replaced", _OLD_API),
    "dm_env": ("an environment of dm_env", _DM),
    "dm_control": ("an environment of dm_control", _DM),
    "stable_baselines3": (
        "Stable-Baselines3's vector environment",
        "Give the function that makes one environment, and num_envs=: env=make num_envs=8.",
    ),
    "torchrl": (
        "an environment of TorchRL",
        "Give what it wraps: the gymnasium id, or a function that makes the gymnasium.Env.",
    ),
}


def refuse_other(env: Any, *, made: bool = True) -> None:
    """Raise ConfigError for anything but a gymnasium environment, with what helps.

    Args:
        made: Whether `env=` returned it (True) or is it (False).
    """
    if isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        return
    kind, found = type(env).__name__, advice_for(env)
    if found is not None:
        what, advice = f"{found[0]}, not a gymnasium.Env", found[1]
    elif all(hasattr(env, part) for part in ("reset", "step", "action_space")):
        what = f"a {kind}, not a gymnasium.Env, though it looks like one"
        advice = f"Write `class {kind}(gymnasium.Env):`."
        if advice_for(env.action_space) is not None:
            advice = f"Its spaces are those of gym. {_OLD_API}"
    else:
        article = "an" if kind[0].lower() in "aeiou" else "a"
        what, advice = f"{article} {kind}, not a gymnasium.Env", _WANTED
    raise ConfigError(f"env {'returned' if made else 'is'} {what}. {advice}")


def advice_for(item: Any) -> tuple[str, str] | None:
    """What an object, class or module of another library is, and what helps; None: unknown."""
    if isinstance(item, ModuleType):
        libraries = [item.__name__]
    else:
        classes = (item if isinstance(item, type) else type(item)).__mro__
        libraries = [cls.__module__ for cls in classes]
    tops = [library.partition(".")[0] for library in libraries]
    return next((_ADVICE[top] for top in tops if top in _ADVICE), None)


def refuse_vector_rewards(env: gymnasium.Env[Any, Any]) -> None:
    """Raise ConfigError for an environment whose `reward_space` declares vectors.

    If a wrapper may have changed rewards, the first step decides.
    """
    layer: Any = env
    while True:
        space = vars(layer).get("reward_space", getattr(type(layer), "reward_space", None))
        if space is not None:
            break
        if not isinstance(layer, gymnasium.Wrapper) or _changes_rewards(layer):
            return
        layer = layer.env
    shape = getattr(space, "shape", None)
    if shape is not None and int(np.prod(shape)) != 1:
        name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
        raise ConfigError(
            f"{name} returns {int(np.prod(shape))} rewards per step (its reward_space is {space}). "
            f"{vector_advice()}"
        )


def vector_advice() -> str:
    """What helps if rewards are vectors."""
    return (
        "A run learns from one number: combine them. env_wrappers=[mo_gymnasium.wrappers.LinearReward] "
        "adds them up; with weights, make the environment in a function: "
        "LinearReward(gymnasium.make(...), weight=numpy.array([0.7, 0.3]))."
    )


def reward_fault(reward: Any) -> str:
    """What is wrong with a reward that is not one number; without a full stop, like every fault."""
    given = f"returned the reward {reward!r}"
    if isinstance(reward, Mapping):
        return f"{given}, a dict. {_PETTINGZOO}".removesuffix(".")
    if (size := np.size(reward)) > 1:
        return f"{given}, which is {size} numbers. {vector_advice()}".removesuffix(".")
    return given


def reset_fault(given: Any) -> str | None:
    """What is wrong with the result of `reset`; None: it is `(obs, info)`."""
    if isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[1], Mapping):
        return None
    return (
        f"returned {_shown(given)} from reset, not (obs, info), where info is a dict{_api(given)}"
    )


def step_fault(given: Any) -> str:
    """What is wrong with the result of `step`, which does not have five values."""
    return (
        f"returned {_shown(given)} from step, not (obs, reward, terminated, truncated, info)"
        f"{_api(given)}"
    )


def _api(given: Any) -> str:
    """What helps if a result has another library's form; empty if none is recognised."""
    if type(given).__name__ == "TimeStep":
        return f". It is an environment of dm_env. {_DM}".removesuffix(".")
    if isinstance(given, tuple) and len(given) > 1 and isinstance(given[0], Mapping):
        return f". Is that one dict per agent? {_PETTINGZOO}".removesuffix(".")
    if isinstance(given, tuple) and len(given) not in (1, 4):
        return ""
    return f". gym before 0.26 did the same. {_OLD_API}".removesuffix(".")


def _changes_rewards(layer: gymnasium.Wrapper[Any, Any, Any, Any]) -> bool:
    """Whether a wrapper may change rewards."""
    if isinstance(layer, gymnasium.RewardWrapper):
        return True
    # gymnasium's other wrappers leave rewards alone; whatever else overrides `step` may not.
    owner = next(cls for cls in type(layer).__mro__ if "step" in vars(cls))
    return not owner.__module__.startswith("gymnasium.")


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)) and type(value).__name__ != "TimeStep":
        return f"{len(value)} values"
    shape = getattr(value, "shape", None)
    of = f" of shape {list(shape)}" if isinstance(shape, tuple) and shape else ""
    article = "an" if type(value).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}{of}"
