"""Decides which modules of a model are opened in its picture, and which are drawn as boxes."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

_LIBRARIES = ("torch", "torchvision", "timm")
_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MOST = 250  # Boxes, beyond which modules stay closed.
_MOST_IN_LIBRARY = 40


def boxes_of(module: nn.Module, called: set[nn.Module]) -> list[nn.Module]:
    """The modules that stay closed.

    A user's own classes and all lists of modules are opened. Of torch, torchvision and timm only
    what is the whole model is: down to its blocks, as long as they are not too many to be read.

    Args:
        called: All modules whose `forward` ran.
    """
    total = size(module)
    closed, opened = [module], set[nn.Module]()
    whole = set[nn.Module]()  # The parts of a library's network that is the whole model.

    def inner(part: nn.Module) -> list[nn.Module]:
        return [child for child in part.children() if child not in closed and child not in opened]

    def ran(part: nn.Module) -> bool:
        """Whether any of its parts ran. Attention uses the weights of its `out_proj` without calling it."""
        return any(p in called for p in part.modules() if p is not part)

    def openable(part: nn.Module) -> bool:
        if not ran(part):
            return False
        if isinstance(part, _LISTS) and (type(part) in _LISTS or not _of_library(part)):
            return True
        if not _of_library(part) or part is module:
            return True
        if type(part).__module__.startswith("torch."):
            return False
        return size(part) == total > 0 or (part in whole and size(part) > 0.8 * total)

    while True:
        # Lists must be, and what is used by other methods than its `forward`.
        forced = [part for part in closed if part not in called and ran(part)]
        fits = [
            part
            for part in sorted(filter(openable, closed), key=size, reverse=True)
            if part is module
            or len(closed) + len(inner(part)) <= (_MOST_IN_LIBRARY if part in whole else _MOST)
        ]
        if not forced and not fits:
            return closed
        part = (forced or fits)[0]
        opened.add(part)
        if part in whole or (_of_library(part) and not isinstance(part, _LISTS)):
            whole.update(part.modules())
        place = closed.index(part)
        closed[place : place + 1] = inner(part)


def size(module: nn.Module) -> int:
    """Number of its parameters, without those that have no shape yet."""
    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def _of_library(module: nn.Module) -> bool:
    compiled = hasattr(module, "_orig_mod")  # By torch, but a user's.
    return not compiled and type(module).__module__.split(".")[0] in _LIBRARIES
