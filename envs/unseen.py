"""Spaces that models cannot receive: parts that are left out, and what helps where one is refused."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
from gymnasium import spaces

from .codec import Codec

_TRANSFORM = "env_wrappers=[{_target_: TransformObservation, func: ..., observation_space: ...}]"


def is_unseen(space: gymnasium.Space[Any]) -> bool:
    """Whether a space holds nothing that a model can receive: text, no numbers at all, or only such parts."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return all(is_unseen(part) for _, part in parts_of(space))
    return _is_text(space) or 0 in (space.shape or ())


def parts_of(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, gymnasium.Space[Any]]]:
    """The parts of a Dict or a Tuple with their keys, a tuple's being its indices."""
    return list(space.items() if isinstance(space, spaces.Dict) else enumerate(space))


def seen(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """The space without what `is_unseen`; itself where all of it is seen.

    The parts of a Tuple with one that is left out become a Dict by their indices, which stay as they were.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return space
    parts = {key: seen(part) for key, part in parts_of(space) if not is_unseen(part)}
    if all(parts.get(key) is part for key, part in parts_of(space)):
        return space
    return spaces.Dict(parts)


def seen_value(code: Codec, value: Any) -> Any:
    """The environment's value without what is left out: one of `seen`."""
    if code.parts is None or not leaves_out(code):
        return value
    parts = code.parts.items()
    return {code.keys[name]: seen_value(part, value[code.keys[name]]) for name, part in parts}


def leaves_out(code: Codec) -> bool:
    """Whether a part of the space is left out."""
    return bool(code.left_out) or any(map(leaves_out, (code.parts or {}).values()))


def tell_left_out(space: gymnasium.Space[Any], name: str) -> None:
    """Warn of the parts of an environment's observations that models do not receive.

    Args:
        space: Of the environment's observations.
        name: Of the environment.
    """
    text, empty = [], []
    for path, part in _unseen_leaves(space):
        (text if _is_text(part) else empty).append(path)
    if text:
        words = " and ".join(map(repr, text))
        warnings.warn(
            f"The observations {words} of {name} are text, which models do not receive: they are left "
            f"out. If it matters, a wrapper can make numbers of it: {_TRANSFORM}; for MiniGrid's mission, "
            "env_wrappers=[minigrid.wrappers.DictObservationSpaceWrapper].",
            stacklevel=3,
        )
    if empty:
        words = " and ".join(map(repr, empty))
        warnings.warn(
            f"The observations {words} of {name} hold no numbers and are left out.", stacklevel=3
        )


def advice(space: gymnasium.Space[Any], *, action: bool, within: bool) -> str:
    """What helps where a space is refused.

    Args:
        action: Whether it is of actions.
        within: Whether it is a part of a Dict or a Tuple.
    """
    if action:
        return _action_advice(space)
    drop = " To leave it out: env_wrappers=[{_target_: FilterObservation, filter_keys: [...]}]."
    if isinstance(space, spaces.OneOf):
        helps = (
            "env_wrappers=[FlattenObservation] makes it one Box: the number of the alternative, then its "
            "values, padded."
            if not within
            else f"{_TRANSFORM} can give the number of the alternative beside its padded values."
        )
    elif isinstance(space, spaces.Sequence):
        helps = (
            f"Its length changes. {_TRANSFORM} can pad it to the longest, as a Dict of the padded Box and a "
            "MultiBinary that tells what is padding."
        )
    elif isinstance(space, spaces.Graph):
        helps = (
            f"Its size changes. {_TRANSFORM} can give node features and an adjacency matrix, padded to the "
            "largest graph, as a Dict of Boxes."
        )
    elif _is_text(space):
        helps = f"{_TRANSFORM} can encode it, as a MultiDiscrete of letters or words."
    elif isinstance(space, (spaces.Dict, spaces.Tuple)) or 0 in (space.shape or ()):
        helps = (
            "There is nothing to see. env_wrappers=[TimeAwareObservation] shows how much time has "
            f"passed; {_TRANSFORM} can show anything else."
        )
    else:
        helps = f"{_TRANSFORM} can make a Box, or a Dict of those, of it."
    return helps + drop * (within and not _is_text(space))


def _action_advice(space: gymnasium.Space[Any]) -> str:
    transform = "env_wrappers=[{_target_: TransformAction, func: ..., action_space: ...}]"
    if isinstance(space, spaces.OneOf):
        return (
            f"{transform} can take a Dict of a Discrete, which alternative, and of every alternative's "
            "own values, and give the environment those of the one that was chosen."
        )
    if _is_text(space):
        return f"{transform} can take a MultiDiscrete of letters or words, and write the text."
    if isinstance(space, spaces.Sequence):
        return (
            f"{transform} can take a Dict of its length and of as many values as there are at most."
        )
    if isinstance(space, (spaces.Dict, spaces.Tuple)) or 0 in (space.shape or ()):
        return f"There is nothing to do. {transform} can take a Discrete(1), which does nothing."
    return (
        f"{transform} can take a Box, a Discrete, or a Dict of those, and make it what is needed."
    )


def _unseen_leaves(
    space: gymnasium.Space[Any], path: str = ""
) -> list[tuple[str, gymnasium.Space[Any]]]:
    """What is left out, with the path to it."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        found: list[tuple[str, gymnasium.Space[Any]]] = []
        for key, part in parts_of(space):
            found += _unseen_leaves(part, f"{path}/{key}" if path else str(key))
        return found or [(path, space)] * is_unseen(space)
    return [(path, space)] if is_unseen(space) else []


def _is_text(space: gymnasium.Space[Any]) -> bool:
    """Text, and spaces of one's own that hold strings, as MiniGrid's missions."""
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind in "US")
