"""The default agent: what trains when no model is given."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..replay import Batch, Space, Spec


class AC2Agent(nn.Module):
    """A network for the spec, trained by cross-entropy on classes and squared error on values.

    Images of at least 4x4 pixels meet a small residual CNN (He et al., 2015, arXiv 1512.03385,
    without the bottleneck), everything else an MLP.

    Args:
        spec: What goes in and comes out.
        hidden: Width of the MLP's layers; a quarter of it is the CNN's first width.
    """

    def __init__(self, spec: Spec, hidden: int = 256):
        super().__init__()
        self.action_spec = spec.action
        # Values are learnt at zero mean and unit deviation; `forward` gives them in their own units.
        mean, stddev = spec.action.mean, spec.action.stddev
        self.register_buffer("mean", torch.tensor(0.0) if mean is None else mean.clone())
        self.register_buffer("stddev", torch.tensor(1.0) if stddev is None else _positive(stddev))
        width = prod(spec.action.shape)
        is_image = len(spec.obs.shape) == 3 and min(spec.obs.shape[1:]) >= 4
        self.network = (
            residual_cnn(spec.obs.shape[0], width, channels=max(2, hidden // 4))
            if is_image
            else mlp(prod(spec.obs.shape), width, hidden=hidden)
        )

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, *obs.shape]` to logits or values `[B, *action.shape]`."""
        obs = obs if obs.dim() > 1 else obs[:, None]
        output = self.network(obs).unflatten(1, self.action_spec.shape)
        return output if self.action_spec.discrete else output * self.stddev + self.mean

    def learn(self, replay: object) -> Tensor:
        """The loss of the next batch."""
        return supervised_loss(self, next(replay), self.action_spec)  # type: ignore[call-overload]


def supervised_loss(model: nn.Module, batch: Batch, space: Space) -> Tensor:
    """The loss that any module without a `learn` of its own is trained by.

    Cross-entropy of classes, or the squared error of values over their variance, so that it is 1 for
    the best constant whatever the targets' units.
    """
    output = model(batch.obs)
    if space.discrete:
        return F.cross_entropy(output, batch.label)
    error = output - batch.label
    if space.stddev is not None:
        error = error / _positive(space.stddev).to(error.device)
    return error.square().mean()


def _positive(stddev: Tensor) -> Tensor:
    return torch.where(stddev > 0, stddev, 1.0)


def mlp(in_features: int, out_features: int, *, hidden: int) -> nn.Sequential:
    """Two hidden layers over the flattened observation."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, out_features),
    )


def residual_cnn(in_channels: int, out_features: int, *, channels: int) -> nn.Sequential:
    """A stem and three residual blocks, each but the first at half the resolution before it."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        Residual(channels // 2, channels // 2, stride=1),
        Residual(channels // 2, channels, stride=2),
        Residual(channels, channels * 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels * 2, out_features),
    )


class Residual(nn.Module):
    """`relu(shortcut(x) + conv(relu(conv(x))))`, each convolution followed by BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))
