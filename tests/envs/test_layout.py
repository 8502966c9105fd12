"""Where the channels of images are: the same answer for data sets and environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.utils.data import Dataset

from antelope import Run, ml
from antelope.envs import copies, vector, workers
from antelope.envs.layout import is_channels_last
from antelope.replay import ConfigError

FIRST = [
    (12, 32, 32),
    (3, 5, 9),
    (1, 20, 7),
    (2, 9, 30),
    (1, 9, 1),
    (40, 1, 1),
    (5, 3, 3),
    (1, 1, 1),
]
LAST = [
    (32, 32, 12),
    (5, 9, 3),
    (20, 7, 1),
    (9, 30, 2),
    (7, 7, 3),
    (4, 4, 16),
    (3, 3, 64),
    (40, 2, 3),
]
OPEN = [(8, 8, 8), (8, 6, 8), (2, 9, 3), (3, 9, 4), (9, 4, 5), (1, 1, 9)]
ROWS = 20


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))

    def forward(self, obs: torch.Tensor) -> Any:
        return self.layer(obs)


class Films(gymnasium.Env[np.ndarray, Any]):
    """Every pixel is a number of its own, and grows with the time."""

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.
    observation_space: Any
    action_space = spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...], kind: Any):
        self.observation_space = spaces.Box(0, 255 if kind == np.uint8 else 120, shape, kind)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.picture(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self.picture(), 0.0, self.time > 20, False, {}

    def picture(self) -> np.ndarray:
        return picture(self.observation_space.shape, self.time).astype(self.observation_space.dtype)


def picture(shape: tuple[int, ...], number: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 97 + number).reshape(shape)


class Items(Dataset[Any]):
    def __init__(self, inputs: np.ndarray):
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Any:
        return self.inputs[i], i % 2


def pictures(shape: tuple[int, ...], kind: Any) -> np.ndarray:
    return np.stack([picture(shape, i) for i in range(ROWS)]).astype(kind)


@pytest.fixture
def learnt(tmp_path: Path) -> Any:
    """`ml` on data, in a step."""

    def run(**settings: Any) -> Run:
        usual = {"model": Linear, "train_steps": 1, "plot": False, "progress": False}
        return ml(**usual | {"path": tmp_path / "run"} | settings)

    return run


@pytest.mark.parametrize("shape", FIRST)
def test_shapes_that_are_channels_first(shape: tuple[int, ...]) -> None:
    assert not is_channels_last(shape, "They are")


@pytest.mark.parametrize("shape", LAST)
def test_shapes_that_are_channels_last(shape: tuple[int, ...]) -> None:
    assert is_channels_last(shape, "They are")


@pytest.mark.parametrize("shape", OPEN)
def test_shapes_that_tell_nothing_are_asked_about_and_what_is_said_holds(
    shape: tuple[int, ...],
) -> None:
    turned = [shape[2], shape[0], shape[1]]
    with pytest.raises(ConfigError) as caught:
        is_channels_last(shape, "They are")
    assert f"shape {list(shape)}" in str(caught.value)
    assert f"channels=last to turn them into {turned}, or channels=first" in str(caught.value)
    assert is_channels_last(shape, "They are", "last")
    assert not is_channels_last(shape, "They are", "first")


@pytest.mark.parametrize("shape", [(), (3,), (32, 3), (4, 20, 20, 1), (2, 9, 9, 9), (3, 60, 25, 2)])
def test_what_are_no_images_stay(shape: tuple[int, ...]) -> None:
    assert not is_channels_last(shape, "They are")


def test_colour_films_are_asked_about() -> None:
    with pytest.raises(ConfigError, match=r"channels=last to turn them into \[3, 4, 20, 20\]"):
        is_channels_last((4, 20, 20, 3), "They are")


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(10, 10, 6), (12, 9, 2), (6, 10, 10)])
@pytest.mark.parametrize("items", [False, True])
def test_every_pixel_of_a_data_set_is_where_it_belongs(
    shape: tuple[int, ...], kind: Any, items: bool, learnt: Any
) -> None:
    inputs = pictures(shape, kind)
    source = Items(inputs) if items else (inputs, np.arange(ROWS) % 2)
    numbers = {"standardize": True} if kind is np.int64 else {}
    run = learnt(dataset=source, test_dataset=source, **numbers)
    right = inputs if shape[0] == 6 else inputs.transpose(0, 3, 1, 2)
    assert run.spec.obs.shape == right.shape[1:]
    assert run.spec.obs.mean.shape == right.shape[1:2]  # Per channel.
    stored = run.replay.storage.gather(torch.arange(ROWS))["obs"]
    np.testing.assert_array_equal(stored.numpy(), right)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float32, np.float64])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_every_pixel_of_an_environment_is_where_it_belongs(
    kind: Any, vectorization: str, quick: Any
) -> None:
    def make() -> Any:
        return Films((4, 4, 5), kind)

    run = quick(model=Linear, env=make, vectorization=vectorization, train_steps=12)
    assert run.spec.obs.shape == (5, 4, 4)
    fields = run.replay.storage.gather(np.arange(8))
    for step in range(8):
        right = picture((4, 4, 5), step).transpose(2, 0, 1)
        np.testing.assert_array_equal(fields["obs"][step].numpy(), right)
        np.testing.assert_array_equal(fields["next_obs"][step].numpy(), right + 1)


def test_stacked_frames_join_their_channels(quick: Any) -> None:
    run = quick(model=Linear, env=lambda: Films((4, 4, 5), np.float32), frame_stack=3)
    assert run.spec.obs.shape == (15, 4, 4)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_what_is_said_holds_at_every_step_of_an_environment(
    vectorization: str, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Any:
        return Films((4, 4, 4), np.float32)

    with pytest.raises(
        ConfigError, match=r"observations of .* are of shape \[4, 4, 4\].*channels="
    ):
        quick(model=Linear, env=make, vectorization=vectorization)
    # Longer than observations are watched closely.
    for module in (copies, workers, vector):
        monkeypatch.setattr(module, "CHECKED_STEPS", 20)
    steps = {"train_steps": 100, "learn_every": 50}
    run = quick(model=Linear, env=make, vectorization=vectorization, channels="last", **steps)
    rows = run.replay.storage.gather(np.arange(90))["obs"]
    first = torch.from_numpy(picture((4, 4, 4), 0).transpose(2, 0, 1))
    for row in rows:
        assert torch.equal(row - row.min(), (first - first.min()).float())
    kept = quick(model=Linear, env=make, channels="first")
    row = kept.replay.storage.gather(np.arange(1))["obs"][0]
    np.testing.assert_array_equal(row.numpy(), picture((4, 4, 4), 0))


@pytest.mark.parametrize("items", [False, True])
def test_what_is_said_holds_for_data(items: bool, learnt: Any) -> None:
    inputs = pictures((4, 4, 4), np.uint8)
    source = Items(inputs) if items else (inputs, np.arange(ROWS) % 2)
    with pytest.raises(ConfigError, match=r"\[4, 4, 4\].*Set channels=last"):
        learnt(dataset=source)
    for said, right in (("last", inputs.transpose(0, 3, 1, 2)), ("first", inputs)):
        run = learnt(dataset=source, test_dataset=source, channels=said)
        stored = run.replay.storage.gather(torch.arange(ROWS))["obs"]
        np.testing.assert_array_equal(stored.numpy(), right)


def test_the_word_of_a_person_wins_over_the_shape(learnt: Any) -> None:
    inputs = pictures((10, 10, 6), np.float32)
    run = learnt(dataset=(inputs, np.arange(ROWS) % 2), channels="first")
    assert run.spec.obs.shape == (10, 10, 6)


def test_channels_of_what_are_no_images_have_no_effect_which_is_said(learnt: Any) -> None:
    rows = np.zeros((ROWS, 7), np.float32)
    with pytest.warns(
        UserWarning, match="`channels` has no effect in this run: its inputs are not arr"
    ):
        learnt(dataset=(rows, np.arange(ROWS) % 2), channels="last")


def test_the_default_agent_learns_from_boards_with_many_channels(learnt: Any) -> None:
    planes = np.zeros((80, 8, 8, 17), np.float32)
    label = np.arange(80) % 2
    planes[np.arange(80), :, :, 3 + 9 * label] = 1
    run = learnt(model=None, dataset=(planes, label), epochs=3, train_steps=None)
    assert run.spec.obs.shape == (17, 8, 8)
    assert run.metrics["accuracy"] == 1
