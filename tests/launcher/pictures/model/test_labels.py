"""Hyperparameters in few words."""

from __future__ import annotations

import pytest
from torch import nn

from antelope.launcher.pictures.model.labels import cut_path, hyperparameters, percent


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(4, 2), "4 → 2"),
        (nn.Linear(4, 2, bias=False), "4 → 2, no bias"),
        (nn.Conv2d(3, 64, 7, stride=2, padding=3), "3 → 64, kernel 7x7, stride 2, padding 3"),
        (nn.Conv2d(3, 8, (3, 5), stride=(1, 2)), "3 → 8, kernel 3x5, stride 1x2"),
        (nn.BatchNorm2d(16), "16"),
        (nn.GroupNorm(4, 16), "4, 16"),
        (nn.LSTM(4, 8, batch_first=True), "4 → 8, batch first"),
        (nn.Embedding(50, 16), "50 → 16"),
        (nn.Dropout(0.1), "p 0.1"),
        (nn.ReLU(), ""),
        (nn.ReLU(inplace=True), ""),
        (nn.MultiheadAttention(8, 2), "embed dim 8, num heads 2"),
    ],
)
def test_defaults_are_left_out(module: nn.Module, said: str) -> None:
    assert hyperparameters(module) == said


def test_what_raises_says_nothing() -> None:
    class Odd(nn.Module):
        def extra_repr(self) -> str:
            raise ValueError

    assert hyperparameters(Odd()) == ""


def test_a_long_one_is_cut() -> None:
    class Long(nn.Module):
        def extra_repr(self) -> str:
            return ", ".join(f"setting_{n}={n}" for n in range(50))

    assert 45 < len(hyperparameters(Long())) <= 50
    assert hyperparameters(Long()).endswith("…")


def test_a_path_keeps_both_ends() -> None:
    assert cut_path("encoder.layers.11.attention", 16) == "encod….attention"
    assert len(cut_path("a" * 99, 16)) == 16
    assert cut_path("encoder", 16) == "encoder"


def test_shares() -> None:
    assert [percent(share) for share in (0, 1e-5, 0.125, 1)] == ["0.0%", "<0.1%", "12.5%", "100.0%"]
