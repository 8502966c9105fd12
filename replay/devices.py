"""Capabilities of devices, and the placement of a checkpoint's tensors on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch


@cache
def has_float64(kind: str) -> bool:
    """Whether devices of this kind (`cuda`, `mps`, ...) compute in float64: Apple's do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=kind)
    except (TypeError, RuntimeError):
        return False
    return True


@cache
def pins_memory(kind: str) -> bool:
    """Whether page-locked host memory makes copies to devices of this kind asynchronous."""
    return kind in ("cuda", "xpu")


def about_devices(error: BaseException) -> str:
    """Advice to append to torch's error about tensors on different devices; empty for other errors."""
    text = str(error)
    if "same device" not in text and "two devices" not in text:
        return ""
    return (
        " Create a tensor where the others are, as torch.zeros(n, device=obs.device) does, and keep one of "
        "the constructor's as a buffer: self.register_buffer(name, tensor)."
    )


def waits_for_copies(kind: str) -> bool:
    """Whether `non_blocking` copies are unsafe: on Apple's devices their source may be reused too early."""
    return kind == "mps"


def is_same(a: torch.device, b: torch.device) -> bool:
    """Whether two names mean one device: `cuda` is the `cuda:0` that its tensors are on.

    >>> is_same(torch.device("cuda"), torch.device("cuda:0"))
    True
    """
    return a.type == b.type and (a.index or 0) == (b.index or 0)


def available(device: str) -> torch.device:
    """The device of this name, or the CPU on a machine without it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):  # torch without CUDA asserts.
        return torch.device("cpu")


class Move:
    """From the device of the run that was saved to the one that continues it.

    Args:
        saved: The saved run's device.
        now: This run's device.

    Attributes:
        restarted: Descriptions of random streams that could not be continued on this device.
    """

    def __init__(self, saved: torch.device, now: torch.device):
        self.saved, self.now = saved, now
        self.restarted: list[str] = []

    def destination(self, device: torch.device) -> torch.device:
        """The device for a tensor that was saved from `device`.

        Tensors on the saved run's device go to this run's device; all others stay on theirs, or go to the
        CPU if this machine has no such device.
        """
        return self.now if is_same(device, self.saved) else available(str(device))


_MOVE: ContextVar[Move | None] = ContextVar("move", default=None)


@contextmanager
def moving(saved: torch.device, now: torch.device) -> Iterator[Move]:
    """Runs the block with `destination` mapping the saved run's device to this run's."""
    token = _MOVE.set(move := Move(saved, now))
    try:
        yield move
    finally:
        _MOVE.reset(token)


def destination(device: str) -> torch.device:
    """The device for a tensor saved from `device`; outside `moving`, the same device if it exists."""
    move = _MOVE.get()
    return available(device) if move is None else move.destination(torch.device(device))


def current_move() -> Move | None:
    """The move in progress, or None."""
    return _MOVE.get()
