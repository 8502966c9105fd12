"""An item is (input, target): what people bring instead is right, or told what it is."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from antelope.envs import read
from antelope.envs.forms import form
from antelope.replay import ConfigError, DataError, LazyColumn

N = 20
X = torch.arange(2.0 * N).view(N, 2)
Y = torch.arange(N) % 2


class Items(Dataset[Any]):
    def __init__(self, item: Callable[[int], Any], n: int = N):
        self.item, self.n = item, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


Three = namedtuple("Three", "image table label")
Two = namedtuple("Two", "image label")


@dataclass
class Sample:
    image: Tensor
    label: int


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.zeros(2), 0)])


class Frame:
    """What a data frame looks like, whatever library it is from."""

    def __init__(self, **columns: Any):
        self.columns, self.values = list(columns), columns

    @property
    def shape(self) -> tuple[int, ...]:
        return (N, len(self.columns))

    def to_numpy(self) -> np.ndarray:
        return np.array([np.asarray(c, object) for c in self.values.values()], object).T

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.to_numpy()

    def __getitem__(self, name: str) -> Series:
        return Series(self.values[name])


class Series:
    def __init__(self, values: Any):
        self.held = np.asarray(values)
        self.shape, self.dtype = self.held.shape, self.held.dtype

    def __len__(self) -> int:
        return len(self.held)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.held

    def to_numpy(self) -> np.ndarray:
        return self.held


class TestItems:
    @pytest.mark.parametrize(
        ("item", "says"),
        [
            (lambda i: (X[i], X[i], 0), r"tuple of 3 \(Tensor, Tensor, int\).*return two of them"),
            (lambda i: Three(X[i], X[i], 0), r"Three of 3.*return two of them"),
            (lambda i: (X[i],), r"tuple of 1 \(Tensor\)\. An item is \(input, target\)"),
            (lambda i: {"image": X[i], "label": 0}, r"return item\['image'\], item\['label'\]"),
            (lambda i: Sample(X[i], 0), r"is a Sample\. An item is \(input, target\)"),
            (lambda i: ({"a": "cat"}, 0), r"input of item 0 of mine is a dict with text in `a`"),
            (lambda i: ((X[i], X[i]), 0), r"is a tuple of 2 \(Tensor, Tensor\).*a dict of several"),
            (lambda i: ("good", 0), r"is a str.*Encode words"),
            (lambda i: (X[i], None), r"has no target \(None\)"),
            (lambda i: (None, 1), r"has no input \(None\)"),
            (lambda i: (X[i], None if i == 7 else 1), r"Item 7 of mine has no target"),
            (lambda i: (X[i], 1, 2) if i == 7 else (X[i], 1), r"Item 7 of mine is a tuple of 3"),
            (lambda i: (X[i].to(torch.complex64), 0), "view_as_real"),
            (lambda i: (X[i].to_sparse(), 0), "to_dense"),
            (lambda i: (X[i], {"box": 1}), r"dicts \(box\)"),
            (lambda i: (X[i], {"boxes": X[:2], "labels": Y[:2]}), r"dicts \(boxes, labels\)"),
            (lambda i: (X[i], (X[:2], X[:3])), "rows differ in length or kind"),
            (
                lambda i: (X[i], [{"boxes": X[:2]}, {"boxes": X[:3]}]),
                r"list of dicts.*a target is a class",
            ),
            (lambda i: (X[i], "a" if i else 1), "words in some rows and numbers in others"),
            (lambda i: (X[i] * (float("nan") if i == 0 else 1), 0), "NaN .*in 1 of 20 rows"),
            (lambda i: (X[i], float("nan") if i == 0 else 0.5), "targets .* NaN"),
            (lambda i: (Image.new("L", (2, 2)) if i < 9 else X[i], 0), "pictures in some items"),
        ],
    )
    def test_that_are_something_else(self, learn: Any, item: Any, says: str) -> None:
        with pytest.raises(DataError, match=says.replace("mine", "Items")):
            learn(dataset=Items(item))

    @pytest.mark.parametrize(
        "item",
        [
            lambda i: [X[i], i % 2],
            lambda i: Two(X[i], i % 2),
            lambda i: (X[i].numpy(), np.int64(i % 2)),
            lambda i: (X[i].tolist(), torch.tensor(i % 2)),
            lambda i: (tuple(X[i].tolist()), np.array(i % 2)),
            lambda i: (X[i], torch.tensor([i % 2])),
            lambda i: (X[i], [i % 2]),
            lambda i: (X[i], np.uint16(i % 2)),
            lambda i: (X[i], i % 2 == 1),
            lambda i: (X[i], np.bool_(i % 2)),
            lambda i: (X[i], torch.tensor(i % 2 == 1)),
            lambda i: (X[i], ["no", "yes"][i % 2]),
            lambda i: (X[i], np.str_(["no", "yes"][i % 2])),
            lambda i: (X[i], [b"no", b"yes"][i % 2]),
        ],
    )
    def test_of_two_parts_in_any_form(self, item: Any) -> None:
        arrays = read(Items(item), name="mine")
        assert torch.equal(torch.as_tensor(arrays.inputs), X)
        assert arrays.targets.tolist() == Y.tolist()

    @pytest.mark.parametrize(
        "rows",
        [
            [[1, 2], [0.5, 0.25]],
            [np.array([1, 2], np.int8), np.array([300, -7])],
            [torch.tensor([2**30 + 1]), torch.tensor([0.5])],
        ],
        ids=["int, float", "int8, int64", "int64, float32"],
    )
    @pytest.mark.parametrize("first", [0, 1])
    def test_of_different_types_are_not_cut_short(self, rows: list[Any], first: int) -> None:
        order = [rows[first], rows[1 - first]]
        inputs = read(Items(lambda i: (order[i], i), n=2), name="mine").inputs
        assert torch.as_tensor(inputs).double().tolist() == [
            torch.as_tensor(row).double().tolist() for row in order
        ]

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
    def test_of_bytes_or_truth_values_in_some_places_are_refused(self, dtype: Any) -> None:
        rows = [torch.tensor([1], dtype=dtype), torch.tensor([0.5])]
        with pytest.raises(DataError, match=r"differ in type: .* at 0, torch.float32 at 1"):
            read(Items(lambda i: (rows[i], i), n=2), name="mine")

    def test_targets_that_are_whole_at_first_are_values_all_the_same(self) -> None:
        arrays = read(Items(lambda i: (X[i], i if i < 3 else i + 0.5)), name="mine")
        assert not arrays.discrete
        assert arrays.targets[:5, 0].tolist() == [0, 1, 2, 3.5, 4.5]

    def test_inputs_and_targets_that_are_drawn_together_stay_together(self) -> None:
        def item(i: int) -> Any:
            drawn = torch.randn(2)
            return drawn, int(drawn.sum() > 0)

        with pytest.warns(UserWarning, match="each is read once and kept"):
            arrays = read(Items(item), name="mine")
        assert torch.equal(arrays.targets, (torch.as_tensor(arrays.inputs).sum(1) > 0).long())

    def test_a_single_target_that_changes_is_noticed(self) -> None:
        readings = [0] * 600

        def item(i: int) -> Any:
            readings[i] += 1
            return torch.tensor([float(readings[i])]), readings[i] % 2 if i == 5 else 0

        with pytest.warns(UserWarning, match="each is read once and kept"):
            arrays = read(Items(item, n=600), name="mine")
        assert float(torch.as_tensor(arrays.inputs)[5]) % 2 == arrays.targets[5]

    def test_random_inputs_of_fixed_targets_are_drawn_at_each_reading(self) -> None:
        assert isinstance(
            read(Items(lambda i: (torch.rand(2), i % 2)), name="a").inputs, LazyColumn
        )


class TestPairs:
    @pytest.mark.parametrize(
        "pair",
        [
            (X.tolist(), Y.tolist()),
            [X.tolist(), Y.tolist()],
            [X, Y],
            (list(X), list(Y)),
            (list(X.numpy()), Y),
            (X.tolist(), Y.numpy()),
            (X.numpy(), [i % 2 for i in range(N)]),
            (Frame(a=X[:, 0].tolist(), b=X[:, 1].tolist()), Series(Y.numpy())),
            (X.numpy().astype(object), Frame(y=Y.tolist())),
            list(zip(X, Y.tolist(), strict=True)),
            [[x.tolist(), int(y)] for x, y in zip(X, Y, strict=True)],
        ],
        ids=[
            *("lists", "list of lists", "list of tensors", "lists of rows", "arrays, tensor"),
            *("list, array", "array, list", "frame, series", "objects, frame"),
            *("items", "items in lists"),
        ],
    )
    @pytest.mark.parametrize("key", ["dataset", "test_dataset"])
    def test_of_numbers_in_any_form(self, learn: Any, pair: Any, key: str) -> None:
        run = learn(**{"dataset": (X, Y), "test_dataset": (X, Y), key: pair})
        assert run.spec.num_tasks == 1
        assert run.spec.obs.mean.tolist() == X.mean(0).tolist()
        assert run.spec.action.n == 2

    def test_of_pictures(self, learn: Any) -> None:
        pictures = [Image.new("L", (5, 4), i) for i in range(N)]
        assert learn(dataset=(pictures, Y.tolist())).spec.obs.shape == (1, 4, 5)
        with pytest.raises(DataError, match="20 inputs but 3 targets"):
            learn(dataset=(pictures, [0, 1, 0]))

    @pytest.mark.parametrize(
        ("inputs", "says"),
        [
            (X.to(torch.complex64), "view_as_real"),
            (X.numpy().astype(np.complex128), "complex128.*view_as_real"),
            (X.to_sparse(), "to_dense"),
            (np.array([["a", "b"]] * N), r"words \('a'"),
            (["good", "bad"] * 10, "an index into a vocabulary"),
            (np.array([["a", 1.0]] * N, object), "Encode words"),
            (np.array([[None, 1.0]] * N, object), r"objects \(NoneType, float\)"),
            ({"a": ["good"] * N}, r"input `a` of arrays holds words"),
            (None, "missing"),
            (torch.tensor(3.0), "single number"),
            (np.zeros(N, [("a", "f4"), ("b", "i4")]), r"records \(a, b\)"),
            (np.zeros(N, "datetime64[s]"), "seconds"),
            (np.ma.masked_greater(X.numpy(), 3), "masked"),
            (np.full((N, 1), 2**63, np.uint64), "too large for int64"),
            (
                torch.full((N, 1), 2**62, dtype=torch.int64).to(torch.uint64) * 2,
                "too large for int64",
            ),
            (Frame(a=X[:, 0].tolist(), town=["Rome"] * N), "columns town are not numbers"),
            (X[:, :0], rf"inputs of arrays have shape \[{N}, 0\]: their rows are empty"),
        ],
    )
    def test_that_hold_no_numbers_say_how_to_encode(
        self, learn: Any, inputs: Any, says: str
    ) -> None:
        with pytest.raises(DataError, match=says):
            learn(dataset=(inputs, Y))

    @pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
    def test_wide_integers_without_sign(self, dtype: torch.dtype) -> None:
        numbers = torch.tensor([[7], [60_000]])
        for inputs in (numbers.to(dtype), numbers.to(dtype).numpy()):
            arrays = read((inputs, torch.tensor([0, 1]).to(dtype)), name="mine")
            assert torch.as_tensor(arrays.inputs).tolist() == [[7], [60_000]]
            assert arrays.targets.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (X, "A Tensor is not a data set.*Give a pair"),
            (X.numpy(), "A ndarray is not a data set.*Give a pair"),
            (Series(Y.numpy()), "A Series is not a data set.*Give a pair"),
            (Frame(a=[1], b=[2], y=[0]), r"\(data\[\['a', 'b'\]\], data\['y'\]\)"),
            (np.zeros(N, [("a", "f4"), ("y", "i4")]), r"fields \(a, y\)"),
            (DataLoader(TensorDataset(X, X, Y), shuffle=True), "tuple of 3"),
            (Stream(), "no items by number"),
            (((x, 0) for x in X), "Give a list of its items, list"),
            (zip(X, Y, strict=True), "Give a list of its items, list"),
            ((X, Y, X), "held-out data is test_dataset="),
            (TensorDataset(X, X, Y), "tuple of 3"),
            (TensorDataset(X), "tuple of 1"),
        ],
    )
    @pytest.mark.parametrize("key", ["dataset", "test_dataset"])
    def test_what_is_no_data_set_says_what_would_be(
        self, learn: Any, given: Any, says: str, key: str
    ) -> None:
        with pytest.raises((DataError, ConfigError), match=says):
            learn(**{"dataset": (X, Y), key: given})

    def test_a_dict_of_arrays(self, learn: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"arguments \(x, y\) .* as a pair, dataset=\(inputs, targets\)"
        ):
            learn(dataset={"x": X, "y": Y})

    def test_training_and_held_out_data_in_one(self, learn: Any) -> None:
        with pytest.raises(ConfigError, match=r"dataset=\(x, y\), test_dataset=\(x, y\)"):
            learn(dataset=((X, Y), (X, Y)))
        assert learn(dataset=[(X, Y), (X, Y)]).spec.num_tasks == 2

    def test_a_list_of_vectors_and_vectors_is_asked_about(self, learn: Any) -> None:
        with pytest.raises(ConfigError, match=f"{N} pairs of vectors: items .* or {N} data sets"):
            learn(dataset=[(x, x.flip(0)) for x in X])
        assert learn(dataset=(X, X.flip(1))).spec.action.shape == X.shape[1:]


class Shaped(Items):
    shape, dtype = (2,), "float32"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("MNIST", "one"),
        (["MNIST", "CIFAR10"], "sequence"),
        ([{"_target_": "MNIST"}, "CIFAR10"], "sequence"),
        ([Shaped(lambda i: (X[i], 0))] * 2, "sequence"),
        ((TensorDataset(X, Y), TensorDataset(X, Y)), "sequence"),
        ([(X, Y)], "sequence"),
        ([(X, Y)] * 2, "sequence"),
        ([[X, Y]] * 2, "sequence"),
        (((X, Y), (X, Y)), "unclear"),
        (([X, Y], [X, Y]), "unclear"),
        ([(X, Y)] * 3, "sequence"),
        ([X, "MNIST"], "sequence"),
        ([[1.0, 2.0], [0, 1]], "pair"),
        (([[1.0, 2.0], [3.0, 4.0]], [0, 1]), "pair"),
        (([[1.0, 2.0], [3.0, 4.0]], [[0.5], [1.5]]), "pair"),
        ([[[1.0, 2.0], [3.0, 4.0]], [[0.5], [1.5]]], "unclear"),
        ([([1.0, 2.0], [0, 1]), ([1.0, 2.0], [0, 1])], "sequence"),
        ((X, Y, X), "arrays"),
        ([X], "arrays"),
        ((X, ["cat"] * N), "pair"),
        ((["a text"], [0]), "pair"),
        ((X, None), "pair"),
        (({"a": X}, Y), "pair"),
        ((X, range(N)), "pair"),
        (([], []), "pair"),
        ([(X[0], X[1])] * 3, "vectors"),
        ([([1.0, 2.0], [0, 1])] * 3, "vectors"),
        ([(X[0], X[1]), (X[0][:1], X[1][:1])] * 2, "sequence"),
        ([(X, X)] * 3, "sequence"),
        ([(0.5, 1), (0.1, 0), (0.2, 0)], "items"),
        ([(X[0], "cat"), (X[1], "dog")], "items"),
        ([(X[0], torch.tensor(1))], "items"),
    ],
)
def test_forms(value: Any, expected: str) -> None:
    assert form(value) == expected
