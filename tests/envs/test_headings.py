"""Columns of data frames are put in order by labels that tell them apart, and by no others."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest

from antelope.envs.headings import headings, in_order


def frame(*labels: Any) -> pandas.DataFrame:
    """A column of 0 and one of 1, with these labels."""
    return pandas.DataFrame([[0, 1], [0, 1]]).set_axis(pandas.Index(labels, dtype=object), axis=1)


@pytest.mark.parametrize("labels", [("a", "b"), ("a", np.int64(1)), (7, 3), (False, True)])
def test_words_numbers_and_truth_values_are_names(labels: tuple[Any, Any]) -> None:
    given = frame(*labels)
    known, turned = headings(given), given.iloc[:, ::-1]
    assert known == labels
    assert in_order(turned, known, "the inputs").to_numpy().tolist() == [[0, 1], [0, 1]]
    assert in_order(turned.iloc[0], known, "the inputs").tolist() == [0, 1]


def test_labels_that_do_not_tell_columns_apart_are_no_names() -> None:
    assert headings(frame("a", "a")) is None
    assert headings(frame("a", None)) is None


def test_what_is_no_data_frame_has_no_names_whatever_its_attributes() -> None:
    assert headings(SimpleNamespace(columns=["a", "b"])) is None
