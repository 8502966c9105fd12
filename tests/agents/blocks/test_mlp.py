"""Linear layers: their widths, and what they are given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from antelope.agents.blocks import MLP
from antelope.replay import ConfigError


def widths(model: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


def test_hidden_is_a_list_of_widths_or_one() -> None:
    assert widths(MLP(6, 2)) == [(6, 256), (256, 256), (256, 2)]
    assert widths(MLP(6, 2, hidden=[5, 4, 3])) == [(6, 5), (5, 4), (4, 3), (3, 2)]
    assert widths(MLP(6, 2, hidden=5)) == [(6, 5), (5, 2)]
    assert widths(MLP(6, 2, hidden=())) == [(6, 2)]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_observation_may_be_a_single_number(shape: tuple[int, ...]) -> None:
    model = MLP(1, 3)
    obs = torch.randn(4, *shape)
    torch.testing.assert_close(model(obs), model(obs.reshape(4, 1)))


def test_activations_are_classes_or_names() -> None:
    for activation in (nn.Tanh, "Tanh"):
        model = MLP(1, 1, hidden=(2, 2), activation=activation)
        assert sum(isinstance(module, nn.Tanh) for module in model) == 2
    for name in ("Linear", "Tahn", "modules"):
        with pytest.raises(ConfigError, match=f"no activation `{name}`"):
            MLP(1, 1, activation=name)


def test_no_activation_follows_the_output() -> None:
    assert isinstance(MLP(3, 2)[-1], nn.Linear)
