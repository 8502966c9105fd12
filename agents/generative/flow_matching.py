"""Flow matching: learns the velocity that carries noise to data, and follows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, Replay, Space
from ..blocks.target import follow, target_of
from ..blocks.unet import UNet, sinusoids
from ..traits import Traits
from .bounds import Bounds, check_images
from .labels import classes, labels


class FlowMatching(nn.Module):
    """Flow matching along straight lines (Lipman et al., 2022, arXiv 2210.02747; Liu et al., 2022,
    arXiv 2209.03003).

        x_t = (1 - t) x_0 + t x_1        x_0 ~ N(0, 1), x_1 an image in [-1, 1], t ~ U(0, 1)
        L = |v(x_t, t) - (x_1 - x_0)|^2
        dx / dt = v(x, t)                from noise at t = 0 to a sample at t = 1

    v is a U-Net. Samples use the exponential moving average of its weights, and Heun's method.

    Args:
        conditional: Generate by label: v also receives the class, int64 `[B]`.
        channels: Channels of the U-Net, a multiple of 8.
        patch: Side of the patches that the U-Net works on, in pixels; default: 2 for images of at least
            16 pixels a side, else 1.
        steps: Steps of Heun's method per sample, each with two evaluations of v.
        decay: Decay of the weights' moving average, a float in [0, 1]; lower in the first hundreds of steps.
        standardize: Whether batches are standardised; otherwise they are in [0, 1].
    """

    def __init__(
        self,
        obs_spec: Space,
        action_spec: Space | None = None,
        conditional: bool = False,
        channels: int = 48,
        patch: int | None = None,
        steps: int = 20,
        decay: float = 0.999,
        standardize: bool = True,
    ):
        super().__init__()
        check_images(obs_spec, "FlowMatching", side=4)
        self.num_classes = classes(action_spec, "FlowMatching", conditional=conditional)
        self.conditional, self.steps, self.decay = conditional, steps, decay
        self.antelope_traits = Traits(generates=True, conditional=conditional)
        self.bounds = Bounds(obs_spec, standardize=standardize)
        if patch is None:
            patch = 2 if min(obs_spec.shape[1:]) >= 16 else 1
        self.velocity = Velocity(obs_spec.shape[0], channels, patch, self.num_classes)
        self.average = target_of(self.velocity)
        self.learning_steps = 0

    def learn(self, replay: Replay) -> Tensor:
        """The velocity's squared error on the next batch."""
        # Averages the weights after the previous step. The decay starts low: otherwise the initial
        # weights would linger in the average.
        decay = min(self.decay, (1 + self.learning_steps) / (10 + self.learning_steps))
        follow(self.average, self.velocity, 1 - decay)
        self.learning_steps += 1
        return self.loss(next(replay))

    def loss(self, batch: Batch) -> Tensor:
        """The velocity's squared error: of the trained weights, or in eval mode of their average."""
        x_1 = 2 * self.bounds.unit(batch.obs) - 1
        x_0, t = torch.randn_like(x_1), torch.rand(len(x_1), device=x_1.device)
        x_t = torch.lerp(x_0, x_1, t[:, None, None, None])
        network = self.velocity if self.training else self.average
        v = network(x_t, t, batch.label if self.conditional else None)
        return F.mse_loss(v, x_1 - x_0)

    @torch.no_grad()
    def sample(self, n: int, label: Tensor | int | None = None) -> Tensor:
        """n new observations `[n, *obs.shape]`, of the given classes: int64 `[n]`, or one for all."""
        low = self.bounds.low
        label = labels(label, n, self.num_classes, low.device)
        x = torch.randn(n, *low.shape, device=low.device)
        dt = 1 / self.steps
        for t in torch.linspace(0, 1, self.steps + 1, device=low.device)[:-1]:
            v = self.average(x, t.expand(n), label)
            ahead = self.average(x + dt * v, (t + dt).expand(n), label)
            x = x + dt * (v + ahead) / 2
        return self.bounds.obs((x.clamp(-1, 1) + 1) / 2)


class Velocity(nn.Module):
    """A U-Net that receives the time, and the class where there are classes."""

    def __init__(self, in_channels: int, channels: int, patch: int, num_classes: int):
        super().__init__()
        self.width = 4 * channels
        self.time = nn.Sequential(
            nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, self.width)
        )
        self.label = nn.Embedding(num_classes, self.width) if num_classes else None
        self.unet = UNet(in_channels, in_channels, self.width, channels, patch)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """`[B, C, H, W]` at times `[B]` in [0, 1], of classes `[B]`, to velocities `[B, C, H, W]`."""
        condition = self.time(sinusoids(t, self.width))
        if self.label is not None:
            condition = condition + self.label(label)
        return self.unet(x, F.silu(condition))
