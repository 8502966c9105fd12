"""Turns decoded pictures into tensors of one size, one number of channels and one dtype."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError
from ..replay.tree import walk

_LARGEST = 224  # Pixels per side that networks usually take.
_GREY = ("1", "L", "LA", "La")
# Modes that stay unless they are mixed.
_AS_GIVEN = ("L", "LA", "RGB", "RGBA", "YCbCr", "HSV", "LAB")
_WIDE = ("I", "F")  # 32-bit numbers, whose range a picture does not declare.
_TRANSPARENT = ("P", "PA", "LA", "La", "RGBA", "RGBa")
_ORIENTATION = 0x0112  # EXIF's tag.
_ORIENTED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # Metadata that hold it.


class Form(NamedTuple):
    """The shape `[C, H, W]` and dtype that all pictures get."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Pictures:
    """Turns PIL images into tensors `[C, H, W]` of one shape and dtype.

    Both are decided once, on some of the training images (`settle`), and hold for held-out ones too.

    - Size: `image_size`, or their own, or the median of several, at most 224 pixels a side.
    - Channels: those of the mode that all share, else grey or colour. Palettes, CMYK and the like
      become RGB; transparent pixels become white.
    - Type: uint8; float32 where there are 16 bits (65535 is 255, and nothing is rounded), and for the
      modes I and F, whose numbers stay as they are.

    Args:
        image_size: Height and width in pixels, so that pictures become uint8 `[C, size, size]`.
        colour: Whether grey images get three channels too, `[3, H, W]`.

    Attributes:
        sizes: `(width, height)` of the images read so far.
        size: `(width, height)` that all are resized to, in pixels; None: not settled yet.
        unturned: Whether some came with an orientation (EXIF) that their data set had not applied, as
            torchvision's do: files that come later are then not turned either.
        parts: Those of the parts of a dict of inputs, by their keys.
    """

    def __init__(self, image_size: int | None = None, *, colour: bool = False):
        self.image_size, self.colour = image_size, colour
        self.sizes: set[tuple[int, int]] = set()
        self.size: tuple[int, int] | None = None
        self._mode, self._deep = "", False
        self.unturned = False
        self.parts: dict[tuple[str, ...], Pictures] = {}

    def of(self, part: tuple[str, ...]) -> Pictures:
        """Those of one part of a dict of inputs, with a size and a mode of their own; `()`: these."""
        if not part:
            return self
        return self.parts.setdefault(part, Pictures(self.image_size, colour=self.colour))

    def decoded(self, inputs: object) -> set[bool]:
        """Of each part of inputs, a column or a dict of columns, whether it consists of pictures."""
        return {self.of(path).size is not None for path, _ in walk(inputs)}

    @classmethod
    def like(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Pictures | None:
        """Pictures for stored images `[C, H, W]`; None: no picture has this shape and dtype."""
        modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
        if len(shape) != 3 or dtype != torch.uint8 or shape[0] not in modes:
            return None
        pictures = cls()
        pictures.size, pictures._mode = (shape[2], shape[1]), modes[shape[0]]
        return pictures

    def state(self) -> dict[str, Any]:
        """What was settled, as plain data."""
        return {
            "size": self.size,
            "mode": self._mode,
            "deep": self._deep,
            "colour": self.colour,
            "image_size": self.image_size,
            "unturned": self.unturned,
            "parts": [[list(path), part.state()] for path, part in self.parts.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Pictures:
        """The pictures that `state` describes."""
        pictures = cls(state["image_size"], colour=state["colour"])
        pictures.size, pictures._mode, pictures._deep = state["size"], state["mode"], state["deep"]
        pictures.unturned = state.get("unturned", False)
        pictures.parts = {
            tuple(path): cls.from_state(part) for path, part in state.get("parts", ())
        }
        return pictures

    def matching(self, image: Any, name: str) -> Tensor:
        """Tensor `[C, H, W]` of an image that came later, from a file or as an object.

        Raises:
            DataError: If it has colours, and the settled pictures are grey.
        """
        if self.colour:  # The settled ones were read from files.
            image = as_viewed(image)
        if self._mode == "L" and image.mode not in _GREY and not _is_deep(image.mode):
            grey = _grey_of(image)
            if grey is None:
                raise DataError(
                    f"{name} has colours (mode {image.mode}), but the run was trained on grey pictures. "
                    "Convert it: image.convert('L')."
                )
            image = grey
        return self._tensor(image)

    def settle(self, images: Iterable[Any]) -> None:
        """Decide on these images, once; later calls change nothing."""
        if self.size is not None:
            return
        seen = [(image.size, image.mode) for image in images]
        sizes, modes = [size for size, _ in seen], {mode for _, mode in seen}
        if self.image_size:
            self.size = (self.image_size, self.image_size)
        elif len(set(sizes)) == 1:
            self.size = sizes[0]
        else:
            # The median, since one huge scan among thumbnails would move a mean.
            width, height = (int(np.median([s[d] for s in sizes])) for d in (0, 1))
            self.size = (min(width, _LARGEST), min(height, _LARGEST))
        self._deep = any(_is_deep(mode) for mode in modes)
        only = next(iter(modes)) if len(modes) == 1 else ""
        if modes <= set(_WIDE):
            self._mode = "F"
        elif only in _AS_GIVEN and not (self.colour and only in _GREY):
            self._mode = only
        else:
            grey = all(mode in _GREY or _is_deep(mode) for mode in modes)
            self._mode = "L" if grey and not self.colour else "RGB"

    def form(self) -> Form:
        """What pictures become, once settled."""
        from PIL import Image

        assert self.size is not None
        width, height = self.size
        wide = self._deep or self._mode == "F"
        shape = (Image.getmodebands(self._mode), height, width)
        return Form(shape, np.dtype(np.float32 if wide else np.uint8))

    def settle_as(self, state: Mapping[str, Any], sizes: Iterable[Sequence[int]]) -> None:
        """Adopt what was settled elsewhere, on images of these sizes."""
        width, height = state["size"]
        self.size, self._mode, self._deep = (width, height), state["mode"], state["deep"]
        self.unturned |= state.get("unturned", False)
        self.sizes.update((width, height) for width, height in sizes)

    def __call__(self, image: Any) -> Tensor:
        """Tensor `[C, H, W]` of an image.

        Raises:
            DataError: If its mode holds more than the mode settled on: colours, or 32-bit numbers.
        """
        # Most images have no such metadata, and need not be asked.
        if not self.unturned and any(key in image.info for key in _ORIENTED):
            self.unturned = _orientation(image) != 1
        return self._tensor(image)

    def _tensor(self, image: Any) -> Tensor:
        self.sizes.add(image.size)
        pixels = self._pixels(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def describe(self) -> str | None:
        """A remark on resized images, for the run's header; None: none were resized."""
        if self.parts:
            said = {".".join(path): part.describe() for path, part in self.parts.items()}
            return "; ".join(f"`{name}`: {words}" for name, words in said.items() if words) or None
        if self.size is None or self.sizes <= {self.size}:
            return None
        (width, height), n = self.size, len(self.sizes)
        one = "{} x {}".format(*next(iter(self.sizes)))
        return f"images of {one if n == 1 else f'{n} sizes'} resized to {width} x {height} pixels"

    def _pixels(self, image: Any) -> np.ndarray:
        """Array `[H, W]` or `[H, W, C]`."""
        if (image.mode in _WIDE) != (self._mode == "F"):
            raise DataError(
                f"The data set mixes images of modes {image.mode} and {self._mode}; the range of "
                "values in modes I and F is unknown. Convert all of them to one mode."
            )
        if self._mode == "F":
            return np.array(self._resized(image.convert("F")))
        if _is_deep(image.mode):
            from PIL import Image

            wide = np.asarray(image).astype(np.float32) / 257  # 65535 is 255.
            pixels = np.array(self._resized(Image.fromarray(wide))).clip(0, 255)
            if not self._deep:
                pixels = pixels.round().astype(np.uint8)
            return np.repeat(pixels[:, :, None], 3, 2) if self._mode == "RGB" else pixels
        if self._mode == "L" and image.mode not in _GREY:
            raise DataError(
                f"The data set mixes images of mode {image.mode} with grey ones. Convert all of "
                "them to one mode, as in image.convert('RGB')."
            )
        if image.mode != self._mode:
            image = _converted(image, self._mode)
        pixels = np.array(self._resized(image))
        return pixels.astype(np.float32) if self._deep else pixels

    def _resized(self, image: Any) -> Any:
        return image if image.size == self.size else image.resize(self.size)


def load(file: str | Path | BinaryIO, *, turned: bool = True, name: str | None = None) -> Any:
    """A picture as a viewer shows it: a PIL image of mode RGB, or I;16 if it has 16 bits.

    The first frame of an animation, rotated as its EXIF data says, on white where it is transparent.

    Args:
        turned: Whether to rotate it.
        name: What errors call it; None: its path.

    Raises:
        DataError: If it cannot be decoded, or holds numbers of unknown range.
    """
    from PIL import Image

    name = name or str(file)
    try:
        with Image.open(file) as image:
            check_format(image, name)
            image.load()  # Now, while the file is open: opening reads the header only.
            return as_viewed(image, name, turned=turned)
    except DataError:
        raise
    except Exception as error:  # PIL's decoders raise nearly anything.
        path = Path(name)
        empty = " It is empty." if path.is_file() and path.stat().st_size == 0 else ""
        mend = "Shrink" if isinstance(error, Image.DecompressionBombError) else "Repair"
        raise DataError(
            f"{name} cannot be read as a picture ({type(error).__name__}: {error}).{empty} {mend} "
            "or remove it."
        ) from error


def check_format(image: Any, name: str) -> None:
    """Refuse a picture, opened but not decoded, that PIL would decode by running another program.

    What a file holds is told from its first bytes: PostScript may be called `picture.png`.

    Raises:
        DataError: If it is PostScript, for which PIL runs Ghostscript.
    """
    if image.format == "EPS":
        raise DataError(f"{name} is PostScript, which is a program. Convert it to PNG or JPEG.")


def as_viewed(image: Any, name: str = "The picture", *, turned: bool = True) -> Any:
    """A PIL image as a viewer shows it: of mode RGB, or I;16 if it has 16 bits, upright, on white.

    Args:
        turned: Whether to turn it upright.

    Raises:
        DataError: If it holds numbers of unknown range.
    """
    from PIL import Image

    deep = _is_deep(image.mode) or (image.mode == "I" and image.format == "PPM")
    if image.mode in _WIDE and not deep:
        raise DataError(
            f"{name} holds 32-bit numbers (mode {image.mode}), whose range is unknown. "
            "Convert it to 8 or 16 bits, or give the images as arrays."
        )
    if turned:
        image = _upright(image, _orientation(image))
    if not deep:
        return _converted(image, "RGB")
    return Image.fromarray(np.asarray(image).astype(np.uint16))


def _grey_of(image: Any) -> Any:
    """The image with one channel if all of its pixels are grey, else None."""
    image = _converted(image, "RGB")
    red, green, blue = (np.asarray(channel) for channel in image.split())
    same = np.array_equal(red, green) and np.array_equal(green, blue)
    return image.convert("L") if same else None


def _is_deep(mode: str) -> bool:
    return mode.startswith("I;16")


def _converted(image: Any, mode: str) -> Any:
    """The image in another mode; transparent pixels become white if that mode has no alpha."""
    from PIL import Image

    transparent = image.mode in _TRANSPARENT or image.info.get("transparency") is not None
    if transparent and mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _orientation(image: Any) -> int:
    """How the camera was held, 1 to 8, from the image's EXIF data; 1 (upright) if they cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # PIL's parsers raise nearly anything, and the pixels are whole.
        return 1


def _upright(image: Any, orientation: int) -> Any:
    """The image rotated and mirrored according to EXIF's `orientation`, 1 to 8."""
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    if turn is None:
        return image
    image = image.transpose(turn)
    # PIL copies the metadata: whoever looks at the picture again would turn it again.
    for key in _ORIENTED:
        image.info.pop(key, None)
    return image
