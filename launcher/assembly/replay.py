"""The replay that a run draws its batches from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...envs.transform import Transform
from ...envs.wishes import ENV_STEPS, ReplayWishes
from ...envs.world import World
from ...replay import Batch, CheckpointError, Replay
from ..settings.plan import Plan

_DEFAULT_SEQUENCE = 16  # Steps per row of a recurrent model's batch.


def build_replay(
    plan: Plan,
    world: World,
    transform: Transform,
    device: torch.device,
    *,
    recurrent: bool = False,
    before: Callable[[Batch], Batch] | None = None,
    saved: Mapping[str, Any] | None = None,
) -> Replay:
    """The replay over the world's storage.

    Args:
        transform: Makes batches from stored rows, with augmentation.
        device: Where batches are needed.
        recurrent: Whether the model receives sequences, `[B, T, ...]`.
        before: Applied to every batch by the strategies, or None.
        saved: State of a saved replay to learn from offline, or None.

    Raises:
        CheckpointError: If saved transitions come from another environment.
    """
    how, priorities = plan.replay, None
    if how.prioritized:
        # `beta` reaches 1 with the run's last learning step (Schaul et al., 2016, section 3.4).
        steps = plan.train_steps or ENV_STEPS
        anneal = max(1, steps * len(world.tasks) // (plan.learn_every or 1))
        priorities = {"alpha": how.alpha, "beta": how.beta, "anneal": anneal}
    wishes = ReplayWishes(
        batch_size=plan.batch_size,
        device=device,
        seed=plan.seed,
        borders=world.borders(online=plan.online),
        capacity=plan.capacity,
        discount=plan.discount,
        nstep=plan.nstep,
        stack=plan.frame_stack,
        storage=how.storage,
        folder=how.folder,
        sequence=how.sequence or (_DEFAULT_SEQUENCE if recurrent else None),
        priorities=priorities,
        before=before,
        saved=saved,
        window=plan.shuffle_buffer if plan.storage == "stream" else 0,
    )
    try:
        return world.replay(transform, wishes)
    except CheckpointError as error:
        raise with_source_named(plan, error) from error


def with_source_named(plan: Plan, error: CheckpointError) -> CheckpointError:
    """The error with the value of `offline=` in its message."""
    return CheckpointError(f"Cannot learn from offline={plan.offline}: {error}.")
