"""GDumb: the stream fills a balanced memory and teaches nothing; the memory is learnt from scratch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, Memory, Run, ml
from antelope.agents.continual import GDumb
from antelope.agents.continual.context import Context
from antelope.replay import Space, Spec

from .course import Shallow


class MLP(Shallow):
    """With a layer whose buffers move in every forward."""

    width, norm = 32, True


class Learner(MLP):
    """Has a loss of its own."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label, label_smoothing=0.1)


def learnt(path: Path, strategy: Any, model: Any = MLP, **settings: Any) -> Run:
    how = {"tasks": 5, "epochs": 1, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=model, strategy=strategy, path=path, plot=False, progress=False, **how)


def weights(agent: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in agent.state_dict().values()])


class Stream:
    """A run by hand: two classes a task, and an optimiser that moves whatever has a gradient."""

    def __init__(self, strategy: GDumb, seed: int = 0):
        torch.manual_seed(0)
        self.agent, self.strategy = MLP(4, 10), strategy
        strategy.context = Context(
            self.agent,
            Spec(Space((4,)), Space((10,), torch.int64, discrete=True)),
            scenario="class",
            classes=list(torch.arange(10).split(2)),
            learn=self.learn,
            seed=seed,
        )
        self.optimizer = torch.optim.SGD(
            self.agent.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
        )
        # Momentum from before must not move anything either.
        F.cross_entropy(self.agent(torch.randn(8, 4)), torch.arange(8)).backward()
        self.optimizer.step()

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self.agent(batch.obs), batch.label)

    def begin(self, task: int) -> None:
        self.strategy.context.task = task
        self.strategy.begin_task(self.agent, self)  # type: ignore[arg-type]

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        self.strategy.context.loss(batch).backward()
        self.strategy.after_backward(self.agent)
        self.optimizer.step()
        self.strategy.after_step(self.agent, batch)

    def task(self, task: int, steps: int = 5) -> None:
        self.begin(task)
        for step in range(steps):
            self.step(rows(task, step))

    def end(self) -> None:
        self.strategy.end_task(self.agent, self)  # type: ignore[arg-type]


def rows(task: int, step: int) -> Batch:
    drawn = torch.Generator().manual_seed(100 * task + step)
    label = 2 * task + torch.randint(2, (12,), generator=drawn)
    obs = torch.randn(12, 4, generator=drawn) + label[:, None]
    index = torch.arange(12) + 1000 * task + 12 * step
    return Batch(obs=obs, label=label, task=label // 2, index=index)


def check_stream_teaches_nothing() -> None:
    """Neither weights nor statistics move before the end of a task, whatever the optimiser."""
    stream = Stream(GDumb(capacity=40, passes=2))
    for task in range(2):
        before = weights(stream.agent)
        stream.task(task)
        assert torch.equal(weights(stream.agent), before), f"Task {task} has moved the agent."
        stream.end()
        assert not torch.equal(weights(stream.agent), before), "The memory is learnt."


def check_memory_is_balanced() -> None:
    """Equally many rows of each class, of those that went by."""
    strategy = GDumb(capacity=40, passes=1)
    stream = Stream(strategy)
    for task in range(3):
        stream.task(task, steps=20)
    kept = strategy.memory.all()
    counts = kept.label.bincount(minlength=10)
    assert len(kept) == 40
    assert (counts[:6] - 40 / 6).abs().max() < 1.5
    assert counts[6:].sum() == 0


def check_start() -> None:
    """Training starts from the first weights: what was learnt between makes no difference."""
    ends = []
    for passes in (1, 3):
        strategy = GDumb(capacity=40, passes=passes)
        stream = Stream(strategy)
        stream.task(0)
        stream.end()
        stream.task(1)
        strategy.passes = 4
        strategy.orders.manual_seed(5)
        stream.end()
        ends.append(weights(stream.agent))
    assert torch.equal(*ends)


def check_training() -> None:
    """What is learnt is what plain SGD with warm restarts learns of the memory."""
    strategy = GDumb(capacity=24, passes=8, batch_size=10, lr=0.5, min_lr=0.01, clip_grad=0.5)
    stream = Stream(strategy)
    stream.begin(0)
    first = {name: tensor.clone() for name, tensor in stream.agent.state_dict().items()}
    for step in range(5):
        stream.step(rows(0, step))
    strategy.orders.manual_seed(3)
    stream.end()

    kept, orders = strategy.memory.all(), torch.Generator().manual_seed(3)
    agent = MLP(4, 10)
    agent.load_state_dict(first)
    optimizer = torch.optim.SGD(agent.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-6)
    for lr in published_rates(8, 0.5, 0.01):
        optimizer.param_groups[0]["lr"] = lr
        order = torch.randperm(24, generator=orders)
        for part in (order[:8], order[8:16], order[16:]):
            optimizer.zero_grad()
            F.cross_entropy(agent(kept.obs[part]), kept.label[part]).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    torch.testing.assert_close(weights(stream.agent), weights(agent))


def published_rates(passes: int, lr: float, min_lr: float) -> list[float]:
    """As the authors get them, with torch's scheduler: it waits for two passes."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=1, T_mult=2, eta_min=min_lr
    )
    rates = [lr / 10, lr]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # There is no step before the scheduler's.
        for _ in range(2, passes):
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    return rates[:passes]


CHECKS = [check_stream_teaches_nothing, check_memory_is_balanced, check_start, check_training]


@pytest.mark.parametrize("check", CHECKS)
def test_only_the_memory_is_learnt(check: Any) -> None:
    check()


_begin, _after, _end = GDumb.begin_task, GDumb.after_step, GDumb.end_task


def _goes_on(self: GDumb, agent: nn.Module, replay: Any) -> None:
    """Training from where the last one ended."""
    self.initial = self.context.snapshot()
    _end(self, agent, replay)


def _any_row(self: GDumb, agent: nn.Module, batch: Batch) -> None:
    if self.memory.policy == "balanced":
        self.memory = Memory(40)
    _after(self, agent, batch)


@pytest.mark.parametrize(
    ("check", "name", "broken"),
    [
        pytest.param(CHECKS[0], "after_backward", lambda *_: None, id="the stream teaches"),
        pytest.param(
            CHECKS[0],
            "after_step",
            lambda self, agent, batch: self.memory.add(batch),
            id="the stream moves statistics",
        ),
        pytest.param(CHECKS[0], "end_task", lambda *_: None, id="nothing is learnt"),
        pytest.param(CHECKS[1], "after_step", _any_row, id="memory not balanced"),
        pytest.param(
            CHECKS[1],
            "after_step",
            lambda self, agent, batch: self.memory.add(batch) if batch.task[0] == 0 else None,
            id="memory not written",
        ),
        pytest.param(CHECKS[2], "end_task", _goes_on, id="training goes on"),
        pytest.param(CHECKS[3], "learning_rate", lambda self, done: self.lr, id="constant rate"),
    ],
)
def test_the_checks_object_to_a_broken_learner(
    check: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GDumb, name, broken)
    with pytest.raises(AssertionError):
        check()


def test_the_learning_rate_is_the_published_one() -> None:
    strategy = GDumb(lr=0.05, min_lr=5e-4)
    rates = [strategy.learning_rate(done) for done in range(256)]
    assert rates == pytest.approx(published_rates(256, 0.05, 5e-4))
    assert rates[127] == pytest.approx(5e-4, abs=1e-4)  # 128 passes end where a cycle does.


def test_a_memory_learns_a_stream(tmp_path: Path) -> None:
    run = learnt(tmp_path, "gdumb", **{"strategy.passes": 32, "strategy.capacity": 300})
    assert run.accuracy_matrix[-1].min() > 0.7
    assert run.metrics["accuracy"] > 0.85


def test_the_last_training_is_all_there_is(tmp_path: Path) -> None:
    """The settings of the stream's optimiser make no difference."""
    ends = [
        weights(learnt(tmp_path / f"{lr}", GDumb(capacity=50, passes=2), lr=lr).agent)
        for lr in (0.1, 0.9)
    ]
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "task"},
        {"online": True, "epochs": None},
        {"aug": "RandomHorizontalFlip"},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [MLP, Learner])
def test_it_learns_with_classes_of_each_task(
    settings: dict[str, Any], model: type[nn.Module], tmp_path: Path
) -> None:
    run = learnt(tmp_path, GDumb(capacity=100, passes=8), model, **settings)
    assert run.metrics["task_il_accuracy"] > 0.8
    if settings.get("scenario") != "task":
        assert run.metrics["accuracy"] > 0.6


def test_tasks_with_the_same_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gdumb is for scenario=class or task"):
        learnt(tmp_path, "gdumb", scenario="domain")


def test_a_memory_of_any_size_is_learnt() -> None:
    # Batches of 16 would leave a single row, which BatchNorm cannot train on.
    strategy = GDumb(capacity=17, passes=2)
    stream = Stream(strategy)
    stream.task(0)
    stream.end()
    assert len(strategy.memory) == 17


def test_it_draws_from_a_stream_of_its_own() -> None:
    ends = []
    for seed in (0, 0, 1):
        stream = Stream(GDumb(capacity=17, passes=2), seed)
        before = torch.get_rng_state()
        stream.task(0)
        stream.end()
        assert torch.equal(before, torch.get_rng_state())
        ends.append(weights(stream.agent))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


# ------------------------------------------------------------------------------- when it learns


@pytest.mark.parametrize("online", [False, True])
def test_it_may_learn_once_at_the_end_of_the_run(online: bool, tmp_path: Path) -> None:
    how: dict[str, Any] = {"online": True, "epochs": None} if online else {}
    run = learnt(tmp_path, GDumb(when="end", passes=32), eval_future=True, **how)
    matrix = run.accuracy_matrix
    assert (matrix[:-1] == matrix[0]).all(), "Until then the model stays as it was."
    assert matrix[0].mean() < 0.3
    assert matrix[-1].mean() > 0.8


def test_another_time_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gdumb\.when is 'never'; it must be `task` or `end`"):
        GDumb(when="never")
