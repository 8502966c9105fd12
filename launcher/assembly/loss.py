"""Constructs the loss that `loss=` names, and tries it on two rows before training."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.continual.context import HIDDEN, hidden_outputs
from ...agents.learn_method import trained_by_usual_loss
from ...envs.table_world import TableWorld
from ...envs.world import World
from ...replay import ConfigError, Space
from ...replay.batch import Tensors
from ...replay.randomness import forked_randomness
from ..settings.construct import construct
from ..settings.named import Named
from ..settings.object_names import name_of
from ..settings.plan import Plan
from .argument_order import first_two, label_first
from .infer import inferred
from .loss_weights import with_weights
from .model import Model
from .torch_losses import unfit

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(output, label)`: a scalar with a gradient, for `[B, *action.shape]` and the batch's labels."""

# A loss this many times as large where other tasks' outputs are hidden reads the hidden ones.
_READS_HIDDEN = 100


def build_loss(plan: Plan, world: World, model: Model, obs: Tensors) -> Loss | None:
    """The loss that `loss=` names, on the model's device; None: it is the usual one for the targets.

    Args:
        model: What the loss trains.
        obs: Two observations as the model receives them, `[2, *obs.shape]`.

    Raises:
        ConfigError: If it cannot be constructed, this run would not use it, or it does not fit the outputs
            and the targets.
    """
    named = plan.loss
    if named is None:
        return None
    if not isinstance(world, TableWorld):
        raise ConfigError(f"loss= compares outputs with targets, and {world.name} has none.")
    if not trained_by_usual_loss(model.agent):
        raise ConfigError(_without_effect(plan, model))
    space = world.spec.action
    if (reason := unfit(named, space, world.name)) is not None:
        raise ConfigError(reason)
    loss = _constructed(named, world, model)
    _try(loss, named, world, model, obs)
    return loss


def _without_effect(plan: Plan, model: Model) -> str:
    name = plan.model.short_name
    by = next((f"{key}=true" for key in ("rl", "generate") if plan.given & {key}), None)
    if model.traits.observes:
        return (
            f"loss= has no effect: {name}.observe computes its own loss. Leave loss= out, or set `self.loss` "
            "in the class."
        )
    if by is not None:
        return (
            f"loss= has no effect with {by}, which does not compare outputs with targets. Leave one of "
            "the two out."
        )
    return (
        f"loss= has no effect: {name}.learn returns its own loss. Leave loss= out, or leave `learn` out: "
        "a module without it is trained by loss=."
    )


def _constructed(named: Named, world: TableWorld, model: Model) -> Loss:
    """The loss as a function of outputs and labels, with its tensors on the model's device."""
    target, arguments = named.target, named.arguments
    if arguments and not named.constructs:
        raise ConfigError(
            f"loss={name_of(target)} is already constructed, so `{next(iter(arguments))}` cannot be set. "
            "Give its class instead."
        )
    arguments = with_weights(named, world, model.device)
    function = target.func if isinstance(target, functools.partial) else target
    made: Any = target
    if inspect.isclass(function):
        table = inferred(world.spec, device=model.device)
        made = construct(target, arguments, table, setting="loss")
    elif arguments:
        made = functools.partial(target, **arguments)
    if not callable(made):
        raise ConfigError(
            f"loss={name_of(made)} cannot be called. It must be a function of (output, label), or a module "
            "whose forward is."
        )
    names = first_two(made.forward if isinstance(made, nn.Module) else made)
    if label_first(*names):
        raise ConfigError(
            f"loss={named.short_name} names the label first ({', '.join(names)}), and a loss is called with "
            "(output, label). Exchange the two."
        )
    if isinstance(made, nn.Module):
        if learnt := [name for name, p in made.named_parameters() if p.requires_grad]:
            raise ConfigError(
                f"loss={named.short_name} has parameters of its own ({', '.join(learnt)}), which would "
                "not be trained: the optimiser and checkpoints hold the model's. Make the loss a part of the "
                "model, and write learn(self, replay)."
            )
        made.to(model.device)
    return made


def _try(loss: Loss, named: Named, world: TableWorld, model: Model, obs: Tensors) -> None:
    """Compute the loss of two rows and its gradient, without effect on the run.

    Raises:
        ConfigError: If it raises, is not a finite scalar that depends on the outputs, or changes what it is
            given.
    """
    space, name = world.spec.action, named.short_name
    with forked_randomness(0):
        with model.evaluating():
            output = model.predict(obs)
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"loss={name} needs a tensor, and {type(model.agent).__name__}.forward returned a "
                f"{type(output).__name__}."
            )
        label = world.example_labels(2, model.device)
        value = _tried(loss, name, output, label, space)
        if space.kind == "classes" and world.told:
            _check_hidden(loss, name, output, label, world, value)
    _check_probabilities(named, output)


def _tried(loss: Loss, name: str, output: Tensor, label: Tensor, space: Space) -> float:
    """The loss of two rows; raises as `_try` does."""
    output, kept = output.detach().clone().requires_grad_(), label.clone()
    before = _buffers(loss)
    given = f"output {_described(output)}, label {_described(label)}"
    try:
        with torch.enable_grad():
            value: Any = loss(output, label)
    except ConfigError:
        raise
    except Exception as error:
        ignored = ""
        if space.kind == "pixels" and bool((label == space.ignored).any()):
            ignored = (
                f" Pixels labelled {space.ignored} are to be ignored: ignore_index={space.ignored}."
            )
        raise ConfigError(
            f"loss={name} raised {type(error).__name__}, given {given}: {error}{ignored}"
        ) from error
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"loss={name} returned a {type(value).__name__} ({value!r:.40}); it must return a scalar tensor "
            f"with a gradient, given {given}."
        )
    if value.dim() != 0:
        raise ConfigError(
            f"loss={name} returned a tensor of shape {list(value.shape)}, one loss per row or number; it "
            'must return their mean, a scalar (reduction="mean" in torch\'s losses).'
        )
    if not torch.isfinite(value):
        raise ConfigError(f"loss={name} is {value.item()} before any training, given {given}.")
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, output, allow_unused=True)
    if gradient is None:
        raise ConfigError(
            f"loss={name} has no gradient with respect to the output: nothing could be learnt from it. Leave "
            "out argmax, rounding, .detach(), .item() and torch.no_grad()."
        )
    if not bool(torch.isfinite(gradient).all()):
        raise ConfigError(f"loss={name} has a gradient with NaN or infinity, given {given}.")
    if not torch.equal(label, kept):
        raise ConfigError(
            f"loss={name} changes the labels in place; strategies and metrics read them too. Copy them first."
        )
    if any(not torch.equal(one, other) for one, other in zip(before, _buffers(loss), strict=True)):
        raise ConfigError(
            f"loss={name} changes its own buffers as it is computed, and checkpoints do not hold a loss. "
            "Make it a part of the model, and write learn(self, replay)."
        )
    return float(value.detach())


def _check_hidden(
    loss: Loss, name: str, output: Tensor, label: Tensor, world: TableWorld, value: float
) -> None:
    """Refuse a loss that reads the outputs that scenario=task hides, as label smoothing does."""
    classes = [world.classes(task).to(output.device) for task in range(len(world.tasks))]
    hidden = hidden_outputs(classes, world.spec)[0]
    own = classes[0][torch.arange(len(label)) % len(classes[0])]
    masked = float(loss(output.masked_fill(hidden, HIDDEN), own))
    if abs(masked) > _READS_HIDDEN * (1 + abs(value)):
        raise ConfigError(
            f"loss={name} reads the outputs of all classes (label smoothing does), but scenario=task hides "
            "those of other tasks. Leave label_smoothing out, or set scenario=class."
        )


def _check_probabilities(named: Named, output: Tensor) -> None:
    """Refuse logits for a negative log-likelihood, which needs log-probabilities.

    Raises:
        ConfigError: If the outputs are not log-probabilities.
    """
    if type(named.target) is not nn.NLLLoss and named.short_name not in ("NLLLoss", "nll_loss"):
        return
    sums = output.exp().sum(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ConfigError(
            "loss=NLLLoss needs log-probabilities, and this model's outputs are logits: exp(output) sums to "
            f"{float(sums.flatten()[0]):.3g}, not 1. Set loss=CrossEntropyLoss, which applies log_softmax "
            "itself, or end forward with log_softmax(dim=1)."
        )


def _buffers(loss: object) -> list[Tensor]:
    return [b.clone() for b in loss.buffers()] if isinstance(loss, nn.Module) else []


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
