"""The evidence lower bound by hand, and data that are no images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from antelope import ml
from antelope.agents import VAE
from antelope.replay import Batch, Space

PIXELS = Space((1, 4, 4), torch.uint8, 0.0, 255.0)
NUMBERS = Space((3,), torch.float32, -10.0, 10.0)


def constant(agent: VAE, encoded: float, decoded: float) -> VAE:
    """One whose encoder says `encoded` of everything, and whose decoder says `decoded`."""
    for network, output in ((agent.encoder, encoded), (agent.decoder, decoded)):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        last = network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, output)
    return agent


def test_pixels_cost_a_cross_entropy_and_codes_a_divergence() -> None:
    agent = VAE(PIXELS, hidden=4, latent=2, standardize=False)
    batch = Batch(obs=torch.rand(5, 1, 4, 4))
    free = constant(agent, 0, 0).loss(batch).detach()
    assert float(free) == pytest.approx(16 * math.log(2))  # Codes from the prior, grey pixels.
    # Mean 1, variance e, of two numbers.
    costly = constant(agent, 1, 0).loss(batch).detach() - free
    assert float(costly) == pytest.approx(2 * 0.5 * (1 + math.e - 1 - 1), rel=1e-5)
    white = Batch(obs=torch.ones(5, 1, 4, 4))
    assert float(constant(agent, 0, 2).loss(white).detach()) == pytest.approx(
        16 * math.log1p(math.exp(-2))
    )


def test_other_data_cost_a_gaussian_log_density() -> None:
    agent = constant(VAE(NUMBERS, hidden=4, latent=2, standardize=False), 0, 1)
    assert agent.log_variance is not None
    nn.init.constant_(agent.log_variance, math.log(4))
    loss = agent.loss(Batch(obs=torch.tensor([[1.0, 3.0, -3.0]]))).detach()
    density = torch.distributions.Normal(1, 2).log_prob(torch.tensor([1.0, 3.0, -3.0])).sum()
    assert float(loss) == pytest.approx(-float(density), rel=1e-5)


def test_samples_of_other_data_vary_as_much_as_was_learnt() -> None:
    agent = constant(VAE(NUMBERS, hidden=4, latent=2, standardize=False), 0, 1).eval()
    assert agent.log_variance is not None
    nn.init.constant_(agent.log_variance, math.log(4))
    wide = VAE(Space((3,), low=-1000.0, high=1000.0, mean=torch.zeros(3), stddev=torch.ones(3)))
    agent.bounds = wide.bounds
    samples = agent.sample(20_000)
    assert samples.mean() == pytest.approx(1, abs=0.05)
    assert samples.std() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("conditional", [False, True])
def test_data_of_any_shape_are_learnt_from(shape: tuple[int, ...], conditional: bool) -> None:
    classes = Space((2,), torch.int64, low=0, high=1, discrete=True)
    agent = VAE(Space(shape, low=-1.0, high=1.0), classes, conditional, hidden=4, latent=2)
    batch: Any = Batch(obs=torch.rand(6, *shape), label=torch.arange(6) % 2)
    assert agent.loss(batch).isfinite()
    assert agent.sample(5).shape == (5, *shape)


def test_correlated_numbers_are_learnt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    code = torch.randn(2000, 1)
    data = torch.cat([code, 0.5 * code, torch.randn(2000, 1)], 1) + 0.1 * torch.randn(2000, 3)
    words = ["model.hidden=32", "model.latent=2", "train_steps=400", "batch_size=128", "lr=5e-3"]
    quiet: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}
    target = torch.zeros(2000, dtype=torch.int64)
    target[::2] = 1
    run = ml(*words, model=VAE, dataset=(data, target), path=tmp_path, **quiet)
    learnt = run.replay.sample(1000).obs.T.cov()
    torch.testing.assert_close(run.agent.sample(4000).T.cov(), learnt, atol=0.2, rtol=0)
