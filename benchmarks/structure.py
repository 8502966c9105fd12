"""Counts that say how the code hangs together: circles, long functions, parameters of type Any.

    python benchmarks/structure.py            # this tree
    python benchmarks/structure.py PATH       # another checkout of it

Only reads the source; nothing is imported.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("replay", "envs", "agents", "launcher", "antelope")
BACKTICKS = re.compile(r"`[\[(]|float|int\d|bool|uint8|seconds|steps|rows|bytes|in \[")


def modules(root: Path) -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name below the root."""
    found = {}
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts)] = ast.parse(file.read_text())
    return found


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """For each module those that it imports, late and type-only imports too."""
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        here, package = found.setdefault(name, set()), name.split(".")[:-1]
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            above = package[: len(package) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]).removeprefix("antelope.")
            for alias in node.names:
                options = (f"{base}.{alias.name}", f"{base}.{alias.name}.__init__", base)
                options = (*options, f"{base}.__init__")
                hit = next((option for option in options if option in trees), None)
                if hit is not None and hit != name:
                    here.add(hit)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, Function]]:
    """Every function with its module's name."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield name, node


def parameters(function: Function) -> list[ast.arg]:
    """The annotated parameters of a function."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    every += [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return [arg for arg in every if arg.annotation is not None]


def calls(tree: ast.Module, name: str) -> list[ast.Call]:
    """The calls of a function by its bare name."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def asks_for_dict(call: ast.Call) -> bool:
    """Whether an `isinstance` asks for a dict."""
    names = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
    return "dict" in names


def described(tree: ast.Module) -> tuple[int, int]:
    """Entries of `Args:` sections, and how many of them say a shape, a dtype or a unit."""
    entries = precise = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        text = ast.get_docstring(node) or ""
        section = re.search(r"^Args:\n((?: {4}.*\n?|\n)*)", text, re.MULTILINE)
        for entry in re.split(r"\n(?= {4}\S)", section[1]) if section else ():
            entries += 1
            precise += bool(BACKTICKS.search(entry))
    return entries, precise


def comments(file: Path) -> tuple[int, int]:
    """Comments of a file, and its lines."""
    text = file.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens), len(text.splitlines())


@dataclass(frozen=True)
class Counts:
    """What the structure is measured by.

    Attributes:
        circles: Groups of modules that import each other.
        on_data: Places in the launcher that ask whether a run learns from data.
        asked: `isinstance(x, dict)` in the launcher.
        fetched: `getattr(...)` in the launcher.
        loose: Share of annotated parameters that are `Any`, in [0, 1].
        typed: Number of annotated parameters.
        lengths: Lines of every function, longest first.
        sizes: Lines of every module, longest first.
    """

    circles: list[list[str]]
    on_data: int
    asked: int
    fetched: int
    loose: float
    typed: int
    lengths: list[tuple[int, str]]
    sizes: list[tuple[int, str]]


def measure(root: Path) -> Counts:
    """The counts of a checkout."""
    trees = modules(root)
    launcher = [tree for name, tree in trees.items() if name.startswith("launcher")]
    typed = [arg.annotation for _, node in functions(trees) for arg in parameters(node)]
    loose = [kind for kind in typed if kind and "Any" in ast.unparse(kind).split(" | ")]
    lengths = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}:{node.name}")
        for name, node in functions(trees)
    ]
    files = {name: (root / name.replace(".", "/")).with_suffix(".py") for name in trees}
    return Counts(
        circles=circles(imports(trees)),
        on_data=sum(
            isinstance(node, ast.Attribute) and node.attr == "on_data"
            for tree in launcher
            for node in ast.walk(tree)
        ),
        asked=sum(asks_for_dict(c) for tree in launcher for c in calls(tree, "isinstance")),
        fetched=sum(len(calls(tree, "getattr")) for tree in launcher),
        loose=len(loose) / len(typed),
        typed=len(typed),
        lengths=sorted(lengths, reverse=True),
        sizes=sorted(
            ((len(file.read_text().splitlines()), name) for name, file in files.items()),
            reverse=True,
        ),
    )


def main(root: Path) -> None:
    trees, counts = modules(root), measure(root)
    inside = sum(name.startswith("launcher") for name in trees)
    print(
        f"modules {len(trees)}, of them in launcher/ {inside}; imports among them "
        f"{sum(map(len, imports(trees).values()))}"
    )
    print(f"circles {len(counts.circles)}")
    for group in counts.circles:
        print(f"    {', '.join(group)}")
    print(f"on_data in launcher/: {counts.on_data}")
    print(f"isinstance(x, dict) in launcher/: {counts.asked} (at most 30)")
    print(f"getattr in launcher/: {counts.fetched} (at most 30)")
    print(f"parameters of type Any: {counts.loose:.1%} of {counts.typed} (under 7 %)")
    print(f"longest function: {counts.lengths[0][0]} lines (under 60), {counts.lengths[0][1]}")
    for length, name in counts.lengths:
        if length >= 60:
            print(f"    {length} {name}")
    longest = ", ".join(f"{name} {size}" for size, name in counts.sizes[:8])
    print(f"longest modules: {longest}")
    for folder in FOLDERS[:-1]:
        entries = [described(tree) for name, tree in trees.items() if name.startswith(folder)]
        said = [comments(file) for file in sorted((root / folder).rglob("*.py"))]
        every, precise = (sum(column) for column in zip(*entries, strict=True))
        counted, lines = (sum(column) for column in zip(*said, strict=True))
        print(
            f"{folder}/: {lines} lines; {precise / max(every, 1):.0%} of {every} described parameters with "
            f"a shape, dtype or unit; {100 * counted / lines:.1f} comments per 100 lines"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
