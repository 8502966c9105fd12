"""Nothing is drawn over anything else, whichever way it is laid out."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antelope.launcher.pictures.model import layout
from antelope.launcher.pictures.model.geometry import Item, Layout, Link

CHAIN = [Item(100, 40), Item(60, 20), Item(100, 40)]
LINKS = [Link(0, 1, 30, 10), Link(1, 2, 30, 10), Link(0, 2, 30, 10)]


def rectangles(found: Layout, items: list[Item], links: list[Link]) -> list[tuple[float, ...]]:
    sizes = [(i.width, i.height) for i in items] + [(k.width, k.height) for k in links]
    centres = [*found.centres, *found.labels]
    return [
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for (x, y), (w, h) in zip(centres, sizes, strict=True)
    ]


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Item], list[Link]]:
    groups = [(), ("a",), ("a", "a.b"), ("c",)]
    size = st.floats(10, 150)
    count = draw(st.integers(1, 9))
    items = [Item(draw(size), draw(size), draw(st.sampled_from(groups))) for _ in range(count)]
    node = st.integers(0, count - 1)
    ways = draw(st.lists(st.tuples(node, node), max_size=14, unique=True))
    return items, [Link(tail, head, draw(st.floats(5, 60)), 10.0) for tail, head in ways]


@settings(max_examples=40)
@given(graphs())
def test_boxes_and_labels_keep_apart(drawn: tuple[list[Item], list[Link]]) -> None:
    items, links = drawn
    found = layout.place(items, links, {"a": (20.0, 10.0), "a.b": (20.0, 10.0), "c": (20.0, 10.0)})
    placed = rectangles(found, items, links)
    for a, b in combinations(placed, 2):
        assert not overlap(a, b)
    for x0, y0, x1, y1 in [*placed, *found.groups.values()]:
        assert min(x0, y0) >= 0
        assert x1 <= found.width
        assert y1 <= found.height


@settings(max_examples=40)
@given(graphs())
def test_a_border_is_around_what_is_in_it_and_nothing_else(
    drawn: tuple[list[Item], list[Link]],
) -> None:
    items, links = drawn
    found = layout.place(items, links, {"a": (20.0, 10.0), "a.b": (20.0, 10.0), "c": (20.0, 10.0)})
    for name, border in found.groups.items():
        for item, placed in zip(items, rectangles(found, items, links), strict=False):
            if name in item.group:
                assert border[0] <= placed[0] <= placed[2] <= border[2]
                assert border[1] <= placed[1] <= placed[3] <= border[3]
            else:
                assert not overlap(border, placed)


def test_a_chain_is_straight_and_goes_down() -> None:
    found = layout.place(CHAIN, LINKS[:2], {})
    assert len({round(x, 6) for x, _ in found.centres}) == 1
    assert [y for _, y in found.centres] == sorted(y for _, y in found.centres)


def test_arrows_go_from_the_lower_side_of_one_to_the_upper_side_of_the_other() -> None:
    found = layout.place(CHAIN, LINKS, {})
    for link, path in zip(LINKS, found.paths, strict=True):
        (x0, y0), (x1, y1) = found.centres[link.tail], found.centres[link.head]
        assert path[0] == pytest.approx((x0, y0 + CHAIN[link.tail].height / 2))
        assert path[-1][1] == pytest.approx(y1 - CHAIN[link.head].height / 2)
        assert abs(path[-1][0] - x1) <= CHAIN[link.head].width / 2
        assert len(path) % 3 == 1


def test_an_arrow_round_a_box_does_not_go_through_it() -> None:
    found = layout.place(CHAIN, LINKS, {})
    (x, y), item = found.centres[1], CHAIN[1]
    box = (x - item.width / 2, y - item.height / 2, x + item.width / 2, y + item.height / 2)
    for px, py in found.paths[2]:
        assert not overlap(box, (px, py, px, py))


def test_arrows_that_need_not_cross_do_not() -> None:
    items = [Item(50, 20) for _ in range(8)]
    links = [Link(n, 7 - n, 10, 10) for n in range(4)]
    found = layout.place(items, links, {})
    above = sorted(range(4), key=lambda n: found.centres[n])
    assert [found.centres[7 - n][0] for n in above] == sorted(
        found.centres[7 - n][0] for n in above
    )


def test_a_short_branch_is_beside_what_reads_it() -> None:
    ways = [(0, 1), (1, 2), (2, 5), (3, 4), (4, 5)]
    items = [Item(50, 20) for _ in range(6)]
    found = layout.place(items, [Link(a, b, 10, 10) for a, b in ways], {})
    height = [y for _, y in found.centres]
    assert height[4] == height[2]
    assert height[3] == height[1]


def test_an_arrow_back_ends_at_its_head() -> None:
    links = [Link(0, 1, 10, 10), Link(1, 0, 10, 10), Link(1, 1, 10, 10)]
    items = CHAIN[:2]
    found = layout.place(items, links, {})
    assert found.paths[1][0][1] > found.paths[1][-1][1]
    assert found.paths[2][0] != found.paths[2][-1]


def test_a_group_with_a_border_holds_its_own() -> None:
    items = [Item(50, 20), Item(80, 20, ("g",)), Item(80, 20, ("g",)), Item(60, 20)]
    links = [Link(0, 1, 10, 10), Link(1, 2, 10, 10), Link(0, 3, 10, 10)]
    assert list(layout.place(items, links, {"g": (30.0, 10.0)}).groups) == ["g"]
