"""From settings to the parts of a run, in order: world, model, optimiser, replay."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..agents.ac2agent import AC2Agent
from ..agents.continual import NAMES as STRATEGIES
from ..agents.continual.context import Context
from ..agents.traits import has_forward, hook
from ..envs import datasets, folders, sources
from ..envs.forms import form
from ..envs.images import Pictures
from ..envs.numbering import number_labels
from ..envs.tasks import DataWorld
from ..replay import (
    CheckpointError,
    ConfigError,
    Normalizer,
    Observations,
    Replay,
    Standardize,
    Transitions,
)
from ..replay.devices import has_float64
from ..replay.offline import opened
from ..replay.samplers import batch_sizes
from ..replay.tree import leaves
from . import offline
from .augmentation import Augmentation, check_augmentation
from .config import Settings, name_of
from .construct import construct, resolve, vector_form
from .device import build_device as build_device
from .infer import advice, inferred
from .learner import learn_method, quiet
from .loop import Schedule
from .naming import canonical_name, makes_objects, named_object
from .networks import network
from .observe.observer import Observer, build_observer
from .observe.options import observes
from .own_optimizer import OwnOptimizers
from .parts import build_parts, judges_actions, refuse_parts
from .plots.samples import Samples
from .schedulers import Plan
from .strategies import Strategies

_AGENTS = AC2Agent.__module__.rpartition(".")[0]  # The package of our own.
_DEFAULT_EPOCHS = 10
_DEFAULT_BATCH = 32
_DEFAULT_ENV_BATCH = 128
_ONLINE_BATCH = 10
_DEFAULT_ENV_STEPS = 50_000
_DEFAULT_ENV_EVALUATION = 10_000
_DEFAULT_SEQUENCE = 16


def build_threads(settings: Settings, world: Any, device: torch.device) -> int | None:
    """How many threads torch is to use, or None: as many as it wants.

    The small networks of most environments are slower with two (0.74 times on DQN's).
    """
    if settings.threads is not None or device.type != "cpu" or world.on_data:
        return settings.threads
    return None if _has_images(world.spec.obs) else 1


def _has_images(space: Any) -> bool:
    if isinstance(space, dict):
        return any(_has_images(part) for part in space.values())
    return len(space.shape) == 3


def _dims(space: Any) -> int:
    """How many dimensions an observation has, or the largest part of one."""
    if isinstance(space, dict):
        return max(_dims(part) for part in space.values())
    return len(space.shape)


def build_world(settings: Settings) -> Any:
    """The data sets or environments that the settings name."""
    if settings.env is not None:
        if settings.dataset is not None:
            raise ConfigError("dataset= and env= are both given. A run learns from one of them.")
        return _environments(settings)
    if settings.dataset is None:
        settings.values["dataset"] = {"_target_": "Digits"}
    data_dir = Path(settings.data_dir) if settings.data_dir else sources.default_data_dir()
    options = {"data_dir": data_dir, "channels": settings.channels}
    parts = held_out = _parts(settings, "dataset")
    own = settings.test_dataset is None  # The data sets' own test parts, where they have any.
    if not own and len(held_out := _parts(settings, "test_dataset")) != len(parts):
        raise ConfigError(
            f"test_dataset= names {len(held_out)} data sets, dataset= names {len(parts)}."
        )
    train: list[datasets.Arrays] = []
    test: list[datasets.Arrays | None] = []
    notes: list[str] = []
    decoded: set[bool] = set()
    for (part, arguments), (other, others) in zip(parts, held_out, strict=True):
        part = folders.open_folder(part) if isinstance(part, Path) else part
        of_folder = isinstance(part, folders.Parts)
        if own:
            other = part
        elif isinstance(other, Path):
            other = folders.open_folder(other)
            other = other.numbered_as(part) if of_folder else other
        # Held-out images are given the size and the channels of those that are learnt from.
        pictures = Pictures(settings.image_size, colour=of_folder)
        options["pictures"] = pictures
        arrays = _arrays(part, arguments, train=True, **options)
        assert arrays is not None
        said: dict[str, Any] | None = others
        if own and makes_objects(part):
            said = sources.own_test_arguments(part, arguments)
        rest = None
        if said is not None:
            rest = _arrays(other, said, train=False, role="held-out ", **options)
            if rest is None and not own:  # Without parts: all of it.
                rest = _arrays(other, said, train=True, role="held-out ", **options)
        # Classes are chosen by the number that both parts know them by.
        arrays, rest = number_labels(arrays, rest)
        train.append(_of_classes(arrays, arguments))
        test.append(None if rest is None else _of_classes(rest, others))
        decoded.add(pictures.size is not None)
        notes += part.notes if of_folder else []
        notes += [note] if (note := pictures.describe()) else []
    world = DataWorld(
        train,
        test,
        tasks=settings.tasks,
        classes_per_task=settings.classes_per_task,
        class_order=settings.class_order,
        scenario=settings.scenario,
        validation=settings.validation,
        seed=settings.seed,
        standardize=settings.standardize if "standardize" in settings.given else None,
    )
    world.notes += notes
    world.decoded = decoded
    if world.single_class is not None:
        warnings.warn(
            f"All rows of {world.name} are of one class ({world.single_class}): an accuracy of 1.0 means "
            "nothing.",
            stacklevel=4,
        )
    return world


def complete(settings: Settings) -> None:
    """Fill in the defaults that depend on other settings.

    Raises:
        ConfigError: If settings contradict each other.
    """
    values = settings.values
    if values["batch_size"] is None:
        usual = _DEFAULT_BATCH if settings.env is None else _DEFAULT_ENV_BATCH
        values["batch_size"] = _ONLINE_BATCH if settings.online else usual
    if not settings.online:
        return
    if settings.scenario == "task":
        raise ConfigError("online=true tells no task, and scenario=task tells each. Choose one.")
    if settings.epochs not in (None, 1):
        raise ConfigError(f"online=true is a single pass; epochs={settings.epochs} is given too.")
    values["epochs"] = 1


def build_agent(
    settings: Settings, world: Any, device: torch.device, transforms: tuple[Any, Any]
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
            f"The model is an instance; it cannot be given {', '.join(arguments)} any more. Give "
            "its class instead."
        )
    table = inferred(world.spec, device=device)
    about = {
        "environment": not world.on_data,
        "rl": settings.rl,
        "generate": settings.generate,
        "offline": settings.offline is not None,
        "standardize": settings.standardize,
    }
    if _is_ours(target):  # In a user's class these names may mean anything.
        table |= about
    make = functools.partial(network, table=table, obs=world.spec.obs, instead=advice(world.spec))
    agent, parts = target, {}
    taught = world.on_data or hook(target, "learn") is not None
    if taught or not has_forward(target):
        refuse_parts(settings, target)
        of_actions = made and judges_actions(target)
        parts = build_parts(settings, world.spec, device, of_actions=of_actions)
    if made and not observes(target):
        agent = make(target, {**arguments, **parts})
    if observes(agent):
        agent = build_observer(
            agent,
            arguments if agent is target else {},
            settings,
            world,
            device,
            transforms=transforms,
            epochs=build_schedule(settings, world).epochs,
            network=make,
        )
    if not isinstance(agent, nn.Module):
        raise ConfigError(
            f"model={name_of(target)} gave a {type(agent).__name__}, not a torch.nn.Module."
        )
    own = agent.own if isinstance(agent, Observer) else agent
    _check_train(own)
    if not world.on_data and has_forward(agent) and hook(agent, "learn") is None:
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


def build_transforms(settings: Settings, world: Any, device: torch.device) -> tuple[Any, Any]:
    """How batches are made to learn from, and to evaluate with."""
    if not world.on_data:
        transform = Observations(world.spec.obs, world.normalizer)
        return transform, transform
    space, standardize = world.spec.obs, settings.standardize
    plain = Standardize(space, standardize=standardize, device=device)
    if settings.aug is None:
        return plain, plain
    augment = _augmentation(settings)
    augmented = Standardize(space, standardize=standardize, augment=augment, device=device)
    obs = Standardize(space, standardize=False, device=device)(world.example(device))["obs"]
    check_augmentation(augment, obs)
    return augmented, plain


def build_pictures(settings: Settings, world: Any, path: Path) -> Samples | None:
    """What draws a generative model's samples at every evaluation, or None."""
    if not (settings.plot and world.on_data):
        return None
    folder = path / "plots" / "samples"
    return Samples(folder, world.spec, standardize=settings.standardize, seed=settings.seed)


def build_strategies(
    settings: Settings, world: Any, agent: nn.Module, transform: Any, device: torch.device
) -> Strategies | None:
    """The strategies of continual learning asked for; None where nothing has to be done.

    Raises:
        ConfigError: If one cannot be constructed or does not fit the run, or two conflict.
    """
    if not world.on_data:
        if settings.strategy is not None:
            raise ConfigError("strategy= is of data sets: environments have no labels to rehearse.")
        return None
    named: dict[str, Any] = {}
    table = inferred(world.spec, device=device)
    for target, arguments in _parts(settings, "strategy") if settings.strategy is not None else ():
        name = strategy_name(target)
        if name in named:
            raise ConfigError(f"strategy={name} is given twice.")
        made = makes_objects(target)
        if arguments and not made:
            raise ConfigError(f"strategy={name} is an instance; it takes no arguments any more.")
        named[name] = construct(target, arguments, table, setting="strategy") if made else target
    if not named and world.scenario != "task":
        return None
    outputs = torch.arange(world.spec.action.n) if world.spec.discrete else torch.arange(0)
    hidden = settings.online or not world.spec.discrete
    context = Context(
        agent,
        world.spec,
        scenario=world.scenario or "domain",
        classes=[outputs if hidden else task.classes for task in world.tasks],
        learn=quiet(learn_method(agent, world.spec, supervised=True)),
        augmented=transform.anew if transform.augment is not None else None,
        device=device,
        seed=settings.seed,
    )
    try:
        strategies = Strategies(named, context, borders=not settings.online)
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


def strategy_name(strategy: Any) -> str:
    """`er` of our own `ER`, or the name of a class of the user's."""
    name = strategy.__name__ if makes_objects(strategy) else type(strategy).__name__
    ours = {own: short for short, own in STRATEGIES["strategy"].items()}
    return ours.get(name, name)


def build_replay(
    settings: Settings,
    world: Any,
    transform: Callable[..., Any],
    device: torch.device,
    *,
    recurrent: bool = False,
    saved: dict[str, Any] | None = None,
) -> Replay:
    """The replay over the world's storage.

    Args:
        recurrent: Whether the model meets sequences.
        saved: The transitions to learn from offline; None: those that are made.

    Raises:
        CheckpointError: If those saved are of another environment.
    """
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "device": device,
        "seed": settings.seed,
    }
    if world.on_data:
        rows = [task.train for task in world.tasks]
        borders = not settings.online
        return Replay(
            world.train, transform, tasks=rows, alter=world.alter, borders=borders, **options
        )
    how = settings.replay
    where = {"storage": how["storage"], "folder": how["folder"], "device": device}
    if how["storage"] == "gpu" and _rounds_before_normalising(world, device):
        warnings.warn(
            f"{device} has no float64, and with replay.storage=gpu float64 observations are kept there as "
            "float32, before normalize_obs takes their mean off. Leave replay.storage out if they lie far "
            "from zero, as a clock does.",
            stacklevel=2,
        )
    if saved is None:
        storage = Transitions(
            world.spec,
            capacity=settings.capacity,
            num_envs=world.num_envs,
            discount=settings.discount,
            nstep=settings.nstep,
            stack=settings.frame_stack,
            **where,
        )
    else:
        try:
            storage = opened(world.spec, saved, **where)
        except CheckpointError as error:
            raise offline.refused(settings, error) from error
    priorities = None
    if how["prioritized"]:
        steps = settings.train_steps or _DEFAULT_ENV_STEPS
        anneal = max(1, steps * len(world.tasks) // settings.learn_every)
        priorities = {"alpha": how["alpha"], "beta": how["beta"], "anneal": anneal}
    sequence = how["sequence"] or (_DEFAULT_SEQUENCE if recurrent else None)
    return Replay(storage, transform, sequence=sequence, priorities=priorities, **options)


def _rounds_before_normalising(world: Any, device: torch.device) -> bool:
    """Whether observations that are to be normalised have more digits than a device can keep."""
    if has_float64(device.type) or world.normalizer is None or not world.normalizer.moments:
        return False
    spaces = leaves(world.spec.obs)
    return any(space.dtype == torch.float64 for space in spaces)


def build_schedule(settings: Settings, world: Any) -> Schedule:
    """How long, and how often."""
    on_data = world.on_data
    epochs, train_steps = settings.epochs, settings.train_steps
    eval_every = settings.eval_every
    if on_data and epochs is None and train_steps is None:
        epochs = _DEFAULT_EPOCHS
    if not on_data:
        epochs, train_steps = None, train_steps or _DEFAULT_ENV_STEPS
        eval_every = eval_every or _DEFAULT_ENV_EVALUATION
    return Schedule(
        epochs=epochs,
        train_steps=train_steps,
        eval_every=eval_every,
        learn_every=1 if on_data else settings.learn_every,
        seed_steps=0 if on_data else settings.seed_steps,
        log_every=settings.log_every,
        patience=settings.early_stopping["patience"],
        borders=not settings.online,
        validation=on_data and world.tasks[0].validation is not None,
    )


def build_plans(schedule: Schedule, settings: Settings, world: Any) -> list[Plan]:
    """How long each task is for a scheduler; a single plan where tasks are not told apart."""
    accumulate, epochs, steps = settings.accumulate, schedule.epochs, schedule.train_steps
    if not world.on_data:
        every, taken = schedule.learn_every, 1 if settings.offline else world.num_envs
        plans = []
        for task in range(len(world.tasks)):
            share = taken * -(-(steps or 0) // taken)  # Environment steps, all copies at once.
            begin, end = task * share, (task + 1) * share
            if begin < schedule.seed_steps:  # The first that is learnt after counts whole.
                begin = taken * max(0, -(-schedule.seed_steps // taken) - 1)
            learnt = max(0, end // every - min(begin, end) // every)
            plans.append(Plan(learnt, None, None, accumulate))
        return plans
    batches = [len(batch_sizes(len(task.train), settings.batch_size)) for task in world.tasks]
    if not schedule.borders:
        return [Plan(steps and steps * len(batches), epochs, sum(batches), accumulate)]
    return [Plan(steps, epochs, count, accumulate) for count in batches]


def evaluates_in_task(schedule: Schedule, plans: list[Plan], world: Any) -> bool:
    """Whether there is an evaluation before the end of a task."""
    if schedule.eval_every is None:
        single = len(world.tasks) == 1 and schedule.epochs is not None
        return single and plans[0].length("epoch") > 1
    steps = [plan.learning_steps if world.on_data else schedule.train_steps or 0 for plan in plans]
    return schedule.eval_every < sum(steps)


def total_steps(schedule: Schedule, settings: Settings, world: Any) -> int | None:
    """Steps of the whole run, as far as they are known before."""
    if not world.on_data:
        return (schedule.train_steps or 0) * len(world.tasks)
    total = 0
    for task in world.tasks:
        steps = [] if schedule.train_steps is None else [schedule.train_steps]
        if schedule.epochs is not None:
            batches = len(batch_sizes(len(task.train), settings.batch_size))
            steps.append(schedule.epochs * batches)
        total += min(steps)
    return total


# Settings that only one of the two kinds of world reads.
ENV_ONLY = (
    "num_envs",
    "vectorization",
    "frame_stack",
    "action_repeat",
    "time_limit",
    "discrete",
    "bins",
    "normalize_obs",
    "normalize_reward",
    "nstep",
    "discount",
    "capacity",
    "seed_steps",
    "learn_every",
    "eval_episodes",
    "video",
    "replay",
)
DATA_ONLY = (
    "test_dataset",
    "data_dir",
    "data",
    "standardize",
    "aug",
    "image_size",
    "tasks",
    "classes_per_task",
    "class_order",
    "scenario",
    "online",
    "validation",
    "epochs",
    "lr_decay_epochs",
)


def without_effect(settings: Settings, world: Any) -> list[str]:
    """Settings that were given but that this run does not read."""
    unread = list(ENV_ONLY if world.on_data else DATA_ONLY)
    if _dims(world.spec.obs) < 3 or (world.on_data and world.decoded == {True}):
        unread.append("channels")
    if world.on_data and world.decoded == {False}:
        unread.append("image_size")
    if not world.on_data and settings.normalize_obs and not world.normalizer.moments:
        unread.append("normalize_obs")  # Images and choices alone, which stay as they are.
    optimizer = settings.live.get("optim")
    if optimizer is not None and not makes_objects(optimizer):
        unread += ["lr", "weight_decay"]
    return [key for key in unread if key in settings.given]


def optimiser_settings(settings: Settings) -> list[str]:
    """Settings that were given and that only Antelope's own optimiser reads."""
    keys = ["optim", "lr", "weight_decay", "scheduler", "scheduler_every", "lr_decay_epochs"]
    keys += ["clip_grad", "ema", "accumulate"]
    return [key for key in keys if key in settings.given]


def own_optimizers(settings: Settings, agent: nn.Module) -> OwnOptimizers | None:
    """The optimisers that the model holds, beside what the settings say of one; None if it observes."""
    if isinstance(agent, Observer):
        return None
    values = settings.values
    asked = [key for key in ("lr", "weight_decay") if values[key] is not None]
    if "optim" in settings.given or values["optim"] != {"_target_": "AdamW"}:
        asked.insert(0, "optim")
    return OwnOptimizers(agent, asked, settings.live.get("optim"))


def _parts(settings: Settings, key: str) -> list[tuple[Any, dict[str, Any]]]:
    """The objects that `dataset=` or `env=` names, one per task, each with its arguments."""
    value = settings.live.get(key, settings.values[key])
    of_data = key in ("dataset", "test_dataset")
    kind = form(value) if of_data else "sequence" if isinstance(value, (list, tuple)) else "one"
    if kind == "unclear":
        raise ConfigError(
            f"{key}= is a pair of pairs: two tasks, or training and held-out data? Write a sequence as a "
            "list of tuples, [(x, y), (x, y)], and held-out data as dataset=(x, y), test_dataset=(x, y)."
        )
    if kind == "vectors":
        raise ConfigError(
            f"{key}= lists {len(value)} pairs of vectors: items (input, target), or {len(value)} data sets "
            "with one number per row? Write items as one pair of arrays, (numpy.stack(inputs), "
            "numpy.stack(targets)), and the inputs of data sets as columns, x[:, None]."
        )
    if kind == "arrays":
        raise ConfigError(
            f"{key}= holds {len(value)} arrays. Give a pair (inputs, targets), several inputs joined "
            "into one array; held-out data is test_dataset=(inputs, targets)."
        )
    if kind != "sequence":
        return [_folder(value) or named_object(settings, key)]
    parts: list[tuple[Any, dict[str, Any]]] = []
    names: list[Any] = []
    for item in value:
        arguments: dict[str, Any] = {}
        if isinstance(item, dict):
            arguments = {k: v for k, v in item.items() if k != "_target_"}
            item = item["_target_"]
        name = item if isinstance(item, str) else name_of(item)
        if isinstance(item, str):
            item = sources.folder_of(item) or resolve(item, key)
            name = canonical_name(name, item)
        parts.append((item, arguments))
        names.append({"_target_": name, **arguments} if arguments else name)
    settings.values[key] = names
    return parts


def _folder(value: Any) -> tuple[Path, dict[str, Any]] | None:
    """The folder that a setting names, and its sub-keys; None if it names none."""
    if not isinstance(value, dict) or (path := sources.folder_of(value.get("_target_"))) is None:
        return None
    return path, {k: v for k, v in value.items() if k != "_target_"}


def _arrays(
    part: Any,
    arguments: dict[str, Any],
    *,
    train: bool,
    data_dir: Path,
    pictures: Pictures,
    channels: str | None,
    role: str = "",
) -> datasets.Arrays | None:
    """One part of the world in memory, or None for a test part that it has not got."""
    arguments = {key: value for key, value in arguments.items() if key != "subset"}
    name = _data_name(part)
    if isinstance(part, folders.Parts):
        if arguments:
            raise ConfigError(
                f"A folder has no argument `{next(iter(arguments))}`. It takes: subset."
            )
        source = part.train if train else part.held_out
    elif makes_objects(part):
        inference = sources.split_arguments(part, train=train, data_dir=data_dir)
        if inference is None:
            return None
        source = sources.open_dataset(
            lambda: construct(part, {**inference, **arguments}, {}, setting="dataset"),
            name=name,
            data_dir=data_dir,
        )
    else:
        source = part if train else None
    if source is None:
        return None
    return datasets.read(source, name=f"{role}{name}", pictures=pictures, channels=channels)


def _of_classes(arrays: datasets.Arrays, arguments: dict[str, Any]) -> datasets.Arrays:
    """The classes that `subset=` chooses, if it does."""
    subset = arguments.get("subset")
    return arrays if subset is None else datasets.take_classes(arrays, list(subset))


def _data_name(part: Any) -> str:
    if isinstance(part, folders.Parts):
        return part.path.resolve().name
    if isinstance(part, (tuple, list)):
        return "arrays"
    return getattr(part, "__name__", type(part).__name__)


def _augmentation(settings: Settings) -> Augmentation:
    steps = []
    for target, arguments in _parts(settings, "aug"):
        if inspect.isclass(target):
            target = construct(target, arguments, {}, setting="aug")
        if not callable(target):
            raise ConfigError(f"aug={name_of(target)} cannot be called on images.")
        steps.append(target)
    return Augmentation(steps)


def _environments(settings: Settings) -> Any:
    from ..envs.environments import EnvTask, EnvWorld, normalized_shapes
    from ..envs.wrappers import wrapped

    tasks: list[EnvTask] = []
    for number, (target, arguments) in enumerate(_parts(settings, "env")):
        if not callable(target):
            raise ConfigError(
                f"env={name_of(target)} cannot be copied. Give a gymnasium id, a class, or a function "
                "that makes the environment."
            )
        # Constructed without a word of the spec: environments are where it comes from.
        make = functools.partial(_make_env, target, arguments)
        wrappers = {
            "discrete": settings.discrete,
            "bins": settings.bins,
            "action_repeat": settings.action_repeat,
            "time_limit": settings.time_limit,
        }
        tasks.append(
            EnvTask(
                functools.partial(wrapped, make, **wrappers),
                name=getattr(target, "__name__", type(target).__name__),
                num_envs=settings.num_envs,
                vectorization=settings.vectorization,
                make_vector=_wrapped_vector(vector_form(target, arguments), wrappers),
                stack=settings.frame_stack,
                channels=settings.channels,
                seed=settings.seed + number,
                video=settings.video,
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


def _wrapped_vector(
    form: Callable[[int], Any] | None, wrappers: dict[str, Any]
) -> Callable[[int], Any] | None:
    """A vector form that refuses what can only be put around single environments."""
    from ..envs.wrappers import wrapped

    if form is None:
        return None
    return lambda n: wrapped(functools.partial(form, n), **wrappers)


def _make_env(target: Any, arguments: dict[str, Any], **more: Any) -> Any:
    return construct(target, {**arguments, **more}, {}, setting="env")
