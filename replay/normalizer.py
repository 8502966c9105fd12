"""Running statistics that scale observations to unit variance and rewards by that of their returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batch import Tensors
from .devices import has_float64
from .ranks import ranks
from .structure import array, count, fields, misfit, optional
from .transfer import upload
from .tree import Path, at_path, path_of

_EPSILON = 1e-8
_CLIP = 10.0  # In standard deviations; the usual bound in the literature.


class Normalizer:
    """Statistics of all observations acted on in training; evaluation only reads them.

    Transitions are stored in their own units and normalised when a batch is gathered, so that old
    transitions follow the newest statistics.

    - Observations: `(x - mean) / stddev`, clipped to 10 standard deviations; images, choices and booleans are
      unchanged.
    - Rewards: divided by the standard deviation of the discounted return `G_t = gamma G_{t-1} + r_t`, which
      preserves their sign (Engstrom et al. 2020, arXiv 2005.12729).

    Args:
        shapes: Shapes of the observations to normalise, by their names in `named_leaves`: "" for a single
            one, `part/of/part` in nested dicts.
        num_envs: Number of environments, N.
        discount: gamma, a float in [0, 1].
        obs, reward: Whether to normalise each of them.
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
        # On several devices with environments of their own: what this one has seen since `merge`. All use
        # the same statistics in between.
        self._since: dict[str, Moments] = {}
        self.discount = discount
        self._return = np.zeros(num_envs)

    def see(self, obs: Tensors) -> None:
        """Update the statistics with observations `[N, *shape]` (or a dict of them)."""
        if ranks().own:
            for name, moments in self.moments.items():
                self._new(f"obs/{name}", moments).add(at_path(obs, path_of(name)))
            return
        for path, moments in self._by_path.items():
            moments.add(at_path(obs, path))

    def see_rewards(
        self, reward: np.ndarray, done: np.ndarray, real: np.ndarray | None = None
    ) -> None:
        """Update them with a step's rewards `[N]`, of environments that made a step (`real`; None: all)."""
        if self.returns is None or (real is not None and not real.any()):
            return
        self._return = self.discount * self._return + reward
        returns = self._new("returns", self.returns) if ranks().own else self.returns
        returns.add(self._return if real is None else self._return[real])
        self._return[done] = 0.0

    def merge(self) -> None:
        """Add what every rank has seen since the last call, in the order of the ranks; else nothing."""
        place = ranks()
        if not place.own:
            return
        streams, seen = self._streams(), {n: m.state_dict() for n, m in self._since.items()}
        for states in place.objects(seen):
            for name, state in states.items():
                streams[name].merge(Moments.of(state))
        self._since = {}

    def _new(self, name: str, moments: Moments) -> Moments:
        """What this rank has seen of a stream since the last `merge`."""
        return self._since.setdefault(name, Moments(moments.squares.shape))

    def _streams(self) -> dict[str, Moments]:
        streams = {f"obs/{name}": moments for name, moments in self.moments.items()}
        return streams if self.returns is None else {**streams, "returns": self.returns}

    def cut(self, which: np.ndarray | None = None) -> None:
        """Restart the returns of `which` environments, bool `[N]`, or of all: their episodes do not go on."""
        if self.returns is not None:
            self._return[slice(None) if which is None else which] = 0.0

    def obs(self, obs: Tensors) -> Any:
        """Observations `[..., *shape]`, or dicts of them, normalised where there are statistics."""
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
        kept = {name: moments.state_dict() for name, moments in self._streams().items()}
        since = {name: moments.state_dict() for name, moments in self._since.items()}
        return {"moments": kept, "return": self._return, **({"since": since} if since else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept, streams = state["moments"], self._streams()
        for name, moments in streams.items():  # All of them, before the first is changed.
            moments.check(kept.get(name), name)
        if np.shape(state["return"]) != np.shape(self._return):
            misfit("normalizer.return", state["return"], f"{np.shape(self._return)} numbers")
        for name, moments in streams.items():
            moments.load_state_dict(kept[name])
        self._since = {name: Moments.of(seen) for name, seen in state.get("since", {}).items()}
        self._return = np.array(state["return"], np.float64)


class Moments:
    """Mean and variance of a stream, in float64, merged batch by batch (Chan et al. 1979).

    Integers and float64 are taken relative to the first value: float64 cannot represent nanoseconds since
    1970, and the mean of 1e9 + 1e-3 x would lose digits of x, a few more at every step.

    Attributes:
        base: Origin of the mean, int64 or float64 `[*shape]`; None: zero.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.base: np.ndarray | None = None
        self.count = 0
        self._mean = np.zeros(shape)  # Relative to `base`.
        self.squares = np.zeros(shape)  # Sum of squared differences from the mean.
        # The mean and the standard deviation, on the device that last used them.
        self._ready: dict[str, Tensor] | None = None

    @property
    def variance(self) -> np.ndarray:
        return self.squares / self.count if self.count else np.ones_like(self.squares)

    @property
    def mean(self) -> np.ndarray:
        """The mean, float64 `[*shape]`, relative to zero."""
        return self._mean if self.base is None else self.base + self._mean

    def add(self, rows: np.ndarray) -> None:
        """Merge rows `[N, *shape]` into the statistics."""
        rows = np.asarray(rows)
        if not self.count and (rows.dtype.kind in "iu" or rows.dtype == np.float64):
            self.base = np.array(rows[0], np.int64 if rows.dtype.kind in "iu" else np.float64)
        rows = np.asarray(rows if self.base is None else rows - self.base, np.float64)
        mean = rows.mean(0)
        self._join(len(rows), mean, ((rows - mean) ** 2).sum(0))

    def merge(self, other: Moments) -> None:
        """Merge the statistics of other rows into these."""
        if not other.count:
            return
        if not self.count:
            self.base = other.base
        mean = other._mean
        if self.base is not None and other.base is not None:
            mean = mean + np.asarray(other.base - self.base, np.float64)
        self._join(other.count, mean, other.squares)

    def _join(self, n: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + n
        delta = mean - self._mean
        self.squares = self.squares + squares + delta**2 * (self.count * n / total)
        self._mean = self._mean + delta * (n / total)
        self.count = total
        self._ready = None

    @classmethod
    def of(cls, state: dict[str, Any]) -> Moments:
        """Those with this state."""
        moments = cls(np.shape(state["squares"]))
        moments.load_state_dict(state)
        return moments

    def normalize(self, x: Tensor) -> Tensor:
        """Normalised values, float32 `[..., *shape]`, on the device of `x`.

        The mean is subtracted before any rounding: from float64 and integers in float64, and from float32
        in two parts, the first of which has the magnitude of `x`.
        """
        if self._ready is None or self._ready["parts"].device != x.device:
            high = self._mean.astype(np.float32)
            stddev = np.sqrt(self.variance + _EPSILON)
            parts = np.stack((high, self._mean - high, stddev)).astype(np.float32)
            ready = {"parts": torch.from_numpy(parts), "mean": torch.as_tensor(self._mean)}
            if self.base is not None:
                ready["base"] = torch.as_tensor(self.base)
            self._ready = upload(ready, x.device)
        high_part, low_part, stddev = self._ready["parts"]
        if self.base is not None:
            x = x - self._ready["base"]
        if x.dtype in (torch.float32, torch.float16, torch.bfloat16):
            centred = (x.float() - high_part).sub_(low_part)
        elif has_float64(x.device.type):
            centred = (x.to(torch.float64) - self._ready["mean"]).float()
        else:  # Integers: the base is subtracted as an integer.
            whole = high_part.round().long()
            centred = (x - whole).float() - ((high_part - whole) + low_part)
        return centred.div_(stddev).clamp_(-_CLIP, _CLIP)

    def state_dict(self) -> dict[str, Any]:
        state = {"count": self.count, "mean": self._mean, "squares": self.squares}
        return state if self.base is None else {**state, "base": self.base}

    def check(self, state: Any, name: str) -> None:
        """Check a state against these statistics, which are not changed.

        Raises:
            CheckpointError: With the name, if its shapes differ.
        """
        part = array("fiu", *self._mean.shape)
        form = fields({"count": count, "mean": part, "squares": part}, {"base": optional(part)})
        form(state, f"normalizer.{name}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self._mean = np.array(state["mean"], np.float64)
        self.squares = np.array(state["squares"], np.float64)
        base = state.get("base")
        self.base = None if base is None else np.array(base)
        self._ready = None
