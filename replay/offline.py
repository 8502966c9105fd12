"""Transitions saved by another run, to learn from without adding any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from .blocks import parts_of
from .errors import CheckpointError
from .field_names import IN, named
from .spec import Space, Spec
from .transitions import Transitions

# Sizes in a saved replay that are ints.
_COUNTS = ("length", "num_envs", "nstep", "stack")
_FIELDS = {"reward", "discount", "terminated", "truncated", "task"}
_ANOTHER = "it was not saved as a replay of environment steps"


def open_saved(
    spec: Spec,
    state: Mapping[str, Any],
    *,
    storage: str = "ram",
    folder: str | None = None,
    device: torch.device | str = "cpu",
) -> Transitions:
    """Transitions from a `Transitions.state_dict`, with the sizes it was saved with, to be read only.

    The stored states of a recurrent model are dropped: they mean nothing to another model.

    Args:
        spec: Spec of the environment, which the transitions have to fit.
        state: The state, from `Transitions.state_dict`.
        storage, folder, device: Where to keep them, as in `Transitions`.

    Raises:
        CheckpointError: If it holds nothing to learn from, or comes from another environment.
    """
    sizes = saved_sizes(state)
    num_envs, ok = sizes["num_envs"], np.asarray(state["ok"])
    columns = {n: kept for n, kept in state["columns"].items() if n.split(IN)[0] != "state"}
    needed = _FIELDS | ({"hop"} if sizes["nstep"] > 1 else set())
    if not (ok.any() and needed <= columns.keys()):
        raise CheckpointError("it holds no transition to learn from")
    if any(len(kept) != len(ok) for kept in columns.values()):
        raise CheckpointError(f"{_ANOTHER}: its columns differ in length")
    _check_spaces(columns, np.flatnonzero(ok), spec, stack=sizes["stack"])
    # If the ring was not full, allocate only what it holds: nothing will be added.
    places = min(sizes["length"], len(ok) // num_envs)
    ring = Transitions(
        spec,
        capacity=(places - 1) * num_envs,
        num_envs=num_envs,
        discount=sizes["discount"],
        nstep=sizes["nstep"],
        stack=sizes["stack"],
        storage=storage,
        folder=folder,
        device=device,
    )
    beside = [name for name in state.get("beside", ()) if name in columns]
    # Draw from the rows of all tasks.
    every = {"borders": np.empty((0, 1 + num_envs), np.int64), "oldest": 0}
    kept = {"columns": columns, "length": ring.length, "beside": beside}
    ring.load_state_dict({**state, **every, **kept})
    ring.origin = _fingerprint({**columns, "ok": ok, "first": np.asarray(state["first"])}, sizes)
    return ring


def saved_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """`length`, `num_envs`, `nstep`, `stack` and `discount` from a `Transitions.state_dict`.

    Raises:
        CheckpointError: If the state is something else.
    """
    try:
        sizes: dict[str, Any] = {key: int(state[key]) for key in _COUNTS}
        sizes["discount"] = float(state["discount"])
        num_envs, rows = sizes["num_envs"], np.asarray(state["rows"])
        places, rest = divmod(len(state["ok"]), num_envs)
        fits = min(sizes.values()) >= 0 and rest == 0 and 0 < places <= sizes["length"]
        fits &= len(state["first"]) == len(state["ok"])
        fits &= all(
            np.asarray(state[name]).shape == (num_envs,)
            for name in ("rows", "time", "pending", "mark")
        )
        fits &= bool(
            (rows % num_envs == np.arange(num_envs)).all() and rows.max() < len(state["ok"])
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{_ANOTHER}: {error!r}") from error
    if not fits:
        raise CheckpointError(f"{_ANOTHER}: its parts do not match")
    return sizes


def _check_spaces(columns: Mapping[str, Any], rows: np.ndarray, spec: Spec, *, stack: int) -> None:
    """Check that observations and actions fit an environment with this spec."""
    for role, space in (("obs", spec.obs), ("action", spec.action)):
        spaces = dict(named(role, space))
        found = {name for name in columns if name.split(IN)[0] == role}
        if found != spaces.keys():
            raise CheckpointError(
                f"its {role} is {_words(found)}, but the environment's {_words(spaces)}"
            )
        for name, part in spaces.items():
            kept, shape = columns[name], part.value_shape
            if role == "obs" and stack > 1 and part.numeric:  # Single frames are stored.
                shape = (shape[0] // stack, *shape[1:])
            if kept.shape[1:] != shape or not _of_type(kept, part, rows):
                raise CheckpointError(
                    f"its {name} is {kept.dtype} {list(kept.shape[1:])}, but the environment's is {part}"
                )


def _of_type(kept: Any, space: Space, rows: np.ndarray) -> bool:
    """Whether a column's values have the space's dtype and, for choices, lie within its range."""
    if space.numeric:
        return kept.dtype.kind == torch.zeros(0, dtype=space.dtype).numpy().dtype.kind
    if kept.dtype.kind not in "iu":
        return False
    count: Any = 2 if space.binary else (space.nvec or space.n)
    if space.ids is not None:
        count = np.asarray(space.high) + 1
    values = np.asarray(kept)[rows]
    return bool((values >= 0).all() and (values < count).all())


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "missing"


def _fingerprint(columns: Mapping[str, Any], sizes: Mapping[str, Any]) -> str:
    """The SHA-256 of everything that is learnt from."""
    digest = hashlib.sha256(repr(sorted(sizes.items())).encode())
    for name, column in sorted(columns.items()):
        digest.update(f"{name} {column.shape} {column.dtype}".encode())
        for _, part in parts_of(column):
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
