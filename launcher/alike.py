"""What the ranks of a run do, each in its own process, so that they learn the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ..replay import ConfigError
from ..replay.ranks import ranks
from .process import Workplace
from .session import Session
from .settings.plan import Plan

T = TypeVar("T")


def of_this_rank(plan: Plan) -> Plan:
    """The plan for a rank: all but rank 0 draw, print and record nothing."""
    if ranks().rank == 0:
        return plan
    return replace(plan, loggers=[], plot=False, video=False, render_model=False, progress=False)


def in_turn(build: Callable[[], T]) -> T:
    """What `build` returns; rank 0 builds first, so that only one process downloads or decodes data."""
    place = ranks()
    if place.rank:
        place.agree("build")
    built = build()
    if place.rank == 0:
        place.agree("build")
    return built


def start_alike(session: Session, workplace: Workplace) -> None:
    """Check that all ranks are about to learn the same, and give all of them rank 0's weights.

    Raises:
        ConfigError: If they have other settings, other data, or another checkpoint.
    """
    place = ranks()
    if not place.several:
        return
    workplace.signals.shared = True
    mine: dict[str, Any] = {f"{k}=": repr(v) for k, v in session.plan.values.items()}
    world: dict[str, Any] = session.world.state_dict(None, pack=lambda _: None)
    if place.own:  # Statistics and episodes of its own.
        world = {"tasks": world["data"]}
    mine |= {f"the data's {k}": repr(v) for k, v in world.items()}
    mine["the step of the checkpoint"] = str(session.progress.step)
    for rank, theirs in enumerate(place.objects(mine, "settings")):
        if other := [key for key in mine if theirs.get(key) != mine[key]]:
            known = f"{mine[other[0]]:.80} and {theirs.get(other[0])!s:.80}"
            raise ConfigError(
                f"Ranks {place.rank} and {rank} differ in {other[0]} ({known}). All ranks need the same "
                "words, the same data, and to read the same run directory."
            )
    session.learner.updates.reduction.begin()
