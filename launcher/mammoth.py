"""The names of Mammoth Lite: models written for it are trained here once their import says so.

    from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

    model, dataset = load_runner("er", "seq-mnist", {"lr": 0.1, "batch_size": 10, "n_epochs": 1})
    run = train(model, dataset)

Nothing is shared between two runners. Source of the interface: https://github.com/aimagelab/mammoth
(Boschini et al., 2022, arXiv 2201.00766) and https://github.com/aimagelab/mammoth-lite.
"""

from __future__ import annotations

import inspect
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..replay import ConfigError, Memory
from ..replay.transfer import upload
from . import build
from .config import compose, did_you_mean, name_of, schema
from .construct import resolve
from .device import device_wanted
from .naming import unresolved
from .observe.observer import Counters, Observer
from .observe.options import OF_THE_RUN
from .observe.provided import ContinualDataset, make_optimizer
from .randomness import forked_randomness, seed_everything

if TYPE_CHECKING:
    from .run import Run

__all__ = [
    "Buffer",
    "ContinualDataset",
    "ContinualModel",
    "add_rehearsal_args",
    "load_runner",
    "register_model",
    "train",
]

T = TypeVar("T")

_CROP_AND_FLIP = [{"_target_": "RandomCrop", "padding": 4}, "RandomHorizontalFlip"]
DATASETS: dict[str, dict[str, Any]] = {
    "seq-mnist": {"dataset": "MNIST", "tasks": 5, "standardize": False},
    "seq-cifar10": {"dataset": "CIFAR10", "tasks": 5, "aug": _CROP_AND_FLIP},
    "seq-cifar100": {"dataset": "CIFAR100", "tasks": 10, "aug": _CROP_AND_FLIP},
    "perm-mnist": {"dataset": "PermutedMNIST", "tasks": 20, "standardize": False},
    "rot-mnist": {"dataset": "RotatedMNIST", "tasks": 20, "standardize": False},
    "seq-digits": {"dataset": "Digits", "tasks": 5, "standardize": False},
}
_MODELS: dict[str, Any] = {}
_NEEDED = ("lr", "batch_size", "n_epochs")
# Of Mammoth's own running, and without a meaning here.
_IDLE = ("num_workers", "debug_mode", "nowand", "wandb_name", "wandb_entity", "wandb_project")


def register_model(name: str) -> Callable[[T], T]:
    """Make a class known to `load_runner` by a name, in which `_` is as good as `-`.

    Raises:
        ConfigError: If the name is taken by another class.
    """
    key = name.replace("_", "-")

    def keep(model: T) -> T:
        taken = _MODELS.get(key)
        if taken is not None and name_of(taken) != name_of(model):
            raise ConfigError(f"The name `{name}` is registered already, by {name_of(taken)}.")
        _MODELS[key] = model
        if inspect.isclass(model) and not hasattr(model, "NAME"):
            model.NAME = name  # type: ignore[attr-defined]
        return model

    return keep


def add_rehearsal_args(parser: ArgumentParser) -> None:
    """Declare `buffer_size`, and `minibatch_size`: as many rows as are new unless it is given."""
    parser.add_argument("--buffer_size", type=int, required=True, help="rows of the memory")
    parser.add_argument("--minibatch_size", type=int, help="rows of a batch from the memory")


class ContinualModel(Counters, nn.Module):
    """The base of Mammoth's models: write `observe`, and step `opt` in it.

    Args:
        backbone: The network, `net`.
        loss: Of outputs and labels.
        args: Options.
        transform: Makes of rows in [0, 1] what the network meets in training.
        dataset: The sequence of tasks; given by the run if not here.

    Attributes:
        opt: The optimiser of the network that `args` describes.
        device: Where the run's batches are.
    """

    NAME: str
    COMPATIBILITY: Sequence[str] = ("class-il", "task-il")

    def __init__(
        self,
        backbone: nn.Module,
        loss: Any,
        args: Namespace,
        transform: Any = None,
        dataset: ContinualDataset | None = None,
    ):
        super().__init__()
        if type(self).observe is ContinualModel.observe:  # Said before anything is trained.
            raise ConfigError(
                f"{type(self).__name__} has no observe. Write observe(self, inputs, labels, not_aug_inputs, "
                "epoch=None)."
            )
        self.net, self.loss, self.args = backbone, loss, args
        self.transform, self.dataset = transform, dataset
        self.device = torch.device(getattr(args, "device", "cpu"))
        self.opt = self.get_optimizer()
        if dataset is not None:
            self.num_classes, self.n_tasks = dataset.N_CLASSES, dataset.N_TASKS
            self.normalization_transform = dataset.get_normalization_transform()

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        """Declare options of one's own, which become settings `model.KEY=value`."""
        return parser

    def get_parameters(self) -> list[Tensor]:
        """What is optimised."""
        return list(self.net.parameters())

    def get_optimizer(
        self, params: list[Tensor] | None = None, lr: float | None = None
    ) -> Optimizer:
        """The optimiser that `args` describes, of `get_parameters()` unless others are given."""
        return make_optimizer(self.args, params or self.get_parameters(), lr)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, *obs.shape]` to logits `[B, classes]`."""
        output: Tensor = self.net(x)
        return output

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        """Learn from a batch, and return its loss."""
        raise NotImplementedError

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Before each task."""

    def end_task(self, dataset: ContinualDataset) -> None:
        """After each task, while its data is still there."""

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Before each pass."""

    def end_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """After each pass."""


class Buffer(Memory):
    """Mammoth's name for a reservoir of rows; a `Memory` that is told its fields by position.

    >>> buffer = Buffer(100)
    >>> buffer.add_data(torch.rand(8, 2), labels=torch.arange(8))
    >>> [field.shape for field in buffer.get_data(4)]
    [torch.Size([4, 2]), torch.Size([4])]

    Args:
        buffer_size: Rows, at most.
        device: Where they are kept; None: where the first ones come from.
    """

    attributes = ("examples", "labels", "logits", "task_labels")

    def __init__(self, buffer_size: int, device: torch.device | str | None = None):
        super().__init__(buffer_size)
        self.device = None if device is None else torch.device(device)

    def __getattr__(self, name: str) -> Tensor:
        """The rows held of a field, as they are kept: what is written there stays."""
        columns = self.__dict__.get("_columns", {})
        if (name,) not in columns:
            there = ", ".join(key for (key,) in columns) or "nothing yet"
            raise AttributeError(f"This buffer has no `{name}`; it holds {there}.")
        held: Tensor = columns[(name,)][: len(self)]
        return held

    @property
    def buffer_size(self) -> int:
        return self.capacity

    @property
    def num_seen_examples(self) -> int:
        return self.seen

    @property
    def used_attributes(self) -> list[str]:
        """The fields that rows have."""
        return [name for name in self.attributes if (name,) in self._columns]

    def is_empty(self) -> bool:
        return len(self) == 0

    def is_full(self) -> bool:
        return len(self) == self.capacity

    def to(self, device: torch.device | str) -> Buffer:
        """Keep the rows there."""
        self.device = torch.device(device)
        if self._columns:
            self._move(self.device)
        return self

    def reset(self) -> None:
        """Forget every row."""
        self.clear()

    empty = reset

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
    ) -> None:
        """Offer rows; the first call says which fields rows have.

        Args:
            examples: `[B, *shape]`, kept as float32.
            labels: `[B]`, kept as int64.
            logits: `[B, n]`, kept as float32.
            task_labels: `[B]`, kept as int64.
        """
        fields = {"examples": examples.float()}
        if labels is not None:
            fields["labels"] = labels.long()
        if logits is not None:
            fields["logits"] = logits.float()
        if task_labels is not None:
            fields["task_labels"] = task_labels.long()
        device = self.device or examples.device
        self.add({name: field.to(device) for name, field in fields.items()})

    def get_data(
        self,
        size: int,
        transform: Any = None,
        return_index: bool = False,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """`min(size, len(buffer))` different rows: a tensor of each field, after their places if asked.

        Args:
            transform: Of examples: the model's own, of all of them; any other of one after the other.
            device: Where to; None: where they are kept.

        Raises:
            ConfigError: If the buffer is empty.
        """
        if self.is_empty():
            raise ConfigError("The buffer is empty: look at `is_empty()` before drawing from it.")
        places = torch.from_numpy(
            self._streams[1].choice(len(self), min(size, len(self)), replace=False)
        )
        data = self.get_data_by_index(places, transform, device)
        return (places.to(data[0].device), *data) if return_index else data

    def get_data_by_index(
        self, indexes: Tensor, transform: Any = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """The rows at these places, int64 `[B]`."""
        columns = [self._columns[(name,)] for name in self.used_attributes]
        places = upload(indexes, columns[0].device).to(columns[0].device)
        fields = [column.index_select(0, places).to(device or column.device) for column in columns]
        return _transformed(fields[0], transform), *fields[1:]

    def get_all_data(
        self, transform: Any = None, device: torch.device | str | None = None
    ) -> tuple[Tensor, ...]:
        """Every row held."""
        return self.get_data_by_index(torch.arange(len(self)), transform, device)


def _transformed(rows: Tensor, transform: Any) -> Tensor:
    if transform is None:
        return rows
    if getattr(transform, "takes_batches", False):
        whole: Tensor = transform(rows)
        return whole
    return torch.stack([transform(row) for row in rows]).to(rows.device)


@register_model("sgd")
class Sgd(ContinualModel):
    """Learns each task as it comes, and does nothing against forgetting."""

    NAME = "sgd"
    COMPATIBILITY = ("class-il", "domain-il", "task-il", "general-continual")

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        self.opt.zero_grad()
        loss: Tensor = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


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
    from .ml import ml

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
    if (key := model.replace("_", "-")) in _MODELS:
        target = _MODELS[key]
    else:
        try:
            target = resolve(model, "model")
        except ConfigError:
            near = did_you_mean(key, _MODELS)
            mistakes.append(
                f"No model `{model}` is registered.{near} There are: {', '.join(_MODELS)}."
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
