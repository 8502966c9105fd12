"""What a device can do, and where the tensors of a checkpoint go on this machine."""

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
    """What to do about tensors of two devices that met, to follow what torch said of it; else nothing."""
    text = str(error)
    if "same device" not in text and "two devices" not in text:
        return ""
    return (
        " Create a tensor where the others are, as torch.zeros(n, device=obs.device) does, and keep one of "
        "the constructor's as a buffer: self.register_buffer(name, tensor)."
    )


def waits_for_copies(kind: str) -> bool:
    """Whether `non_blocking` copies are unsafe: on Apple's devices the source may be reused too early."""
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
        restarted: Random streams that could not be continued here, in words.
    """

    def __init__(self, saved: torch.device, now: torch.device):
        self.saved, self.now = saved, now
        self.restarted: list[str] = []

    def destination(self, device: torch.device) -> torch.device:
        """Where a tensor that was on `device` goes.

        What was on the saved run's device goes to this run's; everything else stays where it was,
        or comes to the CPU where there is no such device.
        """
        return self.now if is_same(device, self.saved) else available(str(device))


_MOVE: ContextVar[Move | None] = ContextVar("move", default=None)


@contextmanager
def moving(saved: torch.device, now: torch.device) -> Iterator[Move]:
    """Inside, `destination` maps the saved run's device to this run's."""
    token = _MOVE.set(move := Move(saved, now))
    try:
        yield move
    finally:
        _MOVE.reset(token)


def destination(device: str) -> torch.device:
    """Where a saved tensor that was on `device` goes; outside of `moving`: to that device, if it exists."""
    move = _MOVE.get()
    return available(device) if move is None else move.destination(torch.device(device))


def current_move() -> Move | None:
    """The move in progress, or None."""
    return _MOVE.get()
