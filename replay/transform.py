"""From columns as stored to the `obs` a model receives, on the whole batch at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ConfigError
from .normalizer import Normalizer
from .spec import Space
from .transfer import upload
from .tree import Path, map_paths, map_tree, walk, zip_trees


@runtime_checkable
class OnBytes(Protocol):
    """An augmentation whose first part only moves pixels, and puts 0 where there was none.

    `augment(images)` is `on_floats(on_bytes(images))`. Bytes are a quarter of the memory to move.
    """

    @property
    def moves_only(self) -> bool:
        """Whether there is no second part."""

    def __call__(self, images: Tensor) -> Tensor: ...

    def on_bytes(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]`, of any dtype."""

    def on_floats(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` float32 in [0, 1]."""


class Standardize:
    """`obs` as float32, augmented if asked, then standardised or scaled to [0, 1].

    Augmentation receives values in [0, 1], as torchvision's transforms expect, and precedes
    standardisation, so that a padded border is black rather than the mean grey. Integer ids are unchanged,
    and booleans become 0 and 1. Every part of a dict is treated so on its own; its image is augmented.

    Args:
        space: Bounds and statistics, in the units of the source, or a dict of such spaces.
        standardize: Whether to scale to zero mean and unit variance (`space.mean`, `space.stddev`), or
            else [0, 1] (`space.low`, `space.high`).
        augment: Maps `[B, *shape]` float32 in [0, 1] to the same; `raw` then keeps the original.

    Attributes:
        layout: Memory layout of images `[B, C, H, W]`; None: as stored, channels first.

    Raises:
        ConfigError: If ids are to be augmented, or a dict without a single image.
    """

    layout: torch.memory_format | None = None
    as_stored = False

    def __init__(
        self,
        space: Space | dict[str, Any],
        *,
        standardize: bool = True,
        augment: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
    ):
        self.augment, self.space = augment, space
        altered = None if augment is None else augmented_part(space)

        def part(path: Path, space: Space) -> _Part:
            own = augment if path == altered else None
            return _Part(space, standardize=standardize, augment=own, device=device)

        self._parts = map_paths(part, space)
        self._finish: Callable[[Any], Any] = self._finish_parts
        if isinstance(self._parts, _Part):  # Bound once: plain data pays nothing for dicts.
            self._finish = self._parts.finish

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        stored = fields["obs"]
        fields["obs"] = self._finish(stored)
        if self.augment is not None:
            fields["raw"] = fields["obs"]
            fields["obs"] = zip_trees(_Part.augmented, self._parts, stored, fields["raw"])
        return fields if self.layout is None else _laid_out(fields, self.layout)

    def without_augmentation(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields as models receive them, without augmentation."""
        fields["obs"] = self._finish(fields["obs"])
        return fields if self.layout is None else _laid_out(fields, self.layout)

    def observe(self, stored: Any, device: torch.device | None = None) -> Any:
        """Stored rows `[B, *shape]` as models receive them, unaugmented, on `device`; None: on their own."""
        rows = stored if device is None else upload(stored, device)
        return self.without_augmentation({"obs": rows})["obs"]

    def stored(self, obs: Any) -> Any:
        """The stored rows that become `obs` without augmentation, float32 (whole numbers if stored so)."""
        return zip_trees(_Part.stored, self._parts, obs)

    def augment_again(self, raw: Any) -> Any:
        """Earlier rows (`batch.raw`, float32 `[B, *shape]`), augmented again, differently."""
        if self.augment is None:
            return raw
        obs = zip_trees(_Part.augmented_again, self._parts, raw)
        return obs if self.layout is None else _laid_out({"obs": obs}, self.layout)["obs"]

    def ends(self) -> tuple[Tensor, Tensor]:
        """The space's lowest and highest values as models receive them, float32 `[*shape]` each."""
        assert isinstance(self._parts, _Part)
        return self._parts.ends()

    def _finish_parts(self, stored: Any) -> Any:
        return zip_trees(_finished, self._parts, stored)


class _Part:
    """`Standardize` for one space."""

    def __init__(
        self,
        space: Space,
        *,
        standardize: bool,
        augment: Callable[[Tensor], Tensor] | None,
        device: torch.device | str,
    ):
        self.augment, self.space, self._device = augment, space, device
        # What is applied to rows as they are stored, and what to those in [0, 1].
        self._on_stored: Callable[[Tensor], Tensor] = _as_it_is
        self._on_unit = augment
        self.finish: Callable[[Tensor], Tensor] = _as_it_is
        if space.ids is not None:
            if augment is not None:
                raise ConfigError(
                    f"aug= needs numbers, but the inputs are integers ({space}) and arrive "
                    "unchanged. standardize=true treats them as numbers."
                )
            return
        low, width, shift, scale = _places(space, standardize=standardize)
        # An augmentation may modify its input in place, but `raw` must not change.
        self.finish = _Affine(shift, scale, device, copies=augment is not None)
        if augment is not None:
            self._to_unit = _Affine(low, width, device)
            self._finish_unit = _Affine((shift - low) / width, scale / width, device)
        if isinstance(augment, OnBytes) and _of_images(space) and bool((low == 0).all()):
            self._on_stored = augment.on_bytes
            self._on_unit = None if augment.moves_only else augment.on_floats

    def augmented(self, stored: Tensor, finished: Tensor) -> Tensor:
        """Stored rows as models receive them, augmented if this part is."""
        if self.augment is None:
            return finished
        moved = self._on_stored(stored)
        if self._on_unit is None:
            return self.finish(moved)
        return self._finish_unit(self._on_unit(self._to_unit(moved)))

    def augmented_again(self, raw: Tensor) -> Tensor:
        if self.augment is None:
            return raw
        return self._finish_unit(self.augment(self._finish_unit.undone(raw)))

    def stored(self, obs: Tensor) -> Tensor:
        if self.space.ids is not None:
            return obs
        rows: Tensor = self.finish.undone(obs)  # type: ignore[attr-defined]
        return rows if self.space.dtype.is_floating_point else rows.round_()

    def ends(self) -> tuple[Tensor, Tensor]:
        space = self.space
        ends = [
            torch.as_tensor(0.0 if end is None else end, dtype=torch.float64)
            for end in (space.low, space.high)
        ]
        if space.scale is not None:
            ends = [space.scale.place(end) for end in ends]
        low, high = (self.finish(end.float().expand(space.shape).to(self._device)) for end in ends)
        return low, high


def _finished(part: _Part, stored: Tensor) -> Tensor:
    return part.finish(stored)


def augmented_part(space: Space | dict[str, Any]) -> Path:
    """The keys of the part that `aug=` applies to: the only image of a dict; `()` for a single space.

    Raises:
        ConfigError: If a dict has no image, or several.
    """
    if isinstance(space, Space):
        return ()
    parts = dict(walk(space))
    images = [path for path, part in parts.items() if len(part.shape) == 3 and part.ids is None]
    if len(images) != 1:
        found = ", ".join(f"`{'.'.join(path)}` ({part})" for path, part in parts.items())
        raise ConfigError(
            f"aug= applies to the image of a dict of inputs, and there {_count(len(images))}: {found}. "
            "Augment in the __getitem__ of your Dataset instead: its items are then read at each use."
        )
    return images[0]


def _count(images: int) -> str:
    return f"are {images}" if images else "is none"


def affine(space: Space, *, standardize: bool) -> tuple[Tensor, Tensor] | None:
    """The shift and the scale with which `Standardize` makes `(stored - shift) / scale` of stored rows.

    Returns:
        float32, both broadcasting over `[*shape]`; None for ids, which stay as they are.
    """
    if space.ids is not None:
        return None
    _, _, shift, scale = _places(space, standardize=standardize)
    return shift, scale


def _places(space: Space, *, standardize: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lowest value and the width, then the shift and the scale, all in stored units."""
    if space.scale is None:
        low = torch.as_tensor(space.low, dtype=torch.float32)
        width = torch.as_tensor(space.high, dtype=torch.float32) - low
        shift, scale = space.mean, space.stddev
    else:  # Stored at zero mean and unit variance.
        low, high = (
            space.scale.place(torch.as_tensor(end, dtype=torch.float64)).float()
            for end in (space.low, space.high)
        )
        width = high - low
        shift, scale = torch.tensor(0.0), torch.tensor(1.0)
    width = torch.where(width > 0, width, 1.0)
    if not standardize or space.dtype == torch.bool or shift is None or scale is None:
        return low, width, low, width
    shift, scale = (_per_channel(x, space).to(torch.float32) for x in (shift, scale))
    # A constant feature carries nothing: leave it at zero rather than divide by zero.
    return low, width, shift, torch.where(scale > 0, scale, 1.0)


def _of_images(space: Space) -> bool:
    return space.dtype == torch.uint8 and len(space.shape) == 3


def _as_it_is(x: Tensor) -> Tensor:
    return x


class _Affine:
    """`(x - shift) / scale` as float32, in as few passes over the batch as there can be."""

    def __init__(
        self, shift: Tensor, scale: Tensor, device: torch.device | str, *, copies: bool = True
    ):
        self.nothing = not copies and bool((shift == 0).all() and (scale == 1).all())
        self.shift, self.factor = shift.to(device), (1 / scale).to(device)
        # One number for all pixels: a single pass, `offset + factor * x`. Floats may be far from
        # zero, where this loses digits.
        self.single = float(self.factor) if self.factor.numel() == 1 else None
        self.offset = -self.shift * self.factor
        self.scale = scale.to(device)

    def undone(self, y: Tensor) -> Tensor:
        """The `x` that `y` was computed from: the inverse."""
        return torch.addcmul(self.shift, y, self.scale)

    def __call__(self, x: Tensor) -> Tensor:
        y = x.float()
        if self.nothing:
            return y
        out = y if y is not x else torch.empty_like(y)
        if self.single is not None and x.dtype == torch.uint8:
            return torch.add(self.offset, y, alpha=self.single, out=out)
        return torch.sub(y, self.shift, out=out).mul_(self.factor)


class Observations:
    """Stored observations of environments as the model receives them, float32 `[..., *space.shape]`.

    Images (uint8) are scaled to [0, 1], choices become one-hot, and other values keep their units or are
    normalised by running statistics. Ids stay int64.

    Args:
        space: Space of the observations, or a dict of spaces.
        normalizer: Running statistics of observations and rewards, or None.

    Attributes:
        unpack: Turns a recurrent model's stored state into what its `forward` takes.
        initial: Returns the state of n rows where none is stored, or None.
        layout: Memory layout of images `[B, C, H, W]`; None: as stored, channels first.
    """

    layout: torch.memory_format | None = None
    augment: Callable[[Tensor], Tensor] | None = None  # Observations are never augmented.

    def __init__(self, space: Space | dict[str, Any], normalizer: Normalizer | None = None):
        self.space, self.normalizer = space, normalizer
        self._convert = map_tree(_conversion, space)  # By leaf.
        self.unpack: Callable[[dict[str, Tensor]], Any] | None = None
        self.initial: Callable[[int], Any] | None = None
        # Whether models receive observations exactly as they are stored.
        self.as_stored = normalizer is None and self._convert is _as_it_is

    def carrying(
        self, *, unpack: Callable[[dict[str, Tensor]], Any], initial: Callable[[int], Any]
    ) -> Observations:
        """The transform for a recurrent model: batches hold a `state` as its `forward` accepts it.

        Args:
            unpack: Converts the stored state, `{number: [B, ...]}`, to that.
            initial: Returns the state of n rows where none is stored.
        """
        twin = copy.copy(self)
        twin.unpack, twin.initial = unpack, initial
        return twin

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self.convert(self.normalize(fields))

    def normalize(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Apply the running statistics to rows in host memory, before they are sent to a device."""
        if (normalizer := self.normalizer) is not None:
            fields["obs"] = normalizer.obs(fields["obs"])
            fields["next_obs"] = normalizer.obs(fields["next_obs"])
            fields["reward"] = normalizer.reward(fields["reward"])
        return fields

    def convert(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Everything else, on the device of the batch."""
        if not self.as_stored:
            fields["obs"] = _converted(self._convert, fields["obs"])
            fields["next_obs"] = _converted(self._convert, fields["next_obs"])
        if self.layout is not None:
            fields = _laid_out(fields, self.layout)
        if self.unpack is not None and "state" in fields:
            fields["state"] = self.unpack(fields["state"])
        elif self.initial is not None:
            fields["state"] = self.initial(len(fields["reward"]))
        return fields

    def observe(self, stored: Any, device: torch.device | None = None) -> Any:
        """Observations alone, `[..., *stored shape]`, on `device`; None: where they are."""
        obs = stored if self.normalizer is None else self.normalizer.obs(stored)
        if device is not None:
            obs = upload(obs, device)
        obs = _converted(self._convert, obs)
        return obs if self.layout is None else _laid_out({"obs": obs}, self.layout)["obs"]


def _laid_out(fields: dict[str, Any], layout: torch.memory_format) -> dict[str, Any]:
    """The fields with images in a memory layout."""

    def laid_out(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=layout) if x.dim() == 4 else x

    for name in {"obs", "next_obs"} & fields.keys():
        fields[name] = map_tree(laid_out, fields[name])
    return fields


def _converted(conversion: Any, stored: Any) -> Any:
    return zip_trees(lambda convert, x: convert(x), conversion, stored)


def _conversion(space: Space) -> Callable[[Tensor], Tensor]:
    """The function that converts stored or normalised (float32) observations to a model's input."""
    if space.ids is not None or (space.numeric and space.dtype == torch.float32):
        return _as_it_is
    if _of_bytes(space):
        return _unit
    if not space.discrete or space.binary:
        return Tensor.float
    if not space.nvec:
        n = space.n
        return lambda stored: F.one_hot(stored, n).float()
    nvec = space.nvec
    return lambda stored: torch.cat(
        [F.one_hot(stored[..., i], n) for i, n in enumerate(nvec)], -1
    ).float()


def _unit(stored: Tensor) -> Tensor:
    """Bytes in [0, 1]."""
    return stored if stored.dtype == torch.float32 else stored.float().div_(255)


def _of_bytes(space: Space) -> bool:
    """Whether values use the full range of bytes: a board with pieces from 0 to 6 does not."""
    if space.dtype != torch.uint8 or space.discrete:
        return False
    high = space.high
    return bool((high == 255).all()) if isinstance(high, Tensor) else high in (None, 255)


def _per_channel(statistic: Tensor, space: Space) -> Tensor:
    """`(C,)` reshaped to broadcast over `(C, H, W)`; other shapes unchanged."""
    if statistic.dim() == 1 and len(space.shape) == 3:
        return statistic[:, None, None]
    return statistic
