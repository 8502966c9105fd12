"""`Replay`: batches without end, sampling on the side, and exact continuation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import Batch, ConfigError, Pixels, Replay, Space, Spec, Table, Transitions


def replay_of(rows: int = 10, batch_size: int = 4, seed: int = 0) -> Replay:
    table = Table(obs=torch.arange(rows * 2.0).view(rows, 2), label=torch.arange(rows))
    return Replay(table, lambda fields: fields, batch_size=batch_size, seed=seed)


def same(one: Batch, other: Batch) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_of_data_has_these_fields() -> None:
    batch = next(replay_of())
    assert set(batch) == {"obs", "label", "task", "index"}
    assert torch.equal(batch.label, batch.index)
    assert torch.equal(batch.obs[:, 0], batch.index * 2.0)
    assert batch.task.tolist() == [0] * 4
    assert {batch[name].dtype for name in ("label", "task", "index")} == {torch.int64}


def test_iterates_without_end_and_counts_steps_and_epochs() -> None:
    replay = replay_of()
    assert replay.batches_per_epoch == 3
    seen = [(len(next(iter(replay))), replay.step, replay.epoch, replay.passes) for _ in range(7)]
    assert [size for size, *_ in seen] == [4, 4, 2, 4, 4, 2, 4]
    assert [step for _, step, *_ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert [epoch for _, _, epoch, _ in seen] == [0, 0, 0, 1, 1, 1, 2]
    assert [passes for *_, passes in seen] == [0, 0, 1, 1, 1, 2, 2]


def test_a_task_gives_only_its_own_rows() -> None:
    replay = replay_of()
    replay.begin(3, torch.tensor([1, 5, 7, 8, 9]))
    batches = [next(replay) for _ in range(2)]
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == [1, 5, 7, 8, 9]
    assert torch.cat([batch.task for batch in batches]).tolist() == [3] * 5
    assert (replay.task, replay.epoch, len(replay)) == (3, 0, 5)


def test_sample_is_of_any_size_and_moves_nothing() -> None:
    replay, untouched = replay_of(), replay_of()
    batch = replay.sample(50)
    assert len(batch) == len(batch.task) == 50
    assert set(batch.index.tolist()) == set(range(10))
    assert (replay.step, replay.epoch) == (0, 0)
    for _ in range(5):
        assert same(next(replay), next(untouched))


def test_sample_draws_anew_each_time() -> None:
    replay = replay_of(1000)
    assert not torch.equal(replay.sample(20).index, replay.sample(20).index)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first = [next(replay).index.tolist() for replay in [replay_of()] for _ in range(4)]
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert first == [next(replay).index.tolist() for replay in [replay_of()] for _ in range(4)]


def test_changing_a_batch_changes_no_later_one() -> None:
    replay, untouched = replay_of(), replay_of()
    for _ in range(5):
        batch = next(replay)
        assert same(batch, next(untouched))
        for name in ("obs", "label", "task"):
            batch[name].fill_(-1)


@given(
    batch_size=st.integers(1, 6),
    before=st.integers(0, 9),
    samples=st.integers(0, 2),
    task=st.booleans(),
)
def test_loaded_state_continues_identically(
    batch_size: int, before: int, samples: int, task: bool
) -> None:
    replay = replay_of(batch_size=batch_size)
    rows = torch.tensor([0, 2, 3, 9]) if task else torch.arange(10)
    replay.begin(int(task), rows)
    for _ in range(before):
        next(replay)
    for _ in range(samples):
        replay.sample(3)
    state = copy.deepcopy(replay.state_dict())
    resumed = replay_of(batch_size=batch_size, seed=7)
    resumed.begin(int(task), rows)
    resumed.load_state_dict(state)
    for _ in range(8):
        assert same(next(replay), next(resumed))
        assert same(replay.sample(2), resumed.sample(2))
        assert (replay.step, replay.epoch, replay.task) == (resumed.step, resumed.epoch, int(task))


def test_between_tasks_the_next_order_is_continued() -> None:
    replay, resumed = replay_of(), replay_of(seed=7)
    next(replay)
    resumed.load_state_dict(copy.deepcopy(replay.state_dict()), in_task=False)
    for one in (replay, resumed):
        one.begin(1, torch.tensor([4, 5, 6]))
    assert same(next(replay), next(resumed))


def transitions(steps: int) -> Replay:
    spec = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))
    ring = Transitions(spec, capacity=20, num_envs=1, discount=0.9)
    ring.start(np.zeros((1, 1), np.float32))
    for step in range(steps):
        ended = np.zeros(1, np.bool_)
        fields = {"action": np.array([1]), "reward": np.array([step], np.float32)}
        after = np.full((1, 1), step + 1, np.float32)
        ring.add({**fields, "terminated": ended, "truncated": ended, "next_obs": after}, task=2)
    return Replay(ring, Pixels(), batch_size=3)


def test_a_batch_of_transitions_has_these_fields() -> None:
    replay = transitions(5)
    batch = next(replay)
    assert set(batch) == {
        *("obs", "action", "reward", "discount", "next_obs"),
        *("terminated", "truncated", "task", "index"),
    }
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.reward, batch.obs[:, 0])
    assert batch.discount.tolist() == pytest.approx([0.9] * 3)
    assert batch.task.tolist() == [2] * 3
    assert (len(replay), len(batch), len(replay.sample(8))) == (5, 3, 8)


def test_environments_have_no_epochs() -> None:
    with pytest.raises(ConfigError, match="count steps instead"):
        _ = transitions(1).batches_per_epoch


def test_transitions_are_saved_with_the_replay() -> None:
    replay, resumed = transitions(5), transitions(1)
    next(replay)
    resumed.load_state_dict(copy.deepcopy(replay.state_dict()))
    for _ in range(4):
        assert same(next(replay), next(resumed))
