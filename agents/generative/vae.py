"""VAE: an encoder compresses data into a few Gaussian numbers, and a decoder turns such numbers into data."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Replay, Space
from ..traits import Traits
from .bounds import Bounds
from .labels import classes, labels


class VAE(nn.Module):
    """Variational autoencoder (Kingma & Welling, 2013, arXiv 1312.6114).

        q(z|x) = N(m(x), s(x)^2)        p(z) = N(0, 1)
        L = -log p(x|z) + KL(q | p)     KL = 1/2 sum_i [m_i^2 + s_i^2 - 1 - log s_i^2]

    Pixels, in [0, 1], are modelled as Bernoulli: -log p is a cross-entropy. On MNIST this yields samples
    nearer to the data than a Gaussian with the likeliest variance. Other data are modelled as Gaussian
    around the decoder's output, with one learnt variance for all numbers. Both are sums over x.

    Args:
        conditional: Generate by label: encoder and decoder also receive the class, int64 `[B]`.
        hidden: Width of the two hidden layers of each, in units.
        latent: Width of z, float32 `[B, latent]`.
        standardize: Whether batches are standardised; otherwise they are in [0, 1].
    """

    def __init__(
        self,
        obs_spec: Space,
        action_spec: Space | None = None,
        conditional: bool = False,
        hidden: int = 512,
        latent: int = 16,
        standardize: bool = True,
    ):
        super().__init__()
        if isinstance(obs_spec, dict):
            raise ConfigError(
                "VAE generates one tensor, but these observations are a dict of "
                f"{', '.join(obs_spec)}. Take an environment or a data set without a dict."
            )
        self.num_classes = classes(action_spec, "VAE", conditional=conditional)
        self.conditional, self.latent = conditional, latent
        self.antelope_traits = Traits(generates=True, conditional=conditional)
        self.bounds = Bounds(obs_spec, standardize=standardize)
        size = prod(obs_spec.shape)
        # Classes are one-hot: the first layer's weights for a class are its embedding.
        self.encoder = mlp(size + self.num_classes, 2 * latent, hidden)
        self.decoder = mlp(latent + self.num_classes, size, hidden)
        self.log_variance = None
        if len(obs_spec.shape) != 3:
            self.log_variance = nn.Parameter(torch.zeros(()))

    def learn(self, replay: Replay) -> Tensor:
        """The loss of the next batch."""
        return self.loss(next(replay))

    def loss(self, batch: Batch) -> Tensor:
        """The negative evidence lower bound in nats, the mean over a batch."""
        label = batch.label if self.conditional else None
        x = batch.obs if self.log_variance is not None else self.bounds.unit(batch.obs)
        x = x.flatten(1) if x.dim() > 1 else x[:, None]  # [B, D]
        mean, log_var = self.encoder(self._with_label(x, label)).float().chunk(2, 1)  # [B, latent]
        z = mean + (log_var / 2).exp() * torch.randn_like(mean)
        output = self.decoder(self._with_label(z, label)).float()  # [B, D]
        if self.log_variance is None:
            error = F.binary_cross_entropy_with_logits(output, x, reduction="none")
        else:
            variance = self.log_variance.exp().expand_as(x)
            error = F.gaussian_nll_loss(output, x, variance, full=True, reduction="none")
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
        return error.sum(1).mean() + kl.sum(1).mean()

    @torch.no_grad()
    def sample(self, n: int, label: Tensor | int | None = None) -> Tensor:
        """n new observations `[n, *obs.shape]`, of the given classes: int64 `[n]`, or one for all.

        Images are the mean, as is usual: drawing each pixel independently would only add noise.
        """
        low = self.bounds.low
        label = labels(label, n, self.num_classes, low.device)
        z = torch.randn(n, self.latent, device=low.device)
        output = self.decoder(self._with_label(z, label)).float().view(n, *low.shape)
        if self.log_variance is None:
            return self.bounds.obs(output.sigmoid())
        noise = (self.log_variance / 2).exp() * torch.randn_like(output)
        return self.bounds.clip(output + noise)

    def _with_label(self, x: Tensor, label: Tensor | None) -> Tensor:
        """`[B, D]` with the one-hot class appended, `[B, D + n]`; unchanged if there is no label."""
        if label is None:
            return x
        return torch.cat([x, F.one_hot(label, self.num_classes).to(x.dtype)], 1)


def mlp(in_features: int, out_features: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, out_features),
    )
