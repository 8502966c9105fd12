"""Ranges of a search, as words give them."""

from __future__ import annotations

import pytest

from antelope import ConfigError
from antelope.launcher.sweep.spaces import Choice, Range, combinations, is_range, read_range


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lr=log(1e-5,1e-1)", Range("lr", 1e-5, 0.1, log=True)),
        ("lr=tag(log, interval(1e-5, 1e-1))", Range("lr", 1e-5, 0.1, log=True)),
        ("model.dropout=interval(0,1)", Range("model.dropout", 0.0, 1.0)),
        ("model.layers=int(1,8)", Range("model.layers", 1, 8, whole=True)),
        ("model.layers=int(interval(1, 8))", Range("model.layers", 1, 8, whole=True)),
        ("model.hidden=int(log(8,512))", Range("model.hidden", 8, 512, log=True, whole=True)),
        # The setting says that only whole numbers are meant.
        ("batch_size=log(8,512)", Range("batch_size", 8, 512, log=True, whole=True)),
        ("+lr=log(1e-5,1e-1)", Range("lr", 1e-5, 0.1, log=True)),
    ],
)
def test_ranges_are_read_by_hydras_grammar(word: str, expected: Range) -> None:
    assert is_range(word)
    assert read_range(word) == expected


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("lr=loguniform(1e-5,1e-1)", r"write lr=log\(1e-5,1e-1\)\.$"),
        ("lr=tune.loguniform(1e-5, 1e-1)", r"write lr=log\(1e-5, 1e-1\)\.$"),
        ("model.layers=randint(1,8)", r"write model.layers=int\(1,8\)\.$"),
        ("model.layers=log_int(1,8)", r"write model.layers=int\(log\(1,8\)\)\.$"),
        ("lr=log(1e-5)", r"Write a range as lr=log\(1e-5,1e-1\)"),
        ("lr=log(1e-1,1e-5)", "the first bound must be below the second"),
        ("lr=log(0,1e-1)", r"must be above 0\. Write interval"),
        ("lr=interval(0,inf)", "both finite"),
        ("batch_size=interval(.5,8)", "takes whole numbers"),
        ("optim=log(1,2)", "optim is name, which has no ranges"),
        ("lr=tag(lgo,interval(1,2))", "there is no tag lgo"),
    ],
)
def test_what_is_no_range_is_refused_with_what_to_write(word: str, advice: str) -> None:
    assert is_range(word)
    with pytest.raises(ConfigError, match=advice):
        read_range(word)


@pytest.mark.parametrize(
    "word", ["lr=1e-3,1e-2", "seed=range(1,8)", "model=net.py:Net", "seed=int(8)"]
)
def test_other_words_are_no_ranges(word: str) -> None:
    assert not is_range(word)


def test_values_are_typed_to_four_digits_within_the_bounds() -> None:
    lr = read_range("lr=log(1.23412e-5,1e-1)")
    assert lr.text(0.0316227766) == "0.03162"
    assert lr.text(1.23412e-5) == "1.23412e-05"  # To four digits, it would lie below the bound.
    assert read_range("model.layers=int(1,8)").text(3) == "3"


def test_combinations_count_whole_numbers_and_choices_only() -> None:
    layers, width = read_range("model.layers=int(1,8)"), Choice("model.hidden", ("32", "64"))
    assert combinations([layers, width]) == 16
    assert combinations([layers, read_range("lr=log(1,2)")]) == float("inf")
