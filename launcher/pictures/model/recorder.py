"""Records one forward: which tensors enter and leave which modules and operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

# Calls that move a tensor's values out of torch, where they can no longer be traced.
_LEAVING = {
    *("item", "tolist", "numpy", "__array__", "__bool__", "__float__", "__int__", "__index__"),
    *("__complex__", "equal", "allclose", "is_nonzero"),
}
# Calls that bring in values from outside torch.
_COMING = {
    *("tensor", "as_tensor", "asarray", "scalar_tensor", "full", "full_like"),
    *("new_tensor", "new_full"),
}
# Calls that use only the shape, dtype or device of (the rest of) their tensors, so that no value flows.
_SHAPE_ONLY = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("randint_like", "new_zeros", "new_ones", "new_empty", "new_tensor", "new_full"),
}
_FIRST_ONLY = {"expand_as", "view_as", "reshape_as", "type_as"}
# Modules between a caller and a function mode: their frames are not where the user called torch.
_WRAPPERS = {
    *("torch.overrides", "torch._tensor", "torch.functional", "torch.nn.functional"),
    *("torch._jit_internal", "torch.utils._contextlib", __name__),
}
# Levels of an argument, or a result, that are searched for tensors. A limit, since objects may refer to each
# other in circles, and to whole data sets.
_DEEPEST = 4


class _Array(Protocol):
    """An array of NumPy, which is not imported for it."""

    shape: tuple[int, ...]


@dataclass(slots=True)
class Value:
    """A tensor at one moment: after an in-place write, it is another value."""

    text: str  # Its shape, and its dtype if that is not float32.
    kind: str  # "made" by an event, "input", "parameter", "constant", or "foreign": of unknown origin.
    tensor: Tensor


@dataclass(slots=True)
class Event:
    """A step in which values became other values."""

    name: str
    kind: str  # "op"; a module's "enter" or "exit"; "leave": numbers left torch.
    calls: tuple[int, ...]  # The calls of modules in which it happened, outermost first.
    reads: tuple[int, ...]
    makes: tuple[int, ...] = ()
    place: Hashable = None  # The same for two events of the same line of code.
    quiet: bool = False  # In torch's own code, not in the user's.


@dataclass
class Trace:
    """One forward, in the order in which it happened."""

    values: list[Value] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    calls: list[nn.Module] = field(default_factory=list)
    results: dict[nn.Module, list[str]] = field(default_factory=dict)  # Outputs of each, as text.
    inputs: list[tuple[str, str, list[int]]] = field(default_factory=list)  # Key, text, values.
    outputs: list[tuple[str, str, list[int]]] = field(default_factory=list)


class Recorder(TorchFunctionMode):
    """Inside it, everything that a module does is written to `trace`.

    Hooks report when a module is entered and left; the function mode reports from which tensors a
    function of torch computed which.

    Args:
        module: A copy of the user's module, since its hooks are not removed.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        self._stack: list[tuple[int, int]] = []  # Call, and how many values there were before it.
        # `id` of a tensor to value. Values keep the tensors alive, so that no `id` is used twice.
        self._known: dict[int, int] = {}
        # Address of a tensor's memory to its latest value: views of one tensor share it.
        self._memory: dict[int, int] = {}
        self._written: dict[int, int] = {}  # Address of memory to what was last written there.
        self._pausing = False  # While a hook works: its own calls to torch are not the module's.
        for parameter in module.parameters():
            self._add(parameter, "parameter")
        for part in module.modules():
            for name, value in vars(part).items():
                if name not in ("_parameters", "_modules"):
                    for tensor in tensors(value, 2):
                        # Buffers, masks, tables: without a value, their readers would look unconnected.
                        if id(tensor) not in self._known:
                            self._add(tensor, "constant")
            if isinstance(part, torch.jit.ScriptModule):
                continue  # It accepts no hooks, and its operations are invisible.
            part.register_forward_pre_hook(self._enter, with_kwargs=True)
            part.register_forward_hook(self._exit, with_kwargs=True, always_call=True)

    def add_inputs(self, inputs: Iterable[tuple[str, Any]]) -> None:
        """Name the tensors that the forward will receive."""
        for key, leaf in inputs:
            held = [
                self._add(tensor, "input")
                if self._kind(tensor) != "input"
                else self._known[id(tensor)]
                for tensor in tensors(leaf)
            ]
            if held:
                self.trace.inputs.append((key, text_of(leaf), held))

    def add_outputs(self, outputs: Iterable[tuple[str, Any]]) -> None:
        """Name the tensors that the forward returned."""
        for key, leaf in outputs:
            held = self._read(tensors(leaf))
            self.trace.outputs.append((key, text_of(leaf), held))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._pausing:
            return func(*args, **kwargs)
        name = func.__name__ if hasattr(func, "__name__") else "function"
        given = [*tensors(args), *tensors(kwargs)]
        if name in _LEAVING:
            # A distribution that checks its parameters calls `bool`, too, but nothing leaves torch by that.
            if not _place()[1]:
                self._happen(Event(name, "leave", self._calls(), tuple(self._read(given))))
            return func(*args, **kwargs)
        target = _written_to(name, args, kwargs)
        if name in _SHAPE_ONLY:
            given = []
        elif name in _FIRST_ONLY:
            given = given[:1]
        reads = self._read(given)
        result = func(*args, **kwargs)
        # `__setitem__` returns nothing: what it made is the tensor that it wrote to.
        made = [target] if target is not None and result is None else [*tensors(result)]
        # A function that returns a parameter has not computed it.
        made = [tensor for tensor in made if not isinstance(tensor, nn.Parameter)]
        if made:
            place, quiet = _place()
            makes = tuple(self._add(tensor, "made") for tensor in made)
            if name in _COMING and not reads:
                name = "from outside"
            # With the module: two instances of a class run the same line.
            where = (place, self.trace.calls[self._stack[-1][0]] if self._stack else None)
            self._happen(Event(name, "op", self._calls(), tuple(reads), makes, where, quiet))
            if target is not None and _address(target):
                self._written[_address(target)] = makes[-1]
        return result

    def _enter(self, module: nn.Module, args: object, kwargs: object) -> None:
        self._pausing = True
        self._stack.append((len(self.trace.calls), len(self.trace.values)))
        self.trace.calls.append(module)
        reads = self._read([*tensors(args), *tensors(kwargs)])
        self._happen(Event("", "enter", self._calls(), tuple(reads)))
        self._pausing = False

    def _exit(
        self, module: nn.Module, args: object, kwargs: object, output: object
    ) -> Tensor | None:
        self._pausing = True
        before = self._stack[-1][1]
        replaced = None
        for tensor in tensors(output):
            known = self._known.get(id(tensor), -1)
            inside, kind = known >= before, self.trace.values[known].kind
            if inside and kind == "made":
                continue
            if known < 0 or (inside and kind == "foreign"):
                # Made where the function mode sees nothing, as in a scripted part.
                makes = self._add(tensor, "made")
                self._happen(Event("", "exit", self._calls(), (), (makes,)))
            elif tensor is output and not is_lazy(tensor):
                # Returned unchanged, as by `Identity`: a view, so that readers of the output can be
                # told apart from readers of the input.
                reads = self._read([tensor])
                replaced = tensor.view_as(tensor)
                makes = self._add(replaced, "made")
                self._happen(Event("", "exit", self._calls(), tuple(reads), (makes,)))
        self._stack.pop()
        self.trace.results[module] = [text_of(leaf) for _, leaf in leaves(output)]
        self._pausing = False
        return replaced

    def _kind(self, tensor: Tensor) -> str:
        return self.trace.values[self._known[id(tensor)]].kind if id(tensor) in self._known else ""

    def _calls(self) -> tuple[int, ...]:
        return tuple(call for call, _ in self._stack)

    def _happen(self, event: Event) -> None:
        self.trace.events.append(event)

    def _add(self, tensor: Tensor, kind: str) -> int:
        index = len(self.trace.values)
        self.trace.values.append(Value(text_of(tensor), kind, tensor))
        self._known[id(tensor)] = index
        if address := _address(tensor):
            self._memory[address] = index
        return index

    def _read(self, given: Iterable[Tensor]) -> list[int]:
        """The values of tensors; for an unknown tensor, the latest value in the same memory."""
        found: list[int] = []
        for tensor in given:
            address = _address(tensor)
            index = self._known.get(id(tensor), self._memory.get(address))
            if index is None:
                index = self._add(tensor, "foreign")
            # A later write through a view changed this tensor as well.
            found.append(max(index, self._written.get(address, -1)))
        return found


def leaves(value: object, path: str = "", depth: int = _DEEPEST) -> Iterator[tuple[str, Any]]:
    """`(key, leaf)` of all tensors, distributions, arrays and numbers in nested containers."""
    if isinstance(value, Tensor | Distribution | int | float) or _is_array(value):
        yield path, value
    elif depth and (inside := _inside(value)) is not None:
        for key, part in inside:
            yield from leaves(part, _joined(path, key), depth - 1)


def tensors(value: object, depth: int = _DEEPEST) -> Iterator[Tensor]:
    """All tensors in nested containers, distributions and other objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Distribution | Transform) and depth:
        for part in vars(value).values():
            yield from tensors(part, depth - 1)
    elif depth and (inside := _inside(value)) is not None:
        for _, part in inside:
            yield from tensors(part, depth - 1)


def text_of(leaf: object) -> str:
    """A shape as text, with its dtype unless float32: `[2, 64]`, `[2] int64`, `Normal [2, 3]`."""
    if isinstance(leaf, Distribution):
        base: object = leaf
        names = []
        while isinstance(base, Distribution):
            names.append(type(base).__name__)
            base = vars(base).get("base_dist")
        # For a categorical, the shape of its logits says more: its batch shape lacks the classes.
        shape: Sequence[int] = (*leaf.batch_shape, *leaf.event_shape)
        if hasattr(leaf, "param_shape"):
            shape = leaf.param_shape
        return f"{' '.join(names)} {[*shape]}"
    if isinstance(leaf, Tensor):
        if is_lazy(leaf):
            return "[?]"
        dtype = str(leaf.dtype).removeprefix("torch.")
        return f"{[*leaf.shape]}" if dtype == "float32" else f"{[*leaf.shape]} {dtype}"
    if _is_array(leaf):
        return f"{type(leaf).__name__} {[*leaf.shape]}"
    return type(leaf).__name__


def _inside(value: object) -> Iterable[tuple[Any, Any]] | None:
    """Keys and parts of a container; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(part.name, getattr(value, part.name, None)) for part in fields(value)]
    if hasattr(value, "__dict__") and not callable(value):
        return list(vars(value).items())
    return None


def _joined(path: str, key: object) -> str:
    key = str(key)
    return f"{path}{key}" if not path or key.startswith("[") else f"{path}.{key}"


def _is_array(value: object) -> TypeGuard[_Array]:
    return type(value).__module__ == "numpy" and hasattr(value, "shape")


def _address(tensor: Tensor) -> int:
    """The address of its memory; 0 if it has none of its own, as on `meta`."""
    try:
        return tensor.untyped_storage().data_ptr()
    except Exception:  # Sparse, lazy, or wrapped by `torch.func`: each raises another one.
        return 0


def _written_to(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that a function writes to in place, if it does."""
    # torch's convention: `add_` and `index_fill_` write to their first argument, `__add__` does not.
    if isinstance(out := kwargs.get("out"), Tensor):
        return out
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return args[0] if in_place and args and isinstance(args[0], Tensor) else None


def _place() -> tuple[Hashable, bool]:
    """The place in the code that called torch, and whether a distribution called it for itself."""
    # Frames instead of `traceback`: this runs for every operation, and a traceback reads source files.
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "") in _WRAPPERS:
        frame = frame.f_back
    quiet = frame.f_globals.get("__name__", "").startswith("torch.distributions")
    quiet = quiet or isinstance(frame.f_locals.get("self"), Distribution)
    return (frame.f_code.co_filename, frame.f_lineno, frame.f_lasti), quiet
