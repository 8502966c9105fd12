"""Checks the arguments of `load_runner`, and translates them to settings of `ml`."""

from __future__ import annotations

import functools
import inspect
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...agents.traits import hook
from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.names import resolve
from ..settings.schema import schema
from .arguments import (
    IDLE,
    SERVED,
    is_default,
    known,
    means_nothing,
    read,
    refuse,
    served,
    share_of,
)
from .methods import compatibility
from .options import OF_THE_RUN, declared, defaults
from .registry import BACKBONES, CLASSES, DATASETS, MODELS, SEQUENCES, USUAL, key_of
from .tasks.own_sequence import make_sequence, permutation, sequence_options
from .tasks.sequence import ContinualDataset


class Asked:
    """The arguments of one `load_runner` call.

    Args:
        model: A registered name, or one that `ml(model=...)` knows.
        dataset: A registered name.
        args: Arguments by the names of Mammoth, and settings of `ml`.

    Attributes:
        args: The given ones, completed with defaults of the model and of the data set.
        values: The arguments that every model has, with their defaults.
        target: The model's class.
        sequence: The user's data set class, or a function that makes one; None for a built-in name.
        network: What makes the network; None for the default one.
        of_sequence: Arguments of the data set's class or function, with their defaults.
        of_network: Names of the network's arguments.

    Raises:
        ConfigError: With every mistake at once.
    """

    def __init__(self, model: str, dataset: str, args: dict[str, Any]):
        mistakes: list[str] = []
        self.args = read(args, mistakes)
        unreadable = set(args) - set(self.args)  # Already reported; not missing as well.
        self.dataset_name = key_of(dataset)
        self.target = _registered(model, MODELS, "model", mistakes)
        if self.dataset_name not in {**DATASETS, **SEQUENCES}:
            near = did_you_mean(self.dataset_name, {**DATASETS, **SEQUENCES})
            there = ", ".join([*DATASETS, *SEQUENCES])
            mistakes.append(f"No data set `{dataset}`.{near} There are: {there}.")
        self.sequence = sequence = SEQUENCES.get(self.dataset_name)
        self._fill_in()
        # With fitting_mode=iters a task ends after `n_iters` steps, so that nobody needs to know epochs.
        iterations = self.args.get("fitting_mode") == "iters"
        needed = [key for key in _NEEDED if not (key == "n_epochs" and iterations)]
        needed = [key for key in needed if key not in unreadable]
        if lacking := [name for name in needed if self.args.get(name) is None]:
            mistakes.append(f"load_runner needs {', '.join(lacking)} in args.")
        self.values = served(self.args, mistakes)
        # Checked before anything is built: a typing error here should not cost a download of the data.
        path = self.values["loadcheck"]
        if path is not None and not Path(path).exists():
            mistakes.append(_nothing_at(Path(path)))
        self.network = self._network(mistakes)
        self.of_sequence = sequence_options(sequence) if sequence is not None else {}
        self.of_network = _named(self.network) if self.network is not None else []
        if self.target is not None:
            self._refuse_unknown(model, mistakes)
        refuse(mistakes)

    def _fill_in(self) -> None:
        """Complete the arguments with defaults: the data set's, overridden by the model's, as in Mammoth."""
        usual = dict(USUAL.get(self.dataset_name, {}))
        for key, method in (("n_epochs", "get_epochs"), ("batch_size", "get_batch_size")):
            if (own := self._said_by_class(method)) is not None:
                usual[key] = own
        # Milestones belong to the data set's own scheduler; another one would refuse them.
        if self.args.get("lr_scheduler") is not None:
            usual.pop("lr_milestones", None)
        usual |= {key: value for key, value in defaults(self.target).items() if key in _NEEDED}
        # Mammoth's parsers fill `args` with None; that must not hide a default.
        given = {key: value for key, value in self.args.items() if value is not None}
        self.args = {**self.args, **usual, **given}

    def _network(self, mistakes: list[str]) -> Any:
        """The class, function or module that `backbone` or the data set names; None if neither does."""
        name = self.args.get("backbone")
        if name is None:
            name = self._said_by_class("get_backbone")
        if name is None:
            return None
        if not isinstance(name, str):
            if not callable(name):
                mistakes.append(f"backbone={name}: expected a name, a class or a module.")
                return None
            return name
        self.values["backbone"] = name
        return _registered(name, BACKBONES, "backbone", mistakes)

    def _said_by_class(self, method: str) -> Any:
        """The value of a static method of the data set's class, such as `get_epochs`; None if it has none."""
        own = hook(self.sequence, method)
        # The base class's method reads the run's `args`, which do not exist yet.
        if own is None or own is hook(ContinualDataset, method):
            return None
        return own(None) if inspect.signature(own).parameters else own()

    def _refuse_unknown(self, model: str, mistakes: list[str]) -> None:
        own = [*declared(self.target), *self.of_sequence, *self.of_network]
        for key, value in self.args.items():
            name = OF_THE_RUN.get(key, key)
            known_here = key in own or key in known() or key in IDLE or name in schema()
            known_here = known_here or means_nothing(key, value) or self._says_classes(key, value)
            # An argument that is already reported as unsupported or invalid is not unknown as well.
            unserved = any(mistake.startswith(f"{key}=") for mistake in mistakes)
            if value is None or known_here or unserved or "." in key:
                continue
            near = did_you_mean(key, [*own, *known()])
            there = f" {model} has: {', '.join(own)}." if own else ""
            mistakes.append(
                f"{model} has no option `{key}`, nor is it one of get_avail_args().{near}{there}"
            )

    def _says_classes(self, key: str, value: object) -> bool:
        """Whether an argument only repeats the number of classes, which Mammoth writes into `args`."""
        name = str(DATASETS.get(self.dataset_name, {}).get("dataset"))
        return key == "num_classes" and value == CLASSES.get(name, 10)

    def settings(self) -> dict[str, Any]:
        """The settings of `ml`."""
        values, options, optim = self.values, {}, {}
        settings = self._data()
        own = declared(self.target)
        for key, value in self.args.items():
            if value is None or key in ("model", "dataset"):
                continue
            if key not in own and (means_nothing(key, value) or self._says_classes(key, value)):
                continue
            # The order matters: an option of the model wins over a setting of `ml` of the same name, except
            # for the optimiser's, the batch size and the epochs, which the run needs to know.
            name = OF_THE_RUN.get(key, key)
            if key in IDLE:
                if not is_default(value, IDLE[key]):
                    warnings.warn(f"`{key}` has no effect here.", stacklevel=4)
            elif key == "optimizer":
                optim["_target_"] = _optimizer_name(value)
            elif name.startswith("optim.") or name == "weight_decay":
                optim[name.removeprefix("optim.")] = value
            elif key in own and name not in ("lr", "batch_size", "epochs"):
                options[key] = value
            elif key in SERVED and key not in OF_THE_RUN:
                continue  # `_data` and `_of_run` translate it.
            elif name in schema():
                settings[name] = value
            elif key not in self.of_sequence and key not in self.of_network:
                options[key] = value
        if self.network is not None:
            of_network = {key: self.args[key] for key in self.of_network if key in self.args}
            # `partial`, so that the network is made inside the run, from the run's random streams.
            options["backbone"] = (
                functools.partial(self.network, **of_network) if of_network else self.network
            )
        self._scenario(settings)
        self._of_run(settings, values)
        settings["model"] = {"_target_": self.target, **options}
        if optim:
            # Mammoth's default is SGD, Antelope's AdamW.
            settings["optim"] = {"_target_": "SGD", **optim}
        return settings

    def _of_run(self, settings: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Translate the arguments that set the length of a run and what it shows."""
        if (share := share_of(values["validation"])) is not None:
            settings["validation"] = share
        if values["n_iters"] is not None:
            # Steps or passes bound a task, not both.
            settings["train_steps"] = values["n_iters"]
            settings.pop("epochs", None)
        if values["non_verbose"]:
            settings["progress"] = False

    def _scenario(self, settings: dict[str, Any]) -> None:
        """Choose the scenario that the model declares, if the classes of one data set are split."""
        fits = compatibility(self.target) or ("class-il",)
        # An explicit setting wins, and is checked against COMPATIBILITY when the model is built.
        decided = {"scenario", "online"} & settings.keys()
        if decided or "class-il" in fits or "tasks" not in settings:
            return
        if "task-il" in fits:
            settings["scenario"] = "task"
        elif "general-continual" in fits:
            settings["online"] = True

    def _data(self) -> dict[str, Any]:
        """The settings of the sequence of tasks."""
        values = self.values
        seed = values["seed"]
        if self.sequence is not None:
            # Mammoth's data sets read `args` freely, so that every argument must be there, needed or not.
            args = Namespace(**{**IDLE, **values, **self.args})
            args.joint, args.permute_classes = values["joint"], values["permute_classes"]
            args.seed = 0 if seed is None else seed
            options = {k: self.args[k] for k in self.of_sequence if k in self.args}
            return {"dataset": make_sequence(self.sequence, args, options)}
        settings = dict(DATASETS[self.dataset_name])
        name = settings["dataset"]
        below = Path(values["base_path"] or ".") / name
        if values["base_path"] is not None and below.is_dir():
            # Mammoth's layout: data that it has downloaded is reused.
            settings["data_dir"] = str(below)
        all_classes = settings["tasks"] == 20  # Permuted or rotated digits, ten in every task.
        if values["joint"]:
            settings["tasks"] = 1
        if values["permute_classes"] and all_classes:
            warnings.warn(
                "`permute_classes` has no effect here: all tasks have all classes.", stacklevel=5
            )
        elif values["permute_classes"] and not values["joint"]:
            # Mammoth renumbers the classes, the lowest new number coming first; `class_order` lists the old
            # numbers in order of appearance. One is the inverse of the other, hence `argsort`.
            order = permutation(CLASSES.get(name, 10), seed or 0).argsort()
            settings["class_order"] = [int(label) for label in order]
        return settings


def _registered(name: str, table: Mapping[str, Any], kind: str, mistakes: list[str]) -> Any:
    """The object that a name stands for, registered or known to `ml(model=...)`.

    Appends to `mistakes`, and returns None, if there is no such name.
    """
    if (key := key_of(name)) in table:
        return table[key]
    try:
        return resolve(name, "model")
    except ConfigError:
        near = did_you_mean(key, table)
        mistakes.append(f"No {kind} `{name}` is registered.{near} There are: {', '.join(table)}.")
    return None


def _named(make: Callable[..., Any]) -> list[str]:
    """The arguments that a network's class or function accepts by name, except `num_classes`."""
    if isinstance(make, torch.nn.Module):
        return []
    parameters = inspect.signature(make).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in named if p.name != "num_classes"]


def _nothing_at(path: Path) -> str:
    folder = path.parent
    there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    near = did_you_mean(path.name, there)
    return f"loadcheck={path}: no such file or run directory.{near}"


def _optimizer_name(name: str) -> str:
    """`AdamW` for `adamw`: Mammoth's command line has optimisers in lower case."""
    return {own.lower(): own for own in dir(torch.optim)}.get(name.lower(), name)


_NEEDED = ("lr", "batch_size", "n_epochs")
