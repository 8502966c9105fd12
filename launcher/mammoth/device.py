"""Where Mammoth's code asks what it runs on."""

from __future__ import annotations

import os

import torch

from ..device import build_device
from ..observe.options import MORE


def get_device() -> torch.device:
    """The device of the run, while `load_runner` makes a model; else a GPU that works, or the CPU."""
    return build_device(MORE.get().get("device") or os.environ.get("ANTELOPE_DEVICE") or None)
