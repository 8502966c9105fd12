"""Augmentations that models apply themselves."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from antelope.launcher import mammoth as m


def test_cutmix_mixes_by_the_share_that_it_gives() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 10, 10).clone()
    labels = torch.arange(8)
    mixed, first, second, share = m.cutmix_data(images.clone(), labels, force=True)
    assert torch.equal(first, labels)
    expected = share * first + (1 - share) * second
    assert torch.allclose(mixed.mean((1, 2, 3)), expected.float(), atol=1e-5)
    same, _, _, whole = m.cutmix_data(images.clone(), labels, cutmix_prob=0.0)
    assert torch.equal(same, images)
    assert whole == 1.0


def test_images_are_moved_mirrored_and_made_grey() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 6, 6)
    moved = m.random_crop(images, 2)
    assert moved.shape == images.shape
    padded = F.pad(images, (2,) * 4)
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1)  # (B, C, 5, 5, 6, 6)
    found = (windows == moved[:, :, None, None]).all(-1).all(-1).all(1)
    assert bool(found.flatten(1).any(1).all())
    assert len({tuple(row.tolist()) for row in found.flatten(1)}) > 8
    flipped = m.random_flip(images.clone())
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert 16 < int(mirrored.sum()) < 48
    grey = m.random_grayscale(images.clone(), prob=1.0)
    assert torch.allclose(grey[:, 0], grey[:, 2])
    assert torch.equal(m.random_grayscale(images[:, :1].clone(), prob=1.0), images[:, :1])
    assert torch.allclose(m.normalize(images, [0.5] * 3, [0.25] * 3), (images - 0.5) * 4)
    assert m.soft_aug([0.5] * 3, [0.25] * 3)(images).shape == images.shape


def test_strong_augmentation_gives_images_of_the_size_asked_for() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    augmented = m.strong_aug((8, 8), [0.0], [1.0])(images)
    assert augmented.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.allclose(augmented, images)


def test_an_image_and_its_maps_are_cropped_and_mirrored_together() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    image = torch.arange(64.0).view(1, 8, 8)
    both = m.DoubleCompose([m.CustomRandomCrop(8, padding=2), m.CustomRandomHorizontalFlip(1.0)])
    cropped, (belonging,) = both(image, [image])
    assert torch.equal(cropped, belonging)
    assert not torch.equal(cropped, image)
    assert m.DoubleTransform(lambda x: 2 * x)(1, 3) == (2, 3)
    assert m.RepeatedTransform([lambda x: x, lambda x: -x])(torch.ones(2, 1)).shape == (2, 2, 1)
