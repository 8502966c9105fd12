"""Settings that were given, and that a run does not read."""

from __future__ import annotations

from typing import Any

from ...replay.tree import leaves
from .plan import Plan
from .schema import SHORTHANDS

# Settings that only one of the two kinds of world reads.
_ENV_ONLY = (
    "num_envs",
    "vectorization",
    "frame_stack",
    "env_wrappers",
    "action_repeat",
    "time_limit",
    "discrete",
    "bins",
    "env_info",
    "normalize_obs",
    "normalize_reward",
    "nstep",
    "discount",
    "capacity",
    "seed_steps",
    "learn_every",
    "eval_episodes",
    "eval_limit",
    "video",
    "replay",
)
_DATA_ONLY = (
    "test_dataset",
    "data_dir",
    "data",
    "standardize",
    "aug",
    "image_size",
    "tasks",
    "classes_per_task",
    "class_order",
    "num_classes",
    "scenario",
    "online",
    "validation",
    "epochs",
    "eval_rows",
    "lr_decay_epochs",
)


def without_effect(plan: Plan, world: Any) -> dict[str, str]:
    """Settings that were given but that this run does not read, and why."""
    kind = "data" if world.on_data else "an environment"
    reasons = dict.fromkeys(_ENV_ONLY if world.on_data else _DATA_ONLY, f"it learns from {kind}")
    if _dims(world.spec.obs) < 3 or (world.on_data and world.decoded == {True}):
        reasons["channels"] = "its inputs are not arrays of images"
    if world.on_data and world.decoded == {False}:
        reasons["image_size"] = "its inputs are arrays, and only pictures are resized"
    if not world.on_data and plan.normalize_obs and not world.normalizer.moments:
        reasons["normalize_obs"] = (
            "its observations are images, choices or truth values, which stay as they are"
        )
    if not world.on_data and not any(space.numeric for space in leaves(world.spec.obs)):
        reasons["frame_stack"] = "its observations are choices, which are not stacked"
    if not world.on_data and plan.eval_episodes == 0:
        reasons |= dict.fromkeys(("eval_every", "eval_limit"), "eval_episodes=0 evaluates nothing")
    if len(world.tasks) == 1:
        reasons["eval_future"] = "there is one task"
    if not plan.optim.constructs:
        reasons |= dict.fromkeys(SHORTHANDS, "the optimiser is an instance")
    return {key: reason for key, reason in reasons.items() if key in plan.given}


def of_the_optimiser(plan: Plan) -> list[str]:
    """Settings that were given and that only Antelope's own optimiser reads."""
    keys = ["optim", *SHORTHANDS, "scheduler", "scheduler_every", "lr_decay_epochs"]
    keys += ["clip_grad", "ema", "accumulate"]
    return [key for key in keys if key in plan.given]


def _dims(space: Any) -> int:
    """How many dimensions an observation has, or the largest part of one."""
    return max(len(part.shape) for part in leaves(space))
