"""What a run reports: its header, the cost of each task, final warnings, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..envs.world import World
from ..replay import Replay
from .header import header, read_as_steps
from .last_predictions import LastPredictions
from .learn.evaluate import Scored
from .learn.learner import Learner
from .record.console import Console
from .record.csv_file import Row
from .record.pictures import draw_model, draw_predictions, draw_run
from .record.progress import Progress
from .settings.plan import Plan
from .settings.unread import of_the_optimiser


@dataclass
class Report:
    """Describes and draws a run.

    Attributes:
        own: The user's module, which may be only a part of what learns.
        obs: Two example observations, `[2, *shape]` per leaf, as the model receives them.
        path: The run directory.
        where: The device and precision, in words.
        placed: Where the data's rows are stored, in words, or None.
        rates: The learning-rate schedule in one line, then warnings about it; empty without a schedule.
        scored: Scores the learner, and knows the names of the user's own metrics.
        predictions: Of the last evaluation, to be drawn; None: they are not drawn.
    """

    plan: Plan
    world: World
    learner: Learner
    replay: Replay
    own: nn.Module
    obs: Any
    path: Path
    where: str
    placed: str | None
    rates: list[str]
    scored: Scored
    predictions: LastPredictions | None

    def header(self) -> dict[str, str]:
        """The lines that a run begins with, by their label."""
        return header(
            self.plan,
            self.world,
            self.learner,
            self.replay,
            self.path,
            where=self.where,
            placed=self.placed,
            rates=self.rates[:1],
        )

    def problems(self) -> list[str]:
        """Warnings to show before the run begins."""
        return [*self.rates[1:], *read_as_steps(self.learner)]

    def costs(self, task: int) -> dict[str, Any]:
        """The cost of the task that was just learnt.

        Args:
            task: Its number, from 0.

        Returns:
            `name` in a sequence of environments; with strategies, `memory_bytes` and, if they count them,
            `parameters`.
        """
        costs: dict[str, Any] = {}
        if (names := self.world.task_names) is not None:
            costs["name"] = names[task]
        if (strategies := self.learner.strategies).active:
            costs["memory_bytes"] = strategies.nbytes()
            if (parameters := strategies.parameters_used()) is not None:
                costs["parameters"] = parameters
        return costs

    def untrained(self, *, so_far: bool = False) -> Iterator[str]:
        """A warning if learning steps have trained nothing: a `learn` without its `return`, for example.

        Args:
            so_far: Whether the run goes on.
        """
        learner = self.learner
        if learner.optimised or not learner.unmoved.begun:
            return
        if so_far and learner.traits.end_task is not None:  # It may learn there.
            return
        if problem := learner.unmoved.problem(so_far=so_far):
            yield problem

    def last_words(self, *, stepped: bool) -> Iterator[str]:
        """Settings that had no effect, or less than expected; some are raised as warnings.

        Args:
            stepped: Whether this process took a step of the run.
        """
        learner, name = self.learner, self.plan.model.short_name
        learner.unreached.warn()
        yield from self.untrained()
        if learner.skipped is not None and (count := learner.skipped.count):
            yield f"on_nan=skip skipped {count:,} update{'s' * (count > 1)}."
        if learner.own is not None and learner.optimised:
            learner.own.warn_of_schedulers()
        if not learner.steps or learner.optimised:
            return
        for key in of_the_optimiser(self.plan) if stepped else ():
            if key not in learner.traits.reads:
                yield (
                    f"`{key}` had no effect: {name} updates itself. `model.lr=...` and the "
                    "like set its own arguments, where it has them."
                )
        if learner.updates.scaler is not None:
            yield (
                f"precision=16: {name} updates itself, so its losses were not scaled, and small "
                "gradients may have been lost. precision=bf16 needs no scaling."
            )

    def draw_model(self, console: Console) -> None:
        """Draw the user's module, or the parts that an agent is composed of."""
        draw_model(self.own, self.learner.agent, self.obs, self.path / "plots", console)

    def draw_run(
        self, history: list[Row], progress: Progress, *, parameters: dict[str, Any] | None
    ) -> None:
        """Draw the run's curves and matrices.

        Args:
            history: The rows of train.csv and eval.csv.
            parameters: How many each task uses, where strategies count them.
        """
        world = self.world
        draw_run(
            self.path,
            history,
            matrix=progress.matrix,
            # Where tasks share their outputs, to tell the task makes no difference.
            task_il=progress.task_il if progress.task_il and world.scenario != "domain" else None,
            told=world.told,
            parameters=parameters,
            names=world.task_names,
            own=self.scored.own_names,
            title=self._title,
        )

    def draw_predictions(self) -> None:
        """Draw the predictions of the last evaluation, if there are any."""
        if self.predictions is not None and self.predictions.found is not None:
            draw_predictions(self.path / "plots", self.predictions.found, title=self._title)

    @property
    def _title(self) -> str:
        tasks = len(self.world.tasks)
        many = f" in {tasks} tasks" if tasks > 1 else ""
        return f"{self.plan.model.short_name} on {self.world.name}{many}, seed {self.plan.seed}"
