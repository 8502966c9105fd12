"""`aug=` changes the images that are learnt from, or is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import v2

from antelope import ConfigError, Run, ml
from antelope.envs import RandomCrop, RandomHorizontalFlip

LABELS = np.arange(40) % 2
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)


class Looks(nn.Module):
    """Keeps the batches that it learns from."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.batches: list[Any] = []

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))

    def learn(self, replay: Any) -> Tensor:
        self.batches.append(batch := next(replay))
        return F.cross_entropy(self(batch.obs), batch.label)


@pytest.fixture
def augmented(tmp_path: Path) -> Any:
    def run(aug: Any, *words: str, images: np.ndarray = IMAGES, **settings: Any) -> Run:
        usual = {"model": Looks, "train_steps": 1, "batch_size": 20, "plot": False}
        usual |= {"progress": False, "standardize": False, "path": tmp_path / "run"}
        return ml(*words, dataset=(images, LABELS), aug=aug, **usual | settings)

    return run


def shifted(raw: Tensor, up: int, left: int, room: int) -> Tensor:
    padded = F.pad(raw, (room,) * 4)
    return padded[:, up : up + raw.shape[1], left : left + raw.shape[2]]


@pytest.mark.parametrize(("side", "room"), [(32, 4), (16, 2), (8, 1), (5, 1)])
@pytest.mark.parametrize("aug", ["RandomCrop", RandomCrop, RandomCrop()])
def test_a_random_crop_alone_is_the_usual_one(
    side: int, room: int, aug: Any, augmented: Any
) -> None:
    run = augmented(aug, images=np.ascontiguousarray(IMAGES[:, :, :side, :side]))
    batch = run.agent.batches[0]
    places = [(up, left) for up in range(2 * room + 1) for left in range(2 * room + 1)]
    found = [
        [at for at in places if torch.equal(shifted(raw, *at, room), obs)]
        for raw, obs in zip(batch.raw, batch.obs, strict=True)
    ]
    assert all(len(at) == 1 for at in found)
    assert len({at[0] for at in found}) > 5  # Not all alike.


@pytest.mark.parametrize(
    ("aug", "advice"),
    [
        (RandomCrop(padding=0), r"RandomCrop changes nothing.*\[3, 32, 32\].*needs padding"),
        (v2.RandomCrop(32), "needs padding, such as aug.padding=4"),
        (transforms.RandomCrop(32), "needs padding"),
        (v2.RandomApply([v2.RandomCrop(32)]), "needs padding"),
        (RandomHorizontalFlip(0.0), "RandomHorizontalFlip changes nothing.*Check its arguments"),
        (v2.CenterCrop(32), "CenterCrop changes nothing"),
        (v2.Resize(32), "Resize changes nothing"),
        (v2.ColorJitter(), "ColorJitter changes nothing"),
        ([v2.Identity(), RandomHorizontalFlip(0.0)], r"Identity\+RandomHorizontalFlip changes"),
        (lambda images: images, "lambda> changes nothing"),
    ],
)
def test_what_changes_nothing_is_refused(aug: Any, advice: str, augmented: Any) -> None:
    with pytest.raises(ConfigError, match=advice):
        augmented(aug)


def test_a_rotation_too_small_to_move_a_pixel_is_refused(augmented: Any) -> None:
    # 0.43 pixels in the corners of 8 x 8, to the nearest: none.
    with pytest.raises(ConfigError, match="RandomRotation changes nothing"):
        augmented("RandomRotation", "aug.degrees=5", images=IMAGES[:, :, :8, :8].copy())


def test_grey_images_have_no_colour_to_lose(augmented: Any) -> None:
    augmented(v2.RandomGrayscale(p=0.5))
    with pytest.raises(ConfigError, match="RandomGrayscale changes nothing"):
        augmented(v2.RandomGrayscale(p=0.5), images=IMAGES[:, :1].copy())


@pytest.mark.parametrize(
    "aug",
    [
        RandomHorizontalFlip(0.02),
        v2.RandomHorizontalFlip(0.02),
        v2.RandomErasing(0.05),
        [RandomCrop(padding=0), RandomHorizontalFlip()],
        lambda images: images.flip(-1) if random.random() < 0.05 else images,
        lambda images: images.mul_(0.5),  # In place.
    ],
)
def test_what_changes_little_or_seldom_is_accepted(aug: Any, augmented: Any) -> None:
    run = augmented(aug, train_steps=60)
    assert any(not torch.equal(batch.obs, batch.raw) for batch in run.agent.batches)


def test_images_that_augmentation_leaves_as_they_are_say_nothing_of_others(augmented: Any) -> None:
    run = augmented("RandomHorizontalFlip", images=np.zeros_like(IMAGES))
    assert not run.agent.batches[0].obs.any()


@pytest.mark.parametrize(
    ("aug", "message"),
    [
        (v2.Normalize([0.5] * 3, [0.2] * 3), "Normalize would shift training data only"),
        (v2.Compose([RandomCrop(), v2.Normalize([0.5] * 3, [0.2] * 3)]), "Leave it out"),
        (v2.ToDtype(torch.uint8, scale=True), r"float32 inputs in \[0, 1\] into uint8"),
        (transforms.TrivialAugmentWide(), "Only torch.uint8"),  # Some of what it draws from.
        (lambda images: images.numpy(), "aug returned a ndarray; it must return a tensor"),
        (RandomCrop(24), r"\[2, 3, 32, 32\] into \[2, 3, 24, 24\]; it must keep their shape"),
    ],
)
def test_what_would_not_fit_held_out_data_is_refused(
    aug: Any, message: str, augmented: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        augmented(aug)
