"""Nothing is drawn over anything else, whichever way it is laid out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antelope.launcher.pictures.model import graphviz, layout
from antelope.launcher.pictures.model.layout import Item, Layout, Link

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


# --- With dot ---

ANSWER: dict[str, Any] = {
    "bb": "0,0,100,144",
    "objects": [
        {"name": "cluster0", "bb": "0,0,90,60"},
        {"name": "n0", "pos": "50,124"},
        {"name": "n1", "pos": "50,20"},
    ],
    "edges": [{"id": "0", "pos": "50,104 50,80 50,60 50,40", "lp": "65,72"}],
}
PAIR = [Item(72, 40), Item(36, 40, ("a.b",))]


def fake_dot(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A program called dot that keeps what it is given, and then does as told."""
    dot = folder / "dot"
    kept = f"import sys; source = sys.stdin.read(); open({str(folder / 'source')!r}, 'w').write(source)"
    dot.write_text(f"#!{sys.executable}\n{kept}\n{code}\n")
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_dot_places_where_it_is_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dot(tmp_path, monkeypatch, f"print({json.dumps(json.dumps(ANSWER))})")
    found = graphviz.place(PAIR, [Link(0, 1, 30, 10)], {"a.b": (40.0, 10.0)})
    assert found is not None
    edge = layout.MARGIN
    assert found.centres == [(50 + edge, 20 + edge), (50 + edge, 124 + edge)]  # Now y goes down.
    assert found.paths == [[(50 + edge, y + edge) for y in (40, 64, 84, 104)]]
    assert found.labels == [(65 + edge, 72 + edge)]
    assert found.groups == {"a.b": (edge, 84 + edge, 90 + edge, 144 + edge)}
    source = (tmp_path / "source").read_text()
    assert "n0 [width=1.0000, height=0.5556];" in source
    assert "subgraph cluster0" in source
    assert 'n0 -> n1 [id="0"' in source
    assert source.count("{") == source.count("}")


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit(1)",
        "print('not json')",
        "print('{}')",
        "print('[]')",
        f"print({json.dumps(json.dumps({**ANSWER, 'edges': []}))})",
        f"print({json.dumps(json.dumps({**ANSWER, 'objects': [{'name': 'n7', 'pos': '1,2'}]}))})",
        "sys.stdout.buffer.write(bytes([255, 254]))",
    ],
)
def test_without_an_answer_of_dot_it_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fake_dot(tmp_path, monkeypatch, code)
    assert graphviz.place(PAIR, [Link(0, 1, 30, 10)], {}) is None


def test_dot_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(graphviz, "_TIMEOUT_S", 0.2)
    begun = time.monotonic()
    assert graphviz.place(PAIR, [Link(0, 1, 30, 10)], {}) is None
    assert time.monotonic() - begun < 20


def test_without_dot_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started something"))
    assert graphviz.place(PAIR, [], {}) is None


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs graphviz")
def test_the_real_dot_understands() -> None:
    items = [Item(100, 40, ('a"\\b',)), Item(60, 20, ('a"\\b',)), Item(100, 40)]
    links = [*LINKS, Link(2, 0, 30, 10), Link(1, 1, 5, 10)]
    found = graphviz.place(items, links, {'a"\\b': (40, 10)})
    assert found is not None
    assert list(found.groups) == ['a"\\b']
    for a, b in combinations(rectangles(found, items, links), 2):
        assert not overlap(a, b)
