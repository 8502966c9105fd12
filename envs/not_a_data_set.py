"""Refuses what is not a data set, with advice for common mix-ups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..replay import DataError
from .forms import is_array

_WANTED = (
    "Give the name of one, a torch.utils.data.Dataset with __len__ and __getitem__, a folder, or a pair "
    "(inputs, targets) of arrays."
)


def refuse(source: Any, name: str) -> None:
    """Raise DataError for anything but a data set, with advice for common mix-ups."""
    by_number = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    iterated = isinstance(source, (DataLoader, IterableDataset))
    if by_number and isinstance(source, Dataset) and not iterated:
        return
    advice = _advice(source, by_number)
    if advice is None and by_number:
        return
    kind = type(source).__name__
    what = f"A {kind}" if name.endswith(kind) else f"{name} is a {kind}, which"
    raise DataError(f"{what} is not a data set. {advice or _WANTED}")


def _advice(source: Any, by_number: bool) -> str | None:
    library = type(source).__module__.partition(".")[0]
    if isinstance(source, DataLoader):
        return "Give what it loads from: loader.dataset."
    if isinstance(source, IterableDataset):
        return (
            "It has no items by number: storage=mmap writes them to a file once, and storage=stream reads "
            "them again in each pass."
        )
    # A stream of Hugging Face's.
    if library == "datasets" and hasattr(source, "column_names"):
        return "Load it without streaming=True, and give it as dataset=, with target=NAME."
    if hasattr(source, "columns") and is_array(source):
        *others, last = map(str, source.columns)
        return (
            f"Give a pair of its columns, inputs and targets: (data[{others[:3]}], data['{last}']), say; or "
            f"a data frame with target='{last}'."
        )
    if is_array(source):
        names = getattr(source.dtype, "names", None)
        if names:
            return f"Give a pair of its fields ({', '.join(names)}): (inputs, targets)."
        return (
            "It holds inputs or targets, not both. Give a pair (inputs, targets); held-out data is "
            "test_dataset=(inputs, targets)."
        )
    if isinstance(source, Mapping):
        keys = ", ".join(map(str, list(source)[:8]))
        return f"Give two of its parts ({keys}) as a pair (inputs, targets)."
    if by_number and not isinstance(source, (list, tuple)):
        return None
    if hasattr(source, "__next__"):
        return "It is read only once. Give a list of its items, list(...), or a torch.utils.data.Dataset."
    if isinstance(source, (list, tuple)):
        return (
            "A list of items holds pairs (input, target); a pair holds all inputs and all targets; a "
            "sequence of tasks lists data sets."
        )
    if callable(getattr(source, "train_dataloader", None)):  # A data module of Lightning's.
        return "Give the Dataset that its train_dataloader() loads from."
    if hasattr(source, "as_numpy_iterator"):
        return "Give a list of its items: list(data.as_numpy_iterator())."
    return None
