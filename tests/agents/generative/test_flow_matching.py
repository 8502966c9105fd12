"""Straight lines from noise to data, and the way along them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from antelope.agents import FlowMatching
from antelope.replay import Batch, Space

PIXELS = Space((1, 8, 8), torch.uint8, 0.0, 255.0)


class Field(nn.Module):
    """A velocity that is known, and what it was asked."""

    def __init__(self, velocity):  # type: ignore[no-untyped-def]
        super().__init__()
        self.velocity, self.times = velocity, []

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.times.append(t)
        return self.velocity(x, t[:, None, None, None])


def flow(**options: int) -> FlowMatching:
    return FlowMatching(PIXELS, channels=8, standardize=False, **options)


def sampled(agent: FlowMatching, field: Field) -> tuple[Tensor, Tensor]:
    """Samples in [-1, 1], and the noise that they were made of."""
    agent.average = field  # type: ignore[assignment]
    torch.manual_seed(0)
    samples = agent.eval().sample(50)
    torch.manual_seed(0)
    return samples * 2 - 1, torch.randn(50, 1, 8, 8)


def test_the_error_is_of_the_straight_line_from_noise_to_the_image() -> None:
    obs = torch.rand(2000, 1, 8, 8)
    x_1 = 2 * obs - 1

    def straight(x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = (x_t - t * x_1) / (1 - t)
        return x_1 - x_0

    agent = flow()
    for training in (True, False):
        agent.train(training)
        field = Field(straight)
        setattr(agent, "velocity" if training else "average", field)
        assert float(agent.loss(Batch(obs=obs))) < 1e-3
        (t,) = field.times
        assert t.shape == (2000,)
        assert t.mean() == pytest.approx(0.5, abs=0.03)
        assert t.std() == pytest.approx(12**-0.5, abs=0.03)
    agent.velocity = Field(lambda x, t: torch.zeros_like(x))  # type: ignore[assignment]
    agent.train()
    # E (x_1 - x_0)^2 of uniform pixels in [-1, 1] and noise.
    assert float(agent.loss(Batch(obs=obs))) == pytest.approx(1 / 3 + 1, abs=0.02)


def test_a_constant_velocity_is_followed_exactly() -> None:
    samples, noise = sampled(flow(steps=3), Field(lambda x, t: torch.full_like(x, 0.25)))
    torch.testing.assert_close(samples, (noise + 0.25).clamp(-1, 1))


def test_heuns_method_is_exact_to_second_order() -> None:
    # dx/dt = -x, by two steps of 1 - h + h^2/2 each; and dx/dt = 2 t from 0 to 1.
    samples, noise = sampled(flow(steps=2), Field(lambda x, t: -x))
    torch.testing.assert_close(samples, (noise * (1 - 0.5 + 0.125) ** 2).clamp(-1, 1))
    samples, noise = sampled(flow(steps=2), Field(lambda x, t: 2 * t - x * 0))
    torch.testing.assert_close(samples, (noise + 1).clamp(-1, 1))


def test_samples_are_of_averaged_weights() -> None:
    agent = FlowMatching(PIXELS, channels=8, decay=0.5)
    rows = iter([Batch(obs=torch.rand(2, 1, 8, 8))] * 4)
    weight, average = (network.unet.stem.bias for network in (agent.velocity, agent.average))
    assert weight is not None
    assert average is not None
    assert not average.requires_grad
    expected = torch.zeros_like(average)
    nn.init.zeros_(weight)
    nn.init.zeros_(average)
    # What was learnt in the step before is followed at the next: by 9/10, 9/11, 9/12 ...
    for share in (9 / 10, 9 / 11, 9 / 12, 9 / 13):
        agent.learn(rows)  # type: ignore[arg-type]
        expected = expected + max(share, 0.5) * (weight.detach() - expected)
        torch.testing.assert_close(average, expected)
        with torch.no_grad():
            weight += 1
