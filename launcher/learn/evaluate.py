"""Evaluates a learner on held-out data, or in separate copies of environments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from ...envs.held_out import HeldOut
from ...envs.transform import Transform
from ...envs.wishes import Evaluation
from ...envs.world import World
from ...replay import Batch, ConfigError
from ...replay.randomness import forked_randomness
from ..metrics import known, metrics_of
from ..record.log import as_floats
from ..settings.warn import warn_caller
from .actor import Actor
from .learner import Learner
from .outputs import Outputs, measure, outputs_of, parts_of
from .own_evaluation import OwnEvaluation
from .own_metrics import OwnMetrics
from .pixel_scores import PixelScores

_TRIED = 64  # Rows on which metrics are tried: enough to hold several classes.


class Watch(Protocol):
    """Sees a model's predictions while they are evaluated."""

    def begin(self) -> None:
        """An evaluation begins."""

    def __call__(self, found: Outputs, rows: HeldOut) -> None:
        """The predictions of one task."""


class Evaluator:
    """Evaluates a learner on the tasks of a world; training's random streams stay untouched.

    Args:
        transform: From stored observations to floats, without augmentation.
        episodes: Episodes per evaluation of an environment; 0: no evaluation.
        rows: Maximum number of held-out rows per task, always the same ones, unless `whole`.
        seed: Seeds the model's random draws in evaluation, and the sample of rows.
        folder: Where videos are saved.
        draw: Called with the model and the step at every evaluation, to draw pictures.
        show: Called with the number of rows or episodes done, their total, and what is counted.
        poll: Called between batches of rows and steps of episodes; raises to leave the evaluation.
        own: The metrics that `metrics=` names.
        by_itself: The module's own evaluation, in place of all metrics of its predictions.
        watch: Sees the predictions of whole evaluations, to draw them.
    """

    def __init__(
        self,
        world: World,
        learner: Learner,
        *,
        transform: Transform,
        episodes: int,
        rows: int | None = None,
        seed: int,
        folder: Path | None = None,
        draw: Callable[[nn.Module, int], object] | None = None,
        show: Callable[[int, int, str], None] = lambda *_: None,
        poll: Callable[[], None] = lambda: None,
        own: OwnMetrics | None = None,
        by_itself: OwnEvaluation | None = None,
        watch: Watch | None = None,
    ):
        self.world, self.learner, self.draw, self.show = world, learner, draw, show
        self.by_itself, self._watch = by_itself, watch
        self.policy = Scored(learner, transform, told=world.told, own=own, by_itself=by_itself)
        self.how = Evaluation(
            transform,
            learner.device,
            episodes,
            rows,
            seed,
            folder,
            warn=warn_caller,
            poll=poll,
        )

    @property
    def off(self) -> bool:
        """Whether the run never evaluates (`eval_episodes=0`), so that all metrics are empty."""
        return not self.world.evaluates(self.how.episodes)

    def __call__(
        self, tasks: Sequence[int], *, step: int, validation: bool = False, whole: bool = False
    ) -> list[dict[str, float]]:
        """The metrics of each task; empty for a model that cannot predict.

        Args:
            tasks: Numbers of the tasks to evaluate.
            step: Steps of the run so far; seeds the model's random draws too.
            validation: Use the rows held out of the training data instead of the test data.
            whole: Use all rows, whatever `rows` says.
        """
        world, how = self.world, self.how
        which = {"validation": validation, "whole": whole}
        counts = [world.evaluated(task, how, **which) for task in tasks]
        done, total = 0, sum(counts)
        self.policy.watch = self._watch if whole else None
        if self.policy.watch is not None:
            self.policy.watch.begin()
        with self.learner.evaluating(), forked_randomness(how.seed + step):
            if self.draw is not None:
                self.draw(self.learner.agent, step)
            scores = []
            for task, count in zip(tasks, counts, strict=True):
                before = done

                def show(now: int, what: str, before: int = before) -> None:
                    self.show(before + now, total, what)

                scores.append(world.evaluate(task, self.policy, how, step=step, show=show, **which))
                done += count
            self.show(done, total, "rows")
            return scores

    def try_metrics(self) -> dict[str, float]:
        """Everything that is measured, from a few held-out rows of the first task, before training.

        Raises:
            ConfigError: For metrics that cannot be computed.
        """
        how = replace(self.how, rows=_TRIED)
        with (
            self.learner.evaluating(),
            forked_randomness(how.seed),
            warnings.catch_warnings(),
        ):
            # Few rows may lack a class, of which some metrics warn.
            warnings.simplefilter("ignore")
            trial = Trial(self.policy)
            return self.world.evaluate(0, trial, how, step=0, show=lambda *_: None)


class Scored:
    """Scores a learner's predictions and actions for a world.

    Args:
        transform: From stored observations to floats, without augmentation.
        told: Whether the model knows the task of the rows it predicts.
        own: The metrics that `metrics=` names.
        by_itself: The module's own evaluation, in place of all metrics of its predictions.
    """

    def __init__(
        self,
        learner: Learner,
        transform: Transform,
        *,
        told: bool,
        own: OwnMetrics | None = None,
        by_itself: OwnEvaluation | None = None,
    ):
        self.learner, self._transform, self._told = learner, transform, told
        self.own, self._by_itself = own or OwnMetrics((), learner.spec), by_itself
        self.watch: Watch | None = None

    @property
    def own_names(self) -> list[str]:
        """The metrics so far that are not Antelope's own, in order."""
        evaluated = () if self._by_itself is None else self._by_itself.names
        return [*self.own.names, *(name for name in evaluated if not known(name))]

    def measuring(self, own: OwnMetrics) -> Scored:
        """The same, with other metrics beside the built-in ones.

        Raises:
            ConfigError: If the module evaluates itself, so that they would not be measured.
        """
        if self._by_itself is not None:
            raise ConfigError(
                f"{self._by_itself.name} replaces all metrics, so metrics= would not be measured."
            )
        return Scored(self.learner, self._transform, told=self._told, own=own)

    def actor(self) -> Actor:
        """An actor that chooses greedy actions, starting with new episodes."""
        return Actor(self.learner, self._transform.observe)

    def score_episodes(self, returns: list[float], lengths: list[int]) -> dict[str, float]:
        """Metrics of whole episodes.

        Args:
            returns: Undiscounted return of each episode, float.
            lengths: Length of each episode, in steps.
        """
        return {m.name: m.function(returns, lengths) for m in metrics_of("episodes")}

    def score_rows(self, rows: HeldOut) -> dict[str, float]:
        """Metrics of held-out rows; empty for a model that cannot predict."""
        if self._by_itself is not None:
            return self._by_itself(rows)
        if self.learner.spec.action.kind == "pixels" and not self.own:
            return self._score_pixels(rows)
        found = outputs_of(self.learner, rows)
        if found is None:
            return self._generated(rows)
        if self.watch is not None:
            self.watch(found, rows)
        return self._measured(found) | self.own(found, told=self._told)

    def _score_pixels(self, rows: HeldOut) -> dict[str, float]:
        """Metrics of a class for each pixel, without keeping the outputs of all rows."""
        learner = self.learner
        scores = PixelScores(learner.spec.action, learner.held_out_loss)
        for part in parts_of(learner, rows):
            scores.add(part.output, part.label)
            if self.watch is not None:
                self.watch(part, rows)
        return scores.metrics() if scores.images else self._generated(rows)

    def try_on(self, rows: HeldOut) -> dict[str, float]:
        """Try the metrics that `metrics=` names, or the module's own evaluation, on a few rows.

        Returns:
            Everything that is measured.

        Raises:
            ConfigError: For everything that cannot be computed.
        """
        if self._by_itself is not None:
            return self._by_itself.tried(rows)
        found = outputs_of(self.learner, rows)
        if found is None and not self.own:
            return self._generated(rows)
        measured = {} if found is None else self._measured(found)
        return measured | self.own.tried(found, measured, told=self._told)

    def _measured(self, found: Outputs) -> dict[str, float]:
        learner = self.learner
        return measure(found, learner.spec, told=self._told, loss=learner.held_out_loss)

    def _generated(self, rows: HeldOut) -> dict[str, float]:
        """The mean of a generative model's `loss(batch)` over all rows; empty without such a method."""
        can = self.learner.traits
        loss = can.loss if can.generates else None
        if loss is None or not len(rows):
            return {}
        losses, sizes = [], []
        for fields in rows:
            batch = Batch(**fields)
            losses.append(torch.as_tensor(loss(batch)).reshape(()))
            sizes.append(len(batch))
        weighted = zip(as_floats(losses), sizes, strict=True)
        return {"loss": sum(value * size for value, size in weighted) / len(rows)}


class Trial:
    """A policy whose metrics are only tried.

    Args:
        policy: Scores the learner's predictions.
    """

    def __init__(self, policy: Scored):
        self._policy = policy
        self.score_rows, self.actor = policy.try_on, policy.actor
        self.score_episodes = policy.score_episodes
