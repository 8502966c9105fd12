"""DER and DER++: the answers of the past are stored as they were given, and held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, Memory, Run, ml
from antelope.agents.continual import DER, DERPP, der
from antelope.agents.continual.context import Context
from antelope.replay import Space, Spec

from .course import Shallow


class MLP(Shallow):
    width = 32


class Learner(MLP):
    """Has a loss of its own, and counts its forwards and losses."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.forwards = self.losses = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.forwards += self.training
        return super().forward(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.losses += 1
        return 3 * F.cross_entropy(self(batch.obs), batch.label)


def learnt(path: Path, strategy: Any, model: Any = MLP, **settings: Any) -> Run:
    how = {"tasks": 5, "epochs": 2, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=model, strategy=strategy, path=path, plot=False, progress=False, **how)


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.agent.parameters()])


class Scaled(nn.Module):
    """Outputs are the inputs times one number, which is easy to follow by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, obs: Tensor) -> Tensor:
        return self.factor * obs


class Stepped:
    """A strategy met step by step: the agent's factor is set before each."""

    def __init__(self, strategy: Any, augmented: Callable[[Tensor], Tensor] | None = None):
        self.strategy, self.agent = strategy, Scaled()
        self.strategy.context = self.context = Context(
            self.agent,
            Spec(Space((2,)), Space((2,), torch.int64, discrete=True)),
            scenario="class",
            classes=[torch.tensor([0]), torch.tensor([1])],
            learn=self.learn,
            augmented=augmented,
        )
        self.met: list[list[int]] = []

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        self.met.append(batch.label.tolist())
        return self.agent(batch.obs).sum()

    def __iter__(self) -> Stepped:
        return self

    def __next__(self) -> Batch:
        return self.batch

    def __call__(self, factor: float, batch: Batch) -> Tensor:
        self.batch = batch
        self.agent.factor.data.fill_(factor)
        loss = self.context.step(self, None)  # type: ignore[arg-type]
        assert loss is not None
        loss = self.strategy.after_loss(self.agent, batch, loss)
        self.context.stepped()
        return loss


def rows(*numbers: int) -> Batch:
    number = torch.tensor(numbers)
    obs = number[:, None] * torch.tensor([1.0, 2.0])
    return Batch(obs=obs, label=number, task=number * 0, index=number)


def check_answers() -> None:
    """What rows were answered when they were new is what is held to."""
    stepped = Stepped(DER(capacity=100, batch_size=2, alpha=0.25))
    assert stepped(3.0, rows(1, 2)).item() == 27, "There is no past yet: 3 (1 + 2 + 2 + 4)."
    loss = stepped(5.0, rows(4))
    # Both rows were answered with 3 x; (5 - 3)^2 times the mean of 1, 4, 4 and 16 is added.
    assert loss.item() == pytest.approx(60 + 0.25 * 4 * 25 / 4), "The published loss."
    loss.backward()
    gradient = stepped.agent.factor.grad
    assert gradient is not None
    assert gradient.item() == pytest.approx(12 + 0.25 * 2 * 2 * 25 / 4), "And its gradient."
    kept = stepped.strategy.memory.all()
    factors = (kept.logits / kept.obs)[:, 0].tolist()
    assert dict(zip(kept.index.tolist(), factors, strict=True)) == {1: 3, 2: 3, 4: 5}
    assert not kept.logits.requires_grad


def check_labels() -> None:
    """DER++ adds the model's own loss of another draw."""
    stepped = Stepped(DERPP(capacity=100, batch_size=2, alpha=0.25, beta=0.5))
    stepped(3.0, rows(1, 2))
    loss = stepped(5.0, rows(4))
    assert loss.item() == pytest.approx(60 + 0.25 * 25 + 0.5 * 45), "The published loss."
    assert sorted(stepped.met[-1]) == [1, 2], "The labels are those of past rows."
    loss.backward()
    gradient = stepped.agent.factor.grad
    assert gradient is not None
    assert gradient.item() == pytest.approx(12 + 0.25 * 25 + 0.5 * 9), "And its gradient."


def check_draws() -> None:
    """The two draws of DER++ are independent."""
    stepped, draws = Stepped(DERPP(capacity=200, batch_size=5)), []
    stepped(1.0, rows(*range(100)))
    logits = stepped.context.logits

    def noted(obs: Tensor) -> Tensor:
        draws.append(obs[:, 0].long().tolist())
        return logits(obs)

    stepped.context.logits = noted  # type: ignore[method-assign]
    stepped(1.0, rows(100))
    assert len(draws) == 2, "The batch, and the rows whose answers are held to."
    assert set(draws[1]) != set(stepped.met[-1]), "The draws are different ones."


def check_every_draw() -> None:
    """Both draws are of so many different rows of the whole memory, and others in each step."""
    stepped = Stepped(DERPP(capacity=200, batch_size=5))
    stepped(1.0, rows(*range(40)))
    answered: list[list[int]] = []
    logits = stepped.context.logits

    def noted(obs: Tensor) -> Tensor:
        answered.append(obs[:, 0].long().tolist())
        return logits(obs)

    stepped.context.logits = noted  # type: ignore[method-assign]
    stepped.met.clear()
    steps = 60
    for step in range(steps):
        stepped(1.0, rows(100 + step))
    # Of a step: the batch's outputs and those of the first draw; the batch's loss and the second's.
    for draws in (answered[1::2], stepped.met[1::2]):
        assert len(draws) == steps
        assert {len(set(draw)) for draw in draws} == {5}, "So many rows, all of them different."
        assert len({tuple(sorted(draw)) for draw in draws}) > steps / 2, "Each draw is another."
        met = set(range(40)) & {row for draw in draws for row in draw}
        assert len(met) > 30, "All of the memory."
    same = [set(a) == set(b) for a, b in zip(answered[1::2], stepped.met[1::2], strict=True)]
    assert not any(same), "The draws are independent."


@pytest.mark.parametrize("check", [check_answers, check_labels, check_draws, check_every_draw])
def test_past_answers_are_held_to(check: Callable[[], None]) -> None:
    check()


_add, _sample = Memory.add, Memory.sample
_rehearsal = DERPP.rehearsal


def _of_now(self: Any, rows: int) -> Tensor:
    past = self.memory.sample(rows)
    answers = self.context.logits(past.obs)
    return self.alpha * F.mse_loss(answers, answers.detach())


def _first(self: Memory, n: int, whole: bool = False) -> Batch:
    held = self.all()
    return held[:n]


@pytest.mark.parametrize(
    ("check", "where", "name", "broken"),
    [
        pytest.param(
            check_answers,
            Memory,
            "add",
            lambda self, batch, logits: None,
            id="memory never written",
        ),
        pytest.param(check_answers, DER, "rehearsal", _of_now, id="the teacher is the student"),
        pytest.param(
            check_answers,
            DER,
            "rehearsal",
            lambda self, rows: 0 * _of_now(self, rows),
            id="penalty times zero",
        ),
        pytest.param(
            check_answers,
            Memory,
            "add",
            lambda self, batch, logits: _add(self, batch, logits=logits.softmax(-1)),
            id="probabilities instead of outputs",
        ),
        pytest.param(
            check_answers,
            der.F,
            "mse_loss",
            lambda a, b: (a - b).square().sum(),
            id="sum instead of mean",
        ),
        pytest.param(check_labels, DERPP, "rehearsal", DER.rehearsal, id="without labels"),
        pytest.param(
            check_labels,
            DERPP,
            "rehearsal",
            lambda self, rows: _rehearsal(self, rows) - DER.rehearsal(self, rows),
            id="without answers",
        ),
        pytest.param(check_draws, Memory, "sample", _first, id="one draw for both"),
        pytest.param(check_every_draw, Memory, "sample", _first, id="always the first rows"),
        pytest.param(
            check_every_draw,
            DERPP,
            "rehearsal",
            lambda self, rows: (
                DER.rehearsal(self, rows) + self.context.loss(self.memory.all()[:rows])
            ),
            id="the labels of the first rows",
        ),
    ],
)
def test_the_checks_object_to_a_broken_rehearsal(
    check: Callable[[], None],
    where: Any,
    name: str,
    broken: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError):
        check()


def test_rows_are_kept_as_they_were_and_augmented_anew() -> None:
    stepped = Stepped(DER(capacity=100, alpha=1.0), augmented=lambda raw: raw + 1000)
    new = rows(1, 2)
    new["raw"], new["obs"] = new.obs, new.obs + 500
    stepped(1.0, new)
    kept = stepped.strategy.memory.all()
    assert torch.equal(kept.raw, new.raw)
    assert torch.equal(kept.logits, new.obs)  # What was answered, to what was shown.
    # The rows are shown as raw + 1000, and held to the answers to raw + 500.
    assert stepped(1.0, new).item() == pytest.approx(float(new.obs.sum()) + 500**2)


@pytest.mark.parametrize(
    "strategy", [DER(alpha=0.0), DERPP(alpha=0.0, beta=0.0)], ids=["der", "derpp"]
)
def test_without_strength_it_is_naive_to_the_bit(strategy: Any, tmp_path: Path) -> None:
    ends = [learnt(tmp_path / str(s), s) for s in ("naive", strategy)]
    assert torch.equal(weights(ends[0]), weights(ends[1]))


def test_answers_alone_are_der(tmp_path: Path) -> None:
    both = [
        learnt(tmp_path / type(s).__name__, s, train_steps=2, epochs=None, tasks=1)
        for s in (DER(alpha=0.5), DERPP(alpha=0.5, beta=0.0))
    ]
    assert torch.equal(weights(both[0]), weights(both[1]))


@pytest.mark.parametrize(("name", "more"), [("der", 1), ("derpp", 2)])
def test_the_new_rows_cost_no_second_forward(name: str, more: int, tmp_path: Path) -> None:
    agent = learnt(tmp_path, name, Learner, train_steps=4, epochs=None).agent
    steps = 5 * 4
    assert agent.forwards == steps + more * (steps - 1)
    assert agent.losses == steps + (more - 1) * (steps - 1)


@pytest.mark.parametrize("name", ["der", "derpp"])
def test_earlier_tasks_stay_known(name: str, tmp_path: Path) -> None:
    run = learnt(tmp_path, name)
    assert run.accuracy_matrix[-1, 0] > 0.5
    assert run.metrics["accuracy"] > 0.6


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "task"},
        {"scenario": "domain"},
        {"online": True, "epochs": None},
        {"aug": "RandomHorizontalFlip"},
        {"strategy.batch_size": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [MLP, Learner])
@pytest.mark.parametrize("name", ["der", "derpp"])
def test_it_is_of_every_scenario(
    name: str, settings: dict[str, Any], model: type[nn.Module], tmp_path: Path
) -> None:
    assert learnt(tmp_path, name, model, **settings).metrics["accuracy"] > 0.35


@pytest.mark.parametrize("name", ["der", "derpp"])
def test_values_are_held_to_as_outputs_are(name: str, tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 60)[:, None]
    parts = [(x[:30], x[:30, 0] ** 2), (x[30:], -x[30:, 0])]
    how = {"tasks": None, "dataset": parts, "epochs": 60, "optim": "Adam", "lr": 0.01}
    run = learnt(tmp_path, name, **how)
    assert run.accuracy_matrix[-1, 0] > 0.3  # The share of variance that is explained.


def test_it_draws_from_streams_of_its_own() -> None:
    stepped, before = Stepped(DERPP(capacity=4)), torch.get_rng_state()
    for number in range(20):
        stepped(1.0, rows(number, number + 1))
    assert torch.equal(before, torch.get_rng_state())
