"""From settings to the parts of a run, in order: world, model, optimiser, replay."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...agents.ac2agent import AC2Agent
from ...agents.continual import NAMES as STRATEGIES
from ...agents.continual.context import OF_LABELS, Context
from ...agents.learn_method import learn_method
from ...agents.policy.raw_observations import takes_normalised
from ...agents.traits import has_forward, hook, stated_traits
from ...envs.world import ENV_STEPS, ReplayWishes, Transform, World, WorldSpec
from ...replay import CheckpointError, ConfigError, Replay, Spec, Standardize
from ..learn.own_optimizer import OwnOptimizers
from ..learn.strategies import Strategies
from ..pictures.samples import Samples
from ..record.log import quiet
from ..settings.construct import construct
from ..settings.kinds import model_kind
from ..settings.object_names import makes_objects, name_of
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from . import offline
from .augmentation import Augmentation, check_augmentation
from .data import build_data
from .device import build_device as build_device
from .environment_strategies import outputs_of, unfit_in_environment
from .infer import advice, inferred
from .lengths import asked_lengths
from .networks import network
from .parts import build_parts, critic_scores_actions, refuse_parts

_AGENTS = AC2Agent.__module__.rpartition(".")[0]  # The package of our own.
_DEFAULT_SEQUENCE = 16


def build_threads(plan: Plan, world: World, device: torch.device) -> int | None:
    """How many threads torch uses; None: as many as it likes."""
    if plan.threads is not None or device.type != "cpu":
        threads: int | None = plan.threads
        return threads
    return world.wanted_threads()


def build_world(plan: Plan) -> World:
    """The data sets or environments that the settings name."""
    if plan.env is not None:
        from .environments import build_environments

        return build_environments(plan)
    world = build_data(plan)
    if world.single_class is not None:
        warn_caller(
            f"All rows of {world.name} have the same class ({world.single_class}): an accuracy of 1.0 means "
            "nothing."
        )
    return world


def build_agent(
    plan: Plan, world: WorldSpec, device: torch.device, transforms: tuple[Any, Any]
) -> tuple[nn.Module, nn.Module]:
    """What learns, on the device, and the user's module, constructed from the spec.

    They are one, but for a module that observes, which comes in an `Observer`, and one that does not
    say how it learns from an environment, which is the policy of an `AC2Agent`.

    Raises:
        ConfigError: If it cannot be constructed, or is no `nn.Module`.
    """
    target, arguments = plan.model.target, plan.model.arguments
    made = plan.model.constructs
    if arguments and not made:
        raise ConfigError(
            f"The model is already constructed, so {', '.join(arguments)} cannot be set. Give its class "
            "instead."
        )
    table = inferred(world.spec, device=device)
    about = {
        "rl": plan.rl,
        "generate": plan.generate,
        "offline": plan.offline is not None,
        "standardize": plan.standardize,
        "train_steps": plan.train_steps or ENV_STEPS,
        "num_envs": plan.num_envs,
        **world.facts(),  # Among them a vector environment's own number of copies.
    }
    if _is_ours(target):  # In a user's class these names may mean anything.
        table |= about
    make = functools.partial(network, table=table, obs=world.spec.obs, instead=advice(world.spec))
    takes_normalised(target)  # If it is another run's, which has ended.
    agent, parts = target, {}
    taught = world.labelled or hook(target, "learn") is not None
    if taught or not has_forward(target):
        refuse_parts(plan, target)
        of_actions = made and critic_scores_actions(target)
        parts = build_parts(plan, world.spec, device, of_actions=of_actions)
    kind = model_kind(target)
    if made and kind is None:
        agent = make(target, {**arguments, **parts})
        kind = model_kind(agent)  # A function may return any model.
    if kind is not None:
        agent = kind.build(
            agent,
            arguments if agent is target else {},
            plan,
            world,
            device,
            transforms=transforms,
            epochs=world.lengths(asked_lengths(plan)).epochs,
            network=make,
        )
    if not isinstance(agent, nn.Module):
        raise ConfigError(
            f"model={name_of(target)} gave a {type(agent).__name__}, not a torch.nn.Module."
        )
    own: Any = agent.own if stated_traits(agent).observes else agent
    _check_train(own)
    if not world.labelled and has_forward(agent) and hook(agent, "learn") is None:
        refuse_parts(plan, AC2Agent)
        agent = _adopted(agent.to(device), plan, {**table, **about}, device)
    agent.to(device)
    if not agent.training:
        agent.train()
    return agent, own


def _check_train(module: nn.Module) -> None:
    """Refuse a method `train` that is not torch's: `eval()` would run it, as `train(False)`.

    Raises:
        ConfigError: Naming its class.
    """
    for kind in {type(part): part for part in module.modules()}:
        if kind.train is nn.Module.train:
            continue
        taken = list(inspect.signature(kind.train).parameters.values())[1:]
        first = taken[0] if taken else None
        if first is None or (
            first.name != "mode"
            and not isinstance(first.default, bool)
            and first.kind is not first.VAR_POSITIONAL
        ):
            raise ConfigError(
                f"{kind.__name__}.train{inspect.signature(kind.train)} hides torch.nn.Module.train(mode), "
                "which eval() and train() call. Give the method another name; one that learns from batches "
                "is learn(self, replay)."
            )


def _is_ours(target: Any) -> bool:
    """Whether a class is one of our agents, or made of one."""
    bases = target.__mro__ if inspect.isclass(target) else ()
    return any(base.__module__.startswith(_AGENTS) for base in bases)


def _adopted(
    module: nn.Module, plan: Plan, table: dict[str, Any], device: torch.device
) -> AC2Agent:
    """The default agent with a module that does not say how it learns as its policy."""
    name = type(module).__name__
    if hook(module, "act") is not None:
        raise ConfigError(
            f"{name} has `forward` and `act`, but no `learn`. Leave `act` out, and the default agent "
            "explores for it and learns; or write learn(self, replay, log) too."
        )
    if "policy" in plan.parts:
        raise ConfigError(f"{name} has no `learn`: it is the policy already; policy= is given too.")
    spec = table["spec"]
    parts: dict[str, Any] = dict(build_parts(plan, spec, device, policy=module))
    parts["model"] = parts.pop("policy")
    options = {key: table[key] for key in ("environment", "rl", "generate", "offline")}
    return AC2Agent(spec, **options, **parts)


def build_transforms(
    plan: Plan, world: WorldSpec, device: torch.device
) -> tuple[Transform, Transform]:
    """How batches are made to learn from, and to evaluate with.

    Raises:
        ConfigError: If the augmentation cannot be constructed, or does not fit the inputs.
    """
    augment = None if plan.aug is None else functools.partial(_augmentation, plan)
    learning, plain = world.transforms(standardize=plan.standardize, device=device, augment=augment)
    if isinstance(learning.augment, Augmentation):
        unit = Standardize(world.spec.obs, standardize=False, device=device)
        check_augmentation(learning.augment, unit.observe(world.example(2, device)))
    return learning, plain


def build_pictures(plan: Plan, world: World, path: Path) -> Samples | None:
    """What draws a generative model's samples at every evaluation, or None."""
    if not (plan.plot and world.labelled):
        return None
    folder = path / "plots" / "samples"
    return Samples(folder, world.spec, standardize=plan.standardize, seed=plan.seed)


def build_strategies(
    plan: Plan,
    world: World,
    agent: nn.Module,
    transform: Any,
    device: torch.device,
    *,
    obs: Any,
) -> Strategies | None:
    """The strategies of continual learning asked for; None where nothing has to be done.

    Args:
        obs: Two example observations, as the model receives them.

    Raises:
        ConfigError: If one cannot be constructed or does not fit the run, or two conflict.
    """
    borders = world.borders(online=plan.online)
    named = named_strategies(plan, world.spec, device)
    if not named and world.scenario != "task":
        return None
    context = Context(
        agent,
        world.spec,
        scenario=world.scenario or "domain",
        classes=classes_of_tasks(world, told=world.labelled and borders),
        learn=quiet(learn_method(agent, world.spec, supervised=world.labelled)),
        augmented=transform.augment_again if transform.augment is not None else None,
        device=device,
        seed=plan.seed,
        outputs=OF_LABELS if world.labelled else outputs_of(agent, world.spec),
    )
    try:
        mistakes: Iterable[str] = ()
        if not world.labelled:
            steps = 0 if plan.offline else (plan.train_steps or ENV_STEPS) * len(world.tasks)
            mistakes = unfit_in_environment(
                named, context, obs, steps=steps, capacity=plan.capacity
            )
        strategies = Strategies(named, context, borders=borders, mistakes=mistakes)
        if plan.ema is not None and (own := strategies.owning("weights")):
            raise ConfigError(
                f"strategy={own} keeps weights of each task as they are, and ema={plan.ema} evaluates "
                "with averages of them. Choose one of the two."
            )
    except BaseException:
        context.close()
        raise
    if strategies.idle and context.scenario != "task":
        context.close()
        return None
    return strategies


def named_strategies(plan: Plan, spec: Spec, device: torch.device) -> dict[str, Any]:
    """The strategies asked for, constructed, by their names.

    Raises:
        ConfigError: If one is unknown, cannot be constructed, or is asked for twice.
    """
    named: dict[str, Any] = {}
    table = inferred(spec, device=device)
    for given in plan.strategy or ():
        target, arguments = given.target, given.arguments
        name = strategy_name(target)
        if name in named:
            raise ConfigError(f"strategy={name} is given twice.")
        made = given.constructs
        if arguments and not made:
            raise ConfigError(f"strategy={name} is already constructed and takes no arguments.")
        named[name] = construct(target, arguments, table, setting="strategy") if made else target
    return named


def classes_of_tasks(world: World, *, told: bool) -> list[torch.Tensor]:
    """Output indices of each task, int64: all of them where tasks are not `told` apart, none of values."""
    every = torch.arange(world.spec.action.n if world.spec.discrete else 0)
    return [world.classes(task) if told else every for task in range(len(world.tasks))]


def strategy_name(strategy: Any) -> str:
    """`er` of our own `ER`, or the name of a class of the user's."""
    name = strategy.__name__ if makes_objects(strategy) else type(strategy).__name__
    ours = {own: short for short, own in STRATEGIES["strategy"].items()}
    return ours.get(name, name)


def build_replay(
    plan: Plan,
    world: World,
    transform: Transform,
    device: torch.device,
    *,
    recurrent: bool = False,
    saved: dict[str, Any] | None = None,
) -> Replay:
    """The replay over the world's storage.

    Args:
        recurrent: Whether the model receives sequences.
        saved: The transitions to learn from offline; None: those that this run makes.

    Raises:
        CheckpointError: If saved transitions come from another environment.
    """
    how, priorities = plan.replay, None
    if how.prioritized:
        steps = plan.train_steps or ENV_STEPS
        anneal = max(1, steps * len(world.tasks) // (plan.learn_every or 1))
        priorities = {"alpha": how.alpha, "beta": how.beta, "anneal": anneal}
    wishes = ReplayWishes(
        batch_size=plan.batch_size,
        device=device,
        seed=plan.seed,
        borders=world.borders(online=plan.online),
        capacity=plan.capacity,
        discount=plan.discount,
        nstep=plan.nstep,
        stack=plan.frame_stack,
        storage=how.storage,
        folder=how.folder,
        sequence=how.sequence or (_DEFAULT_SEQUENCE if recurrent else None),
        priorities=priorities,
        saved=saved,
    )
    try:
        return world.replay(transform, wishes)
    except CheckpointError as error:
        raise offline.refused(plan, error) from error


def own_optimizers(plan: Plan, agent: nn.Module) -> OwnOptimizers | None:
    """The optimisers that the model holds, beside what the settings say of one; None if it observes."""
    if stated_traits(agent).observes:
        return None
    shorthands = {"lr": plan.lr, "weight_decay": plan.weight_decay}
    asked = [key for key, value in shorthands.items() if value is not None]
    if "optim" in plan.given:
        asked.insert(0, "optim")
    return OwnOptimizers(agent, asked, plan.optim.target if "optim" in plan.objects else None)


def _augmentation(plan: Plan) -> Augmentation:
    steps = []
    for named in plan.aug or ():
        target = named.target
        if inspect.isclass(target):
            target = construct(target, named.arguments, {}, setting="aug")
        if not callable(target):
            raise ConfigError(f"aug={name_of(target)} cannot be called on images.")
        steps.append(target)
    return Augmentation(steps)
