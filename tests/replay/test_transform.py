"""`Standardize` gives zero mean and unit deviation, [0, 1], and augments before either."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from antelope.replay import Pixels, Space, Standardize


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


def test_pixels_keep_their_units() -> None:
    frames = torch.tensor([[7, 255]], dtype=torch.uint8)
    fields = Pixels()({"obs": frames, "next_obs": frames + 0, "reward": torch.ones(1)})
    assert fields["obs"].tolist() == [[7.0, 255.0]]
    assert fields["next_obs"].dtype == torch.float32
