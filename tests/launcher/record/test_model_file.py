"""`model.safetensors` of a run: the user's module under its own names, without Antelope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import antelope
from antelope import ml

SHORT: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 4, "batch_size": 8}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 10)
        self.register_buffer("unsaved", torch.zeros(3), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.body(obs))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64, bias=False)
        self.last.weight = self.first.weight
        self.again = self.first

    def forward(self, obs: Tensor) -> Tensor:
        return self.again(self.last(obs.flatten(1)))[:, :10]


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10).bfloat16()

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1).bfloat16()).float()


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(10)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))


class Extra(Plain):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class Without(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs.flatten(1)[:, :10]

    def learn(self, replay: Any) -> None:
        next(replay)


class OfItsOwn(Plain):
    """Learns by itself."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def own_file(path: Path) -> Path:
    return max(path.glob("checkpoints/[0-9]*")) / "model.safetensors"


@pytest.mark.parametrize(
    ("model", "more"),
    [
        (Plain, {}),
        (Plain, {"ema": 0.5}),
        (Plain, {"tasks": 2, "strategy": ["er", "ewc"]}),
        (OfItsOwn, {"strategy": "er", "tasks": 2}),
        (Tied, {}),
        (Tied, {"ema": 0.9}),
        (Half, {}),
    ],
)
def test_torch_loads_it_strictly_and_predicts_as_the_run_does(
    model: type[nn.Module], more: dict[str, Any], tmp_path: Path
) -> None:
    run = ml(model=model, **SHORT, **more, path=tmp_path)
    again = model()
    again.load_state_dict(load_file(own_file(tmp_path)), strict=True)
    obs = torch.randn(5, 1, 8, 8)
    assert torch.equal(again.eval()(obs), run.agent(obs))
    assert torch.equal(antelope.load(tmp_path, model=model).agent(obs), run.agent(obs))


def test_in_an_environment_it_is_the_users_policy_alone(tmp_path: Path) -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs)

    quick = {"train_steps": 40, "eval_episodes": 1, "seed_steps": 20}
    run = ml(model=Policy, env="CartPole-v1", **{**SHORT, **quick}, ema=0.5, path=tmp_path)
    again = Policy()
    again.load_state_dict(load_file(own_file(tmp_path)), strict=True)
    obs = torch.randn(3, 4)
    assert torch.equal(again(obs), run.agent(obs))


def test_weights_are_on_disk_once(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 4000), nn.Linear(4000, 10))

        def forward(self, obs: Tensor) -> Tensor:
            return self.layers(obs)

    ml(model=Wide, **SHORT, optim="SGD", path=tmp_path)
    size = sum(p.numel() * 4 for p in Wide().parameters())
    assert size < own_file(tmp_path).stat().st_size < 1.01 * size
    assert (own_file(tmp_path).parent / "tensors.safetensors").stat().st_size < size / 2


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    run = ml(model=Extra, **SHORT, path=tmp_path / "extra")
    state = load_file(own_file(tmp_path / "extra"))
    assert run.agent.state_dict().keys() - state.keys() == {"_extra_state"}
    ml(model=Without, **SHORT, path=tmp_path / "without")
    assert load_file(own_file(tmp_path / "without")) == {}


def test_lazy_layers_are_there_once_they_have_a_shape(tmp_path: Path) -> None:
    ml(model=Lazy, **SHORT, path=tmp_path)
    assert set(load_file(own_file(tmp_path))) == {"layer.weight", "layer.bias"}


def test_other_tools_learn_that_torch_wrote_it(tmp_path: Path) -> None:
    ml(model=Plain, **SHORT, path=tmp_path)
    with safe_open(own_file(tmp_path), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
