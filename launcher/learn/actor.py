"""Acts for a model. Training and evaluation each have their own actor, and so their own episodes."""

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
from ...replay import ConfigError, Space
from ...replay.transfer import as_array, download, upload
from ...replay.tree import map_tree
from .choices import choose
from .infos import Info
from .learner import Learner


class Actor:
    """Chooses actions for N environments, and carries a recurrent model's state through episodes.

    Args:
        observe: From stored observations `[N, *shape]` to those that the model receives; on an
            accelerator called as `observe(obs, device)`.
        as_stored: Whether the model receives observations as they are stored, so `observe` is skipped.

    Attributes:
        informed: Whether the model's actions depend on fields of `info`.
    """

    def __init__(self, learner: Learner, observe: Callable[..., Any], *, as_stored: bool = False):
        self.learner, self._observe = learner, observe
        self._act = own_act(learner.agent)
        # Without fields, `info` is passed only to an `act` that requires it: dicts take time, too.
        self.informed, self._always = takes_info(self._act), needs_info(self._act)
        if self._act is None:  # `choose` then needs the field `action_mask`.
            self.informed = True
        self._name = type(learner.agent).__name__
        self._device = learner.device
        self._moves = learner.device.type != "cpu"
        # Skipped where they do nothing: an action of a small network takes 20 microseconds in all.
        self._autocast, self._as_stored = learner.autocast, as_stored
        # Dtype and shape of checked actions that needed no conversion.
        self._usual: tuple[torch.dtype, tuple[int, ...]] | None = None
        self.state: State = None  # After the last step; None: at the start.

    def __call__(
        self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Actions for N environments, and the extras that `act` returned with them.

        Args:
            obs: Stored observations, arrays `[N, *shape]`, nested like the space.
            began: Which of the observations are an episode's first, bool `[N]`.
            info: Fields of `info` that came with them, `{name: [N, ...]}`; None: no fields.

        Returns:
            Arrays: actions `[N, *action.shape]` as int64 choices or float32 values; extras `[N, ...]`.

        Raises:
            ConfigError: If `act` returned something other than actions of the space.
        """
        # Directly: `with torch.no_grad()` takes several calls in Python to do this.
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
            return array, {}  # Actions of this dtype and shape have been checked before.
        n = len(began)
        action, extras = result if isinstance(result, tuple) else (result, {})
        if self._moves:  # In a single copy, since each one waits for the device.
            action, extras = download({"action": action, "extras": extras}).values()
        checked = checked_action(action, self.learner.spec.action, n, self._name)
        if isinstance(action, Tensor) and action.dtype in (torch.int64, torch.float32):
            self._usual = (action.dtype, tuple(action.shape))
        return checked, {name: checked_extra(x, n, self._name, name) for name, x in extras.items()}

    def _result(self, obs: Any, began: np.ndarray, info: dict[str, np.ndarray] | None) -> Any:
        """What the model's `act` returns, or the actions that its `forward`'s output stands for."""
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
        """Actions of a recurrent model, and extras with the packed state from before the step."""
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
        # Stored with the step, so that a sequence drawn from here on starts in this state.
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


def checked_action(action: Any, space: Space | dict[str, Any], n: int, name: str) -> Any:
    """The actions that `act` returned, as arrays: int64 choices, float32 values.

    Args:
        action: Tensors or arrays `[n, *value_shape]`, nested like the space.
        n: Number of observations that it received.
        name: Name of the model, for errors.

    Raises:
        ConfigError: With what was expected and what `act` returned.
    """
    if isinstance(space, dict):
        keys = action.keys() if isinstance(action, dict) else None
        if keys != space.keys():
            given = f"a {type(action).__name__}" if keys is None else sorted(keys)
            raise ConfigError(f"{name}.act returned {given}; expected a dict with {sorted(space)}.")
        return {
            key: checked_action(action[key], part, n, f"{name} ({key})")
            for key, part in space.items()
        }
    array = as_array(action)
    if array.shape != (wanted := (n, *space.value_shape)):
        raise ConfigError(
            f"{name}.act returned actions {list(array.shape)} for {n} observations; expected "
            f"{list(wanted)}: {space}."
        )
    if not space.discrete:
        return array.astype(np.float32, copy=False)
    if array.dtype.kind not in "iub":
        raise ConfigError(
            f"{name}.act returned {array.dtype} actions; expected whole numbers: {space}."
        )
    return array.astype(np.int64, copy=False)


def checked_extra(value: object, n: int, name: str, extra: str) -> Any:
    """An extra that `act` returned beside the actions, as arrays.

    Args:
        value: Tensors or arrays `[n, ...]`, or nested dicts of them.
        n: Number of observations that `act` received.

    Raises:
        ConfigError: If its first dimension is not n.
    """
    if isinstance(value, dict):
        return {key: checked_extra(x, n, name, f"{extra}/{key}") for key, x in value.items()}
    array = as_array(value)
    if array.shape[:1] != (n,):
        raise ConfigError(
            f"{name}.act returned the extra `{extra}` {list(array.shape)} for {n} observations; expected "
            f"[{n}, ...]."
        )
    return array
