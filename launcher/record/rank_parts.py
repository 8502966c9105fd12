"""What only one rank of a run on several devices has: in environments its replay, episodes and streams.

Rank 0 writes `checkpoints/000003` as a run on one device does; rank 1 writes `checkpoints/rank-1/000003`
before it. So a numbered folder of rank 0 is complete only with those of the others, and a run can only be
continued by as many ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...replay import CheckpointError
from ...replay.ranks import Ranks, ranks


def folder_of(folder: Path, rank: int) -> Path:
    """The checkpoints of a rank, beside those of rank 0 in `folder`."""
    return folder / f"rank-{rank}" if rank else folder


def save_parts(save: Callable[[], None]) -> None:
    """Let the other ranks save theirs; rank 0 waits, so that its own checkpoint comes last.

    Args:
        save: Writes this rank's part.

    Raises:
        OSError: On every rank, if one could not be written.
    """
    place, problem = ranks(), None
    if place.rank:
        try:
            save()
        except OSError as error:
            problem = str(error)
    _agree(place, problem, OSError)


def read_parts(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """This rank's part of a checkpoint, if every rank can read its own.

    Raises:
        CheckpointError: On every rank, if one cannot.
        OtherRanks: If it is one of another number of ranks.
    """
    place, problem, number = ranks(), None, None
    state: dict[str, Any] = {}
    try:
        state = read()
        number = number_of(state)
    except CheckpointError as error:
        problem = str(error)
    if (of_all := place.objects(number)[0]) is not None:
        check_number(of_all)
    _agree(place, problem, CheckpointError)
    return state


class OtherRanks(CheckpointError):
    """A checkpoint of ranks that had data of their own, of which there is another number now."""


def number_of(state: dict[str, Any]) -> int:
    """How many ranks with data of their own a checkpoint belongs to."""
    return int(state.get("ranks", 1))


def check_number(before: int) -> None:
    """Refuse a checkpoint whose ranks had data of their own, if there is another number of them now.

    Raises:
        OtherRanks: With the number to resume with.
    """
    if before != (now := ranks().sources):
        raise OtherRanks(
            f"The run learnt in environments on {_devices(before)}, each with environments and a replay of "
            f"its own: it cannot be continued on {_devices(now)}. Resume with devices={before} (torchrun: "
            f"--nproc-per-node={before}), or start a new run from its weights: load=PATH."
        )


def _agree(place: Ranks, problem: str | None, kind: type[Exception]) -> None:
    found = [(rank, each) for rank, each in enumerate(place.objects(problem)) if each is not None]
    if found:
        rank, text = found[0]
        raise kind(f"{text} (rank {rank})" if rank else text)


def _devices(count: int) -> str:
    return f"{count} devices" if count > 1 else "one device"
