"""Any module with `learn`, made steppable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakMethod

from torch import Tensor
from torch.optim import Optimizer

from ...agents.learn_method import learn_method
from ...replay import CheckpointError, ConfigError, Diverged, Replay
from ...replay.errors import RanksDiffer
from ...replay.ranks import Ranks, ranks
from ..assembly.model import Model, widened
from ..assembly.optimisation import Average, Scaler
from ..record.log import Log
from ..record.state import (
    Constructed,
    attribute_state,
    check_attributes,
    check_growth,
    check_weights,
    load_attribute_state,
)
from ..record.state.growth import begin_again, begin_task, grown, layout, moved_along
from ..record.state.weights import load_weights
from .meeting import Meetings
from .own_optimizer import OwnOptimizers
from .schedulers import Scheduler
from .skipped_updates import SkippedUpdates
from .step_errors import about_step, wrong_loss
from .strategies import Strategies
from .unmoved import Unmoved
from .unreached import Unreached
from .updates import Updates
from .watchdog import Watchdog

# Not rolled back: what counts steps, and gradients that wait for an update.
_GOES_ON = ("scheduler", "pending", "gradients", "skipped_updates", "unreached", "lr")


class Learner:
    """Takes one learning step at a time, and predicts in between.

    If `learn` returns a scalar loss, gradients are zeroed, back-propagated and clipped, and optimiser,
    scheduler and average step. If it returns None, the model has updated itself. A module without
    `learn` is trained on the next batch by `supervised_loss`.

    Args:
        model: The module that learns, and how to call it.
        optimizer: Steps when `learn` returns a loss; None for a module without parameters.
        own: The optimisers that the module holds, one of which steps instead; or None.
        scheduler: Steps after each update, epoch or evaluation; or None.
        clip_grad: Largest 2-norm of the gradient of all parameters together, float; or None.
        accumulate: Learning steps per update of the weights, by the mean of their losses.
        average: Moving average of the weights, used to evaluate; or None.
        supervised: Whether batches have labels, which train a module without `learn`.
        loss: Trains such a module instead of the usual loss, `loss(output, label)`; or None.
        strategies: Continual-learning strategies, which take part in every step; or None.
        skip_nan: Whether to skip updates by losses and gradients that are not finite, instead of
            raising Diverged.
        tasks: Number of tasks. With several, a loss may reach some parameters only in a later task.

    Attributes:
        loss: What `loss=` named; None: the usual loss.
        updates: Turns losses into new weights.
        watchdog: Notices losses, weights, and what trains them, that are NaN or infinite.
        unreached: Warns of parameters that no loss reaches.
        unmoved: Reports a module that should have updated itself, and did not.
        steps: Learning steps so far.
    """

    def __init__(
        self,
        model: Model,
        *,
        optimizer: Optimizer | None = None,
        own: OwnOptimizers | None = None,
        scheduler: Scheduler | None = None,
        clip_grad: float | None = None,
        accumulate: int = 1,
        average: Average | None = None,
        supervised: bool = True,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        strategies: Strategies | None = None,
        skip_nan: bool = False,
        tasks: int = 1,
    ):
        agent, device = model.agent, model.device
        self.model, self.agent, self.spec, self.device = model, agent, model.spec, device
        self.traits, self.autocast, self.recurrence = model.traits, model.autocast, model.recurrence
        self._constructed, self._built = Constructed(agent), layout(agent)
        self.loss = loss
        learn = learn_method(agent, model.spec, supervised=supervised, loss=loss)
        if strategies is None:
            strategies = Strategies.none(agent, model.spec)
        self.strategies, self.own = strategies, own
        # Tested once per step: calling the hooks of no strategies would cost a microsecond each.
        self._strategic = strategies.active
        self._learn = strategies.loss if self._strategic and learn is not None else learn
        self.skipped = SkippedUpdates(agent, own) if skip_nan else None
        self.updates = Updates(
            agent,
            optimizer=optimizer,
            own=own,
            scheduler=scheduler,
            clip_grad=clip_grad,
            accumulate=accumulate,
            average=average,
            scaler=Scaler(device.type) if model.scales_losses else None,
            strategies=strategies,
            skipped=self.skipped,
        )
        self.scheduler, self.average = scheduler, average
        self.parameters = parameters = self.updates.parameters
        self.watchdog = Watchdog(self.updates, device.type)
        # A reference cycle would keep a dropped run's memory until Python's cycle collector runs, which
        # tens of runs may precede.
        changed = WeakMethod(self._changed)
        parameters.changed.append(lambda new: changed()(new))  # type: ignore[misc]
        strategies.context.look = partial(parameters.look, closely=False)
        strategies.context.clip_grad = clip_grad
        self.steps = self.tasks_begun = 0
        self._meetings = Meetings(agent)
        # Strategies freeze and add parameters on purpose, so a missing gradient is no mistake.
        waits = not self._strategic and learn is not None
        self.unreached = Unreached(agent, waits=waits, forever=tasks > 1)
        self.unmoved = Unmoved(agent)

    def _changed(self, new: list[str]) -> None:
        """React to changed parameters of the model; those named in `new` are trained from now on."""
        self.unreached.follow(self.parameters.named, new)
        if self.own is not None:
            self.own.changed = True
        self.strategies.parameters_changed()

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimiser that steps now; None for a module without parameters."""
        return self.updates.optimizer

    @property
    def optimised(self) -> bool:
        """Whether `learn` ever returned a loss."""
        return self.updates.optimised

    @property
    def lr(self) -> float | None:
        """The learning rate of the last update; None before the first."""
        return self.updates.lr

    def step(self, replay: Replay, log: Log) -> None:
        """Take one learning step.

        Raises:
            ConfigError: If `learn` returns something other than a scalar loss or None; in the first step
                also if a `[B]` is broadcast with a `[B, 1]`.
            Diverged: If the loss is NaN or infinite.
        """
        learn = self._learn
        if learn is None:
            return
        self.steps += 1
        if not self.unmoved.begun:
            self.unmoved.begin()
            self.watchdog.begin(self.steps)
        own, skipped = self.own, self.skipped
        if own is not None:
            own.stepped = False
        if skipped is not None:
            skipped.begin()
        try:
            if not self._meetings.over:
                learn = self._meetings.watched(learn, first=self.steps == 1)
            if (place := ranks()).several:
                loss = self._of_rank(place, learn, replay, log)
            elif self.autocast is nullcontext:
                loss = learn(replay, log)
            else:
                with self.autocast():
                    loss = learn(replay, log)
            if loss is None:
                self.watchdog.loss(self.steps, log.last("loss"))
            else:
                if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad):
                    raise ConfigError(wrong_loss(self.agent, loss))
                detached = loss.detach()
                self.watchdog.loss(self.steps, detached)
                if skipped is not None:
                    skipped.look_at_loss(detached)
                if own is not None:
                    self.updates.use_held(own.stepping())
                self.updates.by(loss)
            if self.unreached.waiting:
                self.unreached.look()
            was_skipped = skipped is not None and skipped.end(self.steps)
            if self._strategic:
                self.strategies.after_step(replay, skipped=was_skipped)
            if loss is not None and self.scheduler is not None:
                self.scheduler.learned(replay)
        except Diverged as error:
            error.lr = self.watchdog.lr
            raise
        except (ConfigError, RanksDiffer):
            raise
        except Exception as error:
            self._explain(error, replay)
            raise
        if loss is not None:
            log.record("loss", detached * place.scale if place.several else detached)

    def _of_rank(
        self, place: Ranks, learn: Callable[[Replay, Log], Any], replay: Replay, log: Log
    ) -> Any:
        """What `learn` returns for this rank's rows, with the means it logs weighted by their number."""
        before = log.counts()
        with place.apart(), self.autocast():
            loss = learn(replay, log)
        log.weight(place.scale, before)
        return loss

    def _explain(self, error: Exception, replay: Replay) -> None:
        """Add a note to an error: the learning step that failed, and its batch."""
        note = about_step(
            error,
            self.agent,
            self.spec,
            method=self.traits.learns_by,
            step=self.steps,
            batch_size=replay.batch_size,
            accumulate=self.updates.accumulate,
        )
        error.add_note(note)

    def flush(self, replay: Replay) -> None:
        """Update by the gradients left over from a task's last learning steps."""
        if self.updates.flush():
            self.strategies.after_flush(replay)

    def evaluated(self, metrics: dict[str, float], *, validation: bool = False) -> None:
        """Pass metrics to a scheduler that waits for them (ReduceLROnPlateau).

        Args:
            metrics: The current task's metrics, by name.
            validation: Whether they come from rows held out of the training data.
        """
        if self.scheduler is not None:
            self.scheduler.evaluated(metrics, validation=validation)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run the block in evaluation mode, without gradients, with averaged weights if there are any."""
        with self.model.evaluating():
            # If the model updates itself, the average was never updated.
            if self.average is None or not self.optimised:
                yield
                return
            self.parameters.look()
            with self.average.applied():
                yield

    def predict(self, obs: Any, task: int | None = None) -> Tensor | None:
        """Logits or values `[B, *action.shape]`, float32 or float64; None without a `forward`.

        Args:
            obs: `[B, *obs.shape]`, or a dict of such tensors.
            task: The task of the rows, where the model may know it.
        """
        output = self.strategies.predict(obs, task)
        return self.model.predict(obs, task) if output is None else widened(output)

    @property
    def held_out_loss(self) -> Callable[[Tensor, Tensor], float] | None:
        """What `loss=` names, of outputs and labels on the host; None: the usual loss."""
        loss, device = self.loss, self.device
        if loss is None:
            return None
        return lambda output, label: float(loss(output.to(device), label.to(device)))

    @property
    def task_aware(self) -> bool:
        """Whether predictions differ if the task is known."""
        return self.strategies.task_aware or self.traits.task_told

    def reset_hyperparameters(self) -> None:
        """Give the optimiser this run's options instead of those of a loaded state."""
        self.updates.reset_hyperparameters()

    def begin_task(self, task: int, replay: Replay) -> None:
        """Begin a task, whose rows the replay already holds."""
        if self.own is not None:
            self.own.changed = True
        self.strategies.begin_task(task, replay)
        if self.scheduler is not None:
            self.scheduler.begin_task(task, replay)
        begin_task(self.agent, task)
        self.parameters.look()
        self.tasks_begun = task + 1

    def end_task(self, replay: Replay) -> None:
        """End a task, while the replay still holds its rows."""
        self.flush(replay)
        if (end := self.traits.end_task) is not None:
            with moved_along(self.agent):
                end(replay)
            self.parameters.look()
        self.strategies.end_task(replay)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        self.parameters.look()
        state = {
            **self.updates.state_dict(),
            "steps": self.steps,
            "tasks_begun": self.tasks_begun,
            "grown": grown(self.agent, self._built, self.tasks_begun),
            "unreached": self.unreached.state_dict(),
            "agent": self.agent.state_dict(),
            "attributes": attribute_state(self.agent, self._constructed),
        }
        if self._strategic:
            state["strategies"] = self.strategies.state_dict()
        if self.skipped is not None:
            state["skipped_updates"] = self.skipped.count
        return state

    def load_state_dict(self, state: Mapping[str, Any], *, but: Collection[str] = ()) -> None:
        """Continue exactly.

        Args:
            state: The result of `state_dict`.
            but: Names of the parts that start from scratch, such as `optimizer`.

        Raises:
            CheckpointError: If the state belongs to another model.
        """
        self._check(state, but)
        load_weights(
            self.agent,
            state["agent"],
            state["attributes"].get("places"),
            state.get("grown"),
            before=self.strategies.begin_again,
        )
        self._load_attributes(state)
        self.steps = state["steps"]
        self.tasks_begun = state.get("tasks_begun", 0)  # Since 0.5.0, as is the next one.
        self.parameters.look()
        if "unreached" in state:
            self.unreached.load_state_dict(state["unreached"])
        self.updates.load_state_dict(state, but=but)
        if self._strategic and "strategies" in state:
            self.strategies.load_state_dict(state["strategies"])
        if self.skipped is not None:
            self.skipped.count = state.get("skipped_updates", 0)

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state of the same task; steps and the schedule of the learning rate go on.

        Raises:
            CheckpointError: If it is the state of an earlier task.
        """
        if state.get("tasks_begun") != self.tasks_begun:
            raise CheckpointError("the last checkpoint comes from an earlier task")
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        options = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        known = {"steps": self.steps, "optimised": self.optimised}
        earlier = {name: part for name, part in state.items() if name not in _GOES_ON}
        self.load_state_dict({**earlier, **known})
        if self.optimizer is not None:  # Loading has replaced its groups.
            for group, before in zip(self.optimizer.param_groups, options, strict=False):
                group.update(before)
        self.watchdog.note_finite(self.steps)

    def _check(self, state: Mapping[str, Any], but: Collection[str]) -> None:
        """Check a state against the model, the optimiser and the strategies, none of which is changed.

        Raises:
            CheckpointError: Naming what does not fit.
        """
        check_growth(state.get("grown"), state["agent"])
        if state.get("grown") is not None:
            return  # Each part checks its own, once the model has what was added to it.
        check_weights(self.agent, state["agent"])
        check_attributes(self.agent, state["attributes"], classes=self.strategies.classes)
        self.updates.check(state, but=but)
        if self._strategic and "strategies" in state:
            self.strategies.check(state["strategies"])

    def _load_attributes(self, state: Mapping[str, Any]) -> None:
        """Restore what the model holds beside its weights, calling `begin_task` again if that is missing."""
        classes = self.strategies.classes
        try:
            load_attribute_state(self.agent, state["attributes"], classes=classes)
        except CheckpointError as error:
            if state.get("grown") is not None:  # Then it has begun its tasks again already.
                raise
            try:
                begin_again(self.agent, state.get("tasks_begun", 0))
                load_weights(self.agent, state["agent"], state["attributes"].get("places"))
                load_attribute_state(self.agent, state["attributes"], classes=classes)
            except Exception as second:
                raise error from second
