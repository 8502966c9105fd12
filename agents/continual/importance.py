"""How much each weight matters to a task, and the price of moving it: what EWC, SI and MAS share."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ...replay import Batch, ConfigError, Replay
from ...replay.ranks import ranks
from ...replay.tree import leaves, map_tree
from ..calling import output_of, steps_asked
from .context import evaluating
from .recurrences import vectorisable
from .substitution import call_with
from .uses import Known, Uses, sum_over_rows

Weights = dict[str, Tensor]  # By the names of the agent's parameters.

# What a row's output may depend on.
_FIELDS = ("obs", "label", "task", "length", "mask")
_BYTES = 2**24  # Of gradients of single rows at a time; with far more it would be slower.


def checked(name: str, value: float, *, low: float = 0.0, high: float = math.inf) -> float:
    """A strategy's argument, if it is a number within its bounds.

    Raises:
        ConfigError: If it is not a number, or out of bounds.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (low <= value <= high and math.isfinite(value)):
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise ConfigError(f"{name} is {value!r}; it must be a number {bounds}.")
    return value


def trainable(agent: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: weight for name, weight in agent.named_parameters() if weight.requires_grad}


def copied(agent: nn.Module) -> Weights:
    """Copies of the parameters that learn, by name."""
    return {name: weight.detach().clone() for name, weight in trainable(agent).items()}


def fit(agent: nn.Module, *kept: Weights, now: bool = False) -> None:
    """Adapt tensors kept per weight to parameters that were replaced or removed.

    A parameter with more rows than before, such as an output layer with more outputs, keeps the values of
    its first rows. Values of a parameter that has another shape now, or is gone, are dropped.

    Args:
        kept: Tensors by parameter name, each in its parameter's shape; changed in place.
        now: Whether new rows start from the current weights; else from 0.
    """
    weights = dict(agent.named_parameters())
    for held in kept:
        for name, value in list(held.items()):
            weight = weights.get(name)
            if weight is not None and weight.shape == value.shape:
                continue
            del held[name]
            if weight is None or not weight.dim() or weight.shape[1:] != value.shape[1:]:
                continue
            if len(weight) > len(value):
                held[name] = weight.detach().clone() if now else torch.zeros_like(weight.detach())
                held[name][: len(value)] = value


def penalty(agent: nn.Module, importance: Weights, anchor: Weights) -> Tensor:
    """The price of having left `anchor`, a scalar with gradient:

    sum_i importance_i (weight_i - anchor_i)^2
    """
    weights = trainable(agent)
    names = [name for name in importance if name in weights]
    result: Tensor = _Quadratic.apply(
        [importance[name] for name in names],
        [anchor[name] for name in names],
        *[weights[name] for name in names],
    )
    return result


class _Quadratic(torch.autograd.Function):
    """Computes the gradient along with the value, in half the time that autograd takes for both."""

    @staticmethod
    def forward(ctx: Any, importance: list[Tensor], anchor: list[Tensor], *weights: Tensor) -> Any:
        moved = torch._foreach_sub(weights, anchor)
        ctx.pull = torch._foreach_mul(moved, importance)
        pairs = zip(moved, ctx.pull, strict=True)
        return sum(torch.dot(a.flatten(), b.flatten()) for a, b in pairs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *torch._foreach_mul(ctx.pull, 2 * gradient)


def mean_over_rows(
    agent: nn.Module,
    replay: Replay,
    value: Callable[[Tensor, Batch], Tensor],
    *,
    of: Callable[[Tensor], Tensor],
    samples: int | None = None,
) -> Weights:
    """Mean of f over the per-row gradients of the current task, in evaluation mode:

        mean over rows b of f(d value_b / d weight)

    f is applied to every row's gradient; f of the batch's mean gradient would be something else.

    Args:
        value: Maps the outputs `[B, n]` of a batch to a scalar per row, `[B]`, or several, `[B, K]`, whose
            f are summed.
        of: f, with f(ab) = f(a) f(b): `torch.square` or `torch.abs`.
        samples: Number of rows to use, equally spaced; None: all.

    Returns:
        A tensor for each trainable parameter, in its shape.
    """
    weights = trainable(agent)
    # At least float32: in 16 bits, adding a row to a much larger sum changes nothing.
    sums = {name: _zeros(weight) for name, weight in weights.items()}
    rows = 0
    # Tracing would recompile a compiled model, for gradients needed only once per task.
    with ExitStack() as stack:
        stack.enter_context(evaluating(agent))
        stack.enter_context(_kept_randomness(weights))
        stack.enter_context(_recurrent_in_evaluation(agent))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for batch in _spread(replay, samples):
            for name, part in _sums(agent, weights, batch, value, of).items():
                sums[name] += part
            rows += len(batch)
    place = ranks()
    if place.own:  # Each device has measured it on its own transitions.
        sums = {name: place.sum(total) for name, total in sums.items()}
        rows = int(place.sum(torch.tensor(rows)))
    return {name: (sums[name] / max(1, rows)).to(weight.dtype) for name, weight in weights.items()}


def _zeros(weight: Tensor) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros_like(weight, dtype=dtype)


def reached(sums: Weights) -> Weights:
    """The entries that are not all zero.

    In environments a model may hold networks that no output depends on and that only follow others, as
    targets do. A penalty would give them a gradient of 0, and so expose them to weight decay.
    """
    return {name: value for name, value in sums.items() if value.any()}


def _spread(replay: Replay, samples: int | None) -> Iterator[Batch]:
    """Batches of the current task's rows: all of them, or `samples` of them at equal distances."""
    size, start = len(replay), 0
    wanted = size if samples is None else min(samples, size)
    for batch in replay.once():
        device = leaves(batch.obs)[0].device
        position = torch.arange(start, start + len(batch), device=device)
        chosen = (position * wanted % size < wanted).nonzero().flatten()
        start += len(batch)
        if len(chosen):
            yield batch if len(chosen) == len(batch) else batch[chosen]


@contextmanager
def _kept_randomness(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Runs the block without advancing the random streams of training."""
    devices = {weight.device for weight in weights.values() if weight.device.type == "cuda"}
    with torch.random.fork_rng([device.index for device in devices]):
        yield


@contextmanager
def _recurrent_in_evaluation(agent: nn.Module) -> Iterator[None]:
    """Runs the block without cuDNN, whose recurrent layers have no backward in evaluation mode."""
    enabled = torch.backends.cudnn.enabled
    if any(isinstance(module, nn.RNNBase) for module in agent.modules()):
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


def _sums(
    agent: nn.Module,
    weights: dict[str, nn.Parameter],
    batch: Batch,
    value: Callable[[Tensor, Batch], Tensor],
    of: Callable[[Tensor], Tensor],
) -> Weights:
    """Sums of f over the rows of a batch, by weight.

    One forward and backward record the input of each weight's layer and the gradient of its output, from
    which per-row gradients follow many times faster than by computing each. The batch's own gradient shows
    whether the recorded uses are all there are; the gradient of two rows, whether rows are independent.
    """
    if not weights:
        return {}
    uses = Uses(weights)
    with uses:
        output = output_of(agent, batch)
    shown = output.detach().requires_grad_()
    values = value(shown, batch)
    columns = values.reshape(len(batch), -1).unbind(1)
    sums: Weights = {}
    left = set(weights)
    for column in columns:
        (pull,) = torch.autograd.grad(
            column.sum(), shown, retain_graph=True, materialize_grads=True
        )
        size = pull.reshape(len(batch), -1).norm(dim=1)
        chosen = size.topk(min(2, len(batch))).indices
        # Never a single row: a model's `squeeze` would remove its batch dimension.
        few = chosen.expand(2)
        alone = pull[few] * (len(chosen) / 2)
        again = output_of(agent, batch[few])
        totals, fews = _gradients(output, pull, weights), _gradients(again, alone, weights)
        for name in sorted(left):
            known = Known(totals[name], fews[name], chosen)
            part = sum_over_rows(uses.of.get(name, ()), weights[name], len(batch), of, known)
            if part is None:
                left.discard(name)
                sums.pop(name, None)
            else:
                sums[name] = sums.get(name, 0) + part
        uses.forget()
    if rest := {name: weight.detach() for name, weight in weights.items() if name not in sums}:
        sums |= _sums_row_by_row(agent, rest, batch, value, of, len(columns))
    return sums


def _gradients(
    output: Tensor, pull: Tensor | None, weights: Mapping[str, Tensor]
) -> dict[str, Tensor | None]:
    """Gradients of the weights; None where the output does not depend on the weight."""
    if not output.requires_grad:
        return dict.fromkeys(weights)
    found = torch.autograd.grad(
        output, list(weights.values()), pull, retain_graph=True, allow_unused=True
    )
    return dict(zip(weights, found, strict=True))


def _sums_row_by_row(
    agent: nn.Module,
    weights: Weights,
    batch: Batch,
    value: Callable[[Tensor, Batch], Tensor],
    of: Callable[[Tensor], Tensor],
    columns: int,
) -> Weights:
    """Sums over rows from per-row gradients of each value."""
    fields = {name: batch[name] for name in _FIELDS if name in batch}
    own = {name: weight for name, weight in trainable(agent).items() if name in weights}

    def value_of_row(weights: Weights, fields: dict[str, Any], column: int) -> Tensor:
        row = Batch(**fields).map(lambda field: field[None])
        return value(
            call_with(agent, weights, (row.obs,), steps_asked(agent, row.obs)), row
        ).reshape(-1)[column]

    gradients = grad(value_of_row)
    sums = {name: _zeros(weight) for name, weight in weights.items()}
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    step = max(1, _BYTES // size)
    for start, column in itertools.product(range(0, len(batch), step), range(columns)):
        rows = map_tree(lambda field: field[start : start + step], fields)  # noqa: B023
        try:
            with warnings.catch_warnings(), vectorisable():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                found = vmap(gradients, in_dims=(None, 0, None))(weights, rows, column)
            for name, of_rows in found.items():
                sums[name] += of(of_rows).sum(0)
        except RuntimeError:
            # vmap supports neither a branch on a value (`if x.sum() > 0`) nor writing into a tensor
            # made in `forward`. One row after another is slow, but always works.
            for i in range(start, min(start + step, len(batch))):
                row = batch[i : i + 1]
                number = value(output_of(agent, row), row).reshape(-1)[column]
                for name, of_row in _gradients(number, None, own).items():
                    if of_row is not None:
                        sums[name] += of(of_row)
    return sums
