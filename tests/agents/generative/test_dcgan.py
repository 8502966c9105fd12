"""Two networks against each other, and parts of the user's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import ml
from antelope.agents import DCGAN
from antelope.replay import Batch, ConfigError, Space

PIXELS = Space((1, 8, 8), torch.uint8, 0.0, 255.0)
NUMBERS = Space((5,), low=-1.0, high=1.0)
CLASSES = Space((3,), torch.int64, low=0, high=2, discrete=True)


class Rows:
    def __init__(self, obs: Tensor):
        self.batch = Batch(obs=obs, label=torch.arange(len(obs)) % 3)

    def __next__(self) -> Batch:
        return self.batch


class Record:
    d_loss: Tensor
    g_loss: Tensor
    loss: Tensor


def learnt(agent: DCGAN, obs: Tensor) -> Record:
    log = Record()
    assert agent.learn(Rows(obs), log) is None  # type: ignore[arg-type, func-returns-value]
    return log


class Guess(nn.Module):
    """Says the same of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.5))

    def forward(self, obs: Tensor) -> Tensor:
        return self.logit + 0 * obs.sum(1, keepdim=True)


class Constant(nn.Module):
    """Makes the same of all noise."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.ones(5))

    def forward(self, noise: Tensor) -> Tensor:
        return self.value.expand(len(noise), 5)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_losses_by_hand() -> None:
    guess = Guess()
    agent = DCGAN(NUMBERS, generator=Constant(), discriminator=guess, lr=0.1)
    log = learnt(agent, torch.zeros(4, 5))
    assert log.d_loss.item() == pytest.approx(softplus(-0.5) + softplus(0.5))
    # Half of what is shown is data: the best guess is 0, and Adam's first step is lr long.
    assert guess.logit.item() == pytest.approx(0.4, abs=1e-4)
    assert log.g_loss.item() == pytest.approx(softplus(-0.4), rel=1e-4)
    assert log.loss.item() == pytest.approx(log.d_loss.item() + log.g_loss.item())


def test_the_generator_learns_to_pass_for_data_and_the_discriminator_to_tell() -> None:
    judge = nn.Linear(5, 1)
    nn.init.ones_(judge.weight)  # The more, the likelier it is data.
    nn.init.zeros_(judge.bias)
    maker = Constant()
    learnt(DCGAN(NUMBERS, generator=maker, discriminator=judge, lr=0.01), torch.full((4, 5), 0.5))
    # Data have less than what is made.
    torch.testing.assert_close(judge.weight, torch.full((1, 5), 0.99))
    torch.testing.assert_close(maker.value, torch.full((5,), 1.01))


class Maker(nn.Module):
    """A user's generator, by label."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(3, 16)
        self.layer = nn.LazyLinear(64)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.layer(torch.cat([noise, self.label(label)], 1)).unflatten(1, (1, 8, 8))


class Judge(nn.Module):
    """A user's discriminator, by label."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, obs: Tensor, label: Tensor) -> Tensor:
        return self.layer(obs.flatten(1)).gather(1, label[:, None]).squeeze(1)


def test_parts_of_the_users_take_the_place_of_ours() -> None:
    maker, judge = Maker(), Judge()
    agent = DCGAN(PIXELS, CLASSES, maker, judge, conditional=True, latent=7)
    assert agent.generator is maker
    assert agent.discriminator is judge
    before = [parameter.clone() for parameter in agent.parameters()]
    learnt(agent, torch.rand(6, 1, 8, 8))
    changed = [not torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True)]
    assert all(changed)
    assert agent.sample(4, torch.tensor([0, 1, 2, 0])).shape == (4, 1, 8, 8)


def test_one_part_alone_may_be_the_users() -> None:
    judge = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    agent = DCGAN(PIXELS, discriminator=judge, channels=8)
    assert learnt(agent, torch.rand(6, 1, 8, 8)).d_loss.isfinite()


def test_looking_at_parts_leaves_no_trace() -> None:
    torch.manual_seed(0)
    part = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 1))
    state, weights = torch.get_rng_state(), part[1].running_mean
    DCGAN(PIXELS, generator=Flat(), discriminator=part)
    assert torch.equal(torch.get_rng_state(), state)
    assert part.training
    assert isinstance(weights, Tensor)
    assert not weights.any()


class Flat(nn.Module):
    """Gives images as vectors, and has no weights of interest."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, noise: Tensor) -> Tensor:
        return noise * self.scale


def test_flat_images_are_given_their_shape() -> None:
    agent = DCGAN(PIXELS, generator=Flat(), channels=8)
    learnt(agent, torch.rand(6, 1, 8, 8))
    assert agent.sample(3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"generator": nn.Linear(64, 63)},
            r"generator Linear.* returned \[2, 63\]; expected 64 numbers",
        ),
        (
            {"generator": nn.Linear(32, 64)},
            r"generator Linear, given \[2, 64\], raised RuntimeError",
        ),
        (
            {"discriminator": nn.Flatten()},
            r"discriminator Flatten.* returned \[2, 64\]; expected 1 number",
        ),
        ({"discriminator": nn.LSTM(8, 8)}, "discriminator LSTM.* raised"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DCGAN(PIXELS, **parts, channels=8)


def test_samples_of_a_class_differ_and_resemble_it(tmp_path: Path) -> None:
    words = ["model.conditional=true", "model.channels=16", "model.latent=16", "model.lr=1e-3"]
    quiet: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}
    steps = {"train_steps": 300, "batch_size": 64}
    run = ml(*words, model=DCGAN, dataset="Digits", path=tmp_path, **steps, **quiet)
    data = run.replay.sample(1400)
    torch.manual_seed(0)
    means = torch.stack([data.obs[data.label == number].mean(0) for number in range(10)])
    for number in range(10):
        samples = run.agent.sample(200, number)
        varied = samples.var(0).mean() / data.obs[data.label == number].var(0).mean()
        assert 0.3 < varied < 2, number  # All alike where the class drowns the noise.
        distance = (means - samples.mean(0)).square().flatten(1).mean(1)
        assert distance.argmin() == number
