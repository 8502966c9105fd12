"""Builds the parts of a run from plan, in order of dependency."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ...agents.learn_method import warn_of_others
from ...agents.traits import stated_traits
from ...envs.world import Transform, World
from ...replay import Observations
from ...replay.randomness import kept_randomness, seed_everything
from ..learn.infos import check_act, check_masks
from ..learn.learner import Learner
from ..learn.schedulers import Scheduler, build_scheduler
from ..learn.strategies import Strategies
from ..process import Workplace, threads
from ..settings.plan import Plan
from ..settings.unread import without_effect
from ..settings.warn import warn_caller
from . import build, offline
from .device import arithmetic, describe, device_wanted, wants_channels_last
from .earlier import continue_statistics, read_earlier, read_module, take_over
from .forward import check_channels_last, check_forward, example
from .lengths import build_durations, build_schedule, evaluates_in_task
from .optimisation import Average, build_optimizer
from .weights import start_weights


@dataclass
class Assembly:
    """The parts of a run.

    Attributes:
        plan: With what was decided by a saved replay or an earlier run.
        plain: Makes floats of stored observations, without augmentation.
        own: The user's own module, which may be a part of what learns.
        obs: Two example observations, as the model receives them.
        placed: Where the data's rows are, or None.
        rates: The schedule of learning rates in a line, and warnings about it.
        where: The device and how it computes.
    """

    plan: Plan
    world: World
    learner: Learner
    replay: Any
    plain: Transform
    own: nn.Module
    obs: Any
    placed: str | None
    rates: list[str]
    where: str


def assemble(plan: Plan, workplace: Workplace, held: ExitStack) -> Assembly:
    """Build everything that the settings name.

    Args:
        workplace: Applies settings of the process, such as threads and precision.
        held: Closes with the run.

    Raises:
        ConfigError, DataError, CheckpointError: For anything that cannot work.
    """
    plan, saved = offline.adopt(plan)
    plan, earlier = read_earlier(plan)
    known = None
    if earlier is None:
        plan, known = read_module(plan)
    device = workplace.device = build.build_device(device_wanted(plan))
    workplace.keep(kept_randomness)  # The device's too, which is in use by now.
    workplace.keep(lambda: arithmetic(plan, device))
    seed_everything(plan.seed)
    world = build.build_world(plan)
    held.callback(world.close)
    for key, reason in without_effect(plan, world).items():
        warn_caller(f"`{key}` has no effect in this run: {reason}.")
    placed = world.place(device, plan.data)
    wanted = build.build_threads(plan, world, device)
    workplace.keep(lambda: threads(wanted))
    transform, plain = build.build_transforms(plan, world, device)
    seed_everything(plan.seed)  # Weights do not depend on how the data was read.
    agent: Any
    agent, own = build.build_agent(plan, world, device, (transform, plain))
    if saved is not None:
        offline.check_agent(agent, world.spec)
    if world.acts:
        check_act(agent)
        check_masks(agent, world.spec, plan.env_info)
    options: dict[str, Any] = {
        "device": device,
        "precision": str(plan.precision),
        "supervised": world.labelled,
    }
    if world.labelled:
        warn_of_others(agent)
    trial = Learner(agent, world.spec, **options)
    channels_last = _try_forward(plan, trial, world, device, (transform, plain))
    recurrence = trial.recurrence
    obs = example(world, plain, trial)
    start_weights(plan, agent, world, obs)
    if earlier is not None:
        take_over(earlier, agent, world)
    elif known is not None:
        continue_statistics(known, world)
    strategies = build.build_strategies(plan, world, agent, transform, device, obs=obs)
    if strategies is not None:
        held.callback(strategies.context.close)
    learner, rates = _build_learner(plan, world, (agent, own), held, strategies, options)
    if recurrence is not None:
        assert isinstance(transform, Observations)
        learner.recurrence, transform.unpack = recurrence, recurrence.unpack
        transform.initial = recurrence.zeros
    if plan.compile:
        # The user's own `compile` may mean something else, as Keras's does.
        agent.compile() if stated_traits(agent).observes else nn.Module.compile(agent)
    replay = build.build_replay(
        plan, world, transform, device, recurrent=recurrence is not None, saved=saved
    )
    held.callback(replay.close)
    replay.before = None if strategies is None else strategies.before_batch
    if stated_traits(agent).observes:
        agent.bind(replay)
    return Assembly(
        plan,
        world,
        learner,
        replay,
        plain,
        own,
        obs,
        placed=placed,
        rates=rates,
        where=describe(plan, device, channels_last),
    )


def _try_forward(
    plan: Plan, trial: Learner, world: World, device: Any, transforms: tuple[Any, Any]
) -> bool:
    """Call the model once, before anything is begun; whether images are to lie channels last."""
    transform, plain = transforms
    if wants_channels_last(plan, world, device) and check_channels_last(
        trial, world, transforms=(plain, transform), needed=bool(plan.channels_last)
    ):
        return True
    check_forward(trial, world, transform=plain)
    return False


def _build_learner(
    plan: Plan,
    world: World,
    modules: tuple[nn.Module, nn.Module],
    held: ExitStack,
    strategies: Strategies | None,
    options: dict[str, Any],
) -> tuple[Learner, list[str]]:
    """The learner with its optimiser, and what is said of its schedule before the run.

    Args:
        modules: What learns, and the user's own.
        options: Of any learner of this run.
    """
    agent, own = modules
    optimizers = build.own_optimizers(plan, agent)
    if optimizers is not None:
        held.callback(optimizers.close)
    optimizer = (optimizers and optimizers.only) or build_optimizer(plan, agent, own)
    scheduler, rates = _scheduler(plan, world, optimizer)
    learner = Learner(
        agent,
        world.spec,
        optimizer=optimizer,
        own=optimizers,
        scheduler=scheduler,
        clip_grad=plan.clip_grad,
        accumulate=plan.accumulate,
        average=Average(agent, decay=plan.ema) if plan.ema is not None else None,
        strategies=strategies,
        tasks=len(world.tasks),
        **options,
    )
    return learner, rates


def _scheduler(
    plan: Plan, world: World, optimizer: Optimizer | None
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler, and its lines in the header."""
    schedule = build_schedule(plan, world)
    durations = build_durations(schedule, plan, world)
    if (n := plan.accumulate) > 1 and n > (most := max(p.learning_steps for p in durations)):
        of = "the run" if len(durations) == 1 else "a task"
        warnings.warn(
            f"accumulate={n} is more than the {most:,} learning steps of {of}: the weights are updated "
            "only once, at its end. accumulate= counts learning steps, not examples.",
            stacklevel=2,
        )
    evaluates = world.evaluates(plan.eval_episodes)
    waits = len(durations) > 1 and schedule.seed_steps > 0 and optimizer is not None
    if waits and not any(p.learning_steps for p in durations):
        warnings.warn(
            f"Nothing is learnt: seed_steps={schedule.seed_steps} are waited for in every task, and tasks "
            f"have {schedule.train_steps} steps. Lower seed_steps.",
            stacklevel=2,
        )
    evaluations = evaluates and evaluates_in_task(schedule, durations, plan, world)
    if schedule.judges and not evaluations:
        warnings.warn(
            "early_stopping has no effect in this run: there is no evaluation before the end of a task. "
            "Set eval_every, the steps between evaluations.",
            stacklevel=2,
        )
    return build_scheduler(
        plan,
        optimizer,
        durations,
        evaluations=evaluations,
        validation=schedule.validation,
    )
