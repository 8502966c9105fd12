"""A model's modules as they were when a checkpoint was written, made again on a model just constructed.

Layers are added, replaced and dropped while a model learns. A checkpoint says what the constructor
had made and what there was in the end. On the fresh model `begin_task` is called again for the tasks
so far; what still differs is made of copies of the model's own parts, and of torch's layers. Nothing
that a checkpoint names is imported or called.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ....agents.continual.context import Context
from ....agents.traits import hook
from ....replay import CheckpointError
from ....replay.randomness import forked_randomness

Layout = dict[str, dict[str, Any]]  # By the modules' names; of JSON's types.

_PLAIN = (bool, int, float, str, type(None))
_OWN = frozenset(vars(nn.Module()))  # torch's own bookkeeping, and among it what runs in a forward:
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_NO_FACTS: dict[str, Any] = {"plain": {}, "unsaid": []}


def layout(agent: nn.Module) -> Layout:
    """What modules there are, of which class, with which parameters, buffers and parts."""
    found: Layout = {}
    names: dict[int, str] = {}  # Of modules and tensors: one met again is the same one.

    def tensors(path: str, entries: Mapping[str, Tensor | None]) -> dict[str, Any]:
        described: dict[str, Any] = {}
        for key, tensor in entries.items():
            name = f"{path}.{key}".lstrip(".")
            if tensor is None:
                described[key] = None
            elif (known := names.setdefault(id(tensor), name)) != name:
                described[key] = {"same": known}
            else:
                described[key] = _form(tensor)
        return described

    def describe(path: str, module: nn.Module) -> None:
        names[id(module)] = path
        entry: dict[str, Any]
        found[path] = entry = {
            "class": _class_name(type(module)),
            "parameters": tensors(path, module._parameters),
            "buffers": list(module._buffers),
            "transient": sorted(module._non_persistent_buffers_set),
            "parts": {},
        }
        for key, part in module._modules.items():
            name = f"{path}.{key}".lstrip(".")
            if part is None:
                entry["parts"][key] = None
            elif id(part) in names:
                entry["parts"][key] = {"same": names[id(part)]}
            else:
                entry["parts"][key] = {}
                describe(name, part)

    describe("", agent)
    return found


def grown(agent: nn.Module, built: Layout, tasks: int) -> dict[str, Any] | None:
    """What a checkpoint says of modules that are not as the constructor has made them; else None.

    Args:
        built: `layout` of the model as it was made.
        tasks: How often `begin_task` has been called since.
    """
    now = layout(agent)
    if now == built:
        return None
    parts = dict(agent.named_modules())
    new = [path for path, entry in now.items() if built.get(path) != entry]
    facts = {path: {"plain": _plain(parts[path]), "unsaid": _unsaid(parts[path])} for path in new}
    return {"built": built, "now": now, "facts": facts, "tasks": tasks}


def begin_task(agent: nn.Module, task: int) -> None:
    """Call the model's own `begin_task`, if it has one; what it adds goes where the rest is."""
    if (begin := hook(agent, "begin_task")) is None:
        return
    with moved_along(agent):
        begin(task)


@contextmanager
def moved_along(agent: nn.Module) -> Iterator[None]:
    """Afterwards, what was added inside, modules or single tensors, is on the device of the rest.

    A model adds layers as its constructor made them: on the CPU.
    """
    device = next((p.device for p in agent.parameters()), None)
    if device is None or device.type == "cpu":
        yield
        return
    before = [tensor for module in agent.modules() for tensor in _own_tensors(module)]
    known = set(map(id, before))  # `before` holds them until the end: no id is used again.
    yield
    for module in agent.modules():
        new = [tensor for tensor in _own_tensors(module) if id(tensor) not in known]
        if any(tensor.device != device for tensor in new):
            module._apply(lambda tensor: tensor.to(device), recurse=False)


def _own_tensors(module: nn.Module) -> list[Tensor]:
    held = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in held if tensor is not None]


def begin_again(agent: nn.Module, tasks: int) -> None:
    """Call the model's own `begin_task` for the first tasks, as a run does that is resumed."""
    with forked_randomness(0):
        for task in range(tasks):
            begin_task(agent, task)


def regrow(agent: nn.Module, saved: dict[str, Any] | None, *, begin: Callable[[int], None]) -> None:
    """Give a model just constructed the modules of a checkpoint, which are then to be filled.

    Another model than the one that was saved is left as it is.

    Args:
        saved: Of `grown`.
        begin: Calls the model's own `begin_task`.

    Raises:
        CheckpointError: If a part cannot be made again.
    """
    if saved is None or layout(agent) == saved["now"] or layout(agent) != saved["built"]:
        return
    failed: Exception | None = None
    try:
        with forked_randomness(0):
            for task in range(saved["tasks"]):
                begin(task)
    except Exception as error:  # It may rest on what was learnt; the layout says what is missing.
        failed = error
    if layout(agent) == saved["now"]:
        return
    try:
        _Rebuilding(agent, saved["now"], saved["facts"])
    except CheckpointError as error:
        raise error from failed


class _Rebuilding:
    """Modules made again where they differ from a layout, in place."""

    def __init__(self, agent: nn.Module, wanted: Layout, facts: Mapping[str, dict[str, Any]]):
        self.wanted, self.facts, self.name = wanted, facts, type(agent).__name__
        self.stock = list(agent.modules())  # What copies can be made of.
        self.made: dict[str, Any] = {}
        self.used = {id(agent)}
        if _class_name(type(agent)) != wanted[""]["class"]:
            self.refuse("", "is of another class")
        self.fit("", agent)

    def refuse(self, path: str, why: str) -> None:
        raise CheckpointError(
            f"`{path}` was added to {self.name} during learning and cannot be rebuilt: it {why}. "
            "Create it in __init__, or in begin_task(task), which is called again when a run is "
            "resumed."
        )

    def fit(self, path: str, module: nn.Module) -> None:
        entry = self.wanted[path]
        self.made[path] = module
        for key in self.facts.get(path, _NO_FACTS)["unsaid"]:
            if key in _HOOKS and not _has_hook(vars(module)[key]):
                self.refuse(path, "has a hook")
        parameters = dict(module._parameters)
        _refill(
            module,
            module._parameters,
            entry["parameters"],
            lambda key, form: self.parameter(
                f"{path}.{key}".lstrip("."), parameters.get(key), form, module
            ),
        )
        # New ones are empty, and filled with what the checkpoint holds.
        buffers = {key: module._buffers.get(key) for key in entry["buffers"]}
        module._buffers.clear()
        module._buffers.update(buffers)
        module._non_persistent_buffers_set = set(entry["transient"])
        parts = dict(module._modules)
        _refill(
            module,
            module._modules,
            entry["parts"],
            lambda key, form: self.part(f"{path}.{key}".lstrip("."), parts.get(key), form),
        )

    def parameter(
        self, path: str, now: nn.Parameter | None, form: Any, module: nn.Module
    ) -> nn.Parameter | None:
        if form is None:
            return None
        if "same" in form:
            found: nn.Parameter = self.made[form["same"]]
            return found
        if now is None or id(now) in self.used:
            near = next((p for p in (*module.parameters(), *self.stock[0].parameters())), None)
            device = torch.device("cpu") if near is None else near.device
            now = nn.Parameter(torch.empty(0, device=device))
        if _form(now) != form:
            # In place: optimisers and attributes of the model refer to it.
            dtype = getattr(torch, form["dtype"].removeprefix("torch."))
            now.data = torch.zeros(form["shape"], dtype=dtype, device=now.device)
        self.used.add(id(now))
        self.made[path] = now
        return now

    def part(self, path: str, now: nn.Module | None, form: Any) -> nn.Module | None:
        if form is None:
            return None
        if "same" in form:
            found: nn.Module = self.made[form["same"]]
            return found
        kind = self.wanted[path]["class"]
        if now is None or id(now) in self.used or _class_name(type(now)) != kind:
            now = self.another(path, kind)
        self.used.add(id(now))
        self.fit(path, now)
        return now

    def another(self, path: str, kind: str) -> nn.Module:
        """A module of this class: a copy of one that there is, or an empty layer of torch's."""
        facts = self.facts.get(path, _NO_FACTS)
        unsaid = facts["unsaid"]
        like = [
            part
            for part in self.stock
            if _class_name(type(part)) == kind and _unsaid(part) == unsaid
        ]
        if like:
            if any(vars(part)[key] is not vars(like[0])[key] for part in like for key in unsaid):
                self.refuse(path, f"has a {unsaid[0]} that may be one of several")
            twin = copy.deepcopy(like[0])
            self.stock += [part for part in twin.modules() if part is not twin]
            return twin
        where, _, name = kind.rpartition(".")
        found = (
            getattr(sys.modules.get(where), name, None) if where.startswith("torch.nn.") else None
        )
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            self.refuse(path, f"is a {kind}, and the model has no other one to copy")
        if unsaid:
            self.refuse(path, f"has a {unsaid[0]} that is not saved")
        assert found is not None
        made: nn.Module = found.__new__(found)
        nn.Module.__init__(made)
        vars(made).update(facts["plain"])  # What its constructor would have kept of its arguments.
        return made


def _refill(
    module: nn.Module,
    entries: dict[str, Any],
    wanted: Mapping[str, Any],
    make: Callable[[str, Any], Any],
) -> None:
    """Let a module's dictionary hold what is wanted, in this order."""
    made = {}
    for key, form in wanted.items():
        module.__dict__.pop(key, None)  # `self.head = None` in the constructor would hide it.
        made[key] = make(key, form)
    entries.clear()
    entries.update(made)


def _class_name(kind: type) -> str:
    # A user's class is `__main__.Head` in a script, and `script.Head` for `ml`.
    ours = kind.__module__.startswith("torch.")
    return f"{kind.__module__}.{kind.__qualname__}" if ours else kind.__qualname__


def _form(tensor: Tensor) -> dict[str, Any]:
    shape = None if is_lazy(tensor) else list(tensor.shape)
    return {"shape": shape, "dtype": str(tensor.dtype)}


def _unsaid(module: nn.Module) -> list[str]:
    """Attributes of a module that a checkpoint does not hold: functions, objects, hooks."""
    return [
        key
        for key, value in vars(module).items()
        if (_has_hook(value) if key in _HOOKS else key not in _OWN and not _is_plain(value))
    ]


def _has_hook(hooks: Mapping[int, Any]) -> bool:
    return any(not isinstance(getattr(h, "__self__", None), Context) for h in hooks.values())


def _plain(module: nn.Module) -> dict[str, Any]:
    """Attributes of one of torch's layers: numbers and strings."""
    if "." not in _class_name(type(module)):
        return {}
    return {k: v for k, v in vars(module).items() if k not in _OWN and _is_plain(v, tensors=False)}


def _is_plain(value: Any, *, tensors: bool = True) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item, tensors=tensors) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(x, tensors=tensors) for pair in value.items() for x in pair)
    return isinstance(value, _PLAIN) or (tensors and isinstance(value, Tensor))
