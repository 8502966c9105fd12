"""Acts for a model, in training or in evaluation: each has its own place in the episodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...agents.policy.masks import ACTION_MASK
from ...agents.policy.raw_observations import own_act
from ...agents.policy.states import State
from ...agents.traits import needs_info, takes_info
from ...replay import ConfigError
from ...replay.transfer import as_array, download, upload
from ...replay.tree import map_tree
from .choices import choose
from .infos import Info
from .learner import Learner


class Actor:
    """Chooses actions for N environments, and carries a recurrent model's state through episodes.

    Args:
        observe: Makes stored observations what the model receives; on an accelerator it is told
            which, `observe(obs, device)`.
        as_stored: Whether they are that already.

    Attributes:
        informed: Whether the model's actions depend on fields of `info`.
    """

    def __init__(self, learner: Learner, observe: Callable[..., Any], *, as_stored: bool = False):
        self.learner, self._observe = learner, observe
        self._act = own_act(learner.agent)
        # Given nothing where there is nothing, unless `act` cannot do without: dicts take time, too.
        self.informed, self._always = takes_info(self._act), needs_info(self._act)
        if self._act is None:  # Of a forward's output, those that `action_mask` allows are chosen.
            self.informed = True
        self._name = type(learner.agent).__name__
        self._device = learner.device
        self._moves = learner.device.type != "cpu"
        # Spared where they do nothing: an action of a small network takes twenty microseconds.
        self._autocast, self._as_stored = learner.autocast, as_stored
        # Type and shape of actions that needed no conversion.
        self._usual: tuple[torch.dtype, tuple[int, ...]] | None = None
        self.state: State = None  # After the last step; None: at the start.

    def __call__(
        self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Actions for stored observations `[N, *shape]`, and what `act` gave with them.

        Args:
            began: Which of the observations are an episode's first, bool `[N]`.
            info: Fields of `info` that came with them, `{name: [N, ...]}`; None: there are none.

        Raises:
            ConfigError: If `act` gave something else than actions of the space.
        """
        # `with torch.no_grad()` does this in Python, three times.
        differentiated = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            if self._autocast is nullcontext:
                result = self._result(obs, began, info)
            else:
                with self._autocast():
                    result = self._result(obs, began, info)
        finally:
            torch._C._set_grad_enabled(differentiated)
        usual = self._usual
        if (
            usual is not None
            and type(result) is Tensor
            and result.is_cpu
            and result.dtype is usual[0]
            and (array := result.numpy()).shape == usual[1]
        ):
            return array, {}  # Its like has been checked before.
        n = len(began)
        action, extras = result if isinstance(result, tuple) else (result, {})
        if self._moves:  # All of it in one copy, for which the device is waited for once.
            action, extras = download({"action": action, "extras": extras}).values()
        checked = checked_action(action, self.learner.spec.action, n, self._name)
        if isinstance(action, Tensor) and action.dtype in (torch.int64, torch.float32):
            self._usual = (action.dtype, tuple(action.shape))
        return checked, {name: checked_extra(x, n, self._name, name) for name, x in extras.items()}

    def _result(self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None) -> Any:
        """What the model's `act` gives, or what its `forward` means."""
        learner = self.learner
        if self._moves:
            tensor = self._observe(map_tree(torch.from_numpy, obs), self._device)
        elif self._as_stored:
            tensor = torch.from_numpy(obs)
        else:
            tensor = self._observe(map_tree(torch.from_numpy, obs))
        if learner.recurrence is not None:
            return self._recurrent(tensor, began, info)
        if self._act is None:
            mask = Info.of(info, self._device).get(ACTION_MASK) if info else None
            return choose(learner.agent(tensor), learner, mask)
        if self.informed and (info or self._always):
            return self._act(tensor, info=Info.of(info, self._device))
        return self._act(tensor)

    def _recurrent(
        self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None
    ) -> tuple[Any, dict[str, Any]]:
        recurrence = self.learner.recurrence
        assert recurrence is not None
        if self.state is None:
            self.state = recurrence.zeros(len(began))
        if began.any():
            starts = torch.from_numpy(began)
            if self._moves:
                starts = upload(starts, self._device)
            self.state = recurrence.reset(self.state, starts)
        before = self.state
        extras: dict[str, Any] = {}
        if self._act is not None:
            more = {}
            if self.informed and (info or self._always):
                more["info"] = Info.of(info, self._device)
            action, *given, self.state = self._act(obs, before, **more)
            extras = given[0] if given else {}
        else:
            output, self.state = recurrence.step(obs, before)
            mask = Info.of(info, self._device).get(ACTION_MASK) if info else None
            action = choose(output, self.learner, mask)
        # Stored with the step: a sequence that starts here begins with this state.
        return action, {**extras, "state": recurrence.pack(before)}

    def state_dict(self) -> dict[str, Any]:
        recurrence = self.learner.recurrence
        if recurrence is None or self.state is None:
            return {}
        return {"state": recurrence.pack(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        recurrence = self.learner.recurrence
        if "state" in state and recurrence is not None:
            packed = {name: torch.as_tensor(part) for name, part in state["state"].items()}
            self.state = recurrence.unpack({n: p.to(self._device) for n, p in packed.items()})


def checked_action(action: Any, space: Any, n: int, name: str) -> Any:
    """What `act` gave for n observations, as arrays: int64 choices, float32 values.

    Raises:
        ConfigError: With what was expected and what came.
    """
    if isinstance(space, dict):
        if not isinstance(action, dict) or action.keys() != space.keys():
            given = sorted(action) if isinstance(action, dict) else f"a {type(action).__name__}"
            raise ConfigError(f"{name}.act gave {given}; expected a dict with {sorted(space)}.")
        return {
            key: checked_action(action[key], part, n, f"{name} ({key})")
            for key, part in space.items()
        }
    array = as_array(action)
    if array.shape != (wanted := (n, *space.value_shape)):
        raise ConfigError(
            f"{name}.act gave actions {list(array.shape)} for {n} observations; expected "
            f"{list(wanted)}: {space}."
        )
    if not space.discrete:
        return array.astype(np.float32, copy=False)
    if array.dtype.kind not in "iub":
        raise ConfigError(
            f"{name}.act gave actions of {array.dtype}; expected whole numbers: {space}."
        )
    return array.astype(np.int64, copy=False)


def checked_extra(value: Any, n: int, name: str, extra: str) -> Any:
    """What `act` gave beside the actions, as arrays `[N, ...]`.

    Raises:
        ConfigError: If there is not one for each observation.
    """
    if isinstance(value, dict):
        return {key: checked_extra(x, n, name, f"{extra}/{key}") for key, x in value.items()}
    array = as_array(value)
    if array.shape[:1] != (n,):
        raise ConfigError(
            f"{name}.act gave the extra `{extra}` {list(array.shape)} for {n} observations; expected "
            f"[{n}, ...]."
        )
    return array
