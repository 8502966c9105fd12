"""A module called with other weights: one under two names, and weights of two modules."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from antelope import ConfigError, ml
from antelope.agents.continual import NAMES
from antelope.agents.continual.context import Context
from antelope.agents.continual.substitution import call_with
from antelope.replay import Space, Spec


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


class TwoNames(nn.Module):
    """One layer under two names, called once."""

    def __init__(self, in_features: int = 6, out_features: int = 4) -> None:
        super().__init__()
        self.a = nn.Linear(in_features, 16)
        self.b = self.a
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.b(obs)))
        return out


class Twice(nn.Module):
    """A layer that is called twice, and one whose weight is the first one's."""

    def __init__(self, in_features: int = 6, out_features: int = 4) -> None:
        super().__init__()
        self.a, self.mid = nn.Linear(in_features, 16), nn.Linear(16, 16)
        self.back = nn.Linear(16, 16)
        self.back.weight = self.mid.weight
        self.listed = [self.mid]
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.mid(self.listed[0](torch.relu(self.a(obs))).relu())
        out: Tensor = self.head(self.back(hidden.relu()).relu())
        return out


class Recurrent(nn.Module):
    """Whose layer keeps lists of its weights beside them."""

    def __init__(self, in_features: int = 6, out_features: int = 4) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(obs.view(len(obs), -1, 2))[0][:, -1])
        return out


class Normed(nn.Module):
    """Weights that are computed from others, in both of torch's ways; one is normed as it is called."""

    def __init__(self, in_features: int = 6, out_features: int = 4) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Linear(in_features, 16))
        self.b = parametrizations.spectral_norm(nn.Linear(16, 16))
        self.c = nn.utils.spectral_norm(nn.Linear(16, 16))
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.head(self.c(self.b(self.a(obs).relu()).relu()).relu())
        return out


MODELS: list[type[nn.Module]] = [Shared, TwoNames, Twice, Recurrent, Normed]


@pytest.mark.parametrize("model", MODELS)
def test_a_network_of_before_answers_as_it_did(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    agent, obs = model(6, 4), torch.randn(20, 6)
    spec = Spec(Space((6,)), Space((4,), torch.int64, discrete=True))
    context = Context(
        agent, spec, scenario="class", classes=[torch.arange(4)], learn=lambda *_: None
    )
    optim = torch.optim.SGD([p for p in agent.parameters() if p.requires_grad], 0.1)

    def step() -> None:
        optim.zero_grad()
        F.cross_entropy(agent(obs), torch.arange(20) % 4).backward()
        optim.step()

    step()
    kept, twin = context.snapshot(), model(6, 4).eval()
    twin.load_state_dict(agent.state_dict())
    for _ in range(3):
        step()
    torch.testing.assert_close(context.recall(kept, obs), twin(obs).detach())
    assert not torch.allclose(agent.eval()(obs), twin(obs))


REFUSED = {("packnet", Normed): "parametrized"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", NAMES["strategy"])
def test_every_strategy_serves_shared_and_computed_weights(
    strategy: str, model: type[nn.Module], tmp_path: Path
) -> None:
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    agent = model(6, 4)
    kept = dict(agent.named_parameters())
    settings: dict[str, Any] = {"progress": False, "plot": False, "path": tmp_path, "epochs": 1}
    if strategy == "gdumb":
        settings["strategy.passes"] = 2
    settings |= {"dataset": (x, y), "tasks": 2, "batch_size": 20}

    def train() -> Any:
        return ml(model=agent, strategy=strategy, **settings)

    if (strategy, model) in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[strategy, model]):
            train()
        return
    run = train()
    assert np.isfinite(run.accuracy_matrix).all()
    now = {n: p for n, p in agent.named_parameters() if ".laterals." not in n}
    assert now.keys() == kept.keys()
    assert all(now[name] is parameter for name, parameter in kept.items())
    assert torch.isfinite(agent(x[:3])).all()


@pytest.mark.parametrize("strategy", ["ewc", "ewc_online", "mas", "si", "lwf", "pnn"])
def test_strategies_serve_a_shared_module(strategy: str, tmp_path: Path) -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    run = ml(
        model=Shared,
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
