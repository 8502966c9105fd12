"""The live line keeps the percentage and the time left, however narrow the console."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console as RichConsole

from antelope.launcher.record.console import Console
from antelope.launcher.record.progress import Progress


def line(width: int, *, total: int | None = 1000, values: Any = None) -> str:
    """What stands in the last line after a quarter of a run."""
    console = Console(enabled=True, total=total)
    file = io.StringIO()
    console._console = RichConsole(
        file=file, width=width, force_terminal=True, legacy_windows=False, color_system=None
    )
    at = Progress(metrics={"accuracy": 0.98765} if values is None else values)
    for at.step in (0, 100, 250):
        console.update(at, 1234.5678)
    console.stop()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    return re.split(r"[\r\n]+", plain.strip())[-1]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_percentage_and_time_left(width: int) -> None:
    text = line(width)
    assert len(text) < width
    assert re.search(r"25% (-:--:--|\d+:\d\d:\d\d)", text)


def test_values_go_first_from_the_right_then_the_bar() -> None:
    assert "━" not in line(20)
    assert "loss" not in line(20)
    assert "loss 1,235" in line(40)
    assert "accuracy" not in line(40)
    wide = line(100)
    assert wide.count("━") == 30
    for part in ("loss 1,235", "accuracy 0.9877", "steps/s"):
        assert part in wide


def test_a_run_of_unknown_length_shows_what_there_is_room_for() -> None:
    assert line(40, total=None).startswith("loss 1,235  accuracy 0.9877")
    assert line(14, total=None) == "loss 1,235"


def test_a_value_that_is_not_a_number_is_shown() -> None:
    assert "accuracy nan" in line(100, values={"accuracy": float("nan")})


def test_an_evaluation_is_shown_and_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("antelope.launcher.record.console.time.monotonic", lambda: now[0])
    console = Console(enabled=True, total=100)
    file = io.StringIO()
    console._console = RichConsole(
        file=file, width=100, force_terminal=True, legacy_windows=False, color_system=None
    )
    shown = []
    for done in range(0, 50_000, 10_000):
        now[0] += 1.0
        console.evaluating(done, 40_000, "rows")
        console.evaluating(done + 1, 40_000, "rows")  # Too soon to be drawn.
        shown.append(file.getvalue())
    console.stop()
    assert [
        f"evaluating {done:,}/40,000 rows" in shown[-1] for done in range(0, 40_000, 10_000)
    ] == [True] * 4
    assert "10,001" not in shown[-1]
    last = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[-1]).strip())[-1]
    assert "evaluating" not in last
