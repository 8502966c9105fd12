"""An environment in a process of its own, which can be ended whatever it is doing.

A hang in this process could only be left where it returns to Python: a signal does not reach code in C that
waits for a simulator. So with `env_timeout` every copy runs in another process. One that does not answer in
time is killed, with all processes that it has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper

from ..replay import ConfigError
from .checked import Fault, describe_error
from .identity import identity
from .opening import close
from .running import normalizes_obs, normalizes_rewards
from .time_limits import time_limit_of
from .workers import can_fork, find_as_usual, registered_here, started_afresh

_PATIENCE_S = 5.0  # How long a process may take to close its environment.
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux.
_open: set[Connection] = set()  # This process's ends of all pipes: forks must not keep them open.


class Apart(gymnasium.Env[Any, Any]):
    """One environment in another process.

    Args:
        make: Builds it, there.
        timeout: Seconds that it may take to open, to reset, or for a step; None: any number.
        arguments: Of `make`.

    Attributes:
        name: The id of the environment; None: it has none.
        identity: What tells it from other environments; see `identity`.
        time_limit: Its own limit of steps; None: unknown.
        normalizes: Which of "obs" and "rewards" gymnasium's wrappers normalise in it.

    Raises:
        ConfigError: If it cannot be built, or does not open in time.
    """

    name: str | None = None
    identity: dict[str, Any]
    time_limit: int | None = None
    normalizes: tuple[str, ...] = ()

    def __init__(self, make: Any, timeout: float | None, **arguments: Any):
        self._timeout, self._waiting, self._pipe = timeout, False, None
        forks = can_fork()
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self._pipe, theirs = context.Pipe()
        _open.add(self._pipe)
        main = threading.current_thread() is threading.main_thread()
        given = (CloudpickleWrapper(make), arguments, {} if forks else registered_here())
        self._process = context.Process(
            target=_serve, args=(theirs, os.getpid(), main, *given), daemon=True
        )
        try:
            with nullcontext() if forks else started_afresh():
                self._process.start()
            theirs.close()
            self._answer("open", None)  # It has started, which may take long with `spawn`.
            facts = self._answer("open", timeout)
        except Fault as fault:
            self.close()
            raise ConfigError(f"The environment {fault}.") from fault
        except BaseException:
            self.close()
            raise
        for name, value in facts.items():
            setattr(self, name, value)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._call("reset", seed=seed, options=options)

    def begin_step(self, action: Any) -> None:
        """Begin a step, whose result the next call of `step` returns."""
        self._send(("step", (action,), {}))

    def step(self, action: Any) -> Any:
        if not self._waiting:
            self.begin_step(action)
        return self._answer("step", self._timeout)

    def render(self) -> Any:
        return self._call("render")

    def close(self) -> None:
        """Close the environment; end its process if that takes more than five seconds."""
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        with contextlib.suppress(OSError, ValueError):
            if not self._waiting and self._process.is_alive():
                pipe.send(("close", (), {}))
                pipe.poll(_PATIENCE_S)
        pipe.close()
        _open.discard(pipe)
        _end(self._process)

    def __del__(self) -> None:
        if getattr(self, "_pipe", None) is not None:
            self.close()

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        self._send((name, arguments, named))
        return self._answer(name, self._timeout)

    def _send(self, message: Any) -> None:
        if self._pipe is None:
            raise Fault("is closed")
        try:
            self._pipe.send(message)
        except (OSError, ValueError) as error:
            raise self._lost() from error
        self._waiting = True

    def _answer(self, doing: str, limit: float | None) -> Any:
        """What the process returns.

        Raises:
            Fault: If it does not answer in time, or has ended.
            Exception: What the environment raised.
        """
        assert self._pipe is not None
        try:
            if not _ready(self._pipe, limit):
                self._waiting = True
                _end(self._process)
                where = {"step": "", "open": " when it was opened"}.get(doing, f" in {doing}")
                raise Fault(f"did not answer within {limit:g} s (env_timeout){where}")
            kind, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self._waiting = False
        if kind == "raised":
            raise value
        return value

    def _lost(self) -> Fault:
        self._process.join(_PATIENCE_S)
        code = self._process.exitcode
        if code is None:
            return Fault("has closed its connection")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Fault(f"has lost its process, which ended with {how}")


def _ready(pipe: Connection, limit: float | None) -> bool:
    """Whether an answer comes in time; a time in which this process itself was stopped does not count."""
    while True:
        began = time.monotonic()
        if pipe.poll(limit) or pipe.poll(0):
            return True
        if limit is not None and time.monotonic() - began < 1.5 * limit + 1:
            return False


def _end(process: Any) -> None:
    """Kill a process, and those that it has started."""
    if process.pid is None:
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg") and process.pid != os.getpgid(0):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(_PATIENCE_S)


# --------------------------------------------------------------------------- in the other process


def _serve(
    pipe: Connection,
    parent: int,
    main: bool,
    make: Any,
    arguments: dict[str, Any],
    registered: dict[str, Any],
) -> None:
    """Build the environment, and do with it what comes through the pipe."""
    _alone(parent, main)
    find_as_usual()
    for theirs in _open:  # Else no end of the run would be seen.
        with contextlib.suppress(OSError):
            theirs.close()
    for name, spec in registered.items():
        gymnasium.registry.setdefault(name, spec)
    pipe.send(("done", None))
    env = None
    try:
        try:
            env = make.fn(**arguments)
            if isinstance(env, VectorEnv):
                raise ConfigError(
                    "env_timeout and env_retry need single environments; this one is a vector environment."
                )
            pipe.send(("done", _facts(env)))
        except Exception as error:
            pipe.send(("raised", _sendable(error)))
            return
        while True:
            name, positional, named = pipe.recv()
            if name == "close":
                break
            try:
                answer = ("done", getattr(env, name)(*positional, **named))
            except Exception as error:
                answer = ("raised", _sendable(error))
            _send(pipe, answer)
    except (EOFError, OSError):
        pass  # The run has ended.
    finally:
        close([] if env is None else [env])
        with contextlib.suppress(OSError):
            pipe.send(("done", None))
        os._exit(0)  # Nothing of the run that a fork has copied may be cleaned up here.


def _alone(parent: int, main: bool) -> None:
    """Leave signals to the run, which decides what they mean; end when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    # Tied to the thread that has started this process, which only the main thread outlives for sure.
    if main and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _facts(env: Any) -> dict[str, Any]:
    """What the run needs to know of an environment that it does not hold."""
    found = {"obs": normalizes_obs(env), "rewards": normalizes_rewards(env)}
    name = None if env.spec is None else env.spec.id
    return {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "metadata": dict(env.metadata),
        "render_mode": env.render_mode,
        "name": name,
        "identity": identity(env, name or ""),
        "time_limit": time_limit_of(env),
        "normalizes": tuple(kind for kind, there in found.items() if there),
    }


def _sendable(error: Exception) -> Exception:
    """An error that can be pickled and read again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(describe_error(error))
    return error


def _send(pipe: Connection, answer: tuple[str, Any]) -> None:
    """Send an answer; without what cannot be pickled of the info, which is a dict of anything."""
    try:
        pipe.send(answer)
    except (pickle.PicklingError, TypeError, AttributeError):
        kind, value = answer
        if not (isinstance(value, tuple) and value and isinstance(value[-1], dict)):
            raise
        pipe.send((kind, (*value[:-1], {k: v for k, v in value[-1].items() if _pickles(v)})))


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
