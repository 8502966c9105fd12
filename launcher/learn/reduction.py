"""Gradients and buffers of one step, from all ranks of a run: in one exchange, right before an update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ...replay import ConfigError
from ...replay.errors import RanksDiffer
from ...replay.ranks import Ranks, ranks
from ..settings.warn import warn_caller

_ROUNDING = 1e-4  # Relative: further apart, weights have not been updated alike.


class Reduction:
    """Makes every rank update the weights alike: by the sum of their gradients.

    A flat bucket holds the gradients of all parameters, and a bit for each that says whether it has one: a
    loss may reach other parameters on every rank. Buffers that a step has changed (BatchNorm's statistics)
    become their mean, weighted by rows.

    Args:
        agent: The module that learns.
    """

    def __init__(self, agent: nn.Module):
        self._agent = agent
        self.updates = 0  # Exchanges so far.
        self._versions: dict[int, int] = {}  # Of buffers, when all ranks last had the same.
        self._settled: set[int] = (
            set()
        )  # Optimisers whose gradients were summed for their next step.
        self._watched: set[int] = set()  # Optimisers that have stepped once.
        self._computed: dict[int, int] = {}  # Versions of gradients when `backward` was over.
        self._said_changed = False
        self._reduced: dict[int, int] = {}  # Versions of gradients that hold the sum already.

    def gradients(self, parameters: Iterable[Tensor], *, weight: float = 1.0) -> None:
        """Sum gradients over the ranks, in place; nothing happens in a run of one rank.

        Args:
            parameters: Those to be updated. A gradient that another rank has and this one lacks is added.
            weight: What this rank's gradients are multiplied with before.

        Raises:
            RanksDiffer: If another rank makes no update now, or one of other parameters.
        """
        place = ranks()
        if not place.several:
            return
        held = [p for p in {id(p): p for p in parameters}.values() if p.requires_grad]
        buffers = [b for b in self._agent.buffers() if b.is_floating_point() and b.numel()]
        numbers = sum(p.numel() for p in held)
        at = self.updates + 1
        place.agree(f"update {at} of {len(held)} parameters, {numbers} numbers")
        self.updates = at  # Not before: a rank that has failed makes no update, and may go on.
        changed = self._sum(place, held, buffers, weight)
        self._average(place, [b for b, c in zip(buffers, changed, strict=True) if c])
        self._reduced = {id(p.grad): p.grad._version for p in held if p.grad is not None}

    def buffers(self) -> None:
        """Make the buffers those of all ranks, without an update."""
        place = ranks()
        if place.several:
            self._average(
                place, [b for b in self._agent.buffers() if b.is_floating_point() and b.numel()]
            )

    def _sum(
        self, place: Ranks, held: list[Tensor], buffers: list[Tensor], weight: float
    ) -> list[bool]:
        """Sum the gradients; returns which buffers any rank has changed."""
        bits = torch.zeros(len(held) + len(buffers))
        for i, p in enumerate(held):
            if p.grad is not None:
                if p.grad.layout is not torch.strided:
                    raise ConfigError(_SPARSE.format(type(self._agent).__name__))
                bits[i] = 1.0
        for i, b in enumerate(buffers, len(held)):
            bits[i] = float(self._versions.get(id(b)) != b._version)
        kinds: dict[Any, list[int]] = {}
        for i, p in enumerate(held):
            kinds.setdefault((p.device, p.dtype), []).append(i)
        # The bits ride with the first bucket; where there are several, each is an exchange.
        first = True
        for (device, dtype), members in kinds.items():
            flat = [_flat(held[i], weight) for i in members]
            if first:
                flat.append(bits.to(device, flat[0].dtype))
            total = place.sum(torch.cat(flat), "gradients")
            if first:
                total, found = total.split([len(total) - len(bits), len(bits)])
                bits, first = found.cpu(), False
            parts = total.split([len(f) for f in flat[: len(members)]])
            for i, part in zip(members, parts, strict=True):
                if bits[i]:
                    _put(held[i], part, dtype)
        if first:  # No parameters at all.
            bits = place.sum(bits, "buffers")
        return (bits[len(held) :] > 0).tolist()

    def _average(self, place: Ranks, buffers: list[Tensor]) -> None:
        with torch.no_grad():
            by_device: dict[torch.device, list[Tensor]] = {}
            for buffer in buffers:
                by_device.setdefault(buffer.device, []).append(buffer)
            for members in by_device.values():
                # In float64: equal values then stay as they are.
                flat = torch.cat([b.detach().double().reshape(-1) for b in members])
                total = place.sum(flat.mul_(place.weight), "buffers")
                for buffer, part in zip(
                    members, total.split([b.numel() for b in members]), strict=True
                ):
                    buffer.copy_(part.view(buffer.shape))
        for buffer in self._agent.buffers():
            self._versions[id(buffer)] = buffer._version

    # ----------------------------------------------------- optimisers that `learn` steps itself

    @contextmanager
    def of_own_steps(self) -> Iterator[None]:
        """Run the block with gradients summed before every step of an optimiser within `learn`."""
        place = ranks()
        if not place.several:
            yield
            return
        handle = register_optimizer_step_pre_hook(self._before_step)
        place.settler = self._settle
        try:
            yield
        finally:
            place.settler = None
            handle.remove()

    def _settle(self, optimizer: Optimizer) -> None:
        """Sum an optimiser's gradients now, and not again before its next step."""
        place = ranks()
        if place.split:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            self.gradients(held, weight=place.weight)
            self._settled.add(id(optimizer))

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        place = ranks()
        if not place.split:  # Outside of `learn`, every rank does the same with the same rows.
            return
        if id(optimizer) in self._settled:
            self._settled.discard(id(optimizer))
            return
        if any(map(callable, (*args, *kwargs.values()))):
            raise ConfigError(_CLOSURE.format(type(optimizer).__name__, place.world))
        held = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in held if p.grad is not None]
        # An optimiser around another one steps twice by the same gradients.
        if grads and all(self._reduced.get(id(g)) == g._version for g in grads):
            return
        self._look_for_changes(optimizer, held, place.world)
        self.gradients(held, weight=place.weight)

    def _look_for_changes(self, optimizer: Optimizer, held: list[Tensor], world: int) -> None:
        """Warn, from its second step on, of gradients that were changed between backward and the step."""
        if id(optimizer) in self._watched:
            changed = (
                p.grad is not None and self._computed.get(id(p)) != p.grad._version for p in held
            )
            if not self._said_changed and any(changed):
                self._said_changed = True
                warn_caller(_CHANGED.format(type(self._agent).__name__, world))
            return
        self._watched.add(id(optimizer))
        for parameter in held:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note)

    def _note(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._computed[id(parameter)] = parameter.grad._version

    # -------------------------------------------------------------------- the same on every rank

    def begin(self) -> None:
        """Copy rank 0's weights and buffers to every rank; an error if their shapes or dtypes differ."""
        place = ranks()
        if not place.several:
            return
        tensors = [*self._agent.parameters(), *self._agent.buffers()]
        with torch.no_grad():
            for tensor in tensors:
                if tensor.numel():
                    place.first(tensor)
        for buffer in self._agent.buffers():
            self._versions[id(buffer)] = buffer._version

    def check(self) -> None:
        """Check that all ranks have the same weights.

        Raises:
            RanksDiffer: If `learn` changes weights in a way that the ranks do not share.
        """
        place = ranks()
        if not place.several:
            return
        named = [(n, p) for n, p in self._agent.named_parameters() if p.numel()]
        sums = [
            [float(p.detach().double().sum()), float(p.detach().double().abs().sum())]
            for _, p in named
        ]
        for rank, theirs in enumerate(place.objects(sums, "sums of the weights")):
            for (name, _), a, b in zip(named, sums, theirs, strict=True):
                far = abs(a[0] - b[0]) + abs(a[1] - b[1])
                if far > _ROUNDING * (a[1] + b[1]) and rank != place.rank:
                    raise RanksDiffer(
                        _APART.format(name, min(rank, place.rank), max(rank, place.rank))
                    )


def _flat(parameter: Tensor, weight: float) -> Tensor:
    """A gradient as a flat tensor of real numbers; zeros for one that is missing."""
    grad = parameter.grad
    if grad is None:
        grad = torch.zeros_like(parameter)
    grad = torch.view_as_real(grad) if grad.is_complex() else grad
    flat = grad.detach().reshape(-1)
    return flat if weight == 1.0 else flat * weight


def _put(parameter: Tensor, total: Tensor, dtype: torch.dtype) -> None:
    if dtype.is_complex:
        total = torch.view_as_complex(total.view(*parameter.shape, 2))
    total = total.view(parameter.shape)
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.copy_(total)


_SPARSE = (
    "{} has sparse gradients (sparse=True of an embedding), which several devices cannot sum. Set "
    "sparse=False."
)
_CLOSURE = (
    "{}.step was called with a closure, which computes gradients of its own that {} devices cannot share. "
    "Call backward, then step() without a closure, or return the loss."
)
_CHANGED = (
    "{}.learn changes gradients between backward and its optimiser's step: on {} devices each changes those "
    "of its own rows, and their sum differs from what one device gets, unless they are only scaled. Call "
    "replay.sum_gradients(optimizer) before, or return the loss and set clip_grad=."
)
_APART = (
    "The weights `{}` of ranks {} and {} are no longer the same: `learn` has changed them by something "
    "that differs between the ranks. Return the loss, or step an optimiser of torch.optim: their gradients "
    "are summed over the ranks."
)
