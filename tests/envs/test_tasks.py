"""A data set, or several, as a sequence of tasks over one storage."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.envs import Arrays, DataWorld
from antelope.envs.datasets import held_out_fifth
from antelope.replay import ConfigError, DataError, LazyColumn, Replay


def arrays(labels: list[int], name: str = "mine", first: int = 0) -> Arrays:
    """One input per label, numbered from `first`."""
    inputs = torch.arange(first, first + len(labels), dtype=torch.float32)[:, None]
    return Arrays(inputs, torch.tensor(labels), name)


def world_of(labels: list[int], tasks: int | None = None) -> DataWorld:
    return DataWorld([arrays(labels)], [arrays(labels, first=1000)], tasks=tasks)


@given(
    per_task=st.integers(1, 3),
    tasks=st.integers(1, 4),
    copies=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
)
def test_tasks_split_the_classes_in_order(per_task: int, tasks: int, copies: int, order) -> None:  # type: ignore[no-untyped-def]
    labels = list(range(per_task * tasks)) * copies
    order.shuffle(labels)
    world = world_of(labels, tasks)
    assert world.spec.num_tasks == len(world.tasks) == tasks
    for number, task in enumerate(world.tasks):
        classes = range(number * per_task, (number + 1) * per_task)
        for table, rows in ((world.train, task.train), (world.test, task.test)):
            # Labels stay global, and each class is there in full.
            found = table.gather(rows)["label"].tolist()
            assert Counter(found) == dict.fromkeys(classes, copies)
    every = torch.cat([task.train for task in world.tasks])
    assert sorted(every.tolist()) == list(range(len(labels)))


def test_names_say_the_classes() -> None:
    assert [task.name for task in world_of([0, 1, 2, 3], 2).tasks] == ["classes 0-1", "classes 2-3"]
    assert [task.name for task in world_of([0, 1], 2).tasks] == ["classes 0", "classes 1"]


def test_a_split_that_does_not_come_out_even_says_which_do() -> None:
    with pytest.raises(ConfigError, match=r"10 classes of mine into 3 .* to 1, 2, 5 or 10\."):
        world_of(list(range(10)), 3)


def test_values_cannot_be_split() -> None:
    values = Arrays(torch.zeros(4, 1), torch.rand(4, 1), "mine")
    with pytest.raises(ConfigError, match="splits classes"):
        DataWorld([values], [values], tasks=1)


def test_a_task_without_data_is_named() -> None:
    train, test = arrays([0, 1, 2, 3]), arrays([0, 1])
    with pytest.raises(DataError, match=r"Task 1 \(classes 2-3\) has no held-out data"):
        DataWorld([train], [test], tasks=2)


def test_several_data_sets_are_a_sequence() -> None:
    parts = [arrays([0, 1, 2], "a"), arrays([1, 0], "b", first=3)]
    tests = [arrays([0], "a", first=10), arrays([1, 1], "b", first=11)]
    world = DataWorld(parts, list(tests))
    assert (world.name, world.spec.num_tasks) == ("a-b", 2)
    assert [task.name for task in world.tasks] == ["a", "b"]
    obs = [world.train.gather(task.train)["obs"].flatten().tolist() for task in world.tasks]
    assert obs == [[0, 1, 2], [3, 4]]
    obs = [world.test.gather(task.test)["obs"].flatten().tolist() for task in world.tasks]
    assert obs == [[10], [11, 12]]


def test_several_data_sets_cannot_be_split_again() -> None:
    with pytest.raises(ConfigError, match="a list of data sets is a sequence already"):
        DataWorld([arrays([0, 1])] * 2, [arrays([0, 1])] * 2, tasks=2)


def test_several_data_sets_must_be_in_memory() -> None:
    lazy = LazyColumn([0.0, 1.0], lambda x: torch.tensor([x]), shape=(1,), dtype=torch.float32)
    parts = [arrays([0, 1]), Arrays(lazy, torch.tensor([0, 1]), "lazy")]
    with pytest.raises(DataError, match="in memory"):
        DataWorld(list(parts), list(parts))


def test_without_held_out_data_a_fifth_is_held_out() -> None:
    world = DataWorld([arrays([0, 1] * 10)], [None])
    train, test = (table.columns["obs"].flatten().tolist() for table in (world.train, world.test))
    assert (len(train), len(test)) == (16, 4)
    assert sorted(train + test) == list(range(20))
    assert len(world.tasks[0].train) == 16


def test_a_class_that_is_only_held_out_is_still_a_class() -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    _, held_out = held_out_fifth(Arrays(torch.zeros(10, 1), labels, "mine"))
    labels[held_out[0]] = 1
    world = DataWorld([Arrays(torch.zeros(10, 1), labels, "mine")], [None])
    assert world.spec.action.n == 2


def test_begin_lets_the_replay_give_one_tasks_rows() -> None:
    world = world_of([0, 1, 2, 3] * 3, 2)
    replay = Replay(world.train, lambda fields: fields, batch_size=6)
    for task, classes in enumerate(([0, 1], [2, 3])):
        world.begin(task, replay)
        batch = next(replay)
        assert Counter(batch.label.tolist()) == dict.fromkeys(classes, 3)
        assert batch.task.tolist() == [task] * 6


@pytest.mark.parametrize("task", [None, 1])
def test_resume_continues_in_a_task_or_between_two(task: int | None) -> None:
    world = world_of([0, 1, 2, 3] * 3, 2)
    replays = [Replay(world.train, lambda f: f, batch_size=4, seed=seed) for seed in (1, 2)]
    world.begin(task or 0, replays[0])
    next(replays[0])
    world.resume(task, replays[1], replays[0].state_dict())
    if task is None:
        for replay in replays:
            world.begin(1, replay)
    for _ in range(5):
        assert torch.equal(next(replays[0]).index, next(replays[1]).index)


def test_describes_itself_in_a_line() -> None:
    assert world_of([0, 1, 2, 3], 2).describe() == "mine, 4 to learn from, 4 held out, 2 tasks"
