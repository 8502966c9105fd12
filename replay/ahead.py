"""Gathers the next batch of a data set in host memory while the device learns from this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .storage import Table
from .transfer import Parcel


class Ahead:
    """One batch ahead, by a thread of its own.

    Gathering large rows takes the host longer than starting a learning step does; without a thread the
    device would wait for both. Which rows come next is the sampler's to say, and it is only asked: its
    state is never ahead of the batches that were given.

    Args:
        table: In host memory.
        device: Where batches go.
    """

    def __init__(self, table: Table, device: torch.device):
        self.table, self.device = table, device
        self._next: tuple[Tensor, Future[tuple[Parcel, dict[str, Any]]]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        if table.in_memory:  # What is decoded on the fly may draw random numbers: in order only.
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="antelope-ahead")

    def take(
        self, index: Tensor, following: Tensor | None, nbytes: int
    ) -> tuple[Parcel, dict[str, Any]]:
        """The rows at `index`, and the parcel that they lie in.

        Args:
            following: The index that will probably be asked for next, this very tensor; or None.
            nbytes: Size of a parcel.
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
        """End the thread; batches are then gathered when they are asked for."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
