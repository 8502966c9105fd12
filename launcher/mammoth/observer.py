"""Trains a class that has `observe(inputs, labels, not_aug_inputs, epoch=None)` like any other model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ...agents.continual.layers import put_together
from ...agents.traits import Traits, hook
from ...replay import ConfigError, Replay, Spec, Table
from ..record.log import Log
from .methods import ObservingModel, asked_by, methods_of, needs_task, placed_in
from .provided import fitted
from .schedulers import get_scheduler
from .tasks.counters import ITERATIONS, Counters, counted_for
from .tasks.sequence import ContinualDataset
from .tasks.transform import Transform


class Observer(nn.Module):
    """The module that a run trains in place of a user's model, which it calls and which steps itself.

    The names of its attributes are those of the values in a checkpoint.

    Args:
        model: The user's object, an `nn.Module` or not.
        spec: Describes the data.
        dataset: The sequence of tasks, as the model may know it.
        transform: Converts rows in [0, 1] to the model's inputs, and back.
        provided: By name, functions that make the attributes that a model may lack, such as `net`.

    Attributes:
        replay: Source of the batches; None before the run begins.
        started: Whether anything has been observed.
        under_way: Whether a task has begun but not ended: some models cannot predict before its end.
        epoch: The current pass, from 0; None between passes.
        scheduler: What `args.lr_scheduler` asks for.

    Raises:
        ConfigError: If a method asks for something that Antelope does not provide.
    """

    antelope_traits = Traits(learns_by="observe")
    replay: Replay | None = None
    _warned: tuple[str, ...] = ()

    def __init__(
        self,
        model: ObservingModel,
        spec: Spec,
        dataset: ContinualDataset,
        transform: Transform,
        provided: Mapping[str, Callable[[], Any]],
    ):
        super().__init__()
        self.model = model
        self.name = type(model).__name__
        self.spec, self.dataset, self.transform = spec, dataset, transform
        self._asks = {method: asked_by(model, method) for method in methods_of(model)}
        self._by_place = {method: placed_in(model, method) for method in self._asks}
        # A model without Mammoth's base may set all of these itself, None included; only gaps are filled.
        for name, make in provided.items():
            if getattr(model, name, None) is None:
                setattr(model, name, make())
        if not isinstance(model.net, nn.Module):
            raise ConfigError(f"{self.name}.net is a {type(model.net).__name__}, not a module.")
        if not isinstance(model, nn.Module):
            # Registered, its parts are saved, counted, moved and put into evaluation mode.
            for name, part in vars(model).items():
                if isinstance(part, nn.Module):
                    # Its names are its own: a part may be called `model`, `transform` or `train`.
                    self.add_module(f"own_{name}" if hasattr(self, name) else name, part)
        kind = type(model)
        # `nn.Module` has a `forward` too, which only raises.
        self._net_predicts = not hasattr(kind, "forward") or kind.forward is nn.Module.forward
        task_told = not self._net_predicts and needs_task(model)
        self.antelope_traits = Traits(learns_by="observe", task_told=task_told)
        # Only for models of Mammoth's base: others may use these names for anything.
        self._reopens = isinstance(model, Counters)
        self._counted = counted_for(
            model, (*dataset.counters(0), *(ITERATIONS if self._reopens else ()))
        )
        self._count(0)
        self.started = self.under_way = False
        self.epoch: int | None = None
        self._iterations = [name for name in ITERATIONS if name in self._counted]
        vars(model).update(dict.fromkeys(self._iterations, 0))
        self.scheduler: LRScheduler | None = None
        # Made before the first task too, so that an invalid name or missing milestones are reported at once.
        if self._reopens:
            self.scheduler = get_scheduler(model, model.args, reload_optim=False)

    @property
    def own(self) -> nn.Module:
        """The user's object if it is a module, else this one, which holds it as `model`."""
        return self.model if isinstance(self.model, nn.Module) else self

    def bind(self, replay: Replay) -> None:
        """Learn from the batches of this replay."""
        self.replay = self.dataset.replay = replay

    def parts_referred_to(self) -> dict[str, Any]:
        """Parts of the run that the model may refer to, by name; they are not saved with the model."""
        return self.dataset.parts_referred_to()

    def take_as_learnt(self) -> None:
        """Set the state after the last task, for a loaded model."""
        last = self.dataset.N_TASKS - 1
        self.dataset.c_task, self.started = last, True
        self._count(last)

    def forward(self, obs: Tensor, task: int | None = None) -> Tensor:
        """The model's `forward`, or its network's: logits `[B, n]`.

        Args:
            obs: `[B, *obs.shape]`.
            task: The rows' task, for a model that asks for it, at most the current one. None: each task's
                outputs come from that task.
        """
        if self.antelope_traits.task_told:
            output = self._forward_told(obs, task)
        else:
            output = self.model.net(obs) if self._net_predicts else self._own_forward(obs)
        # Before training, outputs are left alone: the forward check is to report a wrong number of them.
        if self.started:
            output = fitted(output, self.spec.action.n)
        return self.dataset.outputs(output)

    def _forward_told(self, obs: Tensor, task: int | None) -> Tensor:
        last = max(self.dataset.c_task, 0)
        if task is not None:
            # Models index their heads by task; those of later tasks do not exist yet.
            return self._own_forward(obs, min(task, last))
        outputs = [self._own_forward(obs, each) for each in range(last + 1)]
        offsets = [self.dataset.get_offsets(each) for each in range(last + 1)]
        return put_together(outputs, [torch.arange(*pair) for pair in offsets])

    def _own_forward(self, obs: Tensor, *task: int) -> Tensor:
        """The outputs of a model's own `forward`, or of its `net` while `forward` still raises.

        Mammoth predicts only after a task has ended, and models rely on it: iCaRL's class means are those
        of rows that it keeps in `end_task`.
        """
        forward: Callable[..., Tensor] = (
            self.model if isinstance(self.model, nn.Module) else self.model.forward
        )
        if self.started and not self.under_way:
            return forward(obs, *task)
        try:
            return forward(obs, *task)
        except Exception as error:
            when = "in the middle of a task" if self.started else "before anything was observed"
            if when not in self._warned:
                warnings.warn(
                    f"{self.name}.forward raised {type(error).__name__} ({error}) {when}. Until "
                    f"{'the task ends' if self.started else 'then'}, its `net` predicts instead.",
                    stacklevel=2,
                )
                self._warned = (*self._warned, when)
            return self.model.net(obs)

    def learn(self, replay: Replay, log: Log) -> None:
        """Let the model observe the next batch; what it returns is logged as its loss."""
        batch = next(replay)
        epoch = replay.epoch
        # Only now, not when the last pass ended: whether another one follows is known when a batch comes.
        if self.epoch is None:
            self.epoch = epoch
            self._tell("begin_epoch")
        self.started = True
        given: dict[str, Any] = {}
        for name in self._asks["observe"]:
            if name == "inputs":
                given[name] = batch.obs
            elif name == "labels":
                given[name] = self.dataset.labels(batch.label)
            elif name == "not_aug_inputs":
                # Without augmentation a batch has no `raw`: both are the same rows.
                raw = batch.raw if "raw" in batch else batch.obs
                given[name] = self.transform.undone(raw)
            elif name == "epoch":
                given[name] = epoch
            elif name == "task":
                given[name] = replay.task
            elif name == "indexes":
                given[name] = batch.index
            elif name in batch:  # A field that the model added to the task's rows.
                given[name] = batch[name]
        by_place = [given.pop(name) for name in self._by_place["observe"]]
        self._record(self.model.observe(*by_place, **given), log)
        self._count_iteration()
        # A run that tells no task borders (online) does not tell the end of a task's rows either.
        if replay.passes > epoch and replay.borders:
            self._end_epoch()

    def _record(self, loss: object, log: Log) -> None:
        values = loss if isinstance(loss, Mapping) else {"loss": loss}
        for name, value in values.items():
            # A tensor is summed on its device by the log; `float` here would wait for the GPU at every step.
            if isinstance(value, (int, float)):
                log.record(name, float(value))
            elif isinstance(value, Tensor):
                log[name] = value
            elif value is not None:
                raise ConfigError(
                    f"{self.name}.observe returned a {type(value).__name__} ({value!r:.40}). Return "
                    "the loss as a float, or a dict of such values."
                )

    def begin_task(self, task: int) -> None:
        """Set the counters, and call the model's `begin_task`."""
        self.dataset.c_task = task
        self.under_way = True
        self._count(task)
        vars(self.model).update(dict.fromkeys(self._iterations, 0))
        self.model.net.train()  # A model may have left it in evaluation mode.
        if self._reopens and self._own_scheduler() is None:
            # As in Mammoth: otherwise the previous task's momentum would carry over. Some models set `opt`
            # themselves and return None.
            self.model.opt = self.model.get_optimizer() or self.model.opt
        self._tell("begin_task")
        if self._reopens:
            self.scheduler = get_scheduler(self.model, self.model.args)
        self._replace_rows()

    def _replace_rows(self) -> None:
        """Learn from the rows that the model substituted for the task's, if any."""
        rows, replay = self.dataset.rows_read, self.replay
        if rows is None or replay is None or not rows.changed:
            return
        assert isinstance(replay.storage, Table)
        replay.replace(rows.table().to(replay.storage.device))
        parameters = inspect.signature(self.model.observe).parameters.values()
        named = {p.name for p in parameters}
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            named.update(rows.extra_return_fields)
        asked = self._asks["observe"]
        extra = [name for name in rows.extra_return_fields if name in named and name not in asked]
        self._asks["observe"] = (*asked, *extra)

    def end_task(self, replay: Replay) -> None:
        if self.epoch is not None:
            self._end_epoch()
        self._tell("end_task")
        # Before `end_eval`, which predicts: a model's own `forward` is expected to work from here on.
        self.under_way = False
        if (end_eval := hook(self.model, "end_eval")) is not None and self._reopens:
            end_eval(self.dataset, self.dataset.evaluate(self.model, self.dataset))
        if self.dataset.when_ended is not None:
            self.dataset.when_ended(self.model, self.dataset.c_task)
        # Mammoth counts up in `end_task`, and models read `current_task` between two tasks.
        if "current_task" in self._counted:
            vars(self.model)["current_task"] = self.dataset.c_task + 1

    def _count_iteration(self) -> None:
        held = vars(self.model)  # `nn.Module.__setattr__` takes microseconds.
        for name in self._iterations:
            held[name] += 1
        if self._reopens:
            self._step_scheduler("iter")

    def _step_scheduler(self, after: str) -> None:
        """Step the model's or the run's scheduler, if it is due after an `iter` or `epoch`."""
        if vars(self.model.args).get("scheduler_mode", "epoch") != after:
            return
        scheduler = self._own_scheduler() or self.scheduler
        if scheduler is not None:
            scheduler.step()

    def _end_epoch(self) -> None:
        if self._reopens:
            self._step_scheduler("epoch")
        self._tell("end_epoch")
        self.epoch = None
        if "epoch_iteration" in self._iterations:
            vars(self.model)["epoch_iteration"] = 0

    def _own_scheduler(self) -> Any:
        """The scheduler that the model has made. A model that has one also keeps its optimiser over tasks."""
        return self.model.custom_scheduler if hasattr(self.model, "custom_scheduler") else None

    def _tell(self, method: str) -> None:
        """Call one of the model's hooks, if it has it, with the arguments that it names."""
        if method not in self._asks:
            return
        told = {
            "dataset": self.dataset,
            "epoch": self.epoch,
            "task": self.dataset.c_task,
            "replay": self.replay,
        }
        by_place = self._by_place[method]
        named = {name: told[name] for name in self._asks[method] if name not in by_place}
        call = hook(self.model, method)
        assert call is not None  # Else it would not be in `_asks`.
        call(*(told[name] for name in by_place), **named)

    def _count(self, task: int) -> None:
        for name, value in self.dataset.counters(task).items():
            if name in self._counted:
                setattr(self.model, name, value)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the network, which the model calls itself. Accepts the arguments of `torch.compile`."""
        self.model.net.compile(*args, **kwargs)
