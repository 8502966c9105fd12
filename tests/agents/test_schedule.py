"""Values that change with the steps taken."""

from __future__ import annotations

from antelope.agents.blocks.schedule import Falling


def test_it_falls_in_a_line_and_stays() -> None:
    value = Falling(1.0, 0.2, 40)
    assert [round(value.next(10), 6) for _ in range(6)] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]


def test_over_no_steps_it_is_the_last_one_after_the_first() -> None:
    value = Falling(1.0, 0.5, 0)
    assert [value.next(3), value.next(3)] == [1.0, 0.5]
