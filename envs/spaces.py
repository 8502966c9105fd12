"""Turns gymnasium's spaces into `Space`s, and values from one into the other."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from ..replay import ConfigError, Space
from .boxes import box, box_action, flags_action
from .codec import Codec, zeros
from .unseen import advice, is_text, is_unseen, parts_of

__all__ = ["Codec", "codec", "zeros"]

# Most columns of a one-hot observation; with more choices it becomes an id. 256 such rows take 4 MB.
WIDEST = 4096


def codec(
    space: gymnasium.Space[Any],
    what: str,
    *,
    stack: int = 1,
    action: bool = False,
    channels: str | None = None,
    within: bool = False,
) -> Codec:
    """The codec of a space: how its values are stored.

    Args:
        what: What errors call it.
        stack: Frames that models receive at once, joined along the first axis: `[stack * C, H, W]`.
        channels: Where images have their channels: "first" (`[C, H, W]`) or "last" (`[H, W, C]`); None:
            inferred from their shape.
        action: Whether the values are actions: numbers are then float32, and pictures keep the
            environment's own layout.
        within: Whether the space is a part of a Dict or a Tuple.

    Raises:
        ConfigError: For a kind of space that models cannot receive, with the wrapper that helps, or
            for images if it is unclear which dimension holds the channels.
    """
    if is_unseen(space):
        raise _refusal(space, what, action=action, within=within)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return _composite(space, what, stack=stack, action=action, channels=channels)
    if isinstance(space, spaces.Box):
        kind = np.dtype(space.dtype or np.float32).kind
        if kind not in "fiub":
            raise ConfigError(f"The {what} are a Box of {space.dtype}; real numbers are needed.")
        if not action:
            return box(space, what, stack, channels)
        return flags_action(space) if kind == "b" else box_action(space)
    if isinstance(space, spaces.Discrete):
        return _discrete(space, action=action)
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete(space, action=action)
    if isinstance(space, spaces.MultiBinary):
        return _multi_binary(space)
    raise _refusal(space, what, action=action, within=within)


def _composite(
    space: spaces.Dict | spaces.Tuple, what: str, *, action: bool, **options: Any
) -> Codec:
    """The codec of a dict of the parts that models can receive; a Tuple's are called "0", "1", ..."""
    parts: dict[str, Codec] = {}
    keys: dict[str, Any] = {}
    left_out = []
    for key, part in parts_of(space):
        if not action and is_unseen(part):
            left_out.append(key)
            continue
        if (name := str(key)) in parts:
            raise ConfigError(f"The {what} have two parts called {name!r}: rename one.")
        parts[name] = codec(part, f"{what}[{key!r}]", action=action, within=True, **options)
        keys[name] = key
    in_order = [(name, keys[name], part) for name, part in parts.items()]
    if isinstance(space, spaces.Tuple):

        def native(value: Any) -> Any:
            return tuple(part.native(value[name]) for name, _, part in in_order)

    else:

        def native(value: Any) -> Any:
            return {key: part.native(value[name]) for name, key, part in in_order}

    return Codec(
        {name: part.space for name, part in parts.items()},
        lambda value: {name: part.stored(value[key]) for name, key, part in in_order},
        native,
        parts=parts,
        keys=keys,
        left_out=tuple(left_out),
    )


def _discrete(space: spaces.Discrete, *, action: bool) -> Codec:
    n, start = int(space.n), int(space.start)
    # The model counts from 0, wherever the environment starts.
    seen: Space = Space((n,), torch.int64, low=0, high=n - 1, discrete=True)
    if n > WIDEST and not action:
        seen = Space((), torch.int64, low=0, high=n - 1, ids=n)
    return Codec(
        seen,
        lambda value: np.asarray(value) - np.int64(start),
        # A Python int for a single environment, which may look the action up in a dict: arrays have no hash.
        lambda value: value + start if value.ndim else int(value) + start,
        (),
        (),
        np.dtype(np.int64),
        0,
        n - 1,
    )


def _multi_discrete(space: spaces.MultiDiscrete, *, action: bool) -> Codec:
    shape, starts = space.nvec.shape, np.asarray(space.start, np.int64).reshape(-1)
    nvec = tuple(int(n) for n in space.nvec.reshape(-1))
    seen: Space = Space((sum(nvec),), torch.int64, low=0, discrete=True, nvec=nvec)
    if sum(nvec) > WIDEST and not action:
        last = torch.tensor(nvec) - 1
        seen = Space((len(nvec),), torch.int64, low=0, high=last, ids=max(nvec))
    return Codec(
        seen,
        lambda value: _flat(value, shape) - starts,
        lambda value: (value + starts).reshape(*value.shape[:-1], *shape).astype(space.dtype),
        shape,
        (len(nvec),),
        np.dtype(np.int64),
        0,
        np.array(nvec) - 1,
    )


def _multi_binary(space: spaces.MultiBinary) -> Codec:
    shape = space.shape
    n = int(np.prod(shape))
    return Codec(
        Space((n,), torch.int64, low=0, high=1, discrete=True, binary=True),
        lambda value: _flat(value, shape),
        lambda value: value.reshape(*value.shape[:-1], *shape).astype(np.int8),
        shape,
        (n,),
        np.dtype(np.int64),
        0,
        1,
    )


def _flat(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Values `[..., *shape]` flattened to `[..., n]`."""
    value = np.asarray(value)
    lead = value.shape[: value.ndim - len(shape)]
    if value.shape != lead + shape:
        raise ValueError(f"shape {list(value.shape)} instead of {list(shape)}")
    return value.reshape(*lead, -1)


def _refusal(space: gymnasium.Space[Any], what: str, *, action: bool, within: bool) -> ConfigError:
    kind = type(space).__name__
    if 0 in (space.shape or ()):
        given = f"a {kind} of shape {list(space.shape or ())}"
    elif isinstance(space, (spaces.Dict, spaces.Tuple)) and is_unseen(space):
        given = f"a {kind} that holds only text" if is_text(space) else f"a {kind} without numbers"
    else:
        given = f"a {kind} space"
    return ConfigError(
        f"The {what} are {given}. Models can use Box, Discrete, MultiDiscrete, MultiBinary, and Dicts and "
        f"Tuples of these. {advice(space, action=action, within=within)}"
    )
