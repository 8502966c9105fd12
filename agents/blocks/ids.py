"""Integer inputs, which modules receive as they are: what to say where one cannot take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...replay import ConfigError, Space

# What torch says of integers where it wants floats, in lower case, and of ids that there is no row for.
_NOT_NUMBERS = ("dtype", "long", "int64", "scalar type", "same type")
_NO_ROW = ("out of range", "out of bounds", "class values")


def about_integers(error: BaseException, space: Any, *, after: str = ".") -> str:
    """What to do about integers that a module could not take; else nothing.

    Args:
        after: The text that it follows: what torch says does not end in a full stop.
    """
    if not isinstance(space, Space) or space.ids is None:
        return ""
    text = str(error).lower()
    begin = " " if after.endswith((".", "!", "?")) else ". "
    if any(words in text for words in _NO_ROW):
        return (
            f"{begin}The inputs are integers from {space.low} to {space.high}: an embedding of them needs "
            f"{space.ids} rows (spec.obs.n, or ask for `vocab_size` or `num_embeddings` in the constructor)"
            f"{', and has none for negative numbers' * (space.low < 0)}."  # type: ignore[operator]
        )
    if any(words in text for words in _NOT_NUMBERS):
        return (
            f"{begin}The inputs are integers and arrive unchanged (int64), as nn.Embedding needs "
            "them. If they are numbers (amounts, measurements, pixels), set standardize=true: "
            "they then come as float32."
        )
    return ""


@contextmanager
def embeddings_checked(agent: nn.Module, obs: Any) -> Iterator[None]:
    """Inside, an embedding that is given what it has no row for raises; on a GPU, it would end the process.

    Args:
        obs: What the agent is given: floats that are cut to integers are an error as well.

    Raises:
        IndexError: Naming the id and how many rows there are.
        ConfigError: If numbers between integers are cut to be looked up.
    """

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        index, rows = args[0] if args else None, module.num_embeddings
        if not isinstance(index, Tensor) or index.dtype.is_floating_point or not index.numel():
            return
        if isinstance(obs, Tensor) and _cut(obs, index):
            raise ConfigError(
                "An embedding looks up `obs.long()`, and the inputs are floats or bytes, which "
                "are standardised: every id would become a wrong one. Give integers (int32, "
                "int64) in your data; they arrive unchanged."
            )
        low, high = (int(end) for end in torch.aminmax(index))
        if low < 0 or high >= rows:  # type: ignore[operator]
            raise IndexError(f"{low if low < 0 else high} is out of range of its {rows} rows")

    hooks = [
        part.register_forward_pre_hook(check)
        for part in agent.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _cut(obs: Tensor, index: Tensor) -> bool:
    """Whether ids are observations whose fractions were cut off."""
    if not obs.dtype.is_floating_point or obs.shape != index.shape:
        return False
    return bool((index == obs.long()).all()) and not bool((obs == obs.round()).all())
