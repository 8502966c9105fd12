"""A trained model as a policy, from an environment's own observations to its own actions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from ...agents.policy.masks import ACTION_MASK
from ...envs.frames import Frames
from ...envs.info_values import InfoFault, Rows
from ...envs.infos import Infos
from ...envs.interface import Interface
from ...envs.spaces import Codec, zeros
from ...replay import ConfigError, DataError
from ...replay.field_names import IN
from ...replay.transfer import as_array
from ...replay.tree import map_tree
from ..learn.actor import Actor
from ..learn.learner import Learner

_LARGEST = float(np.finfo(np.float32).max)


class Policy:
    """Acts greedily, as in evaluation, on an environment's own observations and with its own actions.

    Handles frame stacks, image layout, one-hot choices, running statistics, recurrent states and the range
    of actions.

    Args:
        learner: Holds the model.
        observe: Turns stored observations `[N, *shape]` into the model's input.
        interface: The environment's spaces, and how its values are stored.
        resting: Whether the model is in evaluation mode already, with averaged weights if there are any.
        layout: State of the layout of the `info` fields that the run kept; None: it kept none.
    """

    def __init__(
        self,
        learner: Learner,
        observe: Callable[..., Any],
        interface: Interface,
        *,
        resting: Callable[[], bool],
        layout: dict[str, Any] | None = None,
    ):
        self.learner, self.interface, self._resting = learner, interface, resting
        self._actor = Actor(learner, observe)
        self._infos: Infos | None = None
        # A mask also concerns models without `act`: it restricts which of their scores compete.
        if layout is not None and (self._actor.informed or ACTION_MASK in interface.env_info):
            self._infos = Infos(interface.env_info, interface.action_codec.space)
            self._infos.layout.load_state_dict(layout)
        self._n: int | None = (
            None  # Environments observed at once; None: the next observation decides.
        )
        self._began = np.ones(0, np.bool_)
        self._frames: Frames | None = None
        self._acted = 0  # Actions since an episode began.
        self.stateful = interface.stack > 1 or learner.recurrence is not None

    def reset(self, began: object = None) -> None:
        """Begin new episodes with the next observation.

        Args:
            began: Which copies of a vector environment begin one, bool `[N]`; None: all.

        Raises:
            ConfigError: If it is not a bool for each of the environments observed so far.
        """
        if began is not None and self.stateful and self._n is not None:
            began = np.asarray(as_array(began))
            if began.shape != (self._n,) or began.dtype != np.bool_:
                raise ConfigError(
                    f"run.reset(began) received {began.dtype} {list(began.shape)}; expected a bool for "
                    f"each of the {self._n} environments, or no argument for all of them."
                )
            self._began |= began
            return
        if began is not None and not np.all(as_array(began)):
            return  # No episode has begun, or a stateless model remembers none.
        self._n, self._frames = None, None
        self._began = np.ones(0, np.bool_)
        self._actor.state = None
        self._acted = 0

    def act(self, obs: object, info: object = None) -> Any:
        """The action for an observation, both in the environment's own form.

        Args:
            obs: As `env.reset()` or `env.step()` returned it (arrays, tensors or lists), or as a vector
                environment of N copies did, `[N, ...]`.
            info: What was returned with it; needed if the model receives fields of it (`env_info`).

        Raises:
            DataError: If it is not an observation of the environment, or a field of `info` is missing.
            ConfigError: If the number of environments has changed without a `reset`.
        """
        stored, n = self._stored(obs)
        rows = 1 if n is None else n
        fields = None if self._infos is None else self._fields(self._infos, info, n)
        if self.stateful and self._n is not None and rows != self._n:
            raise ConfigError(
                f"run.act received observations of {rows} environments, but of {self._n} before. Call "
                "run.reset() where new episodes begin."
            )
        if self.stateful and self.interface.longest is not None:
            self._check_episode()
        if self._n != rows:
            self._n, self._began = rows, np.ones(rows, np.bool_)
        code, began = self.interface.obs_codec, self._began
        if self._frames is None:
            self._frames = Frames(code, rows, self.interface.stack)
            stored = self._frames.start(stored)
        else:
            stored = self._frames.push(stored, began if began.any() else None)
        with self._evaluating():
            action, _ = self._actor(stored, began, fields)
        self._began = np.zeros(rows, np.bool_)
        self._acted += 1
        if n is None:
            action = map_tree(lambda x: x[0], action)
        return self.interface.action_codec.native(action)

    def act_stored(self, obs: object, began: np.ndarray, info: Rows) -> Any:
        """Actions for stacked observations `[N, *shape]` in the form that replays store.

        Args:
            obs: The observations, in the dtype of the spec.
            began: `[N]` bool, whether each begins an episode.
            info: The fields of `info` that the model receives, `{name: [N, ...]}`.
        """
        with self._evaluating():
            return self._actor(obs, began, info)[0]

    @property
    def infos(self) -> Infos | None:
        """Reads the fields of `info` that the model receives; None where it receives none."""
        return self._infos

    def _fields(self, infos: Infos, info: Any, n: int | None) -> Rows:
        """The fields of `info` that the model receives, `{name: [N, ...]}`."""
        name = self.interface.name
        try:
            picked = [infos.pick(info)] if n is None else infos.of_vector(info or {}, n)
            for one in filter(None, picked):
                missing = [f for f in infos.layout.with_obs or () if f not in one.values]
                if missing:
                    asked = missing[0].replace(IN, "/")
                    there = ", ".join(map(str, one.others)) or "nothing"
                    raise DataError(
                        f"This model needs `{asked}` from the environment's info, but run.act received "
                        f"{there}. Call run.act(obs, info) with the info that env.reset() or env.step() of "
                        f"{name} returned with this observation."
                    )
            rows = infos.rows(picked)
        except InfoFault as fault:
            raise DataError(f"run.act: {name} {fault.what}.") from fault
        if (stuck := infos.stuck(rows, np.ones(len(picked), np.bool_))) is not None:
            raise DataError(f"run.act: `{stuck[1]}` in the info of {name} allows no action.")
        return rows

    def _check_episode(self) -> None:
        """Warn once if an episode goes on for longer than the environment allows.

        A call of `reset` is missing then: frames and state leak into the next episode without any other sign.
        """
        if self._began.any():
            self._acted = 0
        if self._acted != self.interface.longest:
            return
        warnings.warn(
            f"run.act was called {self._acted} times since an episode began, but {self.interface.name} "
            f"truncates episodes after {self.interface.longest} steps. This model remembers earlier "
            "observations of an episode: call run.reset() before the first observation of the next.",
            stacklevel=4,  # The line that called run.act.
        )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        agent = self.learner.agent
        if not self._resting():
            with self.learner.evaluating():
                yield
        elif agent.training:  # The caller has switched it on, and gets it back.
            modes = {module: module.training for module in agent.modules()}
            agent.eval()
            try:
                yield
            finally:
                for module, training in modes.items():
                    module.training = training
        else:
            yield

    def _stored(self, obs: object) -> tuple[Any, int | None]:
        """Observations `[N, *shape]` as a replay stores them, and N; None for a single one."""
        code = self.interface.obs_codec
        given = _as_arrays(obs)
        try:
            stored = code.stored(given)
        except KeyError as error:
            raise DataError(self._blame(obs, f"{error} is missing")) from error
        except Exception as error:
            raise DataError(self._blame(obs, f"{type(error).__name__}: {error}")) from error
        counts: set[int | None] = set()
        rows = _filled(code, stored, counts, lambda why: DataError(self._blame(obs, why)))
        if len(counts) != 1:
            raise DataError(
                self._blame(obs, "some parts hold several observations, others a single one")
            )
        (n,) = counts
        return (map_tree(lambda x: x[None], rows) if n is None else rows), n

    def _blame(self, obs: object, why: str) -> str:
        interface = self.interface
        if isinstance(obs, tuple) and len(obs) in (2, 5) and isinstance(obs[-1], dict):
            why = f"it is all that env.{'reset' if len(obs) == 2 else 'step'}() returned"
        return (
            f"run.act received {_described(obs)}, which is not an observation of {interface.name}: "
            f"{why.rstrip('.')}. "
            f"Its observations are {interface.observation}; give one as env.reset() and env.step() return "
            "it, after the environment's wrappers, or those of N environments at once."
        )


class Policies:
    """The policies of a run, one for each environment of its sequence.

    Args:
        learner, observe, resting, layout: See `Policy`.
        interfaces: The interface of each environment, in order.
    """

    def __init__(
        self,
        learner: Learner,
        observe: Callable[..., Any],
        interfaces: list[Interface],
        *,
        resting: Callable[[], bool],
        layout: dict[str, Any] | None = None,
    ):
        self._make = lambda i: Policy(learner, observe, i, resting=resting, layout=layout)
        self.interfaces = interfaces
        self._made: dict[int, Policy] = {}

    def number(self, task: int | None) -> int:
        """The number of an environment of the sequence, from 0; None: the last one.

        Raises:
            ConfigError: If no environment has that number.
        """
        count = len(self.interfaces)
        if task is None:
            return count - 1
        if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < count:
            names = ", ".join(f"{i} ({known.name})" for i, known in enumerate(self.interfaces))
            raise ConfigError(f"task={task!r}: this run's environments are {names}.")
        return task

    def of(self, task: int | None) -> Policy:
        """The policy in an environment of the sequence; None: in any, if their spaces are equal.

        Raises:
            ConfigError: If the spaces differ, or no environment has that number.
        """
        if task is None:
            last = self.interfaces[-1]
            for known in self.interfaces[:-1]:
                if (known.observation, known.action) != (last.observation, last.action):
                    raise ConfigError(
                        "This run's environments differ in their spaces: say which one this is, as in "
                        f"run.act(obs, task={len(self.interfaces) - 1}) for {last.name}."
                    )
        number = self.number(task)
        if number not in self._made:
            self._made[number] = self._make(self.interfaces[number])
        return self._made[number]

    def new(self, task: int | None) -> Policy:
        """A new policy that shares no state with others, at an episode's start."""
        return self._make(self.interfaces[self.number(task)])

    def reset(self, began: object) -> None:
        for policy in self._made.values():
            policy.reset(began)


def _as_arrays(obs: object) -> Any:
    """The observation with tensors as NumPy arrays; the rest unchanged."""
    if isinstance(obs, Tensor):
        return obs.detach().cpu().numpy()
    if isinstance(obs, Mapping):
        return {name: _as_arrays(part) for name, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(_as_arrays(part) for part in obs)
    return obs


def _filled(
    code: Codec,
    value: Any,
    counts: set[int | None],
    refused: Callable[[str], Exception],
    at: str = "",
) -> Any:
    """Stored values in arrays of the space's own types, checked.

    Args:
        counts: Receives the number of observations in each part; None: a single one, without `[N]`.
        refused: Makes the error for a reason.
        at: Path of this part, for messages: `['arm']`.
    """
    if code.parts is not None:
        return {
            name: _filled(part, value[name], counts, refused, f"{at}[{name!r}]")
            for name, part in code.parts.items()
        }
    value, it = np.asarray(value), f"obs{at}" if at else "it"
    many = value.ndim == len(code.shape) + 1
    if value.shape[many:] != code.shape:
        raise refused(f"{it} does not have shape {list(code.given)}")
    counts.add(len(value) if many else None)
    whole = value.dtype.kind in "iub" and code.dtype.kind in "iu"
    if not whole and not np.can_cast(value.dtype, code.dtype, "same_kind"):
        raise refused(f"{it} has dtype {value.dtype}, not {code.dtype}")
    low, high = code.low, code.high
    if value.dtype.kind == "f":
        if not np.isfinite(value).all():
            raise refused(f"{it} holds NaN or infinity")
        # Bounds of floats are often wrong; only what float32 rounds to infinity does harm.
        low, high = (-_LARGEST, _LARGEST) if value.dtype.itemsize > 4 else (None, None)
    elif low is None and code.dtype.kind in "iu":
        low, high = np.iinfo(code.dtype).min, np.iinfo(code.dtype).max
    if low is not None and not ((value >= low) & (value <= high)).all():
        raise refused(f"{it} is out of bounds, with values from {value.min()} to {value.max()}")
    rows = zeros(code, len(value)) if many else np.zeros(code.shape, code.dtype)
    rows[...] = value
    return rows


def _described(obs: object) -> str:
    """An observation in a few words."""
    if isinstance(obs, Mapping):
        return "{" + ", ".join(f"{name}: {_described(part)}" for name, part in obs.items()) + "}"
    if isinstance(obs, tuple):
        return "(" + ", ".join(map(_described, obs)) + ")"
    if isinstance(obs, (np.ndarray, np.generic, Tensor)):
        kind = str(obs.dtype).removeprefix("torch.")
        return f"{kind} {list(obs.shape)}" if obs.shape else f"the {kind} {obs}"
    text = repr(obs)
    size = f" of {len(obs)}" if isinstance(obs, Sized) else ""
    return text if len(text) < 60 else f"a {type(obs).__name__}{size}"
