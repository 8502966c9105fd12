"""A module called with other weights: one under two names, and weights of two modules."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antelope import ml
from antelope.agents.continual.substitution import call_with


class Shared(nn.Module):
    """A layer under two names, a weight in two layers, and statistics under two names."""

    def __init__(self, in_features: int = 4, out_features: int = 3) -> None:
        super().__init__()
        self.a = nn.Linear(in_features, in_features)
        self.b = self.a
        self.tied = nn.Linear(in_features, in_features)
        self.tied.weight = self.a.weight
        self.norm = nn.BatchNorm1d(in_features)
        self.again = self.norm
        self.head = nn.Linear(in_features, out_features)
        self.fails = False

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.again(self.tied(self.b(torch.tanh(self.a(self.norm(obs))))))
        if self.fails:
            raise RuntimeError("no")
        out: Tensor = self.head(hidden)
        return out

    def learn(self, replay: object) -> Tensor:
        batch = next(replay)  # type: ignore[call-overload]
        return F.cross_entropy(self(batch.obs), batch.label)


def other_weights(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: x + 0.1 if x.is_floating_point() else x for name, x in named}


def test_every_place_has_the_other_weights_and_its_own_afterwards() -> None:
    model = Shared().eval()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    weights, obs = other_weights(model), torch.randn(5, 4)
    copied = copy.deepcopy(model)
    copied.load_state_dict(
        {name: (x + 0.1 if x.is_floating_point() else x) for name, x in model.state_dict().items()}
    )
    assert torch.equal(call_with(model, weights, (obs,)), copied(obs))
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert model.a.weight is model.tied.weight
    assert isinstance(model.a.weight, nn.Parameter)


def test_after_an_error_too() -> None:
    model = Shared().eval()
    model.fails = True
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="no"):
        call_with(model, other_weights(model), (torch.randn(5, 4),))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert all(isinstance(p, nn.Parameter) for p in model._modules["a"]._parameters.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", ["ewc", "ewc_online", "mas", "si", "lwf", "pnn"])
def test_strategies_serve_a_shared_module(strategy: str, tmp_path: Path) -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    if strategy == "pnn":
        model: type[nn.Module] = TwoNames
    else:
        model = Shared
    run = ml(
        model=model,
        dataset=(x, y),
        tasks=2,
        epochs=10,
        lr=1e-2,
        batch_size=16,
        strategy=strategy,
        progress=False,
        plot=False,
        path=tmp_path,
    )
    assert run.metrics["task_il_accuracy"] > 0.75  # Chance is one half.
    alive = run.agent(torch.randn(3, 6).to(next(run.agent.parameters()).device))
    assert torch.isfinite(alive).all()


class TwoNames(nn.Module):
    """One layer under two names, called once."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.a = nn.Linear(in_features, 16)
        self.b = self.a
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.b(obs)))
        return out
