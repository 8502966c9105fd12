"""Checkpoints in Mammoth's format, and loading of models from them or from Antelope's runs.

Mammoth's files are loaded with `torch.load(weights_only=True)`: nothing in them is executed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...replay import CheckpointError, Memory
from ...replay.files import make_folder, replacing
from ..record.checkpoint import find
from ..record.state import load_attribute_state, load_weights
from .buffer import Buffer
from .methods import ObservingModel
from .observer import Observer

if TYPE_CHECKING:
    from ..run import Run


def load_checkpoint(observer: Observer, path: str, *, whole: bool) -> None:
    """Load the weights and the buffer of a checkpoint into a model.

    Args:
        path: A file that Mammoth wrote, a run directory, or its folder of checkpoints.
        whole: Restore everything else too, such as counters and copies of the network, to evaluate.

    Raises:
        CheckpointError: If it cannot be read, or does not fit.
    """
    if Path(path).is_dir():
        _load_run(observer, Path(path), whole=whole)
    else:
        _load_file(observer.model, Path(path))
    observer.started = True  # The model's own `forward` can be expected to work.


def _load_run(observer: Observer, path: Path, *, whole: bool) -> None:
    state = find(path)["learner"]
    load_weights(observer, state["agent"], changed=state.get("grown"))
    attributes = state["attributes"]
    if not whole:
        # To learn on, a model needs its weights and its memory; counters and copies of the network would
        # make it believe that tasks were already learnt in this run.
        values = attributes["values"]
        kept = {name: value for name, value in values.items() if _is_memory(observer, name)}
        attributes = {**attributes, "values": kept}
    load_attribute_state(observer, attributes)
    if not whole:
        observer.train()


def _is_memory(observer: Observer, name: str) -> bool:
    owner: Any = observer
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return isinstance(owner, Memory)


def _load_file(model: ObservingModel, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # torch warns of old file formats that it reads all the same.
            warnings.simplefilter("ignore")
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many types for files that it cannot read.
        raise CheckpointError(
            f"loadcheck={path} cannot be loaded without executing code in it. Save it again with "
            "Mammoth's save_checkpoint_mode=safe, or as model.state_dict()."
        ) from error
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"loadcheck={path} holds a {type(saved).__name__}, not a checkpoint.")
    # Mammoth's own file, or a bare `state_dict()`.
    weights = saved.get("model", saved)
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"loadcheck={path}: its `model` is a {type(weights).__name__}.")
    weights = {_plain_name(name): w for name, w in weights.items() if isinstance(w, Tensor)}
    module = model if isinstance(model, nn.Module) else model.net
    own = module.state_dict()
    if not set(weights) & set(own) and set(weights) & set(model.net.state_dict()):
        module = model.net  # The weights of the network alone.
    elif isinstance(model, nn.Module):
        _register(model, weights)
    load_weights(module, weights)
    if rows := saved.get("buffer"):
        _fill(model, rows, path)


def _register(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Register the buffers that a model creates when it first learns, such as `classes_so_far`."""
    for name, tensor in weights.items():
        if "." not in name and not hasattr(model, name):
            model.register_buffer(name, torch.zeros_like(tensor))


def _plain_name(name: str) -> str:
    """A weight's name without the prefix that torch's DataParallel adds."""
    return name.replace("net.module.", "net.").removeprefix("module.")


def _fill(model: ObservingModel, rows: object, path: Path) -> None:
    if not isinstance(rows, Mapping) or not isinstance(rows.get("examples"), Tensor):
        raise CheckpointError(f"loadcheck={path}: its `buffer` holds no `examples`.")
    buffer = _buffer_of(model)
    if buffer is None:
        raise CheckpointError(
            f"loadcheck={path} holds a buffer, but {type(model).__name__} has no `buffer` to load it into."
        )
    count = len(rows["examples"])
    if count > buffer.capacity:
        raise CheckpointError(
            f"loadcheck={path} holds a buffer of {count} rows, but buffer_size is {buffer.capacity}. Pass "
            f"buffer_size={count}."
        )
    # Within the capacity, a reservoir stores every row, in this order.
    buffer.clear()
    buffer.add_data(**{name: rows[name] for name in Buffer.attributes if name in rows})


class Saver:
    """Writes a model as Mammoth does, after each task or after the last.

    Args:
        values: `savecheck`, `checkpoint_path` and `ckpt_name`, among others.
    """

    def __init__(self, values: Mapping[str, Any]):
        self.every_task = values["savecheck"] == "task"
        self.folder, self.name = Path(values["checkpoint_path"]), values["ckpt_name"]
        self.joint = bool(values["joint"])
        self.written: list[Path] = []

    def task_ended(self, model: ObservingModel, task: int) -> None:
        """Save the model after a task, if requested."""
        if self.every_task:
            self._write(model, "joint" if self.joint else str(task))

    def finish(self, model: ObservingModel, run: Run) -> None:
        """Save the final model, and add the results to the files written."""
        # Scores after a task exist only once it is evaluated, which is after its file was written.
        if not self.every_task:
            self._write(model, "joint" if self.joint else "last")
        told = run.task_il_matrix.tolist() or run.accuracy_matrix.tolist()
        for number, path in enumerate(self.written):
            rows = number + 1 if self.every_task else len(told)
            saved = torch.load(path, map_location="cpu", weights_only=True)
            saved["results"] = [
                [[100 * share for share in row[: i + 1]] for i, row in enumerate(matrix[:rows])]
                for matrix in (run.accuracy_matrix.tolist(), told)
            ]
            _save(saved, path)
        self.written = []

    def _write(self, model: ObservingModel, part: str) -> None:
        make_folder(self.folder)
        args = vars(model.args)
        name = self.name or f"{args.get('model', type(model).__name__)}_{args['dataset']}"
        path = self.folder / f"{name}_{part}.pt"
        module = model if isinstance(model, nn.Module) else model.net
        saved: dict[str, Any] = {
            "model": {key: value.detach().cpu() for key, value in module.state_dict().items()},
            "args": {key: value for key, value in args.items() if _is_plain(value)},
            "results": [],
        }
        if hasattr(model, "opt"):
            saved["optimizer"] = model.opt.state_dict()
        if (buffer := _buffer_of(model)) is not None and len(buffer):
            rows = buffer.serialize()
            saved["buffer"] = {name: field.detach() for name, field in rows.items()}
        _save(saved, path)
        if path not in self.written:
            self.written.append(path)


def _save(saved: dict[str, Any], path: Path) -> None:
    with replacing(path, "wb") as file:
        torch.save(saved, file)


def _buffer_of(model: ObservingModel) -> Buffer | None:
    """The model's buffer, if it has one and it is ours."""
    return model.buffer if hasattr(model, "buffer") and isinstance(model.buffer, Buffer) else None


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
