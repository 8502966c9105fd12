"""Checks `action_mask`, the field that says which actions an environment allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from ..replay import Space
from ..replay.field_names import IN, named
from ..replay.tree import map_tree
from .info_values import InfoFault, Rows, in_short, type_in_words

ACTION_MASK = "action_mask"


def masks_of(space: Any) -> dict[str, tuple[int, ...]]:
    """The masks that an action needs, by field: the number of choices of each of its parts."""
    return {name: s for name, s in named(ACTION_MASK, map_tree(_choices, space)) if s}


def _choices(space: Space) -> tuple[int, ...]:
    if not space.discrete:
        return ()
    if space.binary:
        return (2,) * space.n
    return space.nvec or (space.n,)


def checked_mask(value: Any, space: Any, name: str) -> Any:
    """The mask as it is stored: one array `[choices]` per action, its parts one after the other.

    Raises:
        InfoFault: If it does not fit the action space.
    """
    if isinstance(space, dict):
        if isinstance(value, (tuple, list)) and len(value) == len(space):
            value = dict(zip(space, value, strict=True))
        parts = {key: part for key, part in space.items() if masks_of(part)}
        if isinstance(value, Mapping):
            value = {str(key): part for key, part in value.items()}
        if not isinstance(value, Mapping) or value.keys() - space.keys():
            given = sorted(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise InfoFault(
                f"returned `{name}` in its info as {given}: a dict with a mask for each of "
                f"{', '.join(parts)} is needed"
            )
        # An action without a mask is unrestricted.
        return {
            key: checked_mask(value[key], part, f"{name}/{key}")
            if value.get(key) is not None
            else _everything(part)
            for key, part in parts.items()
        }
    sizes = _choices(space)
    try:
        if isinstance(value, (tuple, list)) and any(np.ndim(part) for part in value):
            value = np.concatenate([np.asarray(part).reshape(-1) for part in value])
        array = np.asarray(value)
        if array.shape == (len(sizes), sizes[0]) and len(set(sizes)) == 1:
            array = array.reshape(-1)
        fits = array.dtype.kind in "biuf" and array.shape == (sum(sizes),)
    except (TypeError, ValueError):
        array, fits = np.asarray(None), False
    if not fits:
        found = type_in_words(array) if array.dtype != object else in_short(value)
        raise InfoFault(
            f"returned `{name}` in its info {found}: a mask "
            f"holds a 1 for each action that is allowed and a 0 for each that is not, [{sum(sizes)}] for "
            f"{space}"
        )
    if not ((array == 0) | (array == 1)).all():
        raise InfoFault(
            f"returned `{name}` in its info as {in_short(array)}: a mask holds only 0 and 1"
        )
    return array


def sampling_mask(space: gymnasium.Space[Any], rows: Rows, field_name: str) -> Any:
    """The mask of the first row, in the form that gymnasium's `space.sample` accepts."""
    if isinstance(space, gymnasium.spaces.Dict):
        parts = named(field_name, dict.fromkeys(space))
        return {k: sampling_mask(space[k], rows, n) for k, (n, _) in zip(space, parts, strict=True)}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(
            sampling_mask(part, rows, f"{field_name}{IN}{i}") for i, part in enumerate(space)
        )
    if field_name not in rows:  # An action of numbers has no mask.
        return None
    mask = rows[field_name][0].astype(np.int8)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        no, yes = mask.reshape(-1, 2).T
        # gymnasium wants 0 or 1 for a fixed bit, and 2 for a free one.
        return np.where(no & yes, 2, yes).astype(np.int8).reshape(space.shape)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return tuple(np.split(mask, np.cumsum(space.nvec.reshape(-1))[:-1]))
    return mask


def _everything(space: Any) -> Any:
    if isinstance(space, dict):
        return {key: _everything(part) for key, part in space.items() if masks_of(part)}
    return np.ones(sum(_choices(space)), np.bool_)
