"""What an optimiser's groups hold, by name: a checkpoint says it, and a resumed run holds the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer


def held_names(optimizer: Optimizer, names: Mapping[int, str]) -> list[list[str | None]]:
    """The names of the parameters in each group of an optimiser; None for tensors without a name.

    Args:
        names: The parameters' names, by `id`.
    """
    return [[names.get(id(p)) for p in group["params"]] for group in optimizer.param_groups]


def hold(
    optimizer: Optimizer, held: Sequence[Sequence[str | None]], named: Mapping[str, Any]
) -> None:
    """Let an optimiser's groups hold the parameters that `held_names` returned, before its state is loaded.

    If one is missing, nothing changes. A tensor without a name is taken to be the one in its place.

    Args:
        held: The names in each group; None: no name.
        named: The module's parameters, by name.
    """
    groups = optimizer.param_groups
    wanted: list[list[Any]] = []
    for i, names in enumerate(held):
        here = groups[i]["params"] if i < len(groups) else []
        row = [
            named.get(name) if name is not None else (here[j] if j < len(here) else None)
            for j, name in enumerate(names)
        ]
        if any(p is None for p in row):
            return
        wanted.append(row)
    now = [list(group["params"]) for group in groups]
    if [[id(p) for p in row] for row in now] == [[id(p) for p in row] for row in wanted]:
        return
    optimizer.state.clear()
    del groups[len(wanted) :]
    for group, row in zip(groups, wanted, strict=False):
        group["params"] = row
    for row in wanted[len(groups) :]:
        groups.append({**groups[0], "params": row})  # Its options come with the state.
