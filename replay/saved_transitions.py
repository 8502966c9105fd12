"""Checks the state of saved transitions before any of it is used: its arrays must fit one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .structure import anything, array, count, each, fields, misfit, number, table, text

_FORM = fields(
    {
        "length": count,
        "num_envs": count,
        "discount": number,
        "nstep": count,
        "stack": count,
        "fresh": count,
        "rows": anything,
        "time": anything,
        "pending": anything,
        "mark": anything,
        "ok": anything,
        "first": anything,
        "columns": table(anything),
        "first_obs": table(anything),
    },
    {"beside": each(text), "borders": anything, "oldest": count, "origin": anything},
)


def check_transitions(state: Mapping[str, Any], *, num_envs: int, length: int) -> None:
    """Check a state of `Transitions`.

    Args:
        num_envs: Number of environments, N, of the storage that is to receive it.
        length: Its rows per environment.

    Raises:
        CheckpointError: Naming what is missing, or does not fit.
    """
    where = "replay.transitions"
    _FORM(state, where)
    for name in ("rows", "time", "pending", "mark"):
        array("iu", num_envs)(state[name], f"{where}.{name}")
        least = np.asarray(state[name]).min(initial=0)
        most = np.asarray(state[name]).max(initial=0)
        if least < 0 or (name == "rows" and most >= length * num_envs):
            misfit(f"{where}.{name}", f"from {least} to {most}", "a row of this replay")
    filled = min(int(np.max(state["time"])) + 1, length) * num_envs
    for name in ("ok", "first"):
        array("b", filled)(state[name], f"{where}.{name}")
    for name, kept in state["columns"].items():
        rows = kept.shape[0] if getattr(kept, "shape", ()) else None
        if rows != filled:
            misfit(f"{where}.columns.{name}", kept, f"an array of {filled} rows")
    if "borders" in state:
        array("iu", None, 1 + num_envs)(state["borders"], f"{where}.borders")
