"""Rows of different lengths: stored without padding, read padded and marked with their lengths."""

import copy

import pytest
import torch

from antelope.replay import Batch, ConfigError, Ragged, Space
from antelope.replay.padding import padded_alike, resized, steps_of
from antelope.replay.sequences import StandardizeSequences


def column(lengths=(2, 3, 1), features=(), dtype=torch.int64):
    total = sum(lengths)
    values = torch.arange(1, 1 + total * max(1, *features, 1)).to(dtype)
    values = values.view(total, *features) if features else values[:total]
    return Ragged(values, torch.tensor([0, *lengths]).cumsum(0))


def test_rows_are_read_in_any_order_padded_with_zeros_to_the_longest_that_is_read():
    assert column().take(torch.tensor([2, 0])).tolist() == [[6, 0], [1, 2]]
    assert column().take(torch.tensor([1, 1, 2])).tolist() == [[3, 4, 5], [3, 4, 5], [6, 0, 0]]


def test_a_padded_tensor_carries_lengths_and_a_mask_that_is_true_at_real_steps():
    steps = steps_of(column().take(torch.tensor([2, 0])))
    assert steps.length.tolist() == [1, 2]
    assert steps.mask.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_steps_of_several_features_are_padded_whole(dtype):
    read = column(features=(2,), dtype=dtype).take(torch.tensor([2, 1]))
    assert read.shape == (2, 3, 2)
    assert read.dtype == dtype
    assert not read[0, 1:].any()
    assert read[1].all()


def test_nothing_is_padded_in_memory():
    assert column((1, 1000)).nbytes == 8 * 1001 + 8 * 3


def test_rows_make_a_column_and_a_part_of_it_is_a_column_too():
    rows = [torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([4, 5, 6])]
    whole = Ragged.of_rows(rows)
    part = whole.rows(torch.tensor([2, 1]))
    assert whole.shape == (3, 3)
    assert part.values.tolist() == [4, 5, 6, 3]
    assert part.offsets.tolist() == [0, 3, 4]
    assert [row.tolist() for row in part.joined([whole])] == [
        [4, 5, 6], [3], [1, 2], [3], [4, 5, 6],
    ]  # fmt: skip
    three = part.joined([whole.rows(torch.tensor([0])), whole.rows(torch.tensor([1]))])
    assert three.values.tolist() == [4, 5, 6, 3, 1, 2, 3]


def test_a_step_belongs_to_the_row_that_holds_it():
    assert [column((2, 3, 1)).row_at(step) for step in range(6)] == [0, 0, 1, 1, 1, 2]


def test_a_batch_of_some_rows_keeps_the_lengths_of_these_rows():
    obs = column().take(torch.tensor([0, 1, 2]))
    steps = steps_of(obs)
    batch = Batch(obs=obs, length=steps.length, mask=steps.mask)
    for part in (batch[torch.tensor([2, 0])], batch[[2, 0]], batch[steps.length < 3][[1, 0]]):
        assert steps_of(part.obs).length is part.length
        assert part.length.tolist() == [1, 2]
        assert part.mask.sum(1).tolist() == [1, 2]


def test_a_computed_tensor_carries_no_lengths():
    obs = column().take(torch.tensor([0, 1]))
    assert steps_of(obs + 0) is None
    assert steps_of(obs[:1]) is None
    assert steps_of(copy.copy(obs)) is not None


def test_batches_of_different_lengths_are_padded_to_the_longest_of_all():
    batches = [
        {"obs": obs, "mask": steps_of(obs).mask, "length": steps_of(obs).length, "label": None}
        for obs in (column().take(torch.tensor([2])), column().take(torch.tensor([1])))
    ]
    short, long = padded_alike(batches)
    assert short["obs"].tolist() == [[6, 0, 0]]
    assert short["mask"].tolist() == [[True, False, False]]
    assert long["obs"] is batches[1]["obs"] or torch.equal(long["obs"], batches[1]["obs"])


def test_batches_without_lengths_stay_as_they_are():
    fields = {"obs": torch.zeros(2, 3)}
    assert padded_alike([fields])[0] is fields
    assert resized(torch.ones(1, 4), 2).tolist() == [[1, 1]]


def test_an_augmentation_that_returns_fewer_steps_is_refused_at_any_batch():
    obs = column(dtype=torch.float32).take(torch.tensor([0, 1]))
    space = Space((3,), torch.float32, low=0.0, high=8.0)
    shorter = StandardizeSequences(space, standardize=False, augment=lambda steps: steps[:, :2])
    with pytest.raises(ConfigError, match=r"sequences \[2, 3\] into \[2, 2\]"):
        shorter({"obs": obs, "length": steps_of(obs).length})
