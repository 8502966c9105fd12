"""Augmentations that models apply themselves, to images `[B, C, H, W]` in [0, 1]."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .tasks.transform import transformed

T = TypeVar("T")
Image = TypeVar("Image")  # A PIL image, or a tensor.
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how bright red, green and blue are.


def apply_transform(
    x: object, transform: Callable[..., Any] | None, autosqueeze: bool = False
) -> Any:
    """Apply a transform to rows: the model's own to all at once, any other to one after another.

    Args:
        x: `[B, *shape]`, or a PIL image.
        transform: A function of a row `[*shape]`; None leaves rows unchanged.
        autosqueeze: Return a single row without its first dimension.
    """
    if transform is None:
        return x
    if not isinstance(x, Tensor):  # A PIL image.
        return transform(x)
    out = transformed(x, transform)
    return out[0] if autosqueeze and len(out) == 1 else out


def rand_bbox(size: Sequence[int], lam: float) -> tuple[int, int, int, int]:
    """A random box that covers about `1 - lam` of an image: first row and column, and those past the last.

    Args:
        size: Shape of a batch of images, `[B, C, H, W]`.
        lam: float in [0, 1], the share of the image outside the box.
    """
    height, width = size[2], size[3]
    side = np.sqrt(1.0 - lam)
    tall, wide = int(height * side), int(width * side)
    row, column = np.random.randint(height), np.random.randint(width)
    top, bottom = np.clip([row - tall // 2, row + tall // 2], 0, height)
    left, right = np.clip([column - wide // 2, column + wide // 2], 0, width)
    return int(top), int(left), int(bottom), int(right)


def cutmix_data(
    x: Tensor, y: Tensor, alpha: float = 1.0, cutmix_prob: float = 0.5, force: bool = False
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Images with a box of another one, both labels, and the first label's share. Changes `x`.

    Source: Yun et al. (2019), CutMix, arXiv 1905.04899.

    Args:
        x: float `[B, C, H, W]`, changed in place.
        y: int64 `[B]`, labels.
        alpha: float, both parameters of the Beta distribution of the share.
        cutmix_prob: float in [0, 1], probability of mixing; otherwise the share is 1.
        force: Mix in any case.

    Raises:
        ValueError: If `x` is not a batch of images, or `alpha` not above 0.
    """
    if not force and np.random.rand() > cutmix_prob:
        return x, y, y, 1.0
    if x.dim() != 4 or alpha <= 0:
        raise ValueError(
            f"cutmix_data needs x [B, C, H, W] and alpha > 0, not {list(x.shape)} and {alpha}."
        )
    other = torch.randperm(len(x)).to(x.device)
    top, left, bottom, right = rand_bbox(x.shape, np.random.beta(alpha, alpha))
    x[:, :, top:bottom, left:right] = x[other][:, :, top:bottom, left:right]
    # The box may be cut off at the border: the share is that of what was really pasted.
    share = 1 - (bottom - top) * (right - left) / (x.shape[-1] * x.shape[-2])
    return x, y, y[other], share


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images `[B, C, H, W]` minus `mean`, divided by `std`, per channel."""
    shift, scale = (torch.as_tensor(value, dtype=x.dtype, device=x.device) for value in (mean, std))
    return (x - shift.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)


def random_flip(x: Tensor) -> Tensor:
    """Mirror each image `[B, C, H, W]` with probability 1/2, in place."""
    mirrored = (torch.rand(len(x)) < 0.5).to(x.device).view(-1, 1, 1, 1)
    return x.copy_(torch.where(mirrored, x.flip(-1), x))


def random_grayscale(x: Tensor, prob: float = 0.2) -> Tensor:
    """Turn colour images `[B, 3, H, W]` grey with a given probability, in place."""
    if x.shape[1] == 3:
        grey = (torch.rand(len(x)) < prob).to(x.device).view(-1, 1, 1, 1)
        luma = torch.tensor(_LUMA, dtype=x.dtype, device=x.device)
        brightness = torch.einsum("bchw,c->bhw", x, luma)[:, None]
        x.copy_(torch.where(grey, brightness, x))
    return x


def random_crop(x: Tensor, padding: int) -> Tensor:
    """Shift each image `[B, C, H, W]` by up to `padding` pixels, filled with black."""
    rows, height, width = len(x), x.shape[2], x.shape[3]
    padded = F.pad(x, (padding,) * 4)
    top, left = torch.randint(2 * padding or 1, (2, rows), device=x.device)
    down = top[:, None] + torch.arange(height, device=x.device)  # (B, H)
    along = left[:, None] + torch.arange(width, device=x.device)  # (B, W)
    # One gather for the batch: slicing image by image would launch a kernel for each.
    which = torch.arange(rows, device=x.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[which, down[:, :, None], along[:, None]]
    return cropped.permute(0, 3, 1, 2).contiguous()


class soft_aug:
    """Shift by up to 4 pixels, mirror and standardise images `[B, C, H, W]` in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor) -> Tensor:
        return normalize(random_flip(random_crop(x, 4)), self.mean, self.std)


class strong_aug:
    """SimCLR's augmentation of images `[B, C, H, W]` in [0, 1], standardised: X-DER's second view.

    Source: Chen et al. (2020), arXiv 2002.05709, appendix A, without the blur.

    Args:
        size: int or two, height and width of the result in pixels.
        mean, std: float `[C]`, mean and standard deviation of each channel.
    """

    def __init__(self, size: int | Sequence[int], mean: Sequence[float], std: Sequence[float]):
        from torchvision import transforms  # Slow to import, and needed by few models.

        jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(_sides(size), scale=(0.2, 1.0), antialias=True),
                transforms.RandomApply([jitter], p=0.8),
            ]
        )
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor) -> Tensor:
        # Image by image: torchvision draws one crop and one jitter per call. A copy, as flipping is in place.
        x = torch.stack([self.transform(image) for image in random_flip(x.clone())])
        return normalize(random_grayscale(x), self.mean, self.std)


def _sides(size: int | Sequence[int]) -> list[int]:
    """Height and width of `28`, `(28, 28)` or `(1, 28, 28)`."""
    sides = [size] if isinstance(size, int) else list(size)
    return [int(sides[-2] if len(sides) > 1 else sides[0]), int(sides[-1])]


class RepeatedTransform:
    """Several transforms of the same rows, `[n, B, *shape]`."""

    def __init__(self, transform_list: Sequence[Any], autosqueeze: bool = False):
        if not transform_list:
            raise ValueError("RepeatedTransform needs at least one transform.")
        self.transform_list, self.autosqueeze = list(transform_list), autosqueeze

    @torch.no_grad()
    def __call__(self, x: object) -> Tensor:
        each = [apply_transform(x, t, autosqueeze=self.autosqueeze) for t in self.transform_list]
        return torch.stack(each)


class DoubleTransform:
    """Transforms the first of two images, and returns the second unchanged."""

    def __init__(self, tf: Callable[[Any], Any]):
        self.transform = tf

    @torch.no_grad()
    def __call__(self, img: object, other_img: T) -> tuple[Any, T]:
        return self.transform(img), other_img


class CustomRandomHorizontalFlip:
    """Mirrors an image together with the maps `[C, H, W]` that belong to it, or leaves all unchanged.

    Args:
        p: float in [0, 1], the probability of mirroring.
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    @torch.no_grad()
    def __call__(self, img: Image, other_img: Sequence[Tensor] = ()) -> tuple[Image, list[Tensor]]:
        from torchvision.transforms.functional import hflip

        if np.random.rand() < self.p:
            return hflip(img), [each.flip(-1) for each in other_img]
        return img, list(other_img)


class CustomRandomCrop:
    """Crops an image, and the maps that belong to it at the same place.

    Args:
        size: int or two, height and width of the crop in pixels.
        padding: int, pixels added on every side first.
        resize: Enlarge maps twofold for the crop.
        min_resize_index: int, the last map that is enlarged; None: all are.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int = 0,
        resize: bool = False,
        min_resize_index: int | None = None,
    ):
        self.size, self.padding = _sides(size), padding
        self.resize, self.min_resize_index = resize, min_resize_index

    @torch.no_grad()
    def __call__(self, img: Image, other_img: Sequence[Tensor] = ()) -> tuple[Image, list[Tensor]]:
        from torchvision.transforms import RandomCrop, functional

        padded = functional.pad(img, self.padding)
        box = RandomCrop.get_params(padded, self.size)  # Top, left, height, width.
        last = len(other_img) if self.min_resize_index is None else self.min_resize_index
        maps = [
            self._enlarged_crop(each, box)
            if self.resize and number <= last
            else self._crop(each, box)
            for number, each in enumerate(other_img)
        ]
        return functional.crop(padded, *box), maps

    def _crop(self, each: Tensor, box: Sequence[int]) -> Tensor:
        """The part of a map `[C, h, w]` that belongs to a box of the padded image."""
        shrunk = max(self.size[0] // each.shape[-1], 1)  # How much smaller the map is.
        top, left, height, width = (side // shrunk for side in box)
        padded = F.pad(each, (self.padding // shrunk,) * 4)
        return padded[:, top : top + height, left : left + width]

    def _enlarged_crop(self, each: Tensor, box: Sequence[int]) -> Tensor:
        """The same from a map enlarged to twice the size, which is then reduced to its own size."""
        twice = each.repeat_interleave(2, 1).repeat_interleave(2, 2)
        part = self._crop(twice, box)
        return F.interpolate(part[None], size=list(each.shape[-2:]), mode="nearest")[0]


class DoubleCompose:
    """Applies transforms of an image and its maps, such as `CustomRandomCrop`, one after another."""

    def __init__(self, transforms: Sequence[Any]):
        self.transforms = list(transforms)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.transforms)

    def __getitem__(self, index: int) -> Any:
        return self.transforms[index]

    def __len__(self) -> int:
        return len(self.transforms)

    @torch.no_grad()
    def __call__(self, img: Image, other_img: Sequence[Tensor]) -> tuple[Image, list[Tensor]]:
        # Transforms may change their input in place, which the caller must not notice.
        pair = copy.deepcopy(img), [each.clone() for each in other_img]
        for transform in self.transforms:
            pair = transform(*pair)
        return pair
