"""A class for each pixel, end to end: masks are read, numbered, resized, moved, learnt and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms import v2

from antelope import ConfigError, DataError, load, ml
from antelope.envs import RandomCrop, RandomHorizontalFlip, read
from antelope.envs.images import Pictures as Decoder
from antelope.envs.numbering import number_labels
from antelope.envs.pixel_classes import pixel_space
from antelope.envs.pixel_masks import mask_of
from antelope.launcher.assembly.mask_augmentation import AlignedAugmentation
from antelope.launcher.inference.prediction_files import write_predictions

QUICK: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 12, "batch_size": 8}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def squares(seed: int = 0, n: int = 40, *, height: int = 12, width: int = 10) -> Any:
    """Images uint8 `[n, 3, H, W]`, and masks: 0, bright squares of class 1 or 2, and an ignored row."""
    drawn = np.random.default_rng(seed)
    images = drawn.integers(0, 90, (n, 3, height, width)).astype(np.uint8)
    masks = np.zeros((n, height, width), np.int64)
    for image, mask in zip(images, masks, strict=True):
        top, left, kind = *drawn.integers(1, 6, 2), drawn.integers(1, 3)
        mask[top : top + 4, left : left + 4] = kind
        image[kind, mask > 0] = 250
        mask[0] = 255
    return images, masks


class Net(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, out_channels, 1)
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


class Returns(Net):
    def forward(self, obs: Tensor) -> Any:
        return {"out": super().forward(obs)}


class Learns(Net):
    weight: Tensor | None = None

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        assert (batch.label.dtype, batch.label.shape[1:]) == (torch.int64, (12, 10))
        return F.cross_entropy(self(batch.obs), batch.label, self.weight, ignore_index=255)


def trained(*words: str, **settings: Any) -> Any:
    given = QUICK | {"dataset": squares(), "test_dataset": squares(1), "model": Net} | settings
    return ml(*words, **given)


def same_weights(one: Any, other: Any, atol: float = 0.0) -> bool:
    pairs = zip(one.agent.state_dict().values(), other.agent.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=atol) for a, b in pairs)


def numbered(*masks: Any, classes: tuple[str, ...] = ()) -> Any:
    """The masks of a data set of 2 x 2 images with their classes numbered, and its held-out ones if any."""

    class Named(TensorDataset):
        pass

    parts = []
    for values in masks:
        array = torch.tensor(values).reshape(-1, 2, 2)
        source = Named(torch.zeros(len(array), 1, 2, 2), array)
        if classes:
            source.classes = list(classes)  # type: ignore[attr-defined]
        parts.append(read(source, name="mine"))
    return number_labels(parts[0], parts[1] if len(parts) > 1 else None)


# ------------------------------------------------------------------------------- end to end


def test_it_is_learnt_and_measured_as_by_hand() -> None:
    run = trained(path="usual")
    assert same_weights(run, trained(model=Learns, path="own"), atol=1e-5)
    images, masks = squares(1)
    chosen = run.predict(images)
    counted = masks != 255
    ious = [
        (counted & (chosen == c) & (masks == c)).sum()
        / (counted & ((chosen == c) | (masks == c))).sum()
        for c in range(3)
        if (counted & ((chosen == c) | (masks == c))).any()
    ]
    p = run.predict_proba(images)
    truth = np.take_along_axis(p, np.where(counted, masks, 0)[:, None], 1)[:, 0]
    assert run.metrics == pytest.approx(
        {
            "accuracy": (chosen == masks)[counted].mean(),
            "mean_iou": np.mean(ious),
            "loss": -np.log(truth[counted]).mean(),
        },
        abs=1e-5,
    )
    again = load("usual", model=Net)
    assert again.spec.action.kind == "pixels"
    assert np.array_equal(again.predict(images), chosen)


def test_metrics_of_other_libraries_do_not_count_ignored_pixels() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    run = trained(metrics=["f1", metrics.balanced_accuracy_score], train_steps=40)
    images, masks = squares(1)
    counted = masks != 255
    label, chosen = masks[counted], run.predict(images)[counted]
    f1 = metrics.f1_score(label, chosen, average="macro")
    assert run.metrics["f1"] == pytest.approx(f1, abs=1e-6)
    balanced = metrics.balanced_accuracy_score(label, chosen)
    assert run.metrics["balanced_accuracy_score"] == pytest.approx(balanced, abs=1e-6)


def test_balanced_weights_count_pixels_and_not_ignored_ones() -> None:
    counts = np.bincount(squares()[1].flatten(), minlength=256)[:3]
    Learns.weight = torch.tensor(counts.sum() / (3 * counts)).float()
    try:
        expected = trained(model=Learns, path="own")
    finally:
        Learns.weight = None
    run = trained("loss=CrossEntropyLoss", "loss.weight=balanced", path="by loss")
    assert same_weights(run, expected)


def test_the_default_agent_finds_the_squares() -> None:
    run = trained(model=None, train_steps=40)
    assert run.metrics["mean_iou"] > 0.6


def test_a_run_resumes_to_the_bit() -> None:
    words = ["aug=[RandomCrop,RandomHorizontalFlip]"]
    whole = trained(*words, path="whole")
    trained(*words, path="parts", train_steps=5)
    assert same_weights(trained(*words, path="parts", resume=True), whole)


@pytest.mark.parametrize("strategy", ["er", "ewc", "si", "der"])
def test_a_sequence_of_data_sets_shares_its_classes(strategy: str) -> None:
    tasks = {"dataset": [squares(), squares(2)], "test_dataset": [squares(1), squares(3)]}
    run = trained(f"strategy={strategy}", **tasks)
    assert run.accuracy_matrix.shape == (2, 2)


# --------------------------------------------------------------------------------- numbering


@pytest.mark.parametrize(
    ("masks", "targets", "values"),
    [
        ([0, 1, 2, 1], [0, 1, 2, 1], None),
        ([0, 1, 255, 1], [0, 1, 255, 1], None),
        ([1, 2, 3, 255], [0, 1, 2, 255], (1, 2, 3)),
        ([0, 255, 255, 0], [0, 1, 1, 0], (0, 255)),
        ([True, False, True, True], [1, 0, 1, 1], None),
    ],
)
def test_classes_are_numbered_from_0_and_255_is_ignored(
    masks: list[Any], targets: list[int], values: Any
) -> None:
    part, _ = numbered(masks)
    assert part.targets.flatten().tolist() == targets
    assert part.values == values
    assert part.names == (None if values is None else tuple(map(str, values)))
    assert (part.note is None) == (values is None)


def test_masks_are_numbered_as_the_data_set_lists_its_classes() -> None:
    part, _ = numbered([0, 2, 255, 2], classes=("sky", "sea", "land"))
    assert (part.targets.flatten().tolist(), part.num_classes) == ([0, 2, 255, 2], 3)
    white, _ = numbered([0, 255, 255, 0], classes=("sky", "sea"))
    assert white.targets.flatten().tolist() == [0, 255, 255, 0]
    with pytest.raises(DataError, match="pixels of class 2, but lists 2 classes"):
        numbered([0, 2, 255, 2], classes=("sky", "sea"))


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([[0, 1, 1, 0], [0, 1, 7, 0]], "pixels of class 7, which is not among"),
        ([[255, 255, 255, 255]], "All pixels of mine are labelled 255"),
        ([[0, 1, 1, 0], [255, 255, 255, 255]], "All pixels of mine"),
        ([[0, 1, -1, 0]], "hold -1; classes of pixels are 0 to 254"),
        ([[0, 1, 300, 0]], "hold 300"),
    ],
)
def test_masks_that_cannot_be(masks: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        numbered(*masks)


def test_data_sets_that_share_their_outputs_must_number_their_classes_alike() -> None:
    first, more, others = (
        numbered([0, largest, largest, 0, 0, 1, 1, 0])[0] for largest in (1, 2, 3)
    )
    assert pixel_space([first, more]).shape == (3, 2, 2)
    with pytest.raises(DataError, match="Give masks with the same numbers in both"):
        pixel_space([first, others])


def test_predictions_are_the_classes_that_the_masks_hold() -> None:
    images, masks = squares()
    shifted = np.where(masks == 255, 255, masks + 5)
    run = trained(dataset=(images, shifted), test_dataset=None)
    assert set(np.unique(run.predict(images))) <= {5, 6, 7}
    with pytest.raises(ConfigError, match=r"shape \[12, 10\] each, .* Write them to a \.npy file"):
        write_predictions(run.predictor("ml predict"), images, Path("found.csv"))
    assert not Path("found.csv").exists()
    again = run.evaluate(dataset=(images, shifted))
    assert again["accuracy"] == pytest.approx((run.predict(images) == shifted)[masks != 255].mean())
    with pytest.raises(DataError, match="pixels of class 0, which is not among"):
        run.evaluate(dataset=(images, masks))


def test_masks_in_arrays_may_have_one_channel() -> None:
    images, masks = squares()
    part = read((images, masks[:, None]), name="mine")
    assert part.kind == "pixels"
    assert torch.equal(part.targets, read((images, masks), name="mine").targets)


def test_masks_of_another_size_are_refused() -> None:
    images, masks = squares()
    with pytest.raises(DataError, match=r"integers of 6 x 10 .* images have 12 x 10"):
        trained(dataset=(images, masks[:, :6]))


def test_float_masks_are_values_and_it_is_said() -> None:
    images, masks = squares()
    part = read((images, (masks == 1).astype(np.float32)), name="mine")
    assert part.kind == "values"
    assert part.note is not None
    assert "classes of pixels" in part.note


def test_masks_of_one_class_are_a_warning() -> None:
    images, masks = squares()
    with pytest.warns(UserWarning, match=r"All pixels of arrays have the same class \(0\)"):
        run = trained(dataset=(images, 0 * masks), test_dataset=None)
    assert run.metrics["accuracy"] == 1.0


# ---------------------------------------------------------------------------------- pictures


class Pictures(Dataset[Any]):
    """Pictures of two sizes, with masks as pictures: the left half is class 1, one corner is ignored."""

    def __init__(self, mode: str = "P", *, crop: int = 0):
        self.mode, self.crop = mode, crop

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        size = 16 if i % 2 else 8
        mask = np.zeros((size, size), np.uint8)
        mask[:, : size // 2] = 1
        mask[:2, :2] = 255
        image = Image.fromarray(np.where(mask == 1, 200, 50).astype(np.uint8))
        if self.mode == "array":
            return image, torch.from_numpy(mask)[None]
        made = Image.fromarray(mask[self.crop :]).convert("L")
        return image, made.convert(self.mode) if self.mode == "RGB" else made


@pytest.mark.parametrize("mode", ["L", "array"])
def test_masks_are_resized_with_their_pictures_without_mixing_classes(mode: str) -> None:
    run = trained(dataset=Pictures(mode), test_dataset=None, image_size=8)
    labels = run.replay.sample(4).label
    assert labels.shape == (4, 8, 8)
    assert labels[:, 4:, :4].eq(1).all()
    assert labels[:, :, 4:].eq(0).all()
    assert set(labels.unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize("size", [(6, 4), (4, 6), (9, 2), (20, 13)])
def test_masks_are_resized_as_pillow_does_to_the_nearest_pixel(size: tuple[int, int]) -> None:
    mask = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    pictures = Decoder()
    pictures.size = size  # Width and height, as Pillow has them.
    found = mask_of((Image.new("L", (9, 6)), mask), pictures, "mine")
    expected = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    assert np.array_equal(found, np.asarray(expected))


def test_masks_in_colour_or_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="A mask holds the number"):
        trained(dataset=Pictures("RGB"), test_dataset=None, image_size=8)
    with pytest.raises(DataError, match="They must be equal"):
        trained(dataset=Pictures("L", crop=1), test_dataset=None, image_size=8)


def test_masks_that_lie_on_their_side_are_refused() -> None:
    with pytest.raises(DataError, match=r"has 9 x 6 pixels .* its picture 6 x 9"):
        mask_of((Image.new("L", (9, 6)), np.zeros((9, 6), np.uint8)), Decoder(), "mine")


def test_targets_that_are_no_masks_are_left_alone() -> None:
    pictures = Decoder()
    pictures.size = (3, 2)
    for shape in ((9,), (6, 9, 4), (0, 9)):
        target = np.zeros(shape, np.int64)
        assert mask_of((Image.new("L", (9, 6)), target), pictures, "mine") is target
    depths = torch.rand(6, 9)
    assert mask_of((Image.new("L", (9, 6)), depths), pictures, "mine") is depths


# ------------------------------------------------------------------------------ augmentation


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_crops_and_flips_move_masks_with_their_images(dtype: torch.dtype) -> None:
    masks = torch.from_numpy(squares()[1])
    # An image that shows its mask: whatever moves one must move the other.
    shown = masks.eq(1).to(dtype).unsqueeze(1)

    class Shown(Net):
        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            seen = (batch.obs > 0)[:, 0]
            counted = batch.label != 255
            assert torch.equal(seen & counted, batch.label.eq(1) & counted)
            assert not torch.equal(batch.label, batch.raw_label)
            moved.append(bool((batch.label[:, -1] == 255).any()))
            return self(batch.obs).mean()

    moved: list[bool] = []
    words = "aug=[RandomCrop,RandomHorizontalFlip,RandomVerticalFlip]", "standardize=false"
    binary = torch.where(masks == 2, 0, masks)
    trained(*words, model=Shown, dataset=(shown, binary), test_dataset=None)
    assert any(moved)  # A crop's border is ignored.


@pytest.mark.parametrize("classes", [3, 300])
def test_masks_of_bytes_keep_their_classes(classes: int) -> None:
    augment = AlignedAugmentation([RandomHorizontalFlip(p=1.0)], ignored=-1)
    augment.masks = masks = torch.randint(classes, (4, 12, 10))
    augment.on_bytes(torch.zeros(4, 3, 12, 10, dtype=torch.uint8))
    assert torch.equal(augment.masks, masks.flip(-1))


def test_pixels_that_a_crop_adds_are_ignored() -> None:
    augment = AlignedAugmentation([RandomCrop(padding=3)], ignored=255)
    augment.masks = torch.ones(9, 12, 10, dtype=torch.int64)
    moved = augment(torch.ones(9, 3, 12, 10))[:, 0]
    assert torch.equal(augment.masks, torch.where(moved == 1, 1, 255))
    assert bool((moved == 0).any())


def test_a_step_of_the_users_own_is_not_known_by_its_name() -> None:
    own = type("RandomCrop", (), {"__call__": lambda self, images: images, "__module__": "mine"})
    with pytest.raises(ConfigError, match="RandomCrop may move pixels"):
        AlignedAugmentation([own()], ignored=255)


def test_colours_change_images_alone() -> None:
    augment = AlignedAugmentation([v2.ColorJitter(brightness=0.5)], ignored=255)
    augment.masks = masks = torch.from_numpy(squares()[1])
    augment(torch.rand(40, 3, 12, 10))
    assert augment.masks is masks
    assert not augment.moves


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"aug": v2.RandomRotation(10)}, "RandomRotation may move pixels"),
        ({"aug": v2.RandomCrop((12, 10), padding=2, fill=7)}, "RandomCrop may .*without fill="),
        ({"aug": v2.RandomApply([v2.RandomHorizontalFlip()])}, "RandomHorizontalFlip may move"),
        ({"aug": lambda images: images.flip(-1)}, "may move pixels"),
        ({"aug": "RandomHorizontalFlip", "strategy": "er"}, "Leave strategy= out"),
        ({"model": None, "encoder": "MLP"}, "default agent cannot give each pixel a class"),
        ({"loss": "MSELoss"}, "a class for each pixel"),
        ({"model": Returns}, r"returned a dict \(out\).*'out'"),
        ({"loss": nn.CrossEntropyLoss()}, "ignore_index=255"),
        ({"tasks": 3}, "tasks=3 splits classes, and the targets of arrays are a class for each"),
    ],
)
def test_what_would_be_wrong_is_refused_before_training(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        trained(**settings)
