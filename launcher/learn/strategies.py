"""The strategies of a run, combined into one object with all their hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.continual.context import Context
from ...agents.continual.strategy import Strategy
from ...agents.traits import hook
from ...replay import Batch, ConfigError, Replay, Spec
from ...replay.ranks import ranks
from ..assembly.environment_strategies import versions, works_on_the_loss
from ..record.log import Log
from ..record.state import Constructed, check_object, load_object_state, object_state
from ..settings.warn import warn_caller
from .hooks import HOOKS, own_attributes, says_what_it_owns, signature_of
from .misfits import conflicts, owned, unfit
from .reuse import holds, leftover, told_of_leftovers


class Strategies:
    """Calls the hooks of several strategies in turn.

    Args:
        named: The strategies by name.
        context: What they know of the run.
        borders: Whether the learner knows where tasks end.
        mistakes: Further messages on strategies that do not fit the run.

    Raises:
        ConfigError: If two conflict, or one does not fit the run; lists all such problems.
    """

    def __init__(
        self,
        named: dict[str, Any],
        context: Context,
        *,
        borders: bool = True,
        mistakes: Iterable[str] = (),
    ):
        self.named, self.context, self.agent = named, context, context.agent
        found = [*unfit(named, context, borders=borders), *mistakes, *conflicts(named)]
        if found:
            raise ConfigError("\n".join(found))
        self._returned_a_loss = False
        self.borders = borders
        self._hooks: dict[str, list[tuple[str, Callable[..., Any]]]] = {
            name: [(n, method) for n, s in named.items() if (method := hook(s, name)) is not None]
            for name in HOOKS
        }
        # Whether any strategy has a hook for epochs, and whether an epoch is in progress.
        self._by_epoch = bool(self._hooks["begin_epoch"] or self._hooks["end_epoch"])
        self._in_epoch, self._passes = False, 0
        self._adding: set[str] = set()  # Strategies that have added rows to a batch.
        self._leftover = [(name, s) for name, s in named.items() if leftover(s)]
        context.began |= {id(strategy): None for _, strategy in self._leftover}
        for name, strategy in named.items():
            _set_context(name, strategy, context)
            if isinstance(strategy, Strategy):
                strategy.setup(context.agent)
        self._constructed = {
            name: Constructed(strategy, beside=context.agent) for name, strategy in named.items()
        }
        # Whether the model's parameters had changed by the time the checkpoint was written.
        self._changed_before = False
        self._recalls = any(_states(s, "recalls") for s in named.values())
        idle = not any(self._hooks.values())
        # Whether a learning step involves them. Task-IL needs them to hide other tasks' outputs.
        self.active = not idle or context.scenario == "task"
        if not self.active:
            context.close()  # A hook on the model would slow down every forward.
            self.named, self._leftover = {}, []  # At most `naive`, which keeps nothing.
        # Only with these do predictions differ between knowing the task and not knowing it.
        self.task_aware = any(_states(s, "task_aware") for s in named.values())

    @classmethod
    def none(cls, agent: nn.Module, spec: Spec) -> Strategies:
        """The strategies of a run without any: they change nothing."""
        classes = [torch.arange(0)]
        return cls({}, Context(agent, spec, scenario="domain", classes=classes, learn=_no_loss))

    def open(self) -> None:
        """Hook into the model's forward again, after `close`."""
        if self.active:
            self.context.open()

    def close(self) -> None:
        """Remove all hooks from the model."""
        self.context.close()

    def check_fresh(self) -> None:
        """Check, in a run that is not resumed, that no strategy still holds data of another run.

        Raises:
            ConfigError: If one does.
        """
        errors, warnings = told_of_leftovers(self._leftover)
        if errors:
            raise ConfigError("\n".join(errors))
        for text in warnings:
            warn_caller(text)

    def having(self, name: str) -> list[str]:
        """Names of the strategies that have this hook."""
        return [strategy for strategy, _ in self._hooks[name]]

    @property
    def before_batch(self) -> Callable[[Batch], Batch] | None:
        """All `before_batch` hooks as one function, which returns the batch to learn from; or None."""
        hooks, agent = self._hooks["before_batch"], self.agent
        if not hooks:
            # Asks for whole batches where `learn` gets a part of each, since `after_step` takes whole ones.
            return _unchanged if ranks().several and self._hooks["after_step"] else None
        # Conflicts between declared owners are found at the start.
        silent = {name for name, _ in hooks if not says_what_it_owns(self.named[name])}
        counted = len(hooks) > 1 and bool(silent)

        def before(batch: Batch) -> Batch:
            for name, method in hooks:
                given, batch = batch, method(agent, batch)
                if not isinstance(batch, Batch):
                    raise ConfigError(_returned(name, "before_batch", batch, "the batch"))
                if not len(batch) and len(given):
                    raise ConfigError(
                        f"strategy={name}: before_batch returned a batch without rows, which has no loss."
                    )
                if counted and len(batch) > len(given):
                    self._adds_rows(name, silent)
            return batch

        return before

    def _adds_rows(self, name: str, silent: set[str]) -> None:
        """Record that a strategy adds rows to batches.

        Raises:
            ConfigError: If another one does too, and one of them has not declared it.
        """
        self._adding.add(name)
        for other in self._adding - {name}:
            if silent & {name, other}:
                raise ConfigError(
                    f"strategy={other} and strategy={name} conflict: both add rows to the batch. Choose "
                    f'one of them. (Strategies can declare this in advance: owns = {{"batch"}}.)'
                )

    def loss(self, replay: Replay, log: Log) -> Tensor | None:
        """The model's loss with the strategies' additions, scalar; None if the model updates itself.

        Raises:
            ConfigError: If it updates itself, and a strategy needs its loss.
        """
        if self._by_epoch:
            with ranks().together():  # Of this method, only learning is split among the ranks.
                self.begin_epoch(replay)
        # In environments an agent may wait for more steps, and return None until then.
        waits = self.context.in_environment
        before = versions(self.agent) if waits and not self._returned_a_loss else None
        loss = self.context.step(replay, log)
        self.context.look()
        if loss is None:
            if waits and (self._returned_a_loss or before == versions(self.agent)):
                return None
            for name, strategy in self.named.items():
                if works_on_the_loss(strategy):
                    raise ConfigError(
                        f"strategy={name} works on the loss, and {type(self.agent).__name__}.learn "
                        "returned None: it has updated itself. Return the loss instead."
                    )
                if isinstance(strategy, Strategy) and strategy.needs_optimizer:
                    raise ConfigError(
                        f"strategy={name} adds parameters for the run's optimiser to train, and "
                        f"{type(self.agent).__name__}.learn returned None: it has updated itself. Return "
                        "the loss instead."
                    )
            return None
        self._returned_a_loss = True
        if self._hooks["after_loss"] and isinstance(loss, Tensor) and loss.dim() == 0:
            assert replay.batch is not None
            loss = self.after_loss(replay.batch, loss)
        return loss

    def after_loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss, scalar, with the strategies' additions.

        Raises:
            ConfigError: If a hook does not return a tensor.
        """
        for name, method in self._hooks["after_loss"]:
            loss = method(self.agent, batch, loss)
            if not isinstance(loss, Tensor):  # None would mean a model that updates itself.
                raise ConfigError(_returned(name, "after_loss", loss, "the loss"))
        return loss

    def after_backward(self) -> None:
        """Let the strategies change the gradients, before they are clipped."""
        for _, method in self._hooks["after_backward"]:
            method(self.agent)

    def after_step(self, replay: Replay, *, skipped: bool = False) -> None:
        """End a learning step, and its epoch if that is over too.

        Args:
            skipped: Whether its update was skipped: then no strategy remembers its batch.
        """
        if skipped:
            self.context.stepped()
        else:
            self.stepped(replay.whole)
        if self._by_epoch and self.borders and replay.passes != self._passes:
            self.end_epoch(replay)

    def stepped(self, batch: Batch | None) -> None:
        """Tell the strategies that the learning step of a batch is over."""
        self.context.stepped()
        for _, method in self._hooks["after_step"]:
            method(self.agent, batch)

    def begin_epoch(self, replay: Replay) -> None:
        """Begin an epoch, unless one is in progress; without task boundaries the whole stream is one."""
        self._passes = replay.passes
        if self._in_epoch:
            return
        self._in_epoch = True
        for _, method in self._hooks["begin_epoch"]:
            method(self.agent, replay)

    def end_epoch(self, replay: Replay) -> None:
        """End the current epoch, if any: it is over, or its task is."""
        if not self._in_epoch:
            return
        self._in_epoch = False
        for _, method in self._hooks["end_epoch"]:
            method(self.agent, replay)

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Tell the strategies the metrics of held-out rows, named as in eval.csv."""
        for _, method in self._hooks["after_evaluation"]:
            method(self.agent, dict(metrics))

    def after_flush(self, replay: Replay) -> None:
        """Tell the strategies of an update outside of a learning step, which has a batch of no rows."""
        self.context.stepped()
        if replay.batch is None:
            return
        none = replay.batch[:0]
        for strategy in self.named.values():
            after = hook(strategy, "after_step")
            if after is not None and hook(strategy, "after_backward") is not None:
                after(self.agent, none)

    def begin_task(self, task: int, replay: Replay) -> None:
        """Begin a task, whose rows the replay holds.

        Raises:
            ConfigError: If another run has taken over a strategy.
        """
        self.context.task, began = task, self.context.began
        for name, strategy in self.named.items():
            if strategy.context is not self.context:
                raise ConfigError(
                    f"strategy={name} is an object that another run has taken over since. Construct one for "
                    "each run, or give its class."
                )
            if id(strategy) not in began:
                began[id(strategy)] = holds(strategy, self.agent)
        for _, method in self._hooks["begin_task"]:
            method(self.agent, replay)

    def end_task(self, replay: Replay) -> None:
        """End the current task, while the replay still holds its rows."""
        self.end_epoch(replay)
        for _, method in self._hooks["end_task"]:
            method(self.agent, replay)
        if self._recalls:
            self.context.keep_structure(self.context.task)

    def parameters_changed(self) -> None:
        """Tell the strategies that parameters of the model were added, removed or unfrozen."""
        self.context.changed = True
        for _, method in self._hooks["parameters_changed"]:
            method(self.agent)

    def begin_again(self, task: int) -> None:
        """Begin a task again, on a newly constructed model, that had begun before the run was resumed."""
        self._changed_before = True
        if task and self._recalls:
            self.context.keep_structure(task - 1)

    def predict(self, obs: Tensor, task: int | None) -> Tensor | None:
        """Logits `[B, num_classes]` of the strategy that predicts itself; None if there is none.

        Raises:
            ConfigError: If it returns anything else.
        """
        for name, method in self._hooks["predict"]:
            output = method(self.agent, obs, task)
            if not isinstance(output, Tensor):
                raise ConfigError(_returned(name, "predict", output, "the logits"))
            _check_logits(name, output, obs, self.context.spec)
            return output
        return None

    def owning(self, what: str) -> str | None:
        """The name of the strategy that owns something, such as `batch` or `weights`; or None."""
        return next((name for name, s in self.named.items() if what in owned(s)), None)

    def nbytes(self) -> int:
        """Size in bytes of all tensors that they hold: memories, importances, earlier weights."""
        return sum(_nbytes(state) for state in self.state_dict()["strategies"].values())

    def parameters_used(self) -> dict[str, Any] | None:
        """How many parameters each task so far has for itself, if a strategy counts them."""
        for strategy in self.named.values():
            if isinstance(strategy, Strategy):
                used = strategy.parameters_used(self.agent)
                if used is not None:
                    return used
        return None

    def state_dict(self) -> dict[str, Any]:
        states = {
            name: object_state(s, beside=self.agent, constructed=self._constructed[name])
            for name, s in self.named.items()
        }
        structures = self.context.structures()
        where = {"task": self.context.task, "in_epoch": self._in_epoch}
        predicting = self.having("predict")
        return {
            **where,
            "strategies": states,
            "structures": structures,
            "predicting": predicting,
        }

    @property
    def classes(self) -> list[type]:
        """The classes of the strategies, whose code may give attributes to the model."""
        return [type(strategy) for strategy in self.named.values()]

    def check(self, state: dict[str, Any]) -> None:
        """Check a state against the strategies, none of which is changed.

        Raises:
            CheckpointError: Naming what does not fit.
        """
        for name, strategy in self.named.items():
            check_object(strategy, state["strategies"].get(name), beside=self.agent)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.context.task, self.context.changed = state["task"], self._changed_before
        self._in_epoch = state.get("in_epoch", False)
        if self._recalls:  # The task may have ended just before the checkpoint.
            self.context.keep_structure(self.context.task)
        self.context.check_structures(state.get("structures", {}))
        for name, strategy in self.named.items():
            self.context.began[id(strategy)] = (
                None  # Unequal to any state, so that it counts as used.
            )
            load_object_state(strategy, state["strategies"].get(name), beside=self.agent)


def _states(strategy: object, what: str) -> bool:
    """Whether a strategy sets this to True; in a user's class, any other value has its own meaning."""
    return getattr(strategy, what, False) is True


def _no_loss(replay: Replay, log: Log | None) -> None:
    """Stands for the model's learning step in a context that nothing reads."""


def _unchanged(batch: Batch) -> Batch:
    return batch


def _returned(name: str, method: str, value: object, what: str) -> str:
    """The error for a hook that returns the wrong thing."""
    given = "None" if value is None else f"a {type(value).__name__}"
    return f"strategy={name}: {signature_of(method)} returned {given}. Return {what}."


def _check_logits(name: str, output: Tensor, obs: object, spec: Spec) -> None:
    """Refuse outputs of `predict` that are not logits `[B, num_classes]`.

    Raises:
        ConfigError: With the shape that is expected.
    """
    if not spec.discrete or len(spec.action.shape) != 1 or not isinstance(obs, Tensor):
        return
    if output.dim() != 2 or len(output) != len(obs) or output.shape[1] < spec.action.n:
        raise ConfigError(
            f"strategy={name}: {signature_of('predict')} returned a tensor of shape {list(output.shape)}. "
            f"Return the logits of all {spec.action.n} outputs, {[len(obs), spec.action.n]} for these rows."
        )


def _set_context(name: str, strategy: Any, context: Context) -> None:
    """Set a strategy's attribute `context`.

    Raises:
        ConfigError: If its class allows no such attribute, or uses the name itself.
    """
    kind = type(strategy)
    own = own_attributes(strategy).get("context")
    taken = own is not None and not isinstance(own, Context)
    try:
        if not taken:
            strategy.context = context
            return
    except AttributeError:  # Frozen, or with slots; or a property.
        taken = hasattr(kind, "context") and "context" not in getattr(kind, "__slots__", ())
    todo = (
        "Antelope sets its attribute `context`: rename your own."
        if taken
        else f"Antelope sets its attribute `context`, but {kind.__name__} allows no new ones: write it "
        "without frozen=True and slots."
    )
    raise ConfigError(f"strategy={name}: {todo}")


def _nbytes(state: Any) -> int:
    if isinstance(state, dict):
        return sum(_nbytes(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_nbytes(value) for value in state)
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    return int(getattr(state, "nbytes", 0))
