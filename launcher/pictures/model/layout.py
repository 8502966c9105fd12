"""Places boxes and arrows: in rows from top to bottom, with few crossings and straight lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from .geometry import ARROW, LOOP, MARGIN, PADDING, Item, Layout, Link, Point
from .spacing import Spacing

_ROW = 9.0  # Between rows.


def place(
    items: Sequence[Item], links: Sequence[Link], names: Mapping[str, tuple[float, float]]
) -> Layout:
    """The places of items, of the links between them, and of the borders around groups.

    Args:
        items: Sizes in points, float, in an order in which most links go forward.
        links: Arrows between the items, by int index.
        names: float, width and height in points of the name of each group that gets a border.
    """
    return _Placed(items, links, names).layout()


class _Placed(Spacing):
    """Rows with a height, groups with borders, and arrows with a path."""

    def layout(self) -> Layout:
        self.order()
        self.spread()
        tops, bottoms = self._stack()
        vertices = self.vertices
        middles = [(tops[v.row] + bottoms[v.row]) / 2 for v in vertices]
        borders = self._borders(middles)
        paths = [self._path(n, middles, tops, bottoms) for n in range(len(self.links))]
        labels = []
        for link, chain in zip(self.links, self.chains, strict=True):
            if link.tail == link.head:
                x = vertices[link.tail].x + self.items[link.tail].width / 2 + LOOP
                labels.append((x + link.width / 2, middles[link.tail]))
            else:
                vertex = vertices[chain[1]]
                labels.append((vertex.x + (vertex.right - vertex.left) / 2, middles[chain[1]]))
        lefts = [v.x - v.left for v in vertices] + [b[0] for b in borders.values()]
        rights = [v.x + v.right for v in vertices] + [b[2] for b in borders.values()]
        above = [b[1] for b in borders.values()] + tops
        below = [b[3] for b in borders.values()] + bottoms
        dx, dy = MARGIN - min(lefts), MARGIN - min(above)

        def moved(points: Iterable[Point]) -> list[Point]:
            return [(x + dx, y + dy) for x, y in points]

        return Layout(
            width=max(rights) + dx + MARGIN,
            height=max(below) + dy + MARGIN,
            centres=moved((vertices[n].x, middles[n]) for n in range(len(self.items))),
            paths=[moved(path) for path in paths],
            labels=moved(labels),
            groups={
                g: (x0 + dx, y0 + dy, x1 + dx, y1 + dy) for g, (x0, y0, x1, y1) in borders.items()
            },
        )

    def _stack(self) -> tuple[list[float], list[float]]:
        """Top and bottom of every row."""
        above, below = [0.0] * len(self.rows), [0.0] * len(self.rows)
        spans = self.spans()
        for name, (first, last) in spans.items():
            above[first] = max(above[first], self._rise(name, spans))
            below[last] = max(below[last], self._sink(name, spans))
        tops, bottoms, y = [], [], 0.0
        for index, row in enumerate(self.rows):
            y += above[index]
            height = max((self.vertices[n].height for n in row), default=0.0)
            tops.append(y)
            bottoms.append(y + height)
            aside = [
                abs(self.vertices[m].x - self.vertices[n].x)
                for n in row
                for m, _ in self.vertices[n].down
            ]
            head = 0.0 if index % 2 == 0 else ARROW - 1
            y += height + below[index] + _ROW + head + min(30.0, 0.07 * max(aside, default=0.0))
        return tops, bottoms

    def _inner(self, name: str, spans: Mapping[str, tuple[int, int]]) -> list[str]:
        return [other for other in spans if other.startswith(f"{name}.")]

    def _rise(self, name: str, spans: Mapping[str, tuple[int, int]]) -> float:
        """From a group's first row to its upper border."""
        inner = [g for g in self._inner(name, spans) if spans[g][0] == spans[name][0]]
        inside = max((self._rise(g, spans) for g in inner), default=0.0)
        return inside + self.names[name][1] + PADDING

    def _sink(self, name: str, spans: Mapping[str, tuple[int, int]]) -> float:
        inner = [g for g in self._inner(name, spans) if spans[g][1] == spans[name][1]]
        return max((self._sink(g, spans) for g in inner), default=0.0) + PADDING

    def _borders(self, middles: list[float]) -> dict[str, tuple[float, float, float, float]]:
        """A rectangle around each group, where it holds nothing else."""
        spans, sides = self.spans(), self.sides()
        found: dict[str, tuple[float, float, float, float]] = {}
        vertices = self.vertices
        for name in sorted(spans, key=lambda g: (-len(g), g)):  # Inner ones first.
            inside = [n for n, v in enumerate(vertices) if name in v.group]
            top = min(
                middles[n] - vertices[n].height / 2
                for n in inside
                if vertices[n].row == spans[name][0]
            )
            bottom = max(middles[n] + vertices[n].height / 2 for n in inside)
            left, right = sides[name]
            border = (left, top - self._rise(name, spans), right, bottom + self._sink(name, spans))
            others = [
                (v.x - v.left, middles[n] - v.height / 2, v.x + v.right, middles[n] + v.height / 2)
                for n, v in enumerate(vertices)
                if name not in v.group and v.height
            ]
            related = {g for g in found if g.startswith(f"{name}.")}
            others += [found[g] for g in found if g not in related]
            if not any(_overlap(border, other) for other in others):
                found[name] = border
        return found

    def _path(
        self, index: int, middles: list[float], tops: list[float], bottoms: list[float]
    ) -> list[Point]:
        link, chain = self.links[index], self.chains[index]
        if link.tail == link.head:
            x, y = self.vertices[link.tail].x + self.items[link.tail].width / 2, middles[link.tail]
            rise = 0.28 * self.items[link.tail].height
            out = x + LOOP * 1.15
            return [(x, y + rise), (out, y + rise), (out, y - rise), (x, y - rise)]
        vertices = self.vertices
        first, last = vertices[chain[0]], vertices[chain[-1]]
        stops = [(first.x, middles[chain[0]] + first.height / 2), (first.x, bottoms[first.row])]
        for n in chain[1:-1]:
            stops += [
                (vertices[n].x, tops[vertices[n].row]),
                (vertices[n].x, bottoms[vertices[n].row]),
            ]
        x = last.x + self._port(chain[-1], chain[-2])
        stops += [(x, tops[last.row] - ARROW), (x, middles[chain[-1]] - last.height / 2)]
        path = [stops[0]]
        for (x0, y0), (x1, y1) in pairwise(stops):
            if abs(x1 - x0) + abs(y1 - y0) > 0.01:
                middle = (y0 + y1) / 2
                path += [(x0, middle), (x1, middle), (x1, y1)]
        return path[::-1] if link.head < link.tail else path

    def _port(self, n: int, above: int) -> float:
        """The offset from the middle of its upper side at which an arrow arrives, in points."""
        vertex = self.vertices[n]
        arriving = sorted((m for m, _ in vertex.up), key=lambda m: self.vertices[m].x)
        room = max(self.items[n].width - 24, 0.0)
        step = min(12.0, room / max(len(arriving) - 1, 1))
        return step * (arriving.index(above) - (len(arriving) - 1) / 2)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
