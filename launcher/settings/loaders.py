"""A `DataLoader` given as a data set: its data set is used, its other options are applied or refused."""

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

from ...replay.errors import ConfigError
from .object_names import class_name
from .settings import Settings
from .warn import warn_caller


def heed_loaders(settings: Settings, *, batch_size: int | None = None) -> None:
    """Apply the batch size of the loaders in `dataset=`, and warn about options that are ignored.

    Args:
        batch_size: Rows per batch of a run in progress; None: it may be set here.

    Raises:
        ConfigError: For loaders that change or resample rows; every mistake at once.
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
                "The DataLoaders in dataset= have different batch sizes "
                f"({' and '.join(map(str, sizes))}), but a run has only one. Set batch_size=."
            )
        settings.values["batch_size"] = sizes[0]
    else:
        used = settings.batch_size if batch_size is None else batch_size
        if sizes != [used]:
            warn_caller(
                f"The DataLoader has batch_size={' and '.join(map(str, sizes))}; this run uses "
                f"batch_size={used}."
            )
    if any(isinstance(loader.sampler, SequentialSampler) for loader in train):
        warn_caller(
            "The DataLoader has shuffle=False, which is ignored: a run shuffles the rows in every epoch."
        )
    if any(loader.drop_last for loader in (*train, *held_out)):
        warn_caller("The DataLoader has drop_last=True, which is ignored: a run uses every row.")


def unwrapped(source: object) -> Any:
    """The data set of a loader, restricted to the rows that it samples; anything else unchanged."""
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
    """Errors for a loader that changes what its data set yields."""
    kind, found = type(loader), []
    if kind.__iter__ is not DataLoader.__iter__:
        found.append(
            f"{kind.__name__} overrides DataLoader.__iter__, which is never called. Pass a data set "
            "of the items that it yields."
        )
    if loader.collate_fn is not default_collate and loader.batch_size is not None:
        name = class_name(loader.collate_fn)
        found.append(
            f"The DataLoader has a custom collate_fn ({name}), which is never called. Return finished "
            "items (input, target) of one shape from the data set's __getitem__, and leave collate_fn "
            "out; per-batch randomness belongs in aug= or the model's `learn`."
        )
    if loader.batch_size is None:
        what = "a custom batch_sampler" if loader.batch_sampler is not None else "batch_size=None"
        found.append(
            f"The DataLoader has {what}, but the run forms its own batches. Pass a data set of single "
            "items (loader.dataset) and batch_size=."
        )
    elif (drawn := _draws(loader.sampler, loader.dataset)) is not None:
        found.append(
            f"The DataLoader samples rows with {drawn}, but a run uses each row once per epoch. Pass a "
            "data set of the rows to use (torch.utils.data.Subset), or weight classes in the loss."
        )
    return found


def _draws(sampler: object, source: Any) -> str | None:
    """The sampler's description if it does not use every row once, else None."""
    name = type(sampler).__name__
    # Exact types: a subclass may draw any rows it likes.
    if type(sampler) is RandomSampler:
        if sampler.replacement:
            return "RandomSampler(replacement=True)"
        whole = sampler.num_samples == len(source)
        return None if whole else f"RandomSampler(num_samples={sampler.num_samples})"
    if type(sampler) is SubsetRandomSampler:
        twice = len(set(map(int, sampler.indices))) < len(sampler.indices)
        return "a SubsetRandomSampler that repeats rows" if twice else None
    # The last one is torch's placeholder for iterable data sets, whose rows come in their own order.
    known = type(sampler) is SequentialSampler or name == "_InfiniteConstantSampler"
    return None if known else f"{name}, a sampler"
