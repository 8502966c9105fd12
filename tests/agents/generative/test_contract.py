"""What all generative models have in common: `sample(n, label)` in the units of `batch.obs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from antelope import ml
from antelope.agents import DCGAN, VAE, FlowMatching
from antelope.replay import Batch, ConfigError, Space, Standardize

CLASSES = Space((3,), torch.int64, low=0, high=2, discrete=True)
SMALL: dict[type, dict[str, Any]] = {
    VAE: {"hidden": 16, "latent": 4},
    DCGAN: {"channels": 8, "latent": 4},
    FlowMatching: {"channels": 8, "steps": 2},
}
MODELS = list(SMALL)
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 15, 18)]


def images(shape: tuple[int, ...]) -> Space:
    """Bytes, with a mean and a deviation per channel."""
    channels = torch.arange(1.0, shape[0] + 1)
    return Space(shape, torch.uint8, 0.0, 255.0, 30 * channels, 20 * channels)


def small(model: type, space: Space, **options: Any) -> Any:
    torch.manual_seed(0)
    return model(space, CLASSES, **SMALL[model], **options)


class Rows:
    """A replay of one batch."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __next__(self) -> Batch:
        return self.batch


class Record:
    """A log."""

    loss: Tensor


def batch(space: Space, n: int = 4, *, standardize: bool = True) -> Batch:
    stored = torch.randint(256, (n, *space.shape), dtype=torch.uint8)
    obs = Standardize(space, standardize=standardize)({"obs": stored})["obs"]
    return Batch(obs=obs, label=torch.arange(n) % 3)


def learnt(model: Any, rows: Rows) -> Tensor:
    """The loss of one step as the launcher takes it."""
    if isinstance(model, DCGAN):
        log = Record()
        model.learn(rows, log)  # type: ignore[arg-type]
        return log.loss
    loss = model.learn(rows)
    model.zero_grad()
    loss.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data.sub_(parameter.grad, alpha=1e-3)
    return loss.detach()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_is_learnt_from_and_made(
    model: type, shape: tuple[int, ...], conditional: bool
) -> None:
    space = images(shape)
    agent = small(model, space, conditional=conditional)
    assert learnt(agent, Rows(batch(space))).isfinite()
    agent.eval()
    samples = agent.sample(5)
    assert samples.shape == (5, *shape)
    assert samples.dtype == torch.float32
    assert not samples.requires_grad


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("standardize", [False, True])
def test_samples_stay_within_what_the_data_can_be(model: type, standardize: bool) -> None:
    space = images((3, 8, 8))
    agent = small(model, space, standardize=standardize).eval()
    with torch.no_grad():  # Far beyond what any data are.
        for parameter in agent.parameters():
            parameter.mul_(30).add_(torch.randn_like(parameter))
    samples = agent.sample(50)
    for channel, (mean, stddev) in enumerate(zip((30, 60, 90), (20, 40, 60), strict=True)):
        low, high = (-mean / stddev, (255 - mean) / stddev) if standardize else (0, 1)
        values = samples[:, channel]
        assert values.min() >= low - 1e-5
        assert values.max() <= high + 1e-5
        assert values.min() < low + 0.1 * (high - low)  # The whole range is used.
        assert values.max() > high - 0.1 * (high - low)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("conditional", [False, True])
def test_samples_follow_torchs_seed(model: type, conditional: bool) -> None:
    agent = small(model, images((1, 8, 8)), conditional=conditional).eval()
    first, other, again = (torch.manual_seed(seed) and agent.sample(6) for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("model", MODELS)
def test_sampling_leaves_the_model_as_it_was(model: type) -> None:
    agent = small(model, images((1, 8, 8))).eval()
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    agent.sample(6)
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    assert not agent.training


@pytest.mark.parametrize("model", MODELS)
def test_a_label_makes_a_difference(model: type) -> None:
    agent = small(model, images((1, 8, 8)), conditional=True)
    rows = Rows(batch(images((1, 8, 8))))
    for _ in range(30):  # A network that begins at zero knows no label yet.
        learnt(agent, rows)
    agent.eval()

    def made(label: Any) -> Tensor:
        torch.manual_seed(0)
        return agent.sample(4, label)

    one, other = made(0), made(torch.ones(4, dtype=torch.int64))
    assert torch.equal(one, made(torch.zeros(4, dtype=torch.int64)))
    assert not torch.equal(one, other)
    mixed = made(torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(mixed[::2], one[::2])
    torch.testing.assert_close(mixed[1::2], other[1::2])


@pytest.mark.parametrize("model", MODELS)
def test_labels_that_cannot_be_are_refused(model: type) -> None:
    with pytest.raises(ConfigError, match="conditional=true"):
        small(model, images((1, 8, 8))).sample(2, 1)
    agent = small(model, images((1, 8, 8)), conditional=True)
    for label in (
        3,
        -1,
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(2),
        torch.zeros(2, 1).long(),
    ):
        with pytest.raises(ConfigError, match="from 0 to 2"):
            agent.sample(2, label)
    values = Space((1,), low=0.0, high=1.0)
    with pytest.raises(ConfigError, match="conditional=false"):
        model(images((1, 8, 8)), values, conditional=True)


@pytest.mark.parametrize("model", MODELS)
def test_a_dict_of_observations_is_refused(model: type) -> None:
    with pytest.raises(ConfigError, match=f"{model.__name__}.* a dict of screen, inventory"):
        model({"screen": images((1, 8, 8)), "inventory": Space((16,))}, CLASSES)


@pytest.mark.parametrize("model", [DCGAN, FlowMatching])
@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 3, 8)])
def test_what_is_no_image_is_refused_by_its_shape(model: type, shape: tuple[int, ...]) -> None:
    given = "x".join(map(str, shape))
    with pytest.raises(ConfigError, match=rf"{model.__name__}.*\(C, H, W\).*float32 {given}"):
        model(Space(shape, low=0.0, high=1.0), CLASSES)


# As small as can be, each with the settings that it needs.
SHORT: dict[type, tuple[list[str], dict[str, Any]]] = {
    VAE: (["train_steps=600", "lr=3e-3"], {"hidden": 64, "latent": 8}),
    DCGAN: (["train_steps=200"], {"channels": 16, "latent": 16, "lr": 1e-3}),
    FlowMatching: (["train_steps=60", "lr=5e-3"], {"channels": 8, "steps": 5, "decay": 0.9}),
}


@pytest.mark.parametrize("model", MODELS)
def test_a_short_training_brings_samples_near_the_digits(model: type, tmp_path: Path) -> None:
    words, options = SHORT[model]
    run = ml(
        *(f"model.{name}={value}" for name, value in options.items()),
        *words,
        model=model,
        dataset="Digits",
        path=tmp_path,
        batch_size=64,
        plot=False,
        progress=False,
        device="cpu",
    )
    data = run.replay.sample(1000).obs
    torch.manual_seed(0)
    untrained = model(run.spec.obs, run.spec.action, **options).eval().sample(500)
    samples = run.agent.sample(500)
    for statistic in (torch.mean, torch.var):
        goal = statistic(data, 0)
        before, after = ((statistic(x, 0) - goal).square().mean() for x in (untrained, samples))
        assert after < 0.6 * before, statistic


@pytest.mark.parametrize("model", MODELS)
def test_a_run_continues_exactly(model: type, tmp_path: Path) -> None:
    def trained(folder: str, train_steps: int, **more: Any) -> Any:
        words = [f"model.{name}={value}" for name, value in SMALL[model].items()]
        quiet: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}
        steps = {"train_steps": train_steps, "path": tmp_path / folder}
        return ml(*words, model=model, dataset="Digits", **steps, **more, **quiet)

    whole = trained("whole", 8)
    trained("parts", 4)
    resumed = trained("parts", 8, resume=True)
    assert resumed.metrics == whole.metrics
    weights = whole.agent.state_dict()
    for name, value in resumed.agent.state_dict().items():
        assert torch.equal(value, weights[name]), name
    torch.manual_seed(0)
    samples = resumed.agent.sample(3)
    torch.manual_seed(0)
    assert torch.equal(samples, whole.agent.sample(3))
