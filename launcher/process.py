"""What a run changes in the caller's process, and gives back when it ends or fails."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from .construct import added_to_path
from .randomness import kept_randomness


@contextmanager
def left_as_found() -> Iterator[None]:
    """Runs the block with gradients on; then restores random streams, warnings, path and default dtype.

    Threads, signal handlers and torch's arithmetic are restored by those who change them.
    """
    seed, dtype, earlier = torch.initial_seed(), torch.get_default_dtype(), set(added_to_path)
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())  # Libraries add filters when imported.
            stack.enter_context(kept_randomness())
            # The caller may be within `torch.no_grad()`, or on another device by default.
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(torch.inference_mode(False))  # Which turns gradients on, too.
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.backends.cuda.is_built() and not torch.cuda.is_initialized():
            # Seeding was only noted down, for when the caller first uses a GPU.
            torch.cuda.manual_seed_all(seed)
        for folder in added_to_path - earlier:
            added_to_path.discard(folder)
            if folder in sys.path:
                sys.path.remove(folder)
