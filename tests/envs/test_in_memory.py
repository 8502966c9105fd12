"""A data set is what its own items are, whatever it holds; arrays are taken only where they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

from antelope.envs import datasets, in_memory, read
from antelope.envs.images import Pictures
from antelope.envs.items import decode
from antelope.envs.labels import as_targets, read_targets
from antelope.replay import DataError, LazyColumn

N = 12


def held(name: str) -> Any:
    """One of torchvision's data sets with bytes of its kind, without its files."""
    kind = getattr(torchvision.datasets, name)
    source = kind.__new__(kind)
    source.root, source.transform, source.target_transform, source.transforms = (
        ".",
        None,
        None,
        None,
    )
    rng = np.random.default_rng(0)
    shape = {"CIFAR10": (8, 6, 3), "CIFAR100": (8, 6, 3), "SVHN": (3, 8, 6), "STL10": (3, 8, 6)}
    pixels = rng.integers(0, 256, (N, *shape.get(name, (8, 6))), dtype=np.uint8)
    labels = (np.arange(N) % 3).astype(np.uint8 if name == "STL10" else np.int64)
    if name.endswith("MNIST"):
        source.data, source.targets = torch.from_numpy(pixels), torch.from_numpy(labels)
        if name == "QMNIST":
            source.compat, source.targets = True, torch.from_numpy(labels)[:, None].expand(N, 8)
    elif name in ("CIFAR10", "CIFAR100", "USPS"):
        source.data, source.targets = pixels, labels.tolist()
    else:
        source.data, source.labels = pixels, labels
    return source


def both(source: Any) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets as they are read, and item by item."""
    arrays = read(source, name="mine")
    inputs, targets = decode(source, "mine", Pictures(), None)
    assert isinstance(arrays.inputs, Tensor)
    assert isinstance(inputs, Tensor)
    return [(arrays.inputs, arrays.targets), (inputs, as_targets(read_targets(targets, "")[0], ""))]


def check_same(source: Any) -> None:
    (inputs, targets), (decoded, labels) = both(source)
    assert inputs.dtype == decoded.dtype
    assert torch.equal(inputs, decoded)
    assert torch.equal(targets, labels)


class Moved(TensorDataset):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x + 100, 1 - y


class Inverted(torchvision.datasets.MNIST):
    def __getitem__(self, index: int) -> Any:
        image, target = super().__getitem__(index)
        return image, 2 - target


def pairs() -> tuple[Tensor, Tensor]:
    return torch.arange(2.0 * N).view(N, 2), torch.arange(N) % 2


class TestTorchvision:
    @pytest.mark.parametrize(
        "name",
        [
            *("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100"),
            *("SVHN", "STL10", "SEMEION", "USPS"),
        ],
    )
    def test_what_is_held_is_what_is_read(self, name: str) -> None:
        source = held(name)
        assert in_memory.columns(source) is not None
        check_same(source)
        rows = [5, 2, -1, 2]
        subset = Subset(Subset(source, list(range(2, N))), rows)
        assert in_memory.columns(subset) is not None
        check_same(subset)

    def test_another_item_of_its_own_is_read(self) -> None:
        source = held("QMNIST")
        assert in_memory.columns(source) is None
        check_same(source)

    @pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN"])
    def test_transforms_that_are_set_later_are_heeded(self, name: str) -> None:
        source = held(name)
        whole = read(source, name="mine")
        source.target_transform = lambda label: 2 - label
        assert torch.equal(read(source, name="mine").targets, 2 - whole.targets)
        assert torch.equal(read(Subset(source, [1]), name="mine").targets, 2 - whole.targets[1:2])
        source.transform = torchvision.transforms.ToTensor()
        scaled = read(Subset(source, range(N)), name="mine").inputs
        assert isinstance(scaled, Tensor)
        assert scaled.dtype == torch.float32
        assert float(scaled.max()) <= 1

    def test_random_transforms_are_drawn_at_each_reading(self) -> None:
        source = held("CIFAR10")
        source.transform = torchvision.transforms.RandomCrop((8, 6), padding=2)
        arrays = read(Subset(source, [3, 1, 2]), name="mine")
        assert isinstance(arrays.inputs, LazyColumn)
        assert arrays.targets.tolist() == [0, 1, 2]
        gather = arrays.table().gather
        drawn = [gather(torch.arange(3))["obs"] for _ in range(9)]
        assert len({tuple(x.flatten().tolist()) for x in drawn}) > 1

    @pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN", "STL10"])
    def test_targets_that_the_user_changed(self, name: str) -> None:
        source = held(name)
        key = "labels" if hasattr(source, "labels") else "targets"
        getattr(source, key)[0] = 2
        assert read(source, name="mine").targets.tolist() == [2, *([1, 2, 0] * 4)[: N - 1]]
        setattr(source, key, [1] * N)
        assert read(source, name="mine").targets.tolist() == [1] * N
        for targets in (np.array([0.0, 1.9] * (N // 2)), [0.0, 1.9] * (N // 2)):
            setattr(source, key, targets)
            check_same(source)  # MNIST and SVHN make whole numbers of them, CIFAR10 does not.

    def test_items_of_a_subclass(self) -> None:
        source = held("MNIST")
        source.__class__ = Inverted
        assert read(source, name="mine").targets.tolist() == [2, 1, 0] * 4
        assert read(Subset(source, [0, 1]), name="mine").targets.tolist() == [2, 1]

    def test_data_that_a_subclass_computes(self) -> None:
        class Noise(torchvision.datasets.MNIST):
            @property
            def data(self) -> Tensor:
                return torch.randint(0, 256, (N, 8, 6), dtype=torch.uint8)

        source = held("MNIST")
        source.__class__ = Noise
        assert isinstance(read(source, name="mine").inputs, LazyColumn)  # Drawn at each reading.

    def test_data_of_another_kind_is_decoded(self) -> None:
        source = held("CIFAR10")
        source.data = source.data[..., 0]  # Grey pictures.
        check_same(source)

    def test_labels_of_folders_are_those_of_their_samples(self, tmp_path: Path) -> None:
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / name).mkdir()
            pixels = np.full((4, 5, 3), 100 * number, np.uint8)
            torchvision.transforms.functional.to_pil_image(pixels).save(tmp_path / name / "0.png")
        source = torchvision.datasets.ImageFolder(str(tmp_path))
        source.targets = [1, 0]  # Which its items are not read from.
        assert list(in_memory.labels(source)) == [0, 1]
        assert read(source, name="mine").targets.tolist() == [0, 1]
        source.target_transform = lambda label: 1 - label
        assert in_memory.labels(source) is None


class TestTensorDatasets:
    def test_are_not_copied(self) -> None:
        inputs, targets = pairs()
        assert read(TensorDataset(inputs, targets), name="mine").inputs is inputs

    def test_subsets_are_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets, "decode", None)
        arrays = read(Subset(Subset(TensorDataset(*pairs()), [7, 3, 5]), [2, 0]), name="mine")
        assert torch.as_tensor(arrays.inputs).tolist() == [[10, 11], [14, 15]]
        assert arrays.targets.tolist() == [1, 1]

    @pytest.mark.parametrize(
        "indices",
        [range(3, 6), torch.tensor([3, 4, 5]), np.array([3, 4, 5]), [3, 4, 5], (-9, -8, -7)],
    )
    def test_rows_may_be_named_in_any_way(self, indices: Any) -> None:
        arrays = read(Subset(TensorDataset(*pairs()), indices), name="mine")
        assert torch.as_tensor(arrays.inputs)[:, 0].tolist() == [6, 8, 10]

    @pytest.mark.parametrize("row", [N, -N - 1])
    def test_a_row_that_there_is_not_is_named(self, row: int) -> None:
        with pytest.raises(DataError, match=f"index {row} is out of bounds"):
            read(Subset(TensorDataset(*pairs()), [0, row]), name="mine")

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda source: source,
            lambda source: Subset(source, range(N)),
            lambda source: Subset(Subset(source, range(N)), range(N)),
            lambda source: ConcatDataset([source]),
            lambda source: random_split(source, [N, 0])[0],
        ],
    )
    def test_items_of_a_subclass(self, wrap: Any) -> None:
        arrays = read(wrap(Moved(*pairs())), name="mine")
        assert float(torch.as_tensor(arrays.inputs).min()) == 100
        assert sorted(arrays.targets.tolist()) == [0] * 6 + [1] * 6

    def test_items_of_a_subset_of_the_users(self) -> None:
        class Doubled(Subset[Any]):
            def __getitem__(self, i: Any) -> Any:
                x, y = super().__getitem__(i)
                return 2 * x, y

            def __getitems__(self, indices: list[int]) -> Any:
                return [self[i] for i in indices]

        arrays = read(Doubled(TensorDataset(*pairs()), [1, 2]), name="mine")
        assert torch.as_tensor(arrays.inputs).tolist() == [[4, 6], [8, 10]]

    def test_a_length_of_its_own(self) -> None:
        class Short(TensorDataset):
            def __len__(self) -> int:
                return 3

        assert len(read(Short(*pairs()), name="mine")) == 3

    def test_attributes_that_a_subclass_computes(self) -> None:
        class Twice(TensorDataset):
            def __getattribute__(self, name: str) -> Any:
                found = super().__getattribute__(name)
                return tuple(2 * tensor for tensor in found) if name == "tensors" else found

        inputs, targets = pairs()
        arrays = read(Twice(inputs, targets), name="mine")
        assert torch.equal(torch.as_tensor(arrays.inputs), 2 * inputs)

    def test_tensors_that_a_subclass_computes(self) -> None:
        class Twice(TensorDataset):
            @property
            def tensors(self) -> Any:
                return tuple(2 * tensor for tensor in self.kept)

            @tensors.setter
            def tensors(self, value: Any) -> None:
                self.kept = value

        source = Twice(*pairs())
        assert torch.as_tensor(read(source, name="mine").inputs)[1].tolist() == [4, 6]

    def test_items_that_are_read_in_lists_alone(self) -> None:
        class InLists(Dataset[Any]):
            def __len__(self) -> int:
                return N

            def __getitems__(self, indices: list[int]) -> list[Any]:
                return [(torch.tensor([float(i)]), i % 2) for i in indices]

        for source in (InLists(), Subset(InLists(), range(N))):
            assert torch.as_tensor(read(source, name="mine").inputs)[:, 0].tolist() == list(
                range(N)
            )

    def test_the_most_derived_way_to_read_counts(self) -> None:
        class InLists(TensorDataset):
            def __getitems__(self, indices: list[int]) -> list[Any]:
                return [(torch.tensor([float(i), 0.0]), i % 2) for i in indices]

        class OneByOne(InLists):
            def __getitem__(self, i: int) -> Any:
                return torch.tensor([-1.0, -1.0]), i % 2

        assert torch.as_tensor(read(InLists(*pairs()), name="a").inputs)[3].tolist() == [3, 0]
        assert torch.as_tensor(read(OneByOne(*pairs()), name="b").inputs)[3].tolist() == [-1, -1]


def test_a_run_learns_from_the_items_of_a_subclass(learn: Any) -> None:
    run = learn(dataset=Moved(*pairs()))
    assert float(run.spec.obs.low) >= 100
