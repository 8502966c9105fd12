"""The graph of a module as text: a tree of its parts, with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .graph import Edge, Graph, Node
from .labels import percent

_MOST_RESULTS = 3


def text(graph: Graph, *, title: str) -> str:
    """The content of the picture as text, for a terminal or a paper's appendix."""
    frozen = graph.total - graph.trainable
    total = f"{graph.total:,} parameters"
    if frozen:
        total += f": {graph.trainable:,} trained, {frozen:,} frozen"
    blocks = [f"{title}\n{total}"]
    for kind in ("input", "output"):
        named = [node for node in graph.nodes if node.kind == kind]
        if named:
            rows = [
                (node.title, *node.results, *([_from(graph, node)] if kind == "output" else []))
                for node in named
            ]
            blocks.append(_table([(kind, "shape", "from")[: 3 if kind == "output" else 2], *rows]))
    head = ("module", "class", "settings", "output", "parameters", "share", "from")
    blocks.append(_table([head, *_rows(graph)], right=(4, 5)))
    if graph.unused:
        rows = [(n.path, n.title, f"{n.parameters:,}") for n in graph.unused]
        blocks.append(_table([("not used", "class", "parameters"), *rows], right=(2,)))
    if any(edge.lost for edge in graph.edges):
        blocks.append(
            "?: values left torch on this path (numpy, item(), if), so it is assumed, not traced"
        )
    return "\n\n".join(blocks) + "\n"


def _rows(graph: Graph) -> Iterator[tuple[str, ...]]:
    """Every box, below the opened modules that it is in."""
    shown: set[str] = set()
    for node in graph.nodes:
        if node.kind not in ("box", "parameter"):
            continue
        for depth, group in enumerate(node.groups):
            if group in graph.groups and group not in shown:
                shown.add(group)
                size = sum(n.parameters for n in graph.nodes if group in n.groups)
                name = "  " * depth + group.rpartition(".")[2]
                share = percent(size / graph.total) if size else ""
                counted = f"{size:,}" if size else ""
                yield (name, graph.groups[group], "", "", counted, share, "")
        yield _row(graph, node)


def _row(graph: Graph, node: Node) -> tuple[str, ...]:
    last = node.path.rpartition(".")[2]
    name = "  " * len(node.groups) + (last or graph.name)
    if node.also:
        name += f" (= {', '.join(node.also)})"
    kind = node.title + (f" x{node.times}" if node.times > 1 else "")
    more = len(node.results) - _MOST_RESULTS
    results = " ".join(node.results[:_MOST_RESULTS]) + (f" and {more} more" if more > 0 else "")
    counted = [f"{node.parameters:,}"] if node.parameters else []
    counted += [f"{node.shared:,} shared"] if node.shared else []
    counted += ["frozen"] if node.frozen else []
    share = percent(node.share) if node.parameters else ""
    return (name, kind, node.detail, results, ", ".join(counted), share, _from(graph, node))


def _from(graph: Graph, node: Node) -> str:
    """The sources of a node, with the operations between them and it."""
    return ", ".join(_sources(graph, graph.nodes.index(node), set()))


def _sources(graph: Graph, head: int, seen: set[int]) -> list[str]:
    found: dict[str, None] = {}
    for edge in graph.edges:
        if edge.head != head or edge.tail in seen:
            continue
        tail = graph.nodes[edge.tail]
        if tail.kind == "op":
            inside = _sources(graph, edge.tail, seen | {edge.tail})
            found[f"{tail.title}({', '.join(inside)})"] = None
        else:
            found[_name(graph, tail, edge)] = None
    return list(found)


def _name(graph: Graph, tail: Node, edge: Edge) -> str:
    name = tail.path or (tail.title if tail.kind == "input" else graph.name)
    return f"{name}?" if edge.lost else name


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns; those without anything in them are left out."""
    kept = [c for c in range(len(rows[0])) if any(row[c] for row in rows[1:])]
    widths = {c: max(len(row[c]) for row in rows) for c in kept}
    lines = [
        "  ".join(
            row[c].rjust(widths[c]) if c in right else row[c].ljust(widths[c]) for c in kept
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
