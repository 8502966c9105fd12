"""Integer inputs, which modules receive unchanged: advice where a module does not support them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ...replay import ConfigError, Space
from ...replay.tree import Path, leaves, walk

# Parts of torch's messages, in lower case: for integers where it needs floats, for ids without a row.
_NOT_NUMBERS = ("dtype", "long", "int64", "scalar type", "same type")
_NO_ROW = ("out of range", "out of bounds", "class values")
# Names of functions, without underscores, that truncate fractions, and that look up ids.
_CUTS = ("long", "int", "to", "type")
_LOOKUPS = ("getitem", "embedding", "embedding_bag", "one_hot", "index_select")
# Functions that turn a one-hot row into ids, among others.
_DECODES = ("argmax", "max", "topk", "nonzero", "where", "sum", "matmul", "mv", "mm", "einsum")
_STANDARDISED = (
    "`obs.long()`, or a part of it, is looked up (an embedding, an index, one_hot), and the inputs are "
    "floats or bytes, which are standardised: every id would become a wrong one. Give integers (int32, "
    "int64) in your data; they arrive unchanged. In a table with other numbers, undo it for these "
    "columns: `(obs * spec.obs.stddev + spec.obs.mean).round().long()`."
)
_ONE_HOT = (
    "`obs.long()`, or a part of it, is looked up (an embedding, an index, one_hot), and observations of a "
    "Discrete space arrive one-hot: every id would be a 0 or a 1. Look up `obs.argmax(-1)`; of a "
    "MultiDiscrete space, that of each part of `obs.split(spec.obs.nvec, -1)`."
)


def about_integers(error: BaseException, space: Any, *, after: str = ".") -> str:
    """Advice about integer inputs that caused an error; empty for any other error.

    Args:
        error: What the module raised.
        space: Space of the inputs.
        after: The text that the advice follows; torch's messages do not end in a full stop.
    """
    text = str(error).lower()
    begin = " " if after.endswith((".", "!", "?")) else ". "
    parts = [(path, part) for path, part in walk(space) if isinstance(part, Space)]
    said = [_advice(text, path, part) for path, part in parts if part.ids is not None]
    return begin + " ".join(said) if any(said) else ""


def _advice(text: str, path: Path, space: Space) -> str:
    """Advice about the integers of one part of the inputs.

    Args:
        text: The error, in lower case.
        path: The keys of the part; `()`: the inputs are not a dict.
    """
    keys = "".join(f"[{key!r}]" for key in path)
    part = f" `{'.'.join(path)}`" if path else ""
    of_data = space.mean is not None  # An environment's are numbers of its choices.
    if any(words in text for words in _NO_ROW):
        asked = "" if path else ", or ask for `vocab_size` or `num_embeddings` in the constructor"
        return (
            f"The inputs{part} are integers from {space.low} to {space.high}: an embedding of them needs "
            f"{space.ids} rows (spec.obs{keys}.n{asked})"
            f"{', and has none for negative numbers' * (space.low < 0)}."  # type: ignore[operator]
        )
    if any(words in text for words in _NOT_NUMBERS) and not of_data:
        return (
            f"Observations{part} are one of {space.ids:,} choices, too many for one-hot rows: they arrive "
            f"as ids, int64. Embed them: nn.Embedding(spec.obs{keys}.n, ...)"
            f"{'.' if path else ', or ask for `num_embeddings` in the constructor.'}"
        )
    if any(words in text for words in _NOT_NUMBERS):
        return (
            f"The inputs{part} are integers and arrive unchanged (int64), as nn.Embedding needs "
            "them. If they are numbers (amounts, measurements, pixels), set standardize=true: "
            "they then come as float32."
        )
    return ""


@contextmanager
def embeddings_checked(agent: nn.Module, obs: Any, *, one_hot: bool = False) -> Iterator[None]:
    """Runs the block with embeddings checking their ids, since a bad id on a GPU would end the process.

    Args:
        obs: The agent's input; looking up floats truncated to integers is an error as well.
        one_hot: Whether the input is a one-hot row, whose numbers are all whole.

    Raises:
        IndexError: Naming the id and the number of rows.
        ConfigError: If fractions are truncated to look them up.
    """

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        index, rows = args[0] if args else None, module.num_embeddings
        if not isinstance(index, Tensor) or index.dtype.is_floating_point or not index.numel():
            return
        low, high = (int(end) for end in torch.aminmax(index))
        if low < 0 or high >= rows:  # type: ignore[operator]
            raise IndexError(f"{low if low < 0 else high} is out of range of its {rows} rows")

    hooks = [
        part.register_forward_pre_hook(check)
        for part in agent.modules()
        if isinstance(part, (nn.Embedding, nn.EmbeddingBag))
    ]
    floats = [x for x in leaves(obs) if isinstance(x, Tensor) and x.dtype.is_floating_point]
    try:
        with _Cut(floats, one_hot=one_hot) if floats and not _is_compiled(agent) else nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Cut(TorchFunctionMode):
    """Tracks observations, or columns of them, that are truncated to integers and then looked up."""

    def __init__(self, obs: list[Tensor], *, one_hot: bool):
        super().__init__()
        self._one_hot = one_hot
        self._storages = {part.untyped_storage().data_ptr() for part in obs}
        self._ids: Any = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if torch.compiler.is_compiling():
            return output
        name = getattr(func, "__name__", "").strip("_")
        given = [x for x in _flat((*args, *(kwargs or {}).values())) if isinstance(x, Tensor)]
        if name in _LOOKUPS:
            # `ids[:, 0]` looks up nothing: the ids are not what it is indexed by.
            by = given[1:] if name == "getitem" else given
            if any(x in self._ids for x in by):
                raise ConfigError(_ONE_HOT if self._one_hot else _STANDARDISED)
        for made in _flat(output if isinstance(output, (list, tuple)) else (output,)):
            if isinstance(made, Tensor) and _is_whole(made) and self._is_cut(name, made, given):
                self._ids[made] = True
        return output

    def _is_cut(self, name: str, made: Tensor, given: list[Tensor]) -> bool:
        """Whether a function's output was truncated from fractions, or derives from such values."""
        if any(x in self._ids for x in given):
            return name not in _DECODES
        if name not in _CUTS or not given or not given[0].is_floating_point():
            return False
        numbers = given[0]
        try:
            ours = numbers.untyped_storage().data_ptr() in self._storages
            return ours and (self._one_hot or not bool((numbers == numbers.round()).all()))
        except RuntimeError:  # Inside vmap: no data pointer, no truth value.
            return False


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _is_whole(x: Tensor) -> bool:
    return x.dtype in (torch.int64, torch.int32, torch.int16, torch.int8)


def _is_compiled(agent: nn.Module) -> bool:
    """Whether a part is compiled: tracking would trigger another compilation."""
    return any(
        part._compiled_call_impl is not None or type(part).__name__ == "OptimizedModule"
        for part in agent.modules()
    )
