"""What `learn(replay, log)` may do with its log."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Log(Protocol):
    """Records scalars by name: `log.entropy = entropy.mean()`, `log["critic/loss"] = 0.1`.

    A value is a number or a tensor of one element, on any device; recording it does not synchronise.
    """

    def __setattr__(self, name: str, value: Tensor | float, /) -> None: ...

    def __setitem__(self, name: str, value: Tensor | float, /) -> None: ...
