"""A `DataLoader` in place of a data set: its data set is read, and what else it says is heeded or refused."""

from __future__ import annotations

from typing import Any

from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from ..replay import ConfigError
from .config import Settings
from .told import warn_caller


def heed_loaders(settings: Settings, *, batch_size: int | None = None) -> None:
    """Take the batch size of the loaders that `dataset=` gives, and say what else of them is not heeded.

    Args:
        batch_size: Of a run that is under way; None: it may be decided here.

    Raises:
        ConfigError: For a loader that gives other rows, or changes them; all of it at once.
    """
    train, held_out = (_loaders(settings, key) for key in ("dataset", "test_dataset"))
    if mistakes := [text for loader in (*train, *held_out) for text in _wrong(loader)]:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    if not train:
        return
    sizes = sorted({loader.batch_size for loader in train if loader.batch_size is not None})
    if batch_size is None and "batch_size" not in settings.given:
        if len(sizes) > 1:
            raise ConfigError(
                f"The DataLoaders of dataset= have batches of {' and '.join(map(str, sizes))}, and a run has "
                "one batch_size. Give batch_size=."
            )
        settings.values["batch_size"] = sizes[0]
    else:
        used = settings.batch_size if batch_size is None else batch_size
        if sizes != [used]:
            warn_caller(
                f"The DataLoader has batches of {' and '.join(map(str, sizes))}; batch_size={used} of this "
                "run is used."
            )
    if any(isinstance(loader.sampler, SequentialSampler) for loader in train):
        warn_caller(
            "The DataLoader does not shuffle (shuffle=False); a run draws the rows in a new order in every "
            "epoch."
        )
    if any(loader.drop_last for loader in (*train, *held_out)):
        warn_caller(
            "The DataLoader drops the last batch where it is smaller (drop_last=True); a run uses every row."
        )


def described(settings: Settings) -> str | None:
    """What the header says of loaders: whose batch size the run has taken."""
    if not _loaders(settings, "dataset") or "batch_size" in settings.given:
        return None
    return f"batches of {settings.batch_size}, as its DataLoader has them"


def unwrapped(source: Any) -> Any:
    """The data set of a loader, with only the rows that it gives; anything else as it is."""
    if not isinstance(source, DataLoader):
        return source
    if isinstance(source.sampler, SubsetRandomSampler):
        return Subset(source.dataset, [int(i) for i in source.sampler.indices])
    return source.dataset


def _loaders(settings: Settings, key: str) -> list[DataLoader[Any]]:
    value = settings.live.get(key)
    values = value if isinstance(value, (list, tuple)) else [value]
    return [value for value in values if isinstance(value, DataLoader)]


def _wrong(loader: DataLoader[Any]) -> list[str]:
    """What the loader does to rows that reading its data set would not."""
    kind, found = type(loader), []
    if kind.__iter__ is not DataLoader.__iter__:
        found.append(
            f"{kind.__name__} is a DataLoader with an __iter__ of its own, which is not called. Give a data "
            "set of what it yields."
        )
    if loader.collate_fn is not default_collate and loader.batch_size is not None:
        name = getattr(loader.collate_fn, "__name__", type(loader.collate_fn).__name__)
        found.append(
            f"The DataLoader has a collate_fn of its own ({name}), which is not called. Let the data set's "
            "__getitem__ return finished items (input, target) of one shape, and give it without "
            "collate_fn; what is drawn for every batch belongs into aug= or the model's `learn`."
        )
    if loader.batch_size is None:
        what = (
            "a batch_sampler of its own" if loader.batch_sampler is not None else "batch_size=None"
        )
        found.append(
            f"The DataLoader has {what}: which rows make up a batch is up to the run. Give its data set "
            "(loader.dataset), of single items, and batch_size=."
        )
    elif (drawn := _draws(loader.sampler, loader.dataset)) is not None:
        found.append(
            f"The DataLoader draws rows by {drawn}, and a run draws each row once per epoch. Give a data set "
            "of the rows that are wanted (torch.utils.data.Subset), or weigh classes in the loss."
        )
    return found


def _draws(sampler: Any, source: Any) -> str | None:
    """What chooses other rows than all once, or None."""
    name = type(sampler).__name__
    if type(sampler) is RandomSampler:
        if sampler.replacement:
            return "RandomSampler(replacement=True)"
        whole = sampler.num_samples == len(source)
        return None if whole else f"RandomSampler(num_samples={sampler.num_samples})"
    if type(sampler) is SubsetRandomSampler:
        twice = len(set(map(int, sampler.indices))) < len(sampler.indices)
        return "SubsetRandomSampler with rows that occur twice" if twice else None
    known = type(sampler) is SequentialSampler or name == "_InfiniteConstantSampler"
    return None if known else f"{name}, a sampler"
