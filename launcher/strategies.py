"""The strategies of a run, as the learner meets them: one thing with all their hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..agents.continual.context import Context
from ..replay import Batch, ConfigError, Replay
from .attributes import Constructed, load_object_state, object_state
from .log import Log

HOOKS = (
    "begin_task",
    "end_task",
    "before_batch",
    "after_loss",
    "after_backward",
    "after_step",
    "predict",
)

_WHY = {
    "batch": "both add rows of a memory of their own to what is learnt",
    "loss": "both replace the model's loss",
    "gradient": "both change the gradient, and the second would undo the first",
    "output": "both decide how the outputs are read",
    "weights": "both say which weights belong to which task",
    "data": "both decide which data is learnt",
}


class Strategies:
    """Calls the hooks of several strategies in turn.

    Args:
        named: The strategies by the names they were asked for.
        borders: Whether the learner is told where tasks end.

    Raises:
        ConfigError: If two conflict, or one does not fit the run: all of it at once.
    """

    def __init__(self, named: dict[str, Any], context: Context, *, borders: bool = True):
        self.named, self.context, self.agent = named, context, context.agent
        if mistakes := [*_unfit(named, context, borders=borders), *_conflicts(named)]:
            raise ConfigError("\n".join(mistakes))
        self._hooks: dict[str, list[Callable[..., Any]]] = {
            hook: [getattr(s, hook) for s in named.values() if callable(getattr(s, hook, None))]
            for hook in HOOKS
        }
        for strategy in named.values():
            strategy.context = context
            if callable(setup := getattr(strategy, "setup", None)):
                setup(context.agent)
        self._constructed = {
            name: Constructed(strategy, beside=context.agent) for name, strategy in named.items()
        }
        self.idle = not any(self._hooks.values())
        # An evaluation without and with the task told are two only for these.
        self.task_aware = any(getattr(s, "task_aware", False) for s in named.values())

    @property
    def before_batch(self) -> Callable[[Batch], Batch] | None:
        """What is done to every batch, or None."""
        hooks, agent = self._hooks["before_batch"], self.agent
        if not hooks:
            return None

        def before(batch: Batch) -> Batch:
            for hook in hooks:
                batch = hook(agent, batch)
            return batch

        return before

    def loss(self, replay: Replay, log: Log) -> Tensor | None:
        """The model's loss with what the strategies add to it; None if it updates itself.

        Raises:
            ConfigError: If it updates itself, and a strategy needs its loss.
        """
        loss = self.context.step(replay, log)
        if loss is None:
            for name, strategy in self.named.items():
                if hasattr(strategy, "after_loss") or hasattr(strategy, "after_backward"):
                    raise ConfigError(
                        f"strategy={name} works on the loss, and {type(self.agent).__name__}.learn "
                        "returned None: it has updated itself. Return the loss instead."
                    )
            return None
        if self._hooks["after_loss"] and isinstance(loss, Tensor) and loss.dim() == 0:
            batch = replay.batch
            for hook in self._hooks["after_loss"]:
                loss = hook(self.agent, batch, loss)
        return loss

    def after_backward(self) -> None:
        for hook in self._hooks["after_backward"]:
            hook(self.agent)

    def after_step(self, replay: Replay) -> None:
        self.context.stepped()
        for hook in self._hooks["after_step"]:
            hook(self.agent, replay.batch)

    def after_flush(self, replay: Replay) -> None:
        """After an update that no learning step belongs to: no rows have come with it."""
        self.context.stepped()
        if replay.batch is None:
            return
        none = replay.batch[:0]
        for strategy in self.named.values():
            if hasattr(strategy, "after_backward") and hasattr(strategy, "after_step"):
                strategy.after_step(self.agent, none)

    def begin_task(self, task: int, replay: Replay) -> None:
        self.context.task = task
        for hook in self._hooks["begin_task"]:
            hook(self.agent, replay)

    def end_task(self, replay: Replay) -> None:
        for hook in self._hooks["end_task"]:
            hook(self.agent, replay)

    def predict(self, obs: Tensor, task: int | None) -> Tensor | None:
        """Logits of the strategy that has its own way; None where none has."""
        for hook in self._hooks["predict"]:
            output: Tensor = hook(self.agent, obs, task)
            return output
        return None

    def owning(self, what: str) -> str | None:
        """The name of the strategy that takes something for itself, or None."""
        return next((name for name, s in self.named.items() if what in _owned(s)), None)

    def nbytes(self) -> int:
        """Bytes of all tensors that they hold: memories, importances, earlier weights."""
        return sum(_nbytes(state) for state in self.state_dict()["strategies"].values())

    def parameters_used(self) -> dict[str, Any] | None:
        """How many parameters each task so far has for itself, where a strategy says so."""
        for strategy in self.named.values():
            if callable(used := getattr(strategy, "parameters_used", None)):
                found: dict[str, Any] = used(self.agent)
                return found
        return None

    def state_dict(self) -> dict[str, Any]:
        states = {
            name: object_state(s, beside=self.agent, constructed=self._constructed[name])
            for name, s in self.named.items()
        }
        return {"task": self.context.task, "strategies": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.context.task = state["task"]
        for name, strategy in self.named.items():
            load_object_state(strategy, state["strategies"].get(name), beside=self.agent)


def _unfit(named: dict[str, Any], context: Context, *, borders: bool) -> Iterable[str]:
    """What each of the strategies needs and does not get in this run."""
    name_of_agent = type(context.agent).__name__
    for name, strategy in named.items():
        if not any(callable(getattr(strategy, hook, None)) for hook in HOOKS) and name != "naive":
            yield f"strategy={name} has none of the hooks of a strategy: {', '.join(HOOKS)}."
        if getattr(strategy, "needs_borders", False) and not borders:
            yield (
                f"strategy={name} must know where a task ends, which online=true does not tell. "
                "Without borders work er, er_ace, der, derpp, agem and the like."
            )
        of_the_loss = hasattr(strategy, "after_loss") or hasattr(strategy, "after_backward")
        if of_the_loss and getattr(context.agent, "learns_by", "learn") == "observe":
            yield (
                f"strategy={name} works on the loss, and {name_of_agent}.observe keeps it to itself. Return "
                "it from a `learn` instead."
            )
        scenarios = getattr(strategy, "scenarios", (context.scenario,))
        if context.scenario not in scenarios:
            yield (
                f"strategy={name} is for scenario={' or '.join(scenarios)}, this run has "
                f"scenario={context.scenario}."
            )
        if getattr(strategy, "needs_classes", False) and not context.spec.discrete:
            yield f"strategy={name} is for classes, and the targets of this run are values."
        if (
            getattr(strategy, "needs_forward", False)
            and type(context.agent).forward is nn.Module.forward
        ):
            yield f"strategy={name} calls the model, and {name_of_agent} has no `forward`."


def _conflicts(named: dict[str, Any]) -> Iterable[str]:
    items = list(named.items())
    for i, (name, strategy) in enumerate(items):
        for other, second in items[i + 1 :]:
            if shared := _owned(strategy) & _owned(second):
                what = next(key for key in _WHY if key in shared)
                yield f"strategy={name} and strategy={other} conflict: {_WHY[what]}. Choose one of them."


def _owned(strategy: Any) -> set[str]:
    reads_outputs = {"output"} if hasattr(strategy, "predict") else set()
    return set(getattr(strategy, "owns", ())) | reads_outputs


def _nbytes(state: Any) -> int:
    if isinstance(state, dict):
        return sum(_nbytes(value) for value in state.values())
    if isinstance(state, (list, tuple)):
        return sum(_nbytes(value) for value in state)
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    return int(getattr(state, "nbytes", 0))
