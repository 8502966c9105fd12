"""Noise in time: its variance, and how much of a value is left some steps later."""

from __future__ import annotations

import pytest
import torch

from antelope.agents.policy.noise import Colored, colored


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_every_step_has_mean_0_and_variance_1(exponent: float) -> None:
    torch.manual_seed(0)
    noise = colored(256, 20_000, exponent=exponent)
    assert noise.dtype == torch.float32
    # Of 20,000 the mean has a deviation of 0.007, and the variance of 0.01.
    assert noise.mean(1).abs().max() < 0.04
    assert (noise.var(1) - 1).abs().max() < 0.06


def test_the_power_falls_as_the_exponent_says() -> None:
    torch.manual_seed(0)
    for exponent in (0.0, 1.0, 2.0):
        drawn = torch.fft.rfft(colored(1024, 4000, exponent=exponent), dim=0)
        power = drawn.abs().square().mean(1).log2()
        # Four times the frequency is two octaves.
        for slow, fast in ((2, 8), (8, 32), (32, 128)):
            assert float(power[slow] - power[fast]) == pytest.approx(2 * exponent, abs=0.2)


def test_white_noise_forgets_and_pink_noise_does_not() -> None:
    torch.manual_seed(0)
    left = []
    for exponent in (0.0, 1.0):
        noise = colored(1024, 2000, exponent=exponent)
        left.append(float((noise[10:] * noise[:-10]).mean()))
    assert left[0] == pytest.approx(0, abs=0.01)
    assert left[1] > 0.3


def test_it_goes_on_after_what_was_drawn_and_with_another_number_of_environments() -> None:
    torch.manual_seed(0)
    noise = Colored(1.0)
    steps = torch.stack([noise.next(3, 2, torch.device("cpu")) for _ in range(1500)])
    assert steps.shape == (1500, 3, 2)
    assert len(steps.unique()) == steps.numel()
    together = torch.corrcoef(steps.flatten(1).T)
    assert (together - torch.eye(6)).abs().max() < 0.5  # Each number has its own.
    assert noise.next(1, 2, torch.device("cpu")).shape == (1, 2)
