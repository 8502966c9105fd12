"""Continual-learning strategies for a custom training loop, without the launcher."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...agents.calling import call, output_of
from ...agents.continual.context import HIDDEN, Context, evaluating, hidden_outputs
from ...agents.learn_method import learn_method
from ...replay import Batch, ConfigError, Replay
from ..assembly.strategies import named_strategies
from ..learn.parameters import Parameters
from ..learn.strategies import Strategies as Hooks
from ..record.log import quiet
from ..settings.compose import compose
from ..settings.plan import make_plan
from .calls import Calls
from .checks import check_arguments, check_optimizer, check_turn
from .one_batch import OneBatch
from .saved_arrays import with_arrays, without_arrays
from .tasks import Task, Tasks, TasksSpec, Train

# The strategies that are in the middle of a task, by model: a second set must not run beside them.
_AT_WORK: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Strategies]] = (
    weakref.WeakKeyDictionary()
)

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _also_as_hook(method: _Call) -> _Call:
    """Accept the model as first argument, as hooks of strategies do: `after_loss(model, batch, loss)`."""

    @wraps(method)
    def call(self: Strategies, *args: object, **kwargs: object) -> Any:
        model_first = bool(args) and args[0] is self.model
        return method(self, *args[model_first:], **kwargs)

    return cast(_Call, call)


class Strategies:
    """One or more strategies, for a training loop written by the caller.

        tasks = antelope.tasks("Digits", tasks=5)
        strategies = antelope.Strategies(model, ["er", EWC(importance=1e3)], tasks.spec)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for task in tasks:
            strategies.begin_task(task, optimizer)
            for batch in task.train:
                loss = strategies.after_loss(batch, F.cross_entropy(model(batch.obs), batch.label))
                optimizer.zero_grad()
                loss.backward()
                strategies.after_backward()
                optimizer.step()
                strategies.after_step(batch)
            strategies.end_task(task)

    `task.train` yields batches that the strategies have processed. `ml` makes the same calls in the same
    order: with the same seeds and arithmetic the weights are identical to the bit. If a call that a
    strategy needs is missing, the next call raises an error. As in a strategy's hooks, the model may come
    first: `strategies.after_loss(model, batch, loss)`.

    Args:
        model: The module to train, already on its device and with all its layers.
        strategies: As for `strategy=`: a name, a class, an object, `{"_target_": "er", "capacity": 100}`,
            or a list of them.
        spec: `tasks.spec`.
        optimizer: The model's optimiser; may be passed to `begin_task` instead. Required by `cwr`, `pnn`
            and `packnet`; if given, the order of calls is checked at each of its steps. Construct it after
            this object: strategies may add parameters to the model.
        loss: `loss(output, label)`, for strategies that compute losses themselves (`gem`, `agem`, `derpp`,
            `gdumb`, `packnet`); default: the model's `learn`, else cross-entropy, or for
            values the squared error over their variance.
        clip_grad: Maximum gradient norm in the strategies' own training; the loop clips its own.
        seed: Seeds the strategies' random streams; default: the seed of the tasks.

    Raises:
        ConfigError: If a strategy is unknown or does not fit, or two conflict.
    """

    def __init__(
        self,
        model: nn.Module,
        strategies: object,
        spec: TasksSpec,
        *,
        optimizer: Optimizer | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        clip_grad: float | None = None,
        seed: int | None = None,
    ):
        check_arguments(model, spec, loss)
        _leave(model)
        spec = spec.spec if isinstance(spec, Tasks) else spec
        self.model, self.spec = model, spec
        first = next(iter((*model.parameters(), *model.buffers())), torch.empty(0))
        before = {id(parameter) for parameter in model.parameters()}
        none = strategies is None or (isinstance(strategies, (list, tuple)) and not strategies)
        settings = compose([], {} if none else {"strategy": strategies})
        named = named_strategies(make_plan(settings), spec, first.device)
        own = None if loss is None else partial(_learn, model, loss)
        context = Context(
            model,
            spec,
            scenario=spec.scenario,
            classes=[torch.tensor(index, dtype=torch.int64) for index in spec.classes],
            learn=quiet(own or learn_method(model, spec, supervised=True)),
            device=first.device,
            seed=spec.seed if seed is None else seed,
        )
        try:
            self._hooks = Hooks(named, context)
        except BaseException:
            context.close()  # Hooks that some strategies have set must not stay on the model.
            raise
        context.pause()  # Outside a task no hooks stay on the model.
        context.clip_grad = clip_grad
        self.context, self._parameters = context, Parameters(model)
        context.look = partial(self._parameters.look, closely=False)
        self._parameters.changed.append(lambda _: self._hooks.parameters_changed())
        self._added = {n for n, p in model.named_parameters() if id(p) not in before}
        self._hidden = hidden_outputs(context.classes, spec) if spec.has_classes else None
        self._task: Task | None = None
        self._next = 0  # Number of the next task.
        self._loaded: dict[str, Any] | None = None
        self._sequence: Tasks | None = None  # The sequence of the newest task.
        self._handle: RemovableHandle | None = (
            None  # Of the hook that checks each step of the optimiser.
        )
        self._ending = False  # Whether strategies train by themselves at a task's end.
        self._given = self._learnt = 0  # Batches of this task.
        self._calls = Calls(self._hooks, context)
        if optimizer is not None:
            self._use(optimizer)

    @_also_as_hook
    def begin_task(self, task: Task | Train, optimizer: Optimizer | None = None) -> None:
        """Begin a task before its first batch, or continue it after `load_state_dict`.

        Args:
            task: A task from `antelope.tasks(...)`, in order, or its `train`.
            optimizer: The model's optimiser from now on; None keeps the current one, if any.
        """
        task = task.task if isinstance(task, Train) else task
        check_turn(task, running=self._task, following=self._next, spec=self.spec)
        if self._loaded is None and not self._next:
            self._hooks.check_fresh()
        if optimizer is not None:
            self._use(optimizer)
        check_optimizer(self.context.optimizer, self.model, self._hooks, self._added)
        sequence, context = task.sequence, self.context
        if sequence.replay.device.type != context.device.type:
            raise ConfigError(
                f"Batches are on {sequence.replay.device}, but the model is on {context.device}. Pass "
                f"device='{context.device}' to antelope.tasks."
            )
        transform: Any = sequence.replay.transform
        context.use_augmentation(transform.augment_again if transform.augment is not None else None)
        loaded, self._loaded = self._loaded, None
        if loaded is not None and loaded["tasks"] is not None:
            sequence.load_state_dict(loaded["tasks"])
        _leave(self.model)
        _AT_WORK[self.model] = weakref.ref(self)
        context.open()
        if context.optimizer is not None:
            self._handle = context.optimizer.register_step_pre_hook(self._steps)
        sequence.listener, self._sequence = self, sequence
        self._task, self._given, self._learnt = task, 0, 0
        self._calls.begin_task()
        if loaded is not None and loaded["in_task"]:
            sequence.replay.before = self._hooks.before_batch
            return
        sequence.begin(task.number)
        sequence.replay.before = self._hooks.before_batch
        self._hooks.begin_task(task.number, sequence.replay)
        self._parameters.look()

    @_also_as_hook
    def begin_epoch(self, replay: Replay | None = None) -> None:
        """Begin a pass over the task's data; only for batches that do not come from `task.train`."""
        self._in_task("begin_epoch")
        self._hooks.begin_epoch(self._replay)

    @_also_as_hook
    def end_epoch(self, replay: Replay | None = None) -> None:
        """End a pass that `begin_epoch` has begun; `task.train` ends its own."""
        self._in_task("end_epoch")
        self._hooks.end_epoch(self._replay)

    @_also_as_hook
    def before_batch(self, batch: Batch) -> Batch:
        """The batch as the strategies process it; for batches that do not come from `task.train`."""
        if self._calls.batch is not None and not self._calls.done:
            if batch is not self._calls.batch:  # The loop has moved or augmented it.
                self._learn_from(batch)
            return batch
        self._in_task("before_batch")
        before = self._hooks.before_batch
        batch = batch if before is None else before(batch)
        self.batch_given(batch)
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """The model's own loss of the batch, with what the strategies add to it.

        Returns None if the model updates itself in `learn`; call `after_step` next.
        """
        self._at("loss", batch)
        given = OneBatch(batch, self._replay)
        loss = self._hooks.loss(given, None)  # type: ignore[arg-type]
        if loss is not None and not (isinstance(loss, Tensor) and loss.dim() == 0):
            what = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(
                f"{type(self.model).__name__}.learn must return a scalar loss tensor, not {what}."
            )
        self._calls.done |= {"after_loss"} if loss is not None else {"after_loss", "after_backward"}
        return loss  # type: ignore[return-value]  # Most loops would have to rule None out.

    @_also_as_hook
    def after_loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss to back-propagate: `loss` plus what the strategies add."""
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            what = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"after_loss(batch, loss) needs a scalar loss tensor, not {what}.")
        self._at("after_loss", batch)
        self._parameters.look(closely=False)
        self.context.watch(None)
        self._calls.done.add("after_loss")
        if not self._hooks.having("after_loss"):
            return loss
        total = self._hooks.after_loss(batch, loss)
        if total.requires_grad:
            return self._calls.owe_backward(total, loss)
        return total

    @_also_as_hook
    def after_backward(self) -> None:
        """Call after `backward`, before gradients are clipped and the optimiser steps."""
        self._at("after_backward")
        self._calls.need("after_loss")
        if all(parameter.grad is None for parameter in self.model.parameters()):
            raise ConfigError(
                "after_backward: no parameter has a gradient. Call it between loss.backward() and "
                "optimizer.step()."
            )
        self.context.watch(None)
        self._hooks.after_backward()
        self._calls.done.add("after_backward")

    @_also_as_hook
    def after_step(self, batch: Batch | None = None) -> None:
        """Call after the optimiser step; when accumulating gradients, after each batch."""
        self._at("after_step", batch)
        self._calls.need("after_loss")
        if self.context.optimizer is None or self._calls.stepped:
            self._calls.need("after_backward")
            self._calls.check_backward()
        self.context.watch(None)
        self._hooks.stepped(self._calls.batch if batch is None else batch)
        self._calls.end_batch()
        self._learnt += 1

    @_also_as_hook
    def end_task(self, task: Task | Train | None = None) -> None:
        """Call after a task's last batch. Some strategies train here: `gdumb`, `packnet`."""
        self._in_task("end_task")
        assert self._task is not None
        task = task.task if isinstance(task, Train) else task
        if task is not None and task.number != self._task.number:
            raise ConfigError(
                f"end_task: the current task is {self._task.number}, not {task.number}."
            )
        if self._calls.batch is not None or (self._given and not self._learnt):
            raise self._calls.unfinished()
        sequence = self._task.sequence
        self._parameters.look()
        self._ending = True
        self._hooks.end_task(sequence.replay)
        self._ending = False
        self._next, self._task = self._task.number + 1, None
        sequence.listener = sequence.replay.before = None
        self.context.pause()
        if self._handle is not None:
            self._handle.remove()

    @_also_as_hook
    def predict(self, obs: Tensor, task: Task | int | None = None) -> Tensor:
        """Logits or values `[B, *action.shape]`, in evaluation mode and without gradient.

        Args:
            task: The task of the rows, whose outputs alone then compete (task-IL); None: all compete
                (class-IL).
        """
        number = task.number if isinstance(task, Task) else task
        if number is not None and not 0 <= number < len(self.context.classes):
            raise ConfigError(
                f"predict: task={number!r}; tasks are numbered 0 to {len(self.context.classes) - 1}."
            )
        with self.context.unwatched(), evaluating(self.model), torch.no_grad():
            output = self._hooks.predict(obs, number)
            output = call(self.model, obs) if output is None else output
        if number is None or self._hidden is None:
            return output
        return output.masked_fill(self._hidden[number].to(output.device), HIDDEN)

    @_also_as_hook
    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Pass held-out metrics to strategies that have this hook."""
        self._hooks.after_evaluation(metrics)

    def state_dict(self) -> dict[str, Any]:
        """The state of strategies and tasks needed to continue exactly, between two steps.

        Save the model, the optimiser and torch's random stream separately. Tensors are references, not
        copies; `torch.save` can write the result.
        """
        if self._calls.batch is not None:
            raise ConfigError(
                "state_dict() is not available in the middle of a step. Call it after after_step(batch)."
            )
        if self._loaded is not None:
            return without_arrays(self._loaded)
        state = {
            "task": self._next if self._task is None else self._task.number,
            "in_task": self._task is not None,
            "hooks": self._hooks.state_dict(),
            "tasks": None if self._sequence is None else self._sequence.state_dict(),
        }
        return without_arrays(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state into new `Strategies`, whose model already has its weights restored.

        Then call `begin_task` with task number `state["task"]`; if the state was saved in the middle of it,
        `task.train` continues with the rest of the pass.
        """
        if self._task is not None or self._next:
            raise ConfigError(
                "load_state_dict needs new Strategies, and these have already learnt. Construct them "
                "again."
            )
        state = with_arrays(state)
        self._parameters.look()
        self._hooks.load_state_dict(state["hooks"])
        self._next, self._loaded = state["task"], state

    # --------------------------------------------------------------- called by `task.train`

    def pass_begins(self) -> None:
        self._hooks.begin_epoch(self._replay)

    def pass_ends(self) -> None:
        if self._calls.batch is not None:
            raise self._calls.unfinished()
        self._hooks.end_epoch(self._replay)

    def batch_given(self, batch: Batch) -> None:
        if self._calls.batch is not None:
            raise self._calls.unfinished()
        self._given += 1
        self._learn_from(batch)

    def _learn_from(self, batch: Batch) -> None:
        self._calls.batch = batch
        self.context.watch(OneBatch(batch, self._replay))

    def batch_dropped(self) -> None:
        """The loop ended with an unused batch."""
        if self._calls.batch is not None and not self._calls.done and self._learnt:
            self._calls.batch = None
            self.context.watch(None)

    @property
    def _replay(self) -> Replay:
        assert self._task is not None
        return self._task.sequence.replay

    def _in_task(self, call: str) -> None:
        if self._task is None:
            raise ConfigError(f"{call}: no task has begun. Call begin_task(task) first.")

    def _at(self, call: str, batch: object = None) -> None:
        """A call for the current batch, each once."""
        self._in_task(call)
        self._calls.check(call, batch)

    def _let_go(self) -> None:
        """Remove all hooks from the model and the optimiser, in the middle of a task that will not end.

        A new `Strategies` for the same model calls it, for example when a notebook cell is run again.
        """
        if self._task is None:
            return
        sequence, self._task = self._task.sequence, None
        if sequence.listener is self:
            sequence.listener = sequence.replay.before = None
        self._calls.end_batch()
        self._next = -1  # No task comes next.
        self.context.close()
        if self._handle is not None:
            self._handle.remove()

    def _use(self, optimizer: object) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}, not a torch.optim.Optimizer."
            )
        self.context.optimizer = optimizer

    def _steps(self, *_: object) -> None:
        """Before the optimiser steps: check that the batch has had all earlier calls."""
        if self._ending:
            return
        if self._calls.batch is None:
            if self._hooks.having("after_backward"):
                raise ConfigError(
                    "optimizer.step() was called without a batch to learn. It belongs between "
                    "strategies.after_backward() and strategies.after_step(batch)."
                )
            return
        self._calls.need("after_loss")
        self._calls.need("after_backward")
        self._calls.check_backward()
        self._calls.stepped = True


def _leave(model: nn.Module) -> None:
    """Detach strategies from the model that an earlier loop left there, after an error or interruption."""
    if (reference := _AT_WORK.pop(model, None)) is not None and (
        earlier := reference()
    ) is not None:
        earlier._let_go()


def _learn(model: nn.Module, loss: Callable[..., Tensor], replay: Replay, log: object) -> Tensor:
    batch = next(replay)
    return loss(output_of(model, batch), batch.label)
