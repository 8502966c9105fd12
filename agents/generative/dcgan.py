"""DCGAN: a generator learns to fool a discriminator, which learns to tell samples from data."""

from __future__ import annotations

from math import log2, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import ConfigError, Replay, Space
from ..blocks.target import frozen
from ..log import Log
from ..traits import Traits
from .bounds import Bounds, check_images
from .labels import classes, labels


class DCGAN(nn.Module):
    """Deep convolutional generative adversarial network (Radford et al., 2015, arXiv 1511.06434).

        L_D = -log D(x) - log(1 - D(G(z)))        z ~ N(0, 1)
        L_G = -log D(G(z))

    L_G is the non-saturating loss (Goodfellow et al., 2014, arXiv 1406.2661, section 3). Each network has
    its own Adam optimiser, with the paper's beta_1 = 0.5.

    Args:
        generator: Replaces the paper's: `forward(noise [B, latent]) -> [B, *obs.shape]`, or flattened, in
            the units of `batch.obs`; with `conditional`, `forward(noise, label)`.
        discriminator: Replaces the paper's: `forward(obs)` returns the logits of being data, `[B]` or
            `[B, 1]`; with `conditional`, `forward(obs, label)`.
        conditional: Generate by label: both networks also receive the class, int64 `[B]`.
        latent: Width of z, float32 `[B, latent]`.
        channels: Channels at the networks' highest resolution; they double each time it is halved.
        lr: Learning rate of both, a float. With the paper's 2e-4 these smaller networks take twice as long.
        standardize: Whether batches are standardised; otherwise they are in [0, 1].
    """

    def __init__(
        self,
        obs_spec: Space,
        action_spec: Space | None = None,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        conditional: bool = False,
        latent: int = 64,
        channels: int = 32,
        lr: float = 5e-4,
        standardize: bool = True,
    ):
        super().__init__()
        self.num_classes = classes(action_spec, "DCGAN", conditional=conditional)
        self.conditional, self.latent = conditional, latent
        self.antelope_traits = Traits(generates=True, conditional=conditional)
        if generator is None or discriminator is None or isinstance(obs_spec, dict):
            check_images(obs_spec, "DCGAN", side=8)
        self.shape = obs_spec.shape
        if generator is None:
            bounds = Bounds(obs_spec, standardize=standardize)
            generator = Generator(bounds, latent, channels, self.num_classes)
        if discriminator is None:
            discriminator = Discriminator(self.shape, channels, self.num_classes)
        self.generator, self.discriminator = generator, discriminator
        label = torch.zeros(2, dtype=torch.int64) if conditional else None
        check_part(generator, "generator", torch.zeros(2, latent), label, prod(self.shape))
        check_part(discriminator, "discriminator", torch.zeros(2, *self.shape), label, 1)
        adam: dict[str, Any] = {"lr": lr, "betas": (0.5, 0.999), "fused": True}
        self.generator_optim = torch.optim.Adam(generator.parameters(), **adam)
        self.discriminator_optim = torch.optim.Adam(discriminator.parameters(), **adam)

    def learn(self, replay: Replay, log: Log) -> None:
        """One step of the discriminator, then one of the generator."""
        batch = next(replay)
        label = batch.label if self.conditional else None
        noise = torch.randn(len(batch.obs), self.latent, device=batch.obs.device)
        fake = self._make(noise, label)

        on_data, on_fake = self._score(batch.obs, label), self._score(fake.detach(), label)
        d_loss = F.softplus(-on_data).mean() + F.softplus(on_fake).mean()
        self.discriminator_optim.zero_grad()
        d_loss.backward()
        self.discriminator_optim.step()

        with frozen(self.discriminator):
            g_loss = F.softplus(-self._score(fake, label)).mean()
        self.generator_optim.zero_grad()
        g_loss.backward()
        self.generator_optim.step()

        log.loss, log.d_loss, log.g_loss = d_loss.detach() + g_loss.detach(), d_loss, g_loss

    @torch.no_grad()
    def sample(self, n: int, label: Tensor | int | None = None) -> Tensor:
        """n new observations `[n, *obs.shape]`, of the given classes: int64 `[n]`, or one for all."""
        device = next(self.parameters()).device
        label = labels(label, n, self.num_classes, device)
        return self._make(torch.randn(n, self.latent, device=device), label)

    def _make(self, noise: Tensor, label: Tensor | None) -> Tensor:
        made = self.generator(noise) if label is None else self.generator(noise, label)
        return made.reshape(-1, *self.shape)

    def _score(self, obs: Tensor, label: Tensor | None) -> Tensor:
        logits = self.discriminator(obs) if label is None else self.discriminator(obs, label)
        return logits.flatten()


class Generator(nn.Module):
    """Maps noise to images: a linear layer, then transposed convolutions that each double the resolution."""

    def __init__(self, bounds: Bounds, latent: int, channels: int, num_classes: int):
        super().__init__()
        self.bounds, self.num_classes = bounds, num_classes
        images, self.height, self.width = bounds.low.shape
        levels = int(log2(min(self.height, self.width) / 4))
        height, width = (-(-side // 2**levels) for side in (self.height, self.width))
        c = channels * 2 ** (levels - 1)
        layers: list[nn.Module] = [
            nn.Linear(latent + num_classes, c * height * width, bias=False),
            nn.Unflatten(1, (c, height, width)),
        ]
        for _ in range(levels - 1):
            layers += [nn.BatchNorm2d(c), nn.ReLU()]
            layers += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False)]
            c //= 2
        layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.ConvTranspose2d(c, images, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers).apply(normal)

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Noise `[B, latent]` and classes `[B]` to `[B, *obs.shape]` in the units of `batch.obs`."""
        if label is not None:
            # One-hot, so of length 1, next to noise of length about 8: an embedding as long as the noise
            # would drown it, and make all samples of a class alike.
            noise = torch.cat([noise, F.one_hot(label, self.num_classes).to(noise.dtype)], 1)
        images = self.layers(noise)[:, :, : self.height, : self.width]
        return self.bounds.obs((images + 1) / 2)


class Discriminator(nn.Module):
    """Maps images to logits: convolutions that each halve the resolution, then a linear layer per class.

    The layer per class is the projection of Miyato & Koyama (2018), arXiv 1802.05637, eq. 3.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, num_classes: int):
        super().__init__()
        images, *size = shape
        levels, c = int(log2(min(size) / 4)), channels
        layers: list[nn.Module] = [nn.Conv2d(images, c, 4, 2, 1), nn.LeakyReLU(0.2)]
        for _ in range(levels - 1):
            layers += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c)]
            layers += [nn.LeakyReLU(0.2)]
            c *= 2
        head = nn.Linear(c * prod(side >> levels for side in size), max(1, num_classes))
        self.layers = nn.Sequential(*layers, nn.Flatten(), head).apply(normal)

    def forward(self, obs: Tensor, label: Tensor | None = None) -> Tensor:
        """`[B, *obs.shape]` and classes `[B]` to logits `[B, 1]`."""
        logits = self.layers(obs)
        return logits if label is None else logits.gather(1, label[:, None])


def check_part(part: nn.Module, name: str, given: Tensor, label: Tensor | None, n: int) -> None:
    """Run a part on two rows, which initialises lazy layers; leaves no other trace.

    Raises:
        ConfigError: If it raises, or returns anything but n numbers per row.
    """
    what = f"{name} {type(part).__name__}, given {list(given.shape)}"
    inputs = [given] if label is None else [given, label]
    device = next((p.device for p in part.parameters()), given.device)
    modes = {module: module.training for module in part.modules()}
    part.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = part(*(x.to(device) for x in inputs))
    except Exception as error:
        raise ConfigError(f"{what}, raised {type(error).__name__}: {error}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(output, Tensor) or output.numel() != 2 * n:
        gave = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(f"{what}, returned {gave}; expected {n} numbers for each of two rows.")


def normal(module: nn.Module) -> None:
    """Initialise as in the paper: N(0, 0.02^2), and N(1, 0.02^2) for normalisation layers."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
