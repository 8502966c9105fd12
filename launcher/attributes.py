"""What a user's module holds beside its weights: counters, optimisers, generators, buffers.

`state_dict` knows parameters and registered buffers only. A run that continues exactly also needs
`self.optim`, `self.steps`, `self.epsilon`, `self.memory`, ... wherever they sit.
"""

from __future__ import annotations

import collections
import inspect
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..replay import CheckpointError, Space, Spec

_OWN = frozenset(vars(nn.Module()))  # torch's own bookkeeping.
_PLAIN = (bool, int, float, str, bytes, type(None))
_CONSTANT = (type, torch.device, torch.dtype, Space, Spec)


def attribute_state(module: nn.Module) -> dict[str, Any]:
    """`{"layer.steps": 3, ...}`: every attribute of every submodule that is not a weight."""
    seen: set[int] = {id(m) for m in module.modules()}
    return {
        path: captured
        for path, _, _, value in _attributes(module)
        if (captured := _capture(value, seen)) is not _SKIP
    }


def load_attribute_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `attribute_state` found.

    Raises:
        CheckpointError: If an object that has to be continued is not there.
    """
    submodules = dict(module.named_modules())
    for path, captured in state.items():
        owner_name, _, name = path.rpartition(".")
        owner = submodules.get(owner_name)
        if owner is None:
            continue  # Its weights are missing as well, which loading them reports.
        current = getattr(owner, name, None)
        setattr(owner, name, _restore(current, captured, path))


class _Skip:
    pass


_SKIP = _Skip()


def _attributes(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    for prefix, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            if name not in _OWN:
                yield (f"{prefix}.{name}" if prefix else name), submodule, name, value


def _capture(value: Any, seen: set[int]) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, _CONSTANT) or inspect.isroutine(value) or inspect.ismodule(value):
        return _SKIP
    if id(value) in seen:
        return _SKIP  # A submodule, a cycle, or an object held twice.
    seen.add(id(value))
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Generator):
        return {"$generator": value.get_state()}
    if isinstance(value, random.Random):
        return {"$random": value.getstate()}
    if isinstance(value, np.random.Generator):
        return {"$numpy": value.bit_generator.state}
    if isinstance(value, nn.Module):
        return {"$module": value.state_dict(), "$attributes": attribute_state(value)}
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return {"$state": value.state_dict()}
    if isinstance(value, dict):
        return {"$items": [[key, _keep(item, seen)] for key, item in value.items()]}
    if isinstance(value, (list, tuple, set, collections.deque)):
        return {"$sequence": [_keep(item, seen) for item in value]}
    if hasattr(value, "__dict__"):
        fields = {name: _capture(item, seen) for name, item in vars(value).items()}
        return {"$object": {k: v for k, v in fields.items() if v is not _SKIP}}
    return _SKIP


def _keep(item: Any, seen: set[int]) -> Any:
    captured = _capture(item, seen)
    return {"$skip": True} if captured is _SKIP else captured


def _restore(current: Any, captured: Any, path: str) -> Any:
    """The value that `captured` describes, made from `current` where that holds objects."""
    if not isinstance(captured, dict):
        return captured
    ((kind, content), *rest) = captured.items()
    if kind == "$skip":
        return current
    if kind == "$items":
        old = current if isinstance(current, dict) else {}
        made = {key: _restore(old.get(key), item, f"{path}[{key!r}]") for key, item in content}
        return _refill(current, made)
    if kind == "$sequence":
        before = list(current) if isinstance(current, (list, tuple, collections.deque)) else []
        items = [
            _restore(before[i] if i < len(before) else None, item, f"{path}[{i}]")
            for i, item in enumerate(content)
        ]
        return _refill(current, items)
    if current is None:
        raise CheckpointError(
            f"The checkpoint holds the state of `{path}`, which does not exist when the model is "
            "built. Create it in __init__, so that it can be continued."
        )
    if kind == "$generator":
        current.set_state(content)
    elif kind == "$random":
        version, words, gauss = content
        current.setstate((version, tuple(words), gauss))
    elif kind == "$numpy":
        current.bit_generator.state = content
    elif kind == "$module":
        current.load_state_dict(content)
        load_attribute_state(current, rest[0][1])
    elif kind == "$state":
        current.load_state_dict(content)
    else:
        for name, item in content.items():
            setattr(current, name, _restore(getattr(current, name, None), item, f"{path}.{name}"))
    return current


def _refill(current: Any, content: Any) -> Any:
    """`content` in the container that the model made, which others may refer to."""
    if isinstance(current, collections.deque):
        current.clear()
        current.extend(content)
        return current
    if isinstance(current, (tuple, set)):
        return type(current)(content) if type(current) in (tuple, set) else tuple(content)
    if isinstance(current, (dict, list)):
        current.clear()
        current.update(content) if isinstance(current, dict) else current.extend(content)
        return current
    return content
