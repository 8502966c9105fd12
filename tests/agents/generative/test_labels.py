"""Labels to generate by: those asked for, or any."""

from __future__ import annotations

import torch

from antelope.agents.generative.labels import labels

CPU = torch.device("cpu")


def test_labels_that_are_not_asked_for_are_drawn_of_all_classes_alike() -> None:
    torch.manual_seed(0)
    drawn = labels(None, 3000, 3, CPU)
    assert drawn is not None
    assert drawn.dtype == torch.int64
    assert drawn.bincount(minlength=3).min() > 900  # Of 1,000; the deviation is 26.


def test_one_label_is_for_all_samples() -> None:
    for one in (2, torch.tensor(2), torch.tensor(2, dtype=torch.uint8)):
        label = labels(one, 3, 4, CPU)
        assert label is not None
        assert label.tolist() == [2, 2, 2]
        assert label.dtype == torch.int64


def test_a_model_without_classes_has_no_labels() -> None:
    assert labels(None, 3, 0, CPU) is None
