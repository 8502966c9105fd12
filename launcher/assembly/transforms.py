"""From stored rows to what a model receives, in training and in evaluation."""

from __future__ import annotations

import copy
import functools
import inspect

import torch

from ...agents.policy.states import Recurrence
from ...envs.transform import Transform
from ...envs.world import WorldSpec
from ...replay import ConfigError, Observations, Space, Standardize
from ...replay.transform import augmented_part
from ...replay.tree import at_path
from ..settings.construct import construct
from ..settings.object_names import name_of
from ..settings.plan import Plan
from .augmentation import Augmentation, check_augmentation
from .mask_augmentation import AlignedAugmentation


def build_transforms(
    plan: Plan, world: WorldSpec, device: torch.device
) -> tuple[Transform, Transform]:
    """The transforms from stored rows to batches: for learning, and, without augmentation, for evaluation.

    Args:
        device: Where statistics and batches are kept.

    Raises:
        ConfigError: If the augmentation cannot be constructed, or does not fit the inputs.
    """
    augment = (
        None if plan.aug is None else functools.partial(_augmentation, plan, world.spec.action)
    )
    learning, plain = world.transforms(standardize=plan.standardize, device=device, augment=augment)
    if isinstance(learning.augment, Augmentation):
        # Augmentations work on images in [0, 1], before standardisation.
        unit = Standardize(world.spec.obs, standardize=False, device=device)
        obs = unit.observe(world.example(2, device))
        check_augmentation(learning.augment, at_path(obs, augmented_part(world.spec.obs)))
    return learning, plain


def laid_out(transform: Transform, layout: torch.memory_format) -> Transform:
    """A copy of the transform that returns images `[B, C, H, W]` in this memory layout."""
    twin = copy.copy(transform)
    twin.layout = layout
    return twin


def carrying(transform: Transform, recurrence: Recurrence) -> Transform:
    """The transform, which also unpacks a recurrent model's stored states for its `forward`."""
    # Models carry a state in environments only, whose transforms are these.
    assert isinstance(transform, Observations)
    return transform.carrying(unpack=recurrence.unpack, initial=recurrence.zeros)


def _augmentation(plan: Plan, action: object) -> Augmentation:
    """The steps that `aug=` names, each constructed.

    Raises:
        ConfigError: If one cannot be constructed, or cannot be called.
    """
    steps = []
    for named in plan.aug or ():
        target = named.target
        if inspect.isclass(target):
            target = construct(target, named.arguments, {}, setting="aug")
        if not callable(target):
            raise ConfigError(f"aug={name_of(target)} cannot be called on images.")
        steps.append(target)
    if not (isinstance(action, Space) and action.kind == "pixels"):
        return Augmentation(steps)
    aligned = AlignedAugmentation(steps, ignored=action.ignored)
    if aligned.moves and plan.strategy is not None:
        raise ConfigError(
            "aug= moves the pixels of images and masks, and strategies keep images as they were before it. "
            "Leave strategy= out, or choose an augmentation of colours, such as ColorJitter."
        )
    return aligned
