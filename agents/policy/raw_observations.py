"""`run.agent.act(obs)` on observations in the environment's own units, although it learnt normalised ones.

While a run learns, batches and what `act` receives are normalised for the module (`normalize_obs=true`).
Afterwards it is called by hand, in a plain loop, and the statistics have to come from somewhere: from an
attribute `act` of the module itself, in front of its class's method, for as long as the run rests.
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
    """The method `act` of a module, for observations that are not normalised yet.

    It goes along where the module is copied or pickled.

    Args:
        agent: Whose `act` it stands in for.
        normalizer: The statistics.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    def __init__(self, agent: nn.Module, normalizer: Normalizer):
        # Strong, as of any method: `antelope.load(path).agent.act(obs)` holds nothing else of the module.
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
    """Let the module's `act` take observations in the environment's own units, if it has one."""
    if normalizer is None or not normalizer.moments or hook(agent, "act") is None:
        return
    if hook(type(agent), "act") is not None and "act" not in vars(agent):
        agent.act = RawAct(agent, normalizer)  # type: ignore[assignment]


def takes_normalised(agent: object) -> None:
    """Let the module's `act` take what batches hold, as its class says."""
    if isinstance(getattr(agent, "__dict__", {}).get("act"), RawAct):
        delattr(agent, "act")


def statistics_of(agent: object) -> Normalizer | None:
    """The statistics that a run left with the module, if any did."""
    act = getattr(agent, "__dict__", {}).get("act")
    return act.normalizer if isinstance(act, RawAct) else None


def own_act(agent: nn.Module) -> Any:
    """The module's `act` on what batches hold; None if it has none."""
    act = hook(agent, "act")
    return _of_class(agent) if isinstance(act, RawAct) else act


def _of_class(agent: nn.Module) -> Any:
    return inspect.getattr_static(type(agent), "act").__get__(agent, type(agent))
