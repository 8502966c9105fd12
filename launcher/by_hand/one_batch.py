"""The replay as a single step of a custom loop sees it."""

from __future__ import annotations

from typing import Any

from ...replay import Batch, ConfigError, Replay


class OneBatch:
    """The replay as one step of the loop sees it: its only batch is the one already drawn."""

    def __init__(self, batch: Batch, replay: Replay):
        self.batch, self._replay, self._drawn = batch, replay, False

    def __iter__(self) -> OneBatch:
        return self

    def __next__(self) -> Batch:
        if self._drawn:
            raise ConfigError(
                "learn draws several batches per step, but strategies.loss(batch) has only one. Train "
                "such a model with ml(...)."
            )
        self._drawn = True
        return self.batch

    def __len__(self) -> int:
        return len(self._replay)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replay, name)
