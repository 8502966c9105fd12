"""Types of the options that models declare."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from antelope.launcher import mammoth as m


def test_words_for_yes_and_no() -> None:
    assert [m.binary_to_boolean_type(x) for x in ("1", "True", "y", 1)] == [True] * 4
    assert [m.binary_to_boolean_type(x) for x in ("0", "no", "F", False)] == [False] * 4
    with pytest.raises(ArgumentTypeError, match="'maybe' must be one of"):
        m.binary_to_boolean_type("maybe")
    assert (m.none_or_float("None"), m.none_or_float("0.5")) == (None, 0.5)
