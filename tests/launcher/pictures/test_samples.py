"""A generative model's samples are drawn at every evaluation, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from antelope import ml
from antelope.agents.traits import Traits, traits
from antelope.launcher.pictures.samples import Samples, makes_images
from antelope.replay import Space, Spec

CLASSES = Space((3,), torch.int64, low=0, high=2, discrete=True)
COLOURS = torch.tensor([[255.0, 0.0, 51.0], [0.0, 255.0, 102.0], [204.0, 0.0, 0.0]])
MEAN, STDDEV = torch.tensor([100.0, 50.0, 20.0]), torch.tensor([50.0, 25.0, 10.0])


class Painter(nn.Module):
    """Paints a label in one colour, standardised; without labels in the first."""

    def __init__(self, conditional: bool = False):
        super().__init__()
        self.antelope_traits = Traits(generates=True, conditional=conditional)

    def sample(self, n: int, label: Tensor | None = None) -> Tensor:
        colours = COLOURS[torch.zeros(n).long() if label is None else label]
        return ((colours - MEAN) / STDDEV)[:, :, None, None].expand(n, 3, 8, 8)


def spec(shape: tuple[int, ...] = (3, 8, 8)) -> Spec:
    return Spec(Space(shape, torch.uint8, 0.0, 255.0, MEAN, STDDEV), CLASSES)


def picture(path: Path) -> np.ndarray:
    """`[H, W, 3]` uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def middle(pixels: np.ndarray, row: int, column: int) -> list[int]:
    """The colour in the middle of a tile of 64 pixels, with borders of two."""
    return pixels[66 * row + 34, 66 * column + 34].tolist()


def test_the_grid_is_in_the_colours_of_the_data(tmp_path: Path) -> None:
    Samples(tmp_path, spec(), standardize=True, seed=0)(Painter(), 7)
    pixels = picture(tmp_path / "step-7.png")
    assert pixels.shape == (8 * 66 + 2, 8 * 66 + 2, 3)
    assert {tuple(middle(pixels, i, j)) for i in range(8) for j in range(8)} == {(255, 0, 51)}


def test_a_conditional_model_has_a_row_for_every_class(tmp_path: Path) -> None:
    Samples(tmp_path, spec(), standardize=True, seed=0)(Painter(conditional=True), 0)
    pixels = picture(tmp_path / "step-0.png")
    assert pixels.shape == (3 * 66 + 2, 8 * 66 + 2, 3)
    for row, colour in enumerate(COLOURS.int().tolist()):
        assert [middle(pixels, row, column) for column in range(8)] == [colour] * 8


def test_inputs_that_are_not_standardised_are_drawn_as_they_are(tmp_path: Path) -> None:
    class Grey(nn.Module):
        antelope_traits = Traits(generates=True)

        def sample(self, n: int) -> Tensor:
            return torch.full((n, 1, 8, 8), 0.6)

    Samples(tmp_path, spec((1, 8, 8)), standardize=False, seed=0)(Grey(), 1)
    assert middle(picture(tmp_path / "step-1.png"), 3, 3) == [153, 153, 153]


def test_the_noise_is_the_same_at_every_step_and_no_stream_moves(tmp_path: Path) -> None:
    class Noise(nn.Module):
        antelope_traits = Traits(generates=True)

        def sample(self, n: int) -> Tensor:
            return torch.rand(n, 1, 28, 28)

    draw = Samples(tmp_path, spec((1, 28, 28)), standardize=False, seed=0)
    before = torch.get_rng_state()
    draw(Noise(), 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    draw(Noise(), 2)
    assert (tmp_path / "step-1.png").read_bytes() == (tmp_path / "step-2.png").read_bytes()


def test_samples_of_another_shape_are_a_warning(tmp_path: Path) -> None:
    class Flat(nn.Module):
        antelope_traits = Traits(generates=True)

        def sample(self, n: int) -> Tensor:
            return torch.zeros(n, 192)

    with pytest.warns(UserWarning, match=r"Flat.sample\(64\) returned \[64, 192\]"):
        Samples(tmp_path, spec(), standardize=True, seed=0)(Flat(), 1)
    assert not [*tmp_path.iterdir()]


def test_who_generates() -> None:
    class Predicts(Painter):
        def forward(self, obs: Tensor) -> Tensor:
            return obs

    class Acts(Painter):
        def act(self, obs: Tensor) -> Tensor:
            return obs

    class SamplesSomethingElse(nn.Module):
        def sample(self, n: int) -> Tensor:
            return torch.arange(n)

    assert traits(Painter()).generates
    for other in (Predicts(), Acts(), SamplesSomethingElse(), nn.Linear(1, 1)):
        assert not traits(other).generates
    assert makes_images(Painter(), Space((1, 8, 8)))
    for space in (Space((64,)), Space((2, 8, 8)), {"screen": Space((3, 8, 8))}):
        assert not makes_images(Painter(), space)


SMALL: dict[str, Any] = {
    "dataset": "Digits",
    "train_steps": 4,
    "eval_every": 2,
    "progress": False,
    "device": "cpu",
}


def test_a_run_draws_at_each_evaluation_and_learns_as_without_pictures(tmp_path: Path) -> None:
    words = ["model=VAE", "model.hidden=8", "model.conditional=true"]
    drawn = ml(*words, path=tmp_path / "drawn", **SMALL)
    samples = tmp_path / "drawn" / "plots" / "samples"
    assert {file.name for file in samples.iterdir()} == {"step-2.png", "step-4.png"}
    assert picture(samples / "step-4.png").shape == (10 * 66 + 2, 8 * 66 + 2, 3)
    plain = ml(*words, path=tmp_path / "plain", plot=False, **SMALL)
    assert not (tmp_path / "plain" / "plots").exists()
    assert drawn.metrics == plain.metrics
    weights = plain.agent.state_dict()
    for name, value in drawn.agent.state_dict().items():
        assert torch.equal(value, weights[name])


def test_the_held_out_loss_of_a_model_that_has_one_is_reported(tmp_path: Path) -> None:
    run = ml("model=VAE", "model.hidden=8", path=tmp_path / "vae", plot=False, **SMALL)
    assert set(run.metrics) == {"loss"}
    run = ml("model=DCGAN", "model.channels=8", path=tmp_path / "gan", plot=False, **SMALL)
    assert run.metrics == {}
    (row,) = (row for row in run.history if row["mode"] == "train")
    assert {"loss", "d_loss", "g_loss"} <= row.keys()
