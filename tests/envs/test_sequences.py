"""One data set, altered for each task: no rows are copied, and nothing but the inputs changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from antelope.envs import DataWorld, PermutedMNIST, RotatedMNIST, arrays, datasets, read, sources
from antelope.envs.alterations import EachTask, Permutations, Rotations
from antelope.replay import ConfigError, Replay

Make = Callable[[int, int], Any]
TURNS = [functools.partial(torch.roll, shifts=k, dims=-1) for k in range(3)]
WAYS: list[Make] = [Permutations, Rotations, lambda tasks, seed: EachTask(TURNS[:tasks])]


def images(n: int = 5, channels: int = 1, *, bytes_: bool = True) -> Tensor:
    drawn = torch.randint(256, (n, channels, 6, 8), generator=torch.Generator().manual_seed(n))
    return drawn.to(torch.uint8) if bytes_ else drawn / 255


class Rolled(TensorDataset):
    """A user's own sequence: rows shifted further in each task."""

    def __init__(self, functions: Any = TURNS):
        super().__init__(images(20), torch.arange(20) % 4)
        self.functions = functions

    def alterations(self, tasks: int = 3, seed: int = 0) -> Any:
        return self.functions[:tasks]


class Short(PermutedMNIST):
    def __len__(self) -> int:
        return 20


class Cropped(PermutedMNIST):
    def __getitem__(self, index: int) -> Any:
        return self.data[index, :2, :2], int(self.targets[index])


def world_of(source: Any, **settings: Any) -> DataWorld:
    return DataWorld([read(source, name="mine")], [None], **settings)


class TestAlterations:
    @given(
        make=st.sampled_from(WAYS),
        tasks=st.lists(st.integers(0, 2), min_size=1, max_size=7),
        channels=st.sampled_from([1, 3]),
        bytes_=st.booleans(),
        seed=st.integers(0, 3),
    )
    def test_a_batch_of_several_tasks_is_altered_row_by_row(
        self, make: Make, tasks: list[int], channels: int, bytes_: bool, seed: int
    ) -> None:
        alter = make(3, seed)
        obs = images(len(tasks), channels, bytes_=bytes_)
        before = obs.clone()
        together = alter(obs, torch.tensor(tasks))
        alone = torch.cat([alter(obs[i : i + 1], task) for i, task in enumerate(tasks)])
        assert (together.shape, together.dtype) == (obs.shape, obs.dtype)
        assert torch.equal(together, alone)
        assert torch.equal(obs, before)

    @pytest.mark.parametrize("make", WAYS)
    def test_a_batch_of_one_task_is_altered_row_by_row(self, make: Make) -> None:
        alter, obs = make(3, 0), images(7, 3)
        alone = torch.cat([alter(row[None], 2) for row in obs])
        assert torch.equal(alter(obs, 2), alone)
        assert torch.equal(alter(obs, torch.full((7,), 2)), alone)

    @pytest.mark.parametrize("make", [Permutations, Rotations])
    def test_are_drawn_from_the_seed_and_differ_by_task(self, make: Make) -> None:
        obs = images()
        first, again, other = make(3, 1), make(3, 1), make(3, 2)
        for task in range(3):
            assert torch.equal(first(obs, task), again(obs, task))
            assert not torch.equal(first(obs, task), other(obs, task))
            # The first task is altered too.
            assert not torch.equal(first(obs, task), obs)
        assert not torch.equal(first(obs, 0), first(obs, 1))

    @pytest.mark.parametrize("make", [Permutations, Rotations])
    def test_leave_the_global_random_stream_alone(self, make: Make) -> None:
        before = torch.random.get_rng_state()
        make(3, 1)(images(), 1)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_of_a_permutation_keep_every_value_and_move_all_rows_alike(self) -> None:
        places = torch.arange(48, dtype=torch.uint8).expand(4, 48).view(4, 1, 6, 8)
        permuted = Permutations(2, 0)(places, 1).flatten(1)
        assert permuted[0].sort().values.tolist() == list(range(48))
        assert permuted.unique(dim=0).shape[0] == 1
        assert permuted[0].tolist() == Permutations(2, 0).orders(48, places.device)[1].tolist()

    def test_of_a_permutation_are_of_vectors_too(self) -> None:
        permuted = Permutations(2, 0)(torch.arange(10.0).view(2, 5), torch.tensor([0, 1]))
        assert permuted.sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]

    @pytest.mark.parametrize("bytes_", [True, False])
    def test_of_a_rotation_equal_torchvisions(self, bytes_: bool) -> None:
        alter, obs = Rotations(4, 0), images(3, 2, bytes_=bytes_)
        for task, degrees in enumerate(alter.degrees.tolist()):
            expected = rotate(obs, degrees, InterpolationMode.BILINEAR)
            off = (alter(obs, task).double() - expected.double()).abs().max()
            assert off <= (1 if bytes_ else 1e-4)

    @pytest.mark.parametrize("make", [Permutations, Rotations])
    def test_are_of_inputs_of_any_size(self, make: Make) -> None:
        alter, obs = make(2, 0), images()
        larger = torch.cat([obs, obs], -1)
        assert alter(obs, 1).shape == obs.shape
        assert torch.equal(alter(larger, 1), make(2, 0)(larger, 1))

    def test_of_a_rotation_are_angles_below_a_half_turn(self) -> None:
        degrees = Rotations(2000, 0).degrees
        assert 0 <= degrees.min() < 1
        assert 179 < degrees.max() < 180

    def test_of_a_rotation_by_a_quarter_turn_are_exact(self) -> None:
        alter = Rotations(1, 0)
        alter.degrees = torch.tensor([90.0], dtype=torch.float64)
        square = images()[..., :6].contiguous()
        assert torch.equal(alter(square, 0), square.rot90(dims=(-2, -1)))

    def test_of_a_rotation_are_of_images(self) -> None:
        with pytest.raises(ValueError, match="only images"):
            Rotations(1, 0)(torch.zeros(3, 784), 0)


class TestWorlds:
    def test_tasks_share_rows_labels_and_outputs(self) -> None:
        world = world_of(Rolled())
        assert (world.scenario, world.spec.num_tasks, len(world.tasks)) == ("domain", 3, 3)
        first = world.tasks[0]
        assert (len(first.train), len(first.test)) == (16, 4)
        assert len(world.train) == 16
        for task in world.tasks:
            # The very tensors: not even the row numbers are stored again.
            assert (task.train is first.train, task.test is first.test) == (True, True)
            assert task.classes.tolist() == [0, 1, 2, 3]

    def test_tasks_says_how_many(self) -> None:
        assert len(world_of(Rolled(), tasks=2).tasks) == 2

    def test_batches_are_altered_before_the_transform(self) -> None:
        world = world_of(Rolled())
        rows = [task.train for task in world.tasks]
        replay = Replay(
            world.train, lambda f: f, batch_size=4, tasks=rows, task_transform=world.task_transform
        )
        for task in range(3):
            world.begin(task, replay)
            batch = next(replay)
            stored = world.train.gather(batch.index)["obs"]
            assert torch.equal(batch.obs, stored.roll(task, -1))
        replay.use_tasks(range(3))
        batch = next(replay)
        stored = world.train.gather(batch.index)["obs"]
        for row, task in enumerate(batch.task.tolist()):
            assert torch.equal(batch.obs[row], stored[row].roll(task, -1))

    def test_a_subset_of_classes_is_altered_too(self) -> None:
        part = arrays.take_classes(read(Rolled(), name="mine"), [1, 3])
        world = DataWorld([part], [None])
        assert (len(world.tasks), world.spec.action.n) == (3, 2)

    def test_the_seed_is_passed_on(self) -> None:
        class Permuted(Rolled):
            def alterations(self, tasks: int = 2, seed: int = 0) -> Permutations:
                return Permutations(tasks, seed)

        obs = images(3)
        one, again, other = (world_of(Permuted(), seed=seed).task_transform for seed in (1, 1, 2))
        assert one is not None
        assert again is not None
        assert other is not None
        assert torch.equal(one(obs, 1), again(obs, 1))
        assert not torch.equal(one(obs, 1), other(obs, 1))

    def test_validation_rows_are_those_of_every_task(self) -> None:
        world = world_of(Rolled(), validation=0.25)
        for task in world.tasks:
            assert torch.equal(task.validation, world.tasks[0].validation)
            assert len(task.validation) + len(task.train) == 16

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"classes_per_task": 2}, "every task of mine has all of them"),
            ({"tasks": 2, "class_order": "shuffled"}, "class_order= splits classes"),
            ({"scenario": "task"}, "same rows and labels. Leave it out"),
            ({"scenario": "class"}, "same rows and labels. Leave it out"),
            ({"tasks": 4}, "made 3 tasks, not 4"),
            ({"tasks": 0}, "made 0 tasks, not one or more"),
        ],
    )
    def test_what_cannot_be_is_refused(self, asked: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            world_of(Rolled(), **asked)

    def test_a_sequence_is_no_part_of_another(self) -> None:
        part = read(Rolled(), name="mine")
        with pytest.raises(ConfigError, match="mine is itself a sequence of tasks"):
            DataWorld([part, part], [None, None])

    @pytest.mark.parametrize(
        ("function", "says"),
        [
            (lambda obs: obs.float(), r"uint8 \[2, 1, 6, 8\] into float32"),
            (lambda obs: obs[..., :2], r"into uint8 \[2, 1, 6, 2\]"),
            (lambda obs: obs @ obs, "mine.alterations raised RuntimeError"),
        ],
    )
    def test_a_function_that_changes_more_than_values_is_refused(
        self, function: Any, says: str
    ) -> None:
        with pytest.raises(ConfigError, match=says):
            world_of(Rolled([function]), tasks=1)

    def test_the_number_of_tasks_must_come_from_somewhere(self) -> None:
        class Unsaid(Rolled):
            def alterations(self, tasks: int, seed: int) -> Any:  # type: ignore[override]
                return TURNS[:tasks]

        assert len(world_of(Unsaid(), tasks=2).tasks) == 2
        with pytest.raises(
            ConfigError, match=r"does not say how many tasks it makes\. Give tasks="
        ):
            world_of(Unsaid())


@pytest.fixture(scope="module", params=[PermutedMNIST, RotatedMNIST])
def world(request: pytest.FixtureRequest, mnist_dir: Path) -> DataWorld:
    parts = []
    for train in (True, False):
        arguments = sources.split_arguments(request.param, train=train, data_dir=mnist_dir)
        assert arguments == {"root": str(mnist_dir), "download": True, "train": train}
        parts.append(read(request.param(**arguments), name=request.param.__name__))
    return DataWorld(parts[:1], list(parts[1:]))


class TestMNIST:
    def test_is_the_real_one_in_twenty_tasks(self, world: DataWorld, mnist_dir: Path) -> None:
        assert (len(world.tasks), world.spec.num_tasks, world.spec.action.n) == (20, 20, 10)
        for table, train in ((world.train, True), (world.test, False)):
            real = MNIST(mnist_dir, train=train)
            assert torch.equal(table.columns["obs"], real.data[:, None])
            assert torch.equal(table.columns["label"], real.targets)

    def test_every_task_meets_every_row_another_way(self, world: DataWorld) -> None:
        assert world.task_transform is not None
        obs = world.test.gather(world.tasks[3].test[:200])["obs"]
        altered = torch.stack([world.task_transform(obs, task) for task in range(20)])
        assert len(altered.flatten(1).unique(dim=0)) == 20
        mixed = torch.arange(200) % 20
        assert torch.equal(world.task_transform(obs, mixed), altered[mixed, torch.arange(200)])

    def test_a_transform_of_its_own_is_heeded(self, mnist_dir: Path) -> None:
        part = PermutedMNIST(mnist_dir, train=False, transform=lambda image: image.resize((7, 7)))
        part.data, part.targets = part.data[:50], part.targets[:50]
        world = world_of(part, tasks=2)
        assert world.spec.obs.shape == (1, 7, 7)
        assert world.task_transform is not None
        assert world.task_transform(world.train.columns["obs"], 1).shape == (40, 1, 7, 7)

    def test_no_files_but_mnists_own_are_looked_for(self, tmp_path: Path, mnist_dir: Path) -> None:
        (tmp_path / "MNIST").symlink_to(mnist_dir / "MNIST")
        assert len(PermutedMNIST(tmp_path, train=False)) == 10_000
        assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]

    def test_no_item_is_decoded_one_by_one(
        self, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets, "decode", None)
        assert len(read(PermutedMNIST(mnist_dir, train=False), name="mine")) == 10_000

    def test_a_subclass_that_changes_its_items_is_decoded(self, mnist_dir: Path) -> None:
        """What `data` holds is then not what it gives."""
        short = read(Short(mnist_dir, train=False), name="short")
        assert len(short) == 20
        cropped = Cropped(mnist_dir, train=False)
        cropped.data, cropped.targets = cropped.data[:30], cropped.targets[:30]
        assert read(cropped, name="cropped").inputs.shape == (30, 1, 2, 2)
