"""Running statistics that bring observations to unit scale and rewards to that of their returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batch import Tensors
from .devices import has_float64
from .transfer import upload
from .tree import Path, at_path, path_of

_EPSILON = 1e-8
_CLIP = 10.0  # Deviations; the field's usual bound.


class Normalizer:
    """Statistics of all observations that were acted on while training; evaluation reads them only.

    What is stored stays in its own units and is normalised when a batch is made, so that old
    transitions follow the newest statistics.

    - Observations: `(x - mean) / stddev`, clipped to 10 standard deviations; images, choices and truth values
      are left as they are.
    - Rewards: divided by the standard deviation of the discounted return `G_t = gamma G_{t-1} + r_t`, which
      keeps their sign (Engstrom et al. 2020, arXiv 2005.12729).

    Args:
        shapes: Shapes of the observations to be normalised, by their names as of `named_leaves`: ""
            where there is only one, `part/of/part` in nested dicts.
        num_envs: N.
        discount: gamma.
        obs, reward: Which of the two to normalise.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        num_envs: int,
        discount: float,
        obs: bool,
        reward: bool,
    ):
        self.moments = {name: Moments(shape) for name, shape in shapes.items()} if obs else {}
        self._by_path = {path_of(name): moments for name, moments in self.moments.items()}
        self.returns = Moments(()) if reward else None
        self.discount = discount
        self._return = np.zeros(num_envs)

    def see(self, obs: Tensors) -> None:
        """Take in observations `[N, *shape]` (or a dict of them)."""
        for path, moments in self._by_path.items():
            moments.add(at_path(obs, path))

    def see_rewards(
        self, reward: np.ndarray, done: np.ndarray, real: np.ndarray | None = None
    ) -> None:
        """Take in a step's rewards `[N]`, of those that made one (`real`; None: all)."""
        if self.returns is None or (real is not None and not real.any()):
            return
        self._return = self.discount * self._return + reward
        self.returns.add(self._return if real is None else self._return[real])
        self._return[done] = 0.0

    def cut(self) -> None:
        """Episodes in progress go no further."""
        if self.returns is not None:
            self._return[:] = 0.0

    def obs(self, obs: Tensors) -> Any:
        """Observations `[..., *shape]`, or dicts of them, with those that have statistics normalised."""
        return self._normalized((), obs) if self.moments else obs

    def _normalized(self, path: Path, obs: Tensors) -> Any:
        if isinstance(obs, dict):
            return {key: self._normalized((*path, key), part) for key, part in obs.items()}
        moments = self._by_path.get(path)
        return obs if moments is None else moments.normalize(obs)

    def reward(self, reward: Tensor) -> Tensor:
        """Rewards of any shape, scaled."""
        if self.returns is None:
            return reward
        stddev = float(np.sqrt(self.returns.variance + _EPSILON))
        return (reward / stddev).clamp(-_CLIP, _CLIP)

    def state_dict(self) -> dict[str, Any]:
        kept = {f"obs/{name}": moments.state_dict() for name, moments in self.moments.items()}
        if self.returns is not None:
            kept["returns"] = self.returns.state_dict()
        return {"moments": kept, "return": self._return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, moments in self.moments.items():
            moments.load_state_dict(state["moments"][f"obs/{name}"])
        if self.returns is not None:
            self.returns.load_state_dict(state["moments"]["returns"])
        self._return = np.array(state["return"], np.float64)


class Moments:
    """Mean and variance of a stream, in float64, merged batch by batch (Chan et al. 1979).

    Whole numbers and float64 are counted from the first of them: float64 cannot hold nanoseconds since
    1970, and the mean of 1e9 + 1e-3 x would lose the digits of x, a little more at every step.

    Attributes:
        base: Where the mean is counted from, int64 or float64 `[*shape]`; None: from zero.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.base: np.ndarray | None = None
        self.count = 0
        self._mean = np.zeros(shape)  # From the base.
        self.squares = np.zeros(shape)  # Sum of squared differences from the mean.
        # The mean and the standard deviation, where they were last used.
        self._ready: dict[str, Tensor] | None = None

    @property
    def variance(self) -> np.ndarray:
        return self.squares / self.count if self.count else np.ones_like(self.squares)

    @property
    def mean(self) -> np.ndarray:
        """float64 `[*shape]`, counted from zero."""
        return self._mean if self.base is None else self.base + self._mean

    def add(self, rows: np.ndarray) -> None:
        """Rows `[N, *shape]`."""
        rows = np.asarray(rows)
        if not self.count and (rows.dtype.kind in "iu" or rows.dtype == np.float64):
            self.base = np.array(rows[0], np.int64 if rows.dtype.kind in "iu" else np.float64)
        rows = np.asarray(rows if self.base is None else rows - self.base, np.float64)
        n, mean = len(rows), rows.mean(0)
        total = self.count + n
        delta = mean - self._mean
        self.squares = (
            self.squares + ((rows - mean) ** 2).sum(0) + delta**2 * (self.count * n / total)
        )
        self._mean = self._mean + delta * (n / total)
        self.count = total
        self._ready = None

    def normalize(self, x: Tensor) -> Tensor:
        """float32 `[..., *shape]`, where `x` is.

        The mean is taken off before anything is rounded: of float64 and integers in float64, and of
        float32 in two parts, of which the first has the size of what it is taken off.
        """
        if self._ready is None or self._ready["parts"].device != x.device:
            high = self._mean.astype(np.float32)
            stddev = np.sqrt(self.variance + _EPSILON)
            parts = np.stack((high, self._mean - high, stddev)).astype(np.float32)
            ready = {"parts": torch.from_numpy(parts), "mean": torch.as_tensor(self._mean)}
            if self.base is not None:
                ready["base"] = torch.as_tensor(self.base)
            self._ready = upload(ready, x.device)
        high_part, low_part, deviation = self._ready["parts"]
        if self.base is not None:
            x = x - self._ready["base"]
        if x.dtype in (torch.float32, torch.float16, torch.bfloat16):
            centred = (x.float() - high_part).sub_(low_part)
        elif has_float64(x.device.type):
            centred = (x.to(torch.float64) - self._ready["mean"]).float()
        else:  # Integers: whole numbers are taken off as such.
            whole = high_part.round().long()
            centred = (x - whole).float() - ((high_part - whole) + low_part)
        return centred.div_(deviation).clamp_(-_CLIP, _CLIP)

    def state_dict(self) -> dict[str, Any]:
        state = {"count": self.count, "mean": self._mean, "squares": self.squares}
        return state if self.base is None else {**state, "base": self.base}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self._mean = np.array(state["mean"], np.float64)
        self.squares = np.array(state["squares"], np.float64)
        base = state.get("base")
        self.base = None if base is None else np.array(base)
        self._ready = None
