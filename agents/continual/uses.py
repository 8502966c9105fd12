"""Where a forward uses its weights, and the per-row gradients that follow from it.

Legend: B rows, N uses of a weight by one row (positions in an image, steps of a sequence, calls), G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .recurrences import written_out

# Size of the per-row gradients computed at a time, with their factors: about a CPU cache.
_BYTES = 2**22

Factors = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Use:
    """One use of a weight.

    Attributes:
        x: The layer's input, `[B, ...]`, detached.
        factors: Maps `x` and the gradient of the output, both `[B, k, ...]`, to `a` `[B, G, N, o]` and `c`
            `[B, G, N, i]`, such that the gradient of row b is `sum_n a_bgno c_bgni`.
        work: How many numbers the factors hold for each number in `x`.
        second: Whether the rows may be the second dimension, as in time-major sequences.
        padding: In an embedding, the row that is not trained, or -1; None for other layers.
        dy: The gradient of the output, `[B, ...]`, after a backward; None before.
    """

    x: Tensor
    factors: Factors
    work: int = 1
    second: bool = False
    padding: int | None = None
    dy: Tensor | None = None


class Uses(TorchFunctionMode):
    """Records every use of the given weights in layers of known kinds, by name, while active.

    It knows linear maps, convolutions, embeddings, normalisation (with fixed statistics, or statistics of
    one row) and recurrent layers, as modules or as functions, however often they are called. Other uses of
    a weight go unnoticed: compare the result with a gradient that is known to be right.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self.of: dict[str, list[Use]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.linear:
            return self._linear(*args, **kwargs)
        if (rule := _RULES.get(function)) is not None:
            return rule(self, function, *args, **kwargs)
        found = None if kwargs else written_out(function, args, self._linear)
        return function(*args, **kwargs) if found is None else found

    def forget(self) -> None:
        """Drop the recorded output gradients, before another backward."""
        for uses in self.of.values():
            for use in uses:
                use.dy = None

    def note(self, output: Tensor, *pairs: tuple[Tensor | None, Use]) -> Tensor:
        """Remember the uses that an output was computed from."""
        if not output.requires_grad:
            return output
        noted = [use for weight, use in pairs if self._note(weight, use)]

        def came_back(dy: Tensor) -> None:
            for use in noted:
                use.dy = dy

        if noted:  # A hook, since an in-place activation would turn the output into another tensor.
            output.register_hook(came_back)
        return output

    def _note(self, weight: Tensor | None, use: Use) -> bool:
        name = self._names.get(id(weight))
        if name is not None:
            self.of.setdefault(name, []).append(use)
        return name is not None

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = input.detach()
        output = F.linear(input, weight, bias)
        return self.note(
            output, (weight, Use(x, _linear, second=True)), (bias, Use(x, _bias, second=True))
        )


def _linear(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return dy.flatten(1, -2).unsqueeze(1), x.flatten(1, -2).unsqueeze(1)


def _bias(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return _sum_to(dy, 1)


def _sum_to(each: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """Factors for a gradient that is known in full, of a weight with the last `dims` dimensions."""
    a = each.flatten(1, -dims - 1).sum(1).flatten(1)[:, None, None]  # [B, 1, 1, o]
    return a, a.new_ones(len(a), 1, 1, 1)


# --------------------------------------------------------------------------------- convolutions


def _convolution(
    uses: Uses,
    function: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    output: Tensor = function(input, weight, bias, stride, padding, dilation, groups)
    n = weight.dim() - 2
    if input.dim() != n + 2:
        return output
    size = weight.shape[2:]
    stride, dilation = _per_dimension(stride, n), _per_dimension(dilation, n)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in _per_dimension(0 if padding == "valid" else padding, n)]
    padded = [number for pair in reversed(pads) for number in pair]

    def factors(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        rows, k = x.shape[:2]
        x, dy = F.pad(x.flatten(0, 1), padded), dy.flatten(0, 1)
        c = _patches(x, size, dy.shape[2:], stride, dilation)  # [Bk, C, K, L]
        c = c.reshape(rows, k, groups, -1, c.shape[-1]).permute(0, 2, 1, 4, 3).flatten(2, 3)
        a = dy.reshape(rows, k, groups, dy.shape[1] // groups, -1).permute(0, 2, 1, 4, 3)
        return a.flatten(2, 3), c

    def of_bias(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        return _sum_to(dy.flatten(3).transpose(2, 3), 1)

    x = input.detach()
    work = math.ceil(math.prod(size) / math.prod(stride))
    return uses.note(output, (weight, Use(x, factors, work)), (bias, Use(x, of_bias)))


def _patches(
    x: Tensor,
    size: Sequence[int],
    places: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The patch of `x`, `[R, C, ...]`, under each position of a convolution: `[R, C, K, L]`."""
    x = x.contiguous()
    row, channel, *each = x.stride()
    within = [d * step for d, step in zip(dilation, each, strict=True)]
    between = [s * step for s, step in zip(stride, each, strict=True)]
    shape = (*x.shape[:2], *size, *places)
    seen = x.as_strided(shape, (row, channel, *within, *between))
    return seen.reshape(*x.shape[:2], math.prod(size), math.prod(places))


def _per_dimension(number: int | Sequence[int], n: int) -> Sequence[int]:
    """A convolution's argument, one number or n, as one number per dimension."""
    return (
        tuple(number) * (n if len(number) == 1 else 1)
        if isinstance(number, Sequence)
        else (number,) * n
    )


# ----------------------------------------------------------------------- embeddings, normalisation


def _embedding(
    uses: Uses,
    function: Any,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    options = (max_norm, norm_type, scale_grad_by_freq, sparse)
    output: Tensor = function(input, weight, padding_idx, *options)
    words = len(weight)
    padding = -1 if padding_idx is None else padding_idx % words

    def factors(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, dy = x.flatten(1), dy.flatten(1, -2)
        return F.one_hot(x, words).to(dy.dtype)[:, None], (dy * (x != padding)[..., None])[:, None]

    return uses.note(output, (weight, Use(input, factors, words, second=True, padding=padding)))


def _layer_norm(
    uses: Uses,
    function: Any,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    *rest: Any,
    **more: Any,
) -> Tensor:
    """`layer_norm` and `rms_norm`."""
    output: Tensor = function(input, normalized_shape, weight, *rest, **more)
    bias = None
    if function is F.layer_norm:
        bias = more.pop("bias", None) if not rest else rest[0]
        rest = (None, *rest[1:])
    with torch.no_grad():
        x = function(input.detach(), normalized_shape, None, *rest, **more)
    dims = len(normalized_shape)
    return uses.note(
        output,
        (weight, Use(x, lambda x, dy: _sum_to(x * dy, dims), second=True)),
        (bias, Use(x, lambda x, dy: _sum_to(dy, dims), second=True)),
    )


def _group_norm(
    uses: Uses,
    function: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    output = function(input, num_groups, weight, bias, eps)
    return _by_channel(uses, output, weight, bias, function(input.detach(), num_groups, eps=eps))


def _batch_norm(
    uses: Uses,
    function: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *rest: Any,
    **more: Any,
) -> Tensor:
    """`batch_norm` and `instance_norm`."""
    output: Tensor = function(input, running_mean, running_var, weight, bias, *rest, **more)
    if function is F.batch_norm:
        training = rest[0] if rest else more.get("training", False)
    else:
        training = running_mean is not None and (
            rest[0] if rest else more.get("use_input_stats", True)
        )
    if training:
        # Batch statistics make rows depend on each other; running ones have moved since.
        return output
    x = function(input.detach(), running_mean, running_var, None, None, *rest, **more)
    return _by_channel(uses, output, weight, bias, x)


def _by_channel(
    uses: Uses, output: Tensor, weight: Tensor | None, bias: Tensor | None, x: Tensor
) -> Tensor:
    def each(values: Tensor) -> tuple[Tensor, Tensor]:
        return _sum_to(values.flatten(3).transpose(2, 3) if values.dim() > 3 else values, 1)

    return uses.note(
        output,
        (weight, Use(x, lambda x, dy: each(x * dy))),
        (bias, Use(x, lambda x, dy: each(dy))),
    )


_RULES: dict[Any, Callable[..., Tensor]] = {
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _batch_norm,
}


# --------------------------------------------------------------------------- gradients of the rows


@dataclass
class Known:
    """Gradients of one weight from autograd, to check sums against; None where there is none.

    Attributes:
        total: Gradient of the sum over all rows, in the weight's shape.
        few: Gradient of the sum over the rows `chosen`.
        chosen: Indices of a few rows, int64.
    """

    total: Tensor | None
    few: Tensor | None
    chosen: Tensor


def sum_over_rows(
    uses: Sequence[Use],
    weight: nn.Parameter,
    rows: int,
    of: Callable[[Tensor], Tensor],
    known: Known,
) -> Tensor | None:
    """`sum_b f(gradient of row b)` from the uses of a weight; None where they do not explain its gradient.

    That happens where the weight is used elsewhere too, or rows influence each other's outputs.

    Args:
        uses: Recorded uses of the weight.
        rows: Number of rows, B.
        of: f, with f(ab) = f(a) f(b).
        known: The gradients that the uses must reproduce.
    """
    uses = [use for use in uses if use.dy is not None]
    zero = torch.zeros_like(weight.detach())
    total, few = (zero if g is None else g.to_dense() for g in (known.total, known.few))
    if not uses:
        return None if total.any() or few.any() else zero
    for layout in (0, 1):
        laid_out = (_by_row(use, rows, layout, weight.dtype) for use in uses)
        pairs = [pair for pair in laid_out if pair is not None]
        if len(pairs) < len(uses):
            continue
        kind = _Rows if any(use.padding is None for use in uses) else _Lookups
        made = kind(uses, pairs, weight.shape)
        if not made.alike():
            return None
        each, bound = made.gradients(known.chosen)
        if not _close(each.sum(0), few, few.norm(), bound):
            continue
        found, sum_, norm, bound = made.sums(of, rows)
        return found if _close(sum_, total, norm, bound) else None
    return None


def _close(found: Tensor, known: Tensor, norm: Tensor, bound: Tensor) -> bool:
    """Whether they are equal up to rounding, for which terms that cancel leave more room."""
    return bool((found - known).norm() <= 1e-3 * norm + 1e-5 * bound)


def _by_row(use: Use, rows: int, layout: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Input and output gradient as `[B, k, ...]`, from rows first (0) or second (1), or merged likewise."""
    x, dy = use.x, use.dy
    assert dy is not None
    if x.is_floating_point():  # A model's own autocast may have mixed them.
        x, dy = x.to(dtype), dy.to(dtype)
    if layout == 1 and use.second and dy.dim() > 2 and x.shape[1] == dy.shape[1] == rows:
        return x.transpose(0, 1), dy.transpose(0, 1)
    if not x.dim() or not len(x) or len(x) != len(dy) or len(x) % rows:
        return None
    if layout == 0:
        return x.unflatten(0, (rows, -1)), dy.unflatten(0, (rows, -1))
    return x.unflatten(0, (-1, rows)).transpose(0, 1), dy.unflatten(0, (-1, rows)).transpose(0, 1)


class _Rows:
    """The gradients of some rows with respect to one weight."""

    def __init__(
        self, uses: Sequence[Use], pairs: Sequence[tuple[Tensor, Tensor]], shape: torch.Size
    ) -> None:
        self.uses, self.pairs, self.shape = uses, pairs, shape

    def alike(self) -> bool:
        """Whether the gradients of all uses have the same layout, so that they can be added."""
        made = self._factors_by_use(slice(1))
        return len({(*a.shape[:2], a.shape[3], *c.shape[3:]) for a, c in made}) == 1

    def factors(self, part: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Factors of all uses, concatenated: `[b, G, N, o]` and `[b, G, N, i]`."""
        made = self._factors_by_use(part)
        if len(made) == 1:
            return made[0]
        a, c = zip(*made, strict=True)
        return torch.cat(a, 2), torch.cat(c, 2)

    def _factors_by_use(self, part: Tensor | slice) -> list[tuple[Tensor, Tensor]]:
        return [
            use.factors(x[part], dy[part])
            for use, (x, dy) in zip(self.uses, self.pairs, strict=True)
        ]

    def gradients(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of some rows, `[b, *shape]`, and an upper bound of their norm."""
        a, c = self.factors(part)
        bound = (a.flatten(1).norm(dim=1) * c.flatten(1).norm(dim=1)).norm()
        return (a.transpose(2, 3) @ c).view(len(a), *self.shape), bound

    def sums(
        self, of: Callable[[Tensor], Tensor], rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums of f and of the gradients over all rows; root sums of squares of their norms and bounds."""
        parts = []
        for part in self._parts(rows):
            a, c = self.factors(part)
            if a.shape[1] == a.shape[2] == 1:  # f(ab) = f(a) f(b): no per-row gradient is formed.
                a, c = a[:, 0, 0], c[:, 0, 0]
                norm = bound = (a.norm(dim=1) * c.norm(dim=1)).norm()
                parts.append((of(a).T @ of(c), a.T @ c, norm, bound))
                continue
            each = a.transpose(2, 3) @ c
            bound = (a.flatten(1).norm(dim=1) * c.flatten(1).norm(dim=1)).norm()
            parts.append((of(each).sum(0), each.sum(0), each.norm(), bound))
        found, total, norm, bound = zip(*parts, strict=True)
        norm, bound = torch.stack(norm).norm(), torch.stack(bound).norm()
        return sum(found).view(self.shape), sum(total).view(self.shape), norm, bound

    def _parts(self, rows: int) -> Iterator[slice]:
        """Slices of rows small enough that their factors and gradients fit into a cache."""
        numbers = sum(
            use.work * x[0].numel() + dy[0].numel()
            for use, (x, dy) in zip(self.uses, self.pairs, strict=True)
        )
        a, _ = self.factors(slice(1))
        if a.shape[1] * a.shape[2] > 1:
            numbers += math.prod(self.shape)
        step = max(1, _BYTES // (4 * numbers))
        for start in range(0, rows, step):
            yield slice(start, start + step)


class _Lookups(_Rows):
    """Gradients of an embedding's weight, which is sparse: a row of data looks up few of its rows."""

    def gradients(self, part: Tensor) -> tuple[Tensor, Tensor]:
        row, word, sums = self._looked_up(part)
        found = sums.new_zeros(len(part), *self.shape)
        found[row, word] = sums
        return found, sums.norm()

    def sums(
        self, of: Callable[[Tensor], Tensor], rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        _, word, sums = self._looked_up(slice(rows))
        zero = sums.new_zeros(self.shape)
        found, total = zero.index_add(0, word, of(sums)), zero.index_add(0, word, sums)
        return found, total, sums.norm(), sums.norm()

    def _looked_up(self, part: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a row and a word that it looks up, and the gradient there: `[m]`, `[m]`, `[m, D]`."""
        words, keys, parts = self.shape[0], [], []
        for use, (x, dy) in zip(self.uses, self.pairs, strict=True):
            x, dy = x[part].flatten(1), dy[part].flatten(1, -2)
            learns = x != use.padding
            row = torch.arange(len(x), device=x.device)[:, None]
            keys.append((row * words + x)[learns])
            parts.append(dy[learns])
        key, which = torch.cat(keys).unique(return_inverse=True)
        found = torch.cat(parts)
        sums = found.new_zeros(len(key), found.shape[1]).index_add_(0, which, found)
        return key // words, key % words, sums
