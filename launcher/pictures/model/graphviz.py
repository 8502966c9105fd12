"""Where boxes and arrows go, as graphviz' `dot` would have them, where it is on the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from .layout import MARGIN, PADDING, Item, Layout, Link, Point

_TIMEOUT_S = 20.0
_POINTS = 72.0  # In an inch, which is what dot measures boxes in.


def place(
    items: Sequence[Item], links: Sequence[Link], names: Mapping[str, tuple[float, float]]
) -> Layout | None:
    """The same as `layout.place`, by dot; None without dot, and whenever it does not answer."""
    if (dot := shutil.which("dot")) is None:
        return None
    source = _source(items, links, names)
    try:
        answer = subprocess.run(
            [dot, "-Tjson0"],
            input=source,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_TIMEOUT_S,
            check=True,
        )
        return _layout(json.loads(answer.stdout), items, links, list(names))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError):
        return None


def _source(
    items: Sequence[Item], links: Sequence[Link], names: Mapping[str, tuple[float, float]]
) -> str:
    """Sizes alone: what is written in the boxes is none of dot's business."""
    lines = [
        "digraph model {",
        f"graph [nodesep=0.25, ranksep=0.3, splines=true, pad={MARGIN / _POINTS}];",
        'node [shape=box, fixedsize=true, label=""];',
        "edge [arrowhead=none];",
    ]
    depth = _open_groups(items, names, lines)
    lines.append("}" * depth)
    for number, link in enumerate(links):
        label = _blank(link.width + 6, link.height) if link.width else '""'
        back = ", constraint=false" if link.head < link.tail else ""
        lines.append(f'n{link.tail} -> n{link.head} [id="{number}", label={label}{back}];')
    return "\n".join([*lines, "}"])


def _open_groups(
    items: Sequence[Item], names: Mapping[str, tuple[float, float]], lines: list[str]
) -> int:
    """Write the items, each within its groups; how many groups are still open at the end."""
    opened: tuple[str, ...] = ()
    numbered = sorted(enumerate(items), key=lambda numbered: (numbered[1].group, numbered[0]))
    for number, item in numbered:
        group = tuple(name for name in item.group if name in names)
        common = sum(a == b for a, b in zip(opened, group, strict=False))
        lines.append("}" * (len(opened) - common))
        for name in group[common:]:
            label = _blank(*names[name])
            lines.append(
                f"subgraph cluster{list(names).index(name)} "
                f"{{ graph [label={label}, labeljust=l, margin={PADDING}];"
            )
        opened = group
        width, height = item.width / _POINTS, item.height / _POINTS
        lines.append(f"n{number} [width={width:.4f}, height={height:.4f}];")
    return len(opened)


def _blank(width: float, height: float) -> str:
    """A label that takes this much room."""
    return (
        f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0" fixedsize="true" '
        f'width="{width:.0f}" height="{height:.0f}"><tr><td></td></tr></table>>'
    )


def _layout(
    answer: dict[str, Any], items: Sequence[Item], links: Sequence[Link], names: Sequence[str]
) -> Layout:
    x0, y0, x1, y1 = _numbers(answer["bb"])

    def point(x: float, y: float) -> Point:  # Dot's y goes upwards.
        return x - x0 + MARGIN, y1 - y + MARGIN

    centres: list[Point] = [(0.0, 0.0)] * len(items)
    groups = {}
    for thing in answer["objects"]:
        if thing["name"].startswith("cluster"):
            left, bottom, right, top = _numbers(thing["bb"])
            groups[names[int(thing["name"].removeprefix("cluster"))]] = (
                *point(left, top),
                *point(right, bottom),
            )
        else:
            x, y = _numbers(thing["pos"])
            centres[int(thing["name"][1:])] = point(x, y)
    paths: list[list[Point]] = [[] for _ in links]
    labels: list[Point] = [(0.0, 0.0)] * len(links)
    for edge in answer.get("edges", []):
        number = int(edge["id"])
        paths[number] = [point(*_numbers(pair)) for pair in edge["pos"].split()]
        if "lp" in edge:
            labels[number] = point(*_numbers(edge["lp"]))
    if not all(paths):
        raise ValueError("dot left arrows out")
    return Layout(x1 - x0 + 2 * MARGIN, y1 - y0 + 2 * MARGIN, centres, paths, labels, groups)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]
