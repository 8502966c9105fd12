"""Takes the arrays that a data set holds, if reading it item by item would give exactly the same.

A data set is what its `__getitem__` returns. The arrays are taken only from classes whose
`__getitem__` is known, by identity, just to index two arrays: 60,000 pictures are then read at once
instead of one by one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .decoded import Files, PictureRows
from .folders import PictureFolder
from .images import load
from .streams import StreamRows


class Held(NamedTuple):
    """Inputs `[N, *shape]` and targets, a list or an array; whether inputs are pictures `[N, C, H, W]`."""

    inputs: Tensor
    targets: Any
    pictures: bool


def columns(source: Any) -> Held | None:
    """Inputs and targets of all items in order; None if they have to be read one by one."""
    if type(source) is Subset:
        return _rows(source, columns(source.dataset))
    if _reads_as(source, TensorDataset):
        return _of_tensors(source)
    held = _held_by_torchvision(source)
    if held is None or _altered(source, "transform", "target_transform", "transforms"):
        return None
    pictures, key = held
    inputs, targets = pictures(_own(source, "data")), _own(source, key)
    if inputs is None or not _whole(targets) or len(inputs) != len(targets):
        return None
    return Held(inputs, targets, pictures=True)


def labels(source: Any) -> Any:
    """The targets of all items in order, if the data set lists them; None if they have to be read.

    For pictures that are decoded or transformed at each reading, while their targets are not.
    """
    if type(source) is Subset:
        found = labels(source.dataset)
        index = _index(source.indices, -1 if found is None else len(found))
        return None if index is None else np.asarray(found)[index.numpy()]
    if _reads_as(source, PictureFolder) or isinstance(source, PictureRows | StreamRows):
        return source.targets
    module = sys.modules.get("torchvision.datasets")
    if module is None or _altered(source, "target_transform"):
        return None
    if (held := _held_by_torchvision(source)) is not None:
        data, targets = _own(source, "data"), _own(source, held[1])
        known = data is not None and _whole(targets)
        return targets if known and len(targets) == len(data) else None
    if _reads_as(source, module.DatasetFolder):
        return [target for _, target in source.samples]
    if _reads_as(source, module.Places365) and not _altered(source, "transforms"):
        return [target for _, target in source.imgs]
    return None


def files(source: Any) -> Files | None:
    """The picture files of all items, if reading an item only decodes a file; else None."""
    if isinstance(source, PictureRows):
        return source.files
    if _reads_as(source, PictureFolder):
        return _of_folder(source)
    if _altered(source, "transform", "target_transform", "transforms"):
        return None
    module = sys.modules.get("torchvision.datasets")
    # Under another backend a picture is not a PIL image.
    if module is None or sys.modules["torchvision"].get_image_backend() != "PIL":
        return None
    known = next(
        (names for n, names in _FILES.items() if _reads_as(source, getattr(module, n))), None
    )
    if known is None or getattr(source, "loader", _loader()) is not _loader():
        return None
    found, labels = (_own(source, name) if name else None for name in known)
    if not isinstance(found, list) or not found:
        return None
    if labels is None:  # The file and the label of each item are listed together.
        labels = [label for _, label in found]
        found = [file for file, _ in found]
    paths = list(map(os.fspath, found))
    if not _whole(labels) or len(labels) != len(paths):
        return None
    return Files(
        root=os.path.abspath(os.path.commonpath(paths)),
        part="",
        paths=paths,
        labels=torch.tensor(labels),
        image=lambda i: source[i][0],
        listing=paths,
        listed=lambda i: source[i][0],
        reader=f"torchvision {type(source).__name__}",
        whole=False,
    )


def _of_folder(source: PictureFolder) -> Files:
    paths, everything = source.paths, source.all_paths
    return Files(
        root=os.path.abspath(source.root),
        part=source.part,
        paths=paths,
        labels=torch.tensor(source.targets),
        image=lambda i: load(paths[i]),
        listing=everything,
        listed=lambda i: load(everything[i]),
        reader="folder",
        whole=True,
    )


def _loader() -> Any:
    return sys.modules["torchvision.datasets.folder"].default_loader


def _reads_as(source: Any, known: type) -> bool:
    """Whether its items are read by the known class's own methods, with no attribute access overridden."""
    kind = type(source)
    # `__getitems__` too, which a DataLoader prefers: a subclass with its own reads differently.
    return (
        all(getattr(kind, n, None) is getattr(known, n) for n in ("__getitem__", "__len__"))
        and kind.__getattribute__ is object.__getattribute__
        and getattr(kind, "__getitems__", None) is getattr(known, "__getitems__", None)
    )


def _altered(source: Any, *names: str) -> bool:
    return any(getattr(source, name, None) is not None for name in names)


def _own(source: Any, name: str) -> Any:
    """An attribute assigned to the object; None if its class computes it."""
    return None if hasattr(type(source), name) else vars(source).get(name)


def _of_tensors(source: TensorDataset) -> Held | None:
    tensors: Any = _own(source, "tensors") or ()
    if len(tensors) != 2 or not all(isinstance(t, Tensor) and t.dim() for t in tensors):
        return None
    inputs, targets = tensors
    return Held(inputs, targets, pictures=False) if len(inputs) == len(targets) else None


def _rows(subset: Any, held: Held | None) -> Held | None:
    if held is None:
        return None
    index = _index(subset.indices, len(held.inputs))
    if index is None:
        return None
    targets = held.targets
    if isinstance(targets, Tensor):
        targets = targets[index.to(targets.device)]
    else:
        targets = np.asarray(targets)[index.numpy()]
    return held._replace(inputs=held.inputs[index.to(held.inputs.device)], targets=targets)


def _index(indices: Any, n: int) -> Tensor | None:
    """Integers from -n to n - 1 as int64 `[rows]` counted from 0; None for anything else."""
    try:
        index = torch.as_tensor(indices if hasattr(indices, "dtype") else list(indices))
    except (TypeError, ValueError, RuntimeError):
        return None
    if n < 0 or index.dim() != 1 or not len(index) or not _is_integer(index):
        return None
    index = index.to(torch.int64)
    if int(index.min()) < -n or int(index.max()) >= n:
        return None
    return torch.where(index < 0, index + n, index)


def _whole(targets: Any) -> bool:
    """Whether targets are a sequence of integers: some classes call `int` on each, which would cut others."""
    if isinstance(targets, list):
        return all(
            isinstance(target, (int, np.integer)) and not isinstance(target, bool)
            for target in targets
        )
    if isinstance(targets, Tensor):
        return targets.dim() == 1 and _is_integer(targets)
    return isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "iu"


def _is_integer(tensor: Tensor) -> bool:
    kinds = tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    return not kinds


Pictures = Callable[[Any], Tensor | None]


def _grey(data: Any) -> Tensor | None:
    """A uint8 tensor `[N, H, W]` as `[N, 1, H, W]`."""
    held = isinstance(data, Tensor) and data.dtype == torch.uint8 and data.dim() == 3
    return data[:, None] if held else None


def _grey_array(data: Any) -> Tensor | None:
    """A uint8 array `[N, H, W]` as `[N, 1, H, W]`."""
    held = _bytes(data)
    return None if held is None else _grey(held)


def _channels_last(data: Any) -> Tensor | None:
    """A uint8 array `[N, H, W, 3]` as `[N, 3, H, W]`."""
    held = _bytes(data)
    if held is None or held.shape[3:] != (3,):
        return None
    return held.permute(0, 3, 1, 2).contiguous()


def _channels_first(data: Any) -> Tensor | None:
    """A uint8 array `[N, 3, H, W]`."""
    held = _bytes(data)
    return held if held is not None and held.dim() == 4 and held.shape[1] == 3 else None


def _bytes(data: Any) -> Tensor | None:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        return None
    # torch warns of read-only arrays, since it could write to them.
    return torch.from_numpy(data if data.flags.writeable else data.copy())


# By class: the layout of its `data`, and the attribute with its targets. The source of each
# `__getitem__` was checked: it makes a picture of `data[i]` and returns it with the target. QMNIST and
# PhotoTour do something else.
_TORCHVISION: dict[str, tuple[Pictures, str]] = {
    "MNIST": (_grey, "targets"),  # And its subclasses FashionMNIST, KMNIST, EMNIST.
    "CIFAR10": (_channels_last, "targets"),  # And CIFAR100.
    "SVHN": (_channels_first, "labels"),
    "STL10": (_channels_first, "labels"),
    "SEMEION": (_grey_array, "labels"),
    "USPS": (_grey_array, "targets"),
}


# The source of each `__getitem__` was checked: it decodes a file and returns the picture with the label.
# The attributes with the files and the labels; "": the first has both.
_FILES: dict[str, tuple[str, str]] = {
    # And its subclasses ImageFolder, ImageNet, EuroSAT, Country211.
    "DatasetFolder": ("samples", ""),
    "DTD": ("_image_files", "_labels"),
    "FGVCAircraft": ("_image_files", "_labels"),
    "Flowers102": ("_image_files", "_labels"),
    "Food101": ("_image_files", "_labels"),
    "GTSRB": ("_samples", ""),
    "Imagenette": ("_samples", ""),
    "Places365": ("imgs", ""),
    "RenderedSST2": ("_samples", ""),
    "StanfordCars": ("_samples", ""),
    "SUN397": ("_image_files", "_labels"),
}


def _held_by_torchvision(source: Any) -> tuple[Pictures, str] | None:
    module = sys.modules.get("torchvision.datasets")
    if module is None:  # Where it is not imported, no source comes from it.
        return None
    return next(
        (held for name, held in _TORCHVISION.items() if _reads_as(source, getattr(module, name))),
        None,
    )
