"""Finds the optimisers that a user's module holds, and the one that should step a loss it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ...replay import ConfigError
from ..assembly.optimisation import refuse_closures

Places = tuple[tuple[Any, Any, Any], ...]  # The holder, the key, and the held object, outside in.


class OwnOptimizers:
    """Finds optimisers of the module's own parameters among its attributes and those of its parts.

    Args:
        agent: The module, which may create one later, in `begin_task` or its first `learn`.
        asked: Settings of an optimiser that the user gave too, such as `lr`.
        given: The optimiser that the user gave as an instance, or None.

    Attributes:
        found: The optimisers, by attribute name.
        stepped: Whether one of them has stepped since the caller last set this to False.
        changed: Whether to look again.
        before_step: Called with an optimiser before each of its steps; or None.
    """

    def __init__(self, agent: nn.Module, asked: list[str], given: object = None):
        self.agent, self.asked, self._given = agent, asked, given
        self.found: dict[str, Optimizer] = {}
        self.stepped, self.changed = False, True
        self.before_step: Callable[[Optimizer], None] | None = None
        self._chosen: Optimizer | None = None
        self._places: dict[int, Places] = {}
        self._handles: list[Any] = []
        self.look()

    def look(self) -> None:
        """Find them again."""
        self.close()
        self._places = {}
        # Frozen parameters do not count: a target network copies the optimiser with its part.
        own = {id(p) for p in self.agent.parameters() if p.requires_grad}
        found: dict[str, Optimizer] = {}
        for name, value, places in _held(self.agent):
            # Held under two names it is still one optimiser.
            if not isinstance(value, Optimizer) or id(value) in map(id, found.values()):
                continue
            if any(id(p) in own for group in value.param_groups for p in group["params"]):
                found[name] = value
                self._places[id(value)] = places
        self.found = found
        # A wrapper may not have called Optimizer's constructor, but the optimiser inside it has.
        stepping = [x for o in found.values() for x in (o, *vars(o).values())]
        hooked = [
            x
            for x in stepping
            if isinstance(x, Optimizer) and hasattr(x, "_optimizer_step_post_hooks")
        ]
        self._handles = [x.register_step_post_hook(self._step) for x in hooked]
        if (before := self.before_step) is not None:
            self._handles += [
                x.register_step_pre_hook(lambda optimizer, *_: before(optimizer)) for x in hooked
            ]

    def close(self) -> None:
        """Remove the hooks from the optimisers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _step(self, *_: Any) -> None:
        self.stepped = True

    @property
    def only(self) -> Optimizer | None:
        """The single optimiser found, which steps losses unless settings contradict; else None."""
        return next(iter(self.found.values())) if len(self.found) == 1 else None

    def stepping(self) -> Optimizer | None:
        """The optimiser to step for the loss that `learn` has returned; None: the run's.

        Raises:
            ConfigError: If `learn` has stepped one itself, or it is unclear which one should step.
        """
        if self.stepped:
            raise ConfigError(
                f"{self._name}.learn stepped its optimiser ({self._shown}) and also returned its "
                "loss, so Antelope would step it again. Return None (and set `log.loss = loss`), "
                "or return the loss without calling backward and step."
            )
        if self.changed or (self._chosen is not None and not self._is_held(self._chosen)):
            self.look()
            self.changed = False
            self._chosen = self._choose()
        return self._chosen

    def _is_held(self, optimizer: Optimizer) -> bool:
        """Whether the module still holds it: a model may replace its optimiser in a later `learn`."""
        try:
            return all(owner[key] is x for owner, key, x in self._places[id(optimizer)])
        except (KeyError, IndexError):
            return False

    def _choose(self) -> Optimizer | None:
        held = self._shown
        if not self.found or self._given in self.found.values():
            return None
        if len(self.found) > 1:
            raise ConfigError(
                f"{self._name} holds several optimisers ({held}), and its learn returned a loss: "
                "which one should step? Step them in learn, and return None."
            )
        if self.asked:
            given = " and ".join(f"{key}=" for key in self.asked)
            raise ConfigError(
                f"{self._name} holds an optimiser ({held}) and returned its loss, but {given} is "
                f"given too: which should step? Leave {given} out, and {held} steps; or remove "
                f"{held}; or step it in learn, and return None."
            )
        optimizer = self.only
        assert optimizer is not None
        refuse_closures(type(optimizer))
        return optimizer

    @property
    def _name(self) -> str:
        return type(self.agent).__name__

    @property
    def _shown(self) -> str:
        return " and ".join(f"`self.{attribute}`" for attribute in self.found)

    def warn_of_schedulers(self) -> None:
        """Warn of schedulers that the module holds and that were never stepped."""
        for name, value, _ in _held(self.agent):
            if not isinstance(value, LRScheduler) or value.optimizer not in self.found.values():
                continue
            parts = getattr(value, "_schedulers", [value])
            if all(getattr(part, "last_epoch", 1) <= 0 for part in parts):
                warnings.warn(
                    f"`self.{name}` of {type(self.agent).__name__} has never been stepped: Antelope steps "
                    "the optimiser that a model holds, not its scheduler. Give scheduler= instead, or step "
                    "it in learn.",
                    stacklevel=2,
                )


def _held(agent: nn.Module) -> Iterable[tuple[str, Any, Places]]:
    """The attributes of a module and its parts that torch does not know, lists and dicts opened."""
    for prefix, part in agent.named_modules():
        for name, value in vars(part).items():
            if name.startswith("_") and name in _TORCHS:
                continue
            path = f"{prefix}.{name}" if prefix else name
            place = (vars(part), name, value)
            items: Iterable[tuple[Any, Any]] = ()
            if isinstance(value, (list, tuple)):
                items = enumerate(value)
            elif isinstance(value, dict):
                items = value.items()
            else:
                yield path, value, (place,)
            for key, item in items:
                yield f"{path}[{key!r}]", item, (place, (value, key, item))


_TORCHS = frozenset(vars(nn.Module()))
