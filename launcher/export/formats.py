"""The formats: each writes a file, reads it again with its own library, and compares the outputs."""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...replay import ConfigError, Space
from ...replay.batch import Tensors
from ...replay.tree import leaves, map_tree, named_leaves
from ..inference.trained import Trained
from .graph import SIZES, Graph
from .metadata import metadata

_FAR = 1e-4  # Share of the largest output: more than the rounding of other kernels explains.
_LONGEST = 400  # Characters of an exporter's reason.
_HALF_OF_PROTOBUF = 2**30  # Bytes of weights, beyond which ONNX keeps them in a file of their own.


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        suffix: How its files end.
        write: Writes a model into the file, and checks it.
    """

    suffix: str
    write: Callable[[Trained, Path], None]


def write_safetensors(trained: Trained, file: Path) -> None:
    """The module's weights under its own names, with the preparation of its inputs as metadata."""
    from safetensors.torch import save_file

    state = trained.module.state_dict()
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, file, {"format": "pt", **metadata(trained, prepared=False)})


def write_torch(trained: Trained, file: Path) -> None:
    """A program of `torch.export`, whose metadata is in `metadata.json` inside the file."""
    graph = Graph(trained)
    with _quiet():
        program = _traced(graph, trained, "torch")
        text = json.dumps(metadata(trained, prepared=graph.prepares))
        torch.export.save(program, file, extra_files={"metadata.json": text})
        read = torch.export.load(file).module()
        _compare(graph, trained, "torch", lambda inputs: read(inputs))


def write_onnx(trained: Trained, file: Path) -> None:
    """An ONNX model, checked with `onnx.checker` and onnxruntime."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(
            f"format=onnx needs {error.name}: pip install 'antelope-ml[export]'. format=torch needs nothing."
        ) from error
    graph = Graph(trained)
    with _quiet():
        program = _traced(graph, trained, "onnx")
        try:
            model = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=graph.input_names,
                output_names=graph.output_names,
                # Only for the axis to be called `batch` in the file.
                dynamic_shapes=(map_tree(lambda _: {0: "batch"}, graph.examples[0]),),
            )
        except Exception as error:  # Of the exporter's own kinds, or raised in it.
            raise _refused(trained, "onnx", error) from error
        assert model is not None
        model.model.metadata_props.update(metadata(trained, prepared=graph.prepares))
        weights = sum(t.nbytes for t in graph.state_dict().values())
        model.save(file, external_data=weights > _HALF_OF_PROTOBUF)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # Errors.
        try:
            onnx.checker.check_model(file)
            session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Of their own kinds: onnxruntime lacks some operations in bfloat16.
            raise _refused(trained, "onnx", error) from error
        _compare(graph, trained, "onnx", lambda inputs: _by_onnxruntime(session, graph, inputs))


FORMATS = {
    "onnx": Format(".onnx", write_onnx),
    "torch": Format(".pt2", write_torch),
    "safetensors": Format(".safetensors", write_safetensors),
}


def _traced(graph: Graph, trained: Trained, format: str) -> torch.export.ExportedProgram:
    """The graph for any batch size.

    Raises:
        ConfigError: If torch cannot export it.
    """
    batch = torch.export.Dim("batch")
    shapes = map_tree(lambda _: {0: batch}, graph.examples[0])
    try:
        with torch.no_grad():
            return torch.export.export(graph, (graph.examples[0],), dynamic_shapes=(shapes,))
    except Exception as error:  # Of the exporter's own kinds, or raised by the user's module.
        raise _refused(trained, format, error) from error


def _refused(trained: Trained, format: str, error: Exception) -> ConfigError:
    """The error for a model that an exporter refuses."""
    text = str(error)
    constant = re.search(r"specialized it to be a constant \((\d+)\)", text)
    guard = re.search(r"satisfy the generated guard (.+)", text)
    if constant is not None:
        reason = (
            f"its `forward` fixes the batch size at {constant[1]}, as len(x) and int(...) do: write "
            "x.shape[0]"
        )
    elif guard is not None:
        sizes = guard[1].replace("L['inputs'].size()[0]", "B")
        reason = f"its `forward` depends on the size B of the batch ({sizes})"
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {' '.join(lines[:2])}"[:_LONGEST]
        where = re.search(r'File "([^"]+)", line (\d+), in (\w+)\s*\n\s*(.+)', text)
        if where is not None:
            reason += f" (in {where[3]}, {Path(where[1]).name} line {where[2]}: {where[4].strip()})"
    return ConfigError(
        f"Cannot export {trained.name} with format={format}: {reason.rstrip('.')}. Its weights alone can be "
        "exported: format=safetensors."
    )


def _compare(
    graph: Graph, trained: Trained, format: str, run: Callable[[Tensors], Tensors]
) -> None:
    """Compare what a file computes with the trained module's outputs, for several batch sizes.

    Raises:
        ConfigError: If they differ, or the file cannot be run.
    """
    action = trained.world.spec.action
    # Rounding is as large as what an output is computed from: logits near 0 come from numbers near 1, and
    # values of small units from a sum in those units.
    small = isinstance(action, Space) and action.kind == "values" and action.stddev is not None
    least = min(1.0, float(action.stddev.min().clamp(min=1e-30))) if small else 1.0
    for size, inputs, expected in zip(SIZES, graph.examples, graph.expected, strict=True):
        try:
            with torch.no_grad():
                found = named_leaves(run(inputs))
        except Exception as error:  # Of the library that runs it.
            raise _refused(trained, format, error) from error
        for name, wanted in named_leaves(expected).items():
            far = _distance(found[name], wanted, least=least)
            if not far <= _FAR:
                raise ConfigError(
                    f"Cannot export {trained.name} with format={format}: for {size} inputs, the file's "
                    f"outputs differ from the module's by {far:.2g} of the largest. Does `forward` draw "
                    "random numbers, or depend on more than its inputs?"
                )


def _distance(found: Tensor, wanted: Tensor, *, least: float) -> float:
    """The largest difference, as a fraction of the largest value, or of `least`; NaN equals NaN."""
    if found.shape != wanted.shape:
        return math.inf
    one, two = (x.detach().double().nan_to_num(1e30) for x in (found, wanted))
    if not one.numel():
        return 0.0
    return float((one - two).abs().max() / two.abs().max().clamp(min=least))


def _by_onnxruntime(session: Any, graph: Graph, inputs: Tensors) -> Tensors:
    fed = zip(graph.input_names, leaves(inputs), strict=True)
    found = iter(session.run(None, {name: value.numpy() for name, value in fed}))
    outputs: Tensors = map_tree(lambda _: torch.from_numpy(next(found)), graph.expected[0])
    return outputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Runs the block without the warnings and logged graphs of exporters, whose reasons errors give."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
