"""The list of what `load_runner` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...replay import ConfigError
from ..settings.compose import did_you_mean
from .arguments import IDLE, REQUIRED, SERVED
from .options import (declarations, defaults)
from .registry import DATASETS, MODELS, SEQUENCES, USUAL, key_of

Listed = dict[str, dict[str, Any]]


def get_avail_args(
    dataset: str | None = None, model: str | None = None, args: Mapping[str, Any] | None = None
) -> tuple[Listed, Listed]:
    """The arguments that must be given, and those that may be: what they do, and their defaults.

    Args:
        dataset: A registered sequence, whose own defaults then count.
        model: A registered model, whose own options are listed then, too.
        args: Without effect: no argument makes others.

    Raises:
        ConfigError: If one of them is not registered.
    """
    required: Listed = {name: {"description": text} for name, text in REQUIRED.items()}
    optional: Listed = {
        name: {"default": argument.default, "description": argument.help}
        for name, argument in SERVED.items()
    }
    idle = {"description": "has no effect here"}
    optional |= {name: {"default": value, **idle} for name, value in IDLE.items()}
    usual: dict[str, Any] = {}
    if dataset is not None:
        usual |= USUAL.get(_known("data set", dataset, {**DATASETS, **SEQUENCES}), {})
    if model is not None:
        target = MODELS[_known("model", model, MODELS)]
        for action in declarations(target):
            entry: dict[str, Any] = {"description": action.help}
            if action.required:
                required[action.dest] = entry
            else:
                optional[action.dest] = {"default": action.default, **entry}
        usual |= defaults(target)
    for name, value in usual.items():
        known = {**optional, **required}.get(name, {"description": ""})
        required.pop(name, None)
        optional[name] = {**known, "default": value}
    return required, optional


def _known(kind: str, name: str, there: Mapping[str, Any]) -> str:
    if (key := key_of(name)) in there:
        return key
    near = did_you_mean(key, there)
    raise ConfigError(f"No {kind} `{name}` is registered.{near} There are: {', '.join(there)}.")
