"""What scores the tasks of a run, with its own metrics, built from its plan and tried before training."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn

from ...agents.traits import hook
from ...envs.finals import metric as of_info
from ...envs.transform import Transform
from ...envs.world import World
from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from ..assembly.infer import inferred
from ..metrics import metrics_of
from ..record.console import Console
from ..record.pictures import build_pictures
from ..record.spared import Spared
from ..settings.plan import Plan
from ..settings.warn import warn_caller
from .evaluate import Evaluator, Watch
from .learner import Learner
from .own_evaluation import OwnEvaluation, own_evaluation
from .own_metrics import OwnMetrics, build_own_metrics
from .stopping import Watched
from .strategies import Strategies


def build_evaluator(
    plan: Plan,
    world: World,
    learner: Learner,
    module: nn.Module,
    *,
    transform: Transform,
    path: Path,
    console: Console,
    predictions: Watch | None,
    poll: Callable[[], None],
) -> Evaluator:
    """Build what scores the tasks, and draws the samples of a generative model.

    Args:
        module: The user's module.
        transform: From stored rows to batches, without augmentation.
        path: The run directory.
        console: Shows the progress of an evaluation.
        predictions: Collects those of whole evaluations, to draw them.
        poll: Called between batches, and may raise to leave the evaluation.

    Raises:
        ConfigError: For metrics that cannot be constructed, or have no labels to measure.
    """
    samples = build_pictures(plan, world, path)
    draw = None if samples is None else Spared(samples, "No pictures of samples", console.problem)
    own, by_itself = _build_measures(plan, world, module, learner.strategies, learner.device)
    return Evaluator(
        world,
        learner,
        transform=transform,
        episodes=plan.eval_episodes,
        rows=plan.eval_rows,
        seed=plan.seed,
        folder=path / "videos",
        draw=draw,
        show=console.evaluating,
        poll=poll,
        own=own,
        by_itself=by_itself,
        watch=predictions,
    )


def _build_measures(
    plan: Plan, world: World, module: nn.Module, strategies: Strategies, device: torch.device
) -> tuple[OwnMetrics, OwnEvaluation | None]:
    """The metrics that the plan names, and the module's own evaluation, if it has one.

    Args:
        module: The user's module.

    Raises:
        ConfigError: For metrics that cannot be constructed, or have no labels to measure.
    """
    spec = world.spec
    if world.acts:
        if plan.metrics is not None:
            raise ConfigError(
                "metrics= needs labels, and an environment has none. Its own measures are the fields of "
                "`info`, which env_info= names; log.NAME = value in learn records others."
            )
        return OwnMetrics((), spec), None
    by_itself = own_evaluation(module)
    if by_itself is not None and plan.metrics is not None:
        raise ConfigError(
            f"{by_itself.name} replaces all metrics, so metrics= would not be measured. Leave one of them "
            "out."
        )
    if by_itself is not None:
        for name, strategy in strategies.named.items():
            if hook(strategy, "predict") is not None:
                warn_caller(
                    f"strategy={name} decides how outputs are read, but {by_itself.name} is what is "
                    f"measured: call the strategy there, or leave evaluate out."
                )
    return build_own_metrics(plan.metrics or (), spec, inferred(spec, device=device)), by_itself


def build_watched(plan: Plan, world: World, evaluate: Evaluator) -> Watched | None:
    """Try what the user wants measured, and return the metric that early stopping follows.

    Returns:
        None: early stopping follows the loss, or the return.

    Raises:
        ConfigError: For metrics that cannot be computed, or a metric to follow that is not measured.
    """
    asked = plan.early_stopping
    if plan.metrics is not None or evaluate.by_itself or (asked.metric and not world.acts):
        measured: Collection[str] = evaluate.try_metrics()
    else:
        measured = [m.name for m in metrics_of("episodes")]
        measured += [of_info(field) for field in plan.env_info or ()]
    if asked.metric is None:
        if asked.mode is not None:
            raise ConfigError(
                "early_stopping.mode= belongs to early_stopping.metric=, which is missing."
            )
        return None
    name = asked.metric
    if name not in measured:
        raise ConfigError(
            f"early_stopping.metric={name}: not measured by this run.{did_you_mean(name, measured)} It "
            f"measures {', '.join(measured)}; metrics= adds others."
        )
    if asked.patience is None and not asked.restore:
        warn_caller(
            "`early_stopping.metric` has no effect without early_stopping.patience= or "
            "early_stopping.restore=true."
        )
    better = {"min": "less", "max": "more"}.get(asked.mode or "", evaluate.policy.own.better(name))
    if better is None:
        raise ConfigError(
            f"early_stopping.metric={name}: it is not known whether more or less is better. Set "
            "early_stopping.mode=max or min."
        )
    return Watched(name, more=better == "more")
