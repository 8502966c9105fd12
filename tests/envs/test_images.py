"""Pictures become what a person sees, all of one size, with one number of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from antelope.envs.datasets import read
from antelope.envs.folders import open_folder
from antelope.envs.images import Pictures, as_viewed, load
from antelope.replay import DataError

COLOUR = (200, 100, 50)
GREY = 124  # Of that colour, as ITU-R 601 weighs it.


class Items(Dataset[Any]):
    def __init__(self, images: list[Any]):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        return self.images[i], i % 2


def picture(mode: str = "RGB") -> Any:
    """Of one colour; where it has alpha, the left half is transparent."""
    image = Image.new("RGB", (6, 4), COLOUR)
    if mode == "P":
        return image.quantize(4)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode.removesuffix("A"))
        alpha = Image.new("L", (6, 4), 255)
        alpha.paste(0, (0, 0, 3, 4))
        image.putalpha(alpha)
        return image
    return image.convert(mode)


def numbers(value: float, kind: Any) -> Any:
    return Image.fromarray(np.full((4, 6), value, kind))


def decoded(*images: Any) -> Tensor:
    inputs = read(Items(list(images) * 2), name="mine").inputs
    assert isinstance(inputs, Tensor)
    return inputs


LEFT, RIGHT = (slice(None), 0, 0), (slice(None), -1, -1)
WHITE = [255] * 3


@pytest.mark.parametrize(
    ("image", "end", "options", "left", "right"),
    [
        (picture(), "png", {}, COLOUR, COLOUR),
        (picture("L"), "png", {}, [GREY] * 3, [GREY] * 3),
        (picture("1"), "png", {}, None, None),
        (picture("P"), "png", {}, COLOUR, COLOUR),
        (picture("P"), "gif", {}, COLOUR, COLOUR),
        (picture("P"), "png", {"transparency": 0}, WHITE, WHITE),
        (picture("P"), "gif", {"transparency": 0}, WHITE, WHITE),
        (picture(), "png", {"transparency": COLOUR}, WHITE, WHITE),
        (picture("RGBA"), "png", {}, WHITE, COLOUR),
        (picture("RGBA"), "webp", {"lossless": True}, WHITE, COLOUR),
        (picture("LA"), "png", {}, WHITE, [GREY] * 3),
        (picture("CMYK"), "jpg", {"quality": 100}, COLOUR, COLOUR),
        (picture("CMYK"), "tif", {}, COLOUR, COLOUR),
        (picture("YCbCr"), "jpg", {"quality": 100}, COLOUR, COLOUR),
        (picture("P"), "gif", {"save_all": True, "append_images": [Image.new("P", (6, 4))]}, COLOUR,
         COLOUR),
        (picture(), "tif", {"save_all": True, "append_images": [Image.new("RGB", (6, 4))]}, COLOUR,
         COLOUR),
    ],
)  # fmt: skip
def test_a_file_is_what_a_person_sees(
    tmp_path: Path, image: Any, end: str, options: Any, left: Any, right: Any
) -> None:
    file = tmp_path / f"0.{end}"
    image.save(file, **options)
    pixels = np.asarray(load(file)).transpose(2, 0, 1)
    assert (pixels.shape, pixels.dtype) == ((3, 4, 6), np.uint8)
    if left is None:
        assert set(pixels.flatten()) <= {0, 255}
    else:
        assert pixels[LEFT].tolist() == list(left)
        assert pixels[RIGHT].tolist() == list(right)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_turned_as_its_exif_data_says(tmp_path: Path, orientation: int) -> None:
    # What the camera stored for the same upright scene, as the EXIF standard defines its values.
    scene = np.arange(24, dtype=np.uint8).reshape(4, 6)
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.T,
        6: np.rot90(scene),
        7: scene[::-1, ::-1].T,
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "0.png", exif=exif)
    picture = load(tmp_path / "0.png")
    assert np.asarray(picture)[:, :, 0].tolist() == scene.tolist()
    # Predictions look at it once more: it is not turned again.
    assert np.asarray(as_viewed(picture))[:, :, 0].tolist() == scene.tolist()


def test_broken_exif_data_leave_a_picture_as_it_is_stored(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        picture().save(tmp_path / name / "0.jpg", exif=b"Exif\0\0no TIFF file", quality=100)
    for source in (open_folder(tmp_path).train, ImageFolder(str(tmp_path))):
        inputs = read(source, name="mine").inputs
        assert isinstance(inputs, Tensor)
        assert inputs[0, :, 0, 0].tolist() == pytest.approx(COLOUR, abs=2)


def test_a_picture_that_is_too_large_should_be_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture().save(tmp_path / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(DataError, match=r"24 pixels.* exceeds limit.* Shrink or remove it"):
        load(tmp_path / "0.png")


@pytest.mark.parametrize("end", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_by_their_range_and_keep_their_precision(
    tmp_path: Path, end: str
) -> None:
    for name, level in (("dark", 300), ("darker", 310), ("white", 65535)):
        (tmp_path / name).mkdir()
        numbers(level, np.uint16).save(tmp_path / name / f"0.{end}")
    Image.new("RGB", (6, 4), COLOUR).save(tmp_path / "white" / "1.png")
    inputs = read(open_folder(tmp_path).train, name="mine", pictures=Pictures(colour=True)).inputs
    assert isinstance(inputs, Tensor)
    assert (inputs.shape, inputs.dtype) == ((4, 3, 4, 6), torch.float32)
    levels = torch.tensor([[300 / 257] * 3, [310 / 257] * 3, WHITE, COLOUR])
    torch.testing.assert_close(inputs[:, :, 0, 0], levels)


@pytest.mark.parametrize(("mode", "kind"), [("F", np.float32), ("I", np.int32)])
def test_numbers_without_a_range_are_refused_by_name(tmp_path: Path, mode: str, kind: Any) -> None:
    numbers(70_000, kind).save(tmp_path / "0.tif")
    with pytest.raises(
        DataError, match=rf"0\.tif holds 32-bit numbers \(mode {mode}\).*8 or 16 bits"
    ):
        load(tmp_path / "0.tif")


def test_grey_and_coloured_files_have_three_channels(tmp_path: Path) -> None:
    for name in ("L", "RGB", "RGBA", "CMYK"):
        (tmp_path / name).mkdir()
        picture(name).save(tmp_path / name / ("0.jpg" if name == "CMYK" else "0.png"))
    inputs = read(open_folder(tmp_path).train, name="mine").inputs
    assert inputs.shape == (4, 3, 4, 6)


@pytest.mark.parametrize(
    ("images", "pixel", "kind"),
    [
        ([picture()], COLOUR, torch.uint8),
        ([picture("L")], [GREY], torch.uint8),
        ([picture("P")], COLOUR, torch.uint8),
        ([picture("CMYK")], COLOUR, torch.uint8),
        # All of them have alpha: it is theirs to say what it means.
        ([picture("RGBA")], [*COLOUR, 0], torch.uint8),
        ([picture("LA")], [GREY, 0], torch.uint8),
        ([picture("HSV")], list(picture("HSV").getpixel((0, 0))), torch.uint8),
        ([picture("L"), picture()], [GREY] * 3, torch.uint8),
        ([picture("RGBA"), picture()], WHITE, torch.uint8),
        ([picture("LA"), picture("L")], [255], torch.uint8),
        ([picture("P"), picture("L")], COLOUR, torch.uint8),
        ([numbers(65535, np.uint16)], [255], torch.float32),
        ([numbers(257, np.uint16), picture("L")], [1], torch.float32),
        ([numbers(257, np.uint16), picture()], [1, 1, 1], torch.float32),
        ([numbers(3.5, np.float32)], [3.5], torch.float32),
        ([numbers(70_000, np.int32)], [70_000], torch.float32),
    ],
)
def test_pictures_of_a_data_set_share_channels_and_type(
    images: list[Any], pixel: Any, kind: torch.dtype
) -> None:
    inputs = decoded(*images)
    assert inputs.dtype == kind
    assert inputs.shape[1:] == (len(pixel), 4, 6)
    assert inputs[0, :, 0, 0].tolist() == list(pixel)


def test_numbers_of_an_unknown_range_do_not_mix_with_bytes() -> None:
    with pytest.raises(DataError, match=r"mixes images of modes F and RGB.*Convert all"):
        decoded(numbers(0.5, np.float32), picture())


def test_a_colour_that_comes_late_is_not_lost() -> None:
    images = [picture("L")] * 301
    images[200] = picture()  # Every third one is looked at before.
    with pytest.raises(DataError, match=r"mode RGB with grey ones\. Convert all"):
        read(Items(images), name="mine")
    images[200] = numbers(65535, np.uint16)
    assert read(Items(images), name="mine").inputs[200].tolist() == [[[255] * 6] * 4]


def test_held_out_pictures_take_after_those_learnt_from() -> None:
    pictures = Pictures()
    train = read(Items([picture("RGBA"), picture()]), name="mine", pictures=pictures)
    held_out = Items([picture("L").resize((12, 8))])
    test = read(held_out, name="mine", pictures=pictures)
    assert (train.inputs.shape[1:], train.inputs.dtype) == ((3, 4, 6), torch.uint8)
    assert (test.inputs.shape[1:], test.inputs.dtype) == ((3, 4, 6), torch.uint8)
    assert pictures.describe() == "images of 2 sizes resized to 6 x 4 pixels"
