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
from ...agents.policy.raw_observations import takes_normalised
from ...agents.traits import has_forward, hook, traits
from ...agents.usual import usual
from ...envs.world import ENV_STEPS, ReplayWishes, Transform, World, WorldSpec
from ...replay import CheckpointError, ConfigError, Replay, Spec, Standardize
from ..learn.learn_method import learn_method, quiet
from ..learn.own_optimizer import OwnOptimizers
from ..learn.strategies import Strategies
from ..mammoth.observe.options import observes
from ..pictures.samples import Samples
from ..settings.compose import Settings, name_of
from ..settings.named import makes_objects, named_object, named_objects
from ..settings.names import construct
from ..settings.told import warn_caller
from . import offline
from .augmentation import Augmentation, check_augmentation
from .data import build_data
from .device import build_device as build_device
from .environment_strategies import outputs_of, unfit_in_environment
from .infer import advice, inferred
from .lengths import asked_lengths
from .loaders import heed_loaders
from .networks import network
from .parts import build_parts, judges_actions, refuse_parts

_AGENTS = AC2Agent.__module__.rpartition(".")[0]  # The package of our own.
_DEFAULT_BATCH = 32
_DEFAULT_ENV_BATCH = 128
_ONLINE_BATCH = 10
_DEFAULT_SEQUENCE = 16


def build_threads(settings: Settings, world: World, device: torch.device) -> int | None:
    """How many threads torch uses; None: as many as it likes."""
    if settings.threads is not None or device.type != "cpu":
        threads: int | None = settings.threads
        return threads
    return world.wanted_threads()


def build_world(settings: Settings) -> World:
    """The data sets or environments that the settings name."""
    if settings.env is not None:
        if settings.dataset is not None:
            raise ConfigError("dataset= and env= are both given. A run learns from one of them.")
        from .environments import build_environments

        return build_environments(settings)
    if settings.dataset is None:
        settings.values["dataset"] = {"_target_": "Digits"}
    world = build_data(settings)
    if world.single_class is not None:
        warn_caller(
            f"All rows of {world.name} have the same class ({world.single_class}): an accuracy of 1.0 means "
            "nothing."
        )
    return world


def complete(settings: Settings) -> None:
    """Fill in the defaults that depend on other settings.

    Raises:
        ConfigError: If settings contradict each other.
    """
    heed_loaders(settings)
    values = settings.values
    batch = _DEFAULT_BATCH if settings.env is None else _DEFAULT_ENV_BATCH
    defaults: dict[str, Any] = {"batch_size": _ONLINE_BATCH if settings.online else batch}
    if settings.env is not None:
        defaults |= {"learn_every": 1, "seed_steps": 1000}
        defaults |= {"normalize_obs": False, "normalize_reward": False}
    for key, value in {**defaults, **_usual(settings)}.items():
        if values[key] is None:
            values[key] = value
    if not settings.online:
        return
    if settings.scenario == "task":
        raise ConfigError("online=true tells no task, and scenario=task tells each. Choose one.")
    if settings.epochs not in (None, 1):
        raise ConfigError(f"online=true is a single pass; epochs={settings.epochs} is given too.")
    values["epochs"] = 1


def _usual(settings: Settings) -> dict[str, Any]:
    """The settings that come with the agent named, for acting in an environment."""
    if settings.env is None or settings.model is None or settings.offline is not None:
        return {}
    return usual(named_object(settings, "model")[0])


def build_agent(
    settings: Settings, world: WorldSpec, device: torch.device, transforms: tuple[Any, Any]
) -> tuple[nn.Module, nn.Module]:
    """What learns, on the device, and the user's module, constructed from the spec.

    They are one, but for a module that observes, which comes in an `Observer`, and one that does not
    say how it learns from an environment, which is the policy of an `AC2Agent`.

    Raises:
        ConfigError: If it cannot be constructed, or is no `nn.Module`.
    """
    if settings.model is None:
        settings.values["model"] = {"_target_": "AC2Agent"}
    target, arguments = named_object(settings, "model")
    made = makes_objects(target)
    if arguments and not made:
        raise ConfigError(
            f"The model is already constructed, so {', '.join(arguments)} cannot be set. Give its class "
            "instead."
        )
    table = inferred(world.spec, device=device)
    about = {
        "rl": settings.rl,
        "generate": settings.generate,
        "offline": settings.offline is not None,
        "standardize": settings.standardize,
        "train_steps": settings.train_steps or ENV_STEPS,
        "num_envs": settings.num_envs,
        **world.facts(),  # Among them a vector environment's own number of copies.
    }
    if _is_ours(target):  # In a user's class these names may mean anything.
        table |= about
    make = functools.partial(network, table=table, obs=world.spec.obs, instead=advice(world.spec))
    takes_normalised(target)  # If it is another run's, which has ended.
    agent, parts = target, {}
    taught = world.labelled or hook(target, "learn") is not None
    if taught or not has_forward(target):
        refuse_parts(settings, target)
        of_actions = made and judges_actions(target)
        parts = build_parts(settings, world.spec, device, of_actions=of_actions)
    if made and not observes(target):
        agent = make(target, {**arguments, **parts})
    if observes(agent):
        from ..mammoth.observe.observer import build_observer  # Few runs observe.

        agent = build_observer(
            agent,
            arguments if agent is target else {},
            settings,
            world,
            device,
            transforms=transforms,
            epochs=world.lengths(asked_lengths(settings)).epochs,
            network=make,
        )
    if not isinstance(agent, nn.Module):
        raise ConfigError(
            f"model={name_of(target)} gave a {type(agent).__name__}, not a torch.nn.Module."
        )
    own: Any = agent.own if traits(agent).observes else agent
    _check_train(own)
    if not world.labelled and has_forward(agent) and hook(agent, "learn") is None:
        refuse_parts(settings, AC2Agent)
        agent = _adopted(agent.to(device), settings, {**table, **about}, device)
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
    module: nn.Module, settings: Settings, table: dict[str, Any], device: torch.device
) -> AC2Agent:
    """The default agent with a module that does not say how it learns as its policy."""
    name = type(module).__name__
    if hook(module, "act") is not None:
        raise ConfigError(
            f"{name} has `forward` and `act`, but no `learn`. Leave `act` out, and the default agent "
            "explores for it and learns; or write learn(self, replay, log) too."
        )
    if settings.policy is not None:
        raise ConfigError(f"{name} has no `learn`: it is the policy already; policy= is given too.")
    spec = table["spec"]
    parts: dict[str, Any] = dict(build_parts(settings, spec, device, policy=module))
    parts["model"] = parts.pop("policy")
    options = {key: table[key] for key in ("environment", "rl", "generate", "offline")}
    return AC2Agent(spec, **options, **parts)


def build_transforms(
    settings: Settings, world: WorldSpec, device: torch.device
) -> tuple[Transform, Transform]:
    """How batches are made to learn from, and to evaluate with.

    Raises:
        ConfigError: If the augmentation cannot be constructed, or does not fit the inputs.
    """
    augment = None if settings.aug is None else functools.partial(_augmentation, settings)
    learning, plain = world.transforms(
        standardize=settings.standardize, device=device, augment=augment
    )
    if isinstance(learning.augment, Augmentation):
        unit = Standardize(world.spec.obs, standardize=False, device=device)
        check_augmentation(learning.augment, unit.observe(world.example(2, device)))
    return learning, plain


def build_pictures(settings: Settings, world: World, path: Path) -> Samples | None:
    """What draws a generative model's samples at every evaluation, or None."""
    if not (settings.plot and world.labelled):
        return None
    folder = path / "plots" / "samples"
    return Samples(folder, world.spec, standardize=settings.standardize, seed=settings.seed)


def build_strategies(
    settings: Settings,
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
    borders = world.borders(online=settings.online)
    named = named_strategies(settings, world.spec, device)
    if not named and world.scenario != "task":
        return None
    context = Context(
        agent,
        world.spec,
        scenario=world.scenario or "domain",
        classes=classes_of_tasks(world, told=world.labelled and borders),
        learn=quiet(learn_method(agent, world.spec, supervised=world.labelled)),
        augmented=transform.anew if transform.augment is not None else None,
        device=device,
        seed=settings.seed,
        outputs=OF_LABELS if world.labelled else outputs_of(agent, world.spec),
    )
    try:
        mistakes: Iterable[str] = ()
        if not world.labelled:
            steps = (
                0 if settings.offline else (settings.train_steps or ENV_STEPS) * len(world.tasks)
            )
            mistakes = unfit_in_environment(
                named, context, obs, steps=steps, capacity=settings.capacity
            )
        strategies = Strategies(named, context, borders=borders, mistakes=mistakes)
        if settings.ema is not None and (own := strategies.owning("weights")):
            raise ConfigError(
                f"strategy={own} keeps weights of each task as they are, and ema={settings.ema} evaluates "
                "with averages of them. Choose one of the two."
            )
    except BaseException:
        context.close()
        raise
    if strategies.idle and context.scenario != "task":
        context.close()
        return None
    return strategies


def named_strategies(settings: Settings, spec: Spec, device: torch.device) -> dict[str, Any]:
    """The strategies asked for, constructed, by their names.

    Raises:
        ConfigError: If one is unknown, cannot be constructed, or is asked for twice.
    """
    named: dict[str, Any] = {}
    table = inferred(spec, device=device)
    for target, arguments in (
        named_objects(settings, "strategy") if settings.strategy is not None else ()
    ):
        name = strategy_name(target)
        if name in named:
            raise ConfigError(f"strategy={name} is given twice.")
        made = makes_objects(target)
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
    settings: Settings,
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
    how, priorities = settings.replay, None
    if how["prioritized"]:
        steps = settings.train_steps or ENV_STEPS
        anneal = max(1, steps * len(world.tasks) // (settings.learn_every or 1))
        priorities = {"alpha": how["alpha"], "beta": how["beta"], "anneal": anneal}
    wishes = ReplayWishes(
        batch_size=settings.batch_size,
        device=device,
        seed=settings.seed,
        borders=world.borders(online=settings.online),
        capacity=settings.capacity,
        discount=settings.discount,
        nstep=settings.nstep,
        stack=settings.frame_stack,
        storage=how["storage"],
        folder=how["folder"],
        sequence=how["sequence"] or (_DEFAULT_SEQUENCE if recurrent else None),
        priorities=priorities,
        saved=saved,
    )
    try:
        return world.replay(transform, wishes)
    except CheckpointError as error:
        raise offline.refused(settings, error) from error


def own_optimizers(settings: Settings, agent: nn.Module) -> OwnOptimizers | None:
    """The optimisers that the model holds, beside what the settings say of one; None if it observes."""
    if traits(agent).observes:
        return None
    values = settings.values
    asked = [key for key in ("lr", "weight_decay") if values[key] is not None]
    if "optim" in settings.given or values["optim"] != {"_target_": "AdamW"}:
        asked.insert(0, "optim")
    return OwnOptimizers(agent, asked, settings.live.get("optim"))


def _augmentation(settings: Settings) -> Augmentation:
    steps = []
    for target, arguments in named_objects(settings, "aug"):
        if inspect.isclass(target):
            target = construct(target, arguments, {}, setting="aug")
        if not callable(target):
            raise ConfigError(f"aug={name_of(target)} cannot be called on images.")
        steps.append(target)
    return Augmentation(steps)
