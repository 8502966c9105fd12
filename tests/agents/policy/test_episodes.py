"""A rollout cut where episodes begin."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.agents.policy.episodes import segments
from antelope.replay import Batch


def rollout(is_first: list[list[int]], mask: list[list[int]]) -> Batch:
    """A rollout `[T, N]` given environment by environment."""
    return Batch(
        is_first=torch.tensor(is_first, dtype=torch.bool).T,
        mask=torch.tensor(mask, dtype=torch.bool).T,
    )


def test_a_segment_ends_where_the_next_episode_begins() -> None:
    # Two environments, four steps: the second began anew at step 2, and has three steps only.
    cut = segments(rollout([[1, 0, 0, 0], [0, 0, 1, 1]], [[1, 1, 1, 1], [1, 1, 1, 0]]))
    steps = torch.arange(8).reshape(4, 2)  # [T, N]: t * 2 + e
    taken = [row[kept].tolist() for row, kept in zip(cut.take(steps), cut.mask, strict=True)]
    assert taken == [[0, 2, 4, 6], [1, 3], [5]]
    # The first begins an episode, the second goes on with environment 1's state.
    assert cut.first.tolist() == [-1, 1, -1]


def test_a_short_segment_repeats_its_last_step() -> None:
    cut = segments(rollout([[1, 0, 0], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]))
    steps = torch.arange(6).reshape(3, 2)
    assert cut.take(steps).tolist() == [[0, 2, 4], [1, 1, 1], [3, 5, 5]]


def test_the_observation_after_a_segment_is_its_own_last_next_one() -> None:
    cut = segments(rollout([[1, 0, 1], [0, 0, 0]], [[1, 1, 1], [1, 1, 0]]))
    obs = torch.arange(6.0).reshape(3, 2, 1)
    extended = cut.with_last({"a": obs}, {"a": obs + 100})["a"].squeeze(-1)
    ends = cut.mask.sum(1)
    assert extended[torch.arange(3), ends].tolist() == [102, 104, 103]
    assert extended[0, :2].tolist() == [0, 2]


@given(st.data())
def test_every_step_is_in_one_segment_and_comes_back_to_its_place(data: st.DataObject) -> None:
    steps, copies = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    first = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=steps * copies, max_size=steps * copies))
    ).reshape(steps, copies)
    taken = torch.tensor(
        data.draw(st.lists(st.integers(1, steps), min_size=copies, max_size=copies))
    )
    mask = torch.arange(steps)[:, None] < taken
    cut = segments(Batch(is_first=first, mask=mask))
    places = cut.index[cut.mask]
    assert sorted(places.tolist()) == mask.flatten().nonzero().squeeze(1).tolist()
    field = torch.randn(steps, copies)
    assert torch.equal(cut.back(cut.take(field)), torch.where(mask, field, 0))
    # No episode begins inside a segment.
    inside = cut.take(first)[:, 1:] & cut.mask[:, 1:]
    assert not inside.any()
