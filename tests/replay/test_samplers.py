"""`Epochs` visits every row once per pass and continues exactly from anywhere."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay.samplers import Epochs, batch_sizes


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


def test_sample_draws_from_the_index_without_moving_the_pass() -> None:
    sampler, untouched = epochs(6, 4), epochs(6, 4)
    drawn = sampler.sample(200, torch.Generator().manual_seed(3))
    assert set(drawn.tolist()) == {5, 8, 11, 14, 17, 20}
    assert [sampler.next().tolist() for _ in range(5)] == [
        untouched.next().tolist() for _ in range(5)
    ]
