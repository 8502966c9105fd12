"""Supervised learning: the usual losses, and the default network for a data set."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import Batch, ConfigError, Replay, Space
from .blocks.cnn import CNN
from .blocks.encoder import Flat, Joint, Trunk
from .blocks.encoder import encoder as features
from .blocks.integers import Integers, Numbers
from .blocks.mlp import MLP
from .blocks.residual import ResidualCNN
from .blocks.segmentation import SegmentationNet
from .blocks.sequences import Sequences
from .calling import call, output_of, takes_steps
from .log import Log
from .policy.parts import trunk
from .policy.spaces import positive, stddev_of
from .traits import Traits

_LARGE = 32  # Images with sides of at least this many pixels get a residual network.


def supervised_loss(
    model: nn.Module,
    batch: Batch,
    space: Space,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """The loss that trains any module without a `learn` of its own, a float32 scalar.

    Cross-entropy for classes, its mean over the pixels for a class of each; binary cross-entropy for several
    labels; for values, the squared error divided by their variance, so that the best constant has a loss of 1
    whatever the targets' units.

    Args:
        space: The space of the labels.
        loss: Computes a scalar from outputs and labels instead; None: the usual loss.
    """
    output = output_of(model, batch)
    if loss is not None:
        return loss(output, batch.label)
    if space.kind == "labels":
        return F.binary_cross_entropy_with_logits(output, batch.label)
    if space.kind == "pixels":
        return pixel_cross_entropy(output, batch.label)
    if space.discrete:
        return F.cross_entropy(output, batch.label)
    error = output - batch.label
    if (stddev := stddev_of(space, error.device)) is not None:
        error = error / stddev
    return error.square().mean()


def pixel_cross_entropy(output: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy over all pixels of a batch that count; 0 if none does.

    Args:
        output: Logits `[B, n, H, W]`.
        label: int64 `[B, H, W]`; 255 marks pixels to be ignored.
    """
    # torch's mean over no pixels would be NaN.
    total = F.cross_entropy(output, label, ignore_index=Space.ignored, reduction="sum")
    return total / (label != Space.ignored).sum().clamp(min=1)


class Supervised(nn.Module):
    """A network for the data, trained by `supervised_loss`.

    Args:
        obs_spec, action_spec: Spaces of the inputs, `[B, *shape]` or a dict, and of the targets.
        hidden: Width of an MLP's layers, in units; convolutions have a fraction as many channels.
        encoder: Replaces our first layers: `[B, *obs.shape]` to features `[B, ...]`.
    """

    antelope_traits: ClassVar[Traits] = Traits(supervised=True, leaves_padding_out=True)

    def __init__(
        self,
        obs_spec: Space | dict[str, Space],
        action_spec: Space,
        hidden: int = 256,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.action_spec = action_spec
        # Values are learnt at zero mean and unit variance; `forward` returns them in the targets' units.
        mean, stddev = action_spec.mean, action_spec.stddev
        self.register_buffer("mean", torch.tensor(0.0) if mean is None else mean.clone())
        self.register_buffer("stddev", torch.tensor(1.0) if stddev is None else positive(stddev))
        values = not action_spec.discrete
        if action_spec.kind == "pixels":
            self.network: nn.Module = pixel_network(obs_spec, action_spec.n, hidden, encoder)
        else:
            self.network = network(obs_spec, action_spec.n, hidden, encoder, values=values)
        self._takes_steps = takes_steps(self.network)

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, *obs.shape]` to logits or values `[B, *action.shape]`."""
        output = call(self.network, obs) if self._takes_steps else self.network(obs)
        if self.action_spec.discrete:
            return output
        return output.unflatten(1, self.action_spec.shape) * self.stddev + self.mean

    def learn(self, replay: Replay, log: Log) -> Tensor:
        """The loss of the next batch."""
        return supervised_loss(self, next(replay), self.action_spec)


def pixel_network(
    obs_spec: Space | dict[str, Space], num_classes: int, hidden: int, encoder: nn.Module | None
) -> nn.Module:
    """A network that classifies every pixel of an image.

    Raises:
        ConfigError: If there is an encoder, or the inputs are not a single image.
    """
    if encoder is not None or isinstance(obs_spec, dict):
        what = "encoder= returns features without places" if encoder else "the inputs are a dict"
        raise ConfigError(
            f"The default agent cannot give each pixel a class here: {what}. Give a model= whose forward "
            "returns logits [B, num_classes, H, W]."
        )
    # As many channels as the residual network's first block has, per pixel.
    net = SegmentationNet(obs_spec.shape, num_classes, channels=max(2, hidden // 16))
    return net if obs_spec.ids is None else nn.Sequential(Numbers(obs_spec), net)


def network(
    obs_spec: Space | dict[str, Space],
    out_features: int,
    hidden: int,
    encoder: nn.Module | None,
    *,
    values: bool = False,
) -> nn.Module:
    """A residual CNN for images of at least 32x32 pixels, a plain CNN for smaller ones, else an MLP.

    Sequences of different lengths are read by a GRU. Integers in the shape of an image are treated as
    numbers; other integers pass `Integers` first. The columns of a table's categories are embedded, and the
    parts of a dict become one vector first.

    Args:
        values: Whether the output is numbers, for which there are often few rows to learn from.
    """
    if isinstance(obs_spec, Space) and obs_spec.ragged:
        return _over_sequences(obs_spec, out_features, hidden, encoder)
    if encoder is not None:
        seen = trunk(encoder, obs_spec, ())
        return nn.Sequential(seen, nn.Linear(seen.out_features, out_features))
    if isinstance(obs_spec, dict) or (obs_spec.ids is not None and obs_spec.nvec):
        parts = _features(obs_spec, hidden)
        after = network(Space((parts.out_features,)), out_features, hidden, None, values=values)
        return nn.Sequential(parts, after)
    shape, whole = obs_spec.shape, obs_spec.ids is not None
    if _is_image(obs_spec):
        cnn: nn.Module
        if min(shape[1:]) >= _LARGE:
            cnn = ResidualCNN(shape, out_features, channels=max(2, hidden // 4))
        else:
            channels = [max(1, hidden // part) for part in (8, 4, 2)]
            # No hidden layer: on a sequence of tasks, that forgets less.
            cnn = CNN(shape, out_features, channels, hidden=0, norm=True)
        return nn.Sequential(Numbers(obs_spec), cnn) if whole else cnn
    if whole:
        first = Integers(obs_spec)
        after = network(Space((first.out_features,)), out_features, hidden, None, values=values)
        return nn.Sequential(first, after)
    if values:
        return smooth(prod(shape), out_features, max(1, hidden // 4))
    # A single number comes as [B], without a dimension to flatten.
    return nn.Sequential(Flat(), MLP(prod(shape), out_features, (hidden, hidden)))


def _over_sequences(
    obs_spec: Space, out_features: int, hidden: int, encoder: nn.Module | None
) -> nn.Module:
    if encoder is not None:
        raise ConfigError(
            f"encoder={type(encoder).__name__} cannot be used with sequences of different lengths, whose "
            "lengths it would not receive. Pass the whole model: model=Model, with forward(obs, length) or "
            "forward(obs, mask)."
        )
    return Sequences(obs_spec, out_features, max(1, hidden // 2))


def _features(space: Space | dict[str, Any], hidden: int) -> Trunk:
    """The features of a part of the inputs, of the kind that `network` computes from it alone.

    Args:
        hidden: As for `network`; an image becomes as many features.
    """
    if isinstance(space, dict):
        joint = Joint({name: _features(part, hidden) for name, part in space.items()})
        return Trunk([joint], joint.out_features)
    if space.nvec or (space.ids is None and not _is_image(space)):
        return features(space, ())
    if _is_image(space):
        # All layers of our networks for images but the last, linear one.
        *layers, last = _layers(network(space, 1, hidden, None))
        return Trunk(layers, last.in_features)
    integers = Integers(space)
    return Trunk([integers], integers.out_features)


def _layers(module: nn.Module) -> list[Any]:
    """The layers of a network, those inside containers one by one."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [layer for part in module for layer in _layers(part)]


def _is_image(space: Space) -> bool:
    return len(space.shape) == 3 and min(space.shape[1:]) >= 4


def smooth(in_features: int, out_features: int, width: int) -> nn.Sequential:
    """A smooth MLP that starts as the constant 0: for a few hundred rows of numbers.

    On Diabetes, ReLU layers without dropout fit the noise within ten epochs and end at 0.83 times the R2 of
    ridge regression; this network ends at 1.01 times.
    """
    last = nn.Linear(width, out_features)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    layers: list[nn.Module] = [Flat()]
    for size in (in_features, width):
        layers += [nn.Linear(size, width), nn.SiLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, last)
