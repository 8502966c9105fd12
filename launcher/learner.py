"""Any module with `learn`, made steppable."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..agents.blocks.supervised import supervised_loss
from ..replay import Batch, CheckpointError, ConfigError, Diverged, Replay, Spec
from ..replay.batch import describe
from .attributes import (
    Constructed,
    add_copies,
    attribute_state,
    fill_empty_buffers,
    load_attribute_state,
    load_in_place,
    load_part,
)
from .device import advice
from .growth import begin_task, grown, layout, regrow
from .log import Log, as_floats
from .optimisation import Average, Scaler, takes_metric
from .parameters import Parameters, held_names, hold
from .recurrent import Recurrence
from .strategies import Strategies

# On a GPU losses are looked at together, so that no step waits for the device.
_CHECK_EVERY = {"cpu": 1}
_CHECK_EVERY_ELSEWHERE = 50
_PATIENCE = 100  # Updates after which a parameter without a gradient is one that gets none.


class Learner:
    """One learning step and one action at a time.

    `learn` returns a scalar loss: gradients are zeroed, back-propagated, clipped; optimiser,
    scheduler and average step. It returns None: the model has updated itself. A module without
    `learn` is trained on the next batch by `supervised_loss`.

    Args:
        agent: The user's module, on `device`.
        optimizer: Steps when `learn` returns a loss; None for a module without parameters.
        scheduler: Steps after it; one that needs a metric steps after each evaluation.
        clip_grad: Largest norm of the gradient, or None.
        average: Weights used to evaluate, or None.
        precision: "bf16" or "16": the autocast type of `learn` and of inference; "32", "tf32": none.
        supervised: Whether batches have labels that a module without `learn` can be trained on.
        strategies: Those of continual learning, which have a part in every step; or None.
        tasks: How many there will be: what no loss reaches in the first may wait for a later one.

    Attributes:
        recurrence: How the model's state is carried in environments; None for one without.
    """

    def __init__(
        self,
        agent: nn.Module,
        spec: Spec,
        *,
        optimizer: Optimizer | None = None,
        scheduler: Any = None,
        clip_grad: float | None = None,
        average: Average | None = None,
        precision: str = "32",
        device: torch.device | str = "cpu",
        supervised: bool = True,
        strategies: Strategies | None = None,
        tasks: int = 1,
    ):
        self.agent, self.spec = agent, spec
        self._constructed, self._built = Constructed(agent), layout(agent)
        self.strategies = strategies
        if strategies is not None:
            strategies.context.optimizer = optimizer
        self.device = torch.device(device)
        self.optimizer, self.scheduler, self.average = optimizer, scheduler, average
        self.clip_grad = clip_grad
        self.parameters = Parameters(agent, optimizer, average)
        self.parameters.changed.append(self._wait_for)
        if strategies is not None:
            strategies.look = partial(self.parameters.look, closely=False)
            self.parameters.changed.append(lambda _: strategies.parameters_changed())
        self._built_with = dict(optimizer.defaults) if optimizer is not None else {}
        self.recurrence: Recurrence | None = None
        self.steps = self.tasks_begun = 0
        self.optimised = False  # Whether `learn` ever returned a loss.
        self._learn = learn_method(agent, spec, supervised=supervised)
        # Parameters that no gradient has come to yet; strategies freeze and add some on purpose.
        self._waiting = {n: p for n, p in agent.named_parameters() if p.requires_grad}
        self._may_wait = strategies is None and self._learn is not None
        if not self._may_wait:
            self._waiting = {}
        self._looks = 0
        self._patience = _PATIENCE if tasks == 1 else math.inf
        self._plateau = scheduler is not None and takes_metric(scheduler)
        dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision)
        self.autocast: Callable[[], Any] = nullcontext
        if dtype is not None:
            self.autocast = lambda: torch.autocast(self.device.type, dtype)
        scaled = dtype is torch.float16
        self.scaler = Scaler(self.device.type) if scaled else None
        self._unchecked: list[tuple[int, Tensor | float]] = []
        self._check_every = _CHECK_EVERY.get(self.device.type, _CHECK_EVERY_ELSEWHERE)

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn by: a `learn` method, or labels and a forward."""
        return self._learn is not None

    def step(self, replay: Replay, log: Log) -> None:
        """One learning step.

        Raises:
            ConfigError: If `learn` returns something other than a scalar loss or None.
            Diverged: If the loss is NaN or infinite.
        """
        if self._learn is None:
            return
        self.steps += 1
        try:
            with self.autocast():
                if self.strategies is None:
                    loss = self._learn(replay, log)
                else:
                    loss = self.strategies.loss(replay, log)
            if loss is None:
                self._watch(log.last("loss"))
                if self._waiting:
                    self._look_for_gradients()
                if self.strategies is not None:
                    self.strategies.after_step(replay)
                return
            if not (isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad):
                raise ConfigError(_wrong_loss(self.agent, loss))
            detached = loss.detach()
            self._watch(detached)
            self._optimise(loss)
            if self._waiting:
                self._look_for_gradients()
            if self.strategies is not None:
                self.strategies.after_step(replay)
        except (ConfigError, Diverged):
            raise
        except Exception as error:
            batch = _last_batch(error)
            met = f" Batch: {describe(batch)}." if batch is not None else ""
            method = getattr(self.agent, "learns_by", "learn")
            error.add_note(
                f"In {type(self.agent).__name__}.{method}, learning step {self.steps}.{met}"
                f"{advice(error)}"
            )
            raise
        log.record("loss", detached)

    def _optimise(self, loss: Tensor) -> None:
        optimizer = self.optimizer
        assert optimizer is not None
        self.parameters.look(closely=False)
        self.optimised = True
        for group in optimizer.param_groups:
            for parameter in group["params"]:  # As zero_grad does, which takes ten times as long.
                parameter.grad = None
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()
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
        if self.scheduler is not None and not self._plateau:
            self.scheduler.step()
        if self.average is not None:
            self.average.update()

    def _look_for_gradients(self) -> None:
        """Strike out the parameters that have a gradient now; after a while, tell which never had."""
        before = len(self._waiting)
        self._waiting = {
            n: p for n, p in self._waiting.items() if p.grad is None and p.requires_grad
        }
        if self._looks or len(self._waiting) < before:  # From the first update on.
            self._looks += 1
        if self._looks >= self._patience:
            self.warn_of_unreached()

    def _wait_for(self, names: list[str]) -> None:
        """Expect a gradient of parameters that came later; ones that went need none any more."""
        named = self.parameters.named
        self._waiting = {n: p for n, p in named.items() if self._waiting.get(n) is p}
        if self._may_wait and names:
            self._waiting |= {name: named[name] for name in names}
            self._looks = min(self._looks, 1)

    def warn_of_unreached(self) -> None:
        """Warn, once, of parameters that no loss has reached in the updates so far."""
        names, self._waiting = list(self._waiting), {}
        if not names or not self._looks:
            return
        shown = ", ".join(f"`{name}`" for name in names[:4])
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        warnings.warn(
            f"No loss reaches {shown}{more} of {type(self.agent).__name__}: nothing trains them. Use them in "
            "the loss, or set requires_grad_(False) if that is meant.",
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

    def evaluated(self, metrics: dict[str, float]) -> None:
        """Tell a scheduler that waits for a metric (ReduceLROnPlateau)."""
        if self._plateau and "loss" in metrics:
            self.scheduler.step(metrics["loss"])

    @property
    def lr(self) -> float | None:
        """The optimiser's current learning rate; None as long as it has not stepped."""
        if self.optimizer is None or not self.optimised:
            return None
        return float(self.optimizer.param_groups[0]["lr"])

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
                return output.float()
        return self.agent(obs).float() if has_forward(self.agent) else None

    def reset_hyperparameters(self) -> None:
        """Give the optimiser the settings it was built with, over those of a loaded state."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            group.update({k: v for k, v in self._built_with.items() if k in group})
            if "lr" in self._built_with:
                group["initial_lr"] = self._built_with["lr"]
        if self.scheduler is not None and hasattr(self.scheduler, "base_lrs"):
            self.scheduler.base_lrs = [g["lr"] for g in self.optimizer.param_groups]

    def begin_task(self, task: int, replay: Replay) -> None:
        if self.strategies is not None:
            self.strategies.begin_task(task, replay)
        begin_task(self.agent, task)
        self.parameters.look()
        self.tasks_begun = task + 1

    def end_task(self, replay: Replay) -> None:
        if callable(hook := getattr(self.agent, "end_task", None)):
            hook(replay)
            self.parameters.look()
        if self.strategies is not None:
            self.strategies.end_task(replay)

    def state_dict(self) -> dict[str, Any]:
        self.parameters.look()
        parts = {
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
            "scaler": self.scaler,
            "strategies": self.strategies,
        }
        return {
            "steps": self.steps,
            "optimised": self.optimised,
            "tasks_begun": self.tasks_begun,
            "grown": grown(self.agent, self._built, self.tasks_begun),
            "held": self._held_names(),
            "waiting": list(self._waiting),
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
        load_attribute_state(self.agent, state["attributes"])
        self.steps, self.optimised = state["steps"], state["optimised"]
        self.tasks_begun = state.get("tasks_begun", 0)  # Since 0.5.0, as are the next two.
        self.parameters.look()
        waiting = state.get("waiting", self._waiting)
        self._waiting = {n: p for n, p in self._waiting.items() if n in waiting}
        if self.optimizer is not None and {"held", "optimizer"} <= state.keys() - set(but):
            hold(self.optimizer, state["held"], self.parameters.named)
            self.parameters.use(self.optimizer)
        if self.average is not None:
            self.average.restart()
        for name in ("optimizer", "scheduler", "average", "scaler"):
            part = getattr(self, name)
            if part is None or name in but or name not in state:
                continue
            try:
                load_part(part, state[name])
            except (ValueError, KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"The checkpoint's {name} does not fit this run's: {error}. Resume with the "
                    "settings it was saved with, or take only its weights: load=PATH."
                ) from error
        if self.strategies is not None and "strategies" in state:
            self.strategies.load_state_dict(state["strategies"])


def load_weights(
    agent: nn.Module,
    weights: dict[str, Tensor],
    places: dict[str, str] | None = None,
    changed: dict[str, Any] | None = None,
    *,
    before: Callable[[int], None] | None = None,
) -> None:
    """Load a checkpoint's weights.

    Args:
        changed: Which modules have come since the model was constructed, as of `grown`.
        before: Called before each task that the model begins again to get them.
        places: Where buffers were, as of `fill_empty_buffers`.

    Raises:
        CheckpointError: Naming what is missing, left over, or of another shape.
    """

    def begin(task: int) -> None:
        if before is not None:
            before(task)
        begin_task(agent, task)

    regrow(agent, changed, begin=begin)
    fill_empty_buffers(agent, weights, places)
    add_copies(agent, weights)
    own = agent.state_dict()
    problems = [f"`{name}` is missing" for name in own if name not in weights]
    problems += [
        f"`{name}` is not in {type(agent).__name__}" for name in weights if name not in own
    ]
    problems += [
        f"`{name}` is {list(weights[name].shape)}, the model's is {list(own[name].shape)}"
        for name in own
        if name in weights
        and isinstance(own[name], Tensor)
        and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"The checkpoint does not fit {type(agent).__name__}: {'; '.join(problems[:3])}{more}. "
            "It is of a model that was constructed otherwise."
        )
    load_in_place(agent, weights)


def has_forward(agent: Any) -> bool:
    """Whether a module or its class predicts; an agent of many ways sets `forward` to None if not."""
    forward = getattr(agent if inspect.isclass(agent) else type(agent), "forward", None)
    return forward not in (None, nn.Module.forward) and agent.forward is not None


def learn_method(
    agent: nn.Module, spec: Spec, *, supervised: bool
) -> Callable[[Replay, Log], Any] | None:
    """`learn(replay, log)` of any module, or None where there is nothing to learn by.

    Raises:
        ConfigError: If `learn` takes something other than `(replay)` or `(replay, log)`.
    """
    learn = getattr(agent, "learn", None)
    name = type(agent).__name__
    if learn is None:
        if not has_forward(agent):
            return None
        if not supervised:
            return None
        return lambda replay, log: supervised_loss(agent, next(replay), spec.action)
    if not callable(learn):
        raise ConfigError(f"{name}.learn is a {type(learn).__name__}, not a method.")
    signature = inspect.signature(learn)
    parameters = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = [p for p in parameters if p.default is p.empty]
    anything = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    demanded = [
        p.name
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if len(required) > 2 or not (parameters or anything) or demanded:
        raise ConfigError(
            f"{name}.learn{signature} cannot be called: write learn(self, replay) or "
            "learn(self, replay, log)."
        )
    takes_log = anything or len(required) == 2 or any(p.name == "log" for p in parameters[1:2])
    return learn if takes_log else lambda replay, log: learn(replay)


def quiet(learn: Callable[[Replay, Log], Any] | None) -> Callable[[Any, Any], Any]:
    """`learn` with a log of None: what it logs is then forgotten."""

    def learn_quietly(replay: Any, log: Any) -> Any:
        return learn(replay, Log() if log is None else log) if learn is not None else None

    return learn_quietly


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


def _last_batch(error: BaseException) -> Batch | None:
    """The batch that the failing code was at work on, from its frames."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        for value in traceback.tb_frame.f_locals.values():
            if isinstance(value, Batch):
                found = value
        traceback = traceback.tb_next
    return found
