"""From Mammoth's names and arguments to a run of ours."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...replay import ConfigError
from .. import build
from ..config import compose, did_you_mean, schema
from ..construct import resolve
from ..device import device_wanted
from ..naming import unresolved
from ..observe.observer import Observer
from ..observe.options import OF_THE_RUN
from ..observe.sequence import ContinualDataset
from ..randomness import forked_randomness, seed_everything
from .registry import DATASETS, MODELS

if TYPE_CHECKING:
    from ..run import Run

_NEEDED = ("lr", "batch_size", "n_epochs")
# Of Mammoth's own running, and without a meaning here.
_IDLE = ("num_workers", "debug_mode", "nowand", "wandb_name", "wandb_entity", "wandb_project")


def load_runner(
    model: str | None = None,
    dataset: str | None = None,
    args: Mapping[str, Any] | Namespace | None = None,
    **names: Any,
) -> tuple[Any, ContinualDataset]:
    """A model, made and ready to be trained, and its sequence of tasks.

    Args:
        model: A name given to `register_model`, or any that `ml(model=...)` knows.
        dataset: One of `DATASETS`, such as `seq-mnist`.
        args: `lr`, `batch_size` and `n_epochs`; the model's own options; `optimizer`, `optim_wd`,
            `optim_mom`, `optim_nesterov`, `backbone`, `seed`, `device`, `base_path`, `joint`; and any
            setting of `ml`.
        **names: The same as `model_name`, `dataset_name`, `experiment_args`.

    Raises:
        ConfigError: With every mistake at once.
    """
    known = {"model_name": model, "dataset_name": dataset, "experiment_args": args}
    if unknown := names.keys() - known.keys():
        raise ConfigError(f"load_runner has no argument {', '.join(unknown)}.")
    model, dataset, args = (names.get(name, value) for name, value in known.items())
    code = _settings(str(model), str(dataset), _plain(args))
    settings = compose((), code)
    if mistakes := unresolved(settings):
        raise ConfigError("\n".join(mistakes))
    build.complete(settings)
    device = build.build_device(device_wanted(settings))
    with forked_randomness(settings.seed):
        world = build.build_world(settings)
        transforms = build.build_transforms(settings, world, device)
        seed_everything(settings.seed)  # Weights do not depend on how the data was read.
        observer, _ = build.build_agent(settings, world, device, transforms)
    if not isinstance(observer, Observer):
        raise ConfigError(f"{model} has no `observe`. Train it with ml(model=...).")
    observer.dataset.settings = code
    return observer.model, observer.dataset


def train(
    model: Any, dataset: ContinualDataset, args: Mapping[str, Any] | Namespace | None = None
) -> Run:
    """Learn every task of the sequence, and score all of them after each.

    Args:
        model, dataset: What `load_runner` gave.
        args: Settings of the run to change, such as `n_epochs`, `path` or `resume`.

    Raises:
        ConfigError: If they are not of one `load_runner`, or `args` says something else than they do.
    """
    from ..ml import ml

    if dataset.settings is None or getattr(model, "dataset", None) is not dataset:
        raise ConfigError("train takes the model and the dataset of one load_runner(...).")
    settings = {key: value for key, value in dataset.settings.items() if key != "model"}
    made = vars(getattr(model, "args", Namespace()))
    for key, value in _plain(args).items():
        if key in made and made[key] == value and key not in ("batch_size", "n_epochs"):
            continue
        name = OF_THE_RUN.get(key, key)
        if name not in schema() or name in ("model", "dataset", "optim", "lr", "weight_decay"):
            raise ConfigError(
                f"train: {key}={value} comes too late, the model is made. Give it to load_runner."
            )
        settings[name] = value
    return ml(**settings, model=model)


def _plain(args: Mapping[str, Any] | Namespace | None) -> dict[str, Any]:
    return dict(vars(args) if isinstance(args, Namespace) else args or {})


def _settings(model: str, dataset: str, args: dict[str, Any]) -> dict[str, Any]:
    """What `ml` is asked for, in its own words."""
    mistakes = []
    target: Any = None
    if (key := model.replace("_", "-")) in MODELS:
        target = MODELS[key]
    else:
        try:
            target = resolve(model, "model")
        except ConfigError:
            near = did_you_mean(key, MODELS)
            mistakes.append(
                f"No model `{model}` is registered.{near} There are: {', '.join(MODELS)}."
            )
    place = dataset.replace("_", "-")
    if place not in DATASETS:
        near = did_you_mean(place, DATASETS)
        mistakes.append(f"No data set `{dataset}`.{near} There are: {', '.join(DATASETS)}.")
    if lacking := [name for name in _NEEDED if args.get(name) is None]:
        mistakes.append(f"load_runner needs {', '.join(lacking)} in args.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))

    settings = dict(DATASETS[place])
    options: dict[str, Any] = {}
    optim: dict[str, Any] = {}
    for key, value in args.items():
        if value is None or key in ("model", "dataset"):
            continue
        name = OF_THE_RUN.get(key, key)
        if key in _IDLE:
            warnings.warn(f"`{key}` has no effect here.", stacklevel=3)
        elif key == "joint":
            settings["tasks"] = 1 if value else settings["tasks"]
        elif key == "optimizer":
            optim["_target_"] = _optimizer_name(value)
        elif name.startswith("optim.") or name == "weight_decay":
            optim[name.removeprefix("optim.")] = value
        elif name in schema():
            settings[name] = value
        else:
            options[key] = value
    settings["model"] = {"_target_": target, **options}
    if optim:
        settings["optim"] = {"_target_": "SGD", **optim}
    return settings


def _optimizer_name(name: str) -> str:
    """`AdamW` of `adamw`."""
    return {own.lower(): own for own in dir(torch.optim)}.get(name.lower(), name)
