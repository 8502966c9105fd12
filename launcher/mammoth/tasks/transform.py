"""Conversion of rows in [0, 1] to a model's inputs, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ....replay import Spec

Augment = Callable[[Tensor], Tensor]


class Transform:
    """Converts rows in [0, 1] to the model's training inputs: augmented, then standardised.

    Meant for rows of a memory, which stores `not_aug_inputs`; a single row works as well.

    Args:
        spec: Describes the data.
        plain: Turns stored rows into inputs without augmentation: the run's `Standardize`, or `Rows`.
        augment: Maps rows in [0, 1], `[B, *obs.shape]`, to the same; None: no augmentation.
    """

    takes_batches = True

    def __init__(self, spec: Spec, plain: Any, augment: Augment | None, device: torch.device):
        self.plain, self.device = plain, device
        self.augment, self.dims = augment, len(spec.obs.shape)
        self.as_they_are = spec.obs.ids is not None  # Ids, such as tokens, have no [0, 1].
        # An affine map is determined by the images of 0 and 1. They are computed on the host, since not
        # every device has float64.
        low, high = (end.cpu().double() for end in plain.ends())
        # A column that never varies has no width, and would divide by zero on the way back.
        width = torch.where(high > low, high - low, 1.0)
        self.shift, self.scale, self.scale_back = (
            _one_if_alike(values, device) for values in (low, width, 1 / width)
        )
        self.normalise = Normalise(spec, low, width, device)

    def __call__(self, rows: Tensor) -> Tensor:
        if self.augment is not None:
            single = rows.dim() == self.dims
            rows = self.augment(rows[None])[0] if single else self.augment(rows)
        return self.normalise(rows)

    def undone(self, obs: Tensor) -> Tensor:
        """Rows in [0, 1] from unaugmented inputs of the model."""
        if self.as_they_are:
            return obs
        # Subtracting first makes black exactly 0.
        return (obs - self.shift).mul_(self.scale_back).clamp_(0, 1)

    def stored(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as the data set stores them, except for their dtype."""
        if self.as_they_are:
            return rows
        return self.plain.stored(self.normalise(rows.to(self.device)))


class Normalise:
    """Standardises rows in [0, 1], one or a batch, if the run standardises its inputs.

    Args:
        spec: Describes the data.
        low, width: float64 `[*obs.shape]`, the image of 0, and the distance from it to the image of 1.

    Attributes:
        mean, std: Mean and standard deviation, of each channel of images or of each number of other data.
    """

    takes_batches = True

    def __init__(self, spec: Spec, low: Tensor, width: Tensor, device: torch.device):
        self._nothing = spec.obs.ids is not None  # Ids, such as tokens, have no [0, 1].
        self._shift, self._scale = (_one_if_alike(values, device) for values in (low, width))
        mean, std = (values.float() for values in (0 - low / width, 1 / width))
        if len(spec.obs.shape) == 3 and bool((low == low[:, :1, :1]).all()):
            mean, std = mean[:, 0, 0], std[:, 0, 0]
        self.mean: tuple[float, ...] = tuple(mean.tolist())
        self.std: tuple[float, ...] = tuple(std.tolist())

    def __call__(self, rows: Tensor) -> Tensor:
        if self._nothing:
            return rows
        return rows * self._scale + self._shift


class Denormalise:
    """Turns standardised rows, `[B, *obs.shape]` or a single one, back into rows in [0, 1].

    Args:
        mean, std: `[C]`, mean and standard deviation of each channel.
    """

    takes_batches = True

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor):
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)

    def __call__(self, rows: Tensor) -> Tensor:
        mean, std = (values.to(rows.device) for values in (self.mean, self.std))
        if rows.dim() >= 3 and mean.dim() == 1:
            mean, std = mean[:, None, None], std[:, None, None]
        return rows * std + mean


def transformed(rows: Tensor, transform: Callable[..., Any] | None) -> Tensor:
    """Rows `[B, *shape]` after a transform, which is called once if it is one of ours, else for each row.

    Args:
        transform: None leaves rows unchanged.
    """
    if transform is None:
        return rows
    # A method of one of our transforms accepts batches as well.
    function = transform.__self__ if inspect.ismethod(transform) else transform
    if hasattr(function, "takes_batches") and function.takes_batches:
        whole: Tensor = transform(rows)
        return whole
    if not len(rows):
        return rows
    return torch.stack([torch.as_tensor(transform(row)) for row in rows]).to(rows.device)


def _one_if_alike(values: Tensor, device: torch.device) -> float | Tensor:
    """A number if all values are equal, which is twice as fast as a tensor."""
    if bool((values == values.flatten()[0]).all()):
        return float(values.flatten()[0])
    return values.float().to(device)


class Rows:
    """Turns a sequence's rows into batches, with the class's transforms instead of `Standardize`.

    Args:
        train: Turns a row in [0, 1], `[*shape]`, into the input that a model learns from.
        ends: float32 `[*shape]` each, the images of 0 and 1 without augmentation.
        augments: Whether `train` is random.
        bytes_only: Whether every row in [0, 1] is a multiple of 1/255.

    Attributes:
        augment: Augments rows float32 `[B, *shape]` in [0, 1]; None if `train` is not random.
        layout: Memory format of images; None: channels first.
    """

    layout: torch.memory_format | None = None
    as_stored = False

    def __init__(
        self,
        train: Callable[[Tensor], Tensor],
        ends: tuple[Tensor, Tensor],
        *,
        augments: bool,
        bytes_only: bool,
    ):
        self.train, self._ends, self.bytes_only = train, ends, bytes_only
        self.augment = self.augmented if augments else None

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "raw" in fields:
            fields["raw"] = self.normalise(fields["raw"])
        return self._laid_out(fields)

    def without_augmentation(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same without augmentation."""
        if "raw" in fields:
            fields["obs"] = self.normalise(fields.pop("raw"))
        return self._laid_out(fields)

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`, as a model is evaluated on them."""
        rows = stored if device is None else stored.to(device)
        return self._laid_out({"obs": rows})["obs"]

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as a model is evaluated on them."""
        low, high = (end.to(rows.device) for end in self._ends)
        return rows * (high - low) + low

    def unit(self, obs: Tensor) -> Tensor:
        """Rows in [0, 1] from normalised ones."""
        low, high = (end.to(obs.device) for end in self._ends)
        rows = (obs - low) / torch.where(high > low, high - low, 1.0)
        # Exact to the bit: torchvision divides the bytes of pictures by 255.
        return (rows * 255).round_().div_(255) if self.bytes_only else rows

    def augment_again(self, raw: Tensor) -> Tensor:
        """Stored rows (`batch.raw`), augmented again."""
        obs = self.augmented(self.unit(raw))
        return self._laid_out({"obs": obs})["obs"]

    def ends(self) -> tuple[Tensor, Tensor]:
        """The images of 0 and 1, each float32 `[*obs.shape]`."""
        return self._ends

    def augmented(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1], `[B, *shape]`, after the class's transform, which accepts a single row."""
        # One transfer for the batch; torchvision's transforms of PIL images run on the host.
        host = rows.cpu()
        return torch.stack([self.train(row) for row in host]).to(rows.device)

    def _laid_out(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.layout is not None and fields["obs"].dim() == 4:
            fields["obs"] = fields["obs"].contiguous(memory_format=self.layout)
        return fields


class Plain:
    """Turns the same rows into evaluation batches, without augmentation."""

    layout: torch.memory_format | None = None
    augment = None
    as_stored = False

    def __init__(self, rows: Rows):
        self.rows = rows

    def __call__(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self.rows.without_augmentation(fields)

    plain = __call__

    def observe(self, stored: Tensor, device: torch.device | None = None) -> Tensor:
        """Stored rows alone, `[B, *shape]`."""
        return self.rows.observe(stored, device)

    def ends(self) -> tuple[Tensor, Tensor]:
        return self.rows.ends()


class OwnTransform(Transform):
    """The `Transform` of a sequence that has transforms of its own."""

    def __init__(self, spec: Spec, rows: Rows, device: torch.device):
        super().__init__(spec, rows, rows.augment, device)
        self.rows = rows

    def __call__(self, rows: Tensor) -> Tensor:
        single = rows.dim() == self.dims
        made = self.rows.augmented(rows[None] if single else rows)
        return made[0] if single else made

    def undone(self, obs: Tensor) -> Tensor:
        return self.rows.unit(obs)
