"""Where boxes and arrows go: in rows from top to bottom, few crossings, straight lines.

Source of the method: Sugiyama, Tagawa & Toda (1981), "Methods for visual understanding of
hierarchical system structures": rows by longest path, order within a row by barycentre. Labels of
arrows are things with a place of their own, so that nothing is ever written over something else.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]
Group = tuple[str, ...]

MARGIN = 14.0
PADDING = 9.0  # Between a group's border and what is in it.
ARROW = 5.5  # Length of an arrow's head.
_APART = 16.0  # Between neighbours in a row.
_ROW = 9.0  # Between rows.
_LOOP = 24.0  # How far an arrow from a box to itself goes out.
_MOST_BENDS = 6000  # Beyond which long arrows go straight, through whatever is there.
_SWEEPS = 24
_FIRM = 1000.0  # How much a group's side pulls back to where it is.


@dataclass
class Item:
    """Something to place."""

    width: float
    height: float
    group: Group = ()  # Paths of the groups that it is in, outermost first.


@dataclass
class Link:
    """An arrow to draw between two items, with the size of its label."""

    tail: int
    head: int
    width: float
    height: float


@dataclass
class Layout:
    """Where everything is, in points, y downwards."""

    width: float
    height: float
    centres: list[Point]  # Of the items.
    paths: list[list[Point]]  # Of the links: cubic Bezier curves, 1 + 3k points, tail to head.
    labels: list[Point]  # Centres of the links' labels.
    groups: dict[str, tuple[float, float, float, float]]  # Left, top, right, bottom.


def place(
    items: Sequence[Item], links: Sequence[Link], names: Mapping[str, tuple[float, float]]
) -> Layout:
    """Place items that are given in an order in which most links go forward.

    Args:
        names: Width and height of the name of each group that is to have a border.
    """
    return _Rows(items, links, names).layout()


@dataclass
class _Vertex:
    """An item, a label, or a point on the way of a long arrow."""

    row: int
    left: float  # From its anchor, where lines meet it.
    right: float
    height: float
    group: Group
    bend: bool = True
    x: float = 0.0
    up: list[tuple[int, float]] = field(default_factory=list)  # Neighbour, and how much it pulls.
    down: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class _Place:
    """What takes room in a row: a vertex, or one side of a group."""

    vertex: _Vertex | None
    left: float
    right: float
    wish: float
    pull: float


class _Rows:
    def __init__(
        self,
        items: Sequence[Item],
        links: Sequence[Link],
        names: Mapping[str, tuple[float, float]],
    ) -> None:
        self.items, self.links, self.names = items, links, names
        self.vertices: list[_Vertex] = []
        self.chains: list[list[int]] = []  # The vertices of each link, from top to bottom.
        ranks = _ranks(len(items), links)
        ways = {(min(k.tail, k.head), max(k.tail, k.head)) for k in links if k.tail != k.head}
        self.leaving = Counter(first for first, _ in ways)
        self.arriving = Counter(last for _, last in ways)
        for item, rank in zip(items, ranks, strict=True):
            half = item.width / 2
            self.vertices.append(_Vertex(2 * rank, half, half, item.height, item.group, False))
        bends = sum(2 * abs(ranks[link.head] - ranks[link.tail]) - 1 for link in links)
        for link in links:
            self._chain(link, ranks, through=bends <= _MOST_BENDS)
        self.rows: list[list[int]] = [[] for _ in range(1 + max(v.row for v in self.vertices))]
        for index, vertex in enumerate(self.vertices):
            self.rows[vertex.row].append(index)

    def layout(self) -> Layout:
        self._order()
        self._spread()
        tops, bottoms = self._stack()
        vertices = self.vertices
        middles = [(tops[v.row] + bottoms[v.row]) / 2 for v in vertices]
        borders = self._borders(middles)
        paths = [self._path(n, middles, tops, bottoms) for n in range(len(self.links))]
        labels = []
        for link, chain in zip(self.links, self.chains, strict=True):
            if link.tail == link.head:
                x = vertices[link.tail].x + self.items[link.tail].width / 2 + _LOOP
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

    def _chain(self, link: Link, ranks: list[int], *, through: bool) -> None:
        """A vertex in every row between two items; the first of them is the label."""
        if link.tail == link.head:
            self.vertices[link.tail].right += _LOOP + link.width
            self.chains.append([link.tail])
            return
        first, last = sorted((link.tail, link.head))  # Those that go back are drawn upwards.
        top, bottom = 2 * ranks[first], 2 * ranks[last]
        pairs = zip(self.items[first].group, self.items[last].group, strict=False)
        group = tuple(a for a, b in pairs if a == b)
        chain = [first]
        for row in range(top + 1, bottom) if through else [top + 1]:
            label = row == top + 1
            width, height = (link.width + 6, link.height) if label else (3.0, 0.0)
            self.vertices.append(_Vertex(row, 4.0, width, height, group))
            chain.append(len(self.vertices) - 1)
        chain.append(last)
        # What bends is the side where several arrows meet; long ways round leave the short straight.
        many, few = self.leaving[first], self.arriving[last]
        weight = 1.0 if len(chain) == 3 else 0.3
        upper_pull = weight * (16.0 if many == 1 else 2.0 if few > 1 else 1.0)
        lower_pull = weight * (16.0 if few == 1 else 2.0 if many > 1 else 1.0)
        for place, (a, b) in enumerate(pairwise(chain)):
            pull = upper_pull if place == 0 else lower_pull if b == last else 16.0
            self.vertices[a].down.append((b, pull))
            self.vertices[b].up.append((a, pull))
        self.chains.append(chain)

    def _order(self) -> None:
        """Sort every row by where its neighbours are, up and down, and keep the best."""
        best, fewest = [row[:] for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            downwards = sweep % 2 == 0
            rows = self.rows if downwards else self.rows[::-1]
            places = self._places()
            for row in rows:
                wished = {}
                for n in row:
                    near = self.vertices[n].up if downwards else self.vertices[n].down
                    wished[n] = _mean([places[m] for m, _ in near], places[n])
                row[:] = self._sorted(row, wished, 0)
                places.update(_evenly(row))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [row[:] for row in self.rows], crossings
            if not fewest:
                break
        self.rows = best

    def _sorted(self, row: list[int], wished: Mapping[int, float], depth: int) -> list[int]:
        """By wish, but what is in the same group side by side."""
        sets: dict[object, list[int]] = {}
        for n in row:
            group = self.vertices[n].group
            sets.setdefault(group[depth] if depth < len(group) else n, []).append(n)
        ordered = sorted(sets.values(), key=lambda ns: _mean([wished[n] for n in ns]))
        return [
            n
            for ns in ordered
            for n in (ns if len(ns) == 1 else self._sorted(ns, wished, depth + 1))
        ]

    def _places(self) -> dict[int, float]:
        return {n: place for row in self.rows for n, place in _evenly(row).items()}

    def _crossings(self) -> int:
        count = 0
        for row, below in pairwise(self.rows):
            place = {n: i for i, n in enumerate(below)}
            seen: list[int] = []
            for n in row:
                ends = [place[m] for m, _ in self.vertices[n].down if m in place]
                count += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return count

    def _spread(self) -> None:
        """Give every vertex an x as near to its neighbours' as the others in its row allow."""
        for row in self.rows:
            x = 0.0
            for n in row:
                self.vertices[n].x = x + self.vertices[n].left
                x += self.vertices[n].left + self.vertices[n].right + _APART
        for sweep in range(2 * _SWEEPS):
            self._sweep({}, downwards=sweep % 2 == 1)
        for sweep in range(_SWEEPS):
            self._sweep(self._sides(), downwards=sweep % 2 == 1)
        self._sweep(self._sides(), downwards=True, only=self._labels_of_short_links())

    def _sweep(
        self,
        sides: Mapping[str, tuple[float, float]],
        *,
        downwards: bool,
        only: Collection[int] | None = None,
    ) -> None:
        """Move each row to where the one before it is; groups with sides keep others out.

        With `only`, these alone move, to the side that pulls most.
        """
        for row in self.rows if downwards else self.rows[::-1]:
            queue = []
            for n in row:
                vertex = self.vertices[n]
                near = vertex.up if downwards else vertex.down
                if only is not None:
                    most = max((pull for _, pull in vertex.up + vertex.down), default=0.0)
                    near = [(m, pull) for m, pull in vertex.up + vertex.down if pull == most]
                wish, pull = self._wish(n, near)
                if only is not None and n not in only:
                    wish, pull = vertex.x, _FIRM
                queue.append(_Place(vertex, vertex.left, vertex.right, wish, pull))
            queue = self._enclosed(queue, sides)
            gaps = [_gap(a, b) for a, b in pairwise(queue)]
            places = _apart([q.wish for q in queue], [q.pull for q in queue], gaps)
            for item, x in zip(queue, places, strict=True):
                if item.vertex is not None:
                    item.vertex.x = x

    def _wish(self, n: int, near: Sequence[tuple[int, float]]) -> tuple[float, float]:
        """Where the neighbours of a vertex would have it, and how much."""
        vertex = self.vertices[n]
        near = near or vertex.up + vertex.down
        pull = sum(p for _, p in near)
        if not near:
            return vertex.x, 0.1
        return sum(self.vertices[m].x * p for m, p in near) / pull, pull

    def _labels_of_short_links(self) -> set[int]:
        return {chain[1] for chain in self.chains if len(chain) == 3}

    def _sides(self) -> dict[str, tuple[float, float]]:
        """Left and right border of every group that has a name, around all that is in it."""
        sides: dict[str, tuple[float, float]] = {}
        for name in sorted(self._spans(), key=len, reverse=True):  # Inner ones first.
            inside = [v for v in self.vertices if name in v.group]
            inner = [sides[g] for g in sides if g.startswith(f"{name}.")]
            left = min([v.x - v.left for v in inside] + [side[0] for side in inner]) - PADDING
            right = max([v.x + v.right for v in inside] + [side[1] for side in inner]) + PADDING
            sides[name] = (left, max(right, left + self.names[name][0] + 2 * PADDING))
        return sides

    def _enclosed(
        self, queue: list[_Place], sides: Mapping[str, tuple[float, float]]
    ) -> list[_Place]:
        """The same row with the sides of its groups, which hardly move."""
        found: list[_Place] = []
        opened: tuple[str, ...] = ()
        for item in [*queue, _Place(None, 0, 0, 0, 0)]:
            group = tuple(g for g in item.vertex.group if g in sides) if item.vertex else ()
            common = sum(a == b for a, b in zip(opened, group, strict=False))
            for name in reversed(opened[common:]):
                found.append(_Place(None, PADDING, 0.0, sides[name][1], _FIRM))
            for name in group[common:]:
                found.append(_Place(None, 0.0, PADDING, sides[name][0], _FIRM))
            opened = group
            if item.vertex:
                found.append(item)
        return found

    def _stack(self) -> tuple[list[float], list[float]]:
        """Top and bottom of every row."""
        above, below = [0.0] * len(self.rows), [0.0] * len(self.rows)
        spans = self._spans()
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

    def _spans(self) -> dict[str, tuple[int, int]]:
        """First and last row of every group that has a name."""
        spans: dict[str, tuple[int, int]] = {}
        for vertex in self.vertices:
            for name in vertex.group:
                if name in self.names:
                    first, last = spans.get(name, (vertex.row, vertex.row))
                    spans[name] = (min(first, vertex.row), max(last, vertex.row))
        return spans

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
        spans, sides = self._spans(), self._sides()
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
            out = x + _LOOP * 1.15
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
        """Where at its upper side an arrow arrives, from its middle."""
        vertex = self.vertices[n]
        arriving = sorted((m for m, _ in vertex.up), key=lambda m: self.vertices[m].x)
        room = max(self.items[n].width - 24, 0.0)
        step = min(12.0, room / max(len(arriving) - 1, 1))
        return step * (arriving.index(above) - (len(arriving) - 1) / 2)


def _gap(a: _Place, b: _Place) -> float:
    """How far apart the anchors of two neighbours must be."""
    if a.vertex is None and b.vertex is None:
        # Two borders of nested groups, or of neighbours.
        return max(a.right + b.left, PADDING)
    if a.vertex is None or b.vertex is None:
        outside = (a.vertex is None and not a.right) or (b.vertex is None and not b.left)
        return a.right + b.left + (PADDING if outside else 0.0)
    both_bend = a.vertex.bend and b.vertex.bend
    common = sum(g == h for g, h in zip(a.vertex.group, b.vertex.group, strict=False))
    borders = len(a.vertex.group) + len(b.vertex.group) - 2 * common
    return a.right + b.left + (6.0 if both_bend else _APART) + borders * PADDING


def _ranks(count: int, links: Sequence[Link]) -> list[int]:
    """The length of the longest way to each; then down, where that makes no more arrow longer."""
    ranks = [0] * count
    ways = sorted({(min(k.tail, k.head), max(k.tail, k.head)) for k in links if k.tail != k.head})
    for tail, head in ways:
        ranks[head] = max(ranks[head], ranks[tail] + 1)
    led_to = Counter(head for _, head in ways)
    for n in reversed(range(count)):
        after = [ranks[head] for tail, head in ways if tail == n]
        if after and led_to[n] <= len(after):
            ranks[n] = min(after) - 1
    return ranks


def _evenly(row: Sequence[int]) -> dict[int, float]:
    """Places from 0 to 1, so that rows of different lengths can be compared."""
    return {n: (i + 0.5) / len(row) for i, n in enumerate(row)}


def _mean(values: Sequence[float], otherwise: float = 0.0) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wishes: Sequence[float], pulls: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Places nearest to the wished ones (least squares) with at least these gaps between them.

    Source: pool adjacent violators, Barlow et al. (1972), after the gaps are taken out.
    """
    shifts = [0.0]
    for gap in gaps:
        shifts.append(shifts[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # Place, pull, how many.
    for wish, pull, shift in zip(wishes, pulls, shifts, strict=False):
        x, weight, count = wish - shift, pull, 1
        while blocks and blocks[-1][0] > x:
            before, heavy, many = blocks.pop()
            x = (x * weight + before * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + many
        blocks.append((x, weight, count))
    flat = [x for x, _, count in blocks for _ in range(count)]
    return [x + shift for x, shift in zip(flat, shifts, strict=False)]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
