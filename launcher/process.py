"""What a run changes in the caller's process, and restores between its spells of work."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from ..replay.randomness import kept_randomness, random_state, set_random_state
from .record.signals import Signals
from .settings.import_path import add_to_path, added_to_path

# Random streams, warnings and import paths belong to the process, so runs in several threads take turns.
_AT_WORK = threading.RLock()


class Workplace:
    """Sets the process up for a run's spells of work, and restores it in between.

    Random streams, the default dtype, threads and import paths continue where the previous spell left them.

    Attributes:
        device: The run's device, whose random stream is saved and restored too.
        signals: Those that ask the run to stop.
    """

    def __init__(self) -> None:
        self.signals = Signals()
        self.device = torch.device("cpu")
        self._settings: list[Callable[[], AbstractContextManager[Any]]] = []
        self._spell: ExitStack | None = None
        self._left: dict[str, Any] | None = None

    @contextmanager
    def spell(self, *, moves_on: bool = True) -> Iterator[None]:
        """Runs the block with the run's own process settings.

        Args:
            moves_on: Whether the next spell continues from where this one ends, not from where it began.
        """
        before = set(added_to_path)
        with left_as_found(), ExitStack() as self._spell:
            if (left := self._left) is not None:
                torch.set_default_dtype(left["dtype"])
                for folder in left["path"]:
                    add_to_path(Path(folder))
                set_random_state(left["random"], self.device)
                # The number of threads changes the order of sums.
                if torch.get_num_threads() != left["threads"]:
                    self._spell.enter_context(threads(left["threads"]))
            for setting in self._settings:
                self._spell.enter_context(setting())
            try:
                yield
            finally:
                if moves_on:
                    added = added_to_path - before
                    self._left = {
                        "dtype": torch.get_default_dtype(),
                        "path": [folder for folder in sys.path if folder in added],
                        "random": random_state(self.device),
                        "threads": torch.get_num_threads(),
                    }

    def keep(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        """Enter a context for the rest of this spell, and in every later spell.

        Args:
            setting: Makes the context.
        """
        assert self._spell is not None
        self._spell.enter_context(setting())
        self._settings.append(setting)


@contextmanager
def taking_turns(*, waits: bool = True) -> Iterator[bool]:
    """Runs the block while no other thread works for a run.

    Args:
        waits: Whether to wait for such a thread. Otherwise the block runs anyway.

    Yields:
        Whether no other thread works for a run.
    """
    got = _AT_WORK.acquire(blocking=waits)
    try:
        yield got
    finally:
        if got:
            _AT_WORK.release()


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """Runs the block with this many threads of torch; None: as many as before."""
    if wanted is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def left_as_found() -> Iterator[None]:
    """Runs the block with gradients on; then restores random streams, warnings, path and default dtype.

    Threads, signal handlers and torch's arithmetic are restored by those who change them.
    """
    with taking_turns():
        yield from _left_as_found()


def _left_as_found() -> Iterator[None]:
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
