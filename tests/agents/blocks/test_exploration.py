"""Random actions that last: how long each, and how many steps they take of all."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from antelope.agents.blocks.exploration import Repeated


def test_an_action_lasts_k_steps_or_more_with_probability_1_over_k() -> None:
    random.seed(0)
    repeated, number = Repeated(), itertools.count()
    drawn = Counter(repeated.next(1, 1.0, lambda: next(number))[0] for _ in range(100_000))
    durations = list(drawn.values())[:-1]  # The last one is cut.
    for k in (2, 3, 10):
        share = sum(duration >= k for duration in durations) / len(durations)
        assert share == pytest.approx(1 / k, abs=0.01)
    assert max(durations) == 100


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_is_of_steps_however_long_actions_last(share: float) -> None:
    random.seed(1)
    repeated = Repeated()
    rows = [repeated.next(3, share, lambda: 7) for _ in range(60_000)]
    for copy in range(3):
        taken = [row[copy] for row in rows]
        assert taken.count(7) / len(taken) == pytest.approx(share, rel=0.15)
        assert set(taken) == {None, 7}


def test_what_has_begun_is_finished_and_nothing_begins_without_a_share() -> None:
    repeated = Repeated()
    assert repeated.next(2, 0.0, lambda: 1) == [None, None]
    repeated.left, repeated.action = [3, 0], [5, None]
    after = [repeated.next(2, 0.0, lambda: 1) for _ in range(3)]
    assert after == [[5, None], [5, None], [None, None]]


def test_each_environment_has_actions_of_its_own() -> None:
    random.seed(2)
    repeated = Repeated()
    rows = [repeated.next(2, 1.0, lambda: random.randrange(4)) for _ in range(50)]
    assert any(a != b for a, b in rows)
