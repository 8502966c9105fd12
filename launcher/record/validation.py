"""What the state in a checkpoint looks like: checked before any of it is used.

A checkpoint may come from anyone. Its files are hashed, but whoever wrote them wrote the hashes too. What its
parts must look like is said here; what depends on the objects of the run that loads it (the shapes of its
weights, the attributes of its model) is checked by them, before the first of them is changed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...replay import CheckpointError, ConfigError, Diverged
from ...replay.structure import (
    LARGEST_OBS,
    Foreign,
    anything,
    array,
    count,
    each,
    fields,
    flag,
    is_dict,
    misfit,
    number,
    optional,
    stream,
    table,
    tensor,
    text,
)
from .progress import Progress

# What loading a state that does not fit may raise, in our code and in torch's.
_UNFIT = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError)


def _weight(value: Foreign, path: str) -> None:
    if not path.endswith("_extra_state"):  # torch's hook: a module may save anything by it.
        tensor(value, path)


def _matrix(value: Foreign, path: str) -> None:
    """Scores by task: an array, or lists in checkpoints before 0.5.0."""
    (each(each(number)) if isinstance(value, list) else array("f", None, None))(value, path)


ATTRIBUTES = fields(
    {
        "values": table(anything),
        "buffers": table(tensor),
        "frozen": each(text),
        "in_eval": each(text),
    },
    {"places": table(text)},
)
_PARTS: dict[str, Any] = {  # Of a learner, without those that every state has.
    "optimizer": fields({"state": anything, "param_groups": each(table(anything))}),
    "scheduler": table(anything),
    "average": fields({"average": anything}),
    "scaler": table(anything),
    "optimizer_fields": table(anything),
    "gradients": table(tensor),
    "pending": each(count, 2),
    "held": optional(each(each(optional(text)))),
    "lr": optional(number),
    "tasks_begun": count,
    "grown": optional(
        fields(
            {
                "built": table(anything),
                "now": table(anything),
                "facts": table(anything),
                "tasks": count,
            }
        )
    ),
    "skipped_updates": count,
    "unreached": fields({"waiting": each(text), "looks": count}),
    "strategies": fields(
        {"task": count, "strategies": table(anything)},
        {
            "in_epoch": flag,
            "structures": table(table(each(count))),
            "predicting": each(text),
        },
    ),
}
_WEIGHTS = {"agent": table(_weight), "attributes": ATTRIBUTES}
LEARNER = fields({**_WEIGHTS, "optimised": flag, "steps": count}, _PARTS)
_MOMENTS = table(
    fields({"count": count, "mean": anything, "squares": anything}, {"base": anything})
)
_NORMALIZER = optional(fields({"moments": _MOMENTS, "return": anything}, {"since": _MOMENTS}))
_BEST = fields(
    {"layout": table(anything), "learner": fields(_WEIGHTS, _PARTS), "normalizer": _NORMALIZER}
)
PROGRESS = fields(
    {
        "task": count,
        "task_step": count,
        "step": count,
        "begun": flag,
        "stopped": flag,
        "best": optional(number),
        "waited": count,
        "matrix": _matrix,
        "task_il": _matrix,
        "baseline": each(number),
        "metrics": table(number),
    },
    # 0.4.0 wrote `evaluated`.
    {
        **dict.fromkeys((field.name for field in dataclasses.fields(Progress)), anything),
        "best_state": optional(_BEST),
        "evaluated": anything,
        "shift": number,
        "rollbacks": count,
    },
)
_EPOCHS = fields(
    {"epoch": count, "rows": count, "order": stream}, {"in_parts": flag, "window": count}
)
_DRAWS = fields(
    {"generator": stream}, {"leaves": array("f", None), "highest": number, "batches": count}
)


def _sampler(value: Foreign, path: str) -> None:
    """Where a sampler is: in a pass over the rows, or in a stream of random draws."""
    (_DRAWS if is_dict(value) and "generator" in value else _EPOCHS)(value, path)


REPLAY = fields(
    {"task": count, "step": count, "sampler": _sampler, "orders": stream, "draws": stream},
    {"transitions": table(anything), "given": each(count), "rows": anything},
)


def version_words(value: Foreign, path: str) -> None:
    """The state of a `random.Random`."""
    fits = isinstance(value, (list, tuple)) and len(value) == 3 and value[0] == 3
    if not fits or not isinstance(value[1], (list, tuple)) or len(value[1]) != 625:
        misfit(path, value, "the state of Python's random numbers")
    each(count)(value[1], f"{path}[1]")
    optional(number)(value[2], f"{path}[2]")


def _numpy_stream(value: Foreign, path: str) -> None:
    fits = isinstance(value, (list, tuple)) and len(value) == 5 and value[0] == "MT19937"
    if not fits or not 0 <= value[2] <= 624:
        misfit(path, value, "the state of NumPy's random numbers")
    array("u", 624)(value[1], f"{path}[1]")


# The random streams: Python's, NumPy's, torch's, and those of devices (all GPUs before 0.5.0).
_streams = fields(
    {"python": version_words, "numpy": _numpy_stream, "torch": stream},
    {"device": fields({"kind": text, "state": stream}), "cuda": each(stream)},
)

_SHAPED = ("low", "high", "mean", "stddev")


def _space(value: Foreign, path: str) -> None:
    """A space, or spaces by name, as in spec_state.py."""
    if is_dict(value) and "parts" in value:
        each(each(anything, 2))(value["parts"], f"{path}.parts")
        for name, part in value["parts"]:
            text(name, f"{path}, name")
            _space(part, f"{path}.{name}")
        return
    table(anything)(value, path)
    for name in ("shape", "nvec"):
        each(count)(value.get(name, ()), f"{path}.{name}")
    if not isinstance(vars(torch).get(str(value.get("dtype"))), torch.dtype):
        misfit(f"{path}.dtype", value.get("dtype"), "a dtype of torch's")
    if math.prod(value.get("shape", ())) > LARGEST_OBS:
        misfit(f"{path}.shape", value["shape"], "an observation that fits into memory")
    for name in _SHAPED:
        if not isinstance(value.get(name), (int, float, torch.Tensor, type(None))):
            misfit(f"{path}.{name}", value[name], "numbers")


def _journal(value: Foreign, path: str) -> None:
    """The number of rows in each file, and the rows that could not be written yet."""
    waiting = each(table(lambda item, at: (text if isinstance(item, str) else number)(item, at)))
    fields(
        {"train": count, "eval": count},
        {"waiting": fields({}, {"train": waiting, "eval": waiting})},
    )(value, path)


# Parts that every checkpoint has. What else a run writes depends on its world.
_STATE = {
    "progress": PROGRESS,
    "learner": LEARNER,
    "replay": REPLAY,
    "augmentation": anything,
    "environment": optional(fields({"task": table(anything), "envs": anything})),
    "actor": optional(fields({}, {"state": anything})),
    "log": table(each(number)),
    "random": _streams,
    "settings": table(anything),
    "journal": _journal,
}
_OTHERS = {
    "device": text,
    "objects": each(text),
    "given": each(text),
    "earlier": each(fields({"step": count, "used": table(anything)})),
    "name": text,
    "spec": fields({"obs": _space, "action": _space, "num_tasks": count}),
    "environments": optional(
        each(
            fields(
                {
                    "longest": count,
                    "running": fields({"shared": each(each(anything)), "returns": each(anything)}),
                }
            )
        )
    ),
    "normalizer": _NORMALIZER,
    "interfaces": each(optional(table(anything))),
    "info_layout": optional(
        fields({"types": each(each(anything, 3)), "with_obs": optional(each(text))})
    ),
    "later": each(table(anything)),
    "callbacks": table(anything),
    "collected": count,
    "ranks": count,
    "fingerprint": text,  # Before format 3.
}


def check_structure(state: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """Check what all checkpoints have in common.

    Args:
        state: What `checkpoint.read` returned. Nothing of it has been used.
        without: Parts that were not read.

    Raises:
        CheckpointError: Naming the first part that is missing or has another type.
    """
    for name, form in _STATE.items():
        if name not in without:
            if name not in state:
                raise CheckpointError(
                    f"The checkpoint lacks `{name}`: it was not written by a run."
                )
            form(state[name], name)
    for name, form in _OTHERS.items():
        if name in state:
            form(state[name], name)
    progress = state["progress"]
    if progress["task_step"] > progress["step"]:
        misfit(
            "progress.task_step", progress["task_step"], f"at most the {progress['step']} of `step`"
        )


def check_parts(state: Mapping[str, Any], here: Mapping[str, Any], *, tasks: int) -> None:
    """Compare the parts of a state with those that this run would write.

    Args:
        state: Checked by `check_structure`.
        here: What this run would save now.
        tasks: Number of tasks of this run, including those that the state says were added later.

    Raises:
        CheckpointError: Naming a part that this run never writes, or one with other sizes.
    """
    if unknown := sorted(map(str, state.keys() - here.keys() - _STATE.keys() - _OTHERS.keys())):
        raise CheckpointError(
            f"The checkpoint has `{unknown[0]:.60}`, which this run does not write: it comes from another "
            "kind of run, or from a newer version."
        )
    progress = state["progress"]
    if progress["task"] > tasks or (progress["begun"] and progress["task"] == tasks):
        raise CheckpointError(
            f"The checkpoint is in task {progress['task']}, counted from 0; this run has {tasks}."
        )
    for name in ("matrix", "task_il"):
        rows = progress[name]
        if len(rows) > tasks or any(len(row) > tasks for row in rows):
            raise CheckpointError(
                f"The checkpoint's `{name}` has the scores of more than {tasks} tasks."
            )


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Runs a block that loads a state; whatever still does not fit becomes a `CheckpointError`.

    Args:
        path: Where the state was read from.

    Raises:
        CheckpointError: The block's own, or one that names its error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, ConfigError, Diverged):
        raise
    except _UNFIT as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise CheckpointError(
            f"The state in {path} does not fit this run ({said}). It was written by another one, or changed "
            "since."
        ) from error
