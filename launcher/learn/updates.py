"""Turns losses into new weights: gradients, the optimiser, its schedule, and the averaged weights."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...replay import CheckpointError, ConfigError
from ...replay.ranks import ranks
from ...replay.structure import misfit
from ..assembly.optimisation import Average, Scaler, left_out
from ..record.state import check_optimizer, load_optimizer_fields, load_part, optimizer_fields
from ..record.state.held import held_names, hold
from .own_optimizer import OwnOptimizers
from .parameters import Parameters, in_words
from .reduction import Reduction
from .schedulers import Scheduler
from .skipped_updates import SkippedUpdates
from .strategies import Strategies


class Updates:
    """Updates a module's weights by the losses it returns.

    Args:
        agent: The module that learns.
        optimizer: Steps its parameters; None for a module without any.
        own: The optimisers that the module holds, one of which steps instead; or None.
        scheduler: Steps after each update, epoch or evaluation; or None.
        clip_grad: Largest 2-norm of the gradient of all parameters together, float; or None.
        accumulate: Learning steps per update, which is by their mean loss.
        average: Moving average of the weights, used to evaluate; or None.
        scaler: Scales losses in float16; None in any other arithmetic.
        strategies: May change gradients before an update, and read weights after it.
        skipped: Skips updates that are not finite (`on_nan=skip`); or None.

    Attributes:
        optimizer: The optimiser that steps now.
        parameters: Follows changes of the module's parameters.
        reduction: Sums gradients over the ranks of a run on several devices.
        optimised: Whether a loss has ever been returned.
    """

    def __init__(
        self,
        agent: nn.Module,
        *,
        optimizer: Optimizer | None,
        own: OwnOptimizers | None,
        scheduler: Scheduler | None,
        clip_grad: float | None,
        accumulate: int,
        average: Average | None,
        scaler: Scaler | None,
        strategies: Strategies,
        skipped: SkippedUpdates | None = None,
    ):
        self.agent, self.own, self.scheduler, self.average = agent, own, scheduler, average
        self.clip_grad, self.accumulate, self.scaler = clip_grad, accumulate, scaler
        self.strategies, self._strategic = strategies, strategies.active
        self.skipped = skipped
        self.parameters = Parameters(agent, average=average)
        self.reduction = Reduction(agent)
        self.optimised = False
        self._pending = 0  # Losses whose gradients wait for an update.
        # A parameter whose gradient waits for more; if `learn` zeroes it, its gradient is None.
        self._witness: Tensor | None = None
        self._lr: Tensor | float | None = None  # At the last update.
        self.use(optimizer, held=own is not None and optimizer is own.only)
        # An optimiser that the module holds is scheduled at its first loss: the module may step it.
        if scheduler is not None and optimizer is not None and not self._held:
            scheduler.attach(optimizer)

    def use(self, optimizer: Optimizer | None, *, held: bool = False) -> None:
        """Step this optimiser from now on.

        Args:
            held: Whether the module holds it.
        """
        self.optimizer, self._held = optimizer, held
        self.strategies.context.optimizer = optimizer
        self.parameters.use(optimizer)
        self._built_with: list[dict[str, Any]] = []  # The options of each of its groups.
        if optimizer is not None:
            groups = optimizer.param_groups
            self._built_with = [{k: v for k, v in g.items() if k != "params"} for g in groups]

    def use_held(self, held: Optimizer | None) -> None:
        """Step the optimiser that the module holds, now that it has returned a loss; None: the run's."""
        if held is not None and held is not self.optimizer:
            self.use(held, held=True)
        if self.scheduler is not None and self.scheduler.optimizer is not self.optimizer:
            assert self.optimizer is not None
            self.scheduler.attach(self.optimizer)

    def by(self, loss: Tensor) -> None:
        """Add a loss's gradients, and update the weights once `accumulate` losses have added theirs.

        Args:
            loss: Scalar `[]`, with a graph.

        Raises:
            ConfigError: If it was back-propagated before, or `learn` zeroed accumulated gradients.
        """
        optimizer, accumulate = self.optimizer, self.accumulate
        assert optimizer is not None
        self.parameters.look(closely=False)
        if not self._pending:
            for group in optimizer.param_groups:
                for parameter in group["params"]:  # `zero_grad` takes ten times as long.
                    parameter.grad = None
        elif self._witness is not None and self._witness.grad is None:
            raise ConfigError(
                f"{type(self.agent).__name__}.learn zeroes the gradients, which accumulate={accumulate} "
                "adds up over several learning steps. Leave zero_grad out."
            )
        if (place := ranks()).several:
            loss = (
                loss * place.weight
            )  # Before: penalties and accumulated losses then count as they should.
        if accumulate > 1:
            loss = loss / accumulate
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        try:
            loss.backward()
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
            raise ConfigError(_SECOND_BACKWARD.format(type(self.agent).__name__)) from error
        if self.skipped is not None and self._skips(self.skipped):
            return
        if accumulate > 1 and not self._pending:
            reached = (p for p in self.parameters.trained if p.grad is not None)
            self._witness = next(reached, None)
        self._pending += 1
        if self._pending >= accumulate:
            self._update(optimizer)
        if not self.optimised:
            self.optimised = True
            self._warn_of_left_out(optimizer)

    def _skips(self, skipped: SkippedUpdates) -> bool:
        """Whether a loss is skipped, with the gradients that wait for the same update."""
        if not skipped.refuses(self.parameters.trained, scaled=self.scaler is not None):
            return False
        self._pending = 0
        if self.scheduler is not None:
            self.scheduler.updated()  # The schedule goes on, as with steps that a loss scaler skips.
        return True

    def _update(self, optimizer: Optimizer) -> None:
        """Step by the accumulated gradients."""
        # At a task's end there may be fewer: each was divided by `accumulate`, not by their number.
        if self._pending != self.accumulate:
            for parameter in self.parameters.trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / self._pending)
        self._pending = 0
        self.reduction.gradients(self.parameters.trained)
        if self.scaler is not None and (self.clip_grad is not None or self._strategic):
            self.scaler.unscale_(optimizer)
        if self._strategic:
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
        if self.skipped is not None:
            self.skipped.updated()

    def flush(self) -> bool:
        """Update by the gradients left over from a task's last losses.

        Returns:
            Whether there were any.
        """
        if not self._pending or self.optimizer is None:
            return False
        self._update(self.optimizer)
        return True

    def pool(self) -> None:
        """Give rank 0 the gradients of all ranks that wait for an update, before it saves them."""
        place = ranks()
        if not place.several:
            return
        self.reduction.buffers()
        if self._pending:
            self.reduction.gradients(self.parameters.trained)
            if place.rank:
                for parameter in self.parameters.trained:
                    if parameter.grad is not None:
                        parameter.grad.zero_()

    @property
    def lr(self) -> float | None:
        """The learning rate of the last update; None before the first."""
        if self.optimizer is None or not self.optimised:
            return None
        return float(self.optimizer.param_groups[0]["lr"] if self._lr is None else self._lr)

    @property
    def waiting(self) -> bool:
        """Whether gradients wait for an update."""
        return self._pending > 0

    def optimizers(self) -> list[Optimizer]:
        """The optimiser that steps now, and those that the module holds."""
        held = [] if self.own is None else list(self.own.found.values())
        now = [] if self.optimizer is None else [self.optimizer]
        return list({id(each): each for each in now + held}.values())

    def reset_hyperparameters(self) -> None:
        """Give the optimiser this run's options instead of those of a loaded state."""
        if self.optimizer is None or self._held:
            return
        if self.scheduler is not None and self.scheduler.optimizer is self.optimizer:
            self.scheduler.rebase(self._built_with)
            return
        self._restore_options(self.optimizer)

    def _restore_options(self, optimizer: Optimizer) -> None:
        for group, built in zip(optimizer.param_groups, self._built_with, strict=False):
            group.update({k: v for k, v in built.items() if k in group})

    def _warn_of_left_out(self, optimizer: Optimizer) -> None:
        """Warn of parameters that the loss reaches and the optimiser does not hold."""
        if names := left_out(optimizer, self.agent):
            warnings.warn(
                f"The optimiser does not hold {in_words(names)} of {type(self.agent).__name__}: the loss "
                "depends on them, but nothing trains them. Give it all parameters, or set "
                "requires_grad_(False) if that is intended.",
                stacklevel=2,
            )

    # -------------------------------------------------------------------------------- its state

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly, beside what the module holds itself."""
        # An optimiser that the module holds is saved with the module's attributes.
        stepped = None if self._held else self.optimizer
        parts = {
            "optimizer": stepped,
            "scheduler": self.scheduler,
            "average": self.average,
            "scaler": self.scaler,
        }
        state: dict[str, Any] = {
            name: part.state_dict() for name, part in parts.items() if part is not None
        }
        if stepped is not None:
            state["optimizer_fields"] = optimizer_fields(stepped, beside=self.agent)
        if self._pending:
            named = self.agent.named_parameters()
            state["gradients"] = {n: p.grad for n, p in named if p.grad is not None}
            state["pending"] = [self._pending, self.accumulate]
        held = None
        if self.optimizer is not None:
            names = {id(p): name for name, p in self.parameters.named.items()}
            held = held_names(self.optimizer, names)
        return {**state, "held": held, "optimised": self.optimised, "lr": self.lr}

    def check(self, state: Mapping[str, Any], *, but: Collection[str] = ()) -> None:
        """Check a state against the optimiser and the gradients, none of which is changed.

        Args:
            but: Names of the parts that start from scratch.

        Raises:
            CheckpointError: Naming what does not fit.
        """
        stepped = None if self._held else self.optimizer
        if stepped is not None and "optimizer" in state and "optimizer" not in but:
            check_optimizer(stepped, state["optimizer"], "optimizer")
            groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
            if (held := state.get("held")) is not None and groups != [len(names) for names in held]:
                misfit("optimizer.param_groups", groups, "as many parameters as `held` names")
        shapes = {name: p.shape for name, p in self.agent.named_parameters()}
        for name, grad in state.get("gradients", {}).items():
            if name in shapes and grad.shape != shapes[name]:
                misfit(f"gradients.{name}", grad, f"a tensor of shape {list(shapes[name])}")

    def load_state_dict(self, state: Mapping[str, Any], *, but: Collection[str] = ()) -> None:
        """Continue exactly; the module's own state must be loaded before.

        Args:
            but: Names of the parts that start from scratch.

        Raises:
            CheckpointError: If a part was saved from a different kind.
        """
        self.optimised, self._lr = state["optimised"], state.get("lr")
        if self.optimizer is not None and {"held", "optimizer"} <= state.keys() - set(but):
            hold(self.optimizer, state["held"], self.parameters.named)
            self.parameters.use(self.optimizer)
        if self.average is not None:
            self.average.restart()
        self._load_gradients(state)
        if self.own is not None:
            self.own.look()  # The module may have made one in `begin_task`.
            if (held := self.own.only) is not None and self.optimised:
                self.use(held, held=True)
        parts = {
            "optimizer": None if self._held else self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
            "scaler": self.scaler,
        }
        for name, part in parts.items():
            if part is not None and name not in but and name in state:
                self._load(name, part, state)
        if "scheduler" in but and "optimizer" not in but and self.optimizer and not self._held:
            self._schedule_again(self.optimizer)

    def _load(self, name: str, part: Any, state: Mapping[str, Any]) -> None:
        """Load the optimiser, the scheduler, the average or the scaler.

        Raises:
            CheckpointError: If it was saved from a different kind.
        """
        try:
            if isinstance(part, Scheduler):
                part.load_state_dict(state[name], self.optimizer)
            else:
                if isinstance(part, Optimizer):
                    check_optimizer(part, state[name], name)
                load_part(part, state[name])
            if isinstance(part, Optimizer):
                load_optimizer_fields(part, state.get("optimizer_fields", {}), beside=self.agent)
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint's {name} does not fit this run's: {error}. Resume with the "
                "settings it was saved with, or take only its weights: load=PATH."
            ) from error

    def _schedule_again(self, optimizer: Optimizer) -> None:
        """Start this run's schedule, although the saved one has left its rates in the optimiser."""
        for group, _ in zip(optimizer.param_groups, self._built_with, strict=False):
            group.pop("initial_lr", None)
        self._restore_options(optimizer)
        if self.scheduler is not None:
            self.scheduler.attach(optimizer)

    def _load_gradients(self, state: Mapping[str, Any]) -> None:
        """Restore the accumulated gradients."""
        self._pending, accumulate = state.get("pending", (0, 1))
        saved = state.get("gradients", {})
        for name, parameter in self.agent.named_parameters():
            if name in saved:
                # They were scaled for a mean over the saved run's `accumulate`, which may differ.
                grad = torch.empty_like(parameter).copy_(saved[name])
                # They are the sum over all ranks, so only one of them may add it to the next sum.
                share = accumulate / self.accumulate if ranks().rank == 0 else 0.0
                parameter.grad = grad.mul_(share)


_SECOND_BACKWARD = (
    "{}.learn returned a loss that was back-propagated already, in this step or through what it keeps of an "
    "earlier one. Return the loss without calling backward (Antelope does, and steps the optimiser), or "
    "update the model in learn and return None; `detach()` what is kept from step to step."
)
