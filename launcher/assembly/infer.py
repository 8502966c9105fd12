"""The values that a constructor can ask for by a parameter's name, in one table."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from ...agents.policy.heads import logits_shape
from ...agents.policy.parts import ACTION, OBS
from ...replay import Space, Spec
from ...replay.spec import space_words
from ...replay.tree import leaves, map_tree

# Parameter names for the input and output shape, grouped by what they receive: the shape, or its size.
IN_SIZE = ("in_features", "in_dim", "input_dim", "obs_dim")
IN_SHAPE = ("in_shape", "input_shape", "obs_shape")
OUT_SIZE = (
    "out_features",
    "out_dim",
    "output_dim",
    "out_channels",
    "num_classes",
    "num_actions",
)
# Of a class for each pixel, these receive the number of classes; the others count all outputs.
CHANNELS = ("out_channels", "num_classes", "num_actions")
OUT_SHAPE = ("out_shape", "output_shape", "action_shape")
VOCABULARY = ("vocab_size", "num_embeddings")


def inferred(spec: Spec, *, device: torch.device) -> dict[str, Any]:
    """Values by parameter name, from the spec. A dict of spaces has no single shape, so it fills fewer.

    Args:
        device: The run's device, for the parameter `device`.
    """
    table: dict[str, Any] = {"spec": spec, "obs_spec": spec.obs, "action_spec": spec.action}
    table |= {"num_tasks": spec.num_tasks, "device": device}
    table["obs_shapes"] = _by_name(lambda space: space.shape, spec.obs, OBS)
    table["action_logits_shapes"] = _by_name(logits_shape, spec.action, ACTION)
    if isinstance(spec.obs, Space):
        # A layer reads sequences step by step: their length is not a number of features.
        table |= incoming(spec.obs.shape[1:] if spec.obs.ragged else spec.obs.shape)
    # Only integers that arrive unchanged can index an embedding.
    if len(ids := [part.ids for part in leaves(spec.obs) if part.ids is not None]) == 1:
        table |= dict.fromkeys(VOCABULARY, ids[0])
    if isinstance(spec.action, Space):
        table |= outgoing(spec.action.shape)
        if spec.action.kind == "pixels":
            table |= dict.fromkeys(CHANNELS, spec.action.n)
        table["discrete"] = spec.action.discrete
    return table


def incoming(shape: tuple[int, ...]) -> dict[str, Any]:
    """Values for the parameters that describe a module's input.

    Args:
        shape: Of one item, without `[B]`; images are `[C, H, W]`.
    """
    table: dict[str, Any] = dict.fromkeys(IN_SIZE, prod(shape))
    table["in_channels"] = shape[0] if shape else 1
    return table | dict.fromkeys(IN_SHAPE, shape)


def outgoing(shape: tuple[int, ...]) -> dict[str, Any]:
    """Values for the parameters that describe a module's output.

    Args:
        shape: Of one item, without `[B]`.
    """
    return {**dict.fromkeys(OUT_SIZE, prod(shape)), **dict.fromkeys(OUT_SHAPE, shape)}


def advice(spec: Spec) -> dict[str, str]:
    """By parameter name: why it has no value here, and what to ask for instead."""
    found: dict[str, str] = {}
    if not isinstance(spec.obs, Space):
        why = f"the observation is a dict of {', '.join(spec.obs)}; ask for `obs_shapes`"
        found |= dict.fromkeys((*IN_SIZE, "in_channels", *IN_SHAPE), why)
        found |= dict.fromkeys(
            VOCABULARY,
            f"not exactly one part of {space_words(spec.obs)} holds ids; take `spec.obs[name].n`",
        )
    elif spec.obs.ids is None:
        why = f"the inputs are {spec.obs}, not integers that arrive unchanged"
        found |= dict.fromkeys(VOCABULARY, why)
    if not isinstance(spec.action, Space):
        why = f"the action is a dict of {', '.join(spec.action)}; ask for `action_logits_shapes`"
        found |= dict.fromkeys((*OUT_SIZE, *OUT_SHAPE), why)
    return found


def _by_name(
    function: Callable[[Space], Any], space: Space | dict[str, Any], name: str
) -> dict[str, Any]:
    """`function` of every space, nested like the spaces; that of a single space under `name`."""
    shapes: dict[str, Any] = map_tree(
        function, {name: space} if isinstance(space, Space) else space
    )
    return shapes
