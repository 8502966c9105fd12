"""`Space` and `Spec`: sizes, and how they read."""

from __future__ import annotations

import torch

from antelope.replay import Space, Spec


def test_n_counts_choices_or_values() -> None:
    assert Space((10,), torch.int64, discrete=True).n == 10
    assert Space((3, 4, 5)).n == 60
    assert Space(()).n == 1


def test_a_spec_reads_as_what_goes_in_and_comes_out() -> None:
    digits = Spec(Space((1, 8, 8), torch.uint8), Space((10,), torch.int64, discrete=True))
    assert str(digits) == "uint8 1x8x8 -> one of 10"
    assert digits.discrete
    values = Spec(Space((10,)), Space(()))
    assert str(values) == "float32 10 -> float32 scalar"
    assert not values.discrete
