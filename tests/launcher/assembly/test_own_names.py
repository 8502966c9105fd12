"""A user's own names stay the user's: whatever attributes a model or a strategy has, it learns as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, Run, Space, Spec, ml
from antelope.agents.traits import Traits
from antelope.launcher.record.offline import check_agent

SHORT: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def layer(*sizes: int) -> nn.Linear:
    """One that takes no part in learning, which would be warned of."""
    return nn.Linear(*sizes).requires_grad_(False)


class Classifier(nn.Module):
    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.layer = nn.Linear(in_features, num_classes)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))


class Q(nn.Module):
    def __init__(self, in_features: int, num_actions: int):
        super().__init__()
        self.q = nn.Linear(in_features, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.q(obs)

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        q = self(batch.obs).gather(-1, batch.action[:, None]).squeeze(-1)
        with torch.no_grad():
            target = batch.reward + batch.discount * self(batch.next_obs).amax(-1)
        return F.mse_loss(q, target)


def fit(model: Any, **settings: Any) -> Run:
    return ml(model=model, **{"dataset": "Digits", "train_steps": 4} | SHORT | settings)


def play(model: Any, **settings: Any) -> Run:
    few = {"env": "CartPole-v1", "seed_steps": 40, "train_steps": 60, "eval_episodes": 1}
    return ml(model=model, **few | SHORT | settings)


def weights(run: Run) -> list[Tensor]:
    """Of the first layer: what else a model holds takes no part."""
    return [next(run.agent.children()).weight]


def named(base: type, **attributes: Any) -> type:
    """The class with attributes set after its constructor, and random numbers left as they were."""

    def __init__(self: Any, **sizes: int) -> None:
        base.__init__(self, **sizes)  # type: ignore[misc]
        for name, value in attributes.items():
            setattr(self, name, value)

    signature = base.__init__  # type: ignore[misc]
    __init__.__wrapped__ = signature  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"__init__": __init__})


OWN = {
    "recurrent": True,
    "by_sequence": True,
    "on_policy": True,
    "decision": layer(2, 2),
    "composition": [1],
    "way": "up",
    "core": layer(2, 2),
    "reads": 0,
    "learns_by": "heart",
    "conditional": True,
    "generates": True,
    "state": 3,
    "spec": "fine",
    "hook": 1,
    "traits": {},
    "setup": lambda: 1 / 0,
    "sample": lambda n: 1 / 0,
    "loss": lambda batch: 1 / 0,
    "task_aware": True,
    "owns": 3,
    "scenarios": 1,
    "compile": lambda optimizer, loss: 1 / 0,
}


def test_ordinary_names_mean_nothing_in_an_environment() -> None:
    plain, own = play(Q), play(named(Q, **OWN))
    assert torch.equal(weights(plain)[0], weights(own)[0])
    assert plain.metrics == own.metrics


def test_ordinary_names_mean_nothing_on_a_data_set() -> None:
    plain, own = fit(Classifier), fit(named(Classifier, **OWN))
    assert torch.equal(weights(plain)[0], weights(own)[0])
    assert plain.metrics == own.metrics


def test_ordinary_names_mean_nothing_in_the_header_and_in_the_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fit(named(Classifier, **OWN), progress=True, render_model=True)
    assert "learns" not in "".join(capsys.readouterr())
    assert "layer" in (run.path / "plots" / "model.txt").read_text()


def test_an_error_in_a_model_is_told_by_the_method_it_is_in() -> None:
    class Fails(Classifier):
        def learn(self, replay: Any) -> Tensor:
            raise RuntimeError("not today")

    with pytest.raises(RuntimeError) as raised:
        fit(named(Fails, learns_by="heart"))
    assert "In Fails.learn, learning step 1." in raised.value.__notes__[0]


DATA: dict[str, Any] = {
    "act": nn.GELU(),
    "observe": layer(2, 2),
    "evaluate": nn.CrossEntropyLoss(),
    "begin_task": layer(2, 2),
    "end_task": layer(2, 2),
    "predict": layer(2, 2),
}


def test_layers_and_data_under_the_names_of_methods_are_layers_and_data() -> None:
    plain, own = play(Q), play(named(Q, **DATA))
    assert torch.equal(weights(plain)[0], weights(own)[0])
    assert plain.metrics == own.metrics
    for value in (torch.relu, F.gelu):
        assert play(named(Q, act=value)).metrics == plain.metrics
    plain = fit(Classifier)
    own = fit(named(Classifier, **DATA, learn=layer(2, 2)))
    assert torch.equal(weights(plain)[0], weights(own)[0])
    assert plain.metrics == own.metrics


def test_a_function_under_the_name_of_a_method_is_one() -> None:
    def push_left(obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.int64)

    assert play(named(Q, act=push_left)).metrics["return"] < 15


def test_a_learning_model_with_a_layer_called_act_and_no_learn_is_the_default_agents() -> None:
    class Net(Q):
        learn = None  # type: ignore[assignment]

    assert play(named(Net, act=nn.ReLU()), train_steps=20, seed_steps=10).metrics["return"] > 0


def test_a_recurrent_model_is_one_by_its_state_alone() -> None:
    class Memory(nn.Module):
        def __init__(self, in_features: int, num_actions: int):
            super().__init__()
            self.cell = nn.GRUCell(in_features, num_actions)
            self.recurrent = False

        def forward(self, obs: Tensor, state: Any = None) -> Any:
            state = self.cell(obs, state)
            return state, state

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            assert batch.obs.dim() == 3
            return self.cell(batch.obs[:, 0]).square().mean()

    assert play(Memory).metrics["return"] > 0


def test_a_strategys_own_names_mean_nothing() -> None:
    class Counts:
        needs_borders = needs_classes = needs_forward = True
        scenarios = 5
        predict = layer(2, 2)

        def setup(self, what: str, how: str) -> None:
            raise AssertionError

        def parameters_used(self) -> None:
            raise AssertionError

        def after_step(self, agent: Any, batch: Any) -> None:
            self.steps = getattr(self, "steps", 0) + 1

    strategy = Counts()
    run = fit(Classifier, tasks=2, online=True, strategy=strategy)
    assert strategy.steps == 8
    assert 0 <= run.metrics["accuracy"] <= 1


def test_what_a_strategy_owns_is_told_by_names() -> None:
    class Owns:
        def after_step(self, agent: Any, batch: Any) -> None: ...

    class Mine(Owns):
        owns = "this"

    class Yours(Owns):
        owns = ("this", "that")

    class Wrong(Owns):
        owns = 3

    with pytest.raises(ConfigError, match="conflict: both own this"):
        fit(Classifier, tasks=2, strategy=[Mine, Yours])
    with pytest.raises(ConfigError, match="`owns` holds 3"):
        fit(Classifier, tasks=2, strategy=Wrong)


class Observes:
    def observe(self, inputs: Tensor, labels: Tensor) -> float:
        self.opt.zero_grad()  # type: ignore[attr-defined]
        loss = self.loss(self.net(inputs), labels)  # type: ignore[attr-defined]
        loss.backward()
        self.opt.step()  # type: ignore[attr-defined]
        return loss.item()


def test_the_parts_of_a_model_that_observes_may_have_any_name() -> None:
    class Named(Observes):
        def __init__(self) -> None:
            self.model, self.train, self.name = layer(2, 3), layer(2, 3), layer(2, 3)
            self._counted, self.act, self.begin_task = 7, nn.GELU(), layer(2, 3)

    run = fit(Named(), tasks=2)
    held = {name for name, _ in run.agent.named_parameters() if name.endswith(".weight")}
    assert {"own_model.weight", "own_train.weight", "own_name.weight"} <= held
    assert run.metrics["accuracy"] > 0


def test_a_train_of_the_users_own_is_refused_because_eval_would_run_it() -> None:
    class Trains(Classifier):
        def train(self, loader: Any) -> None:  # type: ignore[override]
            raise AssertionError

    class Freezes(Classifier):
        def train(self, mode: bool = True) -> Any:
            return super().train(mode)

    with pytest.raises(ConfigError, match=r"Trains.train\(self, loader.*Give the method another"):
        fit(Trains)
    assert fit(Freezes).metrics["accuracy"] > 0


def test_compile_is_torchs_also_where_a_model_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Compiles(Classifier):
        def compile(self, optimizer: Any, loss: Any) -> None:  # type: ignore[override]
            raise AssertionError

    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", compiled.append)
    run = fit(Compiles, compile=True)
    assert compiled == [run.agent]


def test_what_learns_on_policy_is_told_by_traits_alone() -> None:
    agent = Q(4, 2)
    agent.on_policy = True
    choices = Space((2,), torch.int64, low=0, high=1, discrete=True)
    check_agent(agent, Spec(Space((4,)), choices))  # May learn offline.
    agent.antelope_traits = Traits(on_policy=True)
    with pytest.raises(ConfigError, match="Q learns on-policy"):
        check_agent(agent, Spec(Space((4,)), choices))
