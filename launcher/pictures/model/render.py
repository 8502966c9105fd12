"""`render_model=true`: what a module is made of, drawn from one real forward."""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from ....agents.calling import call
from ....replay.files import make_folder, replacing
from ....replay.randomness import kept_randomness
from .connecting import graph_of
from .draw import draw
from .graph import Graph
from .recorder import Recorder, leaves
from .text import text


def render_model(
    module: nn.Module,
    inputs: tuple[Any, ...],
    folder: Path,
    *,
    name: str = "model",
    title: str | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write `model.txt`, `model.svg` and `model.png`, from one forward `module(*inputs)`.

    The forward runs on a deep copy, in eval mode and without gradient, and random streams are
    restored: the module stays unchanged, and nothing is raised.

    Boxes are modules of torch, torchvision and timm, and modules without parts; a user's own classes
    are opened, and so is a torchvision or timm network that is the whole model. Arrows carry shapes
    of tensors, as far as torch made them; where numbers leave torch, they are dashed.

    Args:
        inputs: Tensors, or nested dicts and sequences of them, on the module's device.
        folder: Created if missing.
        name: Name of the module itself; its parts have dotted paths.
        title: Title of the picture; None: the module's class.
        report: Called with one line of explanation if no picture could be drawn.

    Returns:
        The files written; empty if the module could not be copied or run.
    """
    paths: list[Path] = []
    try:
        with kept_randomness(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            title = title or type(module).__name__
            graph = trace(module, inputs, name=name)
            make_folder(folder)
            written = folder / "model.txt"
            with replacing(written) as file:
                file.write(text(graph, title=title))
            paths.append(written)
            paths += draw(graph, folder, title=title)
    except Exception as error:  # A picture is never worth a run, whatever goes wrong in it.
        if report is not None:
            said = " ".join(str(error).split())[:200]
            report(f"No picture of {type(module).__name__}: {type(error).__name__}: {said}")
    return paths


def trace(module: nn.Module, inputs: tuple[Any, ...], *, name: str = "model") -> Graph:
    """The graph of one forward of a copy, in eval mode and without gradient."""
    with torch.no_grad(), _Copying():
        replica, given = _copy(module, inputs)
    replica.eval()
    recorder = Recorder(replica)
    recorder.add_inputs(_named(replica, given))
    with torch.no_grad(), _not_compiled():
        with recorder:
            output = call(replica, *given) if given else replica()
        recorder.add_outputs(_keyed(leaves(output)))
    return graph_of(replica, recorder.trace, name=name)


class _Copying(TorchFunctionMode):
    """Inside it, tensors that torch cannot copy can be copied.

    Those with a gradient history lose it. Buffers without a shape yet are supported as well: torch (2.15)
    handles lazy parameters only, so that a `LazyBatchNorm1d` has no deep copy.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            if is_lazy(tensor):
                kind: Any = type(tensor)
                data = tensor.data
                memo[id(tensor)] = kind(tensor.requires_grad, data.device, data.dtype)
            elif not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
            else:
                return func(*args)
        return memo[id(tensor)]


def _copy(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    """Deep copies; attributes that cannot be copied, such as a lock or an open file, are shared."""
    try:
        return copy.deepcopy((module, inputs))
    except Exception:
        memo: dict[int, Any] = {}
        held = {id(part): part for part in [*module.modules(), *module.parameters()]}
        for part in module.modules():
            for value in vars(part).values():
                if id(value) in held or isinstance(value, dict | int | float | str | Tensor):
                    continue
                try:
                    copy.deepcopy(value, dict(held))
                except Exception:
                    memo[id(value)] = value
        return copy.deepcopy((module, inputs), memo)


def _named(module: nn.Module, inputs: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """`(key, tensor)` of all inputs: of a single dict its own keys, else the arguments' names."""
    names = [f"input[{n}]" if len(inputs) > 1 else "input" for n in range(len(inputs))]
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = []  # type: ignore[assignment]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for place, parameter in enumerate(
        [p for p in parameters if p.kind in positional][: len(names)]
    ):
        names[place] = parameter.name
    for argument, value in zip(names, inputs, strict=True):
        for key, leaf in leaves(value):
            alone = len(inputs) == 1 and key and key[0] != "["
            joined = (
                argument
                if not key
                else f"{argument}{key}"
                if key[0] == "["
                else f"{argument}.{key}"
            )
            yield (key if alone else joined), leaf


def _keyed(outputs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Outputs by their dict keys, or by their full path where a key occurs twice."""
    found = list(outputs)
    last = [key.rpartition(".")[2] if key[-1:] != "]" else "" for key, _ in found]
    for (key, leaf), short in zip(found, last, strict=True):
        full = f"output{key}" if key[:1] in ("", "[") else key
        yield short if short and last.count(short) == 1 else full, leaf


def _not_compiled() -> AbstractContextManager[Any]:
    """Runs compiled parts eagerly, if there can be any."""
    # `torch.compiler` would import dynamo, which takes seconds, and without it nothing is compiled.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
