"""Environment steps: one stream of observations per environment, in a ring.

Legend: T rows kept per environment, N environments. A row is one (place, environment) pair,
`row = place * N + e`. Every environment advances through its places at its own pace.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .blocks import Field, SavedColumns, changed_blocks, parts_of, rows_per_block
from .columns import BOOTSTRAP_OFFSET, Columns
from .device_columns import DeviceColumns
from .errors import CheckpointError, ConfigError
from .field_names import IN, named, nested
from .saved_transitions import check_transitions
from .spec import Spec
from .stacks import Stacks
from .transfer import Empty
from .tree import map_tree
from .window import Window

_MARKS = 8  # Saved states whose changes are known, at most.
_PATIENCE = 100  # Draws after which to check whether any row can be drawn at all.
_MANY = 4096  # Changes that may be queued for a listener.
_MOST = 254  # Largest number of frames per stack, and of rewards per return.
_ENDS = ("terminated", "truncated")  # Fields that an n-step return takes from its last step.
# Fields of a batch that `act` cannot return.
_OURS = {
    "obs",
    "next_obs",
    "discount",
    "task",
    "index",
    "weight",
    "mask",
    "is_first",
    BOOTSTRAP_OFFSET,
}


class Transitions:
    """A ring of environment steps that stores each observation once.

    The observation after a step is stored in the next row. An episode's last observation has a row of its
    own, which is never drawn, and the next episode starts in the row after it. So no transition, n-step
    return, frame stack or sequence spans two episodes, and there is no column for `next_obs`.

    n-step returns are accumulated when steps are added (`reward` is `sum_k discount^k r_k`), so that drawing
    them costs no more than single steps. A row can be drawn once it is final.

    Args:
        spec: Shapes and types of observations and actions; observations are stacks of frames.
        capacity: Rows to keep, over all environments; each episode's last observation takes one more row.
        num_envs: Number of environments, N.
        discount: Per-step discount gamma, a float in [0, 1]; `discount` in a batch is `gamma^n`, or 0 where
            the episode terminated.
        nstep: Rewards per return.
        stack: Frames per observation; single frames are stored.
        storage: "ram", "mmap" (a file, may be larger than RAM) or "gpu" (on `device`).
        folder: The folder for the file of "mmap".

    Attributes:
        origin: SHA-256 of its contents, if they came from elsewhere and nothing is added to them.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        capacity: int,
        num_envs: int,
        discount: float,
        nstep: int = 1,
        stack: int = 1,
        storage: str = "ram",
        folder: str | None = None,
        device: torch.device | str = "cpu",
    ):
        if not (1 <= nstep <= _MOST and 1 <= stack <= _MOST):
            raise ConfigError(f"nstep={nstep} and frame_stack={stack} must be from 1 to 254.")
        self.num_envs, self.discount, self.nstep, self.stack = num_envs, discount, nstep, stack
        # One more than requested: the newest row holds only the upcoming observation.
        self.length = max(-(-capacity // num_envs) + 1, nstep + stack + 2)
        self.size = self.length * num_envs
        self._where: dict[str, Any] = {
            "storage": storage,
            "folder": folder,
            "device": torch.device(device),
        }
        self._obs = dict(named("obs", spec.obs))
        self._stacked = [n for n, s in self._obs.items() if stack > 1 and s.numeric]
        self._usual: Any = None  # Names of a step's fields that are known to be valid.
        self.columns: Columns | DeviceColumns | None = None  # Allocated once all fields are known.
        self.drawable = np.zeros(self.size, np.bool_)  # Rows that can be drawn,
        self._num_drawable = 0  # and how many there are: counting ten million takes a millisecond.
        self.first = np.zeros(self.size, np.bool_)  # Rows that begin an episode.
        self.first[:num_envs] = True
        self._stacks = Stacks(stack, num_envs, self.first, overlap=nstep == 1)
        # Fields of `info`, stored in the rows of the observations that they came with.
        self._beside: tuple[str, ...] = ()
        # While all environments are at the same place, a single number locates it, and writes are slices.
        self._at: int | None = 0
        # The row being filled in each environment, once they differ.
        self._rows = np.arange(num_envs)
        self._time = np.zeros(num_envs, np.int64)  # Rows that each environment has filled,
        self._ticks = 0  # and rows that all have filled in addition.
        self._high = 0  # Rows below it have been written.
        self.new_steps = 0  # Steps of all environments since the last rollout.
        self._pending = np.zeros(num_envs, np.int64)  # Latest rows that are not final yet.
        self._rollout_start = np.zeros(num_envs, np.int64)  # `time` at the last rollout.
        self._borders: dict[int, np.ndarray] = {}  # `time` when each task began.
        self.oldest = 0  # The first task that is drawn from,
        self._window: Window | None = None  # and its rows and those after it; None: all.
        self._first: dict[str, np.ndarray] = {}  # To be stored once there are columns.
        self._powers = [discount**k for k in range(nstep + 1)]
        # Queue of rows that became final (True) or were overwritten (False), in order; None: no listener.
        self.changes: list[tuple[np.ndarray, bool]] | None = None
        self.follow: Callable[[], None] | None = None  # Called when many of them wait.
        self.lock = threading.RLock()  # A reader in another thread sees whole rows only.
        self.origin: str | None = None
        # `time` in earlier saved states, by their marks: tells which blocks have not changed since.
        self._marks: dict[str, np.ndarray] = {}

    # ---------------------------------------------------------------- writing

    def start(self, obs: Any, *, info: Mapping[str, np.ndarray] | None = None) -> None:
        """Begin new episodes in every environment with `obs` `[N, *shape]` (or a dict of them).

        Args:
            info: Fields that came with them, `{name: [N, ...]}`.
        """
        with self.lock:
            first = dict(named("obs", obs)) | dict(info or {})
            if self.columns is None:
                self._first = {name: np.array(value) for name, value in first.items()}
                self._beside = tuple(info or ())
                return
            self._cut()
            self._begin(np.ones(self.num_envs, np.bool_), first)

    def begin_task(self, task: int) -> None:
        """Assign steps added from now on to this task, and to the next rollout."""
        with self.lock:
            self._borders[task] = self.time.copy()
            self._rollout_start, self.new_steps = self.time.copy(), 0

    def cut(self, which: np.ndarray) -> None:
        """End the episodes of these environments, bool `[N]`, with their last step, which becomes truncated.

        The next `add` says that they made no step, and where their next episodes begin.
        """
        with self.lock:
            if self.columns is not None:
                self._cut(which)

    def draw_from(self, oldest: int) -> None:
        """Draw only from this task and those after it, from now on."""
        border = self._borders.get(oldest) if oldest else None
        with self.lock:
            self.oldest = oldest
            self._window = None if border is None else Window(border, self.length)

    def add(
        self,
        step: Mapping[str, Any],
        *,
        task: int = 0,
        began: np.ndarray | None = None,
        first: Any = None,
        real: np.ndarray | None = None,
        info: Mapping[str, np.ndarray] | None = None,
        first_info: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Store one step of every environment.

        Args:
            step: `action`, `reward`, `terminated`, `truncated`, `next_obs`, each `[N, ...]` or a dict of
                arrays, and any extras that `act` returned. At an episode's end, `next_obs` is its real
                last observation, not the next episode's first.
            task: Number of the task that the step belongs to.
            began: Environments that started a new episode after the step, bool `[N]`.
            first: Their first observations, `[N, ...]`.
            real: Environments that made this step at all, bool `[N]`; None: all.
            info: Fields that came with `next_obs`, as in `start`; batches hold them and `next_<name>`.
            first_info: Fields that came with `first`.
        """
        with self.lock:
            if step.keys() == self._usual:  # Checked before.
                fields = {**step}
                next_obs = {"obs": fields.pop("next_obs")}
            else:
                fields, next_obs = self._checked(step, info), dict(named("obs", step["next_obs"]))
            if info is not None:
                next_obs.update(info)
            assert self.columns is not None
            at: Any  # Rows filled by this step, and rows of the observations after it.
            if real is None and self._at is not None:
                at = slice(self._at, self._at + self.num_envs)
                self._at = (self._at + self.num_envs) % self.size
                after: Any = slice(self._at, self._at + self.num_envs)
                self._ticks += 1
            else:
                at, after = self._advance(real)
                if real is not None:
                    fields = {name: np.asarray(value)[real] for name, value in fields.items()}
                    next_obs = {name: np.asarray(value)[real] for name, value in next_obs.items()}
            fields["task"], fields["discount"] = task, self.discount
            if np.count_nonzero(fields["terminated"]):
                fields["discount"] = np.where(fields["terminated"], 0.0, self.discount)
            self.columns.write(at, fields)
            if self.nstep > 1:
                self._fold(self._numbers(at), fields, real)
            elif self.changes is None:
                self.drawable[at] = True  # A row that is being filled was never drawable.
                self._num_drawable += self.num_envs if real is None else len(at)
            else:
                self._set_drawable(at, True)
            self._store(after, next_obs, first=False)
            self.new_steps += 1 if real is None else int(real.any())
            if began is not None and began.any():
                self._begin(began, dict(named("obs", first)) | dict(first_info or {}))

    def _advance(self, real: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Advance environments, each from its own place; returns the rows filled now, and the next rows.

        Args:
            real: Environments to advance, bool `[N]`; None: all.
        """
        self._spread()
        which = slice(None) if real is None else real
        at = self._rows[which].copy()
        self._rows[which] = after = (at + self.num_envs) % self.size
        self._time[which] += 1
        return at, after

    def _checked(
        self, step: Mapping[str, Any], info: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, Any]:
        """The step's fields by the names of columns, checked against those of earlier steps."""
        fields = {key: part for key, part in step.items() if key != "next_obs"}
        for key in [key for key, part in fields.items() if isinstance(part, dict)]:
            fields.update(named(key, fields.pop(key)))
        if self.columns is None:
            self._allocate(fields, info or {})
        if fields.keys() != self._given:
            raise ConfigError(
                f"`act` returned {_words(fields)} with this step, but {_words(self._given)} before: it must "
                "return the same extras every time."
            )
        if self._flat:
            self._usual = fields.keys() | {"next_obs"}
        return fields

    @property
    def on_device(self) -> bool:
        """Whether batches are gathered on the device."""
        return isinstance(self.columns, DeviceColumns)

    @property
    def rows(self) -> np.ndarray:
        """The row being filled in each environment, `[N]`."""
        return self._rows if self._at is None else np.arange(self._at, self._at + self.num_envs)

    @property
    def time(self) -> np.ndarray:
        """Number of rows that each environment has filled so far, int64 `[N]`."""
        return self._time + self._ticks

    def _spread(self) -> None:
        """Track each environment's place separately from now on."""
        self._rows, self._at = self.rows, None

    @staticmethod
    def _numbers(rows: Any) -> np.ndarray:
        return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows

    def _fold(self, rows: np.ndarray, fields: Mapping[str, Any], real: np.ndarray | None) -> None:
        """Add this step's reward to the returns that include it; mark rows that are now final."""
        columns, last = self.columns, self.nstep - 1
        assert columns is not None
        reward = np.asarray(fields["reward"], np.float32)
        terminated = fields["terminated"]
        done = np.logical_or(terminated, fields["truncated"])
        keep = 1.0 - np.asarray(terminated, np.float32)
        final = [rows[done]]
        columns.write(rows, {BOOTSTRAP_OFFSET: self.num_envs})
        pending = self._pending if real is None else self._pending[real]
        for k in range(1, self.nstep):
            waiting = pending >= k
            if not waiting.any():
                break
            before = (rows[waiting] - k * self.num_envs) % self.size
            columns.add_to("reward", before, self._powers[k] * reward[waiting])
            discount = self._powers[k + 1] * keep[waiting]
            columns.write(before, {"discount": discount, BOOTSTRAP_OFFSET: (k + 1) * self.num_envs})
            final.append(before if k == last else before[done[waiting]])
        pending = np.where(done, 0, np.minimum(pending + 1, last))
        if real is None:
            self._pending = pending
        else:
            self._pending[real] = pending
        for became in final:
            self._set_drawable(became, True)

    def _set_drawable(self, rows: Any, drawable: bool) -> None:
        """Set whether rows, int64 without duplicates, can be drawn."""
        before = self.drawable[rows]
        self._num_drawable += (len(before) if drawable else 0) - int(np.count_nonzero(before))
        self.drawable[rows] = drawable
        if self.changes is None:
            return
        rows = self._numbers(rows).copy()  # A copy: the caller reuses its array.
        if len(rows):
            self.changes.append((rows, drawable))
            if self.follow is not None and len(self.changes) > _MANY:
                self.follow()

    def _store(self, rows: Any, obs: Mapping[str, Any], *, first: bool) -> None:
        """Store observations in rows, overwriting the oldest ones."""
        assert self.columns is not None
        self.columns.write(rows, obs)
        self.first[rows] = first
        self._set_drawable(rows, False)
        if self.stack > 1:  # The newest row whose stack still includes this one.
            oldest = self._numbers(rows) + (self.stack - 1) * self.num_envs
            self._set_drawable(oldest % self.size, False)

    def _begin(self, which: np.ndarray, obs: Mapping[str, Any]) -> None:
        """Start an episode in the next row of these environments."""
        if self._at is not None and which.all():
            self._at = (self._at + self.num_envs) % self.size
            self._ticks += 1
            self._store(slice(self._at, self._at + self.num_envs), obs, first=True)
        else:
            self._spread()
            after = (self._rows[which] + self.num_envs) % self.size
            self._store(after, {n: np.asarray(v)[which] for n, v in obs.items()}, first=True)
            self._rows[which] = after
            self._time[which] += 1
        self._pending[which] = 0

    def _cut(self, which: np.ndarray | None = None) -> None:
        """End episodes in progress: they count as truncated, and their last returns are shorter.

        Args:
            which: Environments, bool `[N]`; None: all.
        """
        assert self.columns is not None
        rows = self.rows
        which = np.ones(self.num_envs, np.bool_) if which is None else which
        last = (rows[which & ~self.first[rows]] - self.num_envs) % self.size
        terminated = self.columns.peek("terminated", last)
        self.columns.write(last, {"truncated": ~terminated})
        for k in range(1, self.nstep):
            waiting = which & (self._pending >= k)
            self._set_drawable((rows[waiting] - k * self.num_envs) % self.size, True)

    def _allocate(self, fields: Mapping[str, Any], info: Mapping[str, np.ndarray]) -> None:
        if taken := _OURS & {name.split(IN)[0] for name in fields}:
            raise ConfigError(
                f"`act` returned an extra named {_words(taken)}, which batches already have: rename it."
            )
        found = self._obs_fields()
        for name, value in {**fields, **info}.items():
            value = np.asarray(value)
            found[name] = (value.shape[1:], value.dtype)
        found["reward"] = found["discount"] = ((), np.dtype(np.float32))
        found["task"] = ((), np.dtype(np.int64))
        # Number of rows from a return to the `next_obs` that it bootstraps from.
        if self.nstep > 1:
            found[BOOTSTRAP_OFFSET] = ((), np.dtype(np.int32))
        self._make_columns(found)
        self._store(self.rows, self._first, first=True)
        self._first = {}

    def _make_columns(self, fields: Mapping[str, Field]) -> None:
        storage, device = self._where["storage"], self._where["device"]
        if storage == "gpu":
            self.columns = DeviceColumns(fields, self.size, device)
        else:
            self.columns = Columns(
                fields,
                self.size,
                unpacked=[*self._obs, *self._beside],
                # A mapped field is saved in its own order, without a copy.
                num_envs=1 if storage == "mmap" else self.num_envs,
                mapped=storage == "mmap",
                folder=self._where["folder"],
            )
        by_obs = {*self._obs, *self._beside}
        self._given = {n for n in fields.keys() - by_obs if n.split(IN)[0] not in _OURS}
        self._others = [name for name in fields if name not in by_obs and name != BOOTSTRAP_OFFSET]
        self._pairs = [name for name in self._obs if name not in self._stacked] + [*self._beside]
        self._flat = not any(IN in name for name in fields)

    def _obs_fields(self) -> dict[str, Field]:
        """Observations as they are stored: single frames."""
        fields: dict[str, Field] = {}
        for name, space in self._obs.items():
            shape = space.value_shape
            if name in self._stacked:
                shape = (shape[0] // self.stack, *shape[1:])
            fields[name] = (shape, _numpy_dtype(space.dtype))
        return fields

    # ---------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return self._num_drawable if self._window is None else len(self.drawable_rows())

    def drawable_rows(self) -> np.ndarray:
        """The rows that can be drawn, int64, oldest first."""
        if self._window is not None:
            rows = self._window.rows(self.time)
        else:  # Starting after the newest place, whether the ring is full or not.
            oldest = (int(self.rows.max()) // self.num_envs + 1) * self.num_envs
            rows = np.roll(np.arange(self.size), -oldest)
        return rows[self.drawable[rows]]

    def outside(self) -> np.ndarray | None:
        """Rows of tasks that are not drawn from, bool `[rows]`; None if there are none."""
        if self._window is None:
            return None
        return ~self._window.holds(np.arange(self.size), self.time)

    def draw(self, n: int, generator: torch.Generator) -> np.ndarray:
        """`n` drawable rows, int64, uniformly and with replacement.

        Draws from the filled part of the ring and rejects the few rows that are not final, rather than
        maintain a list of drawable rows per environment.

        Raises:
            ConfigError: If no row can be drawn.
        """
        if self._window is not None:
            return self._drawn(n, self._window, generator)
        if self._high < self.size:
            # Python's max: NumPy's overhead dominates for a few environments.
            longest = max(self._time.tolist()) + self._ticks
            self._high = min(longest, self.length) * self.num_envs
        if (high := self._high) == 0:
            raise ConfigError("There is no transition to draw yet: raise seed_steps.")
        more = n + n // 8 + 8  # More than needed, since a few are not final.
        index, attempts = np.empty(0, np.int64), 0
        while len(index) < n:
            attempts += 1
            if attempts == _PATIENCE and not self._num_drawable:
                raise ConfigError(
                    "The replay holds no transition that can be drawn yet: raise seed_steps or capacity."
                )
            drawn = torch.empty(more, dtype=torch.int64).random_(high, generator=generator)
            rows: np.ndarray = drawn.numpy()
            rows = rows[self.drawable.take(rows)]
            index = np.concatenate((index, rows)) if len(index) else rows
        return index[:n]

    def _drawn(self, n: int, window: Window, generator: torch.Generator) -> np.ndarray:
        """`draw` from a part of the ring."""
        time, found, attempts = self.time, np.empty(0, np.int64), 0
        if window.empty(time):
            raise ConfigError("There is no transition of this task to draw yet: raise seed_steps.")
        while len(found) < n:
            attempts += 1
            if attempts == _PATIENCE and not len(self):
                raise ConfigError(
                    "The replay holds no transition of this task that can be drawn yet: raise seed_steps or "
                    "capacity."
                )
            rows = window.draw(n + n // 8 + 8, time, generator)
            found = np.concatenate((found, rows[self.drawable.take(rows)]))
        return found[:n]

    def gather(
        self,
        index: np.ndarray | Tensor,
        *,
        empty: Empty | None = None,
        by_step: bool = False,
    ) -> dict[str, Any]:
        """The transitions at `index` (int64 `[B]`), `next_obs` and `index` included.

        Args:
            empty: Allocates the arrays that rows are gathered into; None: ordinary memory.
            by_step: Whether `terminated` and `truncated` describe the first step of an n-step return, not
                its last one.
        """
        columns, index = self.columns, np.asarray(index)
        assert columns is not None
        fields: dict[str, Any] = columns.gather(
            index,
            self.num_envs if self.nstep == 1 else None,
            names=self._others,
            pairs=self._pairs,
            stacked=self._stacked,
            frames=self._stacks.rows,
            empty=empty,
            ends=() if by_step or self.nstep == 1 else _ENDS,
            back=self.num_envs,
        )
        for name in self._stacked:
            fields[name], fields[f"next_{name}"] = self._stacks.split(fields[name], len(index))
        return fields if self._flat else nested(fields)

    def sequences(
        self, index: np.ndarray, length: int, *, empty: Empty | None = None
    ) -> dict[str, Any]:
        """`length` steps from each row of `index` on, `[B, length, ...]`.

        A sequence ends with its episode, or at the newest step; the remainder repeats its last step and is
        False in `mask`. `is_first` marks an episode's first step. `state`, if `act` stored one, is the state
        before the sequence, `[B, ...]`.
        """
        rows = (index[:, None] + np.arange(length) * self.num_envs) % self.size
        mask = np.logical_and.accumulate(self.drawable[rows], axis=1)
        last = mask.sum(1, keepdims=True) - 1
        rows = np.where(mask, rows, np.take_along_axis(rows, np.maximum(last, 0), axis=1))
        flat = rows.reshape(-1)
        fields = _shaped(self.gather(flat, empty=empty, by_step=True), (len(index), length))
        if "state" in fields:
            fields["state"] = map_tree(lambda x: x[:, 0], fields["state"])
        fields["mask"] = torch.from_numpy(mask)
        fields["is_first"] = torch.from_numpy(self.first[flat].reshape(mask.shape))
        return fields

    def rollout(self) -> dict[str, Any]:
        """Every step since the last call, `[T, N, ...]`, in order along T.

        `mask` is False where an environment has fewer steps than another, at the end of its column.
        `is_first` marks an episode's first step; `state` is the state before the rollout, `[N, ...]`.

        Raises:
            ConfigError: If there are no new steps, some were overwritten, or `nstep` is above 1.
        """
        if self.origin is not None:
            raise ConfigError(
                "replay.rollout() returns the steps since the last call; an offline run takes none: learn "
                "from next(replay)."
            )
        if self.nstep > 1:
            raise ConfigError("replay.rollout() needs single-step rewards: set nstep=1.")
        taken = self.time - self._rollout_start
        if self.new_steps == 0:
            raise ConfigError("replay.rollout(): nothing has happened since the last call.")
        # The oldest frame stacks must not reach into the row that is filled next.
        if taken.max() + self.stack > self.length:
            raise ConfigError(
                f"replay.rollout(): {self.new_steps} steps of {self.num_envs} environments do not fit into "
                f"the replay. Raise capacity to {int(taken.max() + self.stack - 1) * self.num_envs}."
            )
        columns = []
        for e, steps in enumerate(taken):
            rows = (self.rows[e] + np.arange(-steps, 0) * self.num_envs) % self.size
            columns.append(rows[self.drawable[rows]])
        longest = max(len(rows) for rows in columns)
        mask = np.arange(longest)[:, None] < np.array([len(rows) for rows in columns])
        # Pad a short column by repeating its last transition.
        filled = [np.pad(r, (0, longest - len(r)), "edge") if len(r) else None for r in columns]
        some = next(r for r in filled if r is not None)
        index = np.stack([some if r is None else r for r in filled], axis=1)
        fields = _shaped(self.gather(index.reshape(-1)), index.shape)
        if "state" in fields:  # As in a sequence, the state before it.
            fields["state"] = map_tree(lambda x: x[0], fields["state"])
        fields["mask"] = torch.from_numpy(mask)
        fields["is_first"] = torch.from_numpy(self.first[index])
        self._rollout_start, self.new_steps = self.time.copy(), 0
        return fields

    # ---------------------------------------------------------------- keeping

    def state_dict(self) -> dict[str, Any]:
        """The full state, including the filled rows of every column.

        The columns are read only when they are needed (`SavedColumns`), as they are then.
        """
        with self.lock:
            filled = min(int(self.time.max()) + 1, self.length) * self.num_envs
            return {
                "length": self.length,
                "num_envs": self.num_envs,
                "discount": self.discount,
                "nstep": self.nstep,
                "stack": self.stack,
                "fresh": self.new_steps,
                "beside": list(self._beside),
                "rows": self.rows,
                "time": self.time,
                "pending": self._pending,
                "mark": self._rollout_start,
                "borders": np.array(
                    [[task, *time] for task, time in self._borders.items()], np.int64
                ).reshape(-1, 1 + self.num_envs),
                "oldest": self.oldest,
                "ok": self.drawable[:filled],
                "first": self.first[:filled],
                "columns": {} if self.columns is None else self._saved(self.columns, filled),
                "first_obs": self._first,
            }

    def _saved(self, columns: Columns | DeviceColumns, filled: int) -> SavedColumns:
        mark = secrets.token_hex(16)
        self._mark(mark)
        return SavedColumns(
            columns.fields,
            filled,
            columns.read,
            block_rows=rows_per_block(columns.fields, self.size, self.num_envs),
            align=self.num_envs,
            mark=mark,
            changed_since=self._changed_since,
        )

    def _mark(self, mark: str) -> None:
        """Remember that the rows are now as in the saved state of this mark."""
        self._marks[mark] = self.time.copy()
        while len(self._marks) > _MARKS:
            del self._marks[next(iter(self._marks))]

    def _changed_since(self, mark: str) -> set[int] | None:
        """The blocks of `_saved` that rows were written to since a state was saved; None: it is unknown."""
        if (before := self._marks.get(mark)) is None or self.columns is None:
            return None
        # The row after the newest holds its observation; those up to `nstep` before, returns that grew.
        steps = self.time - before + self.nstep + 2
        newest = (self.rows // self.num_envs + 1) % self.length
        block_rows = rows_per_block(self.columns.fields, self.size, self.num_envs)
        return changed_blocks(
            newest.tolist(),
            steps.tolist(),
            length=self.length,
            block=block_rows // self.num_envs,
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            CheckpointError: If the saved replay has other sizes than this one.
        """
        for key, setting in (
            ("num_envs", "num_envs"),
            ("nstep", "nstep"),
            ("stack", "frame_stack"),
            ("length", "capacity"),
        ):
            if state[key] != getattr(self, key):
                raise CheckpointError(
                    f"The saved replay has {key} {state[key]}, this one {getattr(self, key)}. Resume "
                    f"with the `{setting}` it was saved with."
                )
        check_transitions(state, num_envs=self.num_envs, length=self.length)
        saved = state["columns"]
        fields = {name: (kept.shape[1:], kept.dtype) for name, kept in saved.items()}
        obs = {name: field for name, field in fields.items() if name.split(IN)[0] == "obs"}
        if fields and obs != self._obs_fields():
            raise CheckpointError(
                "The saved replay comes from an environment with other observations."
            )
        with self.lock:
            self.new_steps, self._high = state["fresh"], 0
            self._first = {name: np.array(kept) for name, kept in state["first_obs"].items()}
            self._beside = tuple(state.get("beside", ()))  # Absent in 0.4.0.
            self._rows, self._time, self._pending, self._rollout_start = (
                np.array(state[name], np.int64) for name in ("rows", "time", "pending", "mark")
            )
            start, self._ticks = int(self._rows[0]), 0
            together = np.array_equal(self._rows, np.arange(start, start + self.num_envs))
            self._at = start if together and start % self.num_envs == 0 else None
            self.drawable[:] = False  # Rows of this ring that the saved replay has not filled.
            for name, array in (("ok", self.drawable), ("first", self.first)):
                kept = np.asarray(state[name])
                array[: len(kept)] = kept
            self._num_drawable = int(np.count_nonzero(self.drawable))
            borders = np.array(state.get("borders", ()), np.int64)  # Since 0.5.0.
            self._borders = {int(row[0]): row[1:] for row in borders}
            self.draw_from(int(state.get("oldest", 0)))
            if self.columns is None or self.columns.fields != fields:
                self.columns = None
                if fields:
                    self._make_columns(fields)
            for name, kept in saved.items():
                assert self.columns is not None
                for start, part in parts_of(kept):
                    self.columns.restore(name, part, start)
            self._marks = {}
            if isinstance(saved, SavedColumns) and saved.mark:
                self._mark(saved.mark)


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _shaped(fields: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {n: map_tree(lambda x: x.reshape(*shape, *x.shape[1:]), f) for n, f in fields.items()}


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.zeros(0, dtype=dtype).numpy().dtype
