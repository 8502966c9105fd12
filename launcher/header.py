"""The header of a run: model, data, spec, schedule and directory, as shown before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..agents.calling import misnamed, takes_steps
from ..envs.world import World
from ..replay import Replay, Space
from ..replay.spec import is_ragged
from .learn.learner import Learner
from .settings.plan import Plan


def header(
    plan: Plan,
    world: World,
    learner: Learner,
    replay: Replay,
    path: Path,
    *,
    where: str,
    placed: str | None,
    rates: list[str],
) -> dict[str, str]:
    """The lines that a run begins with, by their label.

    Args:
        path: The run directory.
        where: The device and precision, in words.
        placed: Where the data's rows are stored, in words, or None.
        rates: The learning-rate schedule in one line; empty without one.
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
    if plan.loss is not None:
        given = " ".join(f"{key}={value}" for key, value in plan.loss.arguments.items())
        lines["learns"] = f"by {plan.loss.short_name} {given}".strip()
    if (moments := _moments(spec.obs)) is not None:
        mean, stddev = moments
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


def read_as_steps(learner: Learner) -> list[str]:
    """A warning about sequences whose padding the model cannot tell from real steps, or none."""
    space = learner.spec.obs
    if not is_ragged(space) or learner.traits.leaves_padding_out or takes_steps(learner.agent):
        return []
    if space.ids is not None and space.low > 0:  # Only padding is 0: the model may look for it.
        return []
    near = misnamed(learner.agent)
    advice = (
        f"Rename `{near}`, which is never filled in"
        if near
        else "Add one of them, and skip the padding"
    )
    return [
        f"{type(learner.agent).__name__}.forward has neither `length` nor `mask`, so it reads the zeros "
        "behind shorter sequences as if they were steps, and what it returns for a sequence depends on the "
        f"others of its batch. {advice}."
    ]


def _moments(obs: Space | dict[str, Any]) -> tuple[float, float] | None:
    """Mean and standard deviation of the inputs, averaged over their elements; None: not known."""
    # Ids are names, whose mean says nothing.
    if not isinstance(obs, Space) or obs.ids is not None or obs.mean is None or obs.stddev is None:
        return None
    return float(obs.mean.double().mean()), float(obs.stddev.double().mean())


def _batches(plan: Plan) -> str | None:
    """The line about a DataLoader's batch size, if the run uses it."""
    from torch.utils.data import DataLoader

    loaders = any(isinstance(named.target, DataLoader) for named in plan.dataset or ())
    if not loaders or "batch_size" in plan.given:
        return None
    return f"batches of {plan.batch_size}, the batch size of its DataLoader"
