"""The graph of a module as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

from ....replay.files import make_folder, replacing
from ..style import COLOURS, GREY, context
from .geometry import ARROW, MARGIN, Item, Layout, Link, Point
from .graph import Edge, Graph, Node
from .labels import cut, cut_path, percent
from .layout import place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _VERMILION, _GREEN, _PURPLE, _SKY, _ORANGE, _ = COLOURS
# Colours of boxes, by the first of these words that the lower-case name of their class contains. The order
# matters: `TransformerEncoderLayer` is an attention block, not just a layer.
_FAMILIES = (
    (("norm",), GREY),
    (("conv", "patch"), _BLUE),
    (("lstm", "gru", "rnn"), _VERMILION),
    (("attention", "transformer", "encoderblock"), _PURPLE),
    (("embedding",), _ORANGE),
    (("linear", "mlp"), _GREEN),
    (("block", "layer", "residual", "bottleneck", "inception"), _BLUE),
)
_INK, _QUIET, _LINE = "#222222", "#6b6b6b", "#8a8a8a"
_BOLD, _NORMAL, _SMALL = (9.0, "bold"), (7.5, "normal"), (7.0, "normal")
# All lengths are in points (1/72 inch), so that fonts and boxes keep their proportions at any size.
_LEADING = 1.35  # Height of a line of text, in font sizes.
_ASIDE, _WITHIN = 9.0, 6.0  # Space in a box, beside and above its text.
_NARROWEST = 104.0
_LONGEST_PATH = 44
_MOST_LABELS = 3  # On one arrow.
# Resolution of the PNG, lowered where a side would exceed so many pixels: a deep model would need gigabytes.
_DPI, _MOST_PIXELS = 200.0, 24000.0

Style = tuple[float, str]
Line = list[tuple[str, Style, str]]  # Words, how large and heavy, in which colour.


def draw(graph: Graph, folder: Path, *, title: str) -> list[Path]:
    """Write `model.svg` and `model.png` to a folder, and return their paths."""
    # Text is measured before anything is placed: matplotlib knows sizes only after drawing.
    texts = [_text(node) for node in graph.nodes]
    items = [
        Item(*_box_size(node, text), tuple(g for g in node.groups if g in graph.groups))
        for node, text in zip(graph.nodes, texts, strict=True)
    ]
    labels = [_label(edge) for edge in graph.edges]
    links = [
        Link(edge.tail, edge.head, *_size(label))
        for edge, label in zip(graph.edges, labels, strict=True)
    ]
    names = _names(graph, items)
    sizes = {group: _size([name]) for group, name in names.items()}
    where = place(items, links, sizes)
    heading = _heading(graph, title)
    with context():
        return _picture(graph, where, items, texts, labels, names, heading, folder)


def _picture(
    graph: Graph,
    where: Layout,
    items: Sequence[Item],
    texts: Sequence[list[Line]],
    labels: Sequence[list[Line]],
    names: Mapping[str, Line],
    heading: list[Line],
    folder: Path,
) -> list[Path]:
    from matplotlib.figure import Figure

    wide, high = _size(heading)
    width, height = max(where.width, wide + 2 * MARGIN), where.height + high + _WITHIN
    figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    aside = (width - where.width) / 2
    axes.set_xlim(-aside, width - aside)
    axes.set_ylim(where.height, -high - _WITHIN)  # Downwards, as the layout counts.
    _write(axes, heading, -aside + MARGIN, MARGIN / 2 - high)
    # Outer groups first: the inner ones are painted over them.
    for group, border in sorted(where.groups.items(), key=lambda item: len(item[0])):
        depth = 1 + sum(group.startswith(f"{other}.") for other in where.groups)
        _draw_group(axes, names[group], border, depth)
    for edge, path in zip(graph.edges, where.paths, strict=True):
        _draw_arrow(axes, path, dashed=edge.lost)
    for label, (x, y) in zip(labels, where.labels, strict=True):
        wide, high = _size(label)
        _write(axes, label, x - wide / 2, y - high / 2)
    for node, item, text, centre in zip(graph.nodes, items, texts, where.centres, strict=True):
        _draw_node(axes, node, item, text, centre)
    make_folder(folder)
    paths = [folder / "model.svg", folder / "model.png"]
    with replacing(paths[0], "wb") as file:
        # Without a date, the same model gives the same bytes.
        figure.savefig(file, format="svg", metadata={"Date": None})
    with replacing(paths[1], "wb") as file:
        dpi = min(_DPI, _MOST_PIXELS * 72 / max(width, height))
        figure.savefig(file, format="png", dpi=dpi)
    return paths


def _heading(graph: Graph, title: str) -> list[Line]:
    boxes = sum(node.kind == "box" for node in graph.nodes)
    said = f"{graph.total:,} parameters"
    if graph.trainable < graph.total:
        said += f", {graph.trainable:,} of them trained"
    lines: list[Line] = [
        [(title, (11.0, "bold"), _INK)],
        [(f"{said}, {boxes} box{'es' * (boxes != 1)}", _NORMAL, _QUIET)],
    ]
    if any(edge.lost for edge in graph.edges):
        note = "dashed: values left torch on this path (numpy, item(), if), so it is assumed, not traced"
        lines.append([(note, _NORMAL, _QUIET)])
    if graph.unused:
        paths = ", ".join(cut_path(node.path, 30) for node in graph.unused[:4])
        more = f" and {len(graph.unused) - 4} more" * (len(graph.unused) > 4)
        lines.append([(f"not used: {paths}{more}", _NORMAL, _QUIET)])
    return lines


def _text(node: Node) -> list[Line]:
    """The lines inside a node."""
    if node.kind == "op":
        times = f" x{node.times}" * (node.times > 1)
        return [[(cut(node.title, 40), _NORMAL, _INK), (times, _SMALL, _QUIET)]]
    if node.kind in ("input", "output"):
        shape = node.results[0] if node.results else ""
        return [[(node.title, (8.5, "bold"), _INK)], [(shape, _NORMAL, _QUIET)]]
    path = cut_path(node.path, _LONGEST_PATH)
    if node.also:
        path = cut_path(node.path, 26) + " = " + cut_path(node.also[0], 26)
        path += f" = …{len(node.also) - 1} more" * (len(node.also) > 1)
    title, shown = node.title, (path, _NORMAL, _QUIET)
    if node.kind == "parameter":
        title, shown = path, (f"parameter {' '.join(node.results)}", _NORMAL, _QUIET)
    header: Line = [(cut(title, 44), _BOLD, _INK)]
    if node.times > 1:
        header.append((f" x{node.times}", _BOLD, _VERMILION))
    lines = [header, [shown]]
    if not shown[0]:
        lines.pop()
    elif not node.parameters + node.shared and _size([header])[0] + _size([[shown]])[0] < 160:
        # One line for a small module: a ReLU should not be as tall as a convolution.
        lines = [[*header, ("  ", _NORMAL, _QUIET), shown]]
    if node.detail:
        lines.append([(node.detail, _NORMAL, _INK)])
    if counted := _counted(node):
        lines.append([(counted, _NORMAL, _QUIET)])
    return lines


def _counted(node: Node) -> str:
    """How many parameters a box has, with those that it shares with earlier boxes."""
    said = []
    if node.parameters:
        said.append(f"{node.parameters:,} · {percent(node.share)}")
    if node.shared:
        said.append(f"{node.shared:,} shared")
    if said and node.frozen:
        said.append("frozen")
    return ", ".join(said)


def _label(edge: Edge) -> list[Line]:
    texts = [text for label in edge.labels for text in label.split("\n") if text]
    if len(texts) > _MOST_LABELS:
        texts = [*texts[: _MOST_LABELS - 1], f"… {len(texts) - _MOST_LABELS + 1} more"]
    return [[(cut(text, 40), _SMALL, _QUIET)] for text in texts]


def _names(graph: Graph, items: Sequence[Item]) -> dict[str, Line]:
    """The line at a group's border, for groups of more than one item."""
    names: dict[str, Line] = {}
    for group, title in graph.groups.items():
        if sum(group in item.group for item in items) > 1:
            path = group.rpartition(".")[2] if group.rpartition(".")[0] in names else group
            names[group] = [(path, (7.5, "bold"), _QUIET)]
            # Obvious from the contents.
            if title not in ("Sequential", "ModuleList", "ModuleDict"):
                names[group].append((f" {title}", _NORMAL, _QUIET))
    return names


def _box_size(node: Node, text: list[Line]) -> tuple[float, float]:
    width, height = _size(text)
    if node.kind == "op":
        return max(width + 9, 17.0), 17.0
    bar = 3.0 if node.parameters else 0.0
    least = _NARROWEST if node.kind == "box" else 0.0
    return max(width + 2 * _ASIDE, least), height + 2 * _WITHIN - 2 + bar


def _draw_group(
    axes: Axes, name: Line, border: tuple[float, float, float, float], depth: int
) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    left, top, right, bottom = border
    paper = _tint("#000000", 0.04 * depth)
    shape = "round,pad=0,rounding_size=6"
    axes.add_patch(
        FancyBboxPatch(
            (left, top),
            right - left,
            bottom - top,
            boxstyle=shape,
            facecolor=paper,
            edgecolor=_tint("#000000", 0.04 * depth + 0.08),
            linewidth=0.8,
            zorder=0.1 * depth,
        )
    )
    wide, high = _size([name])  # Arrows pass behind the name.
    axes.add_patch(Rectangle((left + 6, top + 4), wide + 2, high, color=paper, lw=0, zorder=3.5))
    _write(axes, [name], left + 7, top + 4)


def _draw_node(axes: Axes, node: Node, item: Item, text: list[Line], centre: Point) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    x, y = centre[0] - item.width / 2, centre[1] - item.height / 2
    colour = _colour(node)
    rounding = {"box": 3.0, "parameter": 3.0}.get(node.kind, min(item.height / 2, 11.0))
    fill = {"op": 0.0, "input": 0.16, "output": 0.16}.get(
        node.kind, 0.09 if node.parameters else 0.04
    )
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            item.width,
            item.height,
            boxstyle=f"round,pad=0,rounding_size={rounding:g}",
            facecolor=_tint(colour, fill),
            edgecolor=_tint(colour, 0.75),
            linewidth=0.9,
            linestyle=(0, (3, 2)) if node.kind == "parameter" else "-",
            zorder=3,
        )
    )
    if node.kind in ("op", "input", "output"):
        top = centre[1] - _size(text)[1] / 2
        for line in text:
            wide, high = _size([line])
            _write(axes, [line], centre[0] - wide / 2, top, zorder=5)
            top += high
        return
    _write(axes, text, x + _ASIDE, y + _WITHIN - 1, zorder=5)
    if node.parameters:  # A bar for the share of the model's parameters.
        left, wide, top = x + _ASIDE, item.width - 2 * _ASIDE, y + item.height - 6.0
        axes.add_patch(Rectangle((left, top), wide, 2.2, color=_tint(colour, 0.2), lw=0, zorder=4))
        share = max(wide * node.share, 0.8)  # A sliver at least: there are some parameters.
        axes.add_patch(Rectangle((left, top), share, 2.2, color=colour, lw=0, zorder=4))


def _draw_arrow(axes: Axes, path: Sequence[Point], *, dashed: bool) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    points = list(path)
    x, y = points[-1]
    # The head points along the last piece of the curve. Points nearer than half a head are skipped: one that
    # coincides with the tip would have no direction.
    far = (p for p in points[::-1] if hypot(x - p[0], y - p[1]) > ARROW / 2)
    fx, fy = next(far, (x, y - 1))
    length = hypot(x - fx, y - fy)
    dx, dy = (x - fx) / length, (y - fy) / length
    # The line ends inside the head: its square end would stick out of the tip.
    points[-1] = (x - dx * ARROW * 0.9, y - dy * ARROW * 0.9)
    codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1)
    style = (0, (4, 2.5)) if dashed else "-"
    line = {"edgecolor": _LINE, "facecolor": "none", "linewidth": 0.9, "linestyle": style}
    axes.add_patch(PathPatch(Curve(points, codes), zorder=2, **line))
    back, half = (x - dx * ARROW, y - dy * ARROW), ARROW * 0.42
    corners = [
        (x, y),
        (back[0] - dy * half, back[1] + dx * half),
        (back[0] + dy * half, back[1] - dx * half),
    ]
    axes.add_patch(Polygon(corners, closed=True, color=_LINE, lw=0, zorder=2))


def _write(
    axes: Axes,
    lines: Sequence[Line],
    x: float,
    y: float,
    *,
    zorder: float = 5,
) -> None:
    """Write lines below each other; `x, y` is their upper left corner."""
    for line in lines:
        high = _size([line])[1]
        at = x
        for words, (size, weight), colour in line:
            if words.strip():
                # Baselines, so that words of two sizes in one line align.
                baseline = y + high * 0.74
                text = axes.text(
                    at, baseline, words, fontsize=size, fontweight=weight, color=colour
                )
                text.set(va="baseline", ha="left", zorder=zorder, clip_on=False)
            at += _width(words, size, weight)
        y += high


def _size(lines: Sequence[Line]) -> tuple[float, float]:
    """Width and height of lines of text, in points."""
    widths = [sum(_width(words, *style) for words, style, _ in line) for line in lines]
    heights = [max((size for words, (size, _), _ in line), default=0.0) for line in lines]
    return max(widths, default=0.0), _LEADING * sum(heights)


# Cached: measuring text is slow, and the same words return in every block.
@lru_cache(maxsize=4096)
def _width(words: str, size: float, weight: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    if not words:
        return 0.0
    font = FontProperties(family="sans-serif", size=size, weight=weight)
    wide: float = TextToPath().get_text_width_height_descent(words, font, False)[0]
    return wide


def _colour(node: Node) -> str:
    if node.kind == "input":
        return _SKY
    if node.kind == "output":
        return _ORANGE
    name = node.title.lower()
    for words, colour in _FAMILIES:
        if any(word in name for word in words) and node.kind == "box":
            return colour
    return GREY


def _tint(colour: str, strength: float) -> str:
    """A colour mixed with white; opaque, since transparent boxes would show arrows behind them.

    Args:
        colour: `#rrggbb`.
        strength: float in [0, 1]; 0 is white.
    """
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * strength):02x}" for part in parts)
