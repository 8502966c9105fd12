"""Settings that were given, and that a run does not read."""

from __future__ import annotations

from typing import Any

from ...envs.world import World
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

# By what a run learns from: how to call it, and what only the other kind reads.
_OTHER_KIND = {"data": ("data", _ENV_ONLY), "env": ("an environment", _DATA_ONLY)}


def without_effect(plan: Plan, world: World) -> dict[str, str]:
    """Settings that were given but that this run does not read, and why."""
    kind, unread = _OTHER_KIND[world.kind]
    reasons = dict.fromkeys(unread, f"it learns from {kind}")
    if _dims(world.spec.obs) < 3:
        reasons["channels"] = "its inputs are not arrays of images"
    reasons |= world.unread(normalize_obs=plan.normalize_obs, eval_episodes=plan.eval_episodes)
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
