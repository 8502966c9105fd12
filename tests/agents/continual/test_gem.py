"""GEM and A-GEM: the gradient that is left raises no loss of the past, and is as near as can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, Run, ml
from antelope.agents.continual import AGEM, GEM, agem, gem
from antelope.agents.continual.context import Context
from antelope.replay import Space, Spec

from .course import Shallow


class MLP(Shallow):
    width = 32


class Learner(MLP):
    """Has a loss of its own."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return 2 * F.cross_entropy(self(batch.obs), batch.label)


def learnt(path: Path, strategy: Any, model: Any = MLP, **settings: Any) -> Run:
    how = {"tasks": 5, "epochs": 2, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=model, strategy=strategy, path=path, plot=False, progress=False, **how)


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.agent.parameters()])


# ----------------------------------------------------------------------------------- the problem


def slowly(gram: np.ndarray, product: np.ndarray, margin: float, eps: float) -> np.ndarray:
    """The same by projected gradient descent, in many small steps."""
    square = gram + eps * np.eye(len(product))
    rate = 1 / np.linalg.eigvalsh(square).max()
    v = np.full(len(product), margin)
    for _ in range(50_000):
        v = np.maximum(v - rate * (square @ v + product), margin)
    return v


def cost(v: np.ndarray, gram: np.ndarray, product: np.ndarray, eps: float) -> float:
    return float(v @ (gram + eps * np.eye(len(v))) @ v / 2 + product @ v)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize(("tasks", "width"), [(1, 50), (2, 50), (4, 50), (9, 20), (20, 40)])
def test_the_solution_is_the_one_that_small_steps_lead_to(
    tasks: int, width: int, margin: float
) -> None:
    rng = np.random.default_rng(tasks)
    for _ in range(3):
        past = rng.normal(size=(tasks, width)) + rng.normal(size=width)
        gram, product = past @ past.T, past @ (rng.normal(size=width) - past.mean(0))
        found = gem.dual(gram, product, margin=margin, eps=1e-3)
        expected = slowly(gram, product, margin, 1e-3)
        assert (found >= margin).all()
        assert cost(found, gram, product, 1e-3) <= cost(expected, gram, product, 1e-3) + 1e-9
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_solution_meets_the_conditions_of_an_optimum() -> None:
    rng = np.random.default_rng(0)
    bound = free = 0
    for _ in range(300):
        tasks, margin = int(rng.integers(1, 21)), float(rng.choice([0.0, 0.5, 1.0]))
        # Fewer dimensions than tasks, and the same task twice: gram is singular.
        past = rng.normal(size=(tasks, int(rng.integers(1, 30)))) * 10.0 ** rng.uniform(-3, 2)
        past[-1] = past[0]
        gram, product = past @ past.T, past @ rng.normal(size=past.shape[1])
        v = gem.dual(gram, product, margin=margin, eps=1e-3)
        slope = (gram + 1e-3 * np.eye(tasks)) @ v + product
        least = 1e-8 * (1 + np.abs(product).max() + np.abs(gram).max())
        at_margin = v == margin
        assert (v >= margin).all()
        assert (slope[at_margin] >= -least).all()
        assert (np.abs(slope[~at_margin]) <= least).all()
        bound, free = bound + at_margin.sum(), free + (~at_margin).sum()
    assert min(bound, free) > 100


def test_two_opposed_constraints_by_hand() -> None:
    # g = (-1, -1) with the past along the axes: both components are to vanish.
    found = gem.dual(np.eye(2), np.array([-1.0, -1.0]), margin=0.0, eps=0.0)
    np.testing.assert_allclose(found, [1, 1])
    # One violated, one met: the first alone is repaired.
    found = gem.dual(np.eye(2), np.array([-1.0, 2.0]), margin=0.0, eps=0.0)
    np.testing.assert_allclose(found, [1, 0])
    np.testing.assert_allclose(
        gem.dual(np.eye(2), np.array([-1.0, 2.0]), margin=0.5, eps=0.0), [1, 0.5]
    )


# ---------------------------------------------------------------------------------- the gradient


class Table(nn.Module):
    """Its loss on a row is the row's inner product with the weights, and its gradient the row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.other = nn.Parameter(torch.ones(2, 1))
        self.unused = nn.Parameter(torch.ones(2))

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        return (batch.obs[:, :3] @ self.weight + batch.obs[:, 3:] @ self.other.flatten()).mean()


def projected(strategy: Any, now: Tensor, past: list[Tensor]) -> Tensor:
    """The gradient `now` after the strategy has met it, its memory being the rows of `past`."""
    agent = Table()
    strategy.context = Context(
        agent,
        Spec(Space((5,)), Space((10,), torch.int64, discrete=True)),
        scenario="class",
        classes=list(torch.arange(10).split(2)),
        learn=agent.learn,
    )
    strategy.setup(agent)
    for task, obs in enumerate(past):
        strategy.context.task = task
        strategy.begin_task(agent, Past(obs)) if hasattr(strategy, "begin_task") else None
        strategy.end_task(agent, Past(obs))
    strategy.context.loss(Batch(obs=now[None])).backward()
    strategy.after_backward(agent)
    assert agent.unused.grad is None
    assert agent.weight.grad is not None
    assert agent.other.grad is not None
    assert agent.other.grad.shape == (2, 1)
    return torch.cat([agent.weight.grad, agent.other.grad.flatten()])


class Past:
    """A replay of a task."""

    borders = True

    def __init__(self, obs: Tensor):
        self.obs = obs

    def once(self) -> Any:
        for row in self.obs.split(2):
            yield Batch(obs=row, label=torch.zeros(len(row), dtype=torch.int64))


def check_gem() -> None:
    """No loss of the past rises, the gradient is the nearest such, and is left where it is one."""
    torch.manual_seed(0)
    changed = 0
    for _ in range(30):
        past = [torch.randn(4, 5) for _ in range(4)]
        now = torch.randn(5)
        left = projected(GEM(capacity=100, margin=0.0, eps=0.0), now, past)
        gradients = torch.stack([rows.mean(0) for rows in past])
        if (gradients @ now >= 0).all():
            assert torch.equal(left, now), "What harms none is left as it is."
            continue
        changed += 1
        assert (gradients @ left >= -1e-5).all(), "No loss of the past rises."
        # The nearest of a cone: what was taken away is at a right angle to what is left, and made
        # of the past's gradients, none taken away more than all of it.
        assert (left - now) @ left == pytest.approx(0, abs=1e-4), "It is the nearest."
        assert not torch.equal(left, now)
    assert changed > 10


def check_margin() -> None:
    """The margin adds so much of every task's gradient at least."""
    now, past = torch.tensor([-1.0, 2.0, 3.0, 0.0, 0.0]), torch.eye(5)[:2]
    left = projected(GEM(capacity=10, margin=0.5, eps=0.0), now, [past[:1], past[1:]])
    np.testing.assert_allclose(left, [0, 2.5, 3, 0, 0], atol=1e-6)


def check_agem() -> None:
    """The past's mean gradient is met at a right angle at least."""
    torch.manual_seed(0)
    changed = 0
    for _ in range(30):
        past, now = [torch.randn(4, 5) for _ in range(4)], torch.randn(5)
        left = projected(AGEM(capacity=20), now, past)
        reference = torch.cat(past).mean(0)
        if reference @ now >= 0:
            assert torch.equal(left, now), "What does no harm is left as it is."
            continue
        changed += 1
        expected = now - (now @ reference) / (reference @ reference) * reference
        np.testing.assert_allclose(left, expected, atol=1e-5, err_msg="The published projection.")
    assert changed > 5


def check_agem_draws() -> None:
    """The reference of each step is another draw of so many rows of all earlier tasks."""
    agent, strategy = Table(), AGEM(capacity=40, batch_size=3)
    met: list[Tensor] = []

    def learn(replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        met.append(batch.obs)
        return agent.learn(iter([batch]), log)

    strategy.context = Context(
        agent,
        Spec(Space((5,)), Space((4,), torch.int64, discrete=True)),
        scenario="class",
        classes=list(torch.arange(4).split(2)),
        learn=learn,
    )
    strategy.setup(agent)
    past = -torch.rand(40, 5)
    for task in (0, 1):
        strategy.context.task = task
        strategy.begin_task(agent, Past(past[task::2]))  # type: ignore[arg-type]
        strategy.end_task(agent, Past(past[task::2]))  # type: ignore[arg-type]
    now, steps = torch.ones(5), 60
    draws: list[Tensor] = []
    for _ in range(steps):
        agent.zero_grad()
        strategy.context.loss(Batch(obs=now[None])).backward()
        met.clear()
        strategy.after_backward(agent)
        (drawn,) = met
        assert agent.weight.grad is not None
        assert agent.other.grad is not None
        left = torch.cat([agent.weight.grad, agent.other.grad.flatten()])
        reference = drawn.mean(0)
        expected = now - (now @ reference) / (reference @ reference) * reference
        np.testing.assert_allclose(left, expected, atol=1e-5, err_msg="Of the rows drawn.")
        assert len(drawn) == len(drawn.unique(dim=0)) == 3, "So many rows, all different."
        draws.append(drawn)
    assert len({tuple(sorted(draw[:, 0].tolist())) for draw in draws}) > steps / 2, "Each another."
    assert len(torch.cat(draws).unique(dim=0)) > 30, "Of all earlier tasks."


@pytest.mark.parametrize("check", [check_gem, check_margin, check_agem, check_agem_draws])
def test_what_is_left_of_the_gradient_does_no_harm(check: Callable[[], None]) -> None:
    check()


_dual = gem.dual


@pytest.mark.parametrize(
    ("check", "where", "name", "broken"),
    [
        pytest.param(check_gem, gem, "write", lambda *_: None, id="projection skipped"),
        pytest.param(
            check_gem, gem, "dual", lambda gram, *_, **__: np.zeros(len(gram)), id="v is zero"
        ),
        pytest.param(
            check_gem,
            gem,
            "dual",
            lambda gram, product, **how: np.maximum(-product / gram.diagonal(), 0),
            id="each constraint by itself",
        ),
        pytest.param(
            check_gem,
            gem,
            "dual",
            lambda gram, product, **how: _dual(gram, product, **how) + 0.1,
            id="more than has to be",
        ),
        pytest.param(check_gem, GEM, "end_task", lambda *_: None, id="GEM: memory empty"),
        pytest.param(
            check_margin,
            gem,
            "dual",
            lambda gram, product, **_: _dual(gram, product, margin=0.0, eps=0.0),
            id="no margin",
        ),
        pytest.param(check_agem, agem, "write", lambda *_: None, id="A-GEM: projection skipped"),
        pytest.param(
            check_agem, agem, "write", lambda g, p: gem.write(-g, p), id="A-GEM: turned around"
        ),
        pytest.param(check_agem, AGEM, "end_task", lambda *_: None, id="A-GEM: memory empty"),
        pytest.param(
            check_agem,
            agem,
            "gradient_on",
            lambda past, parameters, context: gem.gradient_on(past[:1], parameters, context),
            id="A-GEM: a single row",
        ),
    ],
)
def test_the_checks_object_to_a_broken_projection(
    check: Callable[[], None],
    where: Any,
    name: str,
    broken: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError):
        check()


# ---------------------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("strategy", [GEM(capacity=50), AGEM(capacity=50)])
def test_each_task_keeps_a_sample_of_its_own(strategy: Any) -> None:
    """Of tasks with the same rows, others are kept."""
    obs = torch.arange(200.0).view(40, 5)
    projected(strategy, torch.ones(5), [obs] * 5)
    if isinstance(strategy, GEM):
        kept = [memory.all().obs[:, 0] for memory in strategy.past]
    else:
        kept = list(strategy.memory.all().obs[:, 0].split(10))
    assert [len(rows) for rows in kept] == [10] * 5
    assert len({tuple(sorted(rows.tolist())) for rows in kept}) == 5


@pytest.mark.parametrize("strategy", [GEM(capacity=10, margin=0.0, eps=0.0), AGEM(capacity=10)])
def test_weights_that_have_been_frozen_since_keep_their_gradient(strategy: Any) -> None:
    past, now = torch.tensor([[-1.0, 0, 0, -1, -1]]), torch.tensor([1.0, 2, 3, 4, 5])
    agent = Table()
    strategy.context = Context(
        agent,
        Spec(Space((5,)), Space((10,), torch.int64, discrete=True)),
        scenario="class",
        classes=list(torch.arange(10).split(2)),
        learn=agent.learn,
    )
    strategy.setup(agent)
    strategy.context.task = 0
    if isinstance(strategy, AGEM):
        strategy.begin_task(agent, Past(past))  # type: ignore[arg-type]
    strategy.end_task(agent, Past(past))  # type: ignore[arg-type]
    strategy.context.loss(Batch(obs=now[None])).backward()
    agent.other.requires_grad_(False)
    strategy.after_backward(agent)
    assert agent.weight.grad is not None
    assert agent.other.grad is not None
    # Of what is left to change, the first weight alone would do harm.
    torch.testing.assert_close(agent.weight.grad, torch.tensor([0.0, 2, 3]))
    torch.testing.assert_close(agent.other.grad.flatten(), torch.tensor([4.0, 5]))


def same_twice() -> list[tuple[Tensor, Tensor]]:
    """Two tasks that are the same data."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    return [(x, (x[:, 0] > 0).long())] * 2


@pytest.mark.parametrize("strategy", [GEM(capacity=120), AGEM(capacity=120)], ids=["gem", "agem"])
def test_without_a_violated_constraint_it_is_naive_to_the_bit(
    strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []
    on = gem.gradient_on
    for module in (gem, agem):
        monkeypatch.setattr(module, "gradient_on", lambda *a: (met.append(1), on(*a))[1])
    # All rows in a batch, and all in the memory: the two gradients are one.
    how = {"dataset": same_twice(), "tasks": None, "batch_size": 60, "epochs": 30}
    ends = [learnt(tmp_path / str(s), s, **how) for s in ("naive", strategy)]
    assert len(met) == 30
    assert torch.equal(weights(ends[0]), weights(ends[1]))


def test_with_one_past_task_and_no_margin_gem_is_agem_with_all_its_memory(tmp_path: Path) -> None:
    how = {"classes_per_task": [5, 5], "tasks": None, "epochs": 1}
    of_gem = GEM(capacity=100, margin=0.0, eps=0.0)
    of_agem = AGEM(capacity=100, batch_size=1000)
    ends = [weights(learnt(tmp_path / str(s), s, **how)) for s in (of_gem, of_agem, "naive")]
    assert set(of_gem.past[0].all().index.tolist()) <= set(of_agem.memory.all().index.tolist())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-4)
    assert (ends[0] - ends[2]).abs().max() > 0.02


# --------------------------------------------------------------------------------------- the runs


@pytest.mark.parametrize(("name", "floor"), [("gem", 0.6), ("agem", 0.25)])
def test_earlier_tasks_stay_known(name: str, floor: float, tmp_path: Path) -> None:
    run = learnt(tmp_path, name)
    assert run.metrics["accuracy"] > floor
    assert run.metrics["forgetting"] < learnt(tmp_path / "naive", "naive").metrics["forgetting"]


@pytest.mark.parametrize("strategy", [GEM(capacity=100), AGEM(capacity=100)], ids=["gem", "agem"])
def test_each_task_has_the_same_share_of_the_memory(strategy: Any, tmp_path: Path) -> None:
    learnt(tmp_path, strategy)
    parts = strategy.past if isinstance(strategy, GEM) else [strategy.memory]
    kept = [part.all() for part in parts]
    index = torch.cat([rows.index for rows in kept])
    assert len(index.unique()) == len(index) == 100
    assert torch.cat([rows.task for rows in kept]).bincount().tolist() == [20] * 5


def test_without_borders_agem_keeps_a_reservoir_of_the_stream(tmp_path: Path) -> None:
    strategy = AGEM(capacity=100)
    run = learnt(tmp_path, strategy, online=True, epochs=None)
    assert len(strategy.memory) == 100
    assert strategy.memory.seen == len(run.replay.storage)
    assert len(strategy.memory.all().label.unique()) == 10


@pytest.mark.parametrize("name", ["gem", "agem"])
def test_a_memory_without_a_row_for_each_task_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="capacity=4 is less than one row for each of the 5 tasks"
    ):
        learnt(tmp_path, name, **{"strategy.capacity": 4})


@pytest.mark.parametrize(
    "settings",
    [{"scenario": "task"}, {"scenario": "domain"}, {"aug": "RandomHorizontalFlip"}],
    ids=str,
)
@pytest.mark.parametrize("model", [MLP, Learner])
@pytest.mark.parametrize("name", ["gem", "agem"])
def test_it_is_of_every_scenario(
    name: str, settings: dict[str, Any], model: type[nn.Module], tmp_path: Path
) -> None:
    run, naive = (learnt(tmp_path / s, s, model, **settings) for s in (name, "naive"))
    main = "task_il_accuracy" if settings.get("scenario") == "task" else "accuracy"
    assert run.metrics[main] > naive.metrics[main]


@pytest.mark.parametrize("name", ["gem", "agem"])
def test_with_joint_there_is_no_past_to_harm(name: str, tmp_path: Path) -> None:
    ends = [learnt(tmp_path / str(s), s) for s in ("joint", ["joint", name])]
    assert torch.equal(*map(weights, ends))


def test_rows_of_the_past_are_augmented_anew(tmp_path: Path) -> None:
    strategy = GEM(capacity=50)
    learnt(tmp_path, strategy, aug="RandomHorizontalFlip", train_steps=3, epochs=None)
    kept = strategy.past[0].all()
    assert "obs" not in kept
    assert kept.raw.shape == (10, 1, 8, 8)
