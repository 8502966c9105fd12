"""Conversion of rows in [0, 1] to a model's inputs, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....replay import Spec


class Transform:
    """Converts rows in [0, 1] to the model's training inputs: augmented, then standardised.

    For rows of a memory, which keeps them as `not_aug_inputs` are. A single row will do as well.

    Args:
        spec: Of the data.
        plain: Makes `obs` of stored rows, without augmentation.
        augment: Maps rows in [0, 1] to the same, or None.
    """

    takes_batches = True

    def __init__(self, spec: Spec, plain: Any, augment: Any, device: torch.device):
        self.plain, self.device = plain, device
        self.augment, self.dims = augment, len(spec.obs.shape)
        self.as_they_are = spec.obs.ids is not None  # Integers have no [0, 1].
        # An affine map is determined by the images of 0 and 1.
        # On the host, in float64, which not every device has.
        low, high = (end.cpu().double() for end in plain.ends())
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
        # In this order black is exactly 0.
        return (obs - self.shift).mul_(self.scale_back).clamp_(0, 1)

    def stored(self, rows: Tensor) -> Tensor:
        """Rows in [0, 1] as the data set stores them, but for the dtype."""
        if self.as_they_are:
            return rows
        return self.plain.stored(self.normalise(rows.to(self.device)))


class Normalise:
    """Standardises rows in [0, 1], a single one or a batch; it changes nothing where the run does not.

    Args:
        spec: Of the data.
        low, width: Where 0 comes to lie, and how far from it 1 does, float64 `[*obs.shape]`.

    Attributes:
        mean, std: What is taken off, and what it is divided by then: of each channel of images, and of
            each number of other data.
    """

    takes_batches = True

    def __init__(self, spec: Spec, low: Tensor, width: Tensor, device: torch.device):
        self._nothing = spec.obs.ids is not None  # Integers have no [0, 1].
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
    """Makes rows in [0, 1] of standardised ones, `[B, *obs.shape]` or a single one.

    Attributes:
        mean, std: Of each channel of images, float32.
    """

    takes_batches = True

    def __init__(self, mean: Any, std: Any):
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)

    def __call__(self, rows: Tensor) -> Tensor:
        mean, std = (values.to(rows.device) for values in (self.mean, self.std))
        if rows.dim() >= 3 and mean.dim() == 1:
            mean, std = mean[:, None, None], std[:, None, None]
        return rows * std + mean


def transformed(rows: Tensor, transform: Any) -> Tensor:
    """Rows `[B, *shape]` with a transform: one of ours meets all of them at once, any other one by one.

    Args:
        transform: None: rows as they are.
    """
    if transform is None:
        return rows
    function = getattr(transform, "__self__", transform)  # `Transform.normalise` may be its method.
    if getattr(function, "takes_batches", False):
        whole: Tensor = transform(rows)
        return whole
    if not len(rows):
        return rows
    return torch.stack([torch.as_tensor(transform(row)) for row in rows]).to(rows.device)


def _one_if_alike(values: Tensor, device: torch.device) -> float | Tensor:
    """A number, where it is the same for all places: twice as fast as a tensor."""
    if bool((values == values.flatten()[0]).all()):
        return float(values.flatten()[0])
    return values.float().to(device)
