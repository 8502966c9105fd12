"""Finds what has become NaN or infinite in a run: losses, weights, buffers, and what trains them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from ...replay import Normalizer
from ..metrics import known
from .nan import Found, all_finite, readable, word_for, word_of
from .updates import Updates

_UNDEFINED = ("r2", "mean_iou")  # NaN where the labels leave them undefined.
_NORMS = ("running_mean", "running_var")  # Never infinite on purpose, unlike an attention mask.
_LEAST_SCALE = 1e-4  # Of the loss scaler: below it, gradients were not finite at any scale.


class Finiteness:
    """Looks through a model, and through what trains it, for values that are NaN or infinite.

    What is not finite before the first learning step stays allowed, unless it is trained: buffers hold
    attention masks, or the lowest loss so far. In float16 gradients may be infinite: the loss scaler skips
    their updates.

    Args:
        updates: Holds the model's parameters, their averages, and the optimisers.
    """

    def __init__(self, updates: Updates):
        self._updates = updates
        self._allowed: dict[str, bool] = {}  # By name of each buffer or frozen weight seen so far.

    def begin(self) -> None:
        """Note what is not finite before the first learning step."""
        for _, name, tensor in self._untrained():
            self._allowed[name] = not name.endswith(_NORMS) and word_of(tensor) is not None

    def first(self, *, closely: bool) -> Found | None:
        """The first tensor that is not finite: weights, then buffers, then what trains the weights.

        On a GPU, waits for it once if all are finite.

        Args:
            closely: Also look at averages, gradients that wait for an update, and the optimisers' states.
        """
        tensors = self._all(closely=closely)
        if all_finite([tensor for _, _, tensor in tensors]):
            return self._scale() if closely else None
        for what, name, tensor in tensors:
            if (word := word_of(tensor)) is not None:
                return Found(what, name, word)
        return None

    def _all(self, *, closely: bool) -> list[tuple[str, str, Tensor]]:
        parameters = self._updates.parameters
        parameters.look(closely=closely)
        tensors: list[tuple[str, str, Tensor]] = [
            ("weight", name, p) for name, p in parameters.named.items() if p.requires_grad
        ]
        for what, name, tensor in self._untrained():
            allowed = self._allowed.get(name)
            if allowed is None:
                # Made while learning: a mask is infinite from the start, and never NaN.
                allowed = self._allowed[name] = word_of(tensor) == "infinite"
            if not allowed:
                tensors.append((what, name, tensor))
        if closely:
            tensors += self._training()
        return tensors

    def _untrained(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, p in self._updates.parameters.named.items():
            if not p.requires_grad:
                yield "weight", name, p
        for name, buffer in self._updates.parameters.named_buffers():
            if readable(buffer):
                yield "buffer", name, buffer

    def _training(self) -> Iterator[tuple[str, str, Tensor]]:
        """Averages, gradients that wait for an update, and states of optimisers."""
        updates = self._updates
        named: dict[Tensor, str] = {p: name for name, p in updates.parameters.named.items()}
        if updates.average is not None and updates.optimised:
            for parameter, average in updates.average.by_parameter().items():
                yield "average (ema) of", named.get(parameter, "a weight"), average
        if updates.waiting and updates.scaler is None:
            for name, trained in updates.parameters.named.items():
                if trained.grad is not None:
                    yield "gradient of", name, trained.grad
        for optimizer in updates.optimizers():
            for held, state in _states(optimizer).items():
                name = named.get(held, "a weight")
                for key, value in state.items() if isinstance(state, Mapping) else ():
                    if isinstance(value, Tensor) and value.dim():  # Scalars count steps.
                        yield f"optimiser's {key} of", name, value

    def _scale(self) -> Found | None:
        """The loss scaler, if it has found no finite gradient at any scale."""
        scaler = self._updates.scaler
        if scaler is None or not self._updates.optimised or scaler.get_scale() >= _LEAST_SCALE:
            return None
        word = f"less than {_LEAST_SCALE} (gradients were NaN or infinite at every scale)"
        return Found("loss scaler's", "scale", word)


def _states(optimizer: Optimizer) -> Mapping[Tensor, object]:
    # A wrapper may not have called Optimizer's constructor, and then has no `state`.
    state: Mapping[Tensor, object] = vars(optimizer).get("state", {})
    return state


def bad_loss(row: Mapping[str, float]) -> Found | None:
    """The first loss in a row of train.csv that is not finite: what a model logs as `critic/loss`, say.

    Other columns may be: a mean of nothing is NaN in many models.
    """
    for name, value in row.items():
        if not math.isfinite(value) and "loss" in re.split(r"[^a-z]+", name.lower()):
            return Found("logged", name, word_for(value))
    return None


def bad_statistics(normalizer: Normalizer | None) -> Found | None:
    """The first of an environment's running statistics that is not finite."""
    if normalizer is None:
        return None
    named = {f"observations{f'/{name}' * bool(name)}": m for name, m in normalizer.moments.items()}
    if normalizer.returns is not None:
        named["returns"] = normalizer.returns
    for name, moments in named.items():
        for part, values in (("mean", moments.mean), ("variance", moments.variance)):
            if not np.isfinite(values).all():
                word = "NaN" if np.isnan(values).any() else "infinite"
                return Found(f"running {part} of", name, word)
    return None


class FiniteMetrics:
    """Notices metrics that are NaN or infinite.

    A metric of the user's may be NaN from the start, for a class without rows for example; it counts once
    it has been finite for the same task.
    """

    def __init__(self) -> None:
        self._was_finite: set[tuple[int, str]] = (
            set()
        )  # Task and name of each that has been finite.

    def first(self, tasks: Sequence[int], scores: Sequence[Mapping[str, float]]) -> Found | None:
        """The first metric that is not finite.

        Args:
            tasks: Numbers of the tasks, from 0.
            scores: The metrics of each.
        """
        for task, metrics in zip(tasks, scores, strict=False):
            for name, value in metrics.items():
                if math.isfinite(value):
                    self._was_finite.add((task, name))
                    continue
                undefined = name in _UNDEFINED and math.isnan(value)
                if not undefined and (known(name) or (task, name) in self._was_finite):
                    return Found("metric", name, word_for(value))
        return None
