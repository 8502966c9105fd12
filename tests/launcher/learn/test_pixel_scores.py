"""Classes of pixels are scored batch by batch, as if all images were one batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from antelope.launcher.learn.pixel_scores import PixelScores
from antelope.replay import Space

TWO = Space((2, 1, 1), torch.uint8, 0, 1, discrete=True)


def logits(*first: float) -> Tensor:
    """`[B, 2, 1, 1]`: of each image's only pixel, that of class 0; that of class 1 is 0."""
    return torch.tensor([[value, 0.0] for value in first]).view(-1, 2, 1, 1)


def labels(*values: int) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)


def test_the_usual_loss_is_the_mean_over_all_pixels_that_count() -> None:
    scores = PixelScores(TWO)
    scores.add(logits(0.0, 9.0), labels(0, 255))  # ln 2, and one to be ignored.
    scores.add(logits(99.0, 99.0, -99.0), labels(0, 0, 1))  # 0 each.
    scores.add(logits(5.0), labels(255))
    assert scores.metrics()["loss"] == pytest.approx(math.log(2) / 4)
    assert scores.counts.tolist() == [[3, 0], [0, 1]]
    assert scores.images == 6


def test_a_named_loss_is_averaged_over_images() -> None:
    scores = PixelScores(TWO, lambda output, label: float(label.float().mean()))
    scores.add(logits(0.0, 0.0, 0.0), labels(1, 1, 1))
    scores.add(logits(0.0), labels(0))
    assert scores.metrics()["loss"] == 0.75


def test_rows_are_classes_and_columns_predictions() -> None:
    scores = PixelScores(TWO)
    scores.add(logits(1.0, 1.0, -1.0), labels(1, 1, 0))
    assert scores.counts.tolist() == [[0, 1], [2, 0]]


def test_a_class_that_is_nowhere_is_left_out_of_the_mean() -> None:
    scores = PixelScores(TWO)
    scores.add(logits(1.0, 1.0), labels(0, 0))
    assert scores.metrics()["mean_iou"] == 1
