"""A data set, or several, as a sequence of tasks over one storage."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from antelope.envs import Arrays, DataWorld
from antelope.envs.arrays import held_out_fifth
from antelope.replay import ConfigError, DataError, LazyColumn, Replay


def arrays(labels: list[int], name: str = "mine", first: int = 0) -> Arrays:
    """One input per label, numbered from `first`."""
    inputs = torch.arange(first, first + len(labels), dtype=torch.float32)[:, None]
    return Arrays(inputs, torch.tensor(labels), name)


def world_of(labels: list[int], tasks: int | None = None) -> DataWorld:
    return DataWorld([arrays(labels)], [arrays(labels, first=1000)], tasks=tasks)


def of_tasks(world: DataWorld, **settings: int) -> Replay:
    """A replay over the world's tasks."""
    rows = [task.train for task in world.tasks]
    return Replay(
        world.train,
        lambda fields: fields,
        tasks=rows,
        task_transform=world.task_transform,
        **settings,
    )


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
    with pytest.raises(ConfigError, match="a list of data sets is already a sequence"):
        DataWorld([arrays([0, 1])] * 2, [arrays([0, 1])] * 2, tasks=2)


def test_several_data_sets_must_be_in_memory() -> None:
    lazy = LazyColumn([0.0, 1.0], lambda x: torch.tensor([x]), shape=(1,), dtype=torch.float32)
    parts = [arrays([0, 1]), Arrays(lazy, torch.tensor([0, 1]), "lazy")]
    with pytest.raises(DataError, match=r"^lazy is read .*in memory: replace random .* with aug="):
        DataWorld(list(parts), list(parts))


@pytest.mark.parametrize("lazy", ["train", "test"])
def test_nothing_is_added_to_data_that_is_not_in_memory(lazy: str) -> None:
    parts = {"train": arrays([0, 1]), "test": arrays([0, 1])}
    inputs = LazyColumn([0.0, 1.0], lambda x: torch.tensor([x]), shape=(1,), dtype=torch.float32)
    parts[lazy] = Arrays(inputs, torch.tensor([0, 1]), "mine")
    world = DataWorld([parts["train"]], [parts["test"]], num_classes=3)
    what = {"train": "^mine", "test": "^Held-out data of mine"}[lazy]
    with pytest.raises(ConfigError, match=rf"{what} is read from its source.*Replace random"):
        world.add(arrays([2]), arrays([2]))


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
    replay = of_tasks(world, batch_size=6)
    for task, classes in enumerate(([0, 1], [2, 3])):
        world.begin(task, replay)
        batch = next(replay)
        assert Counter(batch.label.tolist()) == dict.fromkeys(classes, 3)
        assert batch.task.tolist() == [task] * 6


@pytest.mark.parametrize("task", [None, 1])
def test_resume_continues_in_a_task_or_between_two(task: int | None) -> None:
    world = world_of([0, 1, 2, 3] * 3, 2)
    replays = [of_tasks(world, batch_size=4, seed=seed) for seed in (1, 2)]
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
    world = DataWorld([arrays([0, 1] * 10)], [arrays([0, 1])], tasks=2, validation=0.2)
    expected = "mine, 16 to learn from, 4 to validate with, 2 held out, 2 tasks"
    assert world.describe() == expected


def test_held_out_inputs_that_are_drawn_are_said() -> None:
    def drawn(changes: bool) -> Arrays:
        inputs = LazyColumn(
            [0.0, 1.0] * 5, lambda x: torch.tensor([x]), shape=(1,), dtype=torch.float32
        )
        inputs.changes = changes
        return Arrays(inputs, torch.tensor([0, 1] * 5), "mine")

    says = "held-out inputs, too, are sampled at every reading"
    assert says in DataWorld([drawn(True)], [None]).describe()
    assert says not in DataWorld([drawn(False)], [None]).describe()
    assert says not in DataWorld([drawn(True)], [arrays([0, 1])]).describe()
