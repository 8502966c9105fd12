"""What a strategy may ask of the run it is part of."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...replay import Batch, ConfigError, Memory, Replay, Spec
from ...replay.ranks import ranks
from ..calling import call, steps_asked
from ..log import Log
from .substitution import call_with, tensors_of

# What a model outputs: predictions of a data set's labels; in environments either a policy's logits over
# choices, or values (Q-values, or the numbers of an action).
OF_LABELS, LOGITS, VALUES = "of labels", "logits", "values"

# Logit of another task's class: vanishes in any softmax, yet stays finite in float16 too, where -inf would
# turn the loss into NaN.
HIDDEN = -(2.0**15)

Shapes = dict[str, torch.Size]  # Shapes of parameters and buffers, by name.


class Context:
    """The model's own loss and outputs, and what belongs to which task.

    While `learn` runs, the outputs for the batch are kept, so that strategies need no second forward. With
    `scenario="task"` the model sees only the outputs of each row's task.

    Args:
        classes: Output indices of each task, int64.
        learn: The model's own learning step, `(replay, log) -> loss`; with `log=None` nothing is recorded.
        augmented: Augments rows again, `batch.raw`, float32 `[B, *shape]`.
        seed: Seed of the run, int, for the strategies' random streams.
        outputs: What the model outputs: `OF_LABELS`, `LOGITS` or `VALUES`.

    Attributes:
        num_tasks: Number of tasks, known from the start, for models that grow.
        task: Number of the current task, from 0.
        optimizer: The optimiser that steps the agent; None before it is constructed.
        clip_grad: Norm that the optimiser's gradient is clipped to, a float; None: no clipping.
        look: Checks whether the agent's parameters have changed, and returns the answer.
        began: State of each strategy before its first task, by the strategy's id.
        undo: Called when the run ends, to remove what `setup` added to the agent.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    def __init__(
        self,
        agent: nn.Module,
        spec: Spec,
        *,
        scenario: str,
        classes: list[Tensor],
        learn: Callable[[Any, Any], Tensor | None],
        augmented: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        outputs: str = OF_LABELS,
    ):
        self.agent, self.spec, self.scenario = agent, spec, scenario
        self.outputs = outputs
        self.device, self.seed = torch.device(device), seed
        self.num_tasks, self.task = len(classes), 0
        self.classes = [index.to(self.device) for index in classes]
        self.optimizer: Optimizer | None = None
        self.clip_grad: float | None = None
        self.look: Callable[[], bool] = bool
        self.began: dict[int, Any] = {}
        self.undo: list[Callable[[], None]] = []
        self._learn, self._augmented = learn, augmented
        self._replay: Any = None  # While `learn` runs, the replay of its batch.
        self.changed = False  # Whether the agent has other parameters than it started with.
        # By task: the shapes that it left, and a copy of the agent without weights (None: not copyable).
        self._structures: dict[int, tuple[Shapes, nn.Module | None]] = {}
        self._known: tuple[Tensor, Tensor] | None = None  # The batch's obs, and the outputs for it.
        self._hidden = hidden_outputs(self.classes, spec) if scenario == "task" else None
        self._hid = False  # Whether outputs were hidden in this learning step.
        self._handle = agent.register_forward_hook(self._on_forward, with_kwargs=True)

    def open(self) -> None:
        """Observe the agent's forwards again, after `pause`."""
        self.pause()
        self._handle = self.agent.register_forward_hook(self._on_forward, with_kwargs=True)

    def pause(self) -> None:
        """Remove all hooks from the agent until `open`."""
        self._handle.remove()
        self._known = self._replay = None

    def close(self) -> None:
        """Remove hooks and everything that strategies have added to the agent."""
        self.pause()
        for undo in self.undo:
            undo()

    def watch(self, replay: Any) -> None:
        """Treat forwards from now on as those of `learn` on this replay's batch; None stops this."""
        if replay is not None:
            self._known = None
        self._replay = replay

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Runs the block without treating its forwards as those of `learn`."""
        replay, self._replay = self._replay, None
        try:
            yield
        finally:
            self._replay = replay

    def __deepcopy__(self, memo: dict[int, Any]) -> Context:
        """A context for a copy that a model makes of itself: the copy does not take part in the run."""
        twin = copy.copy(self)
        twin._known = twin._replay = None  # Outputs with a graph could not be copied.
        twin._structures = {}
        return twin

    def step(self, replay: Replay, log: Log) -> Tensor | None:
        """The loss of the next batch; `logits` then returns its outputs without a second forward."""
        self._known, self._replay = None, replay
        try:
            loss = self._learn(replay, log)
        finally:
            self._replay = None
        if not self._hid:
            self._check_hidden(loss)
        return loss

    def stepped(self) -> None:
        """Drop the batch's outputs: the weights have changed since they were computed."""
        self._known = None

    def loss(self, batch: Batch) -> Tensor:
        """The model's own loss on any batch, a scalar with gradient.

        In environments this calls `learn` once more, with all its side effects: a target network that moves
        at every step moves again.

        Raises:
            TypeError: If the model updates itself.
        """
        known, before = self._known, self._replay
        self._replay = one = _SingleBatch(batch)
        try:
            loss = self._learn(one, None)
        finally:
            self._known, self._replay = known, before
        if loss is None:
            raise TypeError("This strategy needs a loss, but learn returned None.")
        return loss

    def logits(self, obs: Tensor) -> Tensor:
        """Raw outputs `[B, *action.shape]`, reused from the learning step where it computed them."""
        if self._known is not None and self._known[0] is obs:
            return self._known[1]
        return call(self.agent, obs)

    def add_task(self, classes: Tensor) -> None:
        """Add a task with these outputs."""
        self.classes.append(classes.to(self.device))
        self.num_tasks = len(self.classes)
        if self._hidden is not None:
            self._hidden = hidden_outputs(self.classes, self.spec)

    def use_augmentation(self, augmented: Callable[[Tensor], Tensor] | None) -> None:
        """Set how rows of a memory are augmented from now on."""
        self._augmented = augmented

    def hide_others(self) -> None:
        """Show the model only the outputs of each row's task from now on, in any scenario."""
        self._hidden = hidden_outputs(self.classes, self.spec)

    def masked(self, logits: Tensor, task: int | Tensor) -> Tensor:
        """Logits `[B, n]` with those of other tasks hidden where `scenario="task"`; else unchanged."""
        if self._hidden is None:
            return logits
        if isinstance(task, Tensor):
            return logits.masked_fill(self._hidden.index_select(0, task), HIDDEN)
        return logits.masked_fill(self._hidden[task], HIDDEN)

    @property
    def in_environment(self) -> bool:
        """Whether batches are transitions: `obs`, `action`, `reward`, ..., and no `label`."""
        return self.outputs != OF_LABELS

    @property
    def seen(self) -> Tensor:
        """Output indices of the classes seen so far, int64 `[classes]`, in the order of the tasks."""
        seen = torch.cat(self.classes[: self.task + 1])
        return seen if self.scenario != "domain" else self.classes[0]

    def rows(self, batch: Batch) -> int:
        """The number of a batch's rows, counted over all devices: in `after_loss` it has those of one."""
        place = ranks()
        if place.split and not place.own and len(batch) == place.count(place.last):
            return place.last
        return len(batch)

    def count(self, rows: int) -> int:
        """How many of a batch's first `rows`, counted over all devices, are among this one's."""
        place = ranks()
        if not place.split or place.own or place.count(place.last) == place.last:
            return rows
        return len(range(place.rank, rows, place.world))

    def mean(
        self, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, n: int
    ) -> Tensor:
        """`loss(x, y)`, a mean over this device's part of `n` rows, so that all parts weigh the same.

        What `after_loss` returns is weighted by the device's share of the batch, not by that of these rows.
        """
        place = ranks()
        if not place.split or place.own:
            return loss(x, y)
        if not len(x):
            return x.sum()  # 0, with a gradient.
        everywhere = place.count(place.last) == place.last  # A small batch, not divided.
        share = 1 / place.world if everywhere else len(x) / n
        return loss(x, y) * (share / place.weight)

    def part(self, batch: Batch) -> Batch:
        """This device's rows of a batch drawn before it was split; all where it cannot be divided alike."""
        place = ranks()
        if place.split and not place.own and place.divides(len(batch)):
            return batch.map(place.rows)
        return batch

    def rows_to_store(self, batch: Batch) -> Batch:
        """The fields of a batch that a memory needs: inputs are stored before augmentation."""
        if self._augmented is None:
            return batch
        raw = batch["raw" if "raw" in batch else "obs"]  # `replay.once` does not augment.
        return Batch(**{name: batch[name] for name in batch if name != "obs"} | {"raw": raw})

    def augmented(self, batch: Batch) -> Batch:
        """Rows of a memory as a learning step receives them: augmented again if the run sets `aug`."""
        # After a resume, a memory may still be on its previous device.
        if self.device.type != "cpu":
            batch = batch.to(self.device)
        if self._augmented is not None and "raw" in batch:
            batch["obs"] = self._augmented(batch["raw"])
        return batch

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the agent's parameters and buffers, by name."""
        return {name: tensor.detach().clone() for name, tensor in tensors_of(self.agent).items()}

    def recall(self, weights: dict[str, Tensor], obs: Tensor, task: int | None = None) -> Tensor:
        """Raw outputs `[B, *action.shape]` of the agent with earlier weights: eval mode, no gradient.

        Args:
            weights: From `snapshot`; with `task`, a subset is enough.
            obs: `[B, *obs.shape]`, as the agent receives them.
            task: The task after which the agent had these weights; None: not known.

        Raises:
            ConfigError: If its layers have changed since and can no longer be restored.
        """
        agent = self.agent
        if self.changed and (task is None or task < self.task):
            agent, weights = self._with_earlier_layers(weights, task)
        with evaluating(agent), torch.no_grad():
            return call_with(agent, weights, (obs,), steps_asked(agent, obs))

    def keep_structure(self, task: int) -> None:
        """Remember the agent's layers, without weights, at the end of a task."""
        shapes = _shapes(tensors_of(self.agent))
        known = next(reversed(self._structures.values()), None)
        if known is None or known[0] != shapes:
            try:
                known = shapes, _without_weights(self.agent)
            except Exception:  # A module may hold anything; it matters only if it changes.
                known = shapes, None
        self._structures[task] = known

    def structures(self) -> dict[str, dict[str, list[int]]]:
        """Shapes of the layers at the end of each task; empty if the layers never changed."""
        if not self.changed:
            return {}
        return {
            str(task): {name: list(shape) for name, shape in shapes.items()}
            for task, (shapes, _) in self._structures.items()
        }

    def check_structures(self, saved: dict[str, dict[str, list[int]]]) -> None:
        """Drop remembered layers whose shapes differ from those that a checkpoint lists for their task."""
        for task, listed in ((int(key), listed) for key, listed in saved.items()):
            shapes = {name: torch.Size(shape) for name, shape in listed.items()}
            if task not in self._structures or self._structures[task][0] != shapes:
                self._structures[task] = shapes, None

    def _with_earlier_layers(
        self, weights: dict[str, Tensor], task: int | None
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        """The agent with the layers that these weights belong to, and the weights for all of them."""
        if not self._structures:  # No strategy keeps whole networks: `weights` is a subset.
            return self.agent, weights
        now = _shapes(tensors_of(self.agent))
        if task is None:
            candidates = [(now, self.agent), *reversed(self._structures.values())]
        else:
            candidates = [self._structures[task]] if task in self._structures else []
            weights = tensors_of(self.agent) | weights
        for there, agent in candidates:
            found = {n: w for n, w in weights.items() if task is None or n in there}
            if _shapes(found) != there:
                continue
            if agent is not None:
                return agent, found
            if there == now:
                return self.agent, found
        raise ConfigError(
            f"The layers of {type(self.agent).__name__} have changed, and a strategy needs its "
            "earlier outputs, which are no longer available: the model cannot be copied, or it "
            "changed in `learn` before the run was resumed. Change it in begin_task."
        )

    def _check_hidden(self, loss: Tensor | None) -> None:
        """Warn in the first step if `learn` never called the model, so that no outputs could be hidden."""
        self._hid = True
        if self._hidden is not None and loss is not None:
            name = type(self.agent).__name__
            who = "scenario=task" if self.scenario == "task" else "The strategy"
            warnings.warn(
                f"{who} cannot hide the outputs of other tasks: {name}.learn never called "
                "self(batch.obs), so they compete in its loss. Call the whole model rather than a part "
                "of it, or select outputs by batch.task.",
                stacklevel=2,
            )

    def _on_forward(
        self, agent: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Any:
        """Forward hook of the agent: keeps outputs and hides other tasks', while `learn` runs."""
        if self._replay is None:
            return None
        batch = self._replay.batch
        if batch is None or not (args or kwargs):
            return None
        obs = args[0] if args else next(iter(kwargs.values()))
        # A second forward under no_grad (a metric, a target) must not replace the outputs that strategies
        # differentiate.
        if obs is batch.obs and (self._known is None or _has_graph(output)):
            self._known = (obs, output)
        self._hid = True
        if self._hidden is None:
            return None
        return self.masked(output, batch.task if len(output) == len(batch.task) else self.task)


def _has_graph(output: object) -> bool:
    return bool(getattr(output, "requires_grad", True))


def _without_weights(agent: nn.Module) -> nn.Module:
    """A copy on the meta device, which shares optimisers and memories: large, and read by no forward."""
    memo: dict[int, Any] = {}
    for tensor in (*agent.parameters(), *agent.buffers()):
        empty = tensor.detach().to("meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, tensor.requires_grad)
        memo[id(tensor)] = empty
    for part in agent.modules():
        held = (value for value in vars(part).values() if isinstance(value, (Optimizer, Memory)))
        memo |= {id(value): value for value in held}
    return copy.deepcopy(agent, memo)


def _shapes(tensors: dict[str, Tensor]) -> Shapes:
    return {name: tensor.shape for name, tensor in tensors.items()}


class _SingleBatch:
    """Stands in for the replay in `learn`: every `next` returns the same batch."""

    task = epoch = step = new_steps = fresh = 0
    prioritized = offline = False

    def __init__(self, batch: Batch):
        self.batch = batch

    def __iter__(self) -> _SingleBatch:
        return self

    def __next__(self) -> Batch:
        return self.batch

    def __len__(self) -> int:
        return len(self.batch)


def hidden_outputs(classes: list[Tensor], spec: Spec) -> Tensor:
    """Bool `[tasks, n]`: for each task, which outputs belong to none of its classes."""
    hidden = torch.ones(len(classes), spec.action.n, dtype=torch.bool, device=classes[0].device)
    for row, index in zip(hidden, classes, strict=True):
        row[index] = False
    return hidden


@contextmanager
def evaluating(agent: nn.Module) -> Iterator[None]:
    """Runs the block with every module in evaluation mode, then restores each module's mode."""
    training = [module for module in agent.modules() if module.training]
    agent.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
