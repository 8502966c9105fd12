"""Settings that were given, and that a run does not read."""

from __future__ import annotations

from ...envs.world import World
from ...replay.tree import leaves
from .plan import Plan
from .schema import SHORTHANDS, schema, that_count

# By what a run learns from: how to call it, and what only the other kind reads.
_OTHER_KIND = {"data": ("data", "environments"), "env": ("an environment", "data")}


def without_effect(plan: Plan, world: World) -> dict[str, str]:
    """Settings that were given but that this run does not read, and why."""
    kind, other = _OTHER_KIND[world.kind]
    reasons = dict.fromkeys(that_count(other), f"it learns from {kind}")
    if other == "data":
        reasons["storage"] = (
            "it learns from an environment, whose transitions replay.storage= places"
        )
    if plan.storage != "stream":
        reasons.setdefault("shuffle_buffer", "only storage=stream shuffles within one")
    if _dims(world.spec.obs) < 3:
        reasons["channels"] = "its inputs are not arrays of images"
    reasons |= world.unread(normalize_obs=plan.normalize_obs, eval_episodes=plan.eval_episodes)
    if len(world.tasks) == 1:
        reasons["eval_future"] = "there is one task"
    if not plan.optim.constructs:
        reasons |= dict.fromkeys(SHORTHANDS, "the optimiser is an instance")
    if not plan.resume:
        reasons["override"] = "resume is not set"
    return {key: reason for key, reason in reasons.items() if key in plan.given}


def of_the_optimiser(plan: Plan) -> list[str]:
    """Settings that were given and that only Antelope's own optimiser reads."""
    return [key for key in schema() if key in that_count("optimiser") & plan.given]


def _dims(space: object) -> int:
    """How many dimensions an observation has, or the largest part of one."""
    return max(len(part.shape) for part in leaves(space))
