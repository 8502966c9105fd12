"""Watches the first learning step for a `[B]` that is broadcast with a `[B, 1]`.

`(q - batch.label) ** 2` with q `[B]` and a label `[B, 1]` is `[B, B]`, every row with every other: torch
broadcasts silently, and the model learns the mean. Watching reads shapes only, so that the step's
results stay the same to the bit.

Legend: B rows of the batch; `[T, N]` and `[B, T]` likewise.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ...replay import Batch, ConfigError, Replay
from ...replay.tree import walk
from ..settings.object_names import short_name

# Functions by their names, without underscores.
_ARITHMETIC = frozenset(
    (
        *("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide"),
        *("floor_divide", "truediv", "floordiv", "pow", "maximum", "minimum", "max", "min"),
        *("fmax", "fmin", "hypot", "atan2", "logaddexp", "xlogy", "where", "lerp", "addcmul"),
        *("addcdiv", "remainder", "fmod", "mod", "clamp", "clip", "rsub"),
    )
)
_COMPARISONS = frozenset(
    (
        *("eq", "ne", "lt", "le", "gt", "ge", "not_equal", "less", "less_equal", "greater"),
        *("greater_equal", "isclose", "and", "or", "xor", "logical_and", "logical_or"),
        *("logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"),
    )
)
_LOSSES = frozenset(
    (
        *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy"),
        *("binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss"),
        *("gaussian_nll_loss", "soft_margin_loss", "hinge_embedding_loss"),
        *("margin_ranking_loss", "dist", "pairwise_distance", "cosine_similarity"),
    )
)
# Their output is the model's, whatever their inputs are.
_LAYERS = frozenset(
    (
        *("linear", "bilinear", "matmul", "mm", "mv", "bmm", "addmm", "addmv", "baddbmm"),
        *("einsum", "tensordot", "embedding", "embedding_bag", "conv1d", "conv2d", "conv3d"),
        *("gru", "lstm", "rnn_tanh", "rnn_relu", "gru_cell", "lstm_cell"),
    )
)
_PICKING = frozenset(
    ("getitem", "gather", "take", "take_along_dim", "index_select", "masked_select")
)
# Applied to errors before their mean, which nobody wants over all pairs of rows.
_SIZES = frozenset(
    (
        *("pow", "square", "abs", "absolute", "neg", "negative", "mul", "multiply", "div"),
        *("add", "sub", "float", "double", "to"),
    )
)
_MEANS = frozenset(("mean", "sum"))
_COUNTS = frozenset(("bincount", "unique", "histc"))  # Of classes or bins, not of rows.
_OVER_ROWS = frozenset(("mean", "sum", "max", "min", "amax", "amin", "std", "var", "prod"))
_VIEWS = frozenset(("T", "mT", "H", "mH", "data", "real"))  # Properties that are tensors.
_INPUTS = frozenset(("obs", "next_obs", "raw", "state", "task", "index"))
# In evaluation mode these have faster kernels, which torch does not use while functions are watched.
_FASTER = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
_PATIENCE = 100  # Steps that compute something without drawing a batch; then none is expected.


class Meetings:
    """Watches learning steps until one has drawn a batch.

    Attributes:
        over: Whether watching has ended.
    """

    def __init__(self, agent: nn.Module):
        self.agent = agent
        self.over = False
        self._steps = 0

    def watched(
        self, step: Callable[[Replay, Any], Any], *, first: bool
    ) -> Callable[[Replay, Any], Any]:
        """`step(replay, log)`, which raises a ConfigError if tensors `[B]` and `[B, 1]` are broadcast.

        One of them has to come from a label, a reward or another field that is no input. The error is
        raised even if the model catches exceptions.

        Args:
            step: The learning step.
            first: Whether it is the run's very first step; False after a resumption.
        """
        if any(_is_apart(module, first=first) for module in self.agent.modules()):
            self.over = True
            return step

        def watched(replay: Replay, log: Any) -> Any:
            watch = _Watch()
            before, replay.seen_by = replay.seen_by, watch.see
            try:
                with watch:
                    result = step(replay, log)
            except Exception as error:
                if watch.error is None or watch.error is error:
                    raise
                raise watch.error from error
            finally:
                replay.seen_by = before
                self._steps += watch.computed
                self.over = watch.drawn or self._steps >= _PATIENCE
            if watch.error is not None:
                raise watch.error
            return result

        return watched


def _is_apart(module: nn.Module, *, first: bool) -> bool:
    """Whether a module must not be watched: it would be compiled twice, or its last bits might differ.

    A `learn` that puts such a module into evaluation mode itself is watched in the first step only,
    so that a resumed run equals one that was never interrupted.
    """
    compiled = module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule"
    return compiled or (isinstance(module, _FASTER) and not (first and module.training))


@dataclass(frozen=True)
class _Rows:
    """What is known of a tensor that depends on a batch's rows.

    Attributes:
        fields: The batch's labels, rewards, ... that it was computed from; inputs do not count.
        alone: Whether it was computed from these only, without the model.
        raised: Whether the user's code added its last dimension, of size 1.
        name: The field's name, for a field of the batch itself.
        place: File and line of the user's code that computed it.
    """

    fields: frozenset[str]
    alone: bool
    raised: bool = False
    name: str | None = None
    place: tuple[str, int] | None = None


class _Watch(TorchFunctionMode):
    """Follows a batch's rows through the functions of torch.

    Attributes:
        drawn: Whether a batch of several rows was drawn.
        computed: Whether anything was computed.
        error: The mistake that was found, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn = self.computed = False
        self.error: ConfigError | None = None
        self._rows: Any = WeakTensorKeyDictionary()
        # Tensors of all pairs of rows, which may be intended; the message if they are merely averaged.
        self._pairs: Any = WeakTensorKeyDictionary()

    def see(self, batch: Batch) -> None:
        """Follow the fields of a batch that was drawn."""
        self.drawn = self.drawn or len(batch) > 1
        for name in batch:
            label = name not in _INPUTS
            for path, field in _named(batch[name], name):
                fields = frozenset((path,)) if label else frozenset[str]()
                self._rows[field] = _Rows(fields, label, name=path)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)  # The compiler would trace this function, too.
        name = _name(func)
        if name is None:
            return func(*args, **kwargs)
        self.computed = True
        given = list(_tensors((args, tuple(kwargs.values()))))
        # Nested tensors have no shape to look at.
        if not any(x in self._rows for x in given) or any(x.is_nested for x in given):
            return func(*args, **kwargs)
        pairs = self._look(name, given, args, kwargs)
        output = func(*args, **kwargs)
        if name in _COUNTS or (name in _OVER_ROWS and _is_over_rows(given[0], args, kwargs)):
            return output
        for result in _tensors(given[0] if name == "setitem" else output):
            if result.is_nested:
                continue
            self._rows[result] = self._made(name, result, given)
            if pairs is not None:
                self._pairs[result] = pairs
            else:
                self._pairs.pop(result, None)  # Changed in place.
        return output

    def _look(
        self, name: str, given: list[Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> str | None:
        """The message if averaging the output would be a mistake; None if it would not.

        Args:
            name: Name of the function, without underscores.
            given: All tensors among its arguments.

        Raises:
            ConfigError: If it is a mistake for certain.
        """
        for x in given:
            if (wrong := self._pairs.get(x)) is None:
                continue
            if name in _MEANS and len(args) == 1 and not {"dim", "axis"} & kwargs.keys():
                self._refuse(wrong)
            others = [y for y in given if y is not x]
            return wrong if name in _SIZES and all(y.numel() < x.numel() for y in others) else None
        kinds = (_ARITHMETIC, _COMPARISONS, _LOSSES)
        if not any(name in kind for kind in kinds):
            return None
        for short in given:
            for long in given:
                a, b = self._rows.get(short), self._rows.get(long)
                if a is None or b is None or not _meet(short, long):
                    continue
                if not (a.fields or b.fields) or (a.alone and b.alone and a.fields == b.fields):
                    continue
                wrong = _message(name, short, a, long, b)
                # All pairs may be intended: in masks, and where the user added the dimension.
                meant = name in _COMPARISONS or a.raised or b.raised
                if name in _LOSSES:
                    meant = meant and kwargs.get("reduction") == "none"
                if not meant:
                    self._refuse(wrong)
                return wrong
        return None

    def _made(self, name: str, result: Tensor, given: list[Tensor]) -> _Rows:
        """What is known of a function's output, from what is known of its inputs."""
        known = [(x, self._rows[x]) for x in given if x in self._rows]
        layer = name in _LAYERS
        fields = (
            frozenset[str]() if layer else frozenset[str]().union(*(r.fields for _, r in known))
        )
        alone = not layer and all(rows.alone for _, rows in known)
        first = given[0]
        column = result.dim() > 0 and result.shape[-1] == 1
        raised = column and result.dim() == first.dim() + 1 and result.numel() == first.numel()
        if column and not (raised or layer):
            sources = [(x, r) for x, r in known if x is first] if name in _PICKING else known
            raised = any(rows.raised and x.shape == result.shape for x, rows in sources)
        return _Rows(fields, alone, raised, place=_place())

    def _refuse(self, wrong: str) -> None:
        self.error = ConfigError(wrong)
        raise self.error


def _meet(short: Tensor, long: Tensor) -> bool:
    """Whether shapes `[*S]` and `[*S, 1]` broadcast to a larger one.

    The second may have more dimensions in front: an ensemble's `[E, B, 1]` and `[B]` make `[E, B, B]`.
    """
    if not short.dim() or long.shape[-short.dim() - 1 :] != (*short.shape, 1):
        return False
    try:
        return torch.broadcast_shapes(short.shape, long.shape).numel() > long.numel()
    except RuntimeError:  # torch will raise an error itself.
        return False


def _is_over_rows(x: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a reduction is over the rows, the first dimension: its output has none of them."""
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    return x.dim() > 1 and any(type(d) is int and d % x.dim() == 0 for d in dims)


def _message(name: str, short: Tensor, a: _Rows, long: Tensor, b: _Rows) -> str:
    row, column = list(short.shape), list(long.shape)
    whole = list(torch.broadcast_shapes(short.shape, long.shape))
    at = _place()
    return (
        f"{_shown(at)}: `{name}` of a {row} and a {column} gives {whole}, every row with every "
        f"other. The {row} is {_called(a, at)}; the {column} is {_called(b, at)}. Give both one "
        f"shape: `.squeeze(-1)` the {column}, or `.unsqueeze(-1)` the {row}. If all pairs are "
        f"intended, write the {row} with `[None]`."
    )


def _called(rows: _Rows, at: tuple[str, int] | None) -> str:
    """The words for a tensor in a message, and where it was computed."""
    if rows.name is not None:
        return f"`batch.{rows.name}`"
    of = " and ".join(f"`batch.{field}`" for field in sorted(rows.fields)) or "the model's output"
    where = "in the same line" if rows.place == at else f"in {_shown(rows.place)}"
    return f"made of {of} {where}"


def _place() -> tuple[str, int] | None:
    """File and line of the user's code that is running; Antelope's if there is none on the stack."""
    frame: FrameType | None = sys._getframe(1)
    ours = None
    while frame is not None:
        home = str(frame.f_globals.get("__name__", ""))
        if home.startswith("antelope."):
            if ours is None and home != __name__:
                ours = frame.f_code.co_filename, frame.f_lineno
        elif home != "torch" and not home.startswith("torch."):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return ours


def _shown(place: tuple[str, int] | None) -> str:
    if place is None:
        return "the learning step"
    line = linecache.getline(*place).strip()
    return f"{os.path.basename(place[0])}:{place[1]}" + (f" (`{line}`)" if line else "")


def _name(func: Any) -> str | None:
    """`sub` for Tensor.sub_, torch.sub and `__rsub__`; None for properties such as shapes."""
    name = short_name(func)
    if name == "__get__":
        name = short_name(func.__self__)
        return name if name in _VIEWS else None
    if not name.startswith("__"):
        return name.rstrip("_")
    name = name.strip("_")
    plain = name[1:]
    return plain if name[:1] in ("r", "i") and plain in _ARITHMETIC | _COMPARISONS else name


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors among arguments, those in lists and tuples included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _named(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a field, with names such as `obs.camera`."""
    for keys, part in walk(value, (path,)):
        if isinstance(part, Tensor):
            yield ".".join(keys), part
