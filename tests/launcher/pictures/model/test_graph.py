"""Which boxes there are, and which arrows between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from antelope.launcher.pictures.model.graph import Graph, Node
from antelope.launcher.pictures.model.render import trace


def name(node: Node) -> str:
    return node.path or node.title


def arrows(graph: Graph, *, lost: bool = False) -> set[tuple[str, str]]:
    """`(from, to)` by path, of those that were followed or those that were not."""
    nodes = graph.nodes
    return {(name(nodes[e.tail]), name(nodes[e.head])) for e in graph.edges if e.lost == lost}


def boxes(graph: Graph) -> list[str]:
    return [node.path for node in graph.nodes if node.kind == "box"]


def box(graph: Graph, path: str) -> Node:
    return next(node for node in graph.nodes if node.path == path)


def label(graph: Graph, tail: str, head: str) -> list[str]:
    nodes = graph.nodes
    return next(
        e.labels for e in graph.edges if (name(nodes[e.tail]), name(nodes[e.head])) == (tail, head)
    )


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.move, self.use = nn.Linear(16, 2), nn.Linear(16, 3)

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        embedding = self.encoder(obs["obs"])
        return {"move": self.move(embedding), "use": self.use(embedding)}


class Critic(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.value = encoder, nn.Linear(16, 1)

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"value": self.value(self.encoder(obs["obs"])).squeeze(-1)}


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy()
        self.critic = Critic(self.policy.encoder)

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**self.policy(obs), **self.critic(obs)}


OBS = {"obs": torch.ones(2, 4)}
X = torch.ones(2, 4)


def test_a_users_classes_are_opened_down_to_torchs() -> None:
    graph = trace(Policy(), (OBS,))
    assert boxes(graph) == ["encoder.0", "encoder.1", "move", "use"]
    assert arrows(graph) == {
        ("obs", "encoder.0"),
        ("encoder.0", "encoder.1"),
        ("encoder.1", "move"),
        ("encoder.1", "use"),
        ("move", "move"),  # The output of the same name.
        ("use", "use"),
    }
    assert label(graph, "encoder.0", "encoder.1") == ["[2, 16]"]
    assert graph.groups == {"": "Policy", "encoder": "Sequential"}


def test_a_shared_encoder_is_one_box_with_two_arrows() -> None:
    graph = trace(ActorCritic(), (OBS,))
    assert boxes(graph).count("policy.encoder.0") == 1
    shared = box(graph, "policy.encoder.0")
    assert shared.also == ["critic.encoder.0"]
    assert shared.times == 2
    assert {("policy.encoder.1", "policy.move"), ("policy.encoder.1", "critic.value")} <= arrows(
        graph
    )
    assert graph.total == 80 + 34 + 51 + 17
    assert sum(node.parameters for node in graph.nodes) == graph.total
    assert sum(node.share for node in graph.nodes) == pytest.approx(1)


def test_tied_weights_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
            self.out.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.words(x))

    graph = trace(Tied(), (torch.zeros(2, 5, dtype=torch.long),))
    assert graph.total == 800
    assert (box(graph, "words").parameters, box(graph, "out").parameters) == (800, 0)
    assert box(graph, "out").shared == 800
    assert ("words", "out") in arrows(graph)
    assert label(graph, "x", "words") == ["[2, 5] int64"]


def test_lstm_gives_its_state() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor, state: Any = None) -> Any:
            y, state = self.lstm(x, state)
            return self.out(y[:, -1]), state

    graph = trace(Net(), (torch.ones(2, 5, 4), (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))))
    assert {("state[0]", "lstm"), ("state[1]", "lstm"), ("lstm", "output[1][0]")} <= arrows(graph)
    assert label(graph, "lstm", "out") == ["[2, 5, 8]\n→ [2, 8]"]


def test_distributions_say_what_they_are() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.logits = nn.Linear(4, 3), nn.Linear(4, 5)
            self.log_std = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Any:
            normal = torch.distributions.Normal(self.mean(x), self.log_std.exp())
            return {
                "steer": torch.distributions.Independent(normal, 1),
                "gear": torch.distributions.Categorical(logits=self.logits(x)),
                "sample": torch.distributions.Categorical(logits=self.logits(x)).sample(),
            }

    graph = trace(Net(), (X,))
    said = {node.title: node.results for node in graph.nodes if node.kind == "output"}
    assert said["steer"] == ["Independent Normal [2, 3]"]
    assert said["gear"] == ["Categorical [2, 5]"]
    assert {("mean", "steer"), ("log_std", "steer"), ("logits", "gear")} <= arrows(graph)
    assert ("logits", "sample") in arrows(graph)
    assert not arrows(graph, lost=True)  # A distribution's own checks are not the model's.
    assert not [node for node in graph.nodes if node.kind == "op"]


def test_lazy_layers_have_the_shape_that_they_take() -> None:
    graph = trace(nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()), (X,))
    assert box(graph, "0").detail == "4 → 3"
    assert (box(graph, "0").title, graph.total) == ("Linear", 15 + 6)


def test_the_branch_that_was_not_taken_is_listed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.a = nn.Linear(4, 1), nn.Linear(4, 2)
            self.b = nn.Sequential(nn.Linear(4, 2), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if self.gate(x).mean() > -1e9 else self.b(x)

    graph = trace(Net(), (X,))
    assert [(node.path, node.parameters) for node in graph.unused] == [("b", 10)]
    assert arrows(graph, lost=True) == {("gate", "a")}
    assert graph.total == 5 + 10 + 10


def test_numbers_that_leave_torch_leave_a_dashed_arrow() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.scale = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = np.tanh(self.first(x).numpy())
            return self.second(torch.from_numpy(hidden)) * self.scale(x).mean().item()

    graph = trace(Net(), (X,))
    assert arrows(graph, lost=True) == {("first", "second"), ("scale", "output")}
    assert {("x", "first"), ("x", "scale"), ("second", "output")} == arrows(graph)


def test_numpy_within_a_leaf_is_the_leafs_own_business() -> None:
    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.sin(x.numpy()))

    graph = trace(nn.Sequential(nn.Linear(4, 4), Sine(), nn.Linear(4, 2)), (X,))
    assert {("0", "1"), ("1", "2")} <= arrows(graph)
    assert not arrows(graph, lost=True)


def test_an_output_that_is_no_tensor_is_shown() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Any:
            return {"score": self.layer(x).mean().item(), "none": None}

    graph = trace(Net(), (X,))
    assert arrows(graph, lost=True) == {("layer", "score")}


def test_operations_that_join_boxes_are_shown_and_others_written_at_the_arrow() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([F.relu(self.a(x)), self.b(x)], -1))

    graph = trace(Net(), (X,))
    assert arrows(graph) == {
        *{("x", "a"), ("x", "b"), ("a", "cat"), ("b", "cat"), ("cat", "c"), ("c", "output")}
    }
    assert label(graph, "a", "cat") == ["[2, 4]\nrelu"]


def test_sums_that_follow_each_other_are_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            total: Any = 0
            for head in self.heads:
                total = total + head(x)
            return total

    graph = trace(Net(), (X,))
    (joined,) = [node for node in graph.nodes if node.kind == "op"]
    assert joined.title == "+"
    assert {(f"heads.{n}", "+") for n in range(3)} <= arrows(graph)


def test_residual_sums_of_one_line_stay_apart() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    graph = trace(Net(), (X,))
    assert sum(node.kind == "op" for node in graph.nodes) == 3
    assert all(edge.tail < edge.head for edge in graph.edges)


def test_a_cell_in_a_loop_is_one_box_with_an_arrow_to_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 8)
            for step in range(x.shape[1]):
                state = self.cell(x[:, step], state)
            return state

    graph = trace(Net(), (torch.ones(2, 5, 4),))
    assert box(graph, "cell").times == 5
    assert ("cell", "cell") in arrows(graph)


def test_identity_and_what_goes_round_it_are_told_apart() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.pass_, self.b = nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            return self.b(self.pass_(hidden)) + hidden

    graph = trace(Net(), (X,))
    assert {("a", "pass_"), ("pass_", "b"), ("a", "+"), ("b", "+")} <= arrows(graph)
    assert ("pass_", "+") not in arrows(graph)


def test_writing_in_place_and_through_a_view_is_followed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.zeros(2, 4)
            both[:, :2] = self.a(x)
            both[:, 2:].copy_(self.b(x))
            return self.c(both)

    graph = trace(Net(), (X,))
    assert {("a", "="), ("b", "="), ("=", "c")} <= arrows(graph)


def test_parameters_of_an_opened_module_are_shown() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place, self.layer = nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)
            self.place.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + self.place)

    graph = trace(Net(), (X,))
    place = box(graph, "place")
    assert (place.kind, place.parameters, place.frozen) == ("parameter", 4, True)
    assert {("place", "+"), ("x", "+"), ("+", "layer")} <= arrows(graph)
    assert graph.trainable == graph.total - 4
    assert [
        graph.nodes.index(place) < e.head for e in graph.edges if graph.nodes[e.tail] is place
    ] == [True]


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_encoder_is_a_box_in_the_users_class(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x))

    graph = trace(Net(), (torch.ones(2, 3, 8),))
    assert boxes(graph) == ["encoder", "head"]
    assert boxes(trace(layer, (torch.ones(2, 3, 8),)))[0] == "self_attn"


def test_a_network_of_a_library_is_opened_only_if_it_is_the_whole_model() -> None:
    images = torch.ones(2, 3, 32, 32)
    graph = trace(torchvision.models.resnet18(num_classes=10), (images,))
    titles = [node.title for node in graph.nodes if node.kind == "box"]
    assert titles == [
        *["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"],
        *["BasicBlock"] * 8,
        *["AdaptiveAvgPool2d", "Linear"],
    ]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = torchvision.models.resnet18(), nn.Linear(1000, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x))

    assert boxes(trace(Net(), (images,))) == ["backbone", "head"]


def test_a_network_of_which_parts_are_used_is_opened() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = torchvision.models.squeezenet1_1(), nn.Linear(512, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone.features(x).mean((2, 3)))

    graph = trace(Net(), (torch.ones(1, 3, 32, 32),))
    assert "backbone.features.0" in boxes(graph)
    assert [node.path for node in graph.unused] == ["backbone.classifier"]


def test_a_tensor_given_twice_comes_from_both() -> None:
    graph = trace(nn.MultiheadAttention(4, 2), (X, X, X))
    assert {edge.tail for edge in graph.edges if edge.head == 3} == {0, 1, 2}


def test_a_leaf_of_the_users_is_a_box() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor, self.weight = 3, nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight * self.factor

    graph = trace(nn.Sequential(Scale(), nn.Linear(4, 2)), (X,))
    assert boxes(graph) == ["0", "1"]
    assert (box(graph, "0").title, box(graph, "0").detail) == ("Scale", "factor 3")


def test_what_is_compiled_is_opened_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self._orig_mod = self.body  # As torch.compile's wrapper has it.

        def forward(self, x: Tensor) -> Tensor:
            return self._orig_mod(x)

    Net.__module__ = "torch._dynamo.eval_frame"
    assert boxes(trace(nn.Sequential(Net()), (X,))) == ["0.body.0", "0.body.1"]


def test_a_parameter_comes_before_the_box_that_reads_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.layer = nn.Parameter(torch.zeros(1, 4)), nn.Linear(4, 2)

        def forward(self) -> Tensor:
            return self.layer(self.query)

    graph = trace(Net(), ())
    assert [node.path for node in graph.nodes] == ["query", "layer", ""]
    assert arrows(graph) == {("query", "layer"), ("layer", "output")}


def test_the_checks_of_a_distribution_are_no_decision_of_the_model() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            torch.distributions.Categorical(logits=self.a(x), validate_args=True)
            return self.b(x)

    assert not arrows(trace(Net(), (X,)), lost=True)
