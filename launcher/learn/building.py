"""Builds the strategies, the optimisers and the learner from the plan."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Protocol, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.continual.context import OF_LABELS, Context
from ...agents.learn_method import learn_method
from ...agents.traits import stated_traits
from ...envs.transform import Transform
from ...envs.wishes import ENV_STEPS
from ...envs.world import World
from ...replay import ConfigError
from ...replay.batch import Tensors
from ..assembly.environment_strategies import outputs_of, unfit_in_environment
from ..assembly.loss import Loss
from ..assembly.model import Model
from ..assembly.optimisation import Average, build_optimizer
from ..assembly.schedule import build_durations, build_schedule, evaluates_in_task
from ..assembly.strategies import classes_of_tasks, named_strategies
from ..record.log import quiet
from ..settings.plan import Plan
from .learner import Learner
from .own_optimizer import OwnOptimizers
from .schedulers import Scheduler
from .scheduling import build_scheduler
from .strategies import Strategies


class _Augmenting(Protocol):
    """A transform that augments."""

    def augment_again(self, raw: Tensor) -> Tensor:
        """Rows of `batch.raw`, `[B, *shape]`, augmented again, with new random draws."""


def build_strategies(
    plan: Plan,
    world: World,
    model: Model,
    transform: Transform,
    *,
    obs: Tensors,
    loss: Loss | None,
) -> Strategies:
    """The continual-learning strategies that the plan asks for, possibly none.

    Args:
        model: The module and how to call it.
        transform: From stored rows to batches, with augmentation.
        obs: Two observations as the model receives them, `[2, *obs.shape]`.
        loss: What `loss=` names, or None.

    Raises:
        ConfigError: If one cannot be constructed or does not fit the run, or two conflict.
    """
    agent, spec = model.agent, model.spec
    borders = world.borders(online=plan.online)
    named = named_strategies(plan, spec, model.device)
    context = Context(
        agent,
        spec,
        scenario=world.scenario or "domain",
        classes=classes_of_tasks(world, told=world.labelled and borders),
        learn=quiet(learn_method(agent, spec, supervised=world.labelled, loss=loss)),
        augmented=None if transform.augment is None else cast(_Augmenting, transform).augment_again,
        device=model.device,
        seed=plan.seed,
        outputs=OF_LABELS if world.labelled else outputs_of(agent, spec),
    )
    try:
        mistakes: Iterable[str] = ()
        if named and not world.labelled:
            # Offline nothing is added, so any capacity is enough.
            steps = 0 if plan.offline else (plan.train_steps or ENV_STEPS) * len(world.tasks)
            mistakes = unfit_in_environment(
                named, context, obs, steps=steps, capacity=plan.capacity
            )
        strategies = Strategies(named, context, borders=borders, mistakes=mistakes)
        if plan.ema is not None and (own := strategies.owning("weights")):
            raise ConfigError(
                f"strategy={own} keeps the exact weights of each task, but ema={plan.ema} evaluates with "
                "averages of them. Choose one of the two."
            )
        if loss is not None and (own := strategies.owning("loss")):
            raise ConfigError(
                f"loss= has no effect with strategy={own}, which replaces the model's loss by its own. Leave "
                "one of the two out."
            )
    except BaseException:
        # Its hooks on the user's model must not outlive a run that never began.
        context.close()
        raise
    return strategies


def build_own_optimizers(plan: Plan, agent: nn.Module) -> OwnOptimizers | None:
    """The optimisers that the module itself holds; None for a module with `observe`, which steps them."""
    if stated_traits(agent).observes:
        return None
    shorthands = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    asked = [key for key, value in shorthands.items() if value is not None]
    if "optim" in plan.given:
        asked.insert(0, "optim")
    return OwnOptimizers(agent, asked, plan.optim.target if "optim" in plan.objects else None)


def build_learner(
    plan: Plan,
    world: World,
    model: Model,
    own: nn.Module,
    strategies: Strategies,
    optimizers: OwnOptimizers | None,
    loss: Loss | None,
) -> tuple[Learner, list[str]]:
    """The learner with its optimiser and schedule, and lines about the schedule: a summary, then problems.

    Args:
        own: The user's module inside the agent: `optim.groups` may use its parameter names too.
        optimizers: The optimisers that the module itself holds, or None.
        loss: What `loss=` names, or None.

    Raises:
        ConfigError: If the optimiser or the scheduler cannot be constructed.
    """
    agent = model.agent
    # One that the module creates later is found when it returns a loss.
    optimizer = (optimizers and optimizers.only) or build_optimizer(plan, agent, own)
    scheduler, rates = _build_schedule(plan, world, optimizer)
    learner = Learner(
        model,
        optimizer=optimizer,
        own=optimizers,
        scheduler=scheduler,
        clip_grad=plan.clip_grad,
        accumulate=plan.accumulate,
        average=Average(agent, decay=plan.ema) if plan.ema is not None else None,
        supervised=world.labelled,
        loss=loss,
        strategies=strategies,
        skip_nan=plan.on_nan == "skip",
        tasks=len(world.tasks),
    )
    return learner, rates


def _build_schedule(
    plan: Plan, world: World, optimizer: Optimizer | None
) -> tuple[Scheduler | None, list[str]]:
    """The scheduler and its lines for the header; warns of lengths that leave a setting without effect."""
    schedule = build_schedule(plan, world)
    durations = build_durations(schedule, plan, world)
    most = max(duration.learning_steps for duration in durations)
    evaluations = world.evaluates(plan.eval_episodes) and evaluates_in_task(
        schedule, durations, plan, world
    )
    if plan.accumulate > max(1, most):
        of = "the run" if len(durations) == 1 else "a task"
        warnings.warn(
            f"accumulate={plan.accumulate} is more than the {most:,} learning steps of {of}: the weights "
            "are updated only once, at its end. accumulate= counts learning steps, not examples.",
            stacklevel=2,
        )
    if most == 0 and len(durations) > 1 and schedule.seed_steps > 0 and optimizer is not None:
        warnings.warn(
            f"Nothing is learnt: every task first waits for seed_steps={schedule.seed_steps}, but tasks have "
            f"{schedule.train_steps} steps. Lower seed_steps.",
            stacklevel=2,
        )
    if schedule.decides_by_evaluations and not evaluations:
        warnings.warn(
            "early_stopping has no effect in this run: there is no evaluation before the end of a task. "
            "Set eval_every, the number of steps between evaluations.",
            stacklevel=2,
        )
    return build_scheduler(
        plan, optimizer, durations, evaluations=evaluations, validation=schedule.validation
    )
