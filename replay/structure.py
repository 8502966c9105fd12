"""Says what nested data must look like, and checks data of another origin before anything uses it.

>>> form = fields({"step": count, "names": each(text)})
>>> form({"step": 3, "names": ["a"]}, "state")
>>> form({"step": 3, "names": "a"}, "state")
Traceback (most recent call last):
    ...
antelope.replay.errors.CheckpointError: The checkpoint's `state.names` is 'a'; expected a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias, TypeGuard

import numpy as np
import torch

from .errors import CheckpointError

Foreign: TypeAlias = Any
"""Data of unknown origin, before it is checked."""
LARGEST_OBS = 2**32
"""Numbers in one observation: more are a mistake, or an attempt to exhaust the memory."""
Form = Callable[[Foreign, str], None]
"""Checks a value; its second argument is the value's path, for the message. Raises `CheckpointError`."""


def misfit(path: str, value: object, wanted: str) -> NoReturn:
    """Refuse a value.

    Raises:
        CheckpointError: With its path, the value, and what was expected.
    """
    raise CheckpointError(f"The checkpoint's `{path}` is {in_words(value)}; expected {wanted}.")


def in_words(value: object) -> str:
    """A value of unknown origin in a few printable characters."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"a {type(value).__name__} {value.dtype} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def anything(value: object, path: str) -> None:
    """Data that is checked where it is used."""


def text(value: object, path: str) -> None:
    if not isinstance(value, str):
        misfit(path, value, "a text")


def flag(value: object, path: str) -> None:
    if not isinstance(value, (bool, np.bool_)):
        misfit(path, value, "true or false")


def number(value: object, path: str) -> None:
    """A number, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        misfit(path, value, "a number")


def count(value: object, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        misfit(path, value, "a whole number, at least 0")


def tensor(value: object, path: str) -> None:
    if not isinstance(value, torch.Tensor):
        misfit(path, value, "a tensor")


def stream(value: object, path: str) -> None:
    """The state of one of torch's random generators."""
    fits = isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() == 1
    if not fits:
        misfit(path, value, "the state of a random generator")


def array(kinds: str, *shape: int | None) -> Form:
    """A NumPy array, or a number where the shape is empty.

    Args:
        kinds: The kinds of dtype that are allowed, as NumPy's `dtype.kind`: "i", "f", "b", "u".
        shape: The length of each axis; None: any length.
    """

    def check(value: object, path: str) -> None:
        found = np.asarray(value) if isinstance(value, (bool, int, float)) else value
        fits = isinstance(found, (np.ndarray, np.generic)) and found.dtype.kind in kinds
        if not fits or not _has_shape(found.shape, shape):  # type: ignore[attr-defined]
            misfit(path, value, f"an array of shape {['any' if n is None else n for n in shape]}")

    return check


def _has_shape(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(
        there is None or here == there for here, there in zip(found, wanted, strict=True)
    )


def optional(form: Form) -> Form:
    """None, or a value of this form."""

    def check(value: object, path: str) -> None:
        if value is not None:
            form(value, path)

    return check


def each(form: Form, length: int | None = None) -> Form:
    """A list or a tuple whose items have this form."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, (list, tuple)):
            misfit(path, value, "a list")
        if length is not None and len(value) != length:
            misfit(path, value, f"a list of {length}")
        for i, item in enumerate(value):
            form(item, f"{path}[{i}]")

    return check


def table(form: Form) -> Form:
    """A dict from texts to values of this form."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            misfit(path, value, "a dict")
        for key, item in value.items():
            text(key, f"{path}, key")
            form(item, f"{path}.{_short(key)}")

    return check


def fields(required: Mapping[str, Form], others: Mapping[str, Form] | None = None) -> Form:
    """A dict with these keys and no others.

    Args:
        others: Keys that may be missing.
    """
    others = {} if others is None else others

    def check(value: object, path: str) -> None:
        if not isinstance(value, dict):
            misfit(path, value, "a dict")
        if missing := [key for key in required if key not in value]:
            raise CheckpointError(f"The checkpoint's `{path}` lacks `{missing[0]}`.")
        for key, item in value.items():
            form = required.get(key) or others.get(key)
            if form is None:
                raise CheckpointError(
                    f"The checkpoint's `{path}` has `{_short(key)}`, which this version does not write."
                )
            form(item, f"{path}.{key}")

    return check


def _short(key: object) -> str:
    return ascii(str(key)[:60])[1:-1]
