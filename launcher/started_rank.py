"""The process of a rank that `devices=N` has started."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from ..replay.errors import ConfigError
from .distributed import Place, group_of
from .train import train


def main() -> None:
    """What a started rank does: learns as rank 0 does, and says nothing."""
    import torch.distributed as dist

    rank, world = int(sys.argv[1]), int(sys.argv[2])
    # Not through sys.stdin, whose lock the thread below would hold for ever: processes that are forked
    # (environments, readers of data) close it first.
    pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    sys.stdin = open(os.devnull)  # noqa: SIM115 - until the process ends.
    size = int.from_bytes(pipe.read(8), "little")
    data = pipe.read(size)
    if not size or len(data) < size:
        os._exit(1)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    import cloudpickle

    sys.path[:], settings = cloudpickle.loads(data)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends.
    Path(sys.argv[3], f"rank-{rank}").touch()  # Rank 0 waits for this.
    store = dist.FileStore(str(Path(sys.argv[3], "store")), world)
    try:
        with group_of(Place(rank, world, rank), store, settings):
            train(settings)
    except BaseException as error:
        # What a rank can still say, rank 0 has raised.
        os._exit(error.exit_code if isinstance(error, ConfigError) else 1)
    os._exit(0)


def _end_with(pipe: Any) -> None:
    """End this process when the one that started it has ended."""
    pipe.read()
    os._exit(1)
