"""The environments that the settings name, with their wrappers. Imported where there are any."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from ...envs.env_world import EnvWorld
from ...envs.environments import EnvTask
from ...envs.evaluation import EVALUATED_AT_ONCE
from ...envs.info_layout import Layout
from ...envs.infos import check_names
from ...envs.opening import Given
from ...envs.wrappers import wrapped
from ...replay import ConfigError
from ..settings.construct import construct
from ..settings.environment_names import vector_form
from ..settings.object_names import name_of
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .wrapping import build_wrappers


def build_environments(plan: Plan) -> EnvWorld:
    """Environments, one per task, and what normalises their observations and rewards.

    Raises:
        ConfigError: If one cannot be made or copied, or its spaces are not known.
    """
    _check_evaluations(plan)
    tasks: list[EnvTask] = []
    env_info, layout = plan.env_info or (), Layout()
    check_names(env_info)
    try:
        wrappers = _wrappers(plan)
        makers = env_makers(plan, wrappers)
        for number, (named, make) in enumerate(makers):
            tasks.append(_task(plan, number, *named, make, wrappers, layout))
        arguments_of = [arguments for (_, arguments), _ in makers]
        world = EnvWorld(
            tasks,
            arguments=arguments_of,
            seed=plan.seed,
            normalize_obs=bool(plan.normalize_obs),
            normalize_reward=bool(plan.normalize_reward),
            discount=plan.discount,
        )
        for task in tasks:  # Once each has what it learns in, which matters more.
            task.open_for_evaluation(plan.eval_episodes)
        for task in tasks:
            _warn(task, plan)
    except BaseException:
        for task in tasks:
            task.close()
        raise
    return world


def env_makers(
    plan: Plan, wrappers: dict[str, Any] | None = None
) -> list[tuple[tuple[Any, dict[str, Any]], Callable[..., Any]]]:
    """For each environment that the settings name: what that is, with its arguments, and what makes a copy.

    Args:
        wrappers: What `wrapped` puts around each; None: what the settings say.

    Raises:
        ConfigError: If one cannot be made or copied.
    """
    makers: list[tuple[tuple[Any, dict[str, Any]], Callable[..., Any]]] = []
    wrappers = _wrappers(plan) if wrappers is None else wrappers
    for named in plan.env or ():
        target, arguments = named.target, named.arguments
        if isinstance(target, (gymnasium.Env, VectorEnv)):
            target = _given(plan, target)
        if not callable(target):
            raise ConfigError(
                f"env={name_of(target)} cannot be copied. Give a gymnasium id, a class, or a function "
                "that makes the environment."
            )
        # Constructed without a word of the spec: environments are where it comes from.
        make = functools.partial(_make_env, target, arguments)
        makers.append(((target, arguments), functools.partial(wrapped, make, **wrappers)))
    return makers


def _wrappers(plan: Plan) -> dict[str, Any]:
    return {
        "around": build_wrappers(plan),
        "discrete": plan.discrete,
        "bins": plan.bins,
        "action_repeat": plan.action_repeat,
        "time_limit": plan.time_limit,
    }


def _task(
    plan: Plan,
    number: int,
    target: Any,
    arguments: dict[str, Any],
    make: Callable[..., Any],
    wrappers: dict[str, Any],
    layout: Layout,
) -> EnvTask:
    return EnvTask(
        make,
        name=getattr(target, "__name__", type(target).__name__),
        num_envs=plan.num_envs,
        vectorization=plan.vectorization,
        make_vector=_wrapped_vector(vector_form(target, arguments), wrappers),
        stack=plan.frame_stack,
        channels=plan.channels,
        seed=plan.seed + number,
        video=plan.video,
        eval_limit=plan.eval_limit,
        env_info=plan.env_info or (),
        layout=layout,
    )


def _given(plan: Plan, env: Any) -> Given:
    """An environment that the user opened: the only copy there is.

    Raises:
        ConfigError: If more are needed.
    """
    several = plan.num_envs > 1 and isinstance(env, gymnasium.Env)
    if several or plan.vectorization != "sync":
        asked = f"num_envs={plan.num_envs}" if several else "vectorization=" + plan.vectorization
        name = type(env.unwrapped).__name__
        raise ConfigError(
            f"env= is an instance of {name}, which cannot be copied, and {asked} needs more. Give a "
            f"gymnasium id, a class, or a function that makes one: env=lambda: {name}(...)."
        )
    return Given(env)


def _check_evaluations(plan: Plan) -> None:
    """Refuse what needs evaluations where there are none.

    Raises:
        ConfigError: With all of it.
    """
    if plan.eval_episodes > 0:
        return
    stopping = plan.early_stopping
    scheduler = "" if plan.scheduler is None else plan.scheduler.name
    needs = {
        "early_stopping.patience": stopping.patience is not None,
        "early_stopping.restore": stopping.restore,
        "scheduler=ReduceLROnPlateau": scheduler.endswith("ReduceLROnPlateau"),
        "video": plan.video,
    }
    if mistakes := [key for key, asked in needs.items() if asked]:
        raise ConfigError(
            f"{' and '.join(mistakes)} cannot work with eval_episodes=0, which makes no evaluations. Set "
            "eval_episodes to 1 or more."
        )


def _warn(task: EnvTask, plan: Plan) -> None:
    """Warn before training where evaluation differs from what one would expect."""
    copies, lacking = task.evaluation.num_envs, task.evaluation.lacking
    if lacking is not None and copies == 0:
        warn_caller(
            f"No second {task.name} can be open beside the training one ({lacking}). Evaluation takes "
            "place in that one, and truncates its episode in progress. Set eval_episodes=0 to leave "
            "evaluation out."
        )
    elif lacking is not None:
        wanted = min(plan.eval_episodes, EVALUATED_AT_ONCE)
        warn_caller(
            f"Only {copies} of {wanted} evaluation copies of {task.name} can be open at once ({lacking}). "
            "Episodes are played in these, one after another."
        )
    apart = plan.vectorization == "async"
    if "obs" in task.normalizes and apart:
        warn_caller(
            f"NormalizeObservation in {task.name}: with vectorization=async each process has running "
            "statistics of its own, and evaluation starts from none. Use normalize_obs=true instead, "
            "which keeps one set of them."
        )
    if "rewards" in task.normalizes:
        own = " Each process has statistics of its own." if apart else ""
        warn_caller(
            f"NormalizeReward in {task.name}: training rows count `return` in its units, evaluations in "
            f"the environment's own.{own} normalize_reward=true normalises what is learnt from and "
            "leaves every `return` as it is."
        )


def _wrapped_vector(
    form: Callable[[int], Any] | None, wrappers: dict[str, Any]
) -> Callable[[int], Any] | None:
    """A vector form that refuses what can only be put around single environments."""
    if form is None:
        return None
    return lambda n: wrapped(functools.partial(form, n), **wrappers)


def _make_env(target: Any, arguments: dict[str, Any], **more: Any) -> Any:
    return construct(target, {**arguments, **more}, {}, setting="env")
