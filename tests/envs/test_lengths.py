"""Inputs that are sequences of different lengths are recognised, and nothing else is."""

import numpy as np
import pytest
import torch

from antelope import DataError
from antelope.envs.lengths import sequences
from antelope.replay import Ragged

LISTS = [[1, 2], [3], [4, 5, 6]]


@pytest.mark.parametrize(
    "given",
    [
        LISTS,
        tuple(LISTS),
        [np.array(row) for row in LISTS],
        [np.array(row, np.int32) for row in LISTS],
        [torch.tensor(row) for row in LISTS],
        np.array(LISTS, object),
        np.array([np.array(row) for row in LISTS], object),
        torch.nested.nested_tensor([torch.tensor(row) for row in LISTS], layout=torch.jagged),
    ],
)
def test_sequences_of_integers_are_kept_in_turn_as_int64(given):
    column = sequences(given, "The input of X")
    assert isinstance(column, Ragged)
    assert column.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert column.values.dtype == torch.int64
    assert column.lengths.tolist() == [2, 1, 3]


def test_steps_may_be_vectors():
    rows = [np.ones((2, 3), np.float16), np.zeros((4, 3), np.float16)]
    assert sequences(rows, "X").shape == (2, 4, 3)
    assert sequences(rows, "X").dtype == torch.float32
    assert sequences([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], "X").values.tolist() == [
        [1, 2], [3, 4], [5, 6]
    ]  # fmt: skip


def test_steps_of_integers_and_floats_keep_their_values():
    for first, *others in ([1, 2**40], [0.5]), ([0.5], [1, 2**40]):
        column = sequences([np.array(first), *(torch.tensor(row) for row in others)], "X")
        assert column.values.tolist() == [*first, *others[0]]


@pytest.mark.parametrize(
    "given",
    [
        [[1, 2], [3, 4]],
        [1, 2, 3],
        ["a", "bc"],
        torch.zeros(3, 2),
        np.zeros((3, 2)),
        np.array([1, "two"], object),
        [],
    ],
)
def test_rows_of_one_length_and_values_without_a_length_are_left_alone(given):
    assert sequences(given, "X") is None


def test_a_nested_tensor_whose_rows_have_one_length_is_a_plain_tensor():
    given = torch.nested.nested_tensor([torch.ones(2), torch.zeros(2)], layout=torch.jagged)
    assert torch.equal(sequences(given, "X"), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1], [], [2, 3]], "an empty sequence, at 1. Leave such rows out, or give them one step"),
        ([torch.zeros(2, 3), torch.zeros(3, 4)], r"shapes \[2, 3\] at 0 and \[3, 4\] at 1. They may"),
        ([torch.zeros(2), torch.zeros(3).bool()], "of float32 at 0 and of bool at 1. Give all of them"),
        ([["the", "cat"], ["sat"]], "holds words .*an index into a vocabulary"),
        ([torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8)], "flatten them, or pad the sequences"),
        ([[1j], [2j, 3j]], "not real numbers"),
    ],
)  # fmt: skip
def test_what_is_no_sequence_of_numbers_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        sequences(given, "The input of X")
