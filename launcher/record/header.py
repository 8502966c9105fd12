"""What a run says of itself before it begins: model, data, spec, schedule, place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...envs.inputs import LARGEST_ID, is_whole
from ..learn.learner import Learner
from ..settings.plan import Plan


def header(
    plan: Plan,
    world: Any,
    learner: Learner,
    replay: Any,
    path: Path,
    *,
    where: str,
    placed: str | None,
    rates: list[str],
) -> dict[str, str]:
    """The lines that a run begins with, by what they are about.

    Args:
        path: Of the run.
        where: What it runs on.
        placed: Where the data's rows are, or None.
        rates: The schedule of learning rates in a line, if there is one.
    """
    count = sum(p.numel() for p in learner.agent.parameters())
    spec = world.spec
    lines = {
        "model": f"{plan.model.short_name}, {count:,} parameters, on {where}",
        "data" if world.on_data else "env": world.describe() + (f"; {placed}" if placed else ""),
        "spec": str(spec),
    }
    if not world.on_data and (evaluation := _evaluation(plan, world)):
        lines["evaluation"] = evaluation
    if (batches := _batches(plan)) is not None:
        lines["batches"] = batches
    if decision := learner.traits.decision:
        lines["learns"] = decision
    if world.on_data and (inputs := _integers(world, asked="standardize" in plan.given)):
        lines["inputs"] = inputs
    if getattr(spec.obs, "ids", None) is None and getattr(spec.obs, "mean", None) is not None:
        mean, stddev = (float(x.double().mean()) for x in (spec.obs.mean, spec.obs.stddev))
        lines["spec"] += f" (inputs: mean {mean:.4g}, stddev {stddev:.4g})"
    if learner.own is not None and len(learner.own.found) == 1:
        (name, optimizer), *_ = learner.own.found.items()
        lines["optimiser"] = f"{type(optimizer).__name__}, the model's own (`self.{name}`)"
    if plan.load is not None:
        normalised = not world.on_data and plan.normalize_obs
        more = " and its observation statistics" if normalised else ""
        lines["starts"] = f"from the weights of {plan.load}{more}"
    if rates:
        lines["schedule"] = rates[0]
    if replay.offline:
        lines["replay"] = f"{len(replay):,} transitions from {plan.offline}"
    lines["run"] = str(path)
    return lines


def _batches(plan: Plan) -> str | None:
    """The line about loaders, if the run uses their batch size."""
    from torch.utils.data import DataLoader

    loaders = any(isinstance(named.target, DataLoader) for named in plan.dataset or ())
    if not loaders or "batch_size" in plan.given:
        return None
    return f"batches of {plan.batch_size}, as its DataLoader has them"


def _evaluation(plan: Plan, world: Any) -> str | None:
    """How an environment is evaluated, where that is not what one would expect."""
    if plan.eval_episodes == 0:
        return "none (eval_episodes=0); train.csv has the returns of training"
    endless = [task.name for task in world.tasks if task.time_limit is None]
    if not endless or plan.eval_limit is not None:
        return None
    return (
        f"{', '.join(dict.fromkeys(endless))}: no time limit is known, so episodes are cut after ten times "
        "the longest one of training, and at least 1,000 steps (eval_limit=, time_limit=)"
    )


def _integers(world: Any, *, asked: bool) -> str | None:
    """What becomes of a data set's integers, or None where nothing has to be said.

    Args:
        asked: Whether the user said what is to become of them.
    """
    space = world.spec.obs
    if isinstance(space, dict):
        return None
    if space.ids is not None:
        return (
            f"integers from {space.low:,} to {space.high:,}, unchanged (standardize=true treats "
            "them as numbers)"
        )
    if asked or not is_whole(world.source_dtype):
        return None
    return (
        f"integers up to {space.high:,.0f}: treated as numbers, since ids end at {LARGEST_ID:,}; "
        "standardize=false leaves them unchanged"
    )
