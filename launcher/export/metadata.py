"""What a model receives and returns, as text that travels in the exported file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch

from ...envs.reading import Reading
from ...replay import Space
from ...replay.tree import slashed
from ..inference.trained import Trained
from .graph import raw_dtype


def metadata(trained: Trained, *, prepared: bool) -> dict[str, str]:
    """What inputs and outputs mean, by key; `inputs`, `classes` and `columns` are JSON.

    Args:
        prepared: Whether the file prepares its inputs; otherwise `inputs` says how it is done.
    """
    spec, acts = trained.world.spec, trained.world.acts
    describe = _observation if acts else _prepared if prepared else _unprepared
    inputs = [
        {"name": name or "obs", **describe(space, trained)}
        for name, space in slashed(spec.obs).items()
    ]
    found = {
        "producer": "antelope",
        "model": trained.name,
        "data": trained.world.name,
        "inputs": json.dumps(inputs),
        "output": _output(spec.action, acts=acts),
    }
    return found if trained.reading is None else found | _read(trained.reading)


def _read(reading: Reading) -> dict[str, str]:
    """The names of the classes, and how the columns of a table became inputs, if there were any."""
    found = {}
    if reading.classes is not None:
        found["classes"] = json.dumps(list(reading.classes), default=str)
    if reading.columns is not None:
        numbers, categories = (
            [asdict(column) for column in columns]
            for columns in (reading.columns.numbers, reading.columns.categories)
        )
        found["columns"] = json.dumps({"numbers": numbers, "categories": categories})
    elif reading.headings is not None:
        found["columns"] = json.dumps(list(reading.headings))
    return found


def _prepared(space: Space, trained: Trained) -> dict[str, Any]:
    """An input of a graph that prepares it."""
    return {
        "dtype": _word(raw_dtype(space)),
        **_form(space),
        "meaning": "the data's own values, in this shape; the graph prepares them by `preparation`",
        **_preparation(space, standardize=trained.plan.standardize),
    }


def _unprepared(space: Space, trained: Trained) -> dict[str, Any]:
    """An input of a module that expects it prepared."""
    return {
        "dtype": "int64" if space.ids is not None else "float32",
        **_form(space),
        "meaning": "prepared by `preparation` from what the data had",
        **_preparation(space, standardize=trained.plan.standardize),
    }


def _observation(space: Space, trained: Trained) -> dict[str, Any]:
    """An observation of an environment."""
    normalized = (
        ", then normalised by the run's running statistics" if trained.world.normalizer else ""
    )
    return {
        "dtype": "int64" if space.ids is not None else "float32",
        **_form(space),
        "meaning": "as the module receives it: bytes divided by 255, choices one-hot, other numbers in the "
        f"environment's units{normalized}",
    }


def _preparation(space: Space, *, standardize: bool) -> dict[str, Any]:
    """How the data's values become the module's, with the numbers that this takes."""
    if space.ids is not None:
        below = list(space.nvec) or space.ids
        return {"preparation": f"none: whole numbers below {below}"}
    if standardize and space.mean is not None and space.dtype != torch.bool:
        return {
            "preparation": "(x - mean) / stddev",
            "mean": space.mean.tolist(),
            "stddev": torch.as_tensor(space.stddev).tolist(),
        }
    low, high = (torch.as_tensor(end).tolist() for end in (space.low, space.high))
    return {"preparation": "(x - low) / (high - low)", "low": low, "high": high}


def _form(space: Space) -> dict[str, Any]:
    layout = {"layout": "channels first"} if len(space.shape) == 3 else {}
    return {"shape": ["batch", *space.shape], **layout}


def _output(action: Any, *, acts: bool) -> str:
    if isinstance(action, dict):
        return "what forward returns, by the names of the actions"
    if acts:
        return "what forward returns for the action: " + str(action)
    if action.binary:
        return f"{action.n} logits, one for each label"
    if action.discrete:
        return f"{action.n} logits, one for each class; softmax gives probabilities"
    return "values in the units of the targets"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
