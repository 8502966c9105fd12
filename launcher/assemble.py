"""Builds the parts of a run from its plan, in order of dependency."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from ..agents.learn_method import warn_of_others
from ..agents.traits import stated_traits
from ..envs.transform import Transform
from ..envs.world import World
from ..replay import ConfigError, Replay
from ..replay.batch import Tensors
from ..replay.randomness import kept_randomness, seed_everything
from ..replay.ranks import ranks
from .assembly.agent import build_agent
from .assembly.device import (
    arithmetic,
    build_device,
    build_threads,
    describe,
    device_wanted,
    wants_channels_last,
)
from .assembly.forward import check_channels_last, check_forward, example
from .assembly.loss import build_loss
from .assembly.model import Model
from .assembly.replay import build_replay
from .assembly.transforms import build_transforms, carrying, laid_out
from .assembly.weights import start_weights
from .assembly.world import build_world
from .learn.building import build_learner, build_own_optimizers, build_strategies
from .learn.infos import check_act, check_masks
from .learn.learner import Learner
from .process import Workplace, threads
from .record.earlier import continue_statistics, read_earlier, read_module, take_over
from .record.offline import check_agent, settings_from_replay
from .settings.plan import Plan
from .settings.unread import without_effect
from .settings.warn import warn_caller


@dataclass(frozen=True)
class Assembly:
    """The parts of a run.

    Attributes:
        plan: The plan, completed by a saved replay or an earlier run.
        plain: From stored observations to floats, without augmentation.
        own: The user's module, which may be a part of the module that learns.
        obs: Two example observations as the model receives them, `[2, *obs.shape]`.
        placed: Where the data's rows are, in a few words, or None.
        rates: The schedule of learning rates in one line, and warnings about it.
        where: The device and its arithmetic, in a few words.
    """

    plan: Plan
    world: World
    learner: Learner
    replay: Replay
    plain: Transform
    own: nn.Module
    obs: Tensors
    placed: str | None
    rates: list[str]
    where: str


def assemble(plan: Plan, workplace: Workplace, held: ExitStack) -> Assembly:
    """Build everything that the plan names.

    Args:
        workplace: Applies settings of the process, such as threads and precision.
        held: Receives what must be closed at the end of the run.

    Raises:
        ConfigError, DataError, CheckpointError: For anything that cannot work.
    """
    plan, saved = settings_from_replay(plan)
    plan, earlier = read_earlier(plan)
    known = None
    if earlier is None:
        plan, known = read_module(plan)
    device = workplace.device = build_device(device_wanted(plan))
    workplace.keep(kept_randomness)  # After the device is in use: its random state is kept too.
    workplace.keep(lambda: arithmetic(plan, device))
    seed_everything(plan.seed)
    world = build_world(plan)
    held.callback(world.close)
    placed = _place(plan, world, workplace, device)
    transforms = build_transforms(plan, world, device)
    seed_everything(plan.seed)  # Again: initial weights must not depend on how the data was read.
    agent, own = build_agent(plan, world, device, transforms)
    _check(plan, world, agent)
    model = Model(agent, world.spec, device, plan.precision)
    model, transform, plain = _tried(plan, world, model, transforms)
    obs = example(model, world, plain)
    start_weights(plan, agent, world, obs)
    if earlier is not None:
        take_over(earlier, agent, world)
    elif known is not None:
        continue_statistics(known, world)
    loss = build_loss(plan, world, model, obs)
    strategies = build_strategies(plan, world, model, transform, obs=obs, loss=loss)
    held.callback(strategies.close)
    optimizers = build_own_optimizers(plan, agent)
    if optimizers is not None:
        held.callback(optimizers.close)
    learner, rates = build_learner(plan, world, model, own, strategies, optimizers, loss)
    observes = stated_traits(agent).observes
    if plan.compile:
        # By torch's method: the user's class may have a `compile` like that of Keras.
        agent.compile() if observes else nn.Module.compile(agent)
    replay = build_replay(
        plan,
        world,
        transform,
        device,
        recurrent=model.recurrence is not None,
        before=strategies.before_batch,
        saved=saved,
    )
    held.callback(replay.close)
    if observes:
        agent.bind(replay)  # type: ignore[operator]
    where = describe(plan, device, channels_last=plain.layout is not None)
    return Assembly(plan, world, learner, replay, plain, own, obs, placed, rates, where)


def _place(plan: Plan, world: World, workplace: Workplace, device: torch.device) -> str | None:
    """Move the data to the device if it fits, set the threads, and warn of settings without effect.

    Returns:
        Where the data is, in a few words, or None.
    """
    for key, reason in without_effect(plan, world).items():
        warn_caller(f"`{key}` has no effect in this run: {reason}.")
    placed = world.place(device, plan.data)
    wanted = build_threads(plan, world, device)
    workplace.keep(lambda: threads(wanted))
    return placed


def _check(plan: Plan, world: World, agent: nn.Module) -> None:
    """Refuse a model whose methods do not fit the world, before it is called.

    Raises:
        ConfigError: Stating what would fit.
    """
    if stated_traits(agent).observes and ranks().several:
        raise ConfigError(
            f"{plan.model.short_name} learns in `observe`, whose buffers are those of one process. devices=1 "
            "trains it; on several devices, write learn(self, replay, log), or use strategy=er and the like."
        )
    if plan.offline is not None:
        check_agent(agent, world.spec)
    if world.acts:
        check_act(agent)
        check_masks(agent, world.spec, plan.env_info)
    if world.labelled:
        warn_of_others(agent)


def _tried(
    plan: Plan, world: World, model: Model, transforms: tuple[Transform, Transform]
) -> tuple[Model, Transform, Transform]:
    """Call the model once, before learning begins.

    Args:
        transforms: From stored rows to batches, for learning and for evaluation.

    Returns:
        The model with its recurrence, and the transforms that fit it.
    """
    if wants_channels_last(plan, world, model.device):
        last = [laid_out(transform, torch.channels_last) for transform in transforms]
        tried = check_channels_last(
            model, world, transform=last[1], needed=bool(plan.channels_last)
        )
        if tried is not None:
            return _carrying(tried, *last)
    return _carrying(check_forward(model, world, transform=transforms[1]), *transforms)


def _carrying(
    model: Model, learning: Transform, plain: Transform
) -> tuple[Model, Transform, Transform]:
    """The model and its transforms, which unpack stored states for a recurrent model's `forward`."""
    if model.recurrence is None:
        return model, learning, plain
    return model, carrying(learning, model.recurrence), plain
