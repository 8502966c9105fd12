"""The augmentation that `aug=` names, tried out before a run begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...envs.augment import first_on_bytes
from ...replay import ConfigError
from ...replay.randomness import forked_randomness
from ..settings.object_names import class_name

# torchvision's transforms draw once per call: one with a probability of 0.01 leaves all tries
# unchanged once in 20,000 runs.
_TRIES = 1000
_NOISE = 4  # Images per try.
_DRAWS = 30  # Tries for one that draws its operation: each operation should be called once.


class Augmentation:
    """Applies several steps in turn.

    Args:
        steps: Each maps images `[B, C, H, W]` to images; kept as objects, which may have state.
    """

    def __init__(self, steps: list[Callable[[Tensor], Tensor]]):
        self.steps = steps
        self._first, self._rest = first_on_bytes(steps)

    def __call__(self, images: Tensor) -> Tensor:
        return self.on_floats(self.on_bytes(images))

    def on_bytes(self, images: Tensor) -> Tensor:
        """The first steps, on images in [0, 1] or as they are stored, uint8 `[B, C, H, W]`."""
        for step in self._first:
            images = step(images)
        return images

    @property
    def moves_only(self) -> bool:
        """Whether there are no further steps."""
        return not self._rest

    def on_floats(self, images: Tensor) -> Tensor:
        """The steps after them, on images in [0, 1]."""
        for step in self._rest:
            images = step(images)
        return images


def check_augmentation(augment: Augmentation, obs: Tensor) -> None:
    """Try an augmentation on inputs and on noise, without consuming random numbers of the run.

    Args:
        obs: Some of the data, float32 `[B, *shape]` in [0, 1].

    Raises:
        ConfigError: If it raises, changes shape or dtype, or never changes anything.
    """
    for step in each_step(augment.steps):
        if type(step).__name__ == "Normalize" and "torchvision" in type(step).__module__:
            raise ConfigError(
                "aug=Normalize would shift training data only: held-out data is not augmented. Leave it "
                "out; inputs are standardised already (in [0, 1] with standardize=false)."
            )
    with forked_randomness(0):
        augmented = _tried(augment, obs)
        if augmented.shape != obs.shape:
            raise ConfigError(
                f"aug turns inputs {list(obs.shape)} into {list(augmented.shape)}; it must keep their "
                "shape, because held-out data is not augmented."
            )
        if obs.is_floating_point() and not augmented.is_floating_point():
            raise ConfigError(
                f"aug turns float32 inputs in [0, 1] into {str(augmented.dtype)[6:]}; it must return "
                "floats in [0, 1]."
            )
        if not torch.equal(augmented, obs):
            # It works; one that draws its operation should not fail later, with another of them.
            for _ in range(_DRAWS):
                _tried(augment, obs)
            return
        # No change may be chance, or due to these images: a black one is its own mirror image.
        noise = torch.rand(_NOISE, *obs.shape[1:], device=obs.device).to(obs.dtype)
        if any(not torch.equal(_tried(augment, noise), noise) for _ in range(_TRIES)):
            return
    steps = list(each_step(augment.steps))
    names = list(map(class_name, steps))
    advice = "Check its arguments (p, size, ...), or leave aug out."
    if "RandomCrop" in names:
        advice = "A crop as large as the image needs padding, such as aug.padding=4."
    raise ConfigError(
        f"aug={'+'.join(names)} changes nothing: inputs of shape {list(obs.shape[1:])} came back "
        f"unchanged in {_TRIES} tries. {advice}"
    )


def _tried(augment: Augmentation, obs: Tensor) -> Tensor:
    """The augmented inputs.

    Raises:
        ConfigError: If the augmentation raises, or does not return a tensor.
    """
    try:
        augmented: Any = augment(obs.clone())  # A step may work in place.
    except Exception as error:
        raise ConfigError(
            f"aug raised {type(error).__name__} on inputs of shape {list(obs.shape)}: {error}"
        ) from error
    if not isinstance(augmented, Tensor):
        raise ConfigError(f"aug returned a {type(augmented).__name__}; it must return a tensor.")
    return augmented


@runtime_checkable
class _Composed(Protocol):
    """A step made of others: torchvision's Compose, RandomApply, RandomChoice, ..."""

    @property
    def transforms(self) -> object: ...


def each_step(steps: Iterable[object]) -> Iterator[object]:
    """The single steps, those inside `Compose` and the like included."""
    for step in steps:
        inner = step.transforms if isinstance(step, _Composed) else None
        if isinstance(inner, (list, tuple, torch.nn.ModuleList)):
            yield from each_step(inner)
        else:
            yield step
