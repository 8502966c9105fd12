"""Spaces that models cannot receive: leaves out such parts, and says what helps if one is refused."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
from gymnasium import spaces

from .codec import Codec

_TRANSFORM = "env_wrappers=[{_target_: TransformObservation, func: ..., observation_space: ...}]"


def is_unseen(space: gymnasium.Space[Any]) -> bool:
    """Whether a space has nothing for a model: it is text or empty, or all of its parts are."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return all(is_unseen(part) for _, part in parts_of(space))
    return is_text(space) or 0 in (space.shape or ())


def parts_of(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, gymnasium.Space[Any]]]:
    """The parts of a Dict or a Tuple with their keys; a tuple's keys are its indices."""
    return list(space.items() if isinstance(space, spaces.Dict) else enumerate(space))


def seen(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """The space without parts that `is_unseen`; the same object if there are none.

    A Tuple that loses a part becomes a Dict by its original indices.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return space
    parts = {key: seen(part) for key, part in parts_of(space) if not is_unseen(part)}
    if all(parts.get(key) is part for key, part in parts_of(space)):
        return space
    return spaces.Dict(parts)


def seen_value(code: Codec, value: Any) -> Any:
    """An environment's value without the parts left out: a value of the space `seen`."""
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
        space: The environment's observation space.
        name: What the warning calls the environment.
    """
    text: list[str] = []
    empty: list[str] = []
    for path, part in _unseen_leaves(space):
        (text if is_text(part) else empty).append(path)
    if text:
        warnings.warn(
            f"Left out of the observations of {name}: {', '.join(map(repr, text))}. Models do not receive "
            f"text. If it matters, encode it with a wrapper: {_TRANSFORM}; for MiniGrid's mission, "
            "env_wrappers=[minigrid.wrappers.DictObservationSpaceWrapper].",
            stacklevel=3,
        )
    if empty:
        warnings.warn(
            f"Left out of the observations of {name}, since they hold no numbers: "
            f"{', '.join(map(repr, empty))}.",
            stacklevel=3,
        )


def advice(space: gymnasium.Space[Any], *, action: bool, within: bool) -> str:
    """What helps if a space is refused.

    Args:
        action: Whether it belongs to actions, not observations.
        within: Whether it is a part of a Dict or a Tuple.
    """
    if action:
        return _action_advice(space)
    drop = (
        " To leave it out: env_wrappers=[{_target_: FilterObservation, filter_keys: [...]}], with the "
        "keys of the others."
    )
    if isinstance(space, spaces.OneOf):
        helps = (
            "env_wrappers=[FlattenObservation] makes it one Box: the number of the alternative, then its "
            "values, padded."
            if not within
            else f"{_TRANSFORM} can return the number of the alternative beside its padded values."
        )
    elif isinstance(space, spaces.Sequence):
        helps = (
            f"Its length changes. {_TRANSFORM} can pad it to the longest, as a Dict of the padded Box and a "
            "MultiBinary that marks the padding."
        )
    elif isinstance(space, spaces.Graph):
        helps = (
            f"Its size changes. {_TRANSFORM} can return node features and an adjacency matrix, padded to the "
            "largest graph, as a Dict of Boxes."
        )
    elif is_text(space):
        helps = f"{_TRANSFORM} can encode it, for instance as a MultiDiscrete of words."
        if isinstance(space, spaces.Text):
            helps = f"env_wrappers=[FlattenObservation] encodes its letters as numbers; {helps}"
    elif isinstance(space, (spaces.Dict, spaces.Tuple)) or 0 in (space.shape or ()):
        helps = (
            "It is empty. env_wrappers=[TimeAwareObservation] adds how much time has "
            f"passed; {_TRANSFORM} can add anything else."
        )
    else:
        helps = f"{_TRANSFORM} can turn it into a Box, or a Dict of Boxes."
    return helps + drop * within


def is_text(space: gymnasium.Space[Any]) -> bool:
    """Whether a space holds only strings: Text, or a library's own space, such as MiniGrid's mission."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return bool(len(space)) and all(is_text(part) for _, part in parts_of(space))
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind in "US")


def _action_advice(space: gymnasium.Space[Any]) -> str:
    transform = "env_wrappers=[{_target_: TransformAction, func: ..., action_space: ...}]"
    if isinstance(space, spaces.OneOf):
        return (
            f"{transform} can offer a Dict with a Discrete that picks the alternative and the "
            "values of every alternative, and pass on those of the one that was picked."
        )
    if is_text(space):
        return f"{transform} can offer a MultiDiscrete of letters or words, and spell out the text."
    if isinstance(space, spaces.Sequence):
        return f"{transform} can offer a Dict with its length and the largest number of values."
    if isinstance(space, (spaces.Dict, spaces.Tuple)) or 0 in (space.shape or ()):
        return f"It is empty. {transform} can offer a Discrete(1) that does nothing."
    return f"{transform} can offer a Box, a Discrete, or a Dict of these, and convert it."


def _unseen_leaves(
    space: gymnasium.Space[Any], path: str = ""
) -> list[tuple[str, gymnasium.Space[Any]]]:
    """The parts left out, each with its path: `a/0`."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        found: list[tuple[str, gymnasium.Space[Any]]] = []
        for key, part in parts_of(space):
            found += _unseen_leaves(part, f"{path}/{key}" if path else str(key))
        return found or [(path, space)] * is_unseen(space)
    return [(path, space)] if is_unseen(space) else []
