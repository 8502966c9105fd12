"""What inputs of each type are kept as, and how numbers far from zero keep their digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from antelope.envs.arrays import Arrays
from antelope.envs.datasets import read
from antelope.envs.inputs import LARGEST_ID, input_space, stored
from antelope.replay import DataError, LazyColumn, Space, Spec, Standardize

CLASSES = Space((2,), torch.int64, discrete=True)


def met(values: Tensor, **options: Any) -> tuple[Space, Tensor]:
    """The space of inputs, and what models receive of them."""
    space = input_space([values], [], name="mine", **options)
    arrays = Arrays(values, torch.zeros(len(values), dtype=torch.int64), "mine")
    kept = stored(arrays, Spec(space, CLASSES)).inputs
    assert isinstance(kept, Tensor)
    assert kept.dtype == space.dtype
    standardize = options.get("standardize") is not False
    return space, Standardize(space, standardize=standardize)({"obs": kept})["obs"]


class TestIntegers:
    def test_are_received_as_they_are(self) -> None:
        values = torch.tensor([[3, -1], [0, 9]])
        space, obs = met(values)
        assert torch.equal(obs, values)
        assert obs.dtype == space.dtype == torch.int64
        assert (space.ids, space.n, space.low, space.high) == (10, 10, -1, 9)

    @pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u2", "u4", ">i4"])
    def test_of_any_width_become_int64(self, dtype: str) -> None:
        inputs = read((np.array([[0], [3]], dtype), np.array([0, 1])), name="mine").inputs
        assert isinstance(inputs, Tensor)
        assert inputs.dtype == torch.int64
        assert inputs.tolist() == [[0], [3]]

    def test_held_out_rows_count_for_the_largest(self) -> None:
        space = input_space([torch.tensor([[1]])], [torch.tensor([[7]])], name="mine")
        assert (space.n, float(space.mean.sum())) == (8, 1)  # type: ignore[union-attr]

    def test_are_numbers_where_the_user_says_so(self) -> None:
        space, obs = met(torch.tensor([[0], [4]]), standardize=True)
        assert obs.tolist() == [[-1], [1]]
        assert (space.dtype, space.ids, space.n) == (torch.float32, None, 1)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_too_large_for_ids_are_numbers(self, sign: int) -> None:
        largest = torch.tensor([[0], [sign * LARGEST_ID]])
        assert met(largest)[0].ids is not None
        assert met(largest + sign)[0].ids is None
        assert met(largest + sign, standardize=False)[0].ids is not None

    def test_bounds_are_those_of_all_features(self) -> None:
        space, _ = met(torch.tensor([[5, 2**40], [7, 3], [-2, 4]]))
        assert (space.low, space.high) == (-2, 2**40)

    def test_nanoseconds_are_told_apart(self) -> None:
        now = 1_700_000_000_123_456_789 + torch.arange(100)[:, None]
        _, obs = met(now)
        expected = (np.arange(100.0) - 49.5) / np.arange(100).std()
        np.testing.assert_allclose(obs[:, 0], expected, rtol=1e-6)


class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
    @pytest.mark.parametrize("standardize", [None, True])
    def test_seconds_are_told_apart(self, dtype: torch.dtype, standardize: bool | None) -> None:
        seconds = (1.7e9 + torch.arange(400, dtype=torch.float64)).to(dtype)[:, None]
        space, obs = met(seconds, standardize=standardize)
        expected = (seconds.double() - seconds.double().mean()) / seconds.double().std(correction=0)
        torch.testing.assert_close(obs, expected.float(), rtol=1e-6, atol=1e-6)
        assert space.mean is not None
        assert float(space.mean) == 1.7e9 + 199.5  # Which no float32 is.

    def test_close_together_are_told_apart(self) -> None:
        values = 1 + 1e-9 * torch.randn(50, 2, dtype=torch.float64)
        _, obs = met(values)
        expected = (values - values.mean(0)) / values.std(0, correction=0)
        torch.testing.assert_close(obs, expected.float(), rtol=1e-5, atol=1e-5)

    def test_smaller_than_float32_can_be_do_not_vanish(self) -> None:
        _, obs = met(torch.tensor([[1e-60], [3e-60]], dtype=torch.float64))
        assert obs.tolist() == [[-1], [1]]

    def test_images_have_an_origin_for_each_channel(self) -> None:
        images = (
            torch.randn(20, 2, 3, 3, dtype=torch.float64) + torch.tensor([1e9, -5e8])[:, None, None]
        )
        _, obs = met(images)
        assert obs.mean((0, 2, 3)).abs().max() < 1e-6
        torch.testing.assert_close(obs.std((0, 2, 3), correction=0), torch.ones(2))

    def test_a_float32_source_far_from_zero_has_its_mean_taken_off_exactly(self) -> None:
        values = torch.tensor([[1.7e9], [1.7e9 + 128], [1.7e9 + 256]])
        _, obs = met(values)
        # A third of the way is no float32, and neither is the mean of the first two.
        torch.testing.assert_close(obs[:, 0], torch.tensor([-(1.5**0.5), 0, 1.5**0.5]))
        assert float(met(values[:2])[1].mean()) == 0

    @pytest.mark.parametrize("shape", [(300,), (300, 1)])
    def test_a_constant_stays_zero(self, shape: tuple[int, ...]) -> None:
        _, obs = met(torch.full(shape, 0.1, dtype=torch.float64))
        assert not obs.any()

    def test_near_zero_are_kept_as_they_are(self) -> None:
        values = torch.randn(9, 2, dtype=torch.float64)
        assert met(values)[0].scale is None

    def test_altered_ones_are_kept_as_they_are_with_a_word(self) -> None:
        values = 1.7e9 + torch.arange(4, dtype=torch.float64)[:, None]
        with pytest.warns(UserWarning, match="cannot tell them apart.*altered"):
            assert met(values, altered=True)[0].scale is None

    def test_scaled_to_the_unit_interval_they_keep_their_digits(self) -> None:
        values = 1.7e9 + torch.arange(5, dtype=torch.float64)[:, None]
        _, obs = met(values, standardize=False)
        torch.testing.assert_close(obs[:, 0], torch.linspace(0, 1, 5))

    def test_a_small_feature_beside_a_clock_cannot_be_scaled_in_silence(self) -> None:
        clock = 1.7e9 + torch.arange(5, dtype=torch.float64)
        with pytest.warns(UserWarning, match="standardize=false"):
            met(torch.stack([clock, torch.zeros(5).double()], 1), standardize=False)

    def test_decoded_at_each_reading_they_keep_their_digits(self) -> None:
        seconds = (1.7e9 + torch.arange(6, dtype=torch.float64))[:, None]
        lazy = LazyColumn(list(seconds), torch.clone, shape=(1,), dtype=torch.float64)
        space = input_space([lazy], [], name="mine")
        arrays = Arrays(lazy, torch.zeros(6, dtype=torch.int64), "mine")
        kept = stored(arrays, Spec(space, CLASSES)).inputs
        assert isinstance(kept, LazyColumn)
        assert kept.take(torch.arange(6)).dtype == kept.dtype == torch.float32
        torch.testing.assert_close(kept.take(torch.arange(6)), met(seconds)[1])


def test_truth_values_are_zero_and_one() -> None:
    space, obs = met(torch.tensor([[True], [False], [True]]))
    assert obs.dtype == torch.float32
    assert obs.tolist() == [[1], [0], [1]]
    assert (space.low, space.high) == (0, 1)
    assert met(torch.tensor([[True], [False]]), standardize=True)[1].tolist() == [[1], [-1]]


class Items:
    def __init__(self, *inputs: Any):
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Any:
        return self.inputs[i], i % 2


def test_items_that_are_whole_now_and_then_are_floats_all() -> None:
    inputs = read(Items([1, 2], [0.5, 2.0], [3, 4]), name="mine").inputs
    assert isinstance(inputs, Tensor)
    assert inputs.tolist() == [[1, 2], [0.5, 2], [3, 4]]


def test_items_of_bytes_and_of_floats_do_not_fit() -> None:
    items = Items(np.zeros(2, np.uint8), np.zeros(2, np.float32))
    with pytest.raises(DataError, match=r"differ in type: torch.uint8 at 0, torch.float32 at 1"):
        read(items, name="mine")
