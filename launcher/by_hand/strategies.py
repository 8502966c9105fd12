"""Continual-learning strategies for a custom training loop, without the launcher."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.continual.context import HIDDEN, Context, evaluating, hidden_outputs
from ...agents.learn_method import learn_method
from ...agents.traits import has_forward
from ...replay import Batch, ConfigError, Replay
from ..assembly.optimisation import may_get_parameters
from ..assembly.strategies import named_strategies
from ..learn.parameters import Parameters
from ..learn.strategies import Strategies as Hooks
from ..record.log import quiet
from ..settings.compose import compose
from ..settings.plan import make_plan
from .tasks import Task, Tasks, TasksSpec, Train

# Which strategies are in the middle of a task with a model.
_AT_WORK: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Strategies]] = (
    weakref.WeakKeyDictionary()
)

_CALLS = {
    "after_loss": "loss = strategies.after_loss(batch, loss) before loss.backward()",
    "after_backward": "strategies.after_backward() between loss.backward() and optimizer.step()",
    "after_step": "strategies.after_step(batch) after optimizer.step()",
}

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _also_as_hook(method: _Call) -> _Call:
    """Let a call have the model first, as the hooks of a strategy do: `after_loss(model, batch, loss)`."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
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
        strategies: Any,
        spec: TasksSpec,
        *,
        optimizer: Optimizer | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        clip_grad: float | None = None,
        seed: int | None = None,
    ):
        _check(model, spec, loss)
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
            context.close()
            raise
        context.pause()  # Outside a task no hooks stay on the model.
        context.clip_grad = clip_grad
        self.context, self._parameters = context, Parameters(model)
        context.look = partial(self._parameters.look, closely=False)
        self._parameters.changed.append(lambda _: self._hooks.parameters_changed())
        self._added = {n for n, p in model.named_parameters() if id(p) not in before}
        self._hidden = hidden_outputs(context.classes, spec) if spec.discrete else None
        self._task: Task | None = None
        self._next = 0  # The number of the task that comes next.
        self._loaded: dict[str, Any] | None = None
        self._sequence: Tasks | None = None  # That of the newest task.
        self._handle: Any = None  # Of the look at each step of the optimiser.
        self._ending = False  # Whether strategies learn on their own, at a task's end.
        self._batch: Batch | None = None  # What is being learnt.
        self._given = self._learnt = 0  # Batches of this task.
        self._done: set[str] = set()  # Of the calls for this batch.
        self._stepped = False
        self._owed: set[int] = set()  # Losses that `after_loss` gave, and no backward has reached.
        self._numbers = itertools.count()
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
        self._check_turn(task)
        if self._loaded is None and not self._next:
            self._hooks.check_fresh()
        if optimizer is not None:
            self._use(optimizer)
        self._check_optimizer()
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
        self._owed.clear()
        if loaded is not None and loaded["in_task"]:
            sequence.replay.before = self._hooks.before_batch
            return
        sequence.begin(task.number)
        sequence.replay.before = self._hooks.before_batch
        self._hooks.begin_task(task.number, sequence.replay)
        self._parameters.look()

    @_also_as_hook
    def begin_epoch(self, replay: Any = None) -> None:
        """Begin a pass over the task's data; only for batches that do not come from `task.train`."""
        self._in_task("begin_epoch")
        self._hooks.begin_epoch(self._replay)

    @_also_as_hook
    def end_epoch(self, replay: Any = None) -> None:
        """End a pass that `begin_epoch` has begun; `task.train` ends its own."""
        self._in_task("end_epoch")
        self._hooks.end_epoch(self._replay)

    @_also_as_hook
    def before_batch(self, batch: Batch) -> Batch:
        """The batch as the strategies process it; for batches that do not come from `task.train`."""
        if self._batch is not None and not self._done:
            if batch is not self._batch:  # The loop has changed it: moved, or augmented.
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
        given = _Given(batch, self._replay)
        loss = self._hooks.loss(given, None)  # type: ignore[arg-type]
        if loss is not None and not (isinstance(loss, Tensor) and loss.dim() == 0):
            what = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(
                f"{type(self.model).__name__}.learn must return a scalar loss tensor, not {what}."
            )
        self._done |= {"after_loss"} if loss is not None else {"after_loss", "after_backward"}
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
        self._done.add("after_loss")
        if not self._hooks.having("after_loss"):
            return loss
        total = self._hooks.after_loss(batch, loss)
        if total.requires_grad:
            # Another tensor than the one that was given, whose gradient tells that it was used.
            total = total.clone() if total is loss else total
            self._owed.add(total_id := next(self._numbers))
            total.register_hook(lambda _: self._owed.discard(total_id))
        return total

    @_also_as_hook
    def after_backward(self) -> None:
        """Call after `backward`, before gradients are clipped and the optimiser steps."""
        self._at("after_backward")
        self._need("after_loss")
        if all(parameter.grad is None for parameter in self.model.parameters()):
            raise ConfigError(
                "after_backward: no parameter has a gradient. Call it between loss.backward() and "
                "optimizer.step()."
            )
        self.context.watch(None)
        self._hooks.after_backward()
        self._done.add("after_backward")

    @_also_as_hook
    def after_step(self, batch: Batch | None = None) -> None:
        """Call after the optimiser step; when accumulating gradients, after each batch."""
        self._at("after_step", batch)
        self._need("after_loss")
        if self.context.optimizer is None or self._stepped:
            self._need("after_backward")
            self._check_backward()
        self.context.watch(None)
        self._hooks.stepped(self._batch if batch is None else batch)
        self._batch, self._done, self._stepped = None, set(), False
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
        if self._batch is not None or (self._given and not self._learnt):
            raise ConfigError(self._unfinished())
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
            output = self.model(obs) if output is None else output
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
        if self._batch is not None:
            raise ConfigError(
                "state_dict() is not available in the middle of a step. Call it after after_step(batch)."
            )
        if self._loaded is not None:
            return _without_arrays(self._loaded)
        state = {
            "task": self._next if self._task is None else self._task.number,
            "in_task": self._task is not None,
            "hooks": self._hooks.state_dict(),
            "tasks": None if self._sequence is None else self._sequence.state_dict(),
        }
        return _without_arrays(state)

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
        state = _with_arrays(state)
        self._parameters.look()
        self._hooks.load_state_dict(state["hooks"])
        self._next, self._loaded = state["task"], state

    # ------------------------------------------------------------------ told by `task.train`

    def pass_begins(self) -> None:
        self._hooks.begin_epoch(self._replay)

    def pass_ends(self) -> None:
        if self._batch is not None:
            raise ConfigError(self._unfinished())
        self._hooks.end_epoch(self._replay)

    def batch_given(self, batch: Batch) -> None:
        if self._batch is not None:
            raise ConfigError(self._unfinished())
        self._given += 1
        self._learn_from(batch)

    def _learn_from(self, batch: Batch) -> None:
        self._batch = batch
        self.context.watch(_Given(batch, self._replay))

    def batch_dropped(self) -> None:
        """The loop ended with an unused batch."""
        if self._batch is not None and not self._done and self._learnt:
            self._batch = None
            self.context.watch(None)

    # ------------------------------------------------------------------------- what is wrong

    @property
    def _replay(self) -> Replay:
        assert self._task is not None
        return self._task.sequence.replay

    def _check_turn(self, task: Any) -> None:
        if not isinstance(task, Task):
            raise ConfigError(
                "begin_task needs a task from antelope.tasks(...), as in `for task in tasks: "
                f"strategies.begin_task(task)`, not {_short(task)}. For your own data, use "
                "antelope.tasks([(x, y), (x, y)])."
            )
        if self._task is not None:
            raise ConfigError(
                f"Task {self._task.number} has not ended. Call end_task(task) before the next one."
            )
        if _tasks_of(task.sequence.spec) != _tasks_of(self.spec):
            raise ConfigError(
                "begin_task: the task comes from other tasks than the spec that Strategies was "
                "constructed with."
            )
        if self._next < 0:
            raise ConfigError(
                "These strategies were left in the middle of a task, and others have the model now. "
                "Construct Strategies again."
            )
        if task.number != self._next:
            raise ConfigError(
                f"Tasks must be learnt in order: task {self._next} comes next, not task {task.number}. To "
                "start over, construct Strategies again."
            )

    def _check_optimizer(self) -> None:
        optimizer = self.context.optimizer
        if optimizer is None:
            for name, strategy in self._hooks.named.items():
                if getattr(strategy, "needs_optimizer", False) is True:
                    raise ConfigError(
                        f"strategy={name} needs the optimiser. Pass it: begin_task(task, optimizer)."
                    )
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = dict(self.model.named_parameters())
        if isinstance(optimizer, torch.optim.LBFGS):
            for name in (*self._hooks.having("after_loss"), *self._hooks.having("after_backward")):
                raise ConfigError(
                    f"LBFGS computes the loss several times in a step, and strategy={name} works on it once. "
                    "Choose another optimiser."
                )
        if left := [n for n in self._added if n in named and id(named[n]) not in held]:
            raise ConfigError(
                f"The optimiser does not hold `{sorted(left)[0]}`, which a strategy has added to the model. "
                "Construct the optimiser after Strategies(...)."
            )
        for name, strategy in self._hooks.named.items():
            needs = getattr(strategy, "needs_optimizer", False) is True
            other = [n for n, p in named.items() if p.requires_grad and id(p) not in held]
            if needs and other and len(other) < len(named):
                raise ConfigError(
                    f"strategy={name} works on the optimiser, and this one does not hold `{other[0]}`. One "
                    "optimiser has to hold all that is trained; what is not, freeze: requires_grad_(False)."
                )
        if named and not held & {id(parameter) for parameter in named.values()}:
            raise ConfigError("The optimiser holds none of the model's parameters.")

    def _let_go(self) -> None:
        """Take back all that is on the model and the optimiser, in the middle of a task that will not end.

        So does another `Strategies` for the same model, as where a notebook's cell is run again.
        """
        if self._task is None:
            return
        sequence, self._task = self._task.sequence, None
        if sequence.listener is self:
            sequence.listener = sequence.replay.before = None
        self._batch, self._done = None, set()
        self._next = -1  # No task comes next.
        self.context.close()
        if self._handle is not None:
            self._handle.remove()

    def _use(self, optimizer: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}, not a torch.optim.Optimizer."
            )
        self.context.optimizer = optimizer

    def _steps(self, *_: Any) -> None:
        """The optimiser is about to step: of a batch that has had all its calls before."""
        if self._ending:
            return
        if self._batch is None:
            if self._hooks.having("after_backward"):
                raise ConfigError(
                    "optimizer.step() was called without a batch to learn. It belongs between "
                    "strategies.after_backward() and strategies.after_step(batch)."
                )
            return
        self._need("after_loss")
        self._need("after_backward")
        self._check_backward()
        self._stepped = True

    def _in_task(self, call: str) -> None:
        if self._task is None:
            raise ConfigError(f"{call}: no task has begun. Call begin_task(task) first.")

    def _at(self, call: str, batch: Any = None) -> None:
        """A call for the current batch, each once."""
        self._in_task(call)
        if batch is not None and not isinstance(batch, Batch):
            raise ConfigError(
                f"{call} needs a Batch from task.train, not a {type(batch).__name__}."
            )
        if self._batch is None:
            raise ConfigError(
                f"{call}: there is no batch to learn. Take it from task.train, and call after_step(batch) "
                "last; pass a batch from elsewhere through before_batch(batch)."
            )
        if batch is not None and batch is not self._batch and len(batch) < len(self._batch):
            raise ConfigError(
                f"{call}: this batch has {len(batch)} rows, but the strategies made one of "
                f"{len(self._batch)} rows from it. Learn from that one: batch = "
                "strategies.before_batch(batch)."
            )
        if ("after_loss" if call == "loss" else call) in self._done:
            twice = (
                " (strategies.loss already includes what the strategies add)"
                if call == "after_loss"
                else ""
            )
            raise ConfigError(f"{call} was called twice for one batch{twice}.")

    def _need(self, call: str) -> None:
        if call in self._done or not self._hooks.having(call):
            return
        names = " and ".join(self._hooks.having(call))
        more = ""
        if call == "after_backward" and self.context.optimizer is None:
            more = (
                " To accumulate gradients over batches, pass the optimiser: begin_task(task, "
                "optimizer)."
            )
        raise ConfigError(f"strategy={names} needs {call}. Write {_CALLS[call]}.{more}")

    def _check_backward(self) -> None:
        if self._owed:
            self._owed.clear()
            raise ConfigError(
                "The loss that strategies.after_loss returned was not back-propagated, so what the "
                f"strategies added to it is lost. Write {_CALLS['after_loss']}."
            )

    def _unfinished(self) -> str:
        for call in ("after_loss", "after_backward"):
            if call not in self._done and self._hooks.having(call):
                return f"A batch was not learnt completely: {call} was not called. Write {_CALLS[call]}."
        return (
            f"A batch was not learnt completely: after_step was not called. Write {_CALLS['after_step']}. "
            "To look at rows without learning them, use task.train.once()."
        )


class _Given:
    """The replay as one step of the loop sees it, whose batch is the one already drawn."""

    def __init__(self, batch: Batch, replay: Replay):
        self.batch, self._replay, self._drawn = batch, replay, False

    def __iter__(self) -> _Given:
        return self

    def __next__(self) -> Batch:
        if self._drawn:
            raise ConfigError(
                "learn draws several batches per step, but strategies.loss(batch) has only one. Train "
                "such a model with ml(...)."
            )
        self._drawn = True
        return self.batch

    def __len__(self) -> int:
        return len(self._replay)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replay, name)


_ARRAY = "numpy array"


def _without_arrays(state: Any) -> Any:
    """A state with tensors for its arrays, which `torch.load` reads without running code."""
    if isinstance(state, np.ndarray) and state.dtype.kind in "biuf":
        return {_ARRAY: torch.from_numpy(np.array(state))}
    return _each(_without_arrays, state)


def _with_arrays(state: Any) -> Any:
    if isinstance(state, dict) and state.keys() == {_ARRAY}:
        return state[_ARRAY].numpy()
    return _each(_with_arrays, state)


def _each(function: Callable[[Any], Any], state: Any) -> Any:
    if isinstance(state, dict):
        return {key: function(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(function(value) for value in state)
    return state


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, (int, str)) else f"a {type(value).__name__}"


def _leave(model: nn.Module) -> None:
    """Let strategies that another loop was left with, by an error or an interruption, let go of the model."""
    if (reference := _AT_WORK.pop(model, None)) is not None and (
        earlier := reference()
    ) is not None:
        earlier._let_go()


def _tasks_of(spec: TasksSpec) -> tuple[Any, ...]:
    """What must be equal between the tasks that strategies were constructed for and those they receive."""
    return spec.scenario, spec.classes, str(spec)


def _learn(model: nn.Module, loss: Callable[..., Tensor], replay: Any, log: Any) -> Tensor:
    batch = next(replay)
    return loss(model(batch.obs), batch.label)


def _check(model: Any, spec: Any, loss: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"Strategies needs a torch.nn.Module, not {model!r:.60}.")
    if not isinstance(spec, (TasksSpec, Tasks)):
        raise ConfigError(
            "Strategies needs `tasks.spec` from antelope.tasks(...), which holds the tasks' classes, not "
            f"a {type(spec).__name__}."
        )
    if loss is not None and not callable(loss):
        raise ConfigError(
            f"loss is a {type(loss).__name__}; it must be callable as loss(output, label)."
        )
    if loss is None and not has_forward(model) and not hasattr(model, "learn"):
        raise ConfigError(f"{type(model).__name__} has no forward and no learn.")
    if not any(True for _ in model.parameters()) and not may_get_parameters(model):
        raise ConfigError(f"{type(model).__name__} has no parameters to train.")
