"""Temporally correlated noise, with which exploration gets further."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...replay.transfer import upload

_LENGTH = 1024  # Steps sampled at once, which is the longest period in the noise.


class Colored:
    """Normal noise with mean 0 and variance 1 at each step, whose power falls as `1 / f^exponent`.

    An exponent of 0 is white noise, independent at each step, and 2 a random walk. Pink noise, 1, lies in
    between and matches the better of the two on most tasks: those where a push has to last, to climb hills
    or build up momentum, and those where it must not (Eberhard et al., 2023, "Pink Noise Is All You Need",
    ICLR).

    A plain object: setting a module's attribute at every step would cost two microseconds.

    Source: Timmer & Koenig (1995), "On generating power law noise": normal Fourier coefficients, scaled.
    """

    def __init__(self, exponent: float):
        self.exponent, self.at = exponent, 0
        self.drawn = torch.zeros(0, 0, 0)  # (T, N, size)

    def next(self, n: int, size: int, device: torch.device) -> Tensor:
        """The next step's noise, float32 `[n, size]`, independent across numbers."""
        if self.at == len(self.drawn) or self.drawn.shape[1:] != (n, size):
            # On the CPU, so that all devices get the same noise.
            self.drawn, self.at = colored(_LENGTH, n, size, exponent=self.exponent), 0
        # One upload for many steps: an upload per step would synchronise.
        if self.drawn.device != device:
            self.drawn = upload(self.drawn, device)
        self.at += 1
        return self.drawn[self.at - 1]


def colored(steps: int, *shape: int, exponent: float) -> Tensor:
    """Noise float32 `[steps, *shape]`, coloured along the first dimension; `steps` is even."""
    count = steps // 2 + 1
    frequency = torch.arange(count, dtype=torch.float32).clamp_(min=1)  # The mean's is the lowest.
    scale = frequency.pow(-exponent / 2)
    real, imaginary = torch.randn(2, count, *shape)
    # The first and the last have no imaginary part: their variance is in the real one.
    for end in (0, -1):
        real[end] *= math.sqrt(2)
        imaginary[end] = 0
    scaled = torch.complex(real, imaginary) * scale.view(-1, *[1] * len(shape))
    variance = 2 * (scale[0] ** 2 + scale[-1] ** 2 + 2 * scale[1:-1].square().sum()) / steps**2
    return torch.fft.irfft(scaled, steps, dim=0) / variance.sqrt()
