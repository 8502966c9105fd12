"""Normal distributions whose standard deviations depend on the observation, with and without bounds."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

# Densities are evaluated no nearer to a bound than this fraction of the width.
HAIR = 2.0**-20
# Bounds of a policy's log standard deviations, as in the code of Haarnoja et al. (2018), arXiv 1812.05905.
_LOG_STD = (-20.0, 2.0)
_LOG_SQRT_2PI = math.log(2 * math.pi) / 2


class DiagonalGaussian(Distribution):
    """Independent normal numbers: means `loc`, `log_std` and values are float32 `[..., *shape]`.

    Args:
        log_std: Log standard deviations, float32 `[..., *shape]`, clamped to [-20, 2].
        event_dim: Dimensions of `shape`.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Tensor, log_std: Tensor, event_dim: int):
        self.loc, self.log_std = loc, log_std.clamp(*_LOG_STD)
        self.event_dim = event_dim
        at = loc.dim() - event_dim
        super().__init__(loc.shape[:at], loc.shape[at:], validate_args=False)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        loc = self.loc.expand(*sample_shape, *self.loc.shape)
        return loc + self.log_std.exp() * torch.randn_like(loc)

    def log_prob(self, value: Tensor) -> Tensor:
        return summed(self._log_densities(value), self.event_dim)

    def entropy(self) -> Tensor:
        return summed(self.log_std + (0.5 + _LOG_SQRT_2PI), self.event_dim)

    @property
    def mode(self) -> Tensor:
        return self.loc

    def _log_densities(self, value: Tensor) -> Tensor:
        z = (value - self.loc) * (-self.log_std).exp()
        return -0.5 * z.square() - self.log_std - _LOG_SQRT_2PI


class SquashedGaussian(DiagonalGaussian):
    """Numbers between bounds: the tanh of normal ones, in the space's own units.

        a = low + (high - low) p, p = (tanh(u) + 1) / 2, u ~ N(loc, exp(log_std)^2)
        log pi(a) = sum_i [log N(u_i) - log da_i/du_i], da/du = 2 (high - low) p (1 - p)

    Source: Haarnoja et al. (2018), arXiv 1812.05905, appendix C, for any bounds; next to the bounds as
    in Acme's `TanhTransformedDistribution` (Hoffman et al., 2020, arXiv 2006.00979).

    Args:
        loc, log_std: float32 `[..., *shape]`; log standard deviations are clamped to [-20, 2].
        low, high: Finite bounds, float32 `[*shape]`.
    """

    def __init__(self, loc: Tensor, log_std: Tensor, low: Tensor, high: Tensor):
        self.low, self.high = low, high
        super().__init__(loc, log_std, low.dim())

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self._scale(super().rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """`[..., *shape]` to `[...]`; values at or beyond a bound get the density just inside it."""
        width = self._width
        # As log p - log(1 - p) rather than atanh of the distance from the centre, which loses most of its
        # digits next to a bound.
        p, q = (value - self.low) / width, (self.high - value) / width
        log_p, log_q = p.clamp(HAIR, 1).log(), q.clamp(HAIR, 1).log()
        u = (log_p - log_q) / 2  # atanh(2 p - 1)
        inside = self._log_densities(u) - log_p - log_q - (2 * width).log()
        # All u beyond the last representable step share one density: tanh rounds many of them to the
        # bound, and a policy that often acts there must still learn from it.
        z = (u - self.loc) * (-self.log_std).exp()
        outward = torch.where(q < HAIR, -z, z).clamp(min=-1e6)  # Farther out gradients overflow.
        beyond = torch.special.log_ndtr(outward) - (HAIR * width).log()
        return summed(torch.where((p < HAIR) | (q < HAIR), beyond, inside), self.event_dim)

    def entropy(self) -> Tensor:
        """`H(u) + E[log da/du]`, in nats; the expectation is a sum over 65 points, accurate to 1e-3."""
        z = torch.linspace(-6, 6, 65, device=self.loc.device)
        weights = (-0.5 * z.square()).softmax(0)
        u = self.loc.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * z
        # log(1 - tanh(u)^2) without the subtraction, which is 0 in float32 for |u| >= 9.
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        stretched = (log_slope * weights).sum(-1) + (self._width / 2).log()
        return super().entropy() + summed(stretched, self.event_dim)

    @property
    def mode(self) -> Tensor:
        """The most likely u, squashed: the policy's action without noise."""
        return self._scale(self.loc)

    def _scale(self, u: Tensor) -> Tensor:
        # Unlike centre + radius * tanh(u), this never leaves the bounds: environments check.
        return torch.lerp(self.low, self.high, u.tanh() / 2 + 0.5)

    @property
    def _width(self) -> Tensor:
        # A dimension with a single value has no density: treat its width as 1.
        width = self.high - self.low
        return torch.where(width > 0, width, 1.0)


def summed(x: Tensor, dims: int) -> Tensor:
    """The sum over the last dimensions."""
    return x.sum(tuple(range(-dims, 0))) if dims else x
