"""Parameter groups with their own settings: `optim.groups.head.lr=1e-2`."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ...replay import ConfigError
from ...replay.suggestions import did_you_mean


def flat_patterns(groups: Any, prefix: str = "") -> dict[str, dict[str, Any]]:
    """`{"encoder": {"lr": 1, "head": {"lr": 2}}}` as `{"encoder": {"lr": 1}, "encoder.head": {"lr": 2}}`.

    Raises:
        ConfigError: If it is not a mapping of patterns to settings.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError(
            f"optim.groups={groups!r}: expected settings by names of parameters, as in "
            "optim.groups.head.lr=1e-2, or {'head': {'lr': 1e-2}, '*.bias': {'weight_decay': 0}}."
        )
    found: dict[str, dict[str, Any]] = {}
    for key, value in groups.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            options = {k: v for k, v in value.items() if not isinstance(v, Mapping)}
            deeper = {k: v for k, v in value.items() if isinstance(v, Mapping)}
            if options or not deeper:
                found[path] = options
            if deeper:
                found |= flat_patterns(deeper, f"{path}.")
        elif not prefix:
            raise ConfigError(
                f"optim.groups.{path}={value}: which setting of `{path}`? Write "
                f"optim.groups.{path}.lr={value}, for example."
            )
    return found


def divided(
    patterns: Mapping[str, Mapping[str, Any]], agent: nn.Module, own: nn.Module | None
) -> list[dict[str, Any]]:
    """The trainable parameters in groups, first those that no pattern matches.

    A pattern is the name of a module or parameter (`head`), or has wildcards (`*.bias`). If several
    patterns match a parameter, all their settings apply; for the same setting, the last one wins.

    Args:
        patterns: The optimiser's settings by pattern.
        own: The user's module inside `agent`: its parameter names may be used too.

    Returns:
        Groups as torch's optimisers take them, `{"params": [...], "lr": ...}`.

    Raises:
        ConfigError: For patterns that match nothing.
    """
    names: dict[int, list[str]] = {}  # By id: a shared parameter has several.
    trained = {}
    for module in (own, agent):
        for name, p in module.named_parameters() if module is not None else ():
            names.setdefault(id(p), []).append(name)
    for p in agent.parameters():
        if p.requires_grad:
            trained[id(p)] = p
    groups: dict[tuple[str, ...], list[nn.Parameter]] = {(): []}
    for key, p in trained.items():
        matching = tuple(x for x in patterns if any(_matches(x, name) for name in names[key]))
        groups.setdefault(matching, []).append(p)
    used = {pattern for matching in groups for pattern in matching}
    every = list(dict.fromkeys(name for key in trained for name in names[key]))
    if unused := [pattern for pattern in patterns if pattern not in used]:
        raise ConfigError("\n".join(_miss(pattern, every) for pattern in unused))
    found = []
    for matching, parameters in groups.items():
        options = {k: v for pattern in matching for k, v in patterns[pattern].items()}
        if parameters:
            found.append({"params": parameters, **options})
    return found


def check_options(patterns: Mapping[str, Mapping[str, Any]], optimizer: Optimizer) -> None:
    """Refuse group settings that the optimiser does not know: torch stores and ignores them.

    Raises:
        ConfigError: Naming them.
    """
    known = optimizer.defaults
    mistakes = []
    for pattern, options in patterns.items():
        for key, value in options.items():
            where = f"optim.groups.{pattern}.{key}"
            if key not in known:
                there = ", ".join(known)
                mistakes.append(
                    f"{type(optimizer).__name__} has no setting `{key}` ({where}).{did_you_mean(key, known)} "
                    f"It has: {there}."
                )
            # torch checks the defaults, but not a group's own values. `True` is an int, too.
            elif key in ("lr", "weight_decay") and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
            ):
                mistakes.append(f"{where}={value!r}: expected a nonnegative number.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _matches(pattern: str, name: str) -> bool:
    # `fnmatch` would ignore case on Windows.
    return name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def _miss(pattern: str, names: list[str]) -> str:
    modules = {".".join(parts[:i]) for n in names for parts in [n.split(".")] for i in range(1, 9)}
    choices = sorted(modules | set(names))
    if any(name.split(".")[-1] == pattern for name in names):
        near = f" Did you mean `*.{pattern}`?"
    else:
        near = did_you_mean(pattern, choices)
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return (
        f"optim.groups: no trained parameter is called `{pattern}`.{near} The names are: {shown}."
    )
