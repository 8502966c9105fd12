"""Calls `forward` once before the optimiser is made: lazy layers take shape, outputs are checked."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy

from ...agents.blocks.dicts import about_dicts
from ...agents.blocks.ids import about_integers, embeddings_checked
from ...agents.calling import about_steps, call
from ...agents.policy.outputs import Sources, check_outputs, watched
from ...agents.policy.parts import ACTION
from ...agents.policy.states import Recurrence, as_steps
from ...envs.transform import Transform
from ...envs.world import WorldSpec
from ...replay import Batch, ConfigError, Space
from ...replay.batch import Tensors, describe
from ...replay.devices import about_devices
from ...replay.randomness import forked_randomness
from .model import Model

# Logits of an untrained model have any sign: so many positive ones come from a sigmoid.
_NO_CHANCE = 16
_LEARN = """ Write forward(self, obs), or beside it
    def learn(self, replay, log):
        batch = next(replay)
        return torch.nn.functional.cross_entropy(self(batch.obs), batch.label)"""


def check_forward(model: Model, world: WorldSpec, *, transform: Transform) -> Model:
    """Run two items through the model in eval mode, without gradients or random numbers of the run.

    Args:
        model: Without a recurrence, which this function determines.
        world: Provides the items, `[2, *obs.shape]`.
        transform: From stored observations to those that the model receives.

    Returns:
        The model, with its recurrence if it carries a state in environments.

    Raises:
        ConfigError: If the model raises, or its output does not fit the spec. The message names the
            module, what was expected, and what it returned.
    """
    agent, can = model.agent, model.traits
    name, acts = type(agent).__name__, can.act is not None
    if not (can.forward or acts or can.learn is not None):
        raise ConfigError(
            f"{name} has none of `forward`, `act` and `learn`: there is nothing to run or to train."
            f"{'' if world.acts else _LEARN}"
        )
    if world.acts and not (acts or can.forward):
        raise ConfigError(f"{name} has neither `act` nor `forward`: it cannot act in {world.name}.")
    if can.forward:
        model = _try(model, world, transform)
    if model.recurrence is not None and acts and not can.act_takes_state:
        raise ConfigError(
            f"{name}.forward carries a state, and {name}.act has no parameter `state`. Write act(self, obs, "
            "state), which returns (action, state) or (action, extras, state), or leave act out."
        )
    lazy = [path for path, p in agent.named_parameters() if is_lazy(p)]
    if lazy:
        raise ConfigError(
            f"`{lazy[0]}` of {name} still has no shape: `forward` never used it. Give its sizes, or "
            "use it in forward."
        )
    return model


def _try(model: Model, world: WorldSpec, transform: Transform) -> Model:
    """Call `forward` on two items, and check what it returns; raises as `check_forward` does."""
    agent, name, seen = model.agent, type(model.agent).__name__, model.spec.obs
    obs = _items(2, world, transform, model.device)
    one_hot = isinstance(seen, Space) and seen.discrete and not seen.binary
    with (
        watched(agent, name) as sources,
        embeddings_checked(agent, obs if world.labelled or one_hot else None, one_hot=one_hot),
    ):
        try:
            with forked_randomness(0), model.evaluating():
                if world.acts and model.traits.recurrent:
                    # A recurrence finds the states' batch dimension by calling with several sizes.
                    recurrence = Recurrence(
                        agent, lambda n: _items(n, world, transform, model.device)
                    )
                    model = replace(model, recurrence=recurrence)
                    output = recurrence.step(obs, recurrence.zeros(2))[0]
                else:
                    output = call(agent, obs)
        except ConfigError:  # From one of Antelope's own parts: it says already what to do.
            raise
        except Exception as error:
            raise ConfigError(
                f"{name}.forward raised {type(error).__name__} in {sources.last}, given "
                f"{describe(Batch(obs=obs))}: {error}{about_devices(error)}"
                f"{about_dicts(error, seen, after=str(error))}"
                f"{about_integers(error, seen, after=str(error))}{about_steps(agent, obs, error)}"
            ) from error
        _check_output(output, model.spec.action, obs, name, sources, labelled=world.labelled)
    return model


def check_channels_last(
    model: Model, world: WorldSpec, *, transform: Transform, needed: bool
) -> Model | None:
    """Lay out images and filters channels last, if `forward` passes its check with such images.

    A model that relies on channels coming first in memory, as `x.view(len(x), -1)` does, keeps the
    usual layout.

    Args:
        transform: Returns images `[B, C, H, W]` in the layout `torch.channels_last`.
        needed: Whether the user asked for the layout: then a model that fails with it is an error.

    Returns:
        The model as `check_forward` returns it; None if it fails with the layout.

    Raises:
        ConfigError: If it is `needed`, and the model fails with it.
    """
    try:
        model = check_forward(model, world, transform=transform)
    except ConfigError:
        if needed:
            raise
        return None
    # Only now: lazy layers have no filters to lay out before their first forward.
    model.agent.to(memory_format=torch.channels_last)
    return model


def _check_output(
    output: object,
    space: Space | dict[str, Any],
    obs: Tensors,
    name: str,
    sources: Sources,
    *,
    labelled: bool,
) -> None:
    """Refuse an output that is not values or logits of the space, or a distribution over it.

    Args:
        obs: The observations `[2, *obs.shape]` that it was computed from, for messages.
        sources: Knows the layer that returned a tensor.
        labelled: Whether the output is compared with labels.

    Raises:
        ConfigError: With what was expected and what the model returned.
    """
    if not isinstance(space, Space) or isinstance(output, dict):
        # Other keys are left to the model; a single space has the name `action`.
        if labelled and isinstance(space, Space) and ACTION not in output:  # type: ignore[operator]
            keys = ", ".join(map(str, output))  # type: ignore[call-overload]
            raise ConfigError(
                f"{name}.forward returned a dict ({keys}); expected a tensor {[2, *space.shape]} for "
                f"{space}. Wrap it in a module whose forward picks one: torchvision's segmentation networks "
                "return their logits as `self.net(x)['out']`."
            )
        named = {ACTION: space} if isinstance(space, Space) else space
        check_outputs(output, named, 2, name, sources, values=True)
        return
    if isinstance(output, Distribution):
        check_outputs(output, space, 2, name, sources, values=True)
        return
    wanted = (2, *space.shape)
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{name}.forward returned a {type(output).__name__}; expected a tensor of shape "
            f"{list(wanted)} for {space}."
        )
    if tuple(output.shape) != wanted:
        raise ConfigError(
            f"{name}.forward: expected output {list(wanted)} for {space}, got {list(output.shape)}"
            f"{sources.of(output)}, given {describe(Batch(obs=obs))}. A constructor parameter "
            "`out_features` receives the right width."
        )
    if space.dtype == torch.float64 and output.dtype != torch.float64:
        raise ConfigError(_too_coarse(name, output.dtype, space))
    if not bool(torch.isfinite(output).all()):
        raise ConfigError(
            f"{name}.forward: its output is not finite{sources.of(output)}, given "
            f"{describe(Batch(obs=obs))}: it holds NaN or infinity before any training."
        )
    if labelled:
        _warn_of_probabilities(output, space, name, sources)


def _warn_of_probabilities(output: Tensor, space: Space, name: str, sources: Sources) -> None:
    """Warn of an output, used as logits, that has passed a softmax or a sigmoid already."""
    if space.kind == "labels" and _after_sigmoid(output, sources.of(output)):
        warnings.warn(
            f"{name}.forward returns probabilities (all between 0 and 1), but its output is used as logits: "
            "binary cross-entropy applies a sigmoid itself. Leave the sigmoid out.",
            stacklevel=2,
        )
    elif space.discrete and space.n > 1 and _are_probabilities(output):
        warnings.warn(
            f"{name}.forward returns probabilities (its rows sum to 1), but its output is used as logits: "
            "cross-entropy applies a softmax itself. Leave the softmax out.",
            stacklevel=2,
        )


def _too_coarse(name: str, dtype: torch.dtype, space: Space) -> str:
    """The error for an output whose type cannot tell the targets apart."""
    assert space.mean is not None
    assert space.stddev is not None
    mean, stddev = (float(x.flatten()[0]) for x in (space.mean, space.stddev))
    return (
        f"{name}.forward returned {str(dtype).removeprefix('torch.')}. The targets are "
        f"around {mean:.6g} and vary by {stddev:.3g}: float32 cannot tell them apart. "
        "Subtract their mean in your data, or end forward with `output * spec.action.stddev "
        "+ spec.action.mean`, which are float64 here, as the default agent does."
    )


def _are_probabilities(rows: Tensor) -> bool:
    """Whether all rows `[B, num_classes, ...]` are nonnegative and sum to 1."""
    sums = rows.sum(1)
    return bool((rows >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _after_sigmoid(rows: Tensor, source: str) -> bool:
    """Whether labels' logits `[B, K]` are all between 0 and 1, and too many for chance."""
    within = bool(((rows >= 0) & (rows <= 1)).all())
    return within and ("igmoid" in source or rows.numel() >= _NO_CHANCE)


def example(model: Model, world: WorldSpec, transform: Transform) -> Tensors:
    """Two observations as `forward` receives them, `[2, *obs.shape]`; by sequence `[2, 1, *obs.shape]`."""
    with forked_randomness(0):
        obs = _items(2, world, transform, model.device)
    by_sequence = model.recurrence is not None and model.recurrence.by_sequence
    return as_steps(obs) if by_sequence else obs


def _items(n: int, world: WorldSpec, transform: Transform, device: torch.device) -> Tensors:
    """Observations `[n, *obs.shape]` as the model receives them: from the data, or random in the space."""
    return transform.observe(world.example(n, device), device)
