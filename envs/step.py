"""The result of one step of several environments, and the report of a fault in one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ..replay import DataError
from ..replay.tree import map_tree, zip_trees
from .checked import Fault
from .info_values import InfoFault, Picked, Rows
from .infos import Infos

# Most actions of an episode that are kept to replay it: an episode may have no end.
LONGEST_KEPT = 100_000


class Step(NamedTuple):
    """The result of one step of N environments.

    Attributes:
        next_obs: `[N, *shape]`, or a dict of these.
        reward: float64 `[N]`, as returns are summed; the replay keeps float32.
        terminated, truncated: bool `[N]`.
        began: Copies that are in a new episode now, bool `[N]`; None: none is.
        first: The newest observations, `[N, *shape]`: `next_obs`, except for copies that began.
        real: Copies that made a step at all, bool `[N]`; None: all did.
        info: Fields of the info that came with `next_obs`, `{name: [N, ...]}`; None: none are stored.
        first_info: Fields of the info that came with `first`.
        broken: Copies that failed instead of making this step, and were started again, bool `[N]`: their
            episode ends with the step before. None: none did.
    """

    next_obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    began: np.ndarray | None
    first: Any
    real: np.ndarray | None = None
    info: Rows | None = None
    first_info: Rows | None = None
    broken: np.ndarray | None = None


def with_new_episodes(step: Step, which: np.ndarray, first: Any, info: Rows | None) -> Step:
    """The step, with new episodes begun in some copies, bool `[N]`, from these observations and infos."""
    now, began = copied(step.first), which if step.began is None else step.began | which
    _assign(now, which, first)
    if info is None or step.first_info is None:
        return step._replace(first=now, began=began)
    rows = {name: array.copy() for name, array in step.first_info.items()}
    _assign({name: rows[name] for name in rows if name in info}, which, info)
    return step._replace(first=now, began=began, first_info=rows)


def info_rows(
    infos: Infos,
    picked: list[Picked | None],
    acts: np.ndarray | None,
    blame: Callable[[int, Fault], str],
    *,
    reset: bool,
) -> Rows:
    """Fields of N infos, `{name: [N, ...]}`.

    Args:
        acts: Copies that act next, or whose next action has a value that counts, bool `[N]`; None: all.
        reset: Whether some rows come from an episode's start.

    Raises:
        DataError: If a field is invalid or a mask allows no action, with the copy it came from.
    """
    try:
        rows = infos.reset_rows(picked) if reset else infos.rows(picked)
    except InfoFault as fault:
        raise DataError(blame(fault.copy or 0, Fault(fault.what))) from None
    if infos.masks:
        acts = np.ones(len(picked), np.bool_) if acts is None else acts
        if (stuck := infos.stuck(rows, acts)) is not None:
            copy, mask = stuck
            raise DataError(
                blame(copy, Fault(f"returned `{mask}` in its info that allows no action"))
            )
    return rows


def blame(what: str, place: str, action: Any, space: gymnasium.Space[Any]) -> str:
    """A message with all that reproduces a fault; it names an invalid action, which may be the reason."""
    done = ""
    if action is not None:
        outside = "" if space.contains(action) else f", which is outside {space}"
        done = f", action {_short(action)}{outside}"
    return f"{what}. At {place}{done}."


def copy_in_words(copy: int, num_envs: int) -> str:
    return f" (copy {copy} of {num_envs})" if num_envs > 1 else ""


def seed_of_episode(seed: int, copy: int, episode: int) -> int:
    """The seed of one episode: unrelated to all others, and below 2**31 for simulators written in C."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1)[0]) >> 1


def row_of(value: Any, copy: int) -> Any:
    if isinstance(value, Mapping):
        return {name: row_of(part, copy) for name, part in value.items()}
    if isinstance(value, tuple):
        # A vector environment has text as a tuple, one per copy; models do not receive it anyway.
        return tuple(part if isinstance(part, str) else row_of(part, copy) for part in value)
    return value[copy]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    text = np.array2string(np.asarray(value), precision=4, threshold=8)
    return text if len(text) < 200 else text[:200] + "..."


def copied(tree: Any) -> Any:
    """A tree of arrays, each of which is copied."""
    return map_tree(np.copy, tree)


def _assign(into: Any, which: np.ndarray, value: Any) -> None:
    """Write rows of `value` into the same rows of `into`, trees of arrays `[N, ...]`."""

    def write(array: np.ndarray, rows: np.ndarray) -> None:
        array[which] = rows[which]

    zip_trees(write, into, value)
