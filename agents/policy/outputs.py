"""Checks of what modules return: whether it fits the actions, and which layer it came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import ConfigError, Space
from .heads import distribution, logits_shape
from .spaces import gymnasium_name


class Sources:
    """Records which module produced each tensor of a forward.

    Attributes:
        last: The module entered last, in which an error was raised.
    """

    def __init__(self, name: str):
        self.last = name
        self._name = name
        self._made: dict[int, tuple[Tensor, str, nn.Module]] = {}

    def of(self, output: object) -> str:
        """` from heads.use: Linear`, or the module that ran last where a function came after it."""
        for tensor in _tensors(output):
            if (made := self._made.get(id(tensor))) is not None:
                return f" from {made[1]}" if made[1] != self._name else ""
        return f" (the last module was {self.last})" if self.last != self._name else ""

    def layer(self, output: object) -> nn.Module | None:
        """The module that returned exactly this tensor; None if none did."""
        for tensor in _tensors(output):
            if (made := self._made.get(id(tensor))) is not None:
                return made[2]
        return None

    def note(self, output: object, path: str, module: nn.Module) -> None:
        """Record a module's output; the innermost module wins, since it returns first."""
        if isinstance(output, Tensor):
            # Keeps the tensor alive, so that its id is not reused.
            self._made.setdefault(id(output), (output, path, module))


@contextmanager
def watched(module: nn.Module, name: str) -> Iterator[Sources]:
    """Runs the block while recording every forward of the module's parts."""
    sources = Sources(name)
    hooks = []
    for path, part in module.named_modules():
        shown = f"{path or name}: {type(part).__name__}" if path else name

        def enter(*_: object, shown: str = shown) -> None:
            sources.last = shown

        def leave(part: nn.Module, _: object, output: object, shown: str = shown) -> None:
            sources.note(output, shown, part)

        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield sources
    finally:
        for hook in hooks:
            hook.remove()


def check_outputs(
    output: object,
    space: Space | dict[str, Space],
    rows: int,
    name: str,
    sources: Sources,
    *,
    values: bool = False,
) -> None:
    """Check that a module returned logits or distributions for all actions; it may return other keys too.

    Args:
        output: `[rows, *logits_shape]`, a distribution, or a dict of these by name.
        name: The module's name, for errors.
        values: Whether actions themselves are also valid for continuous heads, `[rows, *shape]`.

    Raises:
        ConfigError: For each bad head, with its name, what was expected, what it returned and from where.
    """
    heads, wrong = _heads(output, space, name)
    for key, (given, part) in heads.items():
        head = f"head '{key}'" if key else "output"
        if isinstance(given, Distribution):
            try:
                distribution(part, given, key or "action", batch_shape=(rows,))
            except ConfigError as error:
                wrong.append(f"{name}: {error}")
            continue
        shape = (rows, *logits_shape(part))
        if values and isinstance(given, Tensor) and tuple(given.shape) == (rows, *part.shape):
            shape = (rows, *part.shape)
        if not isinstance(given, Tensor):
            wrong.append(
                f"{name}: {head}: expected {_shown(shape)} for {gymnasium_name(part)}, got a "
                f"{type(given).__name__}."
            )
        elif tuple(given.shape) != shape:
            wrong.append(
                f"{name}: {head}: expected {_shown(shape)} for {gymnasium_name(part)}, got "
                f"{tuple(given.shape)}{sources.of(given)}."
            )
        elif not bool(torch.isfinite(given).all()):
            wrong.append(
                f"{name}: {head} is not finite{sources.of(given)}: it holds NaN or infinity."
            )
    if wrong:
        raise ConfigError("\n".join(wrong))


def _heads(
    output: object, space: Any, name: str, path: str = ""
) -> tuple[dict[str, tuple[Any, Space]], list[str]]:
    """Every head's output with its space, and messages about missing ones; `arm/door` in nested dicts."""
    if not isinstance(space, dict):
        return {path: (output, space)}, []
    where = f" for {path!r}" if path else ""
    if not isinstance(output, dict):
        raise ConfigError(
            f"{name}.forward returned a {type(output).__name__}{where}; expected a dict with "
            f"{', '.join(space)}."
        )
    heads: dict[str, tuple[Any, Space]] = {}
    wrong = [_missing(key, output, space, name) for key in space if key not in output]
    for key, part in space.items():
        if key in output:
            found = _heads(output[key], part, name, f"{path}/{key}" if path else key)
            heads |= found[0]
            wrong += found[1]
    return heads, wrong


def _missing(key: str, output: Iterable[str], space: Iterable[str], name: str) -> str:
    others = [str(other) for other in output if other not in space]
    near = difflib.get_close_matches(key, others, n=1, cutoff=0.5)
    hint = f" Did you mean `{key}` where it says `{near[0]}`?" if near else ""
    given = ", ".join(map(str, output)) or "nothing"
    return f"{name}.forward returned no '{key}', only {given}.{hint}"


def _shown(shape: tuple[int, ...]) -> str:
    return f"(B, {', '.join(map(str, shape[1:]))})"


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        return [tensor for part in output.values() for tensor in _tensors(part)]
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in _tensors(part)]
    return []
