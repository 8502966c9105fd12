"""Builds the parts of a run from settings, in order of dependency."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ...agents.traits import traits
from ...envs.world import Transform, World
from ...replay import Observations
from ...replay.randomness import kept_randomness, seed_everything
from ..learn.infos import check_act, check_masks
from ..learn.learn_method import warn_of_others
from ..learn.learner import Learner
from ..learn.schedulers import Scheduler, build_scheduler
from ..learn.strategies import Strategies
from ..process import Workplace, threads
from ..settings.compose import Settings
from ..settings.told import warn_caller
from ..settings.unread import without_effect
from . import build, offline
from .device import arithmetic, describe, device_wanted, wants_channels_last
from .earlier import continue_statistics, read_earlier, read_module, take_over
from .forward import check_channels_last, check_forward, example
from .lengths import build_plans, build_schedule, evaluates_in_task
from .optimisation import Average, build_optimizer
from .weights import start_weights


@dataclass
class Assembly:
    """The parts of a run.

    Attributes:
        plain: Makes floats of stored observations, without augmentation.
        own: The user's own module, which may be a part of what learns.
        obs: Two example observations, as the model receives them.
        placed: Where the data's rows are, or None.
        rates: The schedule of learning rates in a line, and warnings about it.
        where: The device and how it computes.
    """

    world: World
    learner: Learner
    replay: Any
    plain: Transform
    own: nn.Module
    obs: Any
    placed: str | None
    rates: list[str]
    where: str


def assemble(settings: Settings, workplace: Workplace, held: ExitStack) -> Assembly:
    """Build everything that the settings name.

    Args:
        workplace: Applies settings of the process, such as threads and precision.
        held: Closes with the run.

    Raises:
        ConfigError, DataError, CheckpointError: For anything that cannot work.
    """
    build.complete(settings)
    saved = offline.adopt(settings)
    earlier = read_earlier(settings)
    known = read_module(settings) if earlier is None else None
    device = workplace.device = build.build_device(device_wanted(settings))
    workplace.keep(kept_randomness)  # The device's too, which is in use by now.
    workplace.keep(lambda: arithmetic(settings, device))
    seed_everything(settings.seed)
    world = build.build_world(settings)
    held.callback(world.close)
    for key, reason in without_effect(settings, world).items():
        warn_caller(f"`{key}` has no effect in this run: {reason}.")
    placed = world.place(device, settings.data)
    wanted = build.build_threads(settings, world, device)
    workplace.keep(lambda: threads(wanted))
    transform, plain = build.build_transforms(settings, world, device)
    seed_everything(settings.seed)  # Weights do not depend on how the data was read.
    agent: Any
    agent, own = build.build_agent(settings, world, device, (transform, plain))
    if saved is not None:
        offline.check_agent(agent, world.spec)
    if world.acts:
        check_act(agent)
        check_masks(agent, world.spec, settings.env_info)
    options: dict[str, Any] = {
        "device": device,
        "precision": str(settings.precision),
        "supervised": world.labelled,
    }
    if world.labelled:
        warn_of_others(agent)
    trial = Learner(agent, world.spec, **options)
    channels_last = _try_forward(settings, trial, world, device, (transform, plain))
    recurrence = trial.recurrence
    obs = example(world, plain, trial)
    start_weights(settings, agent, world, obs)
    if earlier is not None:
        take_over(earlier, agent, world)
    elif known is not None:
        continue_statistics(known, world)
    strategies = build.build_strategies(settings, world, agent, transform, device, obs=obs)
    if strategies is not None:
        held.callback(strategies.context.close)
    learner, rates = _build_learner(settings, world, (agent, own), held, strategies, options)
    if recurrence is not None:
        assert isinstance(transform, Observations)
        learner.recurrence, transform.unpack = recurrence, recurrence.unpack
        transform.initial = recurrence.zeros
    if settings.compile:
        # The user's own `compile` may mean something else, as Keras's does.
        agent.compile() if traits(agent).observes else nn.Module.compile(agent)
    replay = build.build_replay(
        settings, world, transform, device, recurrent=recurrence is not None, saved=saved
    )
    held.callback(replay.close)
    replay.before = None if strategies is None else strategies.before_batch
    if traits(agent).observes:
        agent.bind(replay)
    return Assembly(
        world,
        learner,
        replay,
        plain,
        own,
        obs,
        placed=placed,
        rates=rates,
        where=describe(settings, device, channels_last),
    )


def _try_forward(
    settings: Settings, trial: Learner, world: World, device: Any, transforms: tuple[Any, Any]
) -> bool:
    """Call the model once, before anything is begun; whether images are to lie channels last."""
    transform, plain = transforms
    if wants_channels_last(settings, world, device) and check_channels_last(
        trial, world, transforms=(plain, transform), needed=bool(settings.channels_last)
    ):
        return True
    check_forward(trial, world, transform=plain)
    return False


def _build_learner(
    settings: Settings,
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
    optimizers = build.own_optimizers(settings, agent)
    if optimizers is not None:
        held.callback(optimizers.close)
    optimizer = (optimizers and optimizers.only) or build_optimizer(settings, agent, own)
    scheduler, rates = _scheduler(settings, world, optimizer)
    learner = Learner(
        agent,
        world.spec,
        optimizer=optimizer,
        own=optimizers,
        scheduler=scheduler,
        clip_grad=settings.clip_grad,
        accumulate=settings.accumulate,
        average=Average(agent, decay=settings.ema) if settings.ema is not None else None,
        strategies=strategies,
        tasks=len(world.tasks),
        **options,
    )
    return learner, rates


def _scheduler(
    settings: Settings, world: World, optimizer: Optimizer | None
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler, and its lines in the header."""
    schedule = build_schedule(settings, world)
    plans = build_plans(schedule, settings, world)
    if (n := settings.accumulate) > 1 and n > (most := max(p.learning_steps for p in plans)):
        of = "the run" if len(plans) == 1 else "a task"
        warnings.warn(
            f"accumulate={n} is more than the {most:,} learning steps of {of}: the weights are updated "
            "only once, at its end. accumulate= counts learning steps, not examples.",
            stacklevel=2,
        )
    evaluates = world.evaluates(settings.eval_episodes)
    waits = len(plans) > 1 and schedule.seed_steps > 0 and optimizer is not None
    if waits and not any(p.learning_steps for p in plans):
        warnings.warn(
            f"Nothing is learnt: seed_steps={schedule.seed_steps} are waited for in every task, and tasks "
            f"have {schedule.train_steps} steps. Lower seed_steps.",
            stacklevel=2,
        )
    evaluations = evaluates and evaluates_in_task(schedule, plans, settings, world)
    if schedule.judges and not evaluations:
        warnings.warn(
            "early_stopping has no effect in this run: there is no evaluation before the end of a task. "
            "Set eval_every, the steps between evaluations.",
            stacklevel=2,
        )
    return build_scheduler(
        settings,
        optimizer,
        plans,
        evaluations=evaluations,
        validation=schedule.validation,
    )
