"""Samplers: every row once per pass, or in proportion to priorities; continued exactly."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antelope.replay import ConfigError, Prioritized, Space, Spec, Transitions, samplers
from antelope.replay.samplers import Epochs, batch_sizes
from antelope.replay.shuffled import Shuffled


def epochs(rows: int, batch_size: int, seed: int = 0) -> Epochs:
    # Rows are not 0, 1, 2, ...: a task's index set is any part of the table.
    generator = torch.Generator().manual_seed(seed)
    return Epochs(torch.arange(rows) * 3 + 5, batch_size=batch_size, generator=generator)


sizes = {"rows": st.integers(1, 40), "batch_size": st.integers(1, 12)}


@given(**sizes)
def test_batch_sizes_add_up_and_fit(rows: int, batch_size: int) -> None:
    found = batch_sizes(rows, batch_size)
    assert sum(found) == rows
    assert max(found) <= batch_size
    assert len(found) == -(-rows // batch_size)


@given(**sizes)
@pytest.mark.row(23)
def test_no_batch_of_one_where_another_row_can_be_borrowed(rows: int, batch_size: int) -> None:
    if batch_size > 2 and rows > 1:
        assert min(batch_sizes(rows, batch_size)) >= 2


@pytest.mark.parametrize(
    ("rows", "batch_size", "expected"),
    [(129, 64, [64, 63, 2]), (10, 4, [4, 4, 2]), (4, 3, [2, 2]), (1, 64, [1]), (3, 2, [2, 1])],
)
def test_batch_sizes_by_hand(rows: int, batch_size: int, expected: list[int]) -> None:
    assert batch_sizes(rows, batch_size) == expected


@given(**sizes, seed=st.integers(0, 5))
def test_each_pass_visits_every_row_exactly_once(rows: int, batch_size: int, seed: int) -> None:
    sampler = epochs(rows, batch_size, seed)
    for epoch in range(3):
        batches = [sampler.next() for _ in range(len(sampler))]
        assert [len(batch) for batch in batches] == batch_sizes(rows, batch_size)
        assert sorted(torch.cat(batches).tolist()) == [3 * i + 5 for i in range(rows)]
        assert (sampler.epoch, sampler.passes) == (epoch, epoch + 1)


def test_epoch_and_passes_in_mid_pass() -> None:
    sampler = epochs(10, 4)
    seen = [(sampler.epoch, sampler.passes)]
    for _ in range(4):
        sampler.next()
        seen.append((sampler.epoch, sampler.passes))
    assert seen == [(0, 0), (0, 0), (0, 0), (0, 1), (1, 1)]


def test_order_differs_between_passes_and_seeds() -> None:
    sampler = epochs(100, 100)
    first, second = sampler.next().tolist(), sampler.next().tolist()
    assert first != second
    assert first != epochs(100, 100, seed=1).next().tolist()
    assert first == epochs(100, 100).next().tolist()


def test_first_row_is_any_row_equally_often() -> None:
    sampler = epochs(4, 4)
    counts = torch.bincount(torch.stack([sampler.next()[0] for _ in range(4000)]), minlength=15)
    # 1000 expected each; the standard deviation is sqrt(4000 * 1/4 * 3/4) = 27.
    assert all(abs(int(counts[row]) - 1000) < 135 for row in (5, 8, 11, 14))


@given(**sizes, before=st.integers(0, 12), after=st.integers(1, 12))
def test_continues_identically_from_any_position(
    rows: int, batch_size: int, before: int, after: int
) -> None:
    sampler, resumed = epochs(rows, batch_size), epochs(rows, batch_size, seed=99)
    for _ in range(before):
        sampler.next()
    state = copy.deepcopy(sampler.state_dict())
    # Loading draws the order again, which leaves the generator where the saved one was.
    resumed.load_state_dict(state)
    for _ in range(after):
        assert torch.equal(sampler.next(), resumed.next())
        assert (sampler.epoch, sampler.passes) == (resumed.epoch, resumed.passes)


class TestManyRows:
    """The order of many rows is computed a part at a time; here that is more than 20, and parts of 8."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(samplers, "_MANY", 20)
        monkeypatch.setattr(samplers, "_PART", 8)

    @pytest.mark.parametrize(
        ("rows", "batch_size"), [(21, 4), (32, 4), (33, 4), (34, 16), (41, 5), (65, 64), (22, 30)]
    )
    @pytest.mark.parametrize("neighbours", [True, False])
    def test_each_pass_visits_every_row_exactly_once(
        self, rows: int, batch_size: int, neighbours: bool
    ) -> None:
        index = torch.arange(rows) * (1 if neighbours else 3) + 5
        generator = torch.Generator().manual_seed(0)
        sampler = Epochs(index, batch_size=batch_size, generator=generator, task=index % 7)
        orders = []
        for epoch in range(3):
            batches = []
            for _ in range(len(sampler)):
                expected = sampler.peek()
                batches.append(sampler.next())
                assert expected is None or expected is batches[-1]
                assert torch.equal(sampler.tasks(), batches[-1] % 7)
            assert [len(batch) for batch in batches] == batch_sizes(rows, batch_size)
            orders.append(torch.cat(batches))
            assert torch.equal(orders[-1].sort().values, index)
            assert (sampler.epoch, sampler.passes) == (epoch, epoch + 1)
        assert not torch.equal(orders[0], orders[1])

    @pytest.mark.parametrize("before", [0, 1, 2, 3, 10, 11, 12])
    def test_continues_identically_from_any_position(self, before: int) -> None:
        sampler, resumed = epochs(41, 4), epochs(41, 4, seed=99)
        for _ in range(before):
            sampler.next()
        resumed.load_state_dict(copy.deepcopy(sampler.state_dict()))
        for _ in range(25):
            assert torch.equal(sampler.next(), resumed.next())

    def test_a_pass_that_an_earlier_version_began_ends_in_its_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(samplers, "_MANY", 100)
            earlier = epochs(41, 4)
            earlier.next()
            state = earlier.state_dict()
            rest = [earlier.next() for _ in range(10)]
        resumed = epochs(41, 4, seed=99)
        resumed.load_state_dict(state)
        assert all(torch.equal(resumed.next(), batch) for batch in rest)
        later = torch.cat([resumed.next() for _ in range(11)])
        assert torch.equal(later.sort().values, torch.arange(41) * 3 + 5)

    def test_a_row_is_anywhere_and_beside_any_other_equally_often(self) -> None:
        generator, n, orders = torch.Generator().manual_seed(0), 100, 2000
        places = torch.stack([Shuffled(n, generator).rows(0, n).argsort() for _ in range(orders)])
        # Neighbours, and rows that share a digit.
        for row, other in ((0, 1), (0, 10), (47, 57), (98, 99)):
            pairs = places[:, row] // 20 * 5 + places[:, other] // 20
            counts = torch.bincount(pairs, minlength=25).double()
            # Of 100 * 99 pairs of places, 400 are in two given fifths, 380 in the same one.
            expected = torch.full((5, 5), 400.0) - 20 * torch.eye(5)
            expected = (expected / 9900 * orders).flatten()
            # 24 degrees of freedom: above 52 in 0.1 % of uniform orders.
            assert float(((counts - expected) ** 2 / expected).sum()) < 52


def test_sample_draws_from_the_index_without_moving_the_pass() -> None:
    sampler, untouched = epochs(6, 4), epochs(6, 4)
    drawn, tasks = sampler.sample(200, torch.Generator().manual_seed(3))
    assert set(drawn.tolist()) == {5, 8, 11, 14, 17, 20}
    assert tasks.tolist() == [0] * 200
    assert [sampler.next().tolist() for _ in range(5)] == [
        untouched.next().tolist() for _ in range(5)
    ]


# ------------------------------------------------------------------------------- prioritised


SPEC = Spec(Space((1,)), Space((2,), torch.int64, discrete=True))


def ring_of(capacity: int, steps: int = 0, **options: Any) -> Transitions:
    ring = Transitions(SPEC, capacity=capacity, num_envs=1, discount=0.9, **options)
    ring.start(np.zeros((1, 1), np.float32))
    extend(ring, steps)
    return ring


def extend(ring: Transitions, steps: int, *, ends: bool = False) -> None:
    for _ in range(steps):
        end = np.array([ends])
        fields = {
            "action": np.array([0]),
            "reward": np.ones(1),
            "terminated": end,
            "truncated": ~end & False,
            "next_obs": np.zeros((1, 1)),
        }
        ring.add(fields, began=end, first=np.zeros((1, 1)))


def prioritized(
    ring: Transitions, batch_size: int = 16, seed: int = 0, **options: Any
) -> Prioritized:
    generator = torch.Generator().manual_seed(seed)
    return Prioritized(ring, batch_size=batch_size, generator=generator, **options)


def priorities(sampler: Prioritized) -> np.ndarray:
    return sampler.state_dict()["leaves"]


def test_new_transitions_have_the_highest_priority_so_far() -> None:
    ring = ring_of(10)
    sampler = prioritized(ring, alpha=0.5)
    extend(ring, 3)
    sampler.update(np.array([2]), np.array([0.25]))  # Even if it has not been drawn yet.
    assert priorities(sampler)[:5] == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-5)
    sampler.update(np.array([0, 1]), np.array([4.0, 0.25]))
    extend(ring, 1)
    assert priorities(sampler)[:5] == pytest.approx([2, 0.5, 0.5, 2, 0], abs=1e-5)
    sampler.update(np.array([0]), np.array([0.01]))
    extend(ring, 1)  # The highest there has ever been, not the highest of now.
    assert priorities(sampler)[:6] == pytest.approx([0.1, 0.5, 0.5, 2, 2, 0], abs=1e-4)


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 3), st.integers(1, 3))
def test_only_what_can_be_drawn_has_a_priority(
    seed: int, capacity: int, nstep: int, stack: int
) -> None:
    random = np.random.default_rng(seed)
    ring = ring_of(capacity, nstep=nstep, stack=stack)
    sampler = prioritized(ring)
    expected = np.zeros(ring.size)
    highest, alpha = 1.0, sampler.alpha
    for _ in range(40):
        for _ in range(random.integers(1, 8)):
            before = ring.drawable.copy()
            extend(ring, 1, ends=bool(random.random() < 0.2))
            expected[ring.drawable & ~before] = highest
            expected[~ring.drawable] = 0
        if random.random() < 0.3 and len(ring):
            batch = sampler.next()
            assert ring.drawable[batch].all()
            new = random.random(len(batch)) * 3
            sampler.update(batch, new)
            for row, priority in zip(batch, (new + 1e-6) ** alpha, strict=True):
                expected[row] = priority
            highest = max(highest, float(((new + 1e-6) ** alpha).max()))
        if random.random() < 0.3:
            np.testing.assert_allclose(priorities(sampler), expected)
    np.testing.assert_allclose(priorities(sampler), expected)


def test_overwritten_rows_keep_what_their_new_transitions_have() -> None:
    ring = ring_of(10, 11)
    sampler = prioritized(ring)
    extend(ring, 11)
    batch = sampler.next()
    extend(ring, 6)
    replaced = np.isin(batch, (22 + np.arange(6)) % 11)
    assert 0 < replaced.sum() < len(batch)
    sampler.update(batch, np.full(len(batch), 9.0))
    assert (priorities(sampler)[batch[replaced & ring.drawable[batch]]] == 1).all()
    assert (priorities(sampler)[batch[~replaced & ring.drawable[batch]]] > 3).all()
    assert (priorities(sampler)[~ring.drawable] == 0).all()
    # The same of rows that `sample` drew.
    rows = sampler.sample(20, torch.Generator())
    sampler.update(rows, np.zeros(20))
    assert (priorities(sampler)[rows] < 1e-3).all()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_rows_are_drawn_in_proportion_to_their_priorities(alpha: float) -> None:
    ring = ring_of(40)
    extend(ring, 30)
    sampler = prioritized(ring, batch_size=64, alpha=alpha)
    priority = np.random.default_rng(0).random(30) * 5
    sampler.update(np.arange(30), priority)
    draws = np.concatenate([sampler.next() for _ in range(500)])
    chance = priority**alpha / (priority**alpha).sum()
    expected = len(draws) * chance
    # Chi-square: mean k, variance 2k for k degrees of freedom; five deviations.
    chi_square = ((np.bincount(draws, minlength=30) - expected) ** 2 / expected).sum()
    assert chi_square < 29 + 5 * np.sqrt(2 * 29)


def test_weights_undo_what_beta_says_and_beta_rises_to_one() -> None:
    ring = ring_of(40)
    extend(ring, 30)
    sampler = prioritized(ring, alpha=0.7, beta=0.4, anneal=4)
    priority = np.random.default_rng(0).random(30) + 0.1
    sampler.update(np.arange(30), priority)
    chance = priority**0.7 / (priority**0.7).sum()
    for beta in (0.55, 0.7, 0.85, 1.0, 1.0):
        batch = sampler.next()
        weights = (30 * chance[batch]) ** -beta
        np.testing.assert_allclose(sampler.weights, weights / weights.max(), rtol=1e-4)
        assert sampler.weights.dtype == torch.float32


def test_no_priority_is_without_a_chance() -> None:
    ring = ring_of(10)
    extend(ring, 5)
    sampler = prioritized(ring, batch_size=200)
    sampler.update(np.arange(5), np.zeros(5))
    assert set(sampler.next().tolist()) == set(range(5))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_priorities_that_are_no_numbers_are_refused(wrong: float) -> None:
    ring = ring_of(10, 5)
    with pytest.raises(ConfigError, match="NaN or infinite"):
        prioritized(ring).update(np.array([0, 1]), np.array([1.0, wrong]))


def test_nothing_to_draw_says_so() -> None:
    with pytest.raises(ConfigError, match="raise seed_steps"):
        prioritized(ring_of(10)).next()


def test_a_ring_that_is_already_filled_is_drawn_from() -> None:
    ring = ring_of(10, 25)
    sampler = prioritized(ring, batch_size=300)
    assert set(sampler.next().tolist()) == set(np.flatnonzero(ring.drawable).tolist())


def test_changes_that_nobody_asks_for_do_not_pile_up() -> None:
    ring = ring_of(50)
    sampler = prioritized(ring)
    extend(ring, 5000)
    assert ring.changes is not None
    assert len(ring.changes) < 4200
    assert ((priorities(sampler) > 0) == ring.drawable).all()


def test_prioritised_draws_continue_exactly() -> None:
    ring = ring_of(40)
    sampler = prioritized(ring)
    extend(ring, 30)
    sampler.update(sampler.next(), np.random.default_rng(0).random(16) * 9)
    extend(ring, 3)  # Not yet known to the sampler.
    state, kept = copy.deepcopy(sampler.state_dict()), copy.deepcopy(ring.state_dict())
    other = ring_of(40)
    resumed = prioritized(other, seed=9)
    other.load_state_dict(kept)
    resumed.load_state_dict(state)
    for _ in range(20):
        batch = sampler.next()
        assert np.array_equal(batch, resumed.next())
        assert torch.equal(sampler.weights, resumed.weights)
        sampler.update(batch, np.arange(16) / 7)
        resumed.update(batch, np.arange(16) / 7)
        extend(ring, 2)
        extend(other, 2)
    assert np.array_equal(priorities(sampler), priorities(resumed))
