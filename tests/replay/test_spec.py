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


def test_many_choices_are_told_in_few_words() -> None:
    several = Space((150,), torch.int64, discrete=True, nvec=(3,) * 50)
    assert str(several) == "50 times one of 3"
    assert str(Space((), torch.int64, low=0, high=8999, ids=9000)) == "one of 9000 ids"
    assert str(Space((2,), torch.int64, low=0, high=8999, ids=9000)) == "2 of 9000 ids"
    words = Space((), torch.int64, low=0, high=8, ids=9, mean=torch.ones(()), stddev=torch.ones(()))
    assert str(words) == "int64 scalar"


def test_numbers_are_neither_choices_nor_ids() -> None:
    assert Space((3,)).numeric
    assert not Space((3,), torch.int64, discrete=True).numeric
    assert not Space((), torch.int64, ids=3).numeric
