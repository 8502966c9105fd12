"""The picture is a readable file with everything in it, whatever things are called."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from antelope.launcher.pictures.model.draw import draw
from antelope.launcher.pictures.model.graph import Edge, Graph, Node
from antelope.launcher.pictures.model.render import render_model, trace

GRAPH = Graph(
    name="model",
    total=200,
    trainable=150,
    nodes=[
        Node("input", "screen", results=["[2, 4]"]),
        Node("box", "Linear", "body.0", detail="4 → 8", parameters=150, share=0.75),
        Node("box", "GRUCell", "body.1", parameters=50, share=0.25, times=3, frozen=True),
        Node("op", "+"),
        Node("output", "move", results=["Categorical [2, 8]"]),
    ],
    edges=[
        Edge(0, 1, ["[2, 4]"]),
        Edge(1, 2, ["[2, 8]", "[1, 8]", "[3, 8]", "[4, 8]"]),
        Edge(2, 2, ["[2, 8]"]),
        Edge(1, 3, ["[2, 8]\nrelu"]),
        Edge(2, 3, ["[5, 8]"], lost=True),
        Edge(3, 4, ["[2, 8]"]),
    ],
    groups={"": "Net", "body": "Body"},
    unused=[Node("box", "Linear", "spare", parameters=7)],
)
for _node in GRAPH.nodes[1:3]:
    _node.groups = ("body",)


def words(path: Path) -> list[str]:
    """All that is written in an SVG."""
    texts = ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def test_all_that_is_known_is_written(tmp_path: Path) -> None:
    svg, png = draw(GRAPH, tmp_path, title="A title")
    assert png.read_bytes().startswith(b"\x89PNG")
    said = words(svg)
    for word in (
        *("A title", "200 parameters, 150 of them trained, 2 boxes", "not used: spare"),
        *("screen", "[2, 4]", "Linear", "body.0", "4 → 8", "150 · 75.0%", "GRUCell", "x3"),
        *("50 · 25.0%, frozen", "relu", "+", "move", "Categorical [2, 8]", "body", "Body"),
        "… 2 more",
    ):
        assert word in said, word
    assert any(word.startswith("dashed: values left torch") for word in said)


def test_nothing_is_said_of_dashes_where_there_are_none(tmp_path: Path) -> None:
    graph = Graph("model", 200, 200, GRAPH.nodes[:2], GRAPH.edges[:1], GRAPH.groups, [])
    said = words(draw(graph, tmp_path, title="T")[0])
    assert "200 parameters, 1 box" in said
    assert not [word for word in said if word.startswith(("dashed", "not used"))]


@pytest.mark.parametrize("key", ["$x_1$", "a<b>&", "{}%", '"\\', "\u4f60\u597d", "a" * 300, " "])
def test_names_of_any_kind_are_written_as_they_are(tmp_path: Path, key: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleDict({key: nn.Linear(4, 2)})

        def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
            return {key: self.heads[key](obs[key])}

    paths = render_model(Net(), ({key: torch.ones(2, 4)},), tmp_path)
    assert [path.name for path in paths] == ["model.txt", "model.svg", "model.png"]
    assert words(paths[1]).count(key.strip()) == 2 or not key.strip()


def test_long_networks_have_a_picture_that_can_be_opened(tmp_path: Path) -> None:
    net = nn.Sequential(*(nn.ReLU() for _ in range(60)))
    png = draw(trace(net, (torch.ones(2, 4),)), tmp_path, title="Long")[1]
    width, height = (int.from_bytes(png.read_bytes()[at : at + 4], "big") for at in (16, 20))
    assert 0 < width < height < 2**15
