"""Several learning steps per update, compared with larger batches and with a plain loop."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from antelope import ConfigError, Run, ml

seen: list[tuple[Tensor, Tensor]] = []


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        seen.append((batch.obs.clone(), batch.label.clone()))
        return F.cross_entropy(self(batch.obs), batch.label)


def rows(n: int = 80) -> tuple[Tensor, Tensor]:
    """Of which a fifth is held out."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Run]:
    def run(*words: str, **settings: Any) -> Run:
        seen.clear()
        usual = {"model": Net, "dataset": rows(), "optim": "SGD", "lr": 0.5, "seed": 3}
        if "env" not in settings:
            usual["epochs"] = 3
        usual |= {
            "batch_size": 8,
            "log_every": 1,
            "path": tmp_path / "run",
            "plot": False,
            "progress": False,
        }
        return ml(*words, **{**usual, **settings})

    return run


def by_hand(sizes: list[int], clip: float | None = None) -> Net:
    """Updates by the mean gradient of so many of the batches that were seen."""
    torch.manual_seed(3)
    model = Net(3, 2)
    optimizer = SGD(model.parameters(), 0.5)
    batches = iter(list(seen))
    for size in sizes:
        optimizer.zero_grad()
        for _ in range(size):
            obs, label = next(batches)
            (F.cross_entropy(model(obs), label) / size).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    assert next(batches, None) is None
    return model


def assert_same_weights(run: Run, model: nn.Module) -> None:
    torch.testing.assert_close(run.agent.state_dict(), model.state_dict())


def test_four_batches_of_eight_are_one_of_thirty_two(quick: Any) -> None:
    small = quick(accumulate=4)
    assert len(seen) == 24
    large = quick(batch_size=32)
    assert len(seen) == 6
    assert_same_weights(small, large.agent)


def test_the_last_steps_of_a_task_are_not_lost(quick: Any) -> None:
    run = quick(accumulate=5)  # Of 24 learning steps.
    assert_same_weights(run, by_hand([5, 5, 5, 5, 4]))
    run = quick(accumulate=5, dataset=[rows(), rows()])
    assert_same_weights(run, by_hand([5, 5, 5, 5, 4] * 2))


def test_what_is_clipped_is_the_sum(quick: Any) -> None:
    run = quick(accumulate=4, clip_grad=0.01)
    assert_same_weights(run, by_hand([4] * 6, clip=0.01))
    assert {row["lr"] for row in run.history if row["mode"] == "train"} == {0.5}


def test_the_average_follows_updates(quick: Any) -> None:
    run = quick(accumulate=24, ema=0.75, epochs=3)  # One update, in all.
    start = by_hand([24])
    weights = start.layer.weight.detach()
    torch.manual_seed(3)
    before = Net(3, 2).layer.weight.detach()
    torch.testing.assert_close(run.agent.layer.weight.detach(), 0.75 * before + 0.25 * weights)


def test_losses_are_logged_whole(quick: Any) -> None:
    run = quick(accumulate=24)
    torch.manual_seed(3)
    model = Net(3, 2)
    losses = [F.cross_entropy(model(obs), label).item() for obs, label in seen]
    assert [row["loss"] for row in run.history if row["mode"] == "train"] == pytest.approx(losses)


def test_autocast_leaves_the_sum_as_it_is(quick: Any) -> None:
    small, large = quick(accumulate=4, precision="bf16"), quick(batch_size=32, precision="bf16")
    torch.testing.assert_close(
        small.agent.layer.weight, large.agent.layer.weight, atol=5e-3, rtol=5e-2
    )


class Halt(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2, 3, 6, 11, 12, 13])
@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "clip_grad": 0.1, "optim": "AdamW"}], ids=str)
def test_a_run_killed_between_updates_resumes_to_the_bit(
    at: int, more: dict[str, Any], quick: Any, tmp_path: Path
) -> None:
    class Breaks(Net):
        def learn(self, replay: Any) -> Tensor:
            if len(seen) == at:
                raise Halt
            return super().learn(replay)

    Breaks.__name__ = Breaks.__qualname__ = "Net"
    settings = {"accumulate": 5, "epochs": 1, "save_every": 1, "dataset": [rows(), rows()], **more}
    whole = quick(**settings, path=tmp_path / "whole")
    with pytest.raises(Halt):
        quick(**settings, model=Breaks)
    run = quick(**settings, resume=True)
    assert torch.equal(run.agent.layer.weight, whole.agent.layer.weight)
    assert run.history == whole.history


def test_another_number_may_be_given_when_resuming(quick: Any) -> None:
    class Breaks(Net):
        def learn(self, replay: Any) -> Tensor:
            if len(seen) == 3:
                raise Halt
            return super().learn(replay)

    Breaks.__name__ = Breaks.__qualname__ = "Net"
    with pytest.raises(Halt):
        quick(model=Breaks, accumulate=6, save_every=1, train_steps=6)
    first = copy.copy(seen)
    run = quick(accumulate=4, resume=True, train_steps=6)
    seen[:0] = first
    assert_same_weights(run, by_hand([4, 2]))


@pytest.mark.parametrize("strategy", ["si", "gem", "agem", "packnet", "gdumb", "er", "ewc"])
def test_strategies_see_the_sum_and_every_row(strategy: str, quick: Any) -> None:
    """Whatever a strategy does to gradients, it does it to those of 32 rows at once."""
    x = torch.randn(160, 6, generator=torch.Generator().manual_seed(1))
    data = (x, torch.arange(160) % 4)
    settings = {
        "dataset": data,
        "test_dataset": data,
        "tasks": 2,
        "strategy": strategy,
        "epochs": 1,
        "lr": 0.1,
    }
    if strategy == "packnet":
        settings["strategy.retrain_epochs"] = 0  # In a loop of its own.
    run = quick(accumulate=3, **settings)  # 10 batches of 8 in each task: 3, 3, 3 and 1.
    assert run.accuracy_matrix.shape == (2, 2)
    if strategy in ("si", "packnet", "gem"):
        large = quick(batch_size=24, **settings)
        torch.testing.assert_close(
            run.agent.layer.weight, large.agent.layer.weight, atol=1e-4, rtol=1e-3
        )


def test_a_memory_is_offered_every_row_once(quick: Any) -> None:
    offered: list[int] = []

    class Keeps:
        def after_backward(self, agent: nn.Module) -> None:
            pass

        def after_step(self, agent: nn.Module, batch: Any) -> None:
            offered.extend(batch.index.tolist())

    quick(accumulate=5, epochs=1, strategy=Keeps())
    assert len(offered) == len(set(offered)) == 64


def test_a_model_that_zeroes_gradients_is_told(quick: Any) -> None:
    class Zeroes(Net):
        def learn(self, replay: Any) -> Tensor:
            self.zero_grad()
            return super().learn(replay)

    with pytest.raises(ConfigError, match=r"zeroes the gradients.*Leave zero_grad out"):
        quick(model=Zeroes, accumulate=2)


def test_a_model_that_updates_itself_is_told(
    quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Self(Net):
        def learn(self, replay: Any) -> None:  # type: ignore[override]
            next(replay)

    quick(model=Self, accumulate=2)
    assert "`accumulate` had no effect" in capsys.readouterr().err


def test_more_than_a_run_has_is_warned_of(quick: Any) -> None:
    with pytest.warns(
        UserWarning, match=r"accumulate=9 is more than the 8 learning steps of the run"
    ):
        quick(accumulate=9, epochs=1)


def test_in_environments(quick: Any) -> None:
    class Policy(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.layer = nn.Linear(in_features, out_features)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs)

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            taken = self(batch.obs).gather(1, batch.action[:, None]).squeeze(1)
            updates.append(self.layer.weight.detach().clone())
            return F.mse_loss(taken, batch.reward)

    updates: list[Tensor] = []
    settings = {"dataset": None, "env": "CartPole-v1", "train_steps": 30}
    settings |= {"seed_steps": 10, "eval_episodes": 1, "time_limit": 5, "accumulate": 4}
    quick(model=Policy, **settings)
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(updates)]
    assert moved == [i % 4 == 3 for i in range(len(moved))]
