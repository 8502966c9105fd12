"""Augmentations are sampled for each image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.envs import RandomCrop, RandomHorizontalFlip
from antelope.envs.augment import first_on_bytes


def numbered(b: int, c: int, h: int, w: int) -> torch.Tensor:
    """Images whose every pixel is a positive number of its own."""
    return torch.arange(1.0, b * c * h * w + 1).view(b, c, h, w)


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 5)] * 2),
    padding=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_each_crop_is_a_window_of_its_padded_image(
    shape: tuple[int, int, int, int], padding: int, seed: int
) -> None:
    torch.manual_seed(seed)
    images = numbered(*shape)
    cropped = RandomCrop(padding=padding)(images)
    assert cropped.shape == images.shape
    _, _, height, width = shape
    for image, crop in zip(images, cropped, strict=True):
        padded = torch.zeros(image.shape[0], height + 2 * padding, width + 2 * padding)
        padded[:, padding : padding + height, padding : padding + width] = image
        windows = (
            padded[:, top : top + height, left : left + width]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        )
        assert any(torch.equal(crop, window) for window in windows)


def test_images_of_a_batch_are_shifted_differently_and_all_shifts_occur() -> None:
    torch.manual_seed(0)
    pixel = torch.zeros(900, 1, 3, 3)
    pixel[:, :, 1, 1] = 1  # Shifted by -1, 0 or 1 each way: nine places.
    places = RandomCrop(padding=1)(pixel).flatten(1).argmax(1).bincount(minlength=9)
    # 100 expected each; the standard deviation is 9.4.
    assert all(abs(int(count) - 100) < 47 for count in places)


def test_crops_to_another_size() -> None:
    images = numbered(3, 2, 6, 8)
    assert RandomCrop(4)(images).shape == (3, 2, 4, 4)
    assert RandomCrop((2, 5))(images).shape == (3, 2, 2, 5)


@pytest.mark.parametrize("size", [None, (40, 24)])
def test_crops_to_the_images_own_size_are_padded_by_an_eighth_of_the_shorter_side(
    size: Any,
) -> None:
    images = numbered(50, 2, 40, 24)
    torch.manual_seed(0)
    found = RandomCrop(size)(images)
    torch.manual_seed(0)
    assert torch.equal(found, RandomCrop(size, padding=3)(images))
    assert not torch.equal(found, images)
    assert torch.equal(RandomCrop(size, padding=0)(images), images)


def test_a_window_that_does_not_fit_says_both_sizes() -> None:
    with pytest.raises(ValueError, match="9x9 does not fit into 6x8"):
        RandomCrop(9)(numbered(1, 1, 6, 8))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_flips_none_or_all(p: float) -> None:
    images = numbered(4, 2, 3, 5)
    flipped = RandomHorizontalFlip(p)(images)
    assert torch.equal(flipped, images if p == 0 else images.flip(-1))


@pytest.mark.parametrize("p", [50, -0.1, float("nan")])
def test_a_probability_that_is_none_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"p=.* is not a probability, 0 to 1"):
        RandomHorizontalFlip(p)


def test_flips_each_image_by_itself() -> None:
    torch.manual_seed(0)
    images = numbered(1000, 1, 1, 2)
    flipped = RandomHorizontalFlip()(images)[:, 0, 0, 0] == images[:, 0, 0, 1]
    # 500 expected; the standard deviation is 16.
    assert abs(int(flipped.sum()) - 500) < 80


@pytest.mark.parametrize("augment", [RandomCrop(padding=2), RandomHorizontalFlip()])
def test_the_original_images_stay(augment: object) -> None:
    images = numbered(3, 1, 4, 4)
    augment(images)  # type: ignore[operator]
    assert torch.equal(images, numbered(3, 1, 4, 4))


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (1, 1, 3, 5), (4, 2, 9, 6), (0, 3, 8, 8)])
@pytest.mark.parametrize(
    "augment", [RandomCrop(), RandomCrop(3, padding=2), RandomHorizontalFlip()]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bytes_move_as_floats_do_in_any_layout(
    shape: tuple[int, int, int, int], augment: Any, layout: torch.memory_format
) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    torch.manual_seed(0)
    expected = augment(images.float())
    torch.manual_seed(0)
    found = augment(images.contiguous(memory_format=layout))
    assert found.dtype == torch.uint8
    assert torch.equal(found.float(), expected)


def test_a_subclass_which_may_compute_with_pixels_is_not_applied_to_bytes() -> None:
    class Dims(RandomCrop):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return super().__call__(images) * 0.5

    steps = [RandomHorizontalFlip(), Dims(), RandomCrop()]
    assert first_on_bytes(steps) == (steps[:1], steps[1:])
