"""What is drawn from a ring is what happened, whatever episodes, environments and capacity.

The reference is slow and obvious: every observation is a number of its own, and a dict records
which transition each one starts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import ConfigError, Replay, Space, Spec, Transitions, Uniform

SPEC = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))
GAMMA = 0.5


def ring_of(capacity: int, num_envs: int) -> Transitions:
    return Transitions(SPEC, capacity=capacity, num_envs=num_envs, discount=GAMMA)


@dataclass
class Reference:
    """Environments with NEXT_STEP autoreset, and a record of their transitions by first obs."""

    num_envs: int
    truth: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    newest: list[int] = field(default_factory=list)
    count: int = 0

    def number(self) -> int:
        self.count += 1
        return self.count

    def start(self) -> np.ndarray:
        self.obs = [self.number() for _ in range(self.num_envs)]
        self.resetting = [False] * self.num_envs
        return self._array(self.obs)

    def step(self, endings: tuple[str, ...], task: int) -> dict[str, np.ndarray]:
        """One step; `endings` has "t" where an episode terminates, "u" where it is truncated."""
        after = [self.number() for _ in range(self.num_envs)]
        live = [not resetting for resetting in self.resetting]
        ends = [end if alive else "" for end, alive in zip(endings, live, strict=True)]
        rewards = [float(self.number()) for _ in range(self.num_envs)]
        actions = [self.number() for _ in range(self.num_envs)]
        self.newest = [obs for obs, alive in zip(self.obs, live, strict=True) if alive]
        for e in range(self.num_envs):
            if live[e]:
                discount = 0.0 if ends[e] == "t" else GAMMA
                happened = (actions[e], rewards[e], after[e], discount, ends[e], task)
                self.truth[self.obs[e]] = happened
        self.obs, self.resetting = after, [end != "" for end in ends]
        return {
            "action": np.array(actions),
            "reward": np.array(rewards, np.float32),
            "terminated": np.array([end == "t" for end in ends]),
            "truncated": np.array([end == "u" for end in ends]),
            "next_obs": self._array(after),
        }

    def _array(self, numbers: list[int]) -> np.ndarray:
        return np.array(numbers, np.float32)[:, None]


def drawn(ring: Transitions, n: int, seed: int = 0) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """`n` draws as (first obs, what the reference records of it)."""
    generator = torch.Generator().manual_seed(seed)
    rows = ring.gather(Uniform(ring, batch_size=n, generator=generator).next())
    end = ["t" if t else "u" if u else "" for t, u in _lists(rows, "terminated", "truncated")]
    fields = ("obs", "action", "reward", "next_obs", "discount", "task")
    for i, (obs, action, reward, after, discount, task) in enumerate(_lists(rows, *fields)):
        yield int(obs), (action, reward, int(after), discount, end[i], task)


def _lists(rows: dict[str, torch.Tensor], *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].flatten().tolist() for name in names), strict=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[list[tuple[str, ...]]]]:
    """Capacity, environments, and per task the endings of each step."""
    num_envs = draw(st.integers(1, 3))
    capacity = draw(st.integers(1, 20))
    step = st.tuples(*[st.sampled_from(["", "", "t", "u"])] * num_envs)
    tasks = draw(st.lists(st.lists(step, min_size=1, max_size=12), min_size=1, max_size=3))
    return capacity, num_envs, tasks


def play(
    ring: Transitions, reference: Reference, tasks: list[list[tuple[str, ...]]]
) -> Iterator[None]:
    for task, steps in enumerate(tasks):
        ring.start(reference.start())
        for endings in steps:
            ring.add(reference.step(endings, task), task=task)
            yield


@given(histories())
def test_every_draw_is_a_transition_that_happened(
    history: tuple[int, int, list[list[tuple[str, ...]]]],
) -> None:
    capacity, num_envs, tasks = history
    ring, reference = ring_of(capacity, num_envs), Reference(num_envs)
    for _ in play(ring, reference, tasks):
        if ring.count():
            for obs, happened in drawn(ring, 20):
                assert reference.truth[obs] == happened


@given(histories())
def test_the_newest_transitions_can_be_drawn(
    history: tuple[int, int, list[list[tuple[str, ...]]]],
) -> None:
    capacity, num_envs, tasks = history
    ring, reference = ring_of(capacity, num_envs), Reference(num_envs)
    for _ in play(ring, reference, tasks):
        if reference.newest:
            assert set(reference.newest) <= {obs for obs, _ in drawn(ring, 300)}


@given(histories())
def test_nothing_is_lost_before_the_ring_is_full(
    history: tuple[int, int, list[list[tuple[str, ...]]]],
) -> None:
    _, num_envs, tasks = history
    ring, reference = ring_of(200, num_envs), Reference(num_envs)
    for _ in play(ring, reference, tasks):
        assert ring.count() == len(reference.truth)
    assert {obs for obs, _ in drawn(ring, 2000)} == set(reference.truth)


@given(histories(), st.integers(0, 20))
def test_saved_and_loaded_it_continues_exactly(
    history: tuple[int, int, list[list[tuple[str, ...]]]], when: int
) -> None:
    capacity, num_envs, tasks = history
    ring, reference = ring_of(capacity, num_envs), Reference(num_envs)
    other = ring_of(capacity, num_envs)
    other_reference = copy.deepcopy(reference)
    followed = play(other, other_reference, tasks)
    for step, _ in enumerate(play(ring, reference, tasks)):
        next(followed)
        if step == when:  # The other one is thrown away and read back.
            state = copy.deepcopy(ring.state_dict())
            fresh = ring_of(capacity, num_envs)
            fresh.load_state_dict(state)
            other.__dict__.update(fresh.__dict__)
    assert other.count() == ring.count()
    if ring.count():
        assert list(drawn(ring, 50)) == list(drawn(other, 50))


@pytest.mark.parametrize(("end", "discount"), [("t", 0.0), ("u", GAMMA), ("", GAMMA)])
def test_discount_is_zero_only_on_termination(end: str, discount: float) -> None:
    ring, reference = ring_of(10, 1), Reference(1)
    ring.start(reference.start())
    ring.add(reference.step((end,), 0), task=0)
    assert next(drawn(ring, 1))[1][3] == discount


@pytest.mark.parametrize("end", ["t", "u"])
def test_a_task_that_ends_with_an_episode_keeps_its_last_observation(end: str) -> None:
    ring, reference = ring_of(10, 1), Reference(1)
    ring.start(reference.start())
    ring.add(reference.step((end,), 0), task=0)
    (first, (_, _, last, *_)), *_ = reference.truth.items()
    ring.start(reference.start())  # The next task's first observation.
    ring.add(reference.step(("",), 1), task=1)
    assert dict(drawn(ring, 50))[first][2] == last


def test_extras_are_stored_with_their_transition() -> None:
    ring, reference = ring_of(10, 2), Reference(2)
    ring.start(reference.start())
    for step in range(3):
        fields = reference.step(("", ""), 0)
        log_prob = np.array([[step, 10.0], [step, 20.0]], np.float32)
        ring.add({**fields, "log_prob": log_prob}, task=0)
    rows = ring.gather(torch.arange(6))
    assert rows["log_prob"].tolist() == [[s, p] for s in range(3) for p in (10, 20)]


def test_capacity_counts_transitions_over_all_environments() -> None:
    ring, reference = ring_of(6, 3), Reference(3)
    ring.start(reference.start())
    for _ in range(9):
        ring.add(reference.step(("", "", ""), 0), task=0)
    assert ring.count() == 6


def test_draws_are_uniform_over_what_can_be_drawn() -> None:
    ring, reference = ring_of(5, 1), Reference(1)
    ring.start(reference.start())
    for end in ("", "t", "", "", ""):  # The third step only resets: four transitions.
        ring.add(reference.step((end,), 0), task=0)
    counts: dict[int, int] = {}
    for obs, _ in drawn(ring, 4000):
        counts[obs] = counts.get(obs, 0) + 1
    assert len(counts) == 4
    # 1000 expected each; the standard deviation is 27.
    assert all(abs(count - 1000) < 135 for count in counts.values())


def test_a_ring_without_a_transition_says_so_instead_of_searching_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring, reference = ring_of(1, 1), Reference(1)
    ring.start(reference.start())
    ring.add(reference.step(("t",), 0), task=0)
    ring.add(reference.step(("",), 0), task=0)  # Only resets, and was all that the ring held.
    draw, calls = ring.draw, iter(range(1000))

    def counted(n: int, generator: torch.Generator) -> torch.Tensor:
        assert next(calls, None) is not None, "1000 draws, and none was a transition"
        return draw(n, generator)

    monkeypatch.setattr(ring, "draw", counted)
    try:
        found = dict(drawn(ring, 3))
    except ConfigError:
        return
    assert set(found) <= set(reference.truth)


def test_an_empty_ring_says_that_there_is_nothing_yet() -> None:
    replay = Replay(ring_of(4, 1), lambda fields: fields, batch_size=2)
    with pytest.raises(ConfigError):
        replay.sample(1)


def test_a_state_of_another_capacity_is_not_mixed_up() -> None:
    small, reference = ring_of(3, 1), Reference(1)
    ring_start = reference.start()
    small.start(ring_start)
    for _ in range(8):
        small.add(reference.step(("",), 0), task=0)
    large = ring_of(12, 1)
    try:
        large.load_state_dict(copy.deepcopy(small.state_dict()))
    except ConfigError:
        return
    assert all(reference.truth[obs] == happened for obs, happened in drawn(large, 100))
