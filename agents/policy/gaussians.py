"""Normal distributions whose deviations depend on the observation, with and without bounds."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from ...replay.devices import has_float64

# Values come no nearer to a bound than this part of the width, where densities are asked for.
HAIR = 2.0**-20
# Of a policy's log-deviations: Haarnoja et al. (2018), arXiv 1812.05905, as its authors' code has it.
_LOG_STD = (-20.0, 2.0)
_LOG_SQRT_2PI = math.log(2 * math.pi) / 2


class DiagonalGaussian(Distribution):
    """Independent normal numbers: means `loc`, `log_std` and values are float32 `[..., *shape]`.

    Args:
        log_std: Log-deviations, clamped to [-20, 2].
        event_dim: Dimensions of `shape`.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Tensor, log_std: Tensor, event_dim: int):
        self.loc, self.log_std = loc, log_std.clamp(*_LOG_STD)
        self.event_dim = event_dim
        at = loc.dim() - event_dim
        super().__init__(loc.shape[:at], loc.shape[at:], validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
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
        loc, log_std: float32 `[..., *shape]`; log-deviations are clamped to [-20, 2].
        low, high: Finite bounds, float32 `[*shape]`.
    """

    def __init__(self, loc: Tensor, log_std: Tensor, low: Tensor, high: Tensor):
        self.low, self.high = low, high
        super().__init__(loc, log_std, low.dim())

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._scale(super().rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """`[..., *shape]` to `[...]`; values at a bound or beyond it are as likely as a hair inside."""
        width = self._width
        # As log p - log(1 - p), and not as atanh of the difference from the centre: next to a bound
        # most digits of that are lost.
        p, q = (value - self.low) / width, (self.high - value) / width
        log_p, log_q = p.clamp(HAIR, 1).log(), q.clamp(HAIR, 1).log()
        u = (log_p - log_q) / 2  # atanh(2 p - 1)
        inside = self._log_densities(u) - log_p - log_q - (2 * width).log()
        # The last hair has one density, that of all u beyond: tanh rounds many of them to the bound,
        # and a policy that often is there has to learn from what it did.
        z = (u - self.loc) * (-self.log_std).exp()
        outward = torch.where(q < HAIR, -z, z).clamp(min=-1e6)  # Farther out gradients overflow.
        beyond = torch.special.log_ndtr(outward) - (HAIR * width).log()
        return summed(torch.where((p < HAIR) | (q < HAIR), beyond, inside), self.event_dim)

    def entropy(self) -> Tensor:
        """`H(u) + E[log da/du]`. The expectation is a sum over 65 points, good to 1e-3: no draws."""
        z = torch.linspace(-6, 6, 65, device=self.loc.device)
        weights = (-0.5 * z.square()).softmax(0)
        u = self.loc.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * z
        # log(1 - tanh(u)^2) without the difference, which is 0 in float32 from |u| = 9 on.
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        stretched = (log_slope * weights).sum(-1) + (self._width / 2).log()
        return super().entropy() + summed(stretched, self.event_dim)

    @property
    def mode(self) -> Tensor:
        """The likeliest u, squashed: what the policy does without noise."""
        return self._scale(self.loc)

    def _scale(self, u: Tensor) -> Tensor:
        # Unlike centre + radius * tanh(u), this never leaves the bounds: environments check.
        return torch.lerp(self.low, self.high, u.tanh() / 2 + 0.5)

    @property
    def _width(self) -> Tensor:
        # A dimension with one value only has no density: it is taken for one of width 1.
        width = self.high - self.low
        return torch.where(width > 0, width, 1.0)


class TruncatedGaussian(DiagonalGaussian):
    """Normal numbers given that they are between bounds, in the space's own units.

        log pi(a) = sum_i [log N(a_i; loc_i, std_i^2) - log Z_i],  Z = Phi(beta) - Phi(alpha)
        alpha = (low - loc) / std,  beta = (high - loc) / std
        H = sum_i [log(sqrt(2 pi e) std_i Z_i) + (alpha phi(alpha) - beta phi(beta)) / (2 Z_i)]

    Source: Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1, section 13.10.1.

    Args:
        loc, log_std: float32 `[..., *shape]`; `loc` may lie outside the bounds. Log-deviations are
            clamped to [-20, 2].
        low, high: Bounds, float32 `[*shape]`; may be infinite.
    """

    has_rsample = False

    def __init__(self, loc: Tensor, log_std: Tensor, low: Tensor, high: Tensor):
        self.low, self.high = low, high
        super().__init__(loc, log_std, low.dim())
        # In float64, for the tails; on the host, where the device has none.
        self._std = _wide(self.log_std).exp()
        low, high = _wide(low), _wide(high)
        far = 1e4 * self._std  # Farther out than so many standard deviations all is at the bound.
        self._loc = torch.minimum(torch.maximum(_wide(loc), low - far), high + far)
        self._alpha = ((low - self._loc) / self._std).clamp(-1e12, 1e12)
        self._beta = ((high - self._loc) / self._std).clamp(-1e12, 1e12)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            # By the inverse of the distribution function, on the side where it is small: there it
            # has all its digits.
            near, far, sign = self._sides()
            # Not special.ndtr, which is 0 from 9 deviations on.
            most, least = (torch.special.erfc(side / math.sqrt(2)) / 2 for side in (near, far))
            shape = (*sample_shape, *near.shape)
            share = torch.rand(shape, dtype=near.dtype, device=near.device)
            p = (least + (most - least) * share).clamp(min=torch.finfo(near.dtype).tiny)
            # Where p underflows: of the density z exp(-z^2 / 2), the same but for 1 / near^2.
            part = torch.log1p(share * torch.expm1((near - far) * (near + far) / 2))
            tail = (near.square() - 2 * part).sqrt()
            z = torch.where(near > 30, tail, -torch.special.ndtri(p))
            value = self._loc + self._std * sign * torch.minimum(torch.maximum(z, near), far)
            return self._back(value).clamp(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """`[..., *shape]` to `[...]`; values beyond a bound count as the bound."""
        z = (_wide(value.clamp(self.low, self.high)) - self._loc) / self._std
        densities = -0.5 * z.square() - self._std.log() - _LOG_SQRT_2PI - self._log_z()
        return self._back(summed(densities, self.event_dim))

    def entropy(self) -> Tensor:
        log_z = self._log_z()
        terms = []
        for bound in (self._alpha, self._beta):
            terms.append(bound * (-0.5 * bound.square() - _LOG_SQRT_2PI - log_z).exp())
        parts = self._std.log() + 0.5 + _LOG_SQRT_2PI + log_z + (terms[0] - terms[1]) / 2
        return self._back(summed(parts, self.event_dim))

    @property
    def mode(self) -> Tensor:
        return self.loc.clamp(self.low, self.high)

    def _back(self, x: Tensor) -> Tensor:
        """float32, where the means are."""
        return x.float().to(self.loc.device)

    def _sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds as `near < far` on the positive side (mirrored where `sign` is -1)."""
        mirrored = self._alpha + self._beta < 0
        near = torch.where(mirrored, -self._beta, self._alpha)
        far = torch.where(mirrored, -self._alpha, self._beta)
        return near, far, 1.0 - 2.0 * mirrored

    def _log_z(self) -> Tensor:
        near, far, _ = (side / math.sqrt(2) for side in self._sides())
        tiny = torch.finfo(near.dtype).tiny
        # The mean between the bounds: a sum of two positive numbers.
        around = ((far.erf() - near.clamp(max=0).erf()) / 2).clamp(min=tiny).log()
        # Both bounds on one side of it: erfc(x) = exp(-x^2) erfcx(x), which does not underflow.
        x = near.clamp(min=0)
        rest = (-(far - x) * (far + x)).exp() * torch.special.erfcx(far)
        tail = ((torch.special.erfcx(x) - rest) / 2).clamp(min=tiny).log() - x.square()
        return torch.where(near > 0, tail, around)


def _wide(x: Tensor) -> Tensor:
    """float64, on the host where the device has none."""
    return x.double() if has_float64(x.device.type) else x.cpu().double()


def summed(x: Tensor, dims: int) -> Tensor:
    """The sum over the last dimensions."""
    return x.sum(tuple(range(-dims, 0))) if dims else x
