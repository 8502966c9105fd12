"""Classes are divided into tasks as asked, and labels mean what the scenario says."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from antelope.envs import Arrays, DataWorld
from antelope.envs.scenarios import divide, held_out_share, listed
from antelope.replay import ConfigError, DataError


def arrays(labels: list[int], name: str = "mine") -> Arrays:
    """Inputs that say `[label, row]`."""
    inputs = torch.tensor([[label, row] for row, label in enumerate(labels)], dtype=torch.float32)
    return Arrays(inputs, torch.tensor(labels), name)


def world_of(labels: list[int], **settings: Any) -> DataWorld:
    return DataWorld([arrays(labels)], [arrays(sorted(set(labels)) * 2)], **settings)


def values() -> Arrays:
    return Arrays(torch.rand(4, 1), torch.rand(4, 1), "values")


def original(world: DataWorld, rows: Tensor) -> list[int]:
    """The class that rows of the training data had before anything was renumbered."""
    return world.train.gather(rows)["obs"][:, 0].int().tolist()


def labels_of(world: DataWorld, rows: Tensor) -> list[int]:
    return world.train.gather(rows)["label"].tolist()


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    """Labels of all rows, and settings that split their classes."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    copies = draw(st.integers(1, 9))
    labels = list(range(sum(sizes))) * copies
    random.Random(draw(st.integers(0, 99))).shuffle(labels)
    ways: list[dict[str, Any]] = [{"classes_per_task": sizes}]
    if len(set(sizes)) == 1:
        ways += [{"tasks": len(sizes)}, {"classes_per_task": sizes[0]}]
    orders = [None, "shuffled", draw(st.permutations(range(sum(sizes))))]
    order = draw(st.sampled_from(orders))
    return labels, {**draw(st.sampled_from(ways)), "class_order": order}


class TestSplits:
    @given(case=splits(), scenario=st.sampled_from([None, "class", "task"]))
    def test_every_row_is_in_the_one_task_that_has_its_class(
        self, case: tuple[list[int], dict[str, Any]], scenario: str | None
    ) -> None:
        labels, settings_ = case
        world = world_of(labels, scenario=scenario, **settings_)
        assert world.scenario == (scenario or "class")
        assert world.spec.num_tasks == len(world.tasks)
        assert world.spec.action.n == len(set(labels))
        every = torch.cat([task.train for task in world.tasks])
        assert sorted(every.tolist()) == list(range(len(labels)))
        classes = torch.cat([task.classes for task in world.tasks])
        assert sorted(classes.tolist()) == sorted(set(labels))
        for task in world.tasks:
            # Labels stay global, in the test data too.
            assert labels_of(world, task.train) == original(world, task.train)
            assert set(labels_of(world, task.train)) == set(task.classes.tolist())
            test = world.test.gather(task.test)["label"].tolist()
            assert Counter(test) == dict.fromkeys(task.classes.tolist(), 2)

    @given(case=splits())
    def test_sizes_and_order_are_those_asked_for(
        self, case: tuple[list[int], dict[str, Any]]
    ) -> None:
        labels, asked = case
        world = world_of(labels, **asked)
        sizes = [len(task.classes) for task in world.tasks]
        if isinstance(asked.get("classes_per_task"), list):
            assert sizes == asked["classes_per_task"]
        elif "tasks" in asked:
            assert sizes == [len(set(labels)) // asked["tasks"]] * asked["tasks"]
        else:
            assert set(sizes) == {asked["classes_per_task"]}
        order = torch.cat([task.classes for task in world.tasks]).tolist()
        if asked["class_order"] is None:
            assert order == sorted(set(labels))
        elif asked["class_order"] != "shuffled":
            assert order == asked["class_order"]

    def test_a_shuffled_order_is_drawn_from_the_seed(self) -> None:
        def order(seed: int) -> list[list[int]]:
            return divide(10, "mine", tasks=5, class_order="shuffled", seed=seed)

        assert order(1) == order(1)
        assert len({str(order(seed)) for seed in range(5)}) == 5
        world = world_of(list(range(10)), tasks=5, class_order="shuffled", seed=1)
        assert [task.classes.tolist() for task in world.tasks] == order(1)

    def test_names_say_the_classes(self) -> None:
        def names(classes: int, **settings: Any) -> list[str]:
            return [task.name for task in world_of(list(range(classes)), **settings).tasks]

        assert names(4, tasks=2) == ["classes 0-1", "classes 2-3"]
        assert names(2, tasks=2) == ["classes 0", "classes 1"]
        assert names(3, classes_per_task=[2, 1], class_order=[2, 0, 1]) == [
            "classes 2, 0",
            "classes 1",
        ]

    def test_many_classes_are_not_all_named(self) -> None:
        assert listed([9, *range(20, 30)]) == "9, 20, 21, 22, 23, 24, 25, 26, ... (11 in all)"

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"tasks": 3}, r"10 classes of mine into 3 .* to 1, 2, 5 or 10\."),
            ({"classes_per_task": 4}, r"into tasks of 4 .* to 1, 2, 5 or 10, or list"),
            ({"classes_per_task": 0}, r"into tasks of 0"),
            ({"classes_per_task": [5, 2, 2]}, r"\[5, 2, 2\] sums to 9; mine has 10 classes"),
            ({"classes_per_task": [11, -1]}, "every task needs one or more"),
            ({"tasks": 5, "classes_per_task": 5}, "disagree: the latter makes 2 tasks"),
            ({"tasks": 2, "classes_per_task": [5, 3, 2]}, "makes 3 tasks .* Give only one"),
            ({"tasks": 2, "class_order": [*range(8), 7]}, "missing: 8-9; repeated: 7"),
            ({"tasks": 2, "class_order": list(range(11))}, r"0 to 9 \(unknown: 10"),
            ({"tasks": 2, "class_order": "random"}, "class_order=shuffled, or list"),
            ({"class_order": "shuffled"}, "Say how many tasks there are, with tasks="),
            ({"tasks": 2, "scenario": "online"}, "Choose one of class, task, domain"),
            ({"tasks": 2, "validation": 0.6}, "validation=0.6 must be a share of the rows"),
        ],
    )
    def test_what_cannot_be_is_refused(self, asked: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            world_of(list(range(10)) * 2, **asked)

    def test_a_single_class_makes_one_task_only(self) -> None:
        with pytest.raises(ConfigError, match="Set `tasks` to 1\\."):
            world_of([0, 0], tasks=2)

    @pytest.mark.parametrize("asked", [{"tasks": 2}, {"classes_per_task": 2}])
    def test_values_cannot_be_split(self, asked: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"=2 splits classes, and the targets of values are"):
            DataWorld([values()], [values()], **asked)


class TestDomain:
    @given(case=splits())
    def test_labels_are_places_in_the_tasks_classes(
        self, case: tuple[list[int], dict[str, Any]]
    ) -> None:
        labels, asked = case
        groups = [t.classes.tolist() for t in world_of(labels, **asked).tasks]
        if len({len(group) for group in groups}) > 1:
            with pytest.raises(ConfigError, match="equally many classes in every task"):
                world_of(labels, scenario="domain", **asked)
            return
        world = world_of(labels, scenario="domain", **asked)
        n = len(groups[0])
        assert (world.scenario, world.spec.action.n, world.spec.action.high) == ("domain", n, n - 1)
        for task, group in zip(world.tasks, groups, strict=True):
            assert task.classes.tolist() == list(range(n))
            expected = [group.index(label) for label in original(world, task.train)]
            assert labels_of(world, task.train) == expected
            fields = world.test.gather(task.test)
            expected = [group.index(label) for label in fields["obs"][:, 0].int().tolist()]
            assert fields["label"].tolist() == expected

    def test_what_was_read_keeps_its_labels(self) -> None:
        part = arrays([0, 1, 2, 3])
        DataWorld([part], [part], tasks=2, scenario="domain")
        assert part.targets.tolist() == [0, 1, 2, 3]


class TestLists:
    def parts(self) -> tuple[list[Arrays], list[Arrays | None]]:
        train = [arrays([0, 1, 2], "a"), arrays([1, 0], "b"), arrays([0, 3], "c")]
        return train, [arrays([2], "a"), arrays([0, 1], "b"), arrays([3], "c")]

    @pytest.mark.parametrize("scenario", [None, "domain"])
    def test_share_their_labels(self, scenario: str | None) -> None:
        world = DataWorld(*self.parts(), scenario=scenario)
        assert (world.scenario, world.spec.action.n) == ("domain", 4)
        assert world.train.columns["label"].tolist() == [0, 1, 2, 1, 0, 0, 3]
        assert [task.classes.tolist() for task in world.tasks] == [[0, 1, 2, 3]] * 3

    @pytest.mark.parametrize("scenario", ["class", "task"])
    def test_have_outputs_of_their_own(self, scenario: str) -> None:
        world = DataWorld(*self.parts(), scenario=scenario)
        assert (world.scenario, world.spec.action.n) == (scenario, 9)
        assert world.train.columns["label"].tolist() == [0, 1, 2, 4, 3, 5, 8]
        assert world.test.columns["label"].tolist() == [2, 3, 4, 8]
        classes = [task.classes.tolist() for task in world.tasks]
        assert classes == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]

    def test_a_held_out_label_must_not_be_one_of_the_next_data_set(self) -> None:
        train, test = self.parts()
        test[1] = arrays([2], "b")
        with pytest.raises(DataError, match=r"b holds label 2, .* classes 0 to 1"):
            DataWorld(train, test, scenario="class")

    def test_of_one_is_one_data_set(self) -> None:
        assert len(DataWorld([arrays([0, 1])], [arrays([0, 1])], tasks=2).tasks) == 2

    @pytest.mark.parametrize("asked", [{"tasks": 2}, {"classes_per_task": 1, "class_order": [0]}])
    def test_are_not_split_again(self, asked: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"=.* splits a single data set; a list"):
            DataWorld(*self.parts(), **asked)

    @pytest.mark.parametrize("scenario", ["class", "task"])
    def test_of_values_have_no_classes_to_tell_apart(self, scenario: str) -> None:
        with pytest.raises(ConfigError, match="the targets of values are values"):
            DataWorld([values(), values()], [None, None], scenario=scenario)
        assert DataWorld([values(), values()], [None, None]).scenario == "domain"


class TestOneTask:
    def test_has_all_classes(self) -> None:
        world = world_of([0, 1, 2])
        assert (world.scenario, world.task_transform) == ("class", None)
        assert world.tasks[0].classes.tolist() == [0, 1, 2]
        assert DataWorld([values()], [None]).scenario == "domain"

    @pytest.mark.parametrize("scenario", ["class", "task", "domain"])
    def test_is_no_scenario(self, scenario: str) -> None:
        with pytest.raises(ConfigError, match=r"mine is a single one\. Give tasks="):
            world_of([0, 1], scenario=scenario)
        assert world_of([0, 1], tasks=1, scenario=scenario).scenario == scenario


class TestValidation:
    @given(
        labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
        share=st.floats(0.01, 0.5),
    )
    def test_the_same_share_of_every_class_is_held_out(
        self, labels: list[int], share: float
    ) -> None:
        chosen = held_out_share(torch.tensor(labels), share)
        for label, count in Counter(labels).items():
            held = int(chosen[torch.tensor(labels) == label].sum())
            assert held == 0 if count == 1 else abs(held - share * count) < 1
            assert held >= 1 or count == 1
            assert held < count

    @given(case=splits(), share=st.sampled_from([0.1, 0.25, 0.5]))
    def test_it_is_taken_from_each_tasks_training_rows(
        self, case: tuple[list[int], dict[str, Any]], share: float
    ) -> None:
        labels, asked = case
        labels = labels * 2  # No class with a single row.
        world, whole = world_of(labels, validation=share, **asked), world_of(labels, **asked)
        chosen = held_out_share(torch.tensor(labels), share)
        for task, before in zip(world.tasks, whole.tasks, strict=True):
            assert task.validation is not None
            assert before.validation is None
            assert torch.equal(torch.cat([task.train, task.validation]).sort()[0], before.train)
            # Which rows depends on neither the order nor the number of tasks.
            assert chosen[task.validation].all()
            assert not chosen[task.train].any()
            assert torch.equal(task.test, before.test)
            assert set(labels_of(world, task.validation)) == set(task.classes.tolist())

    def test_classes_are_held_out_alike_where_outputs_are_shared(self) -> None:
        labels = [0, 1, 2, 3] * 10
        settings = {"validation": 0.2, "tasks": 2}
        rows = [
            [task.validation for task in world_of(labels, scenario=scenario, **settings).tasks]
            for scenario in ("class", "domain")
        ]
        for one, other in zip(*rows, strict=True):
            assert torch.equal(one, other)

    def test_each_data_set_of_a_list_and_values_too(self) -> None:
        world = DataWorld([arrays([0, 1] * 5), arrays([0] * 10)], [None, None], validation=0.25)
        sizes = [(len(task.train), len(task.validation)) for task in world.tasks]
        assert sizes == [(6, 2), (6, 2)]
        rows = torch.rand(20, 1)
        world = DataWorld([Arrays(rows, rows, "mine")], [None], validation=0.25)
        assert len(world.tasks[0].validation) == 4
        assert sorted(
            torch.cat([world.tasks[0].train, world.tasks[0].validation]).tolist()
        ) == list(range(16))

    @pytest.mark.parametrize("share", [None, 0.0])
    def test_nothing_is_held_out_unless_asked(self, share: float | None) -> None:
        task = world_of([0, 1] * 9, validation=share).tasks[0]
        assert (task.validation, len(task.train)) == (None, 18)

    def test_too_few_rows_are_an_error(self) -> None:
        with pytest.raises(DataError, match="too few for validation="):
            world_of([0, 1, 1, 0, 2], classes_per_task=[2, 1], validation=0.5)
