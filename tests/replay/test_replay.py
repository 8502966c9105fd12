"""`Replay`: batches without end, sampling on the side, and exact continuation."""

from __future__ import annotations

import copy
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import (
    Batch,
    CheckpointError,
    ConfigError,
    Observations,
    Replay,
    Space,
    Spec,
    Table,
    Transitions,
)


def replay_of(rows: int = 10, batch_size: int = 4, seed: int = 0, **options: Any) -> Replay:
    table = Table(obs=torch.arange(rows * 2.0).view(rows, 2), label=torch.arange(rows))
    return Replay(table, lambda fields: fields, batch_size=batch_size, seed=seed, **options)


def tasks_of(*tasks: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(rows) for rows in tasks]


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
    replay = replay_of(tasks=tasks_of([0], [2], [3], [1, 5, 7, 8, 9]))
    assert replay.num_tasks == 4
    replay.begin(3)
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
    tasks = tasks_of(list(range(10)), [0, 2, 3, 9])
    replay = replay_of(batch_size=batch_size, tasks=tasks)
    replay.begin(int(task))
    for _ in range(before):
        next(replay)
    for _ in range(samples):
        replay.sample(3)
    state = copy.deepcopy(replay.state_dict())
    resumed = replay_of(batch_size=batch_size, seed=7, tasks=tasks)
    resumed.begin(int(task))
    resumed.load_state_dict(state)
    for _ in range(8):
        assert same(next(replay), next(resumed))
        assert same(replay.sample(2), resumed.sample(2))
        assert (replay.step, replay.epoch, replay.task) == (resumed.step, resumed.epoch, int(task))


def test_between_tasks_the_next_order_is_continued() -> None:
    tasks = tasks_of([0, 1, 2, 3], [4, 5, 6])
    replay, resumed = replay_of(tasks=tasks), replay_of(seed=7, tasks=tasks)
    next(replay)
    resumed.load_state_dict(copy.deepcopy(replay.state_dict()), in_task=False)
    for one in (replay, resumed):
        one.begin(1)
    assert same(next(replay), next(resumed))


def test_several_tasks_are_given_together_and_each_row_knows_its_own() -> None:
    replay = replay_of(tasks=tasks_of([0, 1, 2], [3, 4], [5, 6, 7]), batch_size=3)
    replay.begin(2)
    replay.use_tasks([0, 2])
    batches = [next(replay) for _ in range(2)]
    index = torch.cat([batch.index for batch in batches])
    task = torch.cat([batch.task for batch in batches])
    assert sorted(index.tolist()) == [0, 1, 2, 5, 6, 7]
    assert torch.equal(task, torch.where(index < 3, 0, 2))
    drawn = replay.sample(40)
    assert set(drawn.index.tolist()) == {0, 1, 2, 5, 6, 7}
    assert torch.equal(drawn.task, torch.where(drawn.index < 3, 0, 2))
    resumed = replay_of(tasks=tasks_of([0, 1, 2], [3, 4], [5, 6, 7]), batch_size=3, seed=5)
    resumed.begin(2)
    resumed.load_state_dict(copy.deepcopy(replay.state_dict()))
    for _ in range(5):
        assert same(next(replay), next(resumed))


def test_of_no_task_nothing_is_given() -> None:
    replay = replay_of(tasks=tasks_of([0, 1], [2]))
    replay.use_tasks([])
    assert (len(replay), replay.batches_per_epoch) == (0, 0)


def test_one_pass_in_stored_order_moves_nothing() -> None:
    tasks = tasks_of([9, 0, 4], [3])
    replay, untouched = (replay_of(tasks=tasks, batch_size=2) for _ in range(2))
    assert [batch.index.tolist() for batch in replay.once(2)] == [[9, 0], [4]]
    replay.use_tasks([1, 0])
    untouched.use_tasks([1, 0])
    assert torch.cat([batch.task for batch in replay.once(3)]).tolist() == [1, 0, 0, 0]
    assert same(next(replay), next(untouched))


def test_rows_are_altered_by_their_own_task_wherever_they_are_drawn() -> None:
    def alter(obs: torch.Tensor, task: Any) -> torch.Tensor:
        return obs + 100 * (task if isinstance(task, int) else task[:, None])

    replay = replay_of(tasks=tasks_of([0, 1, 2], [0, 1, 2]), task_transform=alter)
    replay.begin(1)
    for batch in (next(replay), replay.sample(5), *replay.once()):
        assert torch.equal(batch.obs[:, 0], batch.index * 2.0 + 100)
    replay.use_tasks([0, 1])
    for batch in (next(replay), replay.sample(5), *replay.once()):
        assert torch.equal(batch.obs[:, 0], batch.index * 2.0 + 100 * batch.task)
        assert len(set(batch.task.tolist())) == 2


def test_without_borders_every_row_is_of_task_0() -> None:
    replay = replay_of(
        tasks=tasks_of([0, 1], [2, 3]),
        borders=False,
        task_transform=lambda obs, task: obs + 100 * task,
    )
    replay.begin(1)
    batch = next(replay)
    assert (replay.task, batch.task.tolist()) == (0, [0, 0])
    assert sorted(batch.obs[:, 0].tolist()) == [104, 106]  # Yet they are what they are.


def test_a_batch_is_changed_before_it_is_given_and_remembered_as_given() -> None:
    replay = replay_of()
    assert replay.batch is None
    replay.before = lambda batch: batch[:1]
    batch = next(replay)
    assert len(batch) == 1
    assert replay.batch is batch
    assert len(replay.sample(3)) == 3
    assert replay.batch is batch


# ------------------------------------------------------------------------------- environments


SPEC = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))


def extend(ring: Transitions, steps: int) -> None:
    """Go on with the numbers 0, 1, 2, ... as observations, and each one's as reward."""
    for _ in range(steps):
        number = int(ring.time[0])
        ended = np.zeros(1, np.bool_)
        fields = {"action": np.array([1]), "reward": np.array([number], np.float32)}
        after = np.full((1, 1), number + 1, np.float32)
        ring.add({**fields, "terminated": ended, "truncated": ended, "next_obs": after}, task=2)


def transitions(steps: int, *, capacity: int = 20, seed: int = 0, **options: Any) -> Replay:
    ring = Transitions(SPEC, capacity=capacity, num_envs=1, discount=0.9)
    ring.start(np.zeros((1, 1), np.float32))
    extend(ring, steps)
    return Replay(ring, Observations(SPEC.obs), **{"batch_size": 3, "seed": seed, **options})


def ring_of(replay: Replay) -> Transitions:
    assert isinstance(replay.storage, Transitions)
    return replay.storage


FIELDS = {
    *("obs", "action", "reward", "discount", "next_obs"),
    *("terminated", "truncated", "task", "index"),
}


def test_a_batch_of_transitions_has_these_fields() -> None:
    replay = transitions(5)
    batch = next(replay)
    assert set(batch) == FIELDS
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.reward, batch.obs[:, 0])
    assert batch.discount.tolist() == pytest.approx([0.9] * 3)
    assert batch.task.tolist() == [2] * 3
    assert (len(replay), len(batch), len(replay.sample(8))) == (5, 3, 8)
    types = {name: batch[name].dtype for name in batch}
    assert {n for n, t in types.items() if t == torch.float32} == {
        *("obs", "reward", "discount", "next_obs"),
    }
    assert {n for n, t in types.items() if t == torch.int64} == {"action", "task", "index"}
    assert {n for n, t in types.items() if t == torch.bool} == {"terminated", "truncated"}


def test_a_prioritised_batch_has_weights_too_and_learns_priorities() -> None:
    replay = transitions(10, batch_size=200, priorities={"alpha": 1.0, "beta": 1.0})
    assert replay.prioritized
    batch = next(replay)
    assert set(batch) == FIELDS | {"weight"}
    assert batch.weight.tolist() == [1.0] * 200
    # As under autocast; and a network's output still has its graph.
    error = (batch.obs[:, 0] == 3).to(torch.bfloat16).requires_grad_()
    replay.update_priorities(batch.index, error)
    batch = next(replay)
    # The others keep a millionth of its chance.
    assert (batch.obs[:, 0] == 3).sum() > 190
    assert not transitions(1).prioritized


def test_priorities_need_a_prioritised_replay_and_one_for_each_row() -> None:
    plain, prioritised = transitions(5), transitions(5, priorities={})
    with pytest.raises(ConfigError, match=r"replay\.prioritized=true"):
        plain.update_priorities(next(plain).index, torch.ones(3))
    with pytest.raises(ConfigError, match=r"\[3, 1\]; this batch needs \[3\]"):
        prioritised.update_priorities(next(prioritised).index, torch.ones(3, 1))


def test_sequences_are_batches_of_time_and_have_one_priority_each() -> None:
    replay = transitions(10, batch_size=64, sequence=4, priorities={"alpha": 1.0})
    batch = next(replay)
    assert set(batch) == FIELDS | {"weight", "mask", "is_first"}
    assert {tuple(batch[n].shape) for n in FIELDS - {"obs", "next_obs"}} == {(64, 4)}
    assert (batch.obs.shape, batch.weight.shape) == ((64, 4, 1), (64,))
    start = batch.obs[:, 0, 0]
    assert batch.mask.sum(1).tolist() == (10 - start).clamp(max=4).tolist()
    assert torch.equal(batch.is_first, (batch.obs[..., 0] == 0))
    replay.update_priorities(batch.index, (start == 2).float())
    assert (next(replay).obs[:, 0, 0] == 2).float().mean() > 0.95


def test_rollouts_have_all_that_is_new() -> None:
    replay = transitions(4)
    assert replay.new_steps == 4
    rollout = replay.rollout()
    assert set(rollout) == FIELDS | {"mask", "is_first"}
    assert rollout.obs[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert replay.new_steps == 0
    extend(ring_of(replay), 2)
    assert replay.rollout().obs[:, 0, 0].tolist() == [4, 5]
    rollout = transitions(4, priorities={}).rollout()
    assert set(rollout) == FIELDS | {"mask", "is_first"}


def test_data_has_no_rollouts_and_environments_no_epochs() -> None:
    for ask in (lambda r: r.rollout(), lambda r: r.new_steps):
        with pytest.raises(ConfigError, match="this run learns from a data set"):
            ask(replay_of())
    with pytest.raises(ConfigError, match="count steps instead"):
        _ = transitions(1).batches_per_epoch


@pytest.mark.parametrize("options", [{}, {"priorities": {}}, {"sequence": 3}])
def test_the_seed_decides_what_is_drawn_and_sample_changes_nothing(options: dict[str, Any]) -> None:
    replay, same_seed, other = (transitions(18, seed=s, **options) for s in (5, 5, 6))
    torch.manual_seed(0)
    differs = False
    for step in range(6):
        batch = next(replay)
        if step % 2:
            torch.rand(1)
            first, again = same_seed.sample(4), same_seed.sample(4)
            differs |= not torch.equal(first.index, again.index)
        assert same(batch, next(same_seed))
        for one in (replay, same_seed, other):
            extend(ring_of(one), 1)
    assert differs
    indices = [torch.stack([next(r).index for _ in range(4)]) for r in (replay, other)]
    assert not torch.equal(*indices)


@pytest.mark.parametrize("options", [{}, {"priorities": {"anneal": 9}}, {"sequence": 3}])
def test_a_saved_replay_of_environments_continues_identically(
    options: dict[str, Any], tmp_path: Path
) -> None:
    replay, resumed = transitions(25, seed=1, **options), transitions(3, seed=2, **options)
    if "priorities" in options:
        replay.update_priorities(next(replay).index, torch.tensor([3.0, 0.1, 2.0]))
    extend(ring_of(replay), 2)
    next(replay)
    replay.save(tmp_path / "replay")
    resumed.load(tmp_path / "replay")
    for _ in range(10):
        batch = next(replay)
        assert same(batch, next(resumed))
        assert same(replay.sample(2), resumed.sample(2))
        for one in (replay, resumed):
            if one.prioritized:
                one.update_priorities(batch.index, batch.reward)
            extend(ring_of(one), 1)
    assert (replay.step, len(replay)) == (resumed.step, len(resumed))


def test_a_state_of_another_kind_of_replay_is_refused() -> None:
    with pytest.raises(CheckpointError, match="environment steps, this one a data set"):
        replay_of().load_state_dict(transitions(3).state_dict())
    with pytest.raises(CheckpointError, match="a data set, this one environment steps"):
        transitions(3).load_state_dict(replay_of().state_dict())
    with pytest.raises(CheckpointError, match=r"replay\.prioritized"):
        transitions(3).load_state_dict(transitions(3, priorities={}).state_dict())


@pytest.mark.parametrize("options", [{}, {"priorities": {}}, {"sequence": 4}])
def test_a_reader_meets_whole_transitions_while_a_writer_goes_on(
    options: dict[str, Any], tmp_path: Path
) -> None:
    # A small ring: what is drawn is about to be overwritten.
    replay = transitions(60, capacity=64, batch_size=32, **options)
    stop, failures = threading.Event(), []

    def write() -> None:
        try:
            while not stop.is_set():
                extend(ring_of(replay), 1)
        except BaseException as error:
            failures.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        until, batches = time.monotonic() + 0.5, 0
        while time.monotonic() < until:
            for batch in (next(replay), replay.sample(16)):
                assert torch.equal(batch.next_obs, batch.obs + 1)
                assert torch.equal(batch.reward, batch.obs[..., 0])
                if "mask" in batch:
                    steps = batch.obs[:, 1:, 0] - batch.obs[:, :-1, 0]
                    assert torch.equal(steps == 1, batch.mask[:, 1:])
            if replay.prioritized:
                batch = next(replay)
                replay.update_priorities(batch.index, batch.weight)
            batches += 1
        replay.save(tmp_path / "replay")
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(switch)
    assert not failures
    assert batches > 20
    assert ring_of(replay).time[0] > 300
    saved = transitions(1, capacity=64, batch_size=200, **options)
    saved.load(tmp_path / "replay")
    batch = next(saved)
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.reward, batch.obs[..., 0])
    assert len(saved) == 64


def test_former_names_work_and_warn() -> None:
    replay = transitions(4)
    with pytest.warns(DeprecationWarning, match=r"replay\.fresh is now replay\.new_steps"):
        assert replay.fresh == replay.new_steps
    data = replay_of(tasks=[torch.arange(2), torch.arange(2, 5)])
    with pytest.warns(DeprecationWarning, match=r"replay\.give is now replay\.use_tasks"):
        data.give([0, 1])
    assert data.given == [0, 1]
