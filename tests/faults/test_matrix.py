"""The fault matrix is whole: each of its rows has a test that is marked with it, or a reason why not."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.faults import FAULTS, UNTESTED
from benchmarks.interrupted import ROWS

TESTS = Path(__file__).resolve().parents[1]


def marked_rows() -> set[int]:
    found: set[int] = set()
    for file in TESTS.rglob("test_*.py"):
        for numbers in re.findall(r"mark\.row\(([\d, ]+)\)", file.read_text(encoding="utf-8")):
            found |= {int(number) for number in numbers.split(",")}
    return found


def test_every_row_has_a_test_or_a_reason() -> None:
    rows = set(range(1, 55))
    assert set(FAULTS) == rows
    marked = marked_rows()
    assert marked == rows - set(UNTESTED)
    assert all(UNTESTED.values())
    assert all(must for row, (_, must) in FAULTS.items() if row not in UNTESTED)


def test_rows_that_peers_are_given_are_rows() -> None:
    assert set(ROWS) <= set(FAULTS) - set(UNTESTED)
