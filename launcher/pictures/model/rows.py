"""Assigns boxes to rows, and orders each row, so that few arrows cross.

Source of the method: Sugiyama, Tagawa & Toda (1981), "Methods for visual understanding of
hierarchical system structures": rows by longest path, order within a row by barycentre. Labels of
arrows are things with a place of their own, so that nothing is ever written over something else.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .geometry import LOOP, Group, Item, Link

SWEEPS = 24
_MOST_BENDS = 6000  # Beyond which long arrows go straight, through whatever is there.


@dataclass
class Vertex:
    """An item, a label, or a bend of a long arrow."""

    row: int
    left: float  # From its anchor, where lines meet it.
    right: float
    height: float
    group: Group
    bend: bool = True
    x: float = 0.0
    up: list[tuple[int, float]] = field(default_factory=list)  # Neighbour, and how much it pulls.
    down: list[tuple[int, float]] = field(default_factory=list)


class Rows:
    """Items, labels and the bends of arrows, row by row; `order` sorts the rows."""

    def __init__(
        self,
        items: Sequence[Item],
        links: Sequence[Link],
        names: Mapping[str, tuple[float, float]],
    ) -> None:
        self.items, self.links, self.names = items, links, names
        self.vertices: list[Vertex] = []
        self.chains: list[list[int]] = []  # The vertices of each link, from top to bottom.
        ranks = _ranks(len(items), links)
        ways = {(min(k.tail, k.head), max(k.tail, k.head)) for k in links if k.tail != k.head}
        self.leaving = Counter(first for first, _ in ways)
        self.arriving = Counter(last for _, last in ways)
        for item, rank in zip(items, ranks, strict=True):
            half = item.width / 2
            self.vertices.append(Vertex(2 * rank, half, half, item.height, item.group, False))
        bends = sum(2 * abs(ranks[link.head] - ranks[link.tail]) - 1 for link in links)
        for link in links:
            self._chain(link, ranks, through=bends <= _MOST_BENDS)
        self.rows: list[list[int]] = [[] for _ in range(1 + max(v.row for v in self.vertices))]
        for index, vertex in enumerate(self.vertices):
            self.rows[vertex.row].append(index)

    def order(self) -> None:
        """Sort every row by where its neighbours are, up and down, and keep the best."""
        best, fewest = [row[:] for row in self.rows], self._crossings()
        for sweep in range(SWEEPS):
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

    def spans(self) -> dict[str, tuple[int, int]]:
        """First and last row of every group that has a name."""
        spans: dict[str, tuple[int, int]] = {}
        for vertex in self.vertices:
            for name in vertex.group:
                if name in self.names:
                    first, last = spans.get(name, (vertex.row, vertex.row))
                    spans[name] = (min(first, vertex.row), max(last, vertex.row))
        return spans

    def _chain(self, link: Link, ranks: list[int], *, through: bool) -> None:
        """A vertex in every row between two items; the first of them is the label."""
        if link.tail == link.head:
            self.vertices[link.tail].right += LOOP + link.width
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
            self.vertices.append(Vertex(row, 4.0, width, height, group))
            chain.append(len(self.vertices) - 1)
        chain.append(last)
        # The end with several arrows is the one that bends; long detours leave short arrows straight.
        many, few = self.leaving[first], self.arriving[last]
        weight = 1.0 if len(chain) == 3 else 0.3
        upper_pull = weight * (16.0 if many == 1 else 2.0 if few > 1 else 1.0)
        lower_pull = weight * (16.0 if few == 1 else 2.0 if many > 1 else 1.0)
        for place, (a, b) in enumerate(pairwise(chain)):
            pull = upper_pull if place == 0 else lower_pull if b == last else 16.0
            self.vertices[a].down.append((b, pull))
            self.vertices[b].up.append((a, pull))
        self.chains.append(chain)


def _ranks(count: int, links: Sequence[Link]) -> list[int]:
    """The length of the longest path to each item; then lower ones, where that lengthens no arrow."""
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
