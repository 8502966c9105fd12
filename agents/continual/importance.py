"""How much each weight matters to a task, and the price of moving it: what EWC, SI and MAS share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ...replay import Batch, ConfigError, Replay
from .context import evaluating
from .substitution import call_with

Weights = dict[str, Tensor]  # By the names of the agent's parameters.

_BYTES = 2**24  # Of gradients of single rows at a time; with far more it would be slower.


def checked(name: str, value: float, *, low: float = 0.0, high: float = math.inf) -> float:
    """A strategy's number, within its bounds.

    Raises:
        ConfigError: If it is no number, or out of bounds.
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
    """The parameters that learn, as they are now."""
    return {name: weight.detach().clone() for name, weight in trainable(agent).items()}


def fit(agent: nn.Module, *kept: Weights, now: bool = False) -> None:
    """Let what is kept of each weight fit parameters that were replaced, or went.

    A parameter with more rows than before, such as an output layer with more outputs, keeps what is
    known of the first ones. What is known of one with another shape, or that is gone, is dropped.

    Args:
        kept: Changed in place.
        now: Whether new rows start as the weights are now; else at 0.
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
    """The gradient is a by-product of the value: half the time that autograd takes for the two."""

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
    """How strongly single rows of the current task pull at each weight, in evaluation mode:

        mean over rows b of f(d value_b / d weight)

    f is taken of the gradient of every row; f of the gradient of a batch's mean is something else.

    Args:
        value: From the outputs `[B, n]` for a batch a scalar of each row, `[B]`.
        of: f, with f(ab) = f(a) f(b): `torch.square` or `torch.abs`.
        samples: Rows to look at, at equal distances; None: all.

    Returns:
        For each parameter that learns a tensor of its shape.
    """
    weights = trainable(agent)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    rows = 0
    # A compiled model would be compiled anew, for gradients that are asked for once in a task.
    with evaluating(agent), torch.compiler.set_stance("force_eager"):
        for batch in _spread(replay, samples):
            found = _sums_of_linear_layers(agent, weights, batch, value, of)
            if left := {name: weights[name].detach() for name in weights if name not in found}:
                found |= _sums_row_by_row(agent, left, batch, value, of)
            for name, part in found.items():
                sums[name] += part
            rows += len(batch)
    return {name: total / max(1, rows) for name, total in sums.items()}


def _spread(replay: Replay, samples: int | None) -> Iterator[Batch]:
    """The current task's rows, or as many of them as asked for at equal distances."""
    size, start = len(replay), 0
    wanted = size if samples is None else min(samples, size)
    for batch in replay.once():
        position = torch.arange(start, start + len(batch), device=batch.obs.device)
        chosen = (position * wanted % size < wanted).nonzero().flatten()
        start += len(batch)
        if len(chosen):
            yield batch if len(chosen) == len(batch) else batch[chosen]


def _sums_of_linear_layers(
    agent: nn.Module,
    weights: dict[str, nn.Parameter],
    batch: Batch,
    value: Callable[[Tensor, Batch], Tensor],
    of: Callable[[Tensor], Tensor],
) -> Weights:
    """Sums over rows for those layers y = W x + b that each row meets once, and once only.

    There the gradient of a row, dy x^T, has rank one, and f of it is f(dy) f(x)^T: the sum over rows
    is one matrix product, where a gradient for every row would take dozens of times as long.
    """
    met: dict[nn.Module, list[Tensor]] = {}
    pulled: dict[nn.Module, list[Tensor]] = {}

    def meet(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        met.setdefault(layer, []).append(args[0].detach())
        if output.requires_grad:
            # Not `autograd.grad` of the output: an activation in place would make another of it.
            output.register_hook(pulled.setdefault(layer, []).append)

    layers = [layer for layer in agent.modules() if type(layer) is nn.Linear]
    handles = [layer.register_forward_hook(meet) for layer in layers]
    try:
        total = value(agent(batch.obs), batch).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    gradient_of = {id(weight): g for weight, g in zip(weights.values(), gradients, strict=True)}
    names = {id(weight): name for name, weight in weights.items()}
    sums: Weights = {}
    for layer in layers:
        if len(met.get(layer, ())) != 1 or len(pulled.get(layer, ())) != 1:
            continue
        x, dy = met[layer][0], pulled[layer][0]
        if x.dim() != 2 or len(x) != len(batch):
            continue
        for weight, factor in ((layer.weight, x), (layer.bias, x.new_ones(len(x), 1))):
            gradient = gradient_of.get(id(weight))
            # Something else where the weight has a part elsewhere too, as that of a tied decoder.
            if gradient is not None and _is_product(gradient.view(len(gradient), -1), dy, factor):
                sums[names[id(weight)]] = (of(dy).T @ of(factor)).view_as(weight)
    return sums


def _is_product(gradient: Tensor, dy: Tensor, x: Tensor) -> bool:
    """Whether it is `dy^T x`, but for rounding."""
    scale = (dy.norm(dim=1) * x.norm(dim=1)).norm()
    return bool((gradient - dy.T @ x).norm() <= 1e-3 * scale)


def _sums_row_by_row(
    agent: nn.Module,
    weights: Weights,
    batch: Batch,
    value: Callable[[Tensor, Batch], Tensor],
    of: Callable[[Tensor], Tensor],
) -> Weights:
    """Sums over rows from the gradient of every single one."""
    fields = {name: batch[name] for name in ("obs", "label", "task")}

    def value_of_row(weights: Weights, fields: dict[str, Tensor]) -> Tensor:
        row = Batch(**fields).map(lambda field: field[None])
        return value(call_with(agent, weights, (row.obs,)), row)[0]

    gradients = grad(value_of_row)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    step = max(1, _BYTES // size)
    for start in range(0, len(batch), step):
        rows = {name: field[start : start + step] for name, field in fields.items()}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                found = vmap(gradients, in_dims=(None, 0))(weights, rows)
            for name, of_rows in found.items():
                sums[name] += of(of_rows).sum(0)
        except RuntimeError:
            # What cannot be vectorised: a branch on a value (`if x.sum() > 0`), writing into a
            # tensor made in `forward`, a GRUCell. One row after another is slow, and always works.
            for i in range(len(rows["obs"])):
                found = gradients(weights, {name: field[i] for name, field in rows.items()})
                for name, of_row in found.items():
                    sums[name] += of(of_row)
    return sums
