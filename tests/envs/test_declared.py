"""Attributes of a user's data set are the user's own, but for lists of names and sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch.utils.data import Dataset, Subset, TensorDataset

from antelope.envs import Digits, read
from antelope.replay import DataError

N = 20


class Rows(Dataset[Any]):
    """Rows of bytes in two classes, with an attribute of the user's."""

    def __init__(self, name: str = "", value: Any = None):
        drawn = torch.randint(0, 2, (N, 4), generator=torch.Generator().manual_seed(0))
        self.rows = drawn.to(torch.uint8)
        if name:
            setattr(self, name, value)

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        return self.rows[i], i % 2


class Sequence(Rows):
    def alterations(self, tasks: int = 3, seed: int = 0) -> Any:
        return [lambda obs, k=k: obs.roll(k, -1) for k in range(tasks)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", 2),
        ("classes", [7, 9]),
        ("classes", "ab"),
        ("classes", torch.arange(2)),
        ("classes", lambda: ["a"]),
        ("high", torch.rand(N)),
        ("high", 3),
        ("alterations", "none"),
        ("alterations", [1, 2, 3]),
        ("alterations", lambda price: price + 1),
        ("data", torch.zeros(3)),
        ("targets", [5] * N),
        ("labels", None),
        ("tensors", (torch.zeros(2), torch.zeros(2))),
        ("transform", 3),
        ("transforms", "none"),
        ("target_transform", 0.5),
        ("name", 5),
        ("shape", 5),
        ("shape", "round"),
        ("dtype", "big"),
        ("func", 3),
        ("columns", ["a"]),
        ("column_names", ["a"]),
        ("to_numpy", 3),
        ("toarray", 3),
        ("samples", 3),
        ("indices", [1]),
        ("dataset", 4),
        ("num_classes", 77),
        ("tasks", 4),
        ("train_dataloader", len),
    ],
)
def test_an_attribute_changes_nothing(learn: Any, name: str, value: Any) -> None:
    plain, named = Rows(), Rows(name, value)
    one, other = (read(source, name="mine") for source in (plain, named))
    assert torch.equal(torch.as_tensor(one.inputs), torch.as_tensor(other.inputs))
    assert torch.equal(one.targets, other.targets)
    assert (other.high, other.names, other.alterations) == (None, None, None)
    assert learn(dataset=named).spec.action.n == 2


def test_two_data_sets_with_a_shape_are_a_sequence(learn: Any) -> None:
    parts = [Rows("shape", (N, 4)), Rows("shape", (N, 4))]
    for part in parts:
        part.dtype = torch.uint8  # type: ignore[attr-defined]
    assert learn(dataset=parts).spec.num_tasks == 2


def test_a_property_that_raises_is_left_alone(learn: Any) -> None:
    class Lazy(Rows):
        @property
        def classes(self) -> Any:
            raise KeyError("not loaded")

    assert learn(dataset=Lazy()).spec.action.names is None


@pytest.mark.parametrize(
    ("transform", "names", "labels"),
    [
        (lambda label: label % 2, None, [0, 1]),
        (lambda label: label + 4, ("4", "5", "6"), [0, 1, 2]),
        (lambda label: torch.tensor(label), ("a", "b", "c"), [0, 1, 2]),
        (lambda label: "cab"[label], ("a", "b", "c"), [0, 1, 2]),
        (lambda label: "abc"[label], ("a", "b", "c"), [0, 1, 2]),
        (None, ("a", "b", "c"), [0, 1, 2]),
    ],
)
def test_labels_that_a_target_transform_changes_have_names_of_their_own(
    learn: Any, transform: Any, names: Any, labels: list[int]
) -> None:
    class Named(torchvision.datasets.VisionDataset):
        classes = ("a", "b", "c")

        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            label = i % 3
            return torch.eye(N)[i], label if transform is None else transform(label)

    source = Named(target_transform=transform)
    for dataset in (source, Subset(source, range(N - 2))):
        run = learn(dataset=dataset)
        assert run.spec.action.names == names
        assert run.spec.action.n == len(labels)


def test_a_sequence_is_one_in_a_subset_too(learn: Any) -> None:
    assert learn(dataset=Sequence()).spec.num_tasks == 3
    assert learn(dataset=Subset(Sequence(), range(10)), tasks=2).spec.num_tasks == 2


def test_alterations_without_a_seed_are_asked_for_one(learn: Any) -> None:
    class Unseeded(Rows):
        def alterations(self, tasks: int = 3) -> Any:
            return []

    with pytest.raises(
        DataError, match=r"has no parameter `seed`.*alterations\(tasks=\.\.\., seed=0\)"
    ):
        learn(dataset=Unseeded())


def test_the_largest_value_is_that_of_our_own_data_sets() -> None:
    class Brighter(Digits):
        def __getitem__(self, i: int) -> Any:
            x, y = super().__getitem__(i)
            return 15 * x, y

    class Turned(Digits):
        """Another class, the same items."""

    assert [read(source, name="a").high for source in (Digits(), Turned())] == [16, 16]
    assert read(Subset(Digits(), range(9)), name="a").high == 16
    assert read(Brighter(), name="a").high is None
    assert read(TensorDataset(*Digits().tensors), name="a").high is None
