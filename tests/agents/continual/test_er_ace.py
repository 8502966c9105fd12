"""ER-ACE: new classes compete among themselves, old and new ones in rehearsal alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, Memory, Run, ml
from antelope.agents.continual import ERACE, er_ace
from antelope.agents.continual.context import HIDDEN, Context
from antelope.replay import Space, Spec

from .course import Shallow


class MLP(Shallow):
    width = 32


class Learner(MLP):
    """Has a loss of its own, and counts its forwards while it learns."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.forwards = self.steps = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.forwards += self.training
        return super().forward(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.steps += 1
        return 3 * F.cross_entropy(self(batch.obs), batch.label)


def learnt(path: Path, model: Any = MLP, **settings: Any) -> Run:
    how = {"tasks": 5, "epochs": 2, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=model, strategy="er_ace", path=path, plot=False, progress=False, **how)


class Outputs(nn.Module):
    """A table: the outputs of each row are parameters of their own."""

    def __init__(self, rows: int):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(rows, 10))

    def forward(self, obs: Tensor) -> Tensor:
        return self.table[obs.flatten().long()]


def placed(agent: nn.Module, scenario: str = "class") -> ERACE:
    strategy = ERACE(capacity=100, batch_size=3)
    strategy.context = Context(
        agent,
        Spec(Space((1,)), Space((10,), torch.int64, discrete=True)),
        scenario=scenario,
        classes=list(torch.arange(10).split(2)),
        learn=lambda replay, log: None,
    )
    return strategy


def rows(index: list[int], labels: list[int]) -> Batch:
    label = torch.tensor(labels)
    number = torch.tensor(index)
    return Batch(obs=number[:, None].float(), label=label, task=label // 2, index=number)


def check_loss() -> None:
    """The published loss and its gradient, on outputs that are known."""
    agent = Outputs(6)
    strategy = placed(agent)
    unused = torch.tensor(7.0, requires_grad=True)
    strategy.before_batch(agent, rows([0, 1, 2], [0, 1, 0]))
    batch = strategy.before_batch(agent, rows([3, 4, 5], [4, 5, 5]))
    loss = strategy.after_loss(agent, batch, unused)

    outputs = agent.table.detach().double()
    new = [
        outputs[row, [4, 5]].softmax(0)[label - 4].log() for row, label in ((3, 4), (4, 5), (5, 5))
    ]
    old = [outputs[row].softmax(0)[label].log() for row, label in ((0, 0), (1, 1), (2, 0))]
    expected = -(sum(new) + sum(old)) / 3
    assert loss.item() == pytest.approx(float(expected), rel=1e-5), "The loss is the published one."

    loss.backward()
    assert unused.grad is None, "The model's own loss is replaced."
    gradient = agent.table.grad
    assert gradient is not None
    assert (gradient[3:, [0, 1, 2, 3, 6, 7, 8, 9]] == 0).all(), "New rows push no other class."
    assert (gradient[3:, 4:6] != 0).all(), "New classes compete with each other."
    assert (gradient[:3] != 0).all(), "In rehearsal all classes compete."


def test_the_loss_is_the_published_one() -> None:
    check_loss()


_among, _entropy = er_ace.among, F.cross_entropy


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        pytest.param(er_ace, "among", lambda logits, label: logits, id="mask not applied"),
        pytest.param(
            er_ace,
            "among",
            lambda logits, label: _among(logits, torch.tensor([0, 1, 4, 5])),
            id="classes of the past not masked",
        ),
        pytest.param(
            er_ace.F,
            "cross_entropy",
            lambda logits, label: _entropy(_among(logits, label), label),
            id="rehearsal masked too",
        ),
        pytest.param(
            er_ace.F,
            "cross_entropy",
            lambda logits, label: _entropy(logits, label) * bool((logits == HIDDEN).any()),
            id="rehearsal times zero",
        ),
        pytest.param(Memory, "add", lambda self, batch: None, id="memory never written"),
        pytest.param(
            ERACE, "after_loss", lambda self, agent, batch, loss: loss, id="the model's own loss"
        ),
    ],
)
def test_the_check_objects_to_a_broken_loss(
    where: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError):
        check_loss()


def test_in_the_first_batch_its_classes_alone_compete() -> None:
    agent = Outputs(2)
    strategy = placed(agent)
    batch = strategy.before_batch(agent, rows([0, 1], [3, 3]))
    loss = strategy.after_loss(agent, batch, torch.tensor(0.0))
    assert loss.item() == 0.0  # Class 3 against nothing.


def test_with_the_task_told_only_its_classes_compete_in_rehearsal() -> None:
    agent = Outputs(4)
    strategy = placed(agent, "task")
    strategy.before_batch(agent, rows([0, 1], [0, 1]))
    batch = strategy.before_batch(agent, rows([2, 3], [4, 5]))
    strategy.after_loss(agent, batch, torch.tensor(0.0)).backward()
    assert agent.table.grad is not None
    assert (agent.table.grad != 0).nonzero().tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1], [2, 4], [2, 5], [3, 4], [3, 5]
    ]  # fmt: skip


def test_it_costs_no_forward(tmp_path: Path) -> None:
    agent = learnt(tmp_path, Learner).agent
    assert agent.forwards == agent.steps > 100


def test_earlier_tasks_stay_known_and_less_is_forgotten_than_by_replay(tmp_path: Path) -> None:
    ace = learnt(tmp_path / "ace")
    er = ml(
        model=MLP, strategy="er", tasks=5, epochs=2, batch_size=16, optim="SGD", lr=0.1,
        path=tmp_path / "er", plot=False, progress=False,
    )  # fmt: skip
    assert ace.metrics["accuracy"] > 0.7
    assert ace.metrics["forgetting"] < er.metrics["forgetting"]


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "task"},
        {"scenario": "task", "precision": "16"},
        {"scenario": "domain"},
        {"online": True, "epochs": None},
        {"aug": "RandomHorizontalFlip"},
        {"batch_size": 100, "strategy.batch_size": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [MLP, Learner])
def test_it_is_of_every_scenario(
    settings: dict[str, Any], model: type[nn.Module], tmp_path: Path
) -> None:
    assert learnt(tmp_path, model, **settings).metrics["accuracy"] > 0.4


def test_values_are_refused(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 60)[:, None]
    parts = [(x[:30], x[:30, 0]), (x[30:], x[30:, 0])]
    with pytest.raises(ConfigError, match="er_ace is for classes"):
        learnt(tmp_path, dataset=parts, tasks=None)
