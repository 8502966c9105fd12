"""Rebuilds the modules of a checkpoint on a newly constructed model.

Layers are added, replaced and dropped while a model learns. A checkpoint records the modules that the
constructor made and those at the time of saving. On the new model `begin_task` is called again for
the tasks so far; what still differs is built from copies of the model's own parts and from torch's
layers. Nothing that a checkpoint names is imported or called: it may come from anyone.
"""

from __future__ import annotations

import copy
import inspect
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

Layout = dict[str, dict[str, Any]]  # By module name; holds JSON types only.

_PLAIN = (bool, int, float, str, type(None))
_OWN = frozenset(vars(nn.Module()))  # torch's own bookkeeping.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # The part of it that changes a forward.
_NO_FACTS: dict[str, Any] = {"plain": {}, "unsaid": []}


def layout(agent: nn.Module) -> Layout:
    """All modules by name, with their classes, parameters, buffers and parts."""
    found: Layout = {}
    names: dict[int, str] = {}  # Of modules and tensors, by id: reveals what is shared.

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
    """What a checkpoint records if modules differ from those that the constructor made; else None.

    Args:
        built: `layout` of the newly constructed model.
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
    """Call the model's own `begin_task`, if it has one, and move what it adds to the model's device."""
    if (begin := hook(agent, "begin_task")) is None:
        return
    with moved_along(agent):
        begin(task)


@contextmanager
def moved_along(agent: nn.Module) -> Iterator[None]:
    """Run the block, then move modules and tensors that it added to the model's device.

    User code creates layers where torch does by default: on the CPU.
    """
    device = next((p.device for p in agent.parameters()), None)
    if device is None or device.type == "cpu":
        yield
        return
    before = [tensor for module in agent.modules() for tensor in _own_tensors(module)]
    known = set(map(id, before))  # `before` keeps them alive, so that no id is reused.
    yield
    for module in agent.modules():
        new = [tensor for tensor in _own_tensors(module) if id(tensor) not in known]
        if any(tensor.device != device for tensor in new):
            module._apply(lambda tensor: tensor.to(device), recurse=False)


def _own_tensors(module: nn.Module) -> list[Tensor]:
    held = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in held if tensor is not None]


def begin_again(agent: nn.Module, tasks: int) -> None:
    """Call the model's own `begin_task` for the first tasks, as a resumed run does."""
    with forked_randomness(0):
        for task in range(tasks):
            begin_task(agent, task)


def regrow(agent: nn.Module, saved: dict[str, Any] | None, *, begin: Callable[[int], None]) -> None:
    """Give a newly constructed model the modules of a checkpoint, whose weights are loaded afterwards.

    A model other than the saved one stays unchanged.

    Args:
        saved: The result of `grown`.
        begin: Calls the model's own `begin_task`.

    Raises:
        CheckpointError: If a part cannot be rebuilt.
    """
    if saved is None or layout(agent) == saved["now"] or layout(agent) != saved["built"]:
        return
    failed: Exception | None = None
    try:
        with forked_randomness(0):
            for task in range(saved["tasks"]):
                begin(task)
    except Exception as error:  # It may need what was learnt. The layout tells what is missing.
        failed = error
    if layout(agent) == saved["now"]:
        return
    try:
        _Rebuilding(agent, saved["now"], saved["facts"])
    except CheckpointError as error:
        raise error from failed


class _Rebuilding:
    """Rebuilds, in place, the modules that differ from a layout.

    Args:
        wanted: The layout to reach.
        facts: For each new module, its plain attributes, and the names of those that are not saved.

    Raises:
        CheckpointError: If a part cannot be rebuilt.
    """

    def __init__(self, agent: nn.Module, wanted: Layout, facts: Mapping[str, dict[str, Any]]):
        self.wanted, self.facts, self.name = wanted, facts, type(agent).__name__
        self.stock = list(agent.modules())  # Modules to copy.
        self.made: dict[str, Any] = {}
        self.used = {id(agent)}
        if _class_name(type(agent)) != wanted[""]["class"]:
            self.refuse("", "has a different class")
        self.fit("", agent)

    def refuse(self, path: str, why: str) -> None:
        """Raise for the part at `path`; `why` continues "it ..."."""
        raise CheckpointError(
            f"`{path}` was added to {self.name} during learning and cannot be rebuilt: it {why}. "
            "Create it in __init__, or in begin_task(task), which is called again when a run is "
            "resumed."
        )

    def fit(self, path: str, module: nn.Module) -> None:
        """Give a module, in place, the parameters, buffers and parts that the layout has for it."""
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
        # New buffers are None until the checkpoint's are loaded.
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
        """A parameter of the wanted shape and dtype: the current one, resized in place, or a new one.

        Args:
            now: The module's current parameter of this name, or None.
            form: Its entry in the layout; None: the name holds no parameter.
        """
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
        """A part of the wanted class, fitted: the current one if its class is right, or another one."""
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
        """A new module of this class: a copy of one in the model, or an empty layer of torch's."""
        facts = self.facts.get(path, _NO_FACTS)
        unsaid = facts["unsaid"]
        like = [
            part
            for part in self.stock
            if _class_name(type(part)) == kind and _unsaid(part) == unsaid
        ]
        if like:
            if any(vars(part)[key] is not vars(like[0])[key] for part in like for key in unsaid):
                self.refuse(path, f"has a `{unsaid[0]}` that differs between modules of its class")
            twin = copy.deepcopy(like[0])
            self.stock += [part for part in twin.modules() if part is not twin]
            return twin
        where, _, name = kind.rpartition(".")
        known = where.startswith("torch.nn.") and where in sys.modules
        found = vars(sys.modules[where]).get(name) if known else None
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            self.refuse(path, f"is a {kind}, and the model holds no other to copy")
        if unsaid:
            self.refuse(path, f"has a `{unsaid[0]}`, which a checkpoint does not save")
        assert found is not None
        made: nn.Module = found.__new__(found)
        nn.Module.__init__(made)
        if any(callable(inspect.getattr_static(found, key, None)) for key in facts["plain"]):
            self.refuse(path, "would replace a method")
        vars(made).update(facts["plain"])  # Arguments that its constructor would have stored.
        return made


def _refill(
    module: nn.Module,
    entries: dict[str, Any],
    wanted: Mapping[str, Any],
    make: Callable[[str, Any], Any],
) -> None:
    """Refill a module's dictionary with the wanted entries, in their order.

    Args:
        entries: Such as `module._parameters`.
        wanted: Name to entry of the layout.
        make: Returns the value for a name and its entry.
    """
    made = {}
    for key, form in wanted.items():
        module.__dict__.pop(key, None)  # `self.head = None` in the constructor would shadow it.
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
    """Names of a module's attributes that a checkpoint does not hold: functions, objects, hooks."""
    return [
        key
        for key, value in vars(module).items()
        if (_has_hook(value) if key in _HOOKS else key not in _OWN and not _is_plain(value))
    ]


def _has_hook(hooks: Mapping[int, Any]) -> bool:
    """Whether there are hooks other than those of Antelope's strategies."""
    return not all(
        inspect.ismethod(each) and isinstance(each.__self__, Context) for each in hooks.values()
    )


def _plain(module: nn.Module) -> dict[str, Any]:
    """The numbers and strings among the attributes of one of torch's layers; {} for other modules."""
    if "." not in _class_name(type(module)):
        return {}
    return {k: v for k, v in vars(module).items() if k not in _OWN and _is_plain(v, tensors=False)}


def _is_plain(value: Any, *, tensors: bool = True) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item, tensors=tensors) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(x, tensors=tensors) for pair in value.items() for x in pair)
    return isinstance(value, _PLAIN) or (tensors and isinstance(value, Tensor))
