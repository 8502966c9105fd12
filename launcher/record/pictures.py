"""Pictures drawn during a run or at its end. A picture that fails must not end the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ...agents.policy.composition import Composition, View
from ...agents.policy.parts import OBS, asks_for
from ...agents.traits import has_forward, traits
from ...envs.world import World
from ..pictures.predictions import Predictions
from ..pictures.samples import Samples
from ..settings.plan import Plan
from .console import Console


def draws_data(plan: Plan, world: World) -> bool:
    """Whether predictions and samples are drawn: environments have none."""
    return plan.plot and world.labelled


def build_pictures(plan: Plan, world: World, path: Path) -> Samples | None:
    """Build what draws a generative model's samples at every evaluation; None if plots are off.

    Args:
        path: The run directory.
    """
    if not draws_data(plan, world):
        return None
    folder = path / "plots" / "samples"
    return Samples(folder, world.spec, standardize=plan.standardize, seed=plan.seed)


def draw_run(*args: Any, **options: Any) -> None:
    """The curves and matrices of a run: see `pictures.curves`."""
    from ..pictures import curves  # Imports Matplotlib, only once there is something to draw.

    curves.draw_run(*args, **options)


def draw_predictions(folder: Path, found: Predictions, *, title: str) -> None:
    """Confusion matrix, table of classes and the like: see `pictures.results`."""
    from ..pictures.results import draw_results

    draw_results(folder, found, title=title)


def draw_model(own: nn.Module, agent: nn.Module, obs: Any, folder: Path, console: Console) -> None:
    """Draw the user's module, or the parts of a composed agent.

    Args:
        own: The user's module.
        agent: What learns, which may contain it.
        obs: Example observations, `[2, *shape]` per leaf.
        folder: Where the picture goes.
    """
    from ..pictures.model.render import render_model

    composition = traits(agent).composition
    drawn = View(composition) if isinstance(composition, Composition) else own
    if not has_forward(drawn):
        console.problem(f"render_model: {type(drawn).__name__} has no forward to draw.")
        return
    if drawn is own and asks_for(own, "obs_shapes") and not isinstance(obs, dict):
        obs = {OBS: obs}
    render_model(drawn, (obs,), folder, title=type(own).__name__, report=console.problem)
