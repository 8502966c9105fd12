"""From Mammoth's names and arguments to a run of ours."""

from __future__ import annotations

import functools
import inspect
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...replay import ConfigError
from ...replay.randomness import forked_randomness, seed_everything
from ..assembly.agent import build_agent
from ..assembly.device import build_device, device_wanted
from ..assembly.transforms import build_transforms
from ..assembly.world import build_world
from ..plainly import plainly
from ..settings.compose import compose, did_you_mean, schema
from ..settings.names import resolve
from ..settings.plan import make_plan
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
from .checkpoints import Saver, load_checkpoint
from .inference import evaluate_only
from .observer import Observer
from .options import MORE, OF_THE_RUN, declared, defaults
from .registry import BACKBONES, CLASSES, DATASETS, MODELS, SEQUENCES, USUAL, key_of
from .tasks.own_sequence import make_sequence, permutation, sequence_options
from .tasks.sequence import ContinualDataset

if TYPE_CHECKING:
    from ..run import Run

_NEEDED = ("lr", "batch_size", "n_epochs")


def load_runner(
    model: str | None = None,
    dataset: str | None = None,
    args: Mapping[str, Any] | Namespace | None = None,
    **names: Any,
) -> tuple[Any, ContinualDataset]:
    """A model, ready to train, and its sequence of tasks.

    Args:
        model: A name given to `register_model`, or any that `ml(model=...)` knows.
        dataset: One of `get_dataset_names()`, such as `seq-mnist`.
        args: `lr`, and `batch_size` and `n_epochs` where the data set has none of its own; the options
            of the model, of the data set and of the backbone; what `get_avail_args()` lists; and any
            setting of `ml`. A model may set `n_epochs` and `batch_size` itself.
        **names: The same as `model_name`, `dataset_name`, `experiment_args`.

    Raises:
        ConfigError: With every mistake at once.
        CheckpointError: If what `loadcheck` names does not fit the model.
    """
    given = {"model_name": model, "dataset_name": dataset, "experiment_args": args}
    if unknown := names.keys() - given.keys():
        raise ConfigError(f"load_runner has no argument {', '.join(unknown)}.")
    model, dataset, args = (names.get(name, value) for name, value in given.items())
    asked = Asked(str(model), str(dataset), _plain(args))
    code = asked.settings()
    plan = make_plan(compose((), code))
    device = build_device(device_wanted(plan))
    # Steps may bound a task instead; models read `n_epochs` all the same.
    more = {**asked.values, "n_epochs": asked.args.get("n_epochs")}
    with forked_randomness(plan.seed), _more(more):
        world = build_world(plan)
        transforms = build_transforms(plan, world, device)
        seed_everything(plan.seed)  # Weights do not depend on how the data was read.
        observer, _ = build_agent(plan, world, device, transforms)
    if not isinstance(observer, Observer):
        raise ConfigError(f"{model} has no `observe`. Train it with ml(model=...).")
    _take_over(code, observer.model)
    sequence, values = observer.dataset, asked.values
    if values["loadcheck"] is not None:
        with forked_randomness(plan.seed):  # A buffer that is filled takes its streams from it.
            load_checkpoint(observer, values["loadcheck"], whole=bool(values["inference_only"]))
    sequence.settings = code
    sequence.evaluates = Path(values["loadcheck"]) if values["inference_only"] else None
    sequence.saver = Saver(values) if values["savecheck"] else None
    return observer.model, sequence


def train(
    model: Any, dataset: ContinualDataset, args: Mapping[str, Any] | Namespace | None = None
) -> Run:
    """Learn every task of the sequence, and evaluate after each.

    With `inference_only=1`, only evaluate the loaded checkpoint.

    Args:
        model, dataset: As returned by `load_runner`.
        args: Settings of the run to change, such as `n_epochs`, `path` or `resume`.

    Raises:
        ConfigError: If they come from different `load_runner` calls, or `args` contradict theirs.
    """
    if dataset.settings is None or getattr(model, "dataset", None) is not dataset:
        raise ConfigError(
            "train needs the model and the dataset that one load_runner(...) call returned."
        )
    settings = {key: value for key, value in dataset.settings.items() if key != "model"}
    made = vars(getattr(model, "args", Namespace()))
    for key, value in _plain(args).items():
        if key in made and made[key] == value and key not in ("batch_size", "n_epochs"):
            continue
        name = OF_THE_RUN.get(key, key)
        if name not in schema() or name in ("model", "dataset", "optim", "lr", "weight_decay"):
            raise ConfigError(
                f"train: {key}={value} comes too late: the model is already constructed. Pass it to "
                "load_runner."
            )
        settings[name] = value
    if dataset.evaluates is not None:
        return evaluate_only({**settings, "model": model}, dataset.evaluates)
    saver = dataset.saver
    dataset.when_ended = None if saver is None else saver.task_ended
    try:
        run = _learn({**settings, "model": model})
    finally:
        dataset.when_ended = None
    if saver is not None:
        saver.finish(model, run)
    return run


def _learn(code: Mapping[str, Any]) -> Run:
    """A run with these settings, as `ml` makes it."""
    settings = compose((), code)

    def work() -> Run:
        from ..train import train  # Of the launcher: this module has a `train` of its own.

        return train(settings)

    return plainly(settings, work)


def _take_over(code: dict[str, Any], model: Any) -> None:
    """Let a model's constructor decide on epochs and batch size, as Mammoth does."""
    made = getattr(model, "args", Namespace())
    for key in ("n_epochs", "batch_size"):
        if (name := OF_THE_RUN[key]) in code:
            code[name] = getattr(made, key, code[name])


def _plain(args: Mapping[str, Any] | Namespace | None) -> dict[str, Any]:
    if not isinstance(args, (Mapping, Namespace, type(None))):
        raise ConfigError(f"args={args!r:.40}: expected a dict, such as {{'lr': 0.1}}.")
    return dict(vars(args) if isinstance(args, Namespace) else args or {})


@contextmanager
def _more(values: Mapping[str, Any]) -> Any:
    token = MORE.set(values)
    try:
        yield
    finally:
        MORE.reset(token)


class Asked:
    """What `load_runner` was asked for.

    Attributes:
        values: The arguments that every model has, with their defaults.

    Raises:
        ConfigError: With every mistake at once.
    """

    def __init__(self, model: str, dataset: str, args: dict[str, Any]):
        mistakes: list[str] = []
        self.args = read(args, mistakes)
        unreadable = set(args) - set(self.args)  # What is wrong with them is said already.
        self.dataset_name = key_of(dataset)
        self.target = _registered(model, MODELS, "model", mistakes)
        if self.dataset_name not in {**DATASETS, **SEQUENCES}:
            near = did_you_mean(self.dataset_name, {**DATASETS, **SEQUENCES})
            there = ", ".join([*DATASETS, *SEQUENCES])
            mistakes.append(f"No data set `{dataset}`.{near} There are: {there}.")
        sequence = SEQUENCES.get(self.dataset_name)
        self.sequence = sequence
        self._fill_in()
        iterations = self.args.get("fitting_mode") == "iters"
        needed = [key for key in _NEEDED if not (key == "n_epochs" and iterations)]
        needed = [key for key in needed if key not in unreadable]
        if lacking := [name for name in needed if self.args.get(name) is None]:
            mistakes.append(f"load_runner needs {', '.join(lacking)} in args.")
        self.values = served(self.args, mistakes)
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
        """Fill in, where not given, what the model's options or the data set say."""
        usual = dict(USUAL.get(self.dataset_name, {}))
        for key, method in (("n_epochs", "get_epochs"), ("batch_size", "get_batch_size")):
            own = getattr(self.sequence, method, None)
            if own is not None and own is not getattr(ContinualDataset, method, None):
                takes_self = len(inspect.signature(own).parameters) > 0
                usual[key] = own(None) if takes_self else own()
        if self.args.get("lr_scheduler") is not None:
            usual.pop("lr_milestones", None)
        usual |= {key: value for key, value in defaults(self.target).items() if key in _NEEDED}
        given = {key: value for key, value in self.args.items() if value is not None}
        self.args = {**self.args, **usual, **given}

    def _network(self, mistakes: list[str]) -> Any:
        """The network of `backbone`, or of the data set's class; None: one that fits the data."""
        name = self.args.get("backbone")
        own = getattr(self.sequence, "get_backbone", None)
        if name is None and own not in (None, getattr(ContinualDataset, "get_backbone", None)):
            name = own(None) if len(inspect.signature(own).parameters) else own()
        if name is None:
            return None
        if not isinstance(name, str):
            if not callable(name):
                mistakes.append(f"backbone={name}: expected a name, a class or a module.")
                return None
            return name
        self.values["backbone"] = name
        return _registered(name, BACKBONES, "backbone", mistakes)

    def _refuse_unknown(self, model: str, mistakes: list[str]) -> None:
        own = [*declared(self.target), *self.of_sequence, *self.of_network]
        for key, value in self.args.items():
            name = OF_THE_RUN.get(key, key)
            known_here = key in own or key in known() or key in IDLE or name in schema()
            known_here = known_here or means_nothing(key, value) or self._says_classes(key, value)
            unserved = any(mistake.startswith(f"{key}=") for mistake in mistakes)
            if value is None or known_here or unserved or "." in key:
                continue
            near = did_you_mean(key, [*own, *known()])
            there = f" {model} has: {', '.join(own)}." if own else ""
            mistakes.append(
                f"{model} has no option `{key}`, nor is it one of get_avail_args().{near}{there}"
            )

    def _says_classes(self, key: str, value: Any) -> bool:
        """Whether an argument is the number of classes, which Mammoth writes into `args`."""
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
                continue  # Said below.
            elif name in schema():
                settings[name] = value
            elif key not in self.of_sequence and key not in self.of_network:
                options[key] = value
        if self.network is not None:
            of_network = {key: self.args[key] for key in self.of_network if key in self.args}
            options["backbone"] = (
                functools.partial(self.network, **of_network) if of_network else self.network
            )
        self._scenario(settings)
        if (share := share_of(values["validation"])) is not None:
            settings["validation"] = share
        if values["n_iters"] is not None:
            settings["train_steps"] = values["n_iters"]
            settings.pop("epochs", None)
        if values["non_verbose"]:
            settings["progress"] = False
        settings["model"] = {"_target_": self.target, **options}
        if optim:
            settings["optim"] = {"_target_": "SGD", **optim}
        return settings

    def _scenario(self, settings: dict[str, Any]) -> None:
        """Of the scenarios that the classes of one data set can be split for, the one a model is for."""
        fits = getattr(self.target, "COMPATIBILITY", None) or ("class-il",)
        decided = {"scenario", "online"} & settings.keys()
        if decided or "class-il" in fits or "tasks" not in settings:
            return
        if "task-il" in fits:
            settings["scenario"] = "task"
        elif "general-continual" in fits:
            settings["online"] = True

    def _data(self) -> dict[str, Any]:
        """The sequence of tasks."""
        values = self.values
        seed = values["seed"]
        if self.sequence is not None:
            args = Namespace(**{**IDLE, **values, **self.args})
            args.joint, args.permute_classes = values["joint"], values["permute_classes"]
            args.seed = 0 if seed is None else seed
            options = {k: self.args[k] for k in self.of_sequence if k in self.args}
            return {"dataset": make_sequence(self.sequence, args, options)}
        settings = dict(DATASETS[self.dataset_name])
        name = settings["dataset"]
        below = Path(values["base_path"] or ".") / name
        if values["base_path"] is not None and below.is_dir():
            settings["data_dir"] = str(below)  # Where Mammoth puts it.
        altered = settings["tasks"] == 20
        if values["joint"]:
            settings["tasks"] = 1
        if values["permute_classes"] and altered:
            warnings.warn(
                "`permute_classes` has no effect here: all tasks have all classes.", stacklevel=5
            )
        elif values["permute_classes"] and not values["joint"]:
            # Mammoth gives every class a new number; the class with the lowest one comes first.
            order = permutation(CLASSES.get(name, 10), seed or 0).argsort()
            settings["class_order"] = [int(label) for label in order]
        return settings


def _registered(name: str, table: Mapping[str, Any], kind: str, mistakes: list[str]) -> Any:
    """What goes by a name, registered or known to `ml(model=...)`; else None, and a mistake more."""
    if (key := key_of(name)) in table:
        return table[key]
    try:
        return resolve(name, "model")
    except ConfigError:
        near = did_you_mean(key, table)
        mistakes.append(f"No {kind} `{name}` is registered.{near} There are: {', '.join(table)}.")
    return None


def _named(make: Callable[..., Any]) -> list[str]:
    """The arguments that a network's class or function can be given by name."""
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
    """`AdamW` of `adamw`."""
    return {own.lower(): own for own in dir(torch.optim)}.get(name.lower(), name)
