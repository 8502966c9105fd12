"""Any module with `learn`, made steppable."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakMethod

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.blocks.ids import about_integers
from ...agents.learn_method import learn_method
from ...agents.policy.states import Recurrence
from ...agents.traits import traits
from ...replay import Batch, CheckpointError, ConfigError, Diverged, Replay, Spec
from ...replay.batch import describe
from ...replay.devices import about_devices
from ..assembly.optimisation import Average, Scaler, left_out
from ..record.log import Log, as_floats
from ..record.state import (
    Constructed,
    attribute_state,
    load_attribute_state,
    load_optimizer_fields,
    load_part,
    load_weights,
    optimizer_fields,
)
from .growth import begin_again, begin_task, grown, layout, moved_along
from .meeting import Meetings
from .own_optimizer import OwnOptimizers
from .parameters import Parameters, held_names, hold, in_words
from .schedulers import Scheduler
from .strategies import Strategies
from .unmoved import Unmoved
from .unreached import Unreached

# On a GPU losses are looked at together, so that no step waits for the device.
_CHECK_EVERY = {"cpu": 1}
_CHECK_EVERY_ELSEWHERE = 50


class Learner:
    """One learning step and one action at a time.

    `learn` returns a scalar loss: gradients are zeroed, back-propagated, clipped; optimiser,
    scheduler and average step. It returns None: the model has updated itself. A module without
    `learn` is trained on the next batch by `supervised_loss`.

    Args:
        agent: The user's module, on `device`.
        optimizer: Steps when `learn` returns a loss; None for a module without parameters.
        own: The optimisers that the module holds, one of which steps instead; or None.
        scheduler: Steps after it, or after an epoch or evaluation.
        clip_grad: Largest norm of the gradient, or None.
        accumulate: Learning steps per update of the weights, by the mean of their losses.
        average: Weights used to evaluate, or None.
        precision: "bf16" or "16": the autocast type of `learn` and of inference; "32", "tf32": none.
        supervised: Whether batches have labels that a module without `learn` can be trained on.
        strategies: Those of continual learning, which have a part in every step; or None.
        tasks: How many there will be: what no loss reaches in the first may wait for a later one.

    Attributes:
        traits: What the module can do.
        recurrence: How the model's state is carried in environments; None for one without.
        unreached: Warns of parameters that no loss reaches.
        unmoved: Tells of a module that was to update itself, and did not.
    """

    def __init__(
        self,
        agent: nn.Module,
        spec: Spec,
        *,
        optimizer: Optimizer | None = None,
        own: OwnOptimizers | None = None,
        scheduler: Scheduler | None = None,
        clip_grad: float | None = None,
        accumulate: int = 1,
        average: Average | None = None,
        precision: str = "32",
        device: torch.device | str = "cpu",
        supervised: bool = True,
        strategies: Strategies | None = None,
        tasks: int = 1,
    ):
        self.agent, self.spec, self.traits = agent, spec, traits(agent)
        self._constructed, self._built = Constructed(agent), layout(agent)
        self.strategies = strategies
        self.device = torch.device(device)
        self.own, self.scheduler, self.average = own, scheduler, average
        self.optimizer: Optimizer | None = None
        self._held = False  # Whether the optimiser is one that the module holds.
        self._built_with: list[dict[str, Any]] = []  # The settings of each of its groups.
        self.parameters = Parameters(agent, average=average)
        # Held in a circle, a run that is dropped would keep its memory until Python looks for circles,
        # which tens of runs may come before.
        changed = WeakMethod(self._changed)
        self.parameters.changed.append(lambda new: changed()(new))  # type: ignore[misc]
        if strategies is not None:
            strategies.context.look = partial(self.parameters.look, closely=False)
            strategies.context.clip_grad = clip_grad
        self._use(optimizer, held=own is not None and optimizer is own.only)
        # One that the module holds is scheduled once a loss is returned: it may as well step itself.
        if scheduler is not None and optimizer is not None and not self._held:
            scheduler.attach(optimizer)
        self.clip_grad, self.accumulate = clip_grad, accumulate
        self._witness: Tensor | None = None  # A parameter whose gradient waits.
        self._pending = 0  # Learning steps whose gradients are there, and not stepped yet.
        self._lr: Any = None  # Of the last update.
        self.recurrence: Recurrence | None = None
        self.steps = self.tasks_begun = 0
        self.optimised = False  # Whether `learn` ever returned a loss.
        self._learn = learn_method(agent, spec, supervised=supervised)
        self._meetings = Meetings(agent)
        # Strategies freeze parameters, and add some, on purpose.
        waits = strategies is None and self._learn is not None
        self.unreached = Unreached(agent, waits=waits, forever=tasks > 1)
        self.unmoved = Unmoved(agent)
        dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision)
        self.autocast: Callable[[], Any] = nullcontext
        if dtype is not None:
            self.autocast = partial(torch.autocast, self.device.type, dtype)
        scaled = dtype is torch.float16
        self.scaler = Scaler(self.device.type) if scaled else None
        self._unchecked: list[tuple[int, Tensor | float]] = []
        self._check_every = _CHECK_EVERY.get(self.device.type, _CHECK_EVERY_ELSEWHERE)

    def _changed(self, new: list[str]) -> None:
        """The model's parameters have changed; `new` ones are trained since then."""
        self.unreached.follow(self.parameters.named, new)
        if self.own is not None:
            self.own.changed = True
        if self.strategies is not None:
            self.strategies.parameters_changed()

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn by: a `learn` method, or labels and a forward."""
        return self._learn is not None

    def step(self, replay: Replay, log: Log) -> None:
        """One learning step.

        Raises:
            ConfigError: If `learn` returns something other than a scalar loss or None; in the first step
                also if a `[B]` meets a `[B, 1]`.
            Diverged: If the loss is NaN or infinite.
        """
        if self._learn is None:
            return
        self.steps += 1
        if not self.unmoved.begun:
            self.unmoved.begin()
        if self.own is not None:
            self.own.stepped = False
        try:
            with self.autocast():
                learn = self._learn if self.strategies is None else self.strategies.loss
                if not self._meetings.over:
                    learn = self._meetings.watched(learn, first=self.steps == 1)
                loss = learn(replay, log)
            if loss is None:
                self._watch(log.last("loss"))
                if self.unreached.waiting:
                    self.unreached.look()
                if self.strategies is not None:
                    self.strategies.after_step(replay)
                return
            if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad):
                raise ConfigError(_wrong_loss(self.agent, loss))
            detached = loss.detach()
            self._watch(detached)
            if self.own is not None:
                self._use_own(self.own.stepping())
            self._optimise(loss)
            if self.unreached.waiting:
                self.unreached.look()
            if self.strategies is not None:
                self.strategies.after_step(replay)
            if self.scheduler is not None:
                self.scheduler.learned(replay)
        except (ConfigError, Diverged):
            raise
        except Exception as error:
            batch = _last_batch(error)
            met = f" Batch: {describe(batch)}." if batch is not None else ""
            method = self.traits.learns_by
            error.add_note(
                f"In {type(self.agent).__name__}.{method}, learning step {self.steps}.{met}"
                f"{about_devices(error)}{about_integers(error, self.spec.obs)}"
            )
            raise
        log.record("loss", detached)

    def _optimise(self, loss: Tensor) -> None:
        optimizer = self.optimizer
        assert optimizer is not None
        self.parameters.look(closely=False)
        if not self._pending:
            for group in optimizer.param_groups:
                for parameter in group["params"]:  # `zero_grad` would take ten times as long.
                    parameter.grad = None
        elif self._witness is not None and self._witness.grad is None:
            raise ConfigError(
                f"{type(self.agent).__name__}.learn zeroes the gradients, which accumulate={self.accumulate} "
                "adds up over several learning steps. Leave zero_grad out."
            )
        if self.accumulate > 1:
            loss = loss / self.accumulate
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        try:
            loss.backward()
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
            raise ConfigError(_SECOND_BACKWARD.format(type(self.agent).__name__)) from error
        if self.accumulate > 1 and not self._pending:
            reached = (p for p in self.parameters.trained if p.grad is not None)
            self._witness = next(reached, None)
        self._pending += 1
        if self._pending >= self.accumulate:
            self._update(optimizer)
        if not self.optimised:
            self.optimised = True
            self._warn_of_left_out(optimizer)

    def _update(self, optimizer: Optimizer) -> None:
        """Step by the gradients that are there."""
        if self._pending != self.accumulate:  # The last ones of a task: the mean of as many.
            for parameter in self.parameters.trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / self._pending)
        self._pending = 0
        if self.scaler is not None and (self.clip_grad is not None or self.strategies is not None):
            self.scaler.unscale_(optimizer)
        if self.strategies is not None:
            self.strategies.after_backward()
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.parameters.trained, self.clip_grad)
        if self.scaler is not None:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        self._lr = lr.clone() if isinstance(lr, Tensor) else lr  # A scheduler writes into it.
        if self.scheduler is not None:
            self.scheduler.updated()
        if self.average is not None:
            self.average.update()

    def flush(self, replay: Replay) -> None:
        """Step by the gradients that a task's last learning steps have left."""
        if self._pending and self.optimizer is not None:
            self._update(self.optimizer)
            if self.strategies is not None:
                self.strategies.after_flush(replay)

    def _use(self, optimizer: Optimizer | None, *, held: bool = False) -> None:
        """Step this optimiser from now on.

        Args:
            held: Whether the module holds it.
        """
        self.optimizer, self._held = optimizer, held
        if self.strategies is not None:
            self.strategies.context.optimizer = optimizer
        self.parameters.use(optimizer)
        if optimizer is None:
            return
        self._built_with = [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ]

    def _use_own(self, held: Optimizer | None) -> None:
        """Step the optimiser that the module holds, if it does, now that it has returned a loss."""
        if held is not None and held is not self.optimizer:
            self._use(held, held=True)
        if self.scheduler is not None and self.scheduler.optimizer is not self.optimizer:
            assert self.optimizer is not None
            self.scheduler.attach(self.optimizer)

    def _warn_of_left_out(self, optimizer: Optimizer) -> None:
        """Warn of parameters that the loss reaches and the optimiser does not hold."""
        names = left_out(optimizer, self.agent)
        if not names:
            return
        warnings.warn(
            f"The optimiser does not hold {in_words(names)} of {type(self.agent).__name__}: the loss "
            "depends on them, but nothing trains them. Give it all parameters, or set "
            "requires_grad_(False) if that is intended.",
            stacklevel=2,
        )

    def _watch(self, loss: Tensor | float | None) -> None:
        if loss is None:
            return
        if self._check_every == 1 and math.isfinite(loss):
            return
        self._unchecked.append((self.steps, loss))
        if len(self._unchecked) >= self._check_every:
            self.check_losses()

    def check_losses(self) -> None:
        """Look at the losses since the last look.

        Raises:
            Diverged: Naming the first step whose loss was not finite.
        """
        losses, self._unchecked = self._unchecked, []
        values = as_floats([loss for _, loss in losses])
        for (step, _), value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                word = "NaN" if math.isnan(value) else "infinite"
                raise Diverged(f"The loss became {word} at learning step {step}.")

    def evaluated(self, metrics: dict[str, float], *, validation: bool = False) -> None:
        """Tell a scheduler that waits for a metric (ReduceLROnPlateau).

        Args:
            metrics: Of the current task.
            validation: Whether they are of rows set aside.
        """
        if self.scheduler is not None:
            self.scheduler.evaluated(metrics, validation=validation)

    @property
    def lr(self) -> float | None:
        """The learning rate of the last update; None as long as there is none."""
        if self.optimizer is None or not self.optimised:
            return None
        return float(self.optimizer.param_groups[0]["lr"] if self._lr is None else self._lr)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside: evaluation mode, no gradients, averaged weights where there are any."""
        modes = {module: module.training for module in self.agent.modules()}
        self.agent.eval()
        try:
            # A model that updates itself has no other weights: their average never moved.
            average: Any = nullcontext()
            if self.average is not None and self.optimised:
                self.parameters.look()
                average = self.average.applied()
            with torch.no_grad(), self.autocast(), average:
                yield
        finally:
            # Module by module: a part that the user froze in eval mode stays so.
            for module, training in modes.items():
                module.training = training

    def predict(self, obs: Tensor, task: int | None = None) -> Tensor | None:
        """Logits or values `[B, *action.shape]`, or None for a model that has no `forward`.

        Args:
            task: The task that the rows are of, where that may be known.
        """
        if self.strategies is not None:
            output = self.strategies.predict(obs, task)
            if output is not None:
                return _widened(output)
        if self.traits.task_told:
            return _widened(self.agent(obs, task))
        return _widened(self.agent(obs)) if self.traits.forward else None

    @property
    def task_aware(self) -> bool:
        """Whether predictions differ where the task is told."""
        strategies = self.strategies is not None and self.strategies.task_aware
        return strategies or self.traits.task_told

    def reset_hyperparameters(self) -> None:
        """Give the optimiser the settings it was built with, over those of a loaded state."""
        if self.optimizer is None or self._held:
            return
        if self.scheduler is not None and self.scheduler.optimizer is self.optimizer:
            self.scheduler.rebase(self._built_with)
            return
        for group, built in zip(self.optimizer.param_groups, self._built_with, strict=False):
            group.update({k: v for k, v in built.items() if k in group})

    def begin_task(self, task: int, replay: Replay) -> None:
        if self.own is not None:
            self.own.changed = True
        if self.strategies is not None:
            self.strategies.begin_task(task, replay)
        if self.scheduler is not None:
            self.scheduler.begin_task(task, replay)
        begin_task(self.agent, task)
        self.parameters.look()
        self.tasks_begun = task + 1

    def end_task(self, replay: Replay) -> None:
        self.flush(replay)
        if (end := self.traits.end_task) is not None:
            with moved_along(self.agent):
                end(replay)
            self.parameters.look()
        if self.strategies is not None:
            self.strategies.end_task(replay)

    def state_dict(self) -> dict[str, Any]:
        self.parameters.look()
        parts: dict[str, Any] = {
            # One that the module holds is saved with its attributes.
            "optimizer": None if self._held else self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
            "scaler": self.scaler,
            "strategies": self.strategies,
        }
        fields = {}
        if self.optimizer is not None and not self._held:
            fields["optimizer_fields"] = optimizer_fields(self.optimizer, beside=self.agent)
        pending = {}
        if self._pending:
            grads = {n: p.grad for n, p in self.agent.named_parameters() if p.grad is not None}
            pending = {"pending": [self._pending, self.accumulate], "gradients": grads}
        return {
            **pending,
            **fields,
            "steps": self.steps,
            "optimised": self.optimised,
            "tasks_begun": self.tasks_begun,
            "grown": grown(self.agent, self._built, self.tasks_begun),
            "held": self._held_names(),
            "unreached": self.unreached.state_dict(),
            "lr": self.lr,
            "agent": self.agent.state_dict(),
            "attributes": attribute_state(self.agent, self._constructed),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
        }

    def _held_names(self) -> list[list[str | None]] | None:
        """What each group of the optimiser holds, by name."""
        names = {id(p): name for name, p in self.parameters.named.items()}
        return None if self.optimizer is None else held_names(self.optimizer, names)

    def is_finite(self) -> bool:
        """Whether every weight is a number: a gradient can ruin them before the loss tells."""
        # One answer for all: each would be waited for.
        self.parameters.look()
        named = self.parameters.named.values()
        finite = [torch.isfinite(p).all() for p in named if p.requires_grad]
        return not finite or bool(torch.stack(finite).all())

    def load_state_dict(self, state: dict[str, Any], *, but: tuple[str, ...] = ()) -> None:
        """Continue exactly; parts in `but` start anew.

        Raises:
            CheckpointError: If the state is another model's.
        """
        load_weights(
            self.agent,
            state["agent"],
            state["attributes"].get("places"),
            state.get("grown"),
            before=None if self.strategies is None else self.strategies.begin_again,
        )
        self._load_attributes(state)
        self.steps, self.optimised = state["steps"], state["optimised"]
        self._lr = state.get("lr")
        self.tasks_begun = state.get("tasks_begun", 0)  # Since 0.5.0, as are the next two.
        self.parameters.look()
        if "unreached" in state:
            self.unreached.load_state_dict(state["unreached"])
        if self.optimizer is not None and {"held", "optimizer"} <= state.keys() - set(but):
            hold(self.optimizer, state["held"], self.parameters.named)
            self.parameters.use(self.optimizer)
        if self.average is not None:
            self.average.restart()
        self._load_gradients(state)
        if self.own is not None:
            self.own.look()  # One may have come with `begin_task`.
            if (held := self.own.only) is not None and self.optimised:
                self._use(held, held=True)
        for name in ("optimizer", "scheduler", "average", "scaler"):
            part = getattr(self, name)
            if part is None or name in but or name not in state:
                continue
            if name == "optimizer" and self._held:
                continue
            try:
                if isinstance(part, Scheduler):
                    part.load_state_dict(state[name], self.optimizer)
                else:
                    load_part(part, state[name])
                if name == "optimizer":
                    fields = state.get("optimizer_fields", {})
                    load_optimizer_fields(part, fields, beside=self.agent)
            except (ValueError, KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"The checkpoint's {name} does not fit this run's: {error}. Resume with the "
                    "settings it was saved with, or take only its weights: load=PATH."
                ) from error
        if "scheduler" in but and "optimizer" not in but and self.optimizer and not self._held:
            self._schedule_again(self.optimizer)
        if self.strategies is not None and "strategies" in state:
            self.strategies.load_state_dict(state["strategies"])

    def _load_attributes(self, state: dict[str, Any]) -> None:
        """Put back what the model holds beside its weights, and made in `begin_task` if not before."""
        try:
            load_attribute_state(self.agent, state["attributes"])
        except CheckpointError as error:
            if state.get("grown") is not None:  # Then it has begun its tasks again already.
                raise
            try:
                begin_again(self.agent, state.get("tasks_begun", 0))
                load_weights(self.agent, state["agent"], state["attributes"].get("places"))
                load_attribute_state(self.agent, state["attributes"])
            except Exception as second:
                raise error from second

    def _schedule_again(self, optimizer: Optimizer) -> None:
        """Begin this run's schedule, where the saved one has left other rates in the optimiser."""
        for group, built in zip(optimizer.param_groups, self._built_with, strict=False):
            group.pop("initial_lr", None)
            group.update({k: v for k, v in built.items() if k in group})
        if self.scheduler is not None:
            self.scheduler.attach(optimizer)

    def _load_gradients(self, state: dict[str, Any]) -> None:
        """Put back the gradients that wait for their update."""
        self._pending, accumulate = state.get("pending", (0, 1))
        saved = state.get("gradients", {})
        for name, parameter in self.agent.named_parameters():
            if name in saved:
                # Of what each then had of the mean, to what it has now.
                grad = torch.empty_like(parameter).copy_(saved[name])
                parameter.grad = grad.mul_(accumulate / self.accumulate)


def _widened(output: Tensor) -> Tensor:
    """At least float32; values far from zero come as float64, and stay so."""
    return output if output.dtype == torch.float64 else output.float()


def _wrong_loss(agent: nn.Module, loss: Any) -> str:
    name = type(agent).__name__
    if not isinstance(loss, Tensor):
        return (
            f"{name}.learn returned a {type(loss).__name__} ({loss!r:.40}). Return the loss tensor "
            "itself, or None when the model has updated itself."
        )
    if loss.dim() != 0:
        return (
            f"{name}.learn returned a tensor of shape {list(loss.shape)}. Return a scalar loss: "
            "its mean(), for example."
        )
    return (
        f"{name}.learn returned a loss without a graph: nothing to back-propagate. It was detached, "
        "computed under no_grad, or made of no parameter that is trained. Return None when the model "
        "has updated itself."
    )


_SECOND_BACKWARD = (
    "{}.learn returned a loss that was back-propagated already, in this step or through what it keeps of an "
    "earlier one. Return the loss without calling backward (Antelope does, and steps the optimiser), or "
    "update the model in learn and return None; `detach()` what is kept from step to step."
)


def _last_batch(error: BaseException) -> Batch | None:
    """The batch that the failing code was at work on, from its frames."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        for value in traceback.tb_frame.f_locals.values():
            if isinstance(value, Batch):
                found = value
        traceback = traceback.tb_next
    return found
