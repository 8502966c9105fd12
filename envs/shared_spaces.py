"""Merges the spaces of several environments, so that one model fits all; errors say what helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, Space, Spec

_SHOWN = 4  # Differences listed in one message.


def shared_spec(names: Sequence[str], specs: Sequence[Spec]) -> Spec:
    """The spec of a sequence of environments.

    Bounds of observations may differ; the widest are used. Everything else must be equal: names, shapes
    and dtypes of observations, the number of choices, the bounds of numeric actions.

    Args:
        names: What each environment is called.

    Raises:
        ConfigError: If they differ, with each difference, and the wrapper that makes them equal.
    """
    first, found = specs[0], list[str]()
    for name, spec in zip(names[1:], specs[1:], strict=True):
        pair = (names[0], name)
        found += _differences("observations", pair, first.obs, spec.obs, action=False)
        found += _differences("actions", pair, first.action, spec.action, action=True)
    if found:
        more = f"\n- and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines = "".join(f"\n- {text}" for text in dict.fromkeys(found[:_SHOWN]))
        raise ConfigError(
            f"Environments of one run must share their spaces, since one model learns all of them.{lines}"
            f"{more}\nWrappers for all of them go in env_wrappers=[...]; for one of them, give a function "
            "that makes it, wrapped, in the list of env=."
        )
    obs = first.obs
    for spec in specs[1:]:
        obs = _widest(obs, spec.obs)
    return Spec(obs, first.action, num_tasks=len(specs))


def _differences(
    what: str, names: tuple[str, str], a: Any, b: Any, *, action: bool
) -> Iterator[str]:
    """Sentences on how two spaces differ, each with what would make them equal."""
    one, other = names
    if isinstance(a, dict) and isinstance(b, dict):
        shared = [key for key in a if key in b]
        for name, mine, theirs in ((one, a, b), (other, b, a)):
            if only := [key for key in mine if key not in theirs]:
                yield (
                    f"The {what} of {name} have {_quoted(only)}, those of "
                    f"{other if name is one else one} do not. {_for_keys(shared, action)}"
                )
        for key in shared:
            yield from _differences(f"{what}[{key!r}]", names, a[key], b[key], action=action)
        return
    text = f"The {what} of {one} are {_words(a)}, those of {other} {_words(b)}."
    if isinstance(a, dict) or isinstance(b, dict):
        helps = "FlattenObservation turns a dict into one array." if not action else _IN_ONE_FORM
        yield f"{text} {helps}"
    elif (a.discrete, bool(a.nvec), a.binary) != (b.discrete, bool(b.nvec), b.binary):
        yield f"{text} {_for_kinds(a, b) if action else _IN_ONE_FORM}"
    elif a.shape != b.shape or a.nvec != b.nvec:
        yield f"{text} {_for_actions(a, b) if action else _for_shapes(a, b)}"
    elif a.ids != b.ids:
        yield f"{text} {_for_shapes(a, b)}"
    elif a.dtype != b.dtype and not action:
        yield f"{text} DtypeObservation(dtype=numpy.float32) gives both the same dtype."
    elif action and not a.discrete and not (_equal(a.low, b.low) and _equal(a.high, b.high)):
        yield (
            f"The {what} of {one} are from {_bound(a.low)} to {_bound(a.high)}, those of {other} from "
            f"{_bound(b.low)} to {_bound(b.high)}. RescaleAction(min_action=-1, max_action=1) gives both the "
            "same range."
        )


_IN_ONE_FORM = (
    "A wrapper of your own, a gymnasium.Wrapper with its space, can bring both into one form."
)


def _for_keys(shared: Sequence[str], action: bool) -> str:
    if action:
        return _IN_ONE_FORM
    if shared:
        return (
            f"FilterObservation(filter_keys={list(shared)!r}) keeps the keys that both have; "
            "TransformObservation adds others, as zeros."
        )
    return "FlattenObservation turns each into an array; the arrays must be equally long."


def _for_kinds(a: Space, b: Space) -> str:
    if a.discrete != b.discrete and not (a.nvec or b.nvec or a.binary or b.binary):
        return "discrete=true cuts numbers into bins= choices."
    return _IN_ONE_FORM


def _for_actions(a: Space, b: Space) -> str:
    if not a.discrete:
        return "TransformAction can drop what an environment does not use."
    if a.nvec or a.binary:
        return _IN_ONE_FORM
    few, most = sorted((a.n, b.n))
    return (
        f"TransformAction(env, lambda action: action % {few}, Discrete({most})) around the one with {few} "
        f"gives both {most} choices, some of them equivalent. Or a wrapper of your own has {most}, and an "
        f"action_mask of {most} in its info that rules out the others: env_info=[action_mask]."
    )


def _for_shapes(a: Space, b: Space) -> str:
    if len(a.shape) == len(b.shape) == 3 and a.dtype == torch.uint8:
        if a.shape[0] != b.shape[0]:
            return (
                "GrayscaleObservation(keep_dim=True), and ResizeObservation(shape=(64, 64)) if sizes differ "
                "too, make them equal."
            )
        return "ResizeObservation(shape=(64, 64)) makes them equal."
    if (a.discrete or (a.ids and b.ids)) and _one_choice(a, b):
        few, most = sorted((a.n, b.n))
        return (
            f"TransformObservation(env, lambda obs: obs, Discrete({most})) declares the one with {few} as "
            f"one of {most}."
        )
    if len(a.shape) == len(b.shape) == 1:
        few, most = sorted((a.n, b.n))
        return (
            f"TransformObservation(env, lambda obs: numpy.pad(obs, (0, {most - few})), Box(-inf, inf, "
            f"({most},))) pads the one with {few} numbers to that length."
        )
    return (
        "FlattenObservation, ReshapeObservation or TransformObservation gives both the same shape."
    )


def _one_choice(*spaces: Space) -> bool:
    """Whether each is a Discrete: one-hot, or the id alone."""
    return not any(s.nvec or s.binary or (s.ids and s.shape) for s in spaces)


def _widest(a: Any, b: Any) -> Any:
    """A space with the lower of the lows and the higher of the highs."""
    if isinstance(a, dict):
        return {key: _widest(part, b[key]) for key, part in a.items()}
    if a.discrete or any(bound is None for bound in (a.low, a.high, b.low, b.high)):
        return a
    if _equal(a.low, b.low) and _equal(a.high, b.high):
        return a
    low = torch.minimum(torch.as_tensor(a.low), torch.as_tensor(b.low))
    high = torch.maximum(torch.as_tensor(a.high), torch.as_tensor(b.high))
    return dataclasses.replace(a, low=low, high=high)


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return bool((a == b).all())


def _bound(bound: Any) -> str:
    """A bound in words: `-2`, or `-2...3` if it differs between dimensions."""
    if not isinstance(bound, Tensor):
        return "nothing" if bound is None else f"{bound:g}"
    low, high = float(bound.min()), float(bound.max())
    return f"{low:g}" if low == high else f"{low:g}...{high:g}"


def _words(space: Any) -> str:
    if isinstance(space, dict):
        return f"a dict of {_quoted(list(space))}"
    return str(space)


def _quoted(keys: Sequence[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)
