"""What a run is going to be: every name resolved, every default decided, and immutable from then on."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from ...agents.usual import usual
from ...replay.errors import ConfigError
from .loaders import heed_loaders
from .lookup import named_object, named_objects, unresolved
from .named import Named
from .plain_yaml import dump
from .schema import PARTS, schema
from .settings import Settings
from .wrappers import named_wrappers

# What later data of a run shares with its first data, if that is a table.
_OF_TABLES = ("target", "target_type", "inputs", "drop", "categories", "missing")
_DEFAULT_BATCH = 32
_DEFAULT_ENV_BATCH = 128
_ONLINE_BATCH = 10


@dataclass(frozen=True)
class EarlyStopping:
    """When training on a task stops early; see `early_stopping` in config.yaml."""

    patience: int | None
    restore: bool
    metric: str | None = None
    mode: str | None = None


@dataclass(frozen=True)
class ReplayPlan:
    """How transitions are stored and sampled; see `replay` in config.yaml."""

    storage: str
    folder: str | None
    sequence: int | None
    prioritized: bool
    alpha: float
    beta: float


@dataclass(frozen=True)
class Plan:
    """A run before anything is built: immutable, and without tensors.

    Fields have the names and meanings of the settings in config.yaml. Where a setting names objects, the
    field holds what was found: a `Named`, or one per item of a list.

    Attributes:
        parts: Modules named for parts of the agent: `encoder`, `policy`, `critic`, ...
        values: All settings as plain values, as `config.yaml` and checkpoints hold them: without secrets.
        given: Names of the settings that console words, code or a preset set.
        objects: Dotted names of the settings that were given as Python objects.
        preset: The preset's name or file, or None.
    """

    # What to train, and on what
    model: Named
    dataset: tuple[Named, ...] | None
    test_dataset: tuple[Named, ...] | None
    env: tuple[Named, ...] | None
    parts: Mapping[str, Named]
    # Data sets
    data_dir: str | None
    storage: str
    shuffle_buffer: int
    batch_size: int
    standardize: bool
    aug: tuple[Named, ...] | None
    image_size: int | None
    channels: str | None
    target: list[str] | None
    target_type: str | None
    inputs: list[str] | None
    drop: list[str] | None
    categories: list[str] | None
    missing: str | None
    # The default agent, and parts of agents
    generate: bool
    rl: bool
    offline: str | None
    init: str | None
    head_bias: Any
    # Continual learning
    tasks: int | None
    classes_per_task: int | list[int] | None
    num_classes: int | None
    class_order: str | list[int] | None
    scenario: str | None
    online: bool
    validation: float | None
    strategy: tuple[Named, ...] | None
    # Environments
    num_envs: int
    vectorization: str
    env_timeout: float | None
    env_retry: int
    frame_stack: int
    env_wrappers: tuple[Named, ...] | None
    action_repeat: int
    time_limit: int | None
    discrete: bool | None
    bins: int
    env_info: list[str] | None
    normalize_obs: bool
    normalize_reward: bool
    nstep: int
    discount: float
    capacity: int
    seed_steps: int
    learn_every: int
    eval_episodes: int
    eval_limit: int | None
    video: bool
    replay: ReplayPlan
    # Optimisation
    loss: Named | None
    optim: Named
    lr: float | None
    weight_decay: float | None
    scheduler: Named | None
    scheduler_every: str | None
    lr_decay_epochs: int | None
    accumulate: int
    clip_grad: float | None
    on_nan: str
    ema: float | None
    precision: str
    compile: bool
    # How long
    epochs: int | None
    train_steps: int | None
    eval_every: int | None
    eval_rows: int | None
    eval_future: bool
    early_stopping: EarlyStopping
    # What is measured, and called
    metrics: tuple[Named, ...] | None
    callbacks: tuple[Named, ...] | None
    # Where and how
    seed: int
    device: str | None
    devices: int | str
    data: str
    threads: int | None
    deterministic: bool
    cudnn_benchmark: bool | None
    channels_last: bool | None
    # Runs
    experiment: str
    path: str | None
    resume: bool | str
    override: list[str] | None
    trust: bool
    load: str | None
    save_every: int | None
    save_patience: int
    log_every: int
    loggers: list[str]
    render_model: bool
    plot: bool
    progress: bool
    debug: bool
    # What the settings were
    values: Mapping[str, Any] = field(repr=False)
    given: frozenset[str]
    objects: tuple[str, ...]
    preset: str | None

    def decided(self, **changes: Any) -> Plan:
        """A copy with settings that were saved elsewhere, such as those of a saved replay."""
        values = {**self.values, **changes}
        return replace(self, values=MappingProxyType(values), **changes)

    def yaml(self) -> str:
        """The text of `config.yaml`."""
        return dump(dict(self.values))


def make_plan(
    settings: Settings, *, names: Collection[str] | None = None, of_run: Plan | None = None
) -> Plan:
    """Resolve every name and decide every default.

    Args:
        names: The settings whose names are resolved; None: all. The others hold their text.
        of_run: The plan of the run that the named data is added to.

    Raises:
        ConfigError: With every mistake in names and in their arguments, or for settings that contradict
            each other.
    """
    # Names are recorded in full, and defaults filled in, in a copy: whoever composed the settings may
    # make another plan of them, and nobody can change this one through them.
    settings = replace(settings, values=copy.deepcopy(settings.values))
    if names is None and (mistakes := unresolved(settings)):
        raise ConfigError("\n".join(mistakes))
    values = settings.values
    if of_run is not None:
        for key in ("data_dir", "image_size", "channels", *_OF_TABLES):
            values[key] = of_run.values[key]
    _check_source(settings)
    for key, name in (("model", "AC2Agent"), ("dataset", "Digits")):
        if values[key] is None and not (key == "dataset" and settings.env is not None):
            values[key] = {"_target_": name}
    heed_loaders(settings, batch_size=None if of_run is None else of_run.batch_size)
    wanted = schema() if names is None else names
    found = {
        key: _named(settings, key) if key in wanted else _unresolved(settings, key)
        for key, setting in schema().items()
        if setting.names_object
    }
    _complete(settings, found["model"][0])
    nested = {
        "early_stopping": EarlyStopping(**values["early_stopping"]),
        "replay": ReplayPlan(**values["replay"]),
        "precision": str(values["precision"]),
    }
    single: dict[str, Any] = {
        key: named[0] if named else None
        for key, named in found.items()
        if schema()[key].kind == "name" and key not in PARTS
    }
    several = {key: named or None for key, named in found.items() if schema()[key].kind == "names"}
    about = {
        "parts": {key: found[key][0] for key in PARTS if found[key]},
        "values": MappingProxyType(settings.written()),
        "given": frozenset(settings.given),
        "objects": tuple(sorted(settings.live)),
        "preset": settings.preset,
    }
    plain = {f.name: values[f.name] for f in fields(Plan) if f.name in values}
    return Plan(**{**plain, **nested, **single, **several, **about})


def _check_source(settings: Settings) -> None:
    """Raise ConfigError for settings that contradict what the run learns from."""
    if settings.env is None:
        return
    if settings.dataset is not None:
        raise ConfigError("dataset= and env= are both given. A run learns from one of them.")
    if "loss" in settings.given:
        raise ConfigError(
            "loss= compares outputs with a data set's targets, and an environment has none. Leave it out, or "
            "write learn(self, replay), which may return any loss."
        )


def _named(settings: Settings, key: str) -> tuple[Named, ...]:
    """What a setting names; empty if it is not set."""
    if settings.values[key] is None and key not in settings.live:
        return ()
    if key == "env_wrappers":
        return tuple(named_wrappers(settings))
    if schema()[key].kind == "names":
        return tuple(named_objects(settings, key))
    return (named_object(settings, key),)


def _unresolved(settings: Settings, key: str) -> tuple[Named, ...]:
    """The text of a setting whose names are not looked up."""
    value = settings.values[key]
    return () if value is None else (Named(key, None, {}, str(value)),)


def _complete(settings: Settings, model: Named) -> None:
    """Fill in the defaults that depend on other settings.

    Raises:
        ConfigError: If settings contradict each other.
    """
    values, acts = settings.values, settings.env is not None
    batch = _DEFAULT_ENV_BATCH if acts else _DEFAULT_BATCH
    defaults: dict[str, Any] = {"batch_size": _ONLINE_BATCH if settings.online else batch}
    if acts:
        defaults |= {"learn_every": 1, "seed_steps": 1000}
        defaults |= {"normalize_obs": False, "normalize_reward": False}
    if acts and settings.offline is None:
        defaults |= usual(model.target)
    for key, value in defaults.items():
        if values[key] is None:
            values[key] = value
    if not settings.online:
        return
    if settings.scenario == "task":
        raise ConfigError(
            "online=true hides task labels, but scenario=task provides them. Choose one."
        )
    if settings.epochs not in (None, 1):
        raise ConfigError(
            f"online=true is a single pass, so epochs={settings.epochs} contradicts it. Leave one out."
        )
    values["epochs"] = 1
