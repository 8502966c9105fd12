"""Places boxes horizontally: near their neighbours above and below, and apart from those beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .geometry import PADDING
from .rows import SWEEPS, Rows, Vertex

_APART = 16.0  # Between neighbours in a row.
_FIRM = 1000.0  # Pull of a group's side to its own place: far above any arrow's, so that sides hardly move.


@dataclass
class _Place:
    """Something that takes up room in a row: a vertex, or one side of a group."""

    vertex: Vertex | None
    left: float
    right: float
    wish: float
    pull: float


class Spacing(Rows):
    """Rows in which every vertex has an `x`, once `spread` has been called."""

    def spread(self) -> None:
        """Set the x of every vertex as near to its neighbours' as the others in its row allow."""
        for row in self.rows:
            x = 0.0
            for n in row:
                self.vertices[n].x = x + self.vertices[n].left
                x += self.vertices[n].left + self.vertices[n].right + _APART
        for sweep in range(2 * SWEEPS):
            self._sweep({}, downwards=sweep % 2 == 1)
        for sweep in range(SWEEPS):
            self._sweep(self.sides(), downwards=sweep % 2 == 1)
        self._sweep(self.sides(), downwards=True, only=self._labels_of_short_links())

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
        """The mean x of a vertex's neighbours, weighted by their pull, and the total pull."""
        vertex = self.vertices[n]
        near = near or vertex.up + vertex.down
        pull = sum(p for _, p in near)
        if not near:
            return vertex.x, 0.1
        return sum(self.vertices[m].x * p for m, p in near) / pull, pull

    def _labels_of_short_links(self) -> set[int]:
        return {chain[1] for chain in self.chains if len(chain) == 3}

    def sides(self) -> dict[str, tuple[float, float]]:
        """Left and right border of every group that has a name, around all that is in it."""
        sides: dict[str, tuple[float, float]] = {}
        for name in sorted(self.spans(), key=len, reverse=True):  # Inner ones first.
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


def _gap(a: _Place, b: _Place) -> float:
    """The least distance between the anchors of two neighbours, in points."""
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
