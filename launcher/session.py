"""The state of a run: what a checkpoint holds, and how a run is continued from one."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch

from ..replay import ConfigError, Replay
from ..replay.devices import moving
from ..replay.randomness import random_state, set_random_state
from .assembly.schedule import Schedule, duration_of
from .learn.actor import Actor
from .learn.learner import Learner
from .record.console import Console
from .record.log import CSV, Journal, Log
from .record.progress import Progress
from .record.spec_state import spec_state
from .record.state import load_object_state, object_state
from .settings.plan import Plan
from .settings.schema import that_count


@dataclass
class Session:
    """The parts of a run that change while it learns."""

    plan: Plan
    world: Any
    learner: Learner
    actor: Actor | None
    replay: Replay
    schedule: Schedule
    journal: Journal
    at: Progress = field(default_factory=Progress)
    log: Log = field(default_factory=Log)
    # The checkpoint of a task whose data has not arrived yet.
    pending: dict[str, Any] | None = None

    def grow(self) -> None:
        """Notify all parts of a task that was just added to the world."""
        number, world = len(self.world.tasks) - 1, self.world
        task = world.tasks[number]
        self.replay.set_task(number, task.train)
        outputs = task.classes if world.spec.discrete else torch.arange(0)
        self.learner.strategies.context.add_task(outputs)
        if self.learner.scheduler is not None:
            rows = world.later[-1]["rows"]
            self.learner.scheduler.add_duration(duration_of(rows, self.schedule, self.plan))
        self.at.widen(len(world.tasks))
        for writer in self.journal.writers:
            if isinstance(writer, CSV):
                writer.expect(len(world.tasks))

    def fill(self, task: int) -> None:
        """Continue in the middle of a task whose rows have arrived."""
        self.replay.set_task(task, self.world.tasks[task].train)
        if self.pending is not None and self.at.begun and self.at.task == task:
            self.world.resume(task, self.replay, self.pending["replay"])
            set_random_state(self.pending["random"], self.learner.device)
            self.pending = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing exactly needs."""
        return {
            "device": str(self.learner.device),
            "progress": self.at.state_dict(),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "augmentation": object_state(self._augmentation),
            **self._world_state(),
            "actor": self.actor.state_dict() if self.actor is not None else None,
            "log": self.log.state_dict(),
            "journal": self.journal.state_dict(),
            "random": random_state(self.learner.device),
            "settings": dict(self.plan.values),
            "objects": list(self.plan.objects),
            "name": self.world.name,
            "spec": spec_state(self.world.spec),
        }

    def _world_state(self) -> dict[str, Any]:
        """The world's, with the episodes in progress if there are any."""
        begun = self.at.begun and not self.replay.offline
        pack = functools.partial(object_state, whole=True)
        return self.world.state_dict(self.at.task if begun else None, pack=pack)

    def load_state_dict(self, state: dict[str, Any], console: Console) -> None:
        """Put everything back to where the checkpoint left it, and say what is different now.

        Raises:
            CheckpointError, ConfigError: If the checkpoint is another model's or sequence's.
        """
        changed = changed_settings(state["settings"], dict(self.plan.values))
        for key in that_count("sequence") & changed.keys():
            before, now = changed[key]
            raise ConfigError(
                f"The checkpoint comes from a run with {key}={before}, but this one has {key}={now}: it "
                "cannot be resumed with different plan. Give another path or experiment."
            )
        for known in state.get("later", ()):
            self.world.expect(known)
            self.grow()
            self.pending = {"replay": state["replay"], "random": state["random"]}
        at = self.at
        at.load_state_dict(state["progress"])
        anew = _parts_to_begin_anew(changed)
        before, now = saved_device(state), self.learner.device
        with moving(before, now) as move:
            self.learner.load_state_dict(state["learner"], but=anew)
            load_object_state(self._augmentation, state["augmentation"])
        if "optimizer" not in anew and {"optim", "lr", "weight_decay"} & changed.keys():
            self.learner.reset_hyperparameters()
        console.note(f"Resumed at step {at.step}.")
        for key, (was, wanted) in changed.items():
            console.problem(f"Changed since the checkpoint: {key}: {was} -> {wanted}")
        finished = at.task == len(self.world.tasks)
        task = at.task - finished if at.begun or finished else None
        left = {**state, "environment": None} if finished else state
        goes_on = self.world.load_state_dict(
            left, task, self.replay, unpack=load_object_state, problem=console.problem
        )
        if goes_on and self.actor is not None:
            self.actor.load_state_dict(state["actor"])
        if finished:
            self._reopen(console)
        self.log.load_state_dict(state["log"])
        self.journal.load_state_dict(state["journal"])
        if not set_random_state(state["random"], now):
            move.restarted.insert(0, "those that models draw on their device")
        if move.restarted:
            console.problem(
                f"The checkpoint was written on {before.type}, this run is on {now.type}: random numbers "
                f"cannot be continued across the two ({', '.join(move.restarted)}), and start afresh."
            )

    def _reopen(self, console: Console) -> None:
        """Continue the last task of a finished run that is now to go on for longer."""
        self.at.task, self.at.begun = self.at.task - 1, True
        if self.schedule.over(self.at, self.replay):
            self.at.end_task()
            console.note("This run is finished: there is nothing left to learn.")
        else:
            for matrix in (self.at.matrix, self.at.task_il):
                del matrix[self.at.task :]

    @property
    def _augmentation(self) -> Any:
        return getattr(self.replay.transform, "augment", None)


def saved_device(state: dict[str, Any]) -> torch.device:
    """Where the run learnt that a checkpoint is from."""
    if "device" in state:
        return torch.device(state["device"])
    return torch.device("cuda" if "cuda" in state["random"] else "cpu")  # Before 0.5.0.


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between a checkpoint's plan and these, but for incidental ones."""
    # Where a run started from no longer matters once it has.
    may_differ = {*that_count("incidental"), "load"}
    return {
        key: (before.get(key), now.get(key))
        for key in {**before, **now}
        if key not in may_differ and before.get(key) != now.get(key)
    }


def _parts_to_begin_anew(changed: dict[str, tuple[Any, Any]]) -> tuple[str, ...]:
    """The parts of a learner whose saved state is of another kind than what is asked for now."""
    before, now = (optim or {} for optim in changed.get("optim", ({}, {})))
    if before.get("_target_") != now.get("_target_") or list(before.get("groups", ())) != list(
        now.get("groups", ())
    ):
        return ("optimizer", "scheduler")
    return ("scheduler",) if {"scheduler", "lr_decay_epochs"} & changed.keys() else ()
