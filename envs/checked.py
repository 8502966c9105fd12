"""Checks what an environment returns before it is stored; a `Fault` says what is wrong with it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import numpy as np

from .not_an_environment import reset_fault, reward_fault, step_fault
from .spaces import Codec

_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = 2.0**24  # Up to here float32 holds every whole number.
# Steps in which floats are checked against the bounds of their space; later they only have to be finite,
# because a policy may take a well-known environment far outside its declared bounds: with its engine
# always on, LunarLander-v3 climbs five times as high.
CHECKED_STEPS = 1000


class Fault(Exception):
    """What an environment did wrong.

    Attributes:
        what: In words.
        copy: Number of the copy it happened in; None: there is one, or it is unknown.
    """

    def __init__(self, what: str, copy: int | None = None):
        super().__init__(what, copy)  # So that it can be sent from one process to another.
        self.what, self.copy = what, copy

    def __str__(self) -> str:
        return self.what


def reset_into(
    env: gymnasium.Env[Any, Any],
    seed: int | None,
    into: Any,
    row: int,
    code: Codec,
    *,
    check_bounds: bool = True,
) -> tuple[Any, Any]:
    """Begin an episode, and write its first observation into a row.

    Args:
        check_bounds: Check floats against their bounds; else they only have to be finite.

    Returns:
        The observation as the environment returned it, and its info.

    Raises:
        Fault: If the environment raises, or its observation is outside its space.
    """
    try:
        given = env.reset(seed=seed)
    except Fault:  # Of a process that hangs or has ended.
        raise
    except Exception as error:
        # A `reset` written for gym before 0.22 has no `seed`; its TypeError would not say what to write.
        takes_none = "unexpected keyword argument 'seed'" in str(error)
        advice = ": write reset(self, *, seed=None, options=None)" if takes_none else ""
        raise Fault(f"raised {describe_error(error)} in reset{advice}") from error
    if wrong := reset_fault(given):
        raise Fault(wrong)
    obs, info = given
    if (check_bounds or not _write_quickly(into, row, obs, code)) and (
        problem := write_checked(into, row, obs, code, check_bounds=check_bounds)
    ):
        raise Fault(problem)
    return obs, info


def step_into(
    env: gymnasium.Env[Any, Any],
    action: Any,
    into: Any,
    row: int,
    code: Codec,
    *,
    check_bounds: bool = True,
) -> tuple[Any, float, bool, bool, Any]:
    """Act once; the observation is written into a row.

    Args:
        check_bounds: Check floats against their bounds; else they only have to be finite.

    Returns:
        The observation as the environment returned it, reward, terminated, truncated, info.

    Raises:
        Fault: If the environment raises, or returns something invalid.
    """
    try:
        given = env.step(action)
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"raised {describe_error(error)}") from error
    try:
        obs, reward, terminated, truncated, info = given
    except (TypeError, ValueError) as error:
        raise Fault(step_fault(given)) from error
    if (check_bounds or not _write_quickly(into, row, obs, code)) and (
        problem := write_checked(into, row, obs, code, check_bounds=check_bounds)
    ):
        raise Fault(problem)
    if type(reward) is not float:
        try:
            reward = float(np.asarray(reward).reshape(()))
        except (TypeError, ValueError) as error:
            raise Fault(reward_fault(reward)) from error
    # Also true of NaN, for which every comparison is false.
    if not -_LARGEST <= reward <= _LARGEST:
        raise Fault(f"returned the reward {reward}")
    try:
        return obs, reward, bool(terminated), bool(truncated), info
    except ValueError as error:  # An array of several has no truth value.
        raise Fault(f"returned terminated={terminated!r} and truncated={truncated!r}") from error


def _write_quickly(into: Any, row: int, obs: Any, code: Codec) -> bool:
    """Write an observation that needs no conversion, if it is valid; returns whether it was written."""
    if (
        code.plain
        and type(obs) is np.ndarray
        and obs.dtype == code.dtype
        and obs.shape == code.shape
        # NaN and infinity make the sum of squares so, too: one product instead of a test per number.
        and math.isfinite((flat := obs if obs.ndim == 1 else obs.reshape(-1)).dot(flat))
    ):
        into[row] = obs
        return True
    return False


def write_checked(
    into: Any, where: Any, obs: Any, code: Codec, *, check_bounds: bool = True
) -> str | None:
    """Write one observation into row `where`, or N into all of them (`...`).

    Args:
        check_bounds: Check floats against their bounds; else they only have to be finite.

    Returns:
        What is wrong with it, or None.
    """
    try:
        # Whatever an environment returns gets here, and may make any conversion fail.
        return _write(into, where, obs, code, check_bounds)
    except Exception as error:
        return f"returned an observation that does not fit its space: {describe_error(error)}"


def _warn_of_rounding(value: np.ndarray, code: Codec) -> None:
    """Warn of float64 in a float32 space so large that integers are lost, as in timestamps."""
    far = value[np.abs(value) > _WHOLE]
    if far.size and (far != far.astype(code.dtype)).any():
        warnings.warn(
            f"The environment returns observations as large as {np.abs(far).max():.6g} in "
            f"{value.dtype}, and its space is {code.dtype}, which rounds them. Make the space a "
            f"Box of {value.dtype}.",
            stacklevel=2,
        )


def _write(into: Any, where: Any, obs: Any, code: Codec, check_bounds: bool) -> str | None:
    if code.parts is not None:
        if problem := code.misfit(obs):
            return f"returned an observation {problem}"
        for name, part in code.parts.items():
            if problem := _write(into[name], where, obs[code.keys[name]], part, check_bounds):
                return f"{problem} (in {name!r})"
        return None
    value, row = code.stored(obs), into[where]
    if value.shape != row.shape:
        return (
            f"returned an observation of shape {list(np.shape(obs))} instead of {list(code.given)}"
        )
    if value.dtype != code.dtype and not np.can_cast(value.dtype, code.dtype, "same_kind"):
        return f"returned an observation of {value.dtype} instead of {code.dtype}"
    floats = value.dtype.kind == "f"
    if check_bounds and floats and value.dtype.itemsize > code.dtype.itemsize:
        _warn_of_rounding(value, code)
    if floats and not np.isfinite(value).all():
        return f"returned an observation with NaN or infinity: {_shown(obs)}"
    if floats and not check_bounds:
        inside = np.abs(value) <= _LARGEST
    else:
        inside = True if code.low is None else (value >= code.low) & (value <= code.high)
    if not np.all(inside):
        return f"returned an observation outside its space: {_shown(obs)}"
    into[where] = value
    return None


def describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _shown(obs: Any) -> str:
    return np.array2string(np.asarray(obs), precision=4, threshold=8)
