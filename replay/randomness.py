"""The random streams that a run uses besides the replay's own: Python's, NumPy's and torch's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed all streams."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # Those of accelerators too.


def random_state(device: torch.device) -> dict[str, Any]:
    """The current state of every stream: the host's, and that of the run's device."""
    state = _host_state()
    if device.type != "cpu":
        state["device"] = {"kind": device.type, "state": _stream(device)}
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> bool:
    """Continue every stream from a saved state.

    Returns:
        Whether the device's stream continues too. It cannot be transferred between kinds of devices; the
        device's own stream is then left unchanged.
    """
    _set_host_state(state)
    if "cuda" in state:  # Before 0.5.0, states held the streams of all GPUs.
        streams = state["cuda"]
        state = {
            "device": {"kind": "cuda", "state": streams[min(device.index or 0, len(streams) - 1)]}
        }
    saved = state.get("device", {"kind": "cpu"})
    if saved["kind"] != device.type:
        return False
    if device.type != "cpu":
        _set_stream(device, saved["state"])
    return True


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restores every random stream after the block, including those of all GPUs."""
    streams = all_streams()
    try:
        yield
    finally:
        set_all_streams(streams)


@contextmanager
def forked_randomness(seed: int) -> Iterator[None]:
    """Runs the block with fresh random streams seeded by `seed`, then restores the previous ones."""
    with kept_randomness():
        seed_everything(seed)
        yield


def all_streams() -> dict[str, Any]:
    """The current state of every stream, including those of all GPUs."""
    devices = [(device, _stream(device)) for device in _devices_in_use()]
    return {**_host_state(), "devices": devices}


def set_all_streams(state: dict[str, Any]) -> None:
    """Continue every stream from what `all_streams` returned."""
    _set_host_state(state)
    for device, stream in state["devices"]:
        _set_stream(device, stream)


def _host_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }


def _set_host_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])


def _devices_in_use() -> list[torch.device]:
    """Every initialised device that seeding affects, all cards of each kind."""
    kinds = {"cuda"} if torch.cuda.is_initialized() else set()
    if torch.accelerator.is_available():
        kinds.add(torch.accelerator.current_accelerator().type)  # type: ignore[union-attr]
    found = []
    for kind in sorted(kinds):
        module = torch.get_device_module(kind)
        if getattr(module, "is_initialized", lambda: True)():
            found += [torch.device(kind, index) for index in range(module.device_count())]
    return found


def _stream(device: torch.device) -> Tensor:
    module = torch.get_device_module(device)
    state: Tensor = module.get_rng_state(*_where(device))
    return state


def _set_stream(device: torch.device, state: Tensor) -> None:
    torch.get_device_module(device).set_rng_state(state, *_where(device))


def _where(device: torch.device) -> tuple[torch.device, ...]:
    # There is only one, and the function takes no argument.
    return () if device.type == "mps" else (device,)
