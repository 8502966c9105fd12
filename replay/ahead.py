"""Gathers the next batch of a data set in host memory while the device learns from this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .storage import Table
from .transfer import Parcel


class Ahead:
    """Gathers one batch ahead, in a thread of its own.

    Gathering large rows takes the host longer than launching a learning step; without a thread the device
    would wait for both. The sampler is only asked which rows come next: its state never gets ahead of the
    batches that were returned.

    Args:
        table: The data set, in host memory.
        device: The device that batches are sent to.
    """

    def __init__(self, table: Table, device: torch.device):
        self.table, self.device = table, device
        self._next: tuple[Tensor, Future[tuple[Parcel, dict[str, Any]]]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        # Decoding on the fly may draw random numbers, so it must stay in order.
        if table.in_memory:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="antelope-ahead")

    def take(
        self, index: Tensor, following: Tensor | None, nbytes: int
    ) -> tuple[Parcel, dict[str, Any]]:
        """The rows at `index`, and the parcel that holds them.

        Args:
            index: Rows of the batch, int64 `[B]`.
            following: The index of the next call, if it is known: the same tensor object; or None.
            nbytes: Size of a parcel, in bytes.
        """
        ready, self._next = self._next, None
        known = ready is not None and ready[0] is index
        taken = ready[1].result() if known else self._gather(index, nbytes)  # type: ignore[index]
        if following is not None and self._pool is not None:
            self._next = following, self._pool.submit(self._gather, following, nbytes)
        return taken

    def _gather(self, index: Tensor, nbytes: int) -> tuple[Parcel, dict[str, Any]]:
        parcel = Parcel(self.device, nbytes)
        return parcel, self.table.gather(index, empty=parcel.empty)

    def close(self) -> None:
        """End the thread; from then on, batches are gathered on demand."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
