"""Anything that holds data becomes checked arrays, with statistics computed in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from antelope.envs import statistics as statistics_module
from antelope.envs.arrays import Arrays, held_out_fifth, take_classes, take_rows
from antelope.envs.datasets import read
from antelope.envs.description import describe
from antelope.envs.images import Pictures
from antelope.envs.sources import own_test_arguments, split_arguments
from antelope.envs.statistics import statistics
from antelope.replay import DataError, LazyColumn


class Items(Dataset[Any]):
    """Any function from a number to an item, as a data set."""

    def __init__(self, item: Callable[[int], Any], n: int = 6):
        self.item, self.n = item, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


def data(inputs: Any, targets: Any) -> Arrays:
    return read((torch.as_tensor(inputs), torch.as_tensor(targets)), name="mine")


class TestStatistics:
    @given(
        values=numpy_arrays(
            st.sampled_from([np.uint8, np.float32]),
            st.sampled_from([(7,), (9, 3), (6, 2, 3, 4), (5, 3, 2)]),
            elements={"min_value": 0, "max_value": 250},
        ),
        chunk=st.integers(1, 10),
        split=st.integers(1, 4),
    )
    def test_equal_numpys_whatever_the_chunks(
        self, values: np.ndarray, chunk: int, split: int
    ) -> None:
        over = (0, 2, 3) if values.ndim == 4 else (0,)
        columns = [torch.from_numpy(values[:split].copy()), torch.from_numpy(values[split:].copy())]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics_module, "_CHUNK", chunk)
            patch.setattr(statistics_module, "_BYTES", chunk * 24)
            mean, stddev, low, high = statistics(list(columns))
        exact = values.astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean(over), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(stddev, exact.std(over), rtol=1e-5, atol=1e-5)
        assert (low, high) == (exact.min(), exact.max())

    @pytest.mark.parametrize(
        "shape", [(700,), (1, 8), (3000, 5), (600, 2, 3, 4), (3, 2, 40, 41), (300, 1, 28, 28)]
    )
    def test_of_bytes_are_the_exact_ones_rounded_once(self, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        values = torch.randint(250, 256, shape, dtype=torch.uint8, generator=generator)
        mean, stddev, low, high = statistics([values[:1], values[1:]])
        by_feature = values.view(len(values), 1) if values.dim() == 1 else values
        features = by_feature.transpose(0, 1).flatten(1)
        assert mean.dtype == stddev.dtype == torch.float64
        assert mean.shape == stddev.shape == (() if values.dim() == 1 else shape[1:2])
        for feature, one, other in zip(
            features.tolist(), mean.reshape(-1), stddev.reshape(-1), strict=True
        ):
            exact = Fraction(sum(feature), len(feature))
            squares = Fraction(sum(value**2 for value in feature), len(feature))
            assert float(one) == float(exact)
            assert float(other) == math.sqrt(squares - exact**2)
        assert (low, high) == (float(values.min()), float(values.max()))

    def test_far_from_zero_no_precision_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics_module, "_CHUNK", 5)
        # E[x^2] - E[x]^2 in float32 would give 0 or NaN here; the deviation of 0 and 1 is 1/2.
        column = 10_000_000 + torch.arange(1000) % 2
        _, stddev, *_ = statistics([column[:, None].float()])
        assert float(stddev) == pytest.approx(0.5, abs=1e-9)

    def test_lazy_columns_are_measured_like_the_others(self) -> None:
        values = torch.arange(12.0).view(6, 2)
        lazy = LazyColumn(list(values), torch.clone, shape=(2,), dtype=torch.float32)
        for found, expected in zip(statistics([lazy]), statistics([values]), strict=True):
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))

    def test_of_the_real_mnist_are_the_known_ones(self, mnist_dir: Path) -> None:
        arrays = read(torchvision.datasets.MNIST(str(mnist_dir)), name="MNIST")
        assert (arrays.inputs.shape, arrays.num_classes) == ((60000, 1, 28, 28), 10)
        space = describe([arrays], [None], num_tasks=1).obs
        assert space.mean is not None
        assert space.stddev is not None
        # The constants of every MNIST tutorial.
        assert float(space.mean[0]) / 255 == pytest.approx(0.1307, abs=5e-5)
        assert float(space.stddev[0]) / 255 == pytest.approx(0.3081, abs=5e-5)


class TestPairs:
    def test_images_become_channels_first(self) -> None:
        images = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)
        inputs = read((images, np.array([0, 1])), name="mine").inputs
        assert isinstance(inputs, torch.Tensor)
        assert (inputs.shape, inputs.dtype) == ((2, 3, 5, 6), torch.uint8)
        assert int(inputs[1, 2, 3, 4]) == images[1, 3, 4, 2]

    @pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 8), (2, 5), (2,)])
    def test_other_shapes_stay(self, shape: tuple[int, ...]) -> None:
        assert data(torch.zeros(shape), [0, 1]).inputs.shape == shape

    def test_grey_bytes_get_a_channel_and_float_matrices_do_not(self) -> None:
        assert data(torch.zeros(2, 8, 8, dtype=torch.uint8), [0, 1]).inputs.shape == (2, 1, 8, 8)
        assert data(torch.zeros(2, 8, 8), [0, 1]).inputs.shape == (2, 8, 8)

    @pytest.mark.parametrize(
        ("dtype", "kept"),
        [("f8", "float64"), ("f2", "float32"), (">f4", "float32"), ("?", "bool"), ("i8", "int64")],
    )
    def test_types_are_those_that_can_be_kept(self, dtype: str, kept: str) -> None:
        arrays = read((np.array([[0], [1]], dtype), np.array([0, 1])), name="mine")
        assert arrays.inputs.dtype == getattr(torch, kept)
        assert isinstance(arrays.inputs, torch.Tensor)
        assert arrays.inputs.tolist() == [[0], [1]]

    def test_read_only_arrays_are_welcome(self) -> None:
        inputs = np.ones((2, 3), np.float32)
        inputs.flags.writeable = False
        assert read((inputs, np.array([0, 1])), name="mine").inputs.sum() == 6

    @pytest.mark.parametrize("dtype", ["i8", "i4", "u1", "?"])
    def test_integers_are_classes(self, dtype: str) -> None:
        arrays = read((np.zeros((3, 2)), np.array([0, 1, 1], dtype)), name="mine")
        assert arrays.discrete
        assert arrays.targets.dtype == torch.int64
        assert arrays.targets.tolist() == [0, 1, 1]

    def test_a_column_of_classes_is_a_row_of_them(self) -> None:
        assert data(torch.zeros(3, 2), [[0], [1], [2]]).targets.tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        ("given", "shape"), [((3,), (3, 1)), ((3, 1), (3, 1)), ((3, 4), (3, 4))]
    )
    def test_floats_are_values(self, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
        arrays = data(torch.zeros(3, 2), torch.full(given, 0.5, dtype=torch.float16))
        assert not arrays.discrete
        assert (arrays.targets.shape, arrays.targets.dtype) == (shape, torch.float32)


class TestMistakes:
    @pytest.mark.parametrize(
        ("inputs", "targets", "message"),
        [
            ([], [], "mine is empty"),
            ([[1.0]] * 3, [0, 1], "3 inputs but 2 targets"),
            ([[1.0], [float("nan")], [2.0]], [0, 1, 1], r"1 of 3 rows \(first: row 1\)"),
            ([[1.0], [2.0]], [0.5, float("inf")], "targets of mine hold NaN or infinite"),
            ([[1.0], [2.0]], [[0, 2], [1, 0]], r"as floats \(regression\)"),
        ],
    )
    def test_of_pairs(self, inputs: Any, targets: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            data(inputs, targets)

    def test_infinities_of_both_signs_do_not_hide_each_other(self) -> None:
        with pytest.raises(DataError, match="1 of 2 rows"):
            data([[float("inf"), float("-inf")], [0.0, 0.0]], [0, 1])

    def test_words_are_no_numbers(self) -> None:
        with pytest.raises(DataError, match="Encode words"):
            read((np.array([["a"], ["b"]]), np.array([0, 1])), name="mine")

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (
                lambda i: torch.zeros(2),
                r"Item 0 of mine is a Tensor\. An item is \(input, target\)",
            ),
            (
                lambda i: (torch.zeros(2, 2 + i), 0),
                r"differ in shape: \[2, 2\] at 0, \[2, 3\] at 1",
            ),
            (lambda i: (torch.zeros(2), 1 // (3 - i)), "Item 3 of mine raised ZeroDivisionError"),
            (lambda i: (torch.zeros(2), {"box": 1}), "mine"),
            (lambda i: (torch.zeros(2), torch.zeros(i + 1)), "mine"),
        ],
        ids=["no pair", "ragged", "raises", "dicts", "ragged targets"],
    )
    def test_of_items(self, item: Callable[[int], Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(Items(item), name="mine")

    def test_an_iterable_or_a_number_is_no_data_set(self) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter([(torch.zeros(2), 0)])

        for source in (Stream(), 3):
            with pytest.raises(DataError, match="which is not a data set"):
                read(source, name="mine")

    def test_more_labels_than_declared_classes(self) -> None:
        source = Items(lambda i: (torch.zeros(2), i))
        source.classes = ["a", "b"]  # type: ignore[attr-defined]
        with pytest.raises(DataError, match=r"label 5, but declares 2 classes \(0 to 1\)"):
            read(source, name="mine")


class TestItems:
    def test_are_read_into_memory_once(self) -> None:
        counts = [0] * 6

        def item(i: int) -> tuple[torch.Tensor, int]:
            counts[i] += 1
            return torch.full((2,), float(i)), i % 2

        arrays = read(Items(item), name="mine")
        assert isinstance(arrays.inputs, torch.Tensor)
        assert arrays.inputs[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert arrays.targets.tolist() == [0, 1] * 3
        before = list(counts)
        arrays.table().gather(torch.tensor([0, 5]))
        assert counts == before

    def test_float_targets_are_values(self) -> None:
        arrays = read(Items(lambda i: (torch.zeros(2), i / 2)), name="mine")
        assert arrays.targets.tolist() == [[0], [0.5], [1], [1.5], [2], [2.5]]

    def test_channels_last_items_are_turned(self) -> None:
        def item(i: int) -> tuple[np.ndarray, int]:
            return np.full((5, 4, 3), i, np.uint8), i % 2

        assert read(Items(item), name="mine").inputs.shape == (6, 3, 5, 4)

    @pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4), ("1", 1)])
    def test_pictures_of_any_mode(self, mode: str, channels: int) -> None:
        arrays = read(Items(lambda i: (Image.new(mode, (4, 5), "white"), i % 2)), name="mine")
        assert arrays.inputs.shape == (6, channels, 5, 4)  # PIL says width first.
        assert arrays.inputs.dtype == torch.uint8
        assert int(arrays.inputs.min()) == 255

    def test_pictures_of_many_sizes_get_the_median_one(self) -> None:
        source = Items(lambda i: (Image.new("RGB", (10 + i, 20)), 0), n=3)
        assert read(source, name="mine").inputs.shape == (3, 3, 20, 11)
        assert read(source, name="mine", pictures=Pictures(7)).inputs.shape == (3, 3, 7, 7)

    def test_random_items_are_read_anew_each_time(self) -> None:
        arrays = read(Items(lambda i: (torch.rand(3), i % 2)), name="mine")
        assert isinstance(arrays.inputs, LazyColumn)
        assert arrays.targets.tolist() == [0, 1] * 3
        row = torch.tensor([2])
        table = arrays.table()
        assert not torch.equal(table.gather(row)["obs"], table.gather(row)["obs"])

    def test_a_coin_flip_per_item_is_noticed(self) -> None:
        flip = torchvision.transforms.RandomHorizontalFlip(0.5)
        source = Items(lambda i: (flip(torch.arange(9.0).view(1, 3, 3)), 0), n=64)
        for seed in range(8):
            torch.manual_seed(seed)
            assert isinstance(read(source, name="mine").inputs, LazyColumn)

    def test_targets_of_random_items_are_those_of_the_items(self) -> None:
        source = Items(lambda i: (torch.rand(3), i % 2))
        source.targets = [0, 1, 2, 3, 4, 5]  # type: ignore[attr-defined] # Before a target_transform.
        assert read(source, name="mine").targets.tolist() == [0, 1] * 3

    def test_draws_for_few_of_the_items_are_noticed(self) -> None:
        source = Items(lambda i: (torch.rand(2) if i % 10 == 9 else torch.zeros(2), 0), n=200)
        inputs = read(source, name="mine").inputs
        assert isinstance(inputs, LazyColumn)
        assert inputs.changes

    def test_rows_of_lazy_data_can_be_taken(self) -> None:
        source = Items(lambda i: (torch.rand(1) + 10 * i, i))
        arrays = take_rows(read(source, name="mine"), torch.tensor([4, 1]))
        assert len(arrays) == 2
        assert arrays.targets.tolist() == [4, 1]
        obs = arrays.table().gather(torch.tensor([0, 1]))["obs"].flatten()
        assert (obs // 10).tolist() == [4, 1]

    def test_torchvision_arrays_are_taken_as_they_are(self, mnist_dir: Path) -> None:
        source = torchvision.datasets.MNIST(str(mnist_dir), train=False)
        arrays = read(source, name="MNIST")
        assert isinstance(arrays.inputs, torch.Tensor)
        assert torch.equal(arrays.inputs[:, 0], source.data)
        doubled = torchvision.datasets.MNIST(
            str(mnist_dir), train=False, target_transform=lambda label: label % 2
        )
        assert set(read(doubled, name="MNIST").targets.tolist()) == {0, 1}


class TestDescribe:
    def test_classes_are_those_declared_or_met(self) -> None:
        assert describe([data(torch.zeros(3, 2), [0, 4, 1])], [None], num_tasks=1).action.n == 5
        declared = data(torch.zeros(3, 2), [0, 1, 1])
        declared.num_classes = 7
        assert describe([declared], [None], num_tasks=2).action.n == 7

    def test_values_have_statistics(self) -> None:
        spec = describe([data(torch.zeros(2, 3), [[1.0, 10.0], [3.0, 30.0]])], [None], num_tasks=1)
        action = spec.action
        assert (action.shape, action.low, action.high, action.discrete) == ((2,), 1, 30, False)
        assert action.mean is not None
        assert action.stddev is not None
        assert action.mean.tolist() == [2, 20]
        assert action.stddev.tolist() == [1, 10]

    @pytest.mark.parametrize(
        ("inputs", "bounds"),
        [
            (torch.tensor([[3], [9]], dtype=torch.uint8), (0, 255)),
            (torch.tensor([[0.2], [0.9]]), (0, 1)),
            (torch.tensor([[-4.0], [9.0]]), (-4, 9)),
        ],
    )
    def test_bounds_of_bytes_unit_floats_and_others(
        self, inputs: torch.Tensor, bounds: tuple[float, float]
    ) -> None:
        obs = describe([data(inputs, [0, 1])], [None], num_tasks=1).obs
        assert (obs.low, obs.high) == bounds

    def test_statistics_are_of_the_training_data_alone(self) -> None:
        train, test = data([[1.0], [3.0]], [0, 1]), data([[100.0], [300.0]], [0, 1])
        obs = describe([train], [test], num_tasks=1).obs
        assert obs.mean is not None
        assert obs.mean.tolist() == [2]

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (data(torch.zeros(3, 5), [0, 1, 2]), r"shape \[2\], mine of \[5\]"),
            (data(torch.zeros(3, 2), [0.0, 1.0, 2.0]), "has classes as targets, mine has values"),
            (data(torch.zeros(3, 2), [0, 1, 3]), "holds label 3.*classes 0 to 2"),
        ],
        ids=["shape", "kind", "label"],
    )
    def test_held_out_data_that_does_not_fit(self, other: Arrays, message: str) -> None:
        with pytest.raises(DataError, match=message):
            describe([data(torch.zeros(3, 2), [0, 1, 2])], [other], num_tasks=1)

    @pytest.mark.parametrize("held_out", [False, True])
    def test_values_of_different_widths_do_not_fit(self, held_out: bool) -> None:
        one, two = (data(torch.zeros(3, 2), torch.zeros(3, width)) for width in (1, 2))
        with pytest.raises(DataError):
            describe([one], [two], num_tasks=1) if held_out else describe(
                [one, two], [None, None], num_tasks=2
            )

    def test_bytes_and_floats_do_not_fit(self) -> None:
        # 0 to 255 in one, 0 to 1 in the other: one standardisation cannot serve both.
        images = data(torch.zeros(3, 2, dtype=torch.uint8), [0, 1, 2])
        with pytest.raises(DataError):
            describe([images], [data(torch.zeros(3, 2), [0, 1, 2])], num_tasks=1)


class TestParts:
    @given(st.integers(2, 200))
    def test_a_fifth_is_held_out(self, n: int) -> None:
        arrays = Arrays(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), "mine")
        kept, held_out = held_out_fifth(arrays)
        assert len(held_out) == max(1, n // 5)
        assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(n))

    def test_the_fifth_is_the_same_for_every_seed(self) -> None:
        arrays = Arrays(torch.zeros(50, 1), torch.zeros(50, dtype=torch.int64), "mine")
        first = held_out_fifth(arrays)[1]
        torch.manual_seed(123)
        assert torch.equal(held_out_fifth(arrays)[1], first)

    def test_of_one_row_nothing_can_be_held_out(self) -> None:
        with pytest.raises(DataError, match="Give test_dataset="):
            held_out_fifth(data([[1.0]], [0]))

    def test_a_subset_of_classes_is_renumbered_in_the_order_given(self) -> None:
        arrays = take_classes(data([[0.0], [1.0], [2.0], [3.0]], [0, 1, 2, 1]), [2, 1])
        assert arrays.inputs.tolist() == [[1], [2], [3]]
        assert arrays.targets.tolist() == [1, 0, 1]
        assert arrays.num_classes == 2

    def test_subsets_that_cannot_be(self) -> None:
        with pytest.raises(DataError, match="no class 5"):
            take_classes(data([[0.0], [1.0]], [0, 1]), [0, 5])
        with pytest.raises(DataError, match="targets of mine are values"):
            take_classes(data([[0.0], [1.0]], [0.5, 1.5]), [0])

    @pytest.mark.parametrize(
        ("name", "key", "train", "test"),
        [
            ("MNIST", "train", True, False),
            ("CIFAR10", "train", True, False),
            ("EMNIST", "train", True, False),
            ("SVHN", "split", "train", "test"),
            ("OxfordIIITPet", "split", "trainval", "test"),
            ("ImageNet", "split", "train", "val"),
            ("Imagenette", "split", "train", "val"),
        ],
    )
    def test_torchvisions_own_parts(self, name: str, key: str, train: Any, test: Any) -> None:
        target = getattr(torchvision.datasets, name)
        parts = [split_arguments(target, train=part, data_dir=Path("x")) for part in (True, False)]
        assert [part and part.get(key) for part in parts] == [train, test]

    def test_a_class_without_parts_has_no_test_part(self) -> None:
        assert split_arguments(Items, train=False, data_dir=Path("x")) is None
        assert split_arguments(Items, train=True, data_dir=Path("x")) is not None

    def test_tensor_datasets_are_not_copied(self) -> None:
        inputs = torch.zeros(3, 2)
        arrays = read(TensorDataset(inputs, torch.tensor([0, 1, 2])), name="mine")
        assert arrays.inputs is inputs


class Halves(Dataset[Any]):
    """Targets of 1 in the training part, of 3 in the test part."""

    def __init__(self, train: bool = True):
        self.train = train

    def __len__(self) -> int:
        return 40 if self.train else 20

    def __getitem__(self, i: int) -> Any:
        return torch.eye(40)[i], 1.0 if self.train else 3.0


class Nought(nn.Module):
    """Predicts 0, so that the squared error is that of the held-out targets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor) -> Tensor:
        return obs[:, :1] * 0 * self.weight


@pytest.mark.parametrize(
    ("settings", "learnt", "mse"),
    [
        ({"dataset": Halves}, 40, 9),
        ({"dataset": {"_target_": Halves, "train": True}}, 40, 9),
        ({"dataset": {"_target_": Halves, "train": False}}, 16, 9),  # A fifth of the test part.
        ({"dataset": Halves, "test_dataset": Halves}, 40, 9),
        ({"dataset": Halves(), "test_dataset": Halves}, 40, 9),
        ({"dataset": Halves, "test_dataset": {"_target_": Halves, "train": True}}, 40, 1),
        ({"dataset": Halves, "test_dataset": Halves()}, 40, 1),
    ],
)
def test_what_is_held_out_is_the_test_part_unless_said_otherwise(
    learn: Any, settings: dict[str, Any], learnt: int, mse: float
) -> None:
    run = learn(**settings, model=Nought)
    assert len(run.replay) == learnt
    assert run.metrics["mse"] == mse


@pytest.mark.parametrize(
    ("name", "arguments", "test"),
    [
        ("SVHN", {"split": "train"}, {}),
        ("SVHN", {"split": "extra"}, {}),
        ("SVHN", {"split": "test"}, None),
        ("EMNIST", {"split": "letters", "train": True}, {"split": "letters"}),
        ("FakeData", {"size": 10}, {"size": 10}),
    ],
)
def test_arguments_that_choose_a_part_are_for_training_data(
    name: str, arguments: dict[str, Any], test: dict[str, Any] | None
) -> None:
    assert own_test_arguments(getattr(torchvision.datasets, name), arguments) == test
