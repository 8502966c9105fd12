"""What the header says of integer inputs."""

from __future__ import annotations

from typing import Any

from ..envs.inputs import LARGEST_ID, is_whole


def described(world: Any, *, asked: bool) -> str | None:
    """What becomes of a data set's integers, for the header; None where nothing has to be said.

    Args:
        asked: Whether the user said what is to become of them.
    """
    space = world.spec.obs
    if isinstance(space, dict):
        return None
    if space.ids is not None:
        return (
            f"integers from {space.low:,} to {space.high:,}, unchanged (standardize=true treats "
            "them as numbers)"
        )
    if asked or not is_whole(world.source_dtype):
        return None
    return (
        f"integers up to {space.high:,.0f}: treated as numbers, since ids end at {LARGEST_ID:,}; "
        "standardize=false leaves them unchanged"
    )
