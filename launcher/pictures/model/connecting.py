"""Builds the graph of a forward from its recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from .graph import Edge, Graph, Node
from .labels import hyperparameters
from .opening import boxes_of, size
from .recorder import Event, Trace

# Operations that rearrange or copy values without changing them: naming them would only fill the picture.
_UNSAID = {
    *("", "reshape", "view", "unsqueeze", "squeeze", "expand", "expand_as", "permute"),
    *("transpose", "contiguous", "detach", "clone", "to", "float", "double", "half", "type"),
    *("chunk", "split", "unbind", "get", "getitem", "setitem", "cpu", "cuda", "copy"),
    *("view_as", "flatten", "broadcast_tensors", "tensor_split", "movedim", "t", "alias"),
    *("as_tensor", "requires_grad"),
}
_ALIGNING = {"broadcast_tensors", "meshgrid"}
_SIGNS = {
    **{"add": "+", "radd": "+", "iadd": "+", "sub": "-", "rsub": "-", "isub": "-", "mul": "*"},
    **{"rmul": "*", "imul": "*", "div": "/", "truediv": "/", "rtruediv": "/", "itruediv": "/"},
    **{"concat": "cat", "concatenate": "cat", "matmul": "@", "rmatmul": "@", "setitem": "="},
    **{"multiply": "*", "copy": "="},
}


def graph_of(module: nn.Module, trace: Trace, *, name: str) -> Graph:
    """The graph of one recorded forward of `module`, which is called `name`."""
    return _Builder(module, trace, name).graph()


@dataclass(frozen=True)
class _Origin:
    """The source of a value."""

    text: str  # Its shape at the source.
    steps: tuple[str, ...] = ()  # Operations applied to it since.
    lost: bool = False


class _Builder:
    def __init__(self, module: nn.Module, trace: Trace, name: str) -> None:
        self.module, self.trace, self.name = module, trace, name
        self.paths: dict[nn.Module, list[str]] = {}
        for path, part in module.named_modules(remove_duplicate=False):
            self.paths.setdefault(part, []).append(path)
        self.boxes = boxes_of(module, set(trace.calls))
        self.box_of: dict[nn.Module, nn.Module] = {}
        for box in self.boxes:
            for part in box.modules():
                self.box_of.setdefault(part, box)
        # Of each parameter, the boxes that it is in, or the opened module that holds it.
        self.holders: dict[int, list[nn.Module]] = {}
        self.parameter_paths: dict[int, str] = {}
        for part in self.paths:
            for key, parameter in part.named_parameters(recurse=False):
                holder = self.box_of.get(part, part)
                self.holders.setdefault(id(parameter), []).append(holder)
                path = f"{self.paths[part][0]}.{key}".lstrip(".")
                self.parameter_paths.setdefault(id(parameter), path)
        self.total = size(module)
        self.counted: set[int] = set()
        self.nodes: list[Node] = []
        self.index: dict[object, int] = {}
        self.edges: dict[tuple[int, int], Edge] = {}
        self.times: dict[int, set[int]] = {}
        self.origins: dict[int, dict[int, _Origin]] = {}
        self.joins: dict[int, frozenset[int]] = {}  # Operation to the boxes whose results it joins.
        self.made_in: dict[int, int | None] = {}  # Value to the call of a box that made it.
        self.left: tuple[int | None, dict[int, _Origin]] | None = None  # The last to leave torch.
        self.departures: list[tuple[int, int]] = []  # Node whose numbers left, nodes there were.
        self.nowhere: set[int] = set()  # Values of which nobody knows where they come from.
        self.unknown: set[int] = set()  # Nodes that read those.

    def graph(self) -> Graph:
        for key, text, values in self.trace.inputs:
            node = self._node(("input", key), Node("input", key, results=[text]))
            for value in values:
                # The same tensor may be given twice.
                origin = _Origin(self.trace.values[value].text)
                self.origins.setdefault(value, {})[node] = origin
        for event in self.trace.events:
            self._follow(event)
        for key, text, values in self.trace.outputs:
            node = self._node(("output", key), Node("output", key, results=[text]))
            if values:
                self._connect(values, node, whole=True)
            else:  # A number or an array.
                self._connect_lost(node)
        for node, calls in self.times.items():
            self.nodes[node].times = len(calls)
        self._connect_the_loose()
        self._join_operations()
        trainable = sum(p.numel() for p in self._parameters() if p.requires_grad)
        groups = {
            path: type(part).__name__
            for part, paths in self.paths.items()
            for path in paths[:1]
            if part not in self.box_of
        }
        edges = list(self.edges.values())
        unused = list(self._unused())
        return Graph(self.name, self.total, trainable, self.nodes, edges, groups, unused)

    def _follow(self, event: Event) -> None:
        owner = self._owner(event)
        if event.kind == "leave":
            self._leave(event, owner)
            return
        if owner is not None:
            self._enter(event.reads, owner)
            node = self._box(owner)
            for value in event.makes:
                self.made_in[value] = owner
                self.origins[value] = {node: _Origin(self.trace.values[value].text)}
            return
        if event.kind == "enter":
            return
        origins: dict[int, _Origin] = {}
        for value in event.reads:
            for node, origin in self._origins(value, None).items():
                before = origins.get(node)
                if before is None or before.lost > origin.lost:
                    origins[node] = origin
                elif before.lost == origin.lost:  # It arrives by two paths.
                    steps = (*before.steps, *origin.steps)
                    origins[node] = _Origin(before.text, steps, before.lost)
        from_outside = event.kind == "exit" or event.name == "from outside"
        if from_outside and not event.reads:
            origins = self._lost_origins(None)
        if not origins and (
            (event.kind == "exit" and not event.reads) or self.nowhere.intersection(event.reads)
        ):
            self.nowhere.update(event.makes)
        name = event.name.strip("_")
        seen = [node for node in origins if not origins[node].lost]
        if len(seen) > 1 and not event.quiet and name not in _ALIGNING:
            node = self._operation(event, _SIGNS.get(name, name), origins)
            self._connect(event.reads, node)
            texts = [self.trace.values[value].text for value in event.makes]
            self.nodes[node].results = texts[:1]
            origins = {node: _Origin(texts[0])}
        elif name not in _UNSAID and not event.quiet and event.kind == "op" and not from_outside:
            origins = {
                node: _Origin(o.text, (*o.steps, _SIGNS.get(name, name)), o.lost)
                for node, o in origins.items()
            }
        for value in event.makes:
            self.made_in[value] = None
            self.origins[value] = origins

    def _leave(self, event: Event, owner: int | None) -> None:
        """Remember whose values left torch: the next ones from outside are attributed to them."""
        origins: dict[int, _Origin] = {}
        for value in event.reads:
            if owner is None or self.made_in.get(value) != owner:
                origins |= self._origins(value, owner)
        if owner is not None:
            self._enter(event.reads, owner)
        else:
            self.departures += [(node, len(self.nodes)) for node in origins]
        self.left = (owner, {n: _Origin(o.text, o.steps, True) for n, o in origins.items()})

    def _enter(self, reads: tuple[int, ...], owner: int) -> None:
        """Draw arrows to a box from the values that it reads from outside."""
        box = self.box_of[self.trace.calls[owner]]
        taken = []
        for value in reads:
            tensor = self.trace.values[value].tensor
            if self.made_in.get(value) != owner and box not in self.holders.get(id(tensor), ()):
                self._origins(value, owner)  # A parameter gets its node, before the box does.
                taken.append(value)
        self._connect(taken, self._box(owner))

    def _connect(self, values: Iterable[int], head: int, *, whole: bool = False) -> None:
        """Draw arrows to a node from wherever these values come from."""
        for value in values:
            arrives = "" if whole else self.trace.values[value].text
            origins = self._origins(value, None)
            if not origins and value in self.nowhere:
                self.unknown.add(head)
            for tail, origin in origins.items():
                if tail == head and self.nodes[head].kind == "op":
                    continue  # A sum that grows in a loop.
                edge = self.edges.setdefault((tail, head), Edge(tail, head, [], origin.lost))
                if edge.lost and not origin.lost:
                    edge.labels, edge.lost = [], False
                label = _label(origin, arrives)
                if edge.lost == origin.lost and label not in edge.labels:
                    edge.labels.append(label)

    def _connect_lost(self, head: int) -> None:
        for tail, origin in self._lost_origins(None).items():
            if tail != head:
                self.edges.setdefault((tail, head), Edge(tail, head, [origin.text], True))
        if not any(edge.head == head for edge in self.edges.values()):
            self.unknown.add(head)

    def _connect_the_loose(self) -> None:
        """Connect nodes whose values left torch for good, or returned to it untraced."""
        for node, there_were in self.departures:
            if not any(edge.tail == node for edge in self.edges.values()):
                # Its values decided something about what came next, as in an `if`.
                later = [n for n in range(there_were, len(self.nodes)) if n != node]
                boxes = [n for n in later if self.nodes[n].kind in ("box", "output")]
                for head in boxes[:1]:
                    text = (self.nodes[node].results or [""])[0]
                    self.edges[node, head] = Edge(node, head, [text], True)
        for head in self.unknown:
            if any(edge.head == head for edge in self.edges.values()):
                continue
            before = [n for n in range(head) if self.nodes[n].kind in ("box", "input")]
            for tail in before[-1:]:
                self.edges[tail, head] = Edge(tail, head, [], True)

    def _origins(self, value: int, owner: int | None) -> dict[int, _Origin]:
        if value in self.origins:
            return self.origins[value]
        known = self.trace.values[value]
        if known.kind == "parameter":
            found = self._parameter(value)
            if found is None:
                return {}
            origins = {found: _Origin(known.text)}
        elif known.kind == "foreign":
            origins = self._lost_origins(owner)
            if not origins:
                self.nowhere.add(value)
        else:
            origins = {}
        self.origins[value] = origins
        return origins

    def _lost_origins(self, owner: int | None) -> dict[int, _Origin]:
        """The nodes whose values left torch last, unless they did so in this very call."""
        if self.left is None or (owner is not None and self.left[0] == owner):
            return {}
        return self.left[1]

    def _owner(self, event: Event) -> int | None:
        """The outermost call of a closed module in which it happened."""
        return next((c for c in event.calls if self.trace.calls[c] in self.box_of), None)

    def _node(self, key: object, node: Node) -> int:
        if key not in self.index:
            self.index[key] = len(self.nodes)
            self.nodes.append(node)
        return self.index[key]

    def _box(self, call: int) -> int:
        box = self.box_of[self.trace.calls[call]]
        index = self.index[box] if box in self.index else self._node(box, self._describe(box))
        self.times.setdefault(index, set()).add(call)
        return index

    def _describe(self, box: nn.Module) -> Node:
        paths = self.paths[box]
        node = Node("box", type(box).__name__, paths[0], paths[1:], hyperparameters(box))
        own = {id(p): p for p in box.parameters() if not is_lazy(p)}
        node.parameters = sum(p.numel() for i, p in own.items() if i not in self.counted)
        node.shared = sum(p.numel() for i, p in own.items() if i in self.counted)
        node.share = node.parameters / max(self.total, 1)
        node.frozen = bool(own) and not any(p.requires_grad for p in own.values())
        node.results = self.trace.results.get(box, [])
        node.groups = self._groups(paths[0])
        self.counted |= own.keys()
        return node

    def _parameter(self, value: int) -> int | None:
        """The node of a parameter that is read outside of the box it is in."""
        tensor = self.trace.values[value].tensor
        holders = self.holders.get(id(tensor))
        if not holders or is_lazy(tensor):
            return None
        if holders[0] in self.box_of:
            box = holders[0]
            return self.index[box] if box in self.index else self._node(box, self._describe(box))
        path = self.parameter_paths[id(tensor)]
        node = Node("parameter", "Parameter", path, results=[self.trace.values[value].text])
        node.parameters = tensor.numel()
        node.share = node.parameters / max(self.total, 1)
        node.frozen = not tensor.requires_grad
        node.groups = self._groups(path)
        self.counted.add(id(tensor))
        return self._node(("parameter", path), node)

    def _operation(self, event: Event, sign: str, origins: Iterable[int]) -> int:
        calls = [self.trace.calls[call] for call in event.calls]
        path = self.paths[calls[-1]][0] if calls and calls[-1] in self.paths else ""
        groups = self._groups(f"{path}.{sign}") if path else ()
        # In a loop, the same operation on results of the same boxes is one node; on those of others, another.
        boxes = frozenset(
            box
            for n in origins
            for box in ({n} if self.nodes[n].kind == "box" else self.joins.get(n, ()))
        )
        index = self._node((event.place, sign, boxes), Node("op", sign, groups=groups))
        self.joins[index] = boxes
        self.times.setdefault(index, set()).add(id(event))
        return index

    def _groups(self, path: str) -> tuple[str, ...]:
        parts = path.split(".")
        return tuple(".".join(parts[:end]) for end in range(1, len(parts)))

    def _join_operations(self) -> None:
        """One node for operations that follow each other: `a + b + c`."""
        for index, node in reversed([*enumerate(self.nodes)]):
            after = [edge for edge in self.edges.values() if edge.tail == index]
            if node.kind != "op" or len(after) != 1 or after[0].lost:
                continue
            head = after[0].head
            joined = self.nodes[head]
            if joined.kind != "op" or joined.groups != node.groups or head <= index:
                continue
            signs = dict.fromkeys([*node.title.split(" "), *joined.title.split(" ")])
            joined.title = " ".join(signs)
            del self.edges[index, head]
            for (tail, _), edge in [*self.edges.items()]:
                if edge.head == index:
                    del self.edges[tail, index]
                    if tail != head:
                        edge.head = head
                        there = self.edges.setdefault((tail, head), edge)
                        there.labels = list(dict.fromkeys([*there.labels, *edge.labels]))
            node.kind = "gone"
        kept = [i for i, node in enumerate(self.nodes) if node.kind != "gone"]
        # Parameters come first into being where they are read: just before their reader.
        place = {old: new for new, old in enumerate(kept)}
        self.nodes = [self.nodes[i] for i in kept]
        self.edges = {
            (place[tail], place[head]): Edge(place[tail], place[head], edge.labels, edge.lost)
            for (tail, head), edge in self.edges.items()
        }

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if not is_lazy(p)]

    def _unused(self) -> Iterator[Node]:
        """The modules that the forward did not reach; for a whole branch, only its root."""
        reached = {part for part in self.trace.calls if part in self.paths}
        reached |= {box for box in self.boxes if box in self.index}
        used = {part for part in self.paths if any(p in reached for p in part.modules())}
        named: list[str] = []
        for part, paths in self.paths.items():
            path = paths[0]
            held = self.box_of.get(part)
            if part in used or (held is not None and held in used):
                continue
            if not any(path.startswith(f"{branch}.") for branch in named):
                named.append(path)
                own = sum(
                    p.numel()
                    for p in part.parameters()
                    if id(p) not in self.counted and not is_lazy(p)
                )
                yield Node("box", type(part).__name__, path, parameters=own)


def _label(origin: _Origin, arrives: str) -> str:
    """The shape that leaves, what is done to it, and the shape that arrives, if it is another."""
    steps = [*dict.fromkeys(origin.steps)]
    said = ", ".join(steps[:3]) + (" …" if len(steps) > 3 else "")
    changed = [text for text in (said, arrives if arrives != origin.text else "") if text]
    if not changed:
        return origin.text
    return f"{origin.text}\n{' → '.join(changed) if said else f'→ {arrives}'}"
