"""Copies of an environment in processes of their own, where what they return is checked."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import cloudpickle
import gymnasium
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from ..replay import ConfigError
from .checked import CHECKED_STEPS, Fault, describe_error, reset_into, step_into
from .info_values import InfoFault
from .infos import Infos
from .spaces import codec, zeros
from .unseen import seen, seen_value

PICKED = "picked"  # The key under which a worker sends the fields of its environment's info.
_UNTIL_SAVED_S = 60  # How long a process outlives the SIGTERM that the run received too.
_SAFE, _OURS = "PYTHONSAFEPATH", "antelope"  # Any value works; this one says that we have set it.
_PATIENCE_S = 5.0  # How long to wait for a process to end or to report its error.


class Workers(AsyncVectorEnv):
    """A process for each copy; an error in one becomes a `Fault` that names the copy.

    Resets are requested explicitly, so that episodes and their seeds equal those of copies in one process.

    Args:
        make: Builds one environment.
        num_envs: Number of processes, N.
        channels: "first" or "last", as in `codec`; None: inferred.
        infos: Reads the fields of `info` to store, `{name: [...]}`; None: there are none.

    Raises:
        Fault: If a process ends before its environment is open.
        ConfigError: If the environment cannot be pickled for a process that does not start as a copy.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        num_envs: int,
        channels: str | None = None,
        infos: Infos | None = None,
    ):
        forks = can_fork()
        registered = {} if forks else registered_here()
        first = functools.partial(Worker, make, os.getpid(), registered, channels, infos)
        try:
            with nullcontext() if forks else started_afresh():
                super().__init__(
                    [first] * num_envs,
                    autoreset_mode=AutoresetMode.DISABLED,
                    context="fork" if forks else "spawn",
                )
        except (EOFError, OSError) as error:
            fault = lost_worker(self)
            terminate(self)
            raise fault from error
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            if forks or "pickle" not in str(error):
                raise
            terminate(self)
            raise ConfigError(
                f"vectorization=async sends the environment to other processes, but it cannot be pickled: "
                f"{error}. Create what it needs inside the function or class, or use vectorization=sync."
            ) from error

    def play_again(self, seeds: list[int], actions: list[list[Any]]) -> tuple[Any, ...]:
        """Replay an episode in every copy from its seed and actions; returns the last observations."""
        for pipe, *arguments in zip(self.parent_pipes, seeds, actions, strict=True):
            # gymnasium's `call` sends the same arguments to all; here each copy has its own.
            pipe.send(("_call", ("play_again", arguments, {})))
        self._state = AsyncState.WAITING_CALL
        return self.call_wait()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        # gymnasium would raise `type(error)(error)`, which fails for classes with other arguments, and would
        # not say which copy it was.
        failed = list(successes).count(False)
        if not failed:
            return
        errors = [self.error_queue.get(timeout=_PATIENCE_S) for _ in range(failed)]
        copy, _, error, trace = min(errors, key=lambda error: error[0])
        fault = Fault(
            error.what if isinstance(error, Fault) else f"raised {describe_error(error)}", copy
        )
        fault.add_note(trace)
        raise fault


def can_fork() -> bool:
    """Whether a process may start as a copy of this one (fork), which takes milliseconds.

    Not once a GPU is in use: the copy inherits a context that it can neither use nor leave, and locks
    that threads of the driver hold.
    """
    started = torch.cuda.is_initialized() or torch.xpu.is_initialized()
    return sys.platform == "linux" and not started


@contextmanager
def started_afresh() -> Iterator[None]:
    """Inside, new processes do not run the calling script again, which may lack `if __name__` guards.

    They import nothing from the working directory before they have this process's path: Python would search
    it first, also for its own `multiprocessing`.
    """
    main, safe = sys.modules["__main__"], os.environ.get(_SAFE)
    os.environ[_SAFE] = safe or _OURS
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Modules loaded from a path have no importable name, so cloudpickle has to send their code.
    own = {m.__name__: m for name, m in list(sys.modules.items()) if os.sep in name}
    for name in own.keys() & cloudpickle.list_registry_pickle_by_value():
        del own[name]
    for module in own.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if safe is None:
            del os.environ[_SAFE]
        for module in own.values():
            cloudpickle.unregister_pickle_by_value(module)


def find_as_usual() -> None:
    """In a new process: programs that the environment starts find their files as they would without us."""
    if os.environ.get(_SAFE) == _OURS:
        del os.environ[_SAFE]


def registered_here() -> dict[str, Any]:
    """Environments registered in this process only: a spawned process has just gymnasium's own."""
    own = ("gymnasium.", "ale_py")
    return {
        name: spec
        for name, spec in gymnasium.registry.items()
        if not str(spec.entry_point).startswith(own)
    }


def _end_later(signum: int, frame: FrameType | None) -> None:
    """End this process once the run has had the time to save itself and to close its environments."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_UNTIL_SAVED_S)


class Worker(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment of one process. Any exception becomes a `Fault` there, which can be pickled."""

    def __init__(
        self,
        make: Callable[..., Any],
        parent: int,
        registered: dict[str, Any],
        channels: str | None = None,
        infos: Infos | None = None,
    ):
        if os.getpid() != parent:
            find_as_usual()
            for name, spec in registered.items():
                gymnasium.registry.setdefault(name, spec)
            # Ctrl-C reaches all processes of a terminal; only the run decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # So do a cluster's SIGTERM, and SIGHUP from a terminal that is closed. Without its environments,
            # the run could not finish its step and save.
            if os.name == "posix":
                for number in (signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, _end_later)
        super().__init__(make())
        self._code = codec(self.observation_space, "observations", channels=channels)
        self.observation_space = seen(self.observation_space)
        self._row = zeros(self._code, 1)
        self._checks_left, self._infos = CHECKED_STEPS, infos

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = reset_into(self.env, seed, self._row, 0, self._code)
        return seen_value(self._code, obs), self._picked(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._checks_left -= 1
        check_bounds = self._checks_left >= 0
        obs, *rest, info = step_into(
            self.env, action, self._row, 0, self._code, check_bounds=check_bounds
        )
        return seen_value(self._code, obs), *rest, self._picked(info)

    def _picked(self, info: Any) -> dict[str, Any]:
        if self._infos is None:
            return {}
        try:
            return {PICKED: self._infos.pick(info)}
        except InfoFault as fault:
            raise Fault(fault.what) from None

    def play_again(self, seed: int, actions: list[Any]) -> Any:
        """The observation at the end of the actions; None if the environment raised on the way."""
        try:
            obs, _ = self.reset(seed=seed)
            for action in actions:
                obs = self.step(action)[0]
        except Fault:
            return None
        return obs


def lost_worker(envs: Any) -> Fault:
    """The fault of a process that has ended: which one, and how."""
    # Its pipe closes a moment before its exit code is known.
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for copy, process in enumerate(getattr(envs, "processes", [])):
            if (code := process.exitcode) is not None:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return Fault(f"has lost its process, which ended with {how}", copy)
        time.sleep(0.01)
    return Fault("has lost a process")


def terminate(envs: AsyncVectorEnv) -> None:
    """End the processes, whatever they are doing (gymnasium's own `close` would wait for dead ones)."""
    if envs.closed:
        return
    envs.closed = True  # First of all: gymnasium's `__del__` closes what is not marked so.
    started = [process for process in envs.processes if process.pid is not None]
    for process in started:
        process.kill()  # It ignores SIGTERM for a while.
    for pipe in envs.parent_pipes:
        if pipe is not None:
            pipe.close()
    for process in started:
        process.join()
