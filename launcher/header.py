"""What a run says of itself before it begins: model, data, spec, schedule, place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..envs.world import World
from .learn.learner import Learner
from .settings.plan import Plan


def header(
    plan: Plan,
    world: World,
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
        world.kind: world.describe() + (f"; {placed}" if placed else ""),
        "spec": str(spec),
        **world.remarks(
            asked="standardize" in plan.given,
            eval_episodes=plan.eval_episodes,
            eval_limit=plan.eval_limit,
        ),
    }
    if (batches := _batches(plan)) is not None:
        lines["batches"] = batches
    if decision := learner.traits.decision:
        lines["learns"] = decision
    if getattr(spec.obs, "ids", None) is None and getattr(spec.obs, "mean", None) is not None:
        mean, stddev = (float(x.double().mean()) for x in (spec.obs.mean, spec.obs.stddev))
        lines["spec"] += f" (inputs: mean {mean:.4g}, stddev {stddev:.4g})"
    if learner.own is not None and len(learner.own.found) == 1:
        (name, optimizer), *_ = learner.own.found.items()
        lines["optimiser"] = f"{type(optimizer).__name__}, the model's own (`self.{name}`)"
    if plan.load is not None:
        normalised = world.normalizer is not None and plan.normalize_obs
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
