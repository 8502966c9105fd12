"""Evaluates a loaded checkpoint on every task, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...replay import CheckpointError
from ...replay.randomness import seed_everything
from ..assembly.agent import build_agent
from ..assembly.device import build_device, describe, device_wanted
from ..assembly.model import Model
from ..assembly.replay import build_replay
from ..assembly.transforms import build_transforms
from ..assembly.world import build_world
from ..learn.evaluate import Evaluator
from ..learn.learner import Learner
from ..metrics.scores import mean_over_tasks, score
from ..process import left_as_found
from ..record.console import Console
from ..run import Run
from ..settings.compose import compose
from ..settings.plan import make_plan
from .observer import Observer


def evaluate_only(code: dict[str, Any], path: Path) -> Run:
    """Evaluate a model on every task, as at the end of a run.

    Args:
        code: Settings by name, including the model itself.
        path: The checkpoint, which becomes the run's `path`: nothing is written.
    """
    plan = make_plan(compose((), code))
    device = build_device(device_wanted(plan))
    with left_as_found():
        seed_everything(plan.seed)
        world = build_world(plan)
        world.place(device, plan.data)
        transform, plain = build_transforms(plan, world, device)
        agent, own = build_agent(plan, world, device, (transform, plain))
        assert isinstance(agent, Observer)
        agent.take_as_learnt()
        learner = Learner(Model(agent, world.spec, device, plan.precision))
        replay = build_replay(plan, world, transform, device)
        agent.bind(replay)
        evaluate = Evaluator(
            world, learner, transform=plain, episodes=plan.eval_episodes, seed=plan.seed
        )
        tasks = range(len(world.tasks))
        scores = _scores(evaluate, tasks, type(own).__name__, path)
        replay.close()
        world.close()
        learner.agent.eval()
    metrics = mean_over_tasks(scores)
    console = Console(enabled=plan.progress)
    console.header(
        {
            "Model": f"{type(own).__name__}, loaded from {path}, without training (inference_only)",
            "Data": world.describe(),
            "Device": describe(plan, device, False),
        }
    )
    console.note("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    console.stop()
    told = [values["task_il_accuracy"] for values in scores if "task_il_accuracy" in values]
    return Run(
        agent=own,
        spec=world.spec,
        metrics=metrics,
        history=[],
        replay=replay,
        path=path,
        accuracy_matrix=np.array([[score(values) for values in scores]]),
        task_il_matrix=np.array([told] if told else [], dtype=np.float64),
    )


def _scores(evaluate: Evaluator, tasks: range, name: str, path: Path) -> Any:
    try:
        return evaluate(tasks, step=0)
    except (AttributeError, TypeError, LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{name} cannot predict with what loadcheck={path} holds: it raised {type(error).__name__} "
            f"({error}). A run directory stores the whole state of a model."
        ) from error
