"""The networks that Mammoth's models use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import ml
from antelope.launcher.mammoth import (
    BaseMNISTMLP,
    MammothBackbone,
    bn_track_stats,
    resnet18,
)
from antelope.launcher.mammoth.model import Sgd

QUICK: dict[str, Any] = {"dataset": "Digits", "tasks": 5, "train_steps": 4, "batch_size": 16}


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_gradients_can_be_set_in_a_row() -> None:
    net = BaseMNISTMLP(6, 3)
    net(torch.ones(2, 6)).sum().backward()
    grads = net.get_grads()
    net.set_grads(grads * 2)
    torch.testing.assert_close(net.get_grads(), grads * 2)
    torch.testing.assert_close(net.fc1.weight.grad, 2 * grads[:600].view(100, 6))


def test_a_residual_network_gives_its_maps() -> None:
    net = resnet18(7, 4)
    out, maps = net(torch.rand(2, 3, 16, 16), returnt="full")
    assert out.shape == (2, 7)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (4, 16, 16),
        (4, 16, 16),
        (8, 8, 8),
        (16, 4, 4),
        (32, 2, 2),
    ]
    assert all(bool((m >= 0).all()) for m in maps)
    net.set_return_prerelu()
    before = net(torch.rand(2, 3, 16, 16), returnt="full")[1]
    assert all(bool((m < 0).any()) for m in before)
    assert net.features(torch.rand(2, 3, 16, 16)).shape == (2, net.feature_dim)


def test_a_backbone_of_ones_own_has_what_models_ask_of_it() -> None:
    class Small(MammothBackbone):
        def __init__(self) -> None:
            super().__init__(device="cpu")
            self.body, self.classifier = nn.Linear(64, 8), nn.Linear(8, 10)

        def forward(self, x: Tensor, returnt: str = "out") -> Any:  # type: ignore[override]
            features = self.body(x.flatten(1))
            return features if returnt == "features" else self.classifier(features)

    net = Small()
    assert net.device == torch.device("cpu")
    assert net.features(torch.ones(1, 64)).shape == (1, 8)
    net.set_params(torch.ones_like(net.get_params()))
    assert bool((net.get_params() == 1).all())
    made = ml(model={"_target_": Sgd, "backbone": net}, progress=False, plot=False, **QUICK)
    assert made.agent.net is net


@pytest.mark.parametrize("track", [True, False])
def test_batch_normalisation_may_look_without_learning(track: bool) -> None:
    layer = nn.BatchNorm1d(2)
    with bn_track_stats(layer, track):
        layer(torch.ones(4, 2) + torch.rand(4, 2))
    assert bool((layer.running_mean == 0).all()) is not track
    assert layer.track_running_stats
