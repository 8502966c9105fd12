"""Labels of any values are numbered 0 to n - 1, the same for all parts of a run, and a person is told."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset, random_split

from antelope import ml
from antelope.envs import DataWorld, read
from antelope.envs.numbering import number_labels
from antelope.replay import ConfigError, DataError

N = 60
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))


def labels(*values: Any) -> Any:
    """These values in turn, `[N]`."""
    return np.array(values)[np.arange(N) % len(values)]


class Named(TensorDataset):
    """A data set with a list of its classes."""

    def __init__(self, targets: Any, *classes: str):
        super().__init__(X, torch.as_tensor(targets))
        self.classes = list(classes)


def world_of(train: Any, test: Any = None, **settings: Any) -> DataWorld:
    """The world of one data set, its labels numbered as in a run."""
    parts = [None if s is None else read(s, name=n) for s, n in ((train, "mine"), (test, "held"))]
    assert parts[0] is not None
    first, second = number_labels(parts[0], parts[1])
    return DataWorld([first], [second], **settings)


class TestNumbering:
    @pytest.mark.parametrize(
        ("values", "names"),
        [
            ((0, 1, 2), None),
            ((2, 0, 1), None),
            ((1, 2, 3), ("1", "2", "3")),
            ((0, 1, 1_000_000), ("0", "1", "1000000")),
            ((10**9, -(10**9)), ("-1000000000", "1000000000")),
            ((-1, 1), ("-1", "1")),
            ((0, 1, 255), ("0", "1", "255")),
            ((True, False), ("False", "True")),
            (("dog", "cat", "eel"), ("cat", "dog", "eel")),
            (("10", "9"), ("10", "9")),
        ],
    )
    def test_is_in_sorted_order(self, learn: Any, values: Any, names: Any) -> None:
        given = labels(*values)
        run = learn(dataset=(X, given), test_dataset=(X, given))
        order = sorted(values)
        assert (run.spec.action.n, run.spec.action.names) == (len(values), names)
        drawn = run.replay.sample(50)
        expected = [order.index(given[i]) for i in drawn.index.tolist()]
        assert drawn.label.tolist() == expected

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            (
                (1, 2, 255),
                "labels 1, 2, 255 are numbered 0 to 2; 255 often marks rows to be ignored",
            ),
            ((-100, 0, 1), "-100 often marks rows to be ignored"),
            ((-1, 0, 1), "-1 often marks"),
            (tuple(range(1, 31)), "labels 1 to 30 are numbered 0 to 29$"),
            ((3, 7), "labels 3, 7 are numbered 0 and 1$"),
            (("cat", "dog"), "labels cat, dog are numbered 0 and 1$"),
            (
                tuple(range(0, 90, 3)),
                r"labels 0, 3, 6, 9, \.\.\. 87 \(30 in all\) are numbered 0 to 29",
            ),
            (tuple(range(0, 180, 3)), "60 different labels in 60 rows: give floats if"),
        ],
    )
    def test_is_said(self, values: Any, says: str) -> None:
        world = world_of((X, labels(*values)))
        assert len(world.notes) == 1
        assert re.search(says, world.describe())

    def test_is_not_said_where_nothing_was_done(self) -> None:
        assert world_of((X, labels(0, 1, 2))).notes == []

    def test_is_printed(self, learn: Any, capsys: pytest.CaptureFixture[str]) -> None:
        learn(dataset=(X, labels(1, 2, 9)), progress=True)
        assert "labels 1, 2, 9 are numbered 0 to 2" in capsys.readouterr().out

    def test_of_held_out_data_is_that_of_the_training_data(self) -> None:
        world = world_of((X, labels(1, 5, 9)), (X[:2], np.array([9, 5])))
        assert world.test.columns["label"].tolist() == [2, 1]

    @pytest.mark.parametrize(
        ("train", "test", "says"),
        [
            ((0, 1, 2), (0, 3), "holds label 3, which is not among the training data's: 0 to 2"),
            ((0, 2), (0, 1), "holds label 1, which is not among the training data's: 0, 2"),
            (("a", "b"), ("a", "c"), "holds label c, which is not among the training data's: a, b"),
            ((0, 1), ("a", "b"), "holds label a, which is not"),
            ((True,), (False,), "holds label False, which is not"),
        ],
    )
    def test_a_held_out_label_that_is_never_learnt_is_named(
        self, learn: Any, train: Any, test: Any, says: str
    ) -> None:
        with pytest.raises(DataError, match=says):
            learn(dataset=(X, labels(*train)), test_dataset=(X, labels(*test)))

    def test_a_class_that_is_only_learnt_is_a_class(self, learn: Any) -> None:
        run = learn(dataset=(X, labels(2, 4, 6)), test_dataset=(X, labels(4)))
        assert run.spec.action.names == ("2", "4", "6")

    @pytest.mark.parametrize("targets", [torch.arange(3000), [f"id {i}" for i in range(3000)]])
    def test_thousands_of_classes_of_a_row_each_are_refused(self, targets: Any) -> None:
        with pytest.raises(DataError, match=r"3,000 different .*Give .*fewer classes"):
            world_of((torch.zeros(3000, 1), targets))
        many = torch.arange(3000) // 3  # A thousand classes are no mistake.
        assert world_of((torch.zeros(3000, 1), many)).spec.action.n == 1000

    @pytest.mark.parametrize(("label", "name"), [(0, "0"), (7, "7"), (True, "True")])
    def test_a_single_class_is_a_warning(self, learn: Any, label: Any, name: str) -> None:
        says = rf"All rows of arrays have the same class \({name}\), so an accuracy of 1.0 means nothing"
        with pytest.warns(UserWarning, match=says):
            run = learn(dataset=(X, labels(label)))
        assert run.spec.action.n == 1

    def test_a_single_class_per_task_is_none(self, learn: Any) -> None:
        assert learn(dataset=[(X, labels(0)), (X, labels(1))]).spec.action.n == 2

    def test_a_single_class_is_said_in_the_header(self) -> None:
        assert "have the same class (4): an accuracy" in world_of((X, labels(4))).describe()


class TestTargets:
    @pytest.mark.parametrize("convert", [Tensor.float, Tensor.long, Tensor.bool])
    def test_one_hot_rows_are_asked_for_as_numbers(self, learn: Any, convert: Any) -> None:
        rows = torch.nn.functional.one_hot(torch.as_tensor(labels(0, 1, 2)))
        with pytest.raises(DataError, match=r"one-hot rows \[60, 3\].*targets\.argmax\(1\)"):
            learn(dataset=(X, convert(rows)))

    def test_several_words_per_row_are_asked_for_as_columns_of_0_and_1(self) -> None:
        for kind in (list, set):
            words = [kind(["a", "b"][: 1 + i % 2]) for i in range(N)]
            with pytest.raises(DataError, match=r"several words per row.*MultiLabelBinarizer"):
                world_of((X, words))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
    def test_several_columns_of_0_and_1_are_several_labels(self, dtype: torch.dtype) -> None:
        rows = torch.tensor([[0, 1, 1], [0, 0, 0]])[torch.arange(N) % 2].to(dtype)
        world = world_of((X, rows))
        space = world.spec.action
        assert (space.kind, space.shape, space.binary) == ("labels", (3,), True)
        # Only floats may have been meant as values.
        assert ("loss=MSELoss" in world.describe()) == dtype.is_floating_point

    def test_labels_are_named_by_what_the_data_lists_or_by_columns(self) -> None:
        rows = torch.tensor([[0, 1], [1, 1]])[torch.arange(N) % 2]
        assert world_of(Named(rows, "cat", "dog")).spec.action.names == ("cat", "dog")
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rows.numpy(), columns=["cat", "dog"])
        assert world_of((X, frame)).spec.action.names == ("cat", "dog")
        assert world_of((X, rows)).spec.action.names is None

    def test_whole_floats_are_values_and_it_is_said(self) -> None:
        world = world_of((X, labels(0.0, 1.0, 2.0)))
        assert not world.spec.discrete
        assert "integers are classes" in world.describe()
        assert world_of((X, labels(0.0, 1.5))).notes == []

    @pytest.mark.parametrize(
        ("targets", "says"),
        [
            (["a", "b", None] * 20, "item 2 has None"),
            (["a", 1] * 30, "words in some rows and numbers in others"),
            (np.array(["a", None] * 30, object), "item 1 has None"),
            (np.array(["a", np.nan] * 30, object), "item 1 has nan"),
            ([2**63] * N, "too large for int64"),
            (labels(0, 1) + 1j, "view_as_real"),
            (np.zeros((N, 2, 2), int), "one number per row"),
            (np.array([["a", "b"]] * N), "one word per row"),
        ],
    )
    def test_that_are_neither_classes_nor_values(self, targets: Any, says: str) -> None:
        with pytest.raises(DataError, match=says):
            world_of((X, targets))

    def test_a_column_of_words(self) -> None:
        assert world_of((X, labels("b", "a")[:, None])).spec.action.names == ("a", "b")


class TestDeclaredClasses:
    def test_keep_their_numbers(self, learn: Any) -> None:
        run = learn(dataset=Named(labels(0, 2), "cat", "dog", "eel"))
        assert (run.spec.action.n, run.spec.action.names) == (3, ("cat", "dog", "eel"))

    def test_may_have_several_names_each(self) -> None:
        source = Named(labels(0, 1))
        source.classes = [("cat", "Felis catus"), ("dog",)]  # type: ignore[list-item]
        assert world_of(source).spec.action.names == ("cat, Felis catus", "dog")

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda source: Subset(source, range(40)),
            lambda source: Subset(Subset(source, range(50)), range(40)),
            lambda source: random_split(source, [40, 20])[0],
        ],
    )
    def test_are_those_of_a_subset_too(self, wrap: Any) -> None:
        source = wrap(Named(labels(0, 1), "cat", "dog"))
        assert world_of(source).spec.action.names == ("cat", "dog")

    @pytest.mark.parametrize("values", [(1, 2, 3), (-1, 0, 1), (0, 1, 255)])
    def test_that_do_not_fit_the_labels(self, values: Any) -> None:
        with pytest.raises(DataError, match=r"attribute `classes`.*Count labels from 0"):
            world_of(Named(labels(*values), "cat", "dog", "eel"))

    def test_that_are_words_where_others_are_numbers(self, learn: Any) -> None:
        words = (X, np.array(["0", "1"])[np.arange(N) % 2])
        message = "0, 1. The former is a number, the latter are words: convert one of them."
        with pytest.raises(DataError, match=message):
            learn(dataset=words, test_dataset=(X, labels(0, 1)))
        with pytest.raises(DataError, match=message):
            learn(dataset=words).evaluate((X, labels(0, 1)))

    def test_number_words_as_they_are_listed(self) -> None:
        class Words(TensorDataset):
            classes = ("eel", "cat")

            def __getitem__(self, i: int) -> Any:
                return self.tensors[0][i], self.classes[i % 2]

        world = world_of(Words(X))
        assert world.spec.action.names == ("eel", "cat")
        assert world.train.columns["label"][:2].tolist() == [0, 1]

    def test_in_another_order_in_held_out_data(self) -> None:
        train, test = Named(labels(0, 1), "cat", "dog"), Named(labels(0, 1), "dog", "cat")
        assert world_of(train, test).test.columns["label"][:2].tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("test", "says"),
        [
            (Named(labels(0, 1), "dog", "eel"), "class eel, which is not among.*: cat, dog"),
            ((X, labels(0, 2)), "holds label 2, but mine declares 2 classes"),
        ],
    )
    def test_that_held_out_data_exceeds(self, test: Any, says: str) -> None:
        with pytest.raises(DataError, match=says):
            world_of(Named(labels(0, 1), "cat", "dog"), test)

    def test_name_booleans(self) -> None:
        world = world_of(Named(labels(True, False), "no", "yes"))
        assert world.spec.action.names == ("no", "yes")
        assert world.train.columns["label"].tolist().count(1) > 0


GAPS = (X, labels(1, 5, 9, 255))


class TestSequences:
    def test_a_split_is_one_of_the_numbers(self, learn: Any) -> None:
        run = learn(dataset=GAPS, classes_per_task=[3, 1], class_order=[3, 0, 1, 2], validation=0.2)
        assert (run.spec.num_tasks, run.spec.action.names) == (2, ("1", "5", "9", "255"))

    def test_an_order_of_values_is_told_the_numbers(self, learn: Any) -> None:
        with pytest.raises(ConfigError, match="counted from 0: 0 is 1, 1 is 5, 2 is 9, 3 is 255"):
            learn(dataset=GAPS, tasks=2, class_order=[1, 5, 9, 255])

    def test_tasks_that_share_outputs_have_no_names(self, learn: Any) -> None:
        run = learn(dataset=GAPS, tasks=2, scenario="domain")
        assert (run.spec.action.n, run.spec.action.names) == (2, None)

    def test_a_subset_keeps_its_names(self, learn: Any) -> None:
        run = learn("dataset.subset=[3,0]", dataset=TensorDataset(GAPS[0], torch.tensor(GAPS[1])))
        assert (run.spec.action.n, run.spec.action.names) == (2, ("255", "1"))

    def test_a_subset_of_classes_without_names_is_called_by_number(self, learn: Any) -> None:
        assert learn("dataset=Digits", "dataset.subset=[3,8]").spec.action.names == ("3", "8")
        assert learn("dataset=Digits", "dataset.subset=[0,1]").spec.action.names is None

    def test_a_subset_of_what_is_not_there(self, learn: Any) -> None:
        with pytest.raises(DataError, match=r"no class 9.*counted from 0: 0 is 1, 1 is 5"):
            learn("dataset.subset=[1,9]", dataset=TensorDataset(X, torch.tensor(GAPS[1])))

    @pytest.mark.parametrize(
        ("scenario", "first", "second", "names", "second_labels"),
        [
            ("domain", (0, 1, 2), (3, 4), None, [3, 4]),
            ("domain", (1, 2), (2, 7), ("1", "2", "7"), [1, 2]),
            ("domain", ("a", "b"), ("b", "c"), ("a", "b", "c"), [1, 2]),
            ("class", (0, 1), (0, 1), None, [2, 3]),
            ("class", (0, 1), (2, 3), ("0", "1", "2", "3"), [2, 3]),
            ("task", ("a", "b"), ("b", "c"), ("a", "b", "b", "c"), [2, 3]),
        ],
    )
    def test_of_a_list(
        self, learn: Any, scenario: str, first: Any, second: Any, names: Any, second_labels: Any
    ) -> None:
        run = learn(dataset=[(X, labels(*first)), (X, labels(*second))], scenario=scenario)
        assert run.spec.action.names == names
        # After the run, the replay holds the rows of the last task.
        assert run.replay.sample(200).label.unique().tolist() == second_labels

    def test_a_list_with_shared_names_shares_them(self, learn: Any) -> None:
        parts = [Named(labels(0, 1), "cat", "dog"), Named(labels(0, 1), "dog", "eel")]
        assert learn(dataset=parts).spec.action.names == ("cat", "dog", "eel")

    def test_a_list_without_a_shared_name_shares_by_place(self, learn: Any) -> None:
        parts = [Named(labels(0, 1), "cat", "dog"), Named(labels(0, 1), "sun", "moon")]
        run = learn(dataset=parts)
        assert (run.spec.action.n, run.spec.action.names) == (2, None)

    def test_a_list_of_words_and_numbers(self, learn: Any) -> None:
        parts = [(X, labels("a", "b")), (X, labels(0, 1))]
        with pytest.raises(DataError, match=r"words as labels, .* has numbers.*scenario=class"):
            learn(dataset=parts)
        assert learn(dataset=parts, scenario="class").spec.action.names == ("a", "b", "0", "1")


def test_a_resumed_run_has_the_same_numbers(tmp_path: Path) -> None:
    words = {"dataset": (X, labels("b", "a", "c")), "path": tmp_path, "plot": False}
    first = ml(**words, model="AC2Agent", train_steps=3, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = ml(**words, model="AC2Agent", train_steps=3, progress=False, resume=True)
    assert again.spec.action.names == first.spec.action.names == ("a", "b", "c")
    assert again.metrics == first.metrics


def test_rewards_are_for_the_numbers(tmp_path: Path) -> None:
    run = ml(dataset=(X, labels(3, 9)), rl=True, train_steps=2, plot=False, progress=False,
             path=tmp_path)  # fmt: skip
    assert run.spec.action.names == ("3", "9")
