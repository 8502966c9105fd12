"""Describes a learning step that failed, for notes and messages of errors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...agents.blocks.dicts import about_dicts
from ...agents.blocks.ids import about_integers
from ...agents.calling import about_own_call
from ...replay import Batch, Spec
from ...replay.batch import describe
from ...replay.devices import about_devices
from .out_of_memory import about_memory


def about_step(
    error: Exception,
    agent: nn.Module,
    spec: Spec,
    *,
    method: str,
    step: int,
    batch_size: int,
    accumulate: int,
) -> str:
    """A note for an error: the learning step that failed, its batch, and what may be the reason.

    Args:
        agent: The module that learns.
        method: The name of the method that does.
        step: The learning step's number, from 1.
        batch_size: Rows per batch.
        accumulate: Learning steps per update.
    """
    batch = _last_batch(error)
    seen = f" Batch: {describe(batch)}." if batch is not None else ""
    return (
        f"In {type(agent).__name__}.{method}, learning step {step}.{seen}"
        f"{about_devices(error)}{about_dicts(error, spec.obs)}"
        f"{about_integers(error, spec.obs)}{about_own_call(agent, error)}"
        f"{about_memory(error, batch_size=batch_size, accumulate=accumulate)}"
    )


def wrong_loss(agent: nn.Module, loss: Any) -> str:
    """The message for what `learn` returned, which is neither a scalar loss with a graph nor None."""
    name = type(agent).__name__
    if not isinstance(loss, Tensor):
        return (
            f"{name}.learn returned a {type(loss).__name__} ({loss!r:.40}). Return the loss tensor "
            "itself, or None when the model has updated itself."
        )
    if loss.dim() != 0:
        return (
            f"{name}.learn returned a tensor of shape {list(loss.shape)}. Return a scalar loss: "
            "its mean(), for example."
        )
    return (
        f"{name}.learn returned a loss without a graph: nothing to back-propagate. It was detached, "
        "computed under no_grad, or made of no parameter that is trained. Return None when the model "
        "has updated itself."
    )


def _last_batch(error: BaseException) -> Batch | None:
    """The batch that the failing code was using, found among its local variables; or None."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        for value in traceback.tb_frame.f_locals.values():
            if isinstance(value, Batch):
                found = value
        traceback = traceback.tb_next
    return found
