"""What models meet: `Standardize` of data, `Observations` of environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from antelope.replay import Normalizer, Observations, Space, Standardize


def space_of(data: Tensor, **bounds: float) -> Space:
    """The space whose statistics are those of `data`, by NumPy."""
    over = (0, 2, 3) if data.dim() == 4 else (0,)
    values = data.numpy().astype(np.float64)
    mean, stddev = (torch.from_numpy(np.asarray(f(values, over))) for f in (np.mean, np.std))
    bounds = bounds or {"low": float(data.min()), "high": float(data.max())}
    return Space(
        tuple(data.shape[1:]), data.dtype, mean=mean.float(), stddev=stddev.float(), **bounds
    )


shapes = st.sampled_from([(), (3,), (1, 4, 4), (3, 5, 2), (4, 6)])


@given(shapes, st.booleans(), st.integers(0, 99))
def test_standardised_data_has_zero_mean_and_unit_deviation(
    shape: tuple[int, ...], bytes_: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    data = torch.randint(0, 256, (20, *shape), dtype=torch.uint8)
    data = data if bytes_ else data.float() / 7 - 3
    obs = Standardize(space_of(data))({"obs": data})["obs"]
    assert obs.shape == data.shape
    assert obs.dtype == torch.float32
    over = (0, 2, 3) if len(shape) == 3 else (0,)
    values = obs.numpy().astype(np.float64)
    np.testing.assert_allclose(values.mean(over), 0, atol=1e-5)
    # A feature that happens to be constant stays at zero.
    constant = data.numpy().astype(np.float64).std(over) == 0
    np.testing.assert_allclose(values.std(over), np.where(constant, 0, 1), atol=1e-4)


@given(shapes, st.integers(0, 99))
def test_without_standardising_values_are_in_the_unit_interval(
    shape: tuple[int, ...], seed: int
) -> None:
    torch.manual_seed(seed)
    data = torch.randint(0, 256, (20, *shape), dtype=torch.uint8)
    obs = Standardize(space_of(data, low=0, high=255), standardize=False)({"obs": data})["obs"]
    torch.testing.assert_close(obs, data.float() / 255)


def test_an_augmentation_that_works_in_place_leaves_raw_and_the_stored_rows_alone() -> None:
    rows = torch.rand(4, 3)
    stored = rows.clone()
    standardize = Standardize(
        space_of(rows, low=0.0, high=1.0), standardize=False, augment=lambda obs: obs.add_(1)
    )
    fields = standardize({"obs": stored})
    torch.testing.assert_close(fields["obs"], rows + 1)
    assert torch.equal(fields["raw"], rows)


def test_what_an_augmentation_leaves_black_is_the_lowest_value_of_the_data() -> None:
    class Blackens:
        moves_only = True

        def __call__(self, images: Tensor) -> Tensor:
            return torch.zeros_like(images)

        on_bytes = on_floats = __call__

    images = torch.rand(4, 1, 2, 2) * 2 - 1
    space = space_of(images, low=-1.0, high=1.0)
    fields = Standardize(space, standardize=False, augment=Blackens())({"obs": images})
    assert not fields["obs"].any()
    obs = Standardize(space, augment=Blackens())({"obs": images})["obs"]
    torch.testing.assert_close(
        obs, ((-1 - space.mean) / space.stddev).view(1, 1, 1, 1).expand(4, 1, 2, 2)
    )


def test_channels_by_hand() -> None:
    # Channel 0 holds 0 and 2 (mean 1, deviation 1), channel 1 holds 10 and 30 (20 and 10).
    data = torch.tensor([[[[0, 2]], [[10, 30]]]], dtype=torch.uint8)
    obs = Standardize(space_of(data))({"obs": data})["obs"]
    assert obs.tolist() == [[[[-1, 1]], [[-1, 1]]]]


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1, 1)])
def test_far_from_zero_no_precision_is_lost(shape: tuple[int, ...]) -> None:
    # Seconds since 1970 in May of that year, six apart: a mean of 10^7 + 3, a deviation of 3.
    data = torch.tensor([10_000_000.0, 10_000_006.0]).view(2, *[1] * len(shape)).expand(2, *shape)
    obs = Standardize(space_of(data))({"obs": data})["obs"]
    expected = torch.tensor([-1.0, 1.0]).view(2, *[1] * len(shape)).expand(2, *shape)
    torch.testing.assert_close(obs, expected)


def test_a_constant_feature_is_zero_and_not_nan() -> None:
    data = torch.tensor([[5.0, 1.0], [5.0, 3.0]])
    obs = Standardize(space_of(data))({"obs": data})["obs"]
    assert obs.tolist() == [[0, -1], [0, 1]]


def test_constant_data_is_zero_without_standardising() -> None:
    data = torch.full((3, 2), 4.0)
    assert (
        Standardize(space_of(data), standardize=False)({"obs": data})["obs"].tolist()
        == [[0, 0]] * 3
    )


def test_the_stored_rows_stay_as_they_are() -> None:
    data = torch.tensor([[1.0], [3.0]])
    Standardize(space_of(data), augment=lambda x: x.mul_(0))({"obs": data})
    assert data.tolist() == [[1], [3]]


def test_raw_rows_are_augmented_anew_and_plain_ones_never() -> None:
    data = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    space = Space(
        (3, 4, 4),
        torch.uint8,
        low=0,
        high=255,
        mean=torch.tensor([100.0, 90, 80]),
        stddev=torch.tensor([50.0, 60, 70]),
    )
    transform = Standardize(space, augment=lambda unit: unit.flip(-1))
    raw = transform({"obs": data})["raw"]
    torch.testing.assert_close(transform.augment_again(raw), raw.flip(-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(transform.without_augmentation({"obs": data})["obs"], raw)
    assert Standardize(space).augment_again(raw) is raw


def test_augmentation_sees_the_unit_interval_and_raw_keeps_the_original() -> None:
    data = torch.tensor([[[[0, 100]]], [[[200, 200]]]], dtype=torch.uint8)
    seen: list[Tensor] = []

    def black(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return torch.zeros_like(images)

    space = space_of(data, low=0, high=200)
    fields = Standardize(space, augment=black)({"obs": data})
    torch.testing.assert_close(seen[0], data.float() / 200)
    torch.testing.assert_close(fields["raw"], Standardize(space)({"obs": data})["obs"])
    # Black is the value 0, standardised: (0 - mean) / stddev, with mean 125.
    expected = -125 / data.float().std(correction=0)
    torch.testing.assert_close(fields["obs"], torch.full((2, 1, 1, 2), float(expected)))


@given(st.booleans(), st.booleans(), st.integers(0, 99))
def test_an_augmentation_that_changes_nothing_changes_nothing(
    standardize: bool, bytes_: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    data = torch.randint(0, 256, (6, 2, 3, 3), dtype=torch.uint8)
    data = data if bytes_ else data.float() / 9 - 4
    transform = Standardize(space_of(data), standardize=standardize, augment=torch.clone)
    fields = transform({"obs": data})
    torch.testing.assert_close(fields["obs"], fields["raw"], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------- environments


def test_images_are_scaled_and_floats_keep_their_units() -> None:
    frames = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    fields = Observations(Space((3,), torch.uint8))(
        {"obs": frames, "next_obs": frames, "reward": torch.ones(1)}
    )
    torch.testing.assert_close(fields["obs"], torch.tensor([[0.0, 0.2, 1.0]]))
    assert fields["next_obs"].dtype == torch.float32
    assert fields["reward"].tolist() == [1]
    assert frames.tolist() == [[0, 51, 255]]
    floats = torch.tensor([[-3.0, 700.0]])
    assert torch.equal(Observations(Space((2,))).observe(floats), floats)
    assert Observations(Space((2,), torch.float64)).observe(floats.double()).dtype == torch.float32


@pytest.mark.parametrize(
    ("space", "stored", "met"),
    [
        (Space((3,), torch.int64, discrete=True), [2, 0], [[0, 0, 1], [1, 0, 0]]),
        (
            Space((5,), torch.int64, discrete=True, nvec=(2, 3)),
            [[1, 0], [0, 2]],
            [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]],
        ),
        (
            Space((3,), torch.int64, discrete=True, binary=True),
            [[1, 0, 1], [0, 0, 0]],
            [[1, 0, 1], [0, 0, 0]],
        ),
    ],
)
def test_choices_become_numbers_whatever_the_batch_looks_like(
    space: Space, stored: list[Any], met: list[Any]
) -> None:
    observe = Observations(space).observe
    values = torch.tensor(stored)
    assert observe(values).tolist() == met
    assert observe(values).dtype == torch.float32
    assert observe(values[:, None]).tolist() == [[row] for row in met]  # Of sequences.


def test_each_part_of_a_dict_is_met_as_its_own_space_says() -> None:
    space = {"mode": Space((2,), torch.int64, discrete=True), "speed": Space((1,))}
    obs = Observations(space).observe({"speed": torch.tensor([[7.0]]), "mode": torch.tensor([1])})
    assert {name: part.tolist() for name, part in obs.items()} == {"mode": [[0, 1]], "speed": [[7]]}


def test_a_normalizer_sees_to_observations_and_rewards() -> None:
    normalizer = Normalizer({"": (1,)}, num_envs=2, discount=0.5, obs=True, reward=True)
    normalizer.see(np.array([[10.0], [30.0]]))  # Mean 20, deviation 10.
    normalizer.see_rewards(np.array([0.0, 4.0]), np.array([False, False]))  # Deviation 2.
    stored = torch.tensor([[10.0], [25.0]])
    fields = Observations(Space((1,)), normalizer)(
        {"obs": stored, "next_obs": stored + 5, "reward": torch.tensor([4.0, -1.0])}
    )
    assert fields["obs"].flatten().tolist() == pytest.approx([-1, 0.5])
    assert fields["next_obs"].flatten().tolist() == pytest.approx([-0.5, 1])
    assert fields["reward"].tolist() == pytest.approx([2, -0.5])
    assert stored.tolist() == [[10], [25]]


def test_a_recurrent_state_is_unpacked() -> None:
    transform = Observations(Space((1,)))
    obs, state = torch.zeros(1, 1), {"0": torch.ones(2)}
    assert transform({"obs": obs, "next_obs": obs, "state": state})["state"] is state
    transform.unpack = lambda packed: packed["0"] + 1
    assert transform({"obs": obs, "next_obs": obs, "state": state})["state"].tolist() == [2, 2]


class Moving:
    """An augmentation in two parts: mirrors images, and halves their values unless `moves_only`."""

    def __init__(self, moves_only: bool):
        self.moves_only, self.seen = moves_only, []

    def __call__(self, images: Tensor) -> Tensor:
        return self.on_floats(self.on_bytes(images))

    def on_bytes(self, images: Tensor) -> Tensor:
        self.seen.append(images.dtype)
        return images.flip(-1)

    def on_floats(self, images: Tensor) -> Tensor:
        return images if self.moves_only else images / 2


@pytest.mark.parametrize("moves_only", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
def test_bytes_are_moved_before_they_become_floats(moves_only: bool, standardize: bool) -> None:
    data = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    space, augment = space_of(data, low=0, high=255), Moving(moves_only)
    fields = Standardize(space, standardize=standardize, augment=augment)({"obs": data})
    whole = Moving(moves_only).__call__  # Not in two parts.
    expected = Standardize(space, standardize=standardize, augment=whole)({"obs": data})
    torch.testing.assert_close(fields["obs"], expected["obs"])
    assert torch.equal(fields["raw"], expected["raw"])
    assert augment.seen == [torch.uint8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_images_whose_zero_is_not_black_are_moved_as_floats(dtype: torch.dtype) -> None:
    images = (torch.rand(4, 3, 5, 6) * 200 + 10).to(dtype)
    augment = Moving(moves_only=True)
    fields = Standardize(space_of(images), augment=augment)({"obs": images})
    assert augment.seen == [torch.float32]
    torch.testing.assert_close(fields["obs"], fields["raw"].flip(-1))
