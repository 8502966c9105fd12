"""The environments that the plan names, with their wrappers. Imported only by runs that have any."""

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
from ...replay.ranks import ranks, seed_of
from ..settings.construct import construct
from ..settings.environment_names import vector_form
from ..settings.object_names import class_name, name_of
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .wrapping import build_wrappers


def build_environments(plan: Plan) -> EnvWorld:
    """The environments, one per task, with the running statistics that normalise them.

    Raises:
        ConfigError: If one cannot be constructed or copied, or does not state its spaces.
    """
    _check_evaluations(plan)
    if plan.offline is None:
        ranks().own_data()
    tasks: list[EnvTask] = []
    env_info, layout = plan.env_info or (), Layout()
    check_names(env_info)  # First: opening environments may take long.
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
        # Last: if only so many can be open at once, training needs them more than evaluation.
        for task in tasks if ranks().rank == 0 else ():  # Which is the rank that evaluates.
            task.open_for_evaluation(plan.eval_episodes)
        for task in tasks:
            _warn(task, plan)
    except BaseException:
        # A robot, a port or a licence would stay taken, also after a KeyboardInterrupt.
        for task in tasks:
            task.close()
        raise
    return world


def env_makers(
    plan: Plan, wrappers: dict[str, Any] | None = None
) -> list[tuple[tuple[Any, dict[str, Any]], Callable[..., Any]]]:
    """For each environment of the plan: its target and arguments, and a function that makes a copy.

    Args:
        wrappers: Keyword arguments for `wrapped`; None: those of the plan.

    Raises:
        ConfigError: If one cannot be copied.
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
        # Nothing is inferred for its constructor: the spec comes from the environment.
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
    task = EnvTask(
        make,
        name=class_name(target),
        num_envs=plan.num_envs,
        vectorization=plan.vectorization,
        make_vector=_wrapped_vector(vector_form(target, arguments), wrappers),
        stack=plan.frame_stack,
        channels=plan.channels,
        # Tasks of the same environment must not repeat its episodes, nor must other devices.
        seed=seed_of(plan.seed + number, ranks().rank),
        video=plan.video,
        eval_limit=plan.eval_limit,
        env_info=plan.env_info or (),
        layout=layout,
        timeout=plan.env_timeout,
        retries=plan.env_retry,
    )
    if ranks().own and (why := _not_on_ranks(task)):
        task.close()
        raise ConfigError(why)
    return task


def _not_on_ranks(task: EnvTask) -> str | None:
    """Why an environment cannot be learnt in on several devices; None if it can."""
    if task.resets_apart:
        return (
            f"{task.name} resets its copies in a step of their own (AutoresetMode.NEXT_STEP), so that "
            "several devices would count different steps. Give the id of the single environment with "
            "num_envs=, or make the vector environment with AutoresetMode.SAME_STEP."
        )
    for what, wrapper, setting in (
        ("obs", "NormalizeObservation", "normalize_obs"),
        ("rewards", "NormalizeReward", "normalize_reward"),
    ):
        if what in task.normalizes:
            return (
                f"{wrapper} in {task.name} keeps running statistics, which several devices would not share. "
                f"Leave it out and set {setting}=true, whose statistics they do share."
            )
    return None


def _given(plan: Plan, env: Any) -> Given:
    """An environment that the user has already made, of which there is only this copy.

    Raises:
        ConfigError: If the run needs more copies.
    """
    several = plan.num_envs > 1 and isinstance(env, gymnasium.Env)
    needs = {
        f"num_envs={plan.num_envs}": several,
        f"vectorization={plan.vectorization}": plan.vectorization != "sync",
        f"env_timeout={plan.env_timeout}": plan.env_timeout is not None,
        f"env_retry={plan.env_retry}": plan.env_retry > 0,
    }
    if asked := next((setting for setting, needed in needs.items() if needed), None):
        name = type(env.unwrapped).__name__
        raise ConfigError(
            f"env= is an instance of {name}, which cannot be copied, and {asked} needs copies. Give a "
            f"gymnasium id, a class, or a function that makes one: env=lambda: {name}(...)."
        )
    return Given(env)


def _check_evaluations(plan: Plan) -> None:
    """Refuse settings that need evaluations in a run without any.

    Raises:
        ConfigError: Naming all of them.
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
    """Warn, before training, of evaluations that differ from what one would expect."""
    copies, lacking = task.evaluation.num_envs, task.evaluation.lacking
    if lacking is not None and copies == 0:
        warn_caller(
            f"No second {task.name} can be open beside the training one ({lacking}). Evaluation uses "
            "that one too, and truncates its episode in progress. Set eval_episodes=0 to skip evaluation."
        )
    elif lacking is not None:
        wanted = min(plan.eval_episodes, EVALUATED_AT_ONCE)
        warn_caller(
            f"Only {copies} of {wanted} evaluation copies of {task.name} can be open at once ({lacking}). "
            "Episodes are played in these, one after another."
        )
    apart = plan.vectorization == "async" or task.apart
    if "obs" in task.normalizes and apart:
        warn_caller(
            f"NormalizeObservation in {task.name}: in processes of their own, each copy has its own "
            "running statistics, and evaluation starts without any. Use normalize_obs=true instead, "
            "which keeps a single set."
        )
    if "rewards" in task.normalizes:
        own = " Each process has its own statistics." if apart else ""
        warn_caller(
            f"NormalizeReward in {task.name}: training rows count `return` in its units, evaluations in "
            f"the environment's own.{own} normalize_reward=true normalises the rewards learnt from and "
            "leaves every `return` unchanged."
        )


def _wrapped_vector(
    form: Callable[[int], Any] | None, wrappers: dict[str, Any]
) -> Callable[[int], Any] | None:
    """The vector form with the wrappers; it refuses those for single environments.

    Args:
        form: Makes a vector environment of n copies; None: it has no such form.
    """
    if form is None:
        return None
    return lambda n: wrapped(functools.partial(form, n), **wrappers)


def _make_env(target: Callable[..., Any], arguments: dict[str, Any], **more: Any) -> Any:
    return construct(target, {**arguments, **more}, {}, setting="env")
