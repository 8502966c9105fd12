"""Counts that say how the code hangs together: circles, long functions, parameters of type Any.

    python benchmarks/structure.py            # this tree
    python benchmarks/structure.py PATH       # another checkout of it

Only reads the source; nothing is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
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


def functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function with its module's name."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node  # type: ignore[misc]


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
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
    lines = file.read_text().splitlines()
    return sum(bool(re.search(r"(^|\s)# ", line)) for line in lines), len(lines)


def main(root: Path) -> None:
    trees = modules(root)
    launcher = {name: tree for name, tree in trees.items() if name.startswith("launcher")}
    graph = imports(trees)
    lengths = sorted(
        (node.end_lineno - node.lineno + 1, f"{name}:{node.name}")  # type: ignore[operator]
        for name, node in functions(trees)
    )
    typed = [arg for _, node in functions(trees) for arg in parameters(node)]
    loose = [arg for arg in typed if "Any" in ast.unparse(arg.annotation).split(" | ")]  # type: ignore[arg-type]
    found = circles(graph)
    asked = sum(asks_for_dict(c) for t in launcher.values() for c in calls(t, "isinstance"))
    fetched = sum(len(calls(tree, "getattr")) for tree in launcher.values())
    on_data = [
        name
        for name, tree in launcher.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "on_data"
    ]
    print(
        f"modules {len(trees)}, of them in launcher/ {len(launcher)}; imports among them "
        f"{sum(map(len, graph.values()))}"
    )
    print(f"circles {len(found)}")
    for group in found:
        print(f"    {', '.join(group)}")
    print(f"on_data in launcher/: {len(on_data)}")
    print(f"isinstance(x, dict) in launcher/: {asked} (at most 30)")
    print(f"getattr in launcher/: {fetched} (at most 30)")
    print(f"parameters of type Any: {len(loose) / len(typed):.1%} of {len(typed)} (under 7 %)")
    print(f"longest function: {lengths[-1][0]} lines (under 60), {lengths[-1][1]}")
    for length, name in reversed([entry for entry in lengths if entry[0] >= 60]):
        print(f"    {length} {name}")
    sizes = {
        n: len((root / n.replace(".", "/")).with_suffix(".py").read_text().splitlines())
        for n in trees
    }
    longest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:8]
    print(f"longest modules: {', '.join(f'{name} {sizes[name]}' for name in longest)}")
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
