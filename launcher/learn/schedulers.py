"""Steps a learning-rate scheduler when it is due, and restarts it with every task."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from ...replay import CheckpointError, Replay
from ..assembly.schedule import Duration
from ..metrics import better, score_names
from .torch_schedulers import (
    PER_STEP,
    Groups,
    load_state,
    mode_of,
    options_of,
    parts_of,
    restore_options,
    state_of,
)


class Scheduler:
    """Steps a scheduler like torch's when it is due, and restarts it with each task.

    Args:
        name: Its name in messages.
        make: Makes a scheduler for an optimiser with its initial rates, and a duration.
        every: When it steps: "epoch", "step" (each update) or "evaluation".
        durations: Each task's, in learning steps and epochs; a single one without task boundaries.
        validation: Whether evaluations within a task use rows held out of its training data.
        told_length: Whether `make` uses the duration.

    Attributes:
        optimizer: The scheduled optimiser; None until it is known.
        torch: The scheduler at work; None until then.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Optimizer, Duration], Any],
        *,
        every: str,
        durations: list[Duration],
        validation: bool = False,
        told_length: bool = False,
    ):
        self.name, self.every, self._make = name, every, make
        self._durations, self._validation, self._told_length = durations, validation, told_length
        self.optimizer: Optimizer | None = None
        self.torch: Any = None
        self.initial: Groups = []  # The optimiser's options before the scheduler changed them.
        self._duration = durations[0]
        self._task = 0
        self._began()

    def _began(self) -> None:
        self._updated = False  # Whether anything was updated since the schedule began.
        self._steps = self._epochs = 0  # Learning steps, and epochs stepped for, in this task.
        self._ended = False

    def attach(self, optimizer: Optimizer) -> None:
        """Schedule this optimiser, starting from its current options."""
        self.optimizer, self.initial = optimizer, options_of(optimizer)
        self.torch = self._make(optimizer, self._duration)

    def add_duration(self, duration: Duration) -> None:
        """Expect one more task."""
        self._durations.append(duration)

    def begin_task(self, task: int, replay: Replay) -> None:
        """Restart the schedule from the optimiser's initial options."""
        self._task = min(task, len(self._durations) - 1)
        duration = (
            self._durations[self._task].of(replay)
            if len(self._durations) > 1
            else self._durations[0]
        )
        if self.optimizer is None:
            self._duration = duration
            return
        if task == 0 and duration == self._duration:
            return  # `attach` has only just started it.
        self._duration = duration
        restore_options(self.optimizer, self.initial)
        self.torch = self._make(self.optimizer, duration)
        self._began()

    def updated(self) -> None:
        """Step if it is due, after an update of the weights."""
        self._updated = True
        if self.every == "step":
            self._step()

    def learned(self, replay: Replay) -> None:
        """Step if it is due, after a learning step that may have ended an epoch."""
        if self.every != "epoch":
            return
        self._steps += 1
        if not replay.borders:  # The stream is a single pass, and task boundaries are hidden.
            return
        # Counted like `Schedule.over`: a model need not draw its batches with next(replay).
        done = max(replay.passes, self._steps // max(1, replay.batches_per_epoch))
        while self._epochs < done:
            self._epochs += 1
            if self._updated:
                self._step()

    def evaluated(self, metrics: Mapping[str, float], *, validation: bool) -> None:
        """Step if it is due, after an evaluation of the current task.

        Args:
            metrics: The current task's metrics, by name.
            validation: Whether they come from rows held out of the training data.
        """
        if self.every != "evaluation" or not self._updated or validation != self._validation:
            return
        direction = "less" if mode_of(self.torch) == "min" else "more"
        names = [name for name in score_names() if better(name) == direction]
        value = next((metrics[name] for name in names if name in metrics), math.nan)
        if math.isnan(value):
            self._say(
                f"{self.name} (mode={mode_of(self.torch)}) needs {' or '.join(names)}, which is missing or "
                "NaN in this evaluation: the learning rate stays unchanged."
            )
            return
        self._step(value)

    def _step(self, *metric: float) -> None:
        if self._ended:
            return
        assert self.optimizer is not None
        # float16's scaler may have skipped the optimiser's first steps, of which torch would warn.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        try:
            self.torch.step(*metric)
        except ValueError as error:  # OneCycleLR, past its end.
            self._ended = True
            lr = float(self.optimizer.param_groups[0]["lr"])
            self._say(f"{self.name} is over: {error}. The learning rate stays at {lr:.3g}.")

    def _say(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)

    def rebase(self, built: Groups) -> None:
        """Continue on the same curve, scaled to other initial options.

        Args:
            built: The new initial options of each group of the optimiser.
        """
        assert self.optimizer is not None
        parts = list(parts_of(self.torch))
        own_rates = any(isinstance(part, PER_STEP) for part in parts)  # max_lr, base_lr.
        for group, initial, settings in zip(
            self.optimizer.param_groups, self.initial, built, strict=False
        ):
            factor = group["lr"] / initial["lr"] if initial["lr"] else 1
            for key in settings.keys() & group.keys() - {"lr"}:
                # A schedule that moves other options too, as CyclicLR does momentum, sets them again.
                group[key] = copy.deepcopy(settings[key])
            if not own_rates:
                group["lr"], group["initial_lr"] = factor * settings["lr"], settings["lr"]
        if own_rates:
            return
        self.initial = copy.deepcopy(built)
        for part in parts:
            if hasattr(part, "base_lrs"):
                part.base_lrs = [group["lr"] for group in built]

    def state_dict(self) -> dict[str, Any]:
        return {
            "every": self.every,
            "task": self._task,
            "planned": [self._duration.learning_steps, self._duration.batches_per_epoch],
            "settings": self._durations[self._task].length("step"),
            "steps": self._steps,
            "epochs": self._epochs,
            "updated": self._updated,
            "ended": self._ended,
            "initial": self.initial,
            "scheduler": None if self.torch is None else state_of(self.torch),
        }

    def load_state_dict(self, state: dict[str, Any], optimizer: Optimizer | None) -> None:
        """Continue exactly; the optimiser's state must be loaded before.

        Raises:
            CheckpointError: If the saved scheduler stepped at other times (`scheduler_every`).
        """
        if "every" not in state:  # Before 0.5.0: at every update, or evaluation.
            if self.every == "epoch":
                raise CheckpointError(
                    "The checkpoint's scheduler stepped at every update, as schedulers did before 0.5.0. "
                    "Resume with scheduler_every=step to keep that, or start a run of another path with "
                    "load=PATH and the scheduler's numbers in epochs."
                )
            if self.torch is None and optimizer is not None:
                self.attach(optimizer)
            self.torch.load_state_dict(state)
            self._updated = True
            return
        if state["every"] != self.every:
            raise CheckpointError(
                f"The checkpoint's scheduler stepped once per {state['every']}, this run's once "
                f"per {self.every}. Resume with the scheduler_every it was saved with."
            )
        self._task = min(state["task"], len(self._durations) - 1)
        self._steps, self._epochs = state["steps"], state["epochs"]
        self._updated, self._ended = state["updated"], state["ended"]
        duration = self._durations[self._task]
        same = duration.length("step") == state["settings"]
        steps, batches = state["planned"]
        self._duration = (
            replace(duration, steps=steps, batches_per_epoch=batches) if same else duration
        )
        if state["scheduler"] is None or optimizer is None:
            return
        now = options_of(optimizer)
        self.optimizer, self.initial = optimizer, state["initial"]
        restore_options(optimizer, self.initial)
        self.torch = self._make(optimizer, self._duration)
        if self._told_length and not same:
            # The run's length has changed: go as many steps along the new curve.
            self._ended = False
            for _ in range(state["scheduler"].get("last_epoch", 0)):
                self._step()
            return
        load_state(self.torch, state["scheduler"])
        restore_options(optimizer, now)
