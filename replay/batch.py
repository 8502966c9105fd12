"""Named tensors that share their first dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, Union

import torch
from torch import Tensor

from .padding import mark_fields
from .tree import map_tree, walk

# One tensor, or nested dicts of them: observations, actions, masks.
Tensors: TypeAlias = Union[Tensor, dict[str, "Tensors"]]  # noqa: UP007  (| takes no string)


class Batch:
    """Fields by attribute or item; rows by index, slice, mask or index tensor.

    Sequences of different lengths, padded with zeros, come with `length`, int64 `[B]`, and `mask`, bool
    `[B, T]`, True at real steps.

    >>> batch = Batch(obs=torch.zeros(4, 2), label=torch.arange(4))
    >>> batch.obs.shape, batch["label"][1].item(), len(batch), len(batch[:3])
    (torch.Size([4, 2]), 1, 4, 3)
    """

    def __init__(self, **fields: Any):
        self.__dict__.update(fields)
        if "length" in fields:
            mark_fields(fields)

    def __getattr__(self, name: str) -> Any:
        # Only reached for a field that is missing: say which there are.
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"This batch has no `{name}`. It has: {', '.join(self.__dict__)}.")

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Tensor) and key.dtype == torch.int64 and key.dim() == 1:
            return self.map(lambda field: field.index_select(0, key))  # Faster than field[key].
        if not isinstance(key, str):
            return self.map(lambda field: field[key])
        try:
            return self.__dict__[key]
        except KeyError:
            raise KeyError(
                f"This batch has no {key!r}. It has: {', '.join(self.__dict__)}."
            ) from None

    def __setitem__(self, key: str, value: object) -> None:
        self.__dict__[key] = value
        if "length" in self.__dict__:
            mark_fields(self.__dict__)

    def __contains__(self, key: str) -> bool:
        return key in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        """The number of rows."""
        field = next(iter(self.__dict__.values()), ())
        while isinstance(field, dict):
            field = next(iter(field.values()))
        return len(field)

    def keys(self) -> Any:
        """The names of the fields, which makes `{**batch}` and `dict(batch)` work."""
        return self.__dict__.keys()

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A batch with `function` applied to every tensor, those inside dicts included."""

        def changed(field: object) -> Any:
            return function(field) if isinstance(field, Tensor) else field

        return Batch(**map_tree(changed, self.__dict__))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self.map(lambda field: field.to(device, non_blocking=non_blocking))

    def __repr__(self) -> str:
        return f"Batch({describe(self)})"


def describe(batch: Batch) -> str:
    """`obs float32 [128, 1, 8, 8], label int64 [128]`: for error messages.

    >>> describe(Batch(label=torch.zeros(3, dtype=torch.int64)))
    'label int64 [3]'
    """

    def words(name: str, field: object) -> str:
        if isinstance(field, Tensor):
            return f"{name} {str(field.dtype).removeprefix('torch.')} {list(field.shape)}"
        return f"{name} {type(field).__name__}"

    return ", ".join(words(".".join(path), field) for path, field in walk(dict(batch)))
