"""Lets `run.agent.act(obs)` take observations in the environment's units after `normalize_obs=true`.

While a run learns, it normalises both batches and the input of `act`. Afterwards the user calls `act` in a
loop of their own, so the module itself has to carry the statistics: in an instance attribute `act`, which
shadows its class's method while the run is not learning.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar

from torch import nn

from ...replay import Normalizer
from ...replay.batch import Tensors
from ..traits import hook


class RawAct:
    """A module's `act` for observations that are not normalised yet.

    It is copied and pickled with the module.

    Args:
        agent: The module whose `act` it wraps.
        normalizer: The statistics of the run's observations.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    def __init__(self, agent: nn.Module, normalizer: Normalizer):
        # A strong reference, like any bound method's: in `antelope.load(path).agent.act(obs)` nothing
        # else keeps the module alive.
        self._agent, self.normalizer = agent, normalizer

    def __call__(self, obs: Tensors, *args: Any, **kwargs: Any) -> Any:
        return _of_class(self._agent)(self.normalizer.obs(obs), *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> RawAct:
        # A module that is being copied is in the memo before its attributes are copied.
        agent = memo.get(id(self._agent), self._agent)
        return RawAct(agent, copy.deepcopy(self.normalizer, memo))

    def __reduce__(self) -> Any:
        return RawAct, (self._agent, self.normalizer)


def takes_raw(agent: nn.Module, normalizer: Normalizer | None) -> None:
    """Make the module's `act`, if it has one, take observations in the environment's own units."""
    if normalizer is None or not normalizer.moments or hook(agent, "act") is None:
        return
    if hook(type(agent), "act") is not None and "act" not in vars(agent):
        agent.act = RawAct(agent, normalizer)  # type: ignore[assignment]


def takes_normalised(agent: object) -> None:
    """Restore the class's `act`, which takes normalised observations."""
    if isinstance(getattr(agent, "__dict__", {}).get("act"), RawAct):
        delattr(agent, "act")


def statistics_of(agent: object) -> Normalizer | None:
    """The statistics that a run left with the module, if any did."""
    act = getattr(agent, "__dict__", {}).get("act")
    return act.normalizer if isinstance(act, RawAct) else None


def own_act(agent: nn.Module) -> Any:
    """The module's `act` for normalised observations; None if it has none."""
    act = hook(agent, "act")
    return _of_class(agent) if isinstance(act, RawAct) else act


def _of_class(agent: nn.Module) -> Any:
    return inspect.getattr_static(type(agent), "act").__get__(agent, type(agent))
