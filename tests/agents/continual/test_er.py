"""Experience replay: what is kept, what is rehearsed, and that this is what keeps a task known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, Memory, Run, ml
from antelope.agents.continual import ER, ERACE, er
from antelope.agents.continual.context import Context
from antelope.replay import Space, Spec

from .course import Shallow


class MLP(Shallow):
    width = 32


class Learner(MLP):
    """Has a loss of its own, and counts the rows it learns."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.sizes: list[int] = []

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.sizes.append(len(batch))
        return F.cross_entropy(self(batch.obs), batch.label)


def learnt(path: Path, strategy: Any = None, model: Any = MLP, **settings: Any) -> Run:
    """A short run on five pairs of digits."""
    how = {"tasks": 5, "epochs": 2, "batch_size": 16, "optim": "SGD", "lr": 0.1} | settings
    return ml(model=model, strategy=strategy, path=path, plot=False, progress=False, **how)


def placed(strategy: Any, augmented: Callable[[Tensor], Tensor] | None = None) -> Any:
    """The strategy with a context, as a run would give it."""
    spec = Spec(Space((2,)), Space((10,), torch.int64, discrete=True))
    strategy.context = Context(
        nn.Identity(),
        spec,
        scenario="class",
        classes=list(torch.arange(10).split(2)),
        learn=lambda replay, log: None,
        augmented=augmented,
    )
    return strategy


def rows(*numbers: int) -> Batch:
    """Rows that can be told apart by every field."""
    number = torch.tensor(numbers)
    obs = number[:, None] + torch.tensor([0.0, 0.5])
    return Batch(obs=obs, label=number % 10, task=number // 10, index=number)


def check_rehearsal() -> None:
    """A batch is its new rows and then rows of earlier batches, whole."""
    strategy, agent = placed(ER(capacity=100, batch_size=3)), nn.Identity()
    first = strategy.before_batch(agent, rows(1, 2, 3, 4))
    assert first.index.tolist() == [1, 2, 3, 4], "There is no past yet."
    strategy.before_batch(agent, rows(5, 6))
    third = strategy.before_batch(agent, rows(7, 8))
    index = third.index.tolist()
    assert index[:2] == [7, 8], "The new rows come first."
    assert len(index) == 5, "Three rows are rehearsed."
    assert set(index[2:]) <= {1, 2, 3, 4, 5, 6}, "Rows of earlier batches are rehearsed."
    for name, expected in vars(rows(*index)).items():
        assert torch.equal(third[name], expected), f"`{name}` stays with its row."
    assert sorted(strategy.memory.all().index.tolist()) == list(range(1, 9)), "Each row is kept."


def test_a_batch_is_learnt_with_rows_of_earlier_ones() -> None:
    check_rehearsal()


_add, _joined = Memory.add, er.joined


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        pytest.param(Memory, "add", lambda self, batch: None, id="memory never written"),
        pytest.param(
            Memory, "add", lambda self, batch: _add(self, rows(1, 2)), id="the first rows alone"
        ),
        pytest.param(Memory, "sample", lambda self, n: rows(7, 8, 7), id="the new rows again"),
        pytest.param(er, "joined", lambda batch, past: batch, id="nothing rehearsed"),
        pytest.param(er, "joined", lambda batch, past: past, id="the past alone"),
        pytest.param(
            er,
            "joined",
            lambda batch, past: Batch(
                **{**_joined(batch, past), "label": _joined(past, batch).label}
            ),
            id="labels of other rows",
        ),
    ],
)
def test_the_check_objects_to_a_broken_rehearsal(
    where: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError):
        check_rehearsal()


def test_as_many_rows_are_rehearsed_as_are_new_unless_told(tmp_path: Path) -> None:
    for batch_size, expected in ((None, {16, 32}), (40, {16, 32, 56})):
        sizes = learnt(tmp_path / f"{batch_size}", ER(batch_size=batch_size), Learner).agent.sizes
        assert sizes[0] == 16
        assert expected <= set(sizes)
        assert max(sizes) == max(expected)


def check_first_task_is_known(run: Run) -> None:
    """Where naive training ends at 0."""
    assert run.accuracy_matrix[-1, 0] > 0.5
    assert run.metrics["accuracy"] > 0.6


def test_earlier_tasks_stay_known(tmp_path: Path) -> None:
    check_first_task_is_known(learnt(tmp_path, "er"))


@pytest.mark.parametrize("dead", ["before_batch", "add"])
def test_without_rehearsal_they_do_not(
    dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dead == "add":
        monkeypatch.setattr(Memory, "add", lambda self, batch: None)
    else:
        monkeypatch.setattr(ER, "before_batch", lambda self, agent, batch: batch)
    with pytest.raises(AssertionError):
        check_first_task_is_known(learnt(tmp_path, "er"))


def test_a_memory_as_large_as_the_stream_holds_every_row_once(tmp_path: Path) -> None:
    strategy = ER(capacity=5000)
    run = learnt(tmp_path, strategy, epochs=1)
    everything = torch.arange(len(run.replay.storage))
    assert torch.equal(strategy.memory.all().index.sort().values, everything)


@pytest.mark.parametrize("strategy", [ER, ERACE])
@pytest.mark.parametrize("policy", ["reservoir", "balanced", "ring"])
def test_the_policy_says_which_rows_are_kept(strategy: Any, policy: str, tmp_path: Path) -> None:
    """Three tasks of two classes, of which the second has far more rows than the first."""
    label = torch.arange(6).repeat_interleave(torch.tensor([30, 300] * 3))
    obs = torch.randn(len(label), 4, generator=torch.Generator().manual_seed(0))
    made, seen = strategy(capacity=30, policy=policy), Seen()
    learnt(tmp_path, [seen, made], dataset=(obs, label), tasks=3, epochs=1, batch_size=10)
    kept = made.memory.all()
    counts = kept.label.bincount(minlength=6)
    if policy == "reservoir":  # As often as in the stream.
        assert int(counts[[0, 2, 4]].sum()) < 8
        assert len(kept) == 30
        return
    assert counts.tolist() == [5] * 6
    newest = [row for c in range(6) for row in [row for row, of in seen.rows if of == c][-5:]]
    assert (sorted(kept.index.tolist()) == sorted(newest)) == (policy == "ring")


class Seen:
    """Remembers the rows of the stream in their order, with their labels."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        self.rows += zip(batch.index.tolist(), batch.label.tolist(), strict=True)
        return batch


def test_the_past_is_learnt_as_the_model_s_own_loss_wants_it(tmp_path: Path) -> None:
    ends = [learnt(tmp_path / m.__name__, ER(100), m).agent for m in (MLP, Learner)]
    for own, supervised in zip(*(agent.parameters() for agent in ends), strict=True):
        assert torch.equal(own, supervised)


def test_rows_are_kept_as_they_were_and_augmented_anew() -> None:
    noise = iter(range(1, 100))
    strategy = placed(ER(capacity=4), augmented=lambda raw: raw + 1000 * next(noise))
    new = rows(1, 2, 3, 4)
    new["raw"], new["obs"] = new.obs, new.obs + 500
    strategy.before_batch(nn.Identity(), new)
    kept = strategy.memory.all()
    assert "obs" not in kept
    assert torch.equal(kept.raw, new.raw)
    rehearsed = []
    for _ in range(2):
        batch = strategy.before_batch(nn.Identity(), new)
        assert torch.equal(batch.obs[:4], new.obs)
        rehearsed.append(batch.obs[4:] - batch.raw[4:])
    assert [set(added.flatten().tolist()) for added in rehearsed] == [{1000.0}, {2000.0}]


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "task"},
        {"scenario": "domain"},
        {"tasks": None, "classes_per_task": [4, 4, 2]},
        {"online": True, "epochs": None},
        {"aug": "RandomHorizontalFlip"},
        {"strategy.policy": "balanced"},
        {"strategy.policy": "ring"},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [MLP, Learner])
def test_it_is_of_every_scenario(
    settings: dict[str, Any], model: type[nn.Module], tmp_path: Path
) -> None:
    run = learnt(tmp_path, "er", model, **settings)
    floor = 0.5 if settings.get("scenario") == "domain" else 0.4
    assert run.metrics["accuracy"] > floor


def test_values_are_rehearsed_as_classes_are(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 60)[:, None]
    parts = [(x[:30], x[:30, 0] ** 2), (x[30:], -x[30:, 0])]
    errors = []
    for strategy in ("naive", "er"):
        how = {"tasks": None, "dataset": parts, "epochs": 60, "batch_size": 8}
        run = learnt(tmp_path / strategy, strategy, **how, optim="Adam", lr=0.01)
        assert run.accuracy_matrix.shape == (2, 2)
        errors.append(run.accuracy_matrix[-1, 0])
    assert errors[0] < 0 < 0.5 < errors[1]  # The share of variance that is explained.


def test_it_draws_from_streams_of_its_own() -> None:
    strategy = placed(ER(capacity=4))
    before = torch.get_rng_state()
    for number in range(20):
        strategy.before_batch(nn.Identity(), rows(number, number + 1))
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------------------ the weight of a loss


def weights_of(run: Run) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in run.agent.parameters()])


def test_a_weight_of_0_is_learning_without_rehearsal(tmp_path: Path) -> None:
    found = learnt(tmp_path / "er", "er", **{"strategy.er.weight": 0})
    assert torch.equal(weights_of(found), weights_of(learnt(tmp_path / "naive")))


def test_a_weight_of_a_half_is_one_batch_of_as_many_old_rows_as_new_ones(tmp_path: Path) -> None:
    """The whole first task is one batch, so there are as many rows to draw as are new."""
    how: dict[str, Any] = {"model": Learner, "tasks": 2, "batch_size": 100, "train_steps": 6}
    half = learnt(tmp_path / "half", "er", **how, **{"strategy.er.weight": 0.5})
    one = learnt(tmp_path / "one", "er", **how)
    torch.testing.assert_close(weights_of(half), weights_of(one), rtol=1e-4, atol=1e-5)
    assert set(half.agent.sizes) == {100}, "The two losses are computed one after the other."
    assert set(one.agent.sizes) == {100, 200}


@pytest.mark.parametrize(
    ("weight", "task", "expected"), [("tasks", 0, 3.0), ("tasks", 3, 6.0), (0.2, 3, 3.8), (1, 0, 7)]
)
def test_the_rehearsed_loss_has_its_weight(weight: Any, task: int, expected: float) -> None:
    """New rows have a loss of 3, those in memory one of 7."""
    strategy, agent = placed(ER(weight=weight)), nn.Identity()
    strategy.context._learn = lambda replay, log: next(replay).obs.mean()
    strategy.memory.add(Batch(obs=torch.full((4, 2), 7.0), label=torch.zeros(4).long()))
    strategy.context.task = task
    new = Batch(obs=torch.full((4, 2), 3.0), label=torch.zeros(4).long())
    assert torch.equal(strategy.before_batch(agent, new).obs, new.obs)
    loss = strategy.after_loss(agent, new, new.obs.mean())
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [-0.1, 1.5, "half"])
def test_a_weight_that_is_no_share_is_refused(weight: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"er\.weight is .*must be a number .*from 0 to 1"):
        learnt(tmp_path, "er", **{"strategy.er.weight": weight})


def test_the_weight_by_tasks_needs_to_know_where_they_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strategy=er must know where a task ends"):
        learnt(tmp_path, "er", epochs=None, online=True, **{"strategy.er.weight": "tasks"})


def test_by_tasks_only_earlier_tasks_are_rehearsed_in_equal_shares(tmp_path: Path) -> None:
    class Seen(ER):
        def weighted(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
            seen.append(
                (self.context.task, None if self.past is None else set(self.past.task.tolist()))
            )
            return super().weighted(agent, batch, loss)

    seen: list[Any] = []
    run = learnt(tmp_path, Seen(weight="tasks", policy="balanced"), tasks=5)
    assert {task for task, past in seen if past is None} == {0}
    assert all(past <= set(range(task)) for task, past in seen if past is not None)
    assert set.union(*(past for task, past in seen if task == 4)) == {0, 1, 2, 3}
    assert run.metrics["accuracy"] > 0.6
