"""Pictures that are drawn while a run goes on, or when it ends: none is worth the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ...agents.policy.composition import Composition, View
from ...agents.policy.parts import OBS, asks_for
from ...agents.traits import has_forward, traits
from ...envs.world import World
from ..pictures.samples import Samples
from ..settings.plan import Plan
from .console import Console


class Spared:
    """Calls a function that draws; what it raises is said, once, and not raised.

    Args:
        draw: Draws.
        what: The pictures, as the message calls them: `learning curves`.
        report: Shows a line to the person.
    """

    def __init__(self, draw: Callable[..., Any], what: str, report: Callable[[str], None]):
        self._draw, self._what, self._report = draw, what, report
        self._failed = False

    def __call__(self, *args: Any, **options: Any) -> None:
        try:
            self._draw(*args, **options)
        except Exception as error:  # Of a display, a disk, a model's own `sample`.
            if not self._failed:
                reason = " ".join(str(error).split())[:200]
                self._report(f"No {self._what}: {type(error).__name__}: {reason}")
            self._failed = True


def build_pictures(plan: Plan, world: World, path: Path) -> Samples | None:
    """What draws a generative model's samples at every evaluation, or None.

    Args:
        path: Of the run.
    """
    if not (plan.plot and world.labelled):
        return None
    folder = path / "plots" / "samples"
    return Samples(folder, world.spec, standardize=plan.standardize, seed=plan.seed)


def draw_run(*args: Any, **options: Any) -> None:
    """The curves and matrices of a run: see `plots.curves`."""
    from ..pictures import curves  # Matplotlib is loaded where there is something to draw.

    curves.draw_run(*args, **options)


def draw_model(own: nn.Module, agent: nn.Module, obs: Any, folder: Path, console: Console) -> None:
    """A picture of the user's module, or of the parts that an agent is composed of."""
    from ..pictures.model.render import render_model

    composition = traits(agent).composition
    drawn = View(composition) if isinstance(composition, Composition) else own
    if not has_forward(drawn):
        console.problem(f"render_model: {type(drawn).__name__} has no forward to draw.")
        return
    if drawn is own and asks_for(own, "obs_shapes") and not isinstance(obs, dict):
        obs = {OBS: obs}
    render_model(drawn, (obs,), folder, title=type(own).__name__, report=console.problem)
