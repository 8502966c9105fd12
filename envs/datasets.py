"""Any data set as arrays: a Dataset, a folder of images, a pair of arrays."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder, VisionDataset

from ..replay import ConfigError, DataError, LazyColumn, Space, Spec, Table

# Items are decoded at each reading when all of them would not fit into this share of memory.
_MEMORY_SHARE = 0.5
_CHUNK = 4096  # Rows per step of the streaming statistics.


@dataclass
class Arrays:
    """A data set in memory.

    Attributes:
        inputs: `[N, *shape]`, images channels-first, uint8 as stored.
        targets: int64 `[N]` classes, or float32 `[N, *shape]` values.
        high: The largest value an integer input can take, where the source says so.
        num_classes: As the source declares it, or None.
        alterations: The source's own method of that name, which makes it a sequence of tasks
            (`sequences`), or None.
    """

    inputs: Tensor | LazyColumn
    targets: Tensor
    name: str
    high: float | None = None
    num_classes: int | None = None
    alterations: Callable[..., Any] | None = None

    @property
    def discrete(self) -> bool:
        return self.targets.dtype == torch.int64

    def __len__(self) -> int:
        return len(self.targets)

    def table(self) -> Table:
        return Table(obs=self.inputs, label=self.targets)


def read(source: Any, *, name: str, image_size: int | None = None) -> Arrays:
    """The arrays of a data set, checked.

    Args:
        source: A map-style `Dataset`, or a pair `(inputs, targets)` of arrays or tensors.
        name: What errors call it.
        image_size: Side in pixels that decoded images are resized to.

    Raises:
        DataError: If it is empty, holds NaN, its labels are not classes or values, its items
            differ in shape, or it is no data set.
    """
    inputs: Tensor | LazyColumn
    if is_pair(source):
        inputs, targets = _tensor(source[0], name), _tensor(source[1], name)
    elif isinstance(source, TensorDataset) and len(source.tensors) >= 2:
        inputs, targets = source.tensors[:2]
    elif (columns := _torchvision_columns(source)) is not None:
        inputs, targets = columns
    else:
        inputs, targets = _decode(source, name, image_size)
    # Tensors may be on a device already; where the rows are to be is for the run to decide.
    inputs, targets = inputs.cpu() if isinstance(inputs, Tensor) else inputs, targets.cpu()
    if len(targets) == 0 or len(inputs) == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    if len(inputs) != len(targets):
        raise DataError(f"{name} has {len(inputs)} inputs but {len(targets)} targets.")
    if isinstance(inputs, Tensor):
        inputs = _channels_first(inputs)
        _check_finite(inputs, f"inputs of {name}")
    arrays = Arrays(inputs, _targets(targets, name), name, high=getattr(source, "high", None))
    arrays.alterations = getattr(source, "alterations", None)
    if arrays.discrete:
        classes = getattr(source, "classes", None)
        arrays.num_classes = len(classes) if classes is not None else None
        _check_labels(arrays)
    return arrays


def describe(train: list[Arrays], test: list[Arrays | None], *, num_tasks: int) -> Spec:
    """The spec of data: shapes, classes, and statistics of the training inputs.

    Raises:
        DataError: If the parts do not fit together, or held-out labels are out of range.
    """
    first = train[0]
    for arrays in [*train[1:], *(t for t in test if t is not None)]:
        if arrays.inputs.shape[1:] != first.inputs.shape[1:]:
            raise DataError(
                f"{first.name} has inputs of shape {list(first.inputs.shape[1:])}, {arrays.name} of "
                f"{list(arrays.inputs.shape[1:])}. Parts of one run must have one shape "
                "(folders of images: set image_size)."
            )
        if arrays.inputs.dtype != first.inputs.dtype:
            raise DataError(
                f"{first.name} has inputs of {_word(first.inputs.dtype)}, {arrays.name} of "
                f"{_word(arrays.inputs.dtype)}: one standardisation cannot serve both."
            )
        if arrays.discrete != first.discrete:
            raise DataError(
                f"{first.name} has {'classes' if first.discrete else 'values'} as targets, "
                f"{arrays.name} has {'classes' if arrays.discrete else 'values'}."
            )
        if not first.discrete and arrays.targets.shape[1:] != first.targets.shape[1:]:
            raise DataError(
                f"{first.name} has targets of shape {list(first.targets.shape[1:])}, {arrays.name} "
                f"of {list(arrays.targets.shape[1:])}."
            )
    if first.discrete:
        declared = max(arrays.num_classes or 0 for arrays in train)
        n = max(declared, *(int(arrays.targets.max()) + 1 for arrays in train))
        for held_out in test:
            if held_out is not None and int(held_out.targets.max()) >= n:
                raise DataError(
                    f"Labels out of range: {held_out.name} holds label "
                    f"{int(held_out.targets.max())}, but the training data has classes 0 to {n - 1}."
                )
        action = Space((n,), torch.int64, low=0, high=n - 1, discrete=True)
    else:
        targets = torch.cat([arrays.targets for arrays in train])
        action = Space(
            tuple(targets.shape[1:]),
            torch.float32,
            low=float(targets.min()),
            high=float(targets.max()),
            mean=targets.mean(0),
            stddev=targets.std(0, correction=0),
        )
    return Spec(_observation([a.inputs for a in train], first.high), action, num_tasks)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _observation(columns: list[Tensor | LazyColumn], high: float | None) -> Space:
    mean, stddev, low, top = statistics(columns)
    dtype = columns[0].dtype
    if dtype == torch.uint8:
        low, top = 0.0, float(high or 255)
    elif low >= 0 and top <= 1:
        low, top = 0.0, 1.0  # Already scaled, as torchvision's ToTensor does.
    return Space(tuple(columns[0].shape[1:]), dtype, low, top, mean, stddev)


def statistics(columns: list[Tensor | LazyColumn]) -> tuple[Tensor, Tensor, float, float]:
    """Mean, deviation (per channel for images, else per feature), lowest and highest value.

    One pass in chunks; means and squared deviations are merged as in Chan, Golub & LeVeque (1983),
    "Algorithms for computing the sample variance", eq. 1.5.
    """
    shape = columns[0].shape[1:]
    over = (0, 2, 3) if len(shape) == 3 else (0,)
    count, mean, squares = 0.0, torch.tensor(0.0), torch.tensor(0.0)
    low, high = float("inf"), float("-inf")
    for column in columns:
        for start in range(0, len(column), _CHUNK):
            rows = slice(start, start + _CHUNK)
            chunk = column[rows] if isinstance(column, Tensor) else _rows(column, rows)
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            chunk = chunk.to(torch.float64)
            n = float(np.prod([chunk.shape[d] for d in over]))
            chunk_variance, chunk_mean = torch.var_mean(chunk, over, correction=0)
            delta = chunk_mean - mean
            squares = squares + chunk_variance * n + delta**2 * (count * n / (count + n))
            mean = mean + delta * (n / (count + n))
            count += n
    return mean.float(), (squares / count).sqrt().float(), low, high


def _rows(column: LazyColumn, rows: slice) -> Tensor:
    return column.take(torch.arange(*rows.indices(len(column))))


def split_arguments(target: Any, *, train: bool, data_dir: Path) -> dict[str, Any] | None:
    """The arguments that choose a data-set class's part, or None for a test part it has not got.

    `train=` or `split=`, `root=` and `download=`, for those that the constructor has.
    """
    parameters = _parameters(target)
    arguments: dict[str, Any] = {"root": str(data_dir), "download": True}
    arguments = {key: value for key, value in arguments.items() if key in parameters}
    if "train" in parameters:
        return arguments | {"train": train}
    names = _SPLITS.get(getattr(target, "__name__", ""), ("train", "test"))
    for key in ("split", "image_set"):
        if key in parameters:
            return arguments | {key: names[0] if train else names[1]}
    return arguments if train else None


# torchvision's data sets whose parts have other names.
_SPLITS = {
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "FGVCAircraft": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}


def _parameters(target: Any) -> set[str]:
    """A constructor's parameters, and those of its bases where it passes **kwargs on."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return set()
    names = set(parameters)
    if inspect.isclass(target) and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for base in target.__mro__[1:]:
            names |= set(inspect.signature(vars(base).get("__init__", object)).parameters)
    return names - {"self", "args", "kwargs"}


def folder(path: Path, *, train: bool) -> Any:
    """A folder of class folders of images, or of `train/` and `test/` folders of these.

    Returns:
        A torchvision `ImageFolder`, or None for a test part that is not there.

    Raises:
        DataError: If it holds no images in class folders.
    """
    parts = [path / "train"] if train else [path / n for n in ("test", "val", "valid")]
    if (path / "train").is_dir():
        part = next((part for part in parts if part.is_dir()), None)
    else:
        part = path if train else None
    if part is None:
        return None
    try:
        if train:
            return ImageFolder(str(part))
        return _HeldOutFolder(str(part), ImageFolder(str(path / "train")).class_to_idx)
    except (FileNotFoundError, OSError) as error:
        raise DataError(
            f"{path} is not a folder of class folders of images ({error}). Expected, for example, "
            f"{path}/cat/1.png and {path}/dog/2.png."
        ) from error


def held_out_fifth(arrays: Arrays) -> tuple[Tensor, Tensor]:
    """Row numbers for training and for testing, the same for every seed."""
    n = len(arrays)
    if n < 2:
        raise DataError(f"{arrays.name} has {n} row: too few to hold some out. Give test_dataset=.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    held_out = max(1, n // 5)
    return order[held_out:].sort().values, order[:held_out].sort().values


def take_rows(arrays: Arrays, index: Tensor) -> Arrays:
    """Some rows of a data set."""
    inputs: Tensor | LazyColumn
    if isinstance(arrays.inputs, Tensor):
        inputs = arrays.inputs.index_select(0, index)
    else:
        inputs = LazyColumn(
            _Reindexed(arrays.inputs.source, index.tolist()),
            arrays.inputs.convert,
            shape=arrays.inputs.shape[1:],
            dtype=arrays.inputs.dtype,
        )
    return replace(arrays, inputs=inputs, targets=arrays.targets.index_select(0, index))


def take_classes(arrays: Arrays, classes: list[int]) -> Arrays:
    """Only these classes, renumbered in the order given.

    Raises:
        DataError: If a class is not in the data.
    """
    if not arrays.discrete:
        raise DataError(f"{arrays.name} has no classes to take a subset of.")
    present = set(arrays.targets.unique().tolist())
    if wrong := [c for c in classes if c not in present]:
        raise DataError(f"subset={classes}: {arrays.name} has no class {wrong[0]}.")
    renumber = torch.full((int(arrays.targets.max()) + 1,), -1)
    renumber[torch.tensor(classes)] = torch.arange(len(classes))
    rows = (renumber[arrays.targets] >= 0).nonzero().flatten()
    kept = take_rows(arrays, rows)
    kept.targets, kept.num_classes = renumber[kept.targets], len(classes)
    return kept


class _HeldOutFolder(ImageFolder):
    """A folder whose classes are numbered as those of the training folder are."""

    def __init__(self, root: str, class_to_idx: dict[str, int]):
        self._numbers = class_to_idx
        super().__init__(root, allow_empty=True)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        found, _ = super().find_classes(directory)
        if unknown := [name for name in found if name not in self._numbers]:
            raise DataError(
                f"{directory} holds the class {unknown[0]}, which is not among the training data's: "
                f"{', '.join(self._numbers)}."
            )
        return list(self._numbers), self._numbers


class _Reindexed:
    """Some items of an indexable, in another order."""

    def __init__(self, source: Any, index: list[int]):
        self.source, self.index = source, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.source[self.index[i]]


def is_pair(source: Any) -> bool:
    return (
        isinstance(source, (tuple, list))
        and len(source) == 2
        and all(hasattr(part, "shape") and hasattr(part, "dtype") for part in source)
    )


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} holds lists of different lengths ({error}).") from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} holds {array.dtype}, not numbers. Encode words and objects as numbers first."
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def _torchvision_columns(source: Any) -> tuple[Tensor, Tensor] | None:
    """The arrays that many torchvision data sets hold already, if nothing is done to their items."""
    # A subclass that changes neither holds them too.
    reads = [getattr(type(source), name, None) for name in ("__getitem__", "__len__")]
    if not all(getattr(r, "__module__", "").startswith("torchvision.datasets") for r in reads):
        return None
    if any(getattr(source, t, None) for t in ("transform", "target_transform", "transforms")):
        return None
    inputs = getattr(source, "data", None)
    targets = getattr(source, "targets", getattr(source, "labels", None))
    if not isinstance(inputs, (np.ndarray, Tensor)) or targets is None:
        return None
    return torch.as_tensor(inputs), torch.as_tensor(targets)


def _decode(source: Any, name: str, image_size: int | None) -> tuple[Tensor | LazyColumn, Tensor]:
    """Read a Dataset item by item, once, into memory; or prepare to read it at each use."""
    if isinstance(source, IterableDataset) or not (
        hasattr(source, "__getitem__") and hasattr(source, "__len__")
    ):
        raise DataError(
            f"{name} is a {type(source).__name__}, which is no data set. Give the name of one, a "
            "torch.utils.data.Dataset with __len__ and __getitem__, a folder, or a pair of arrays."
        )
    n = len(source)
    if n == 0:
        raise DataError(f"{name} is empty: there is nothing to learn from.")
    first = _item(source, 0, name)
    convert = _converter(source, n, image_size, name)
    example = convert(first)
    fits = example.nbytes * n < _MEMORY_SHARE * _memory_bytes()
    if fits and not _changes(lambda i: convert(_item(source, i, name)), n):
        inputs = torch.empty((n, *example.shape), dtype=example.dtype)
        targets = []
        for i in range(n):
            item = _item(source, i, name)
            tensor = convert(item)
            if tensor.shape != example.shape:
                raise DataError(
                    f"Items of {name} differ in shape: {list(example.shape)} at 0, "
                    f"{list(tensor.shape)} at {i}."
                )
            inputs[i] = tensor
            targets.append(item[1])
        return inputs, _stack(targets, name)
    # Random transforms must be drawn anew at each reading, and large data must not be kept.
    labels = _torchvision_labels(source)
    if labels is None:
        labels = _stack([_item(source, i, name)[1] for i in range(n)], name)
    column = LazyColumn(source, convert, shape=tuple(example.shape), dtype=example.dtype)
    return column, labels


def _changes(item: Callable[[int], Tensor], n: int) -> bool:
    """Whether items differ from one reading to the next; a coin flip per item is noticed too."""
    with torch.random.fork_rng(devices=[]):
        return any(
            not torch.equal(item(i), item(i)) for i in range(0, n, max(1, n // 8)) for _ in range(3)
        )


def _stack(targets: list[Any], name: str) -> Tensor:
    plain = [t.detach().cpu().numpy() if isinstance(t, Tensor) else t for t in targets]
    return _tensor(plain, f"The targets of {name}")


def _torchvision_labels(source: Any) -> Tensor | None:
    """The labels that torchvision's own data sets list, where nothing is done to them."""
    if not isinstance(source, VisionDataset) or source.target_transform is not None:
        return None
    if not type(source).__module__.startswith("torchvision."):
        return None
    labels = getattr(source, "targets", None)
    return torch.as_tensor(labels) if isinstance(labels, list) else None


def _item(source: Any, i: int, name: str) -> Any:
    try:
        item = source[i]
    except Exception as error:
        raise DataError(f"Item {i} of {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(f"Item {i} of {name} is a {type(item).__name__}, not (input, target).")
    return item


def _converter(source: Any, n: int, image_size: int | None, name: str) -> Callable[[Any], Tensor]:
    """A function from an item to its input as a tensor, images resized to one size."""
    first = _item(source, 0, name)[0]
    if not hasattr(first, "getbands"):  # Not a PIL image.
        return lambda item: _channels_first(_tensor(item[0], name)[None])[0]
    size = (image_size, image_size) if image_size else None
    if size is None:
        some = [_item(source, i, name)[0].size for i in range(0, n, max(1, n // 100))]
        if len(set(some)) > 1:
            # Images of many sizes need one: the median, as large as networks usually take.
            width, height = (int(np.median([s[d] for s in some])) for d in (0, 1))
            size = (min(width, 224), min(height, 224))
        else:
            size = some[0]

    def convert(item: Any) -> Tensor:
        image = item[0] if item[0].size == size else item[0].resize(size)
        pixels = np.array(image)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        return torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())[
            (None,) if pixels.ndim == 2 else ...
        ]

    return convert


def _channels_first(inputs: Tensor) -> Tensor:
    """uint8 images or float32, `[N, H, W, C]` (and uint8 `[N, H, W]`) as `[N, C, H, W]`."""
    if inputs.dtype != torch.uint8:
        inputs = inputs.to(torch.float32)
    elif inputs.dim() == 3:
        return inputs[:, None]
    if inputs.dim() == 4 and inputs.shape[-1] in (1, 3, 4) and inputs.shape[1] not in (1, 3, 4):
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs


def _targets(targets: Tensor, name: str) -> Tensor:
    """int64 `[N]` for classes, float32 `[N, *shape]` for values."""
    if targets.dtype.is_floating_point:
        _check_finite(targets, f"targets of {name}")
        targets = targets.to(torch.float32)
        return targets[:, None] if targets.dim() == 1 else targets
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.dim() != 1:
        raise DataError(
            f"The integer targets of {name} have shape {list(targets.shape)}; classes are one number "
            "a row. Give several values a row as floats (regression)."
        )
    return targets.to(torch.int64)


def _check_finite(values: Tensor, what: str) -> None:
    if not values.dtype.is_floating_point:
        return
    # A sum is finite only if all are; it costs a tenth of looking at each.
    if torch.isfinite(values.sum(dtype=torch.float64)):
        return
    bad = (
        (~torch.isfinite(values)).flatten(1).any(1) if values.dim() > 1 else ~torch.isfinite(values)
    )
    if bad.any():
        raise DataError(
            f"The {what} hold NaN or infinite numbers in {int(bad.sum())} of {len(values)} rows "
            f"(first: row {int(bad.nonzero()[0])}). Fill or drop them before training."
        )


def _check_labels(arrays: Arrays) -> None:
    low, high = int(arrays.targets.min()), int(arrays.targets.max())
    if low < 0:
        raise DataError(
            f"Labels out of range: {arrays.name} holds label {low}. Classes are counted from 0."
        )
    if arrays.num_classes is not None and high >= arrays.num_classes:
        raise DataError(
            f"Labels out of range: {arrays.name} holds label {high}, but declares "
            f"{arrays.num_classes} classes (0 to {arrays.num_classes - 1})."
        )


def _memory_bytes() -> int:
    return (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if hasattr(os, "sysconf")
        else 2**33
    )


def default_data_dir() -> Path:
    """`$ANTELOPE_DATA`, else a cache directory of the user's."""
    if directory := os.environ.get("ANTELOPE_DATA"):
        return Path(directory)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "antelope"


def open_dataset(build: Callable[[], Any], *, name: str, data_dir: Path) -> Any:
    """Build a data set; a failing download becomes one clear error.

    Raises:
        DataError: What was tried, where the files may be put, and what needs no download.
    """
    try:
        return build()
    except ConfigError as error:
        # What the constructor raised, as told by the launcher.
        cause = error.__cause__
        if not isinstance(cause, (OSError, RuntimeError)):
            raise
        raise DataError(
            f"{name} could not be read from {data_dir.resolve()} nor downloaded "
            f"({type(cause).__name__}: {cause}). Put its files there (or say data_dir=..., or set "
            "ANTELOPE_DATA), check the network, or use dataset=Digits, which needs no download."
        ) from cause
