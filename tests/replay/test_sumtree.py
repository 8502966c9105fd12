"""`SumTree` finds what a search of the whole cumulative sum would find."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import sumtree
from antelope.replay.sumtree import SumTree

tops = st.sampled_from([1, 3, 20, 4096])  # The fewer nodes at the top, the more levels below it.


def tree_of(priority: list[float] | np.ndarray, top: int = 4096) -> SumTree:
    with mock.patch.object(sumtree, "_TOP", top):
        tree = SumTree(len(priority))
    tree.load(np.asarray(priority))
    return tree


def sums(tree: SumTree) -> list[list[float]]:
    return [level.ravel().tolist() for level in (*tree._levels, tree._top)]


# By seed: lists that hypothesis makes are too short to have several levels.
cases = {"size": st.integers(1, 600), "seed": st.integers(0, 10**6), "top": tops}


@given(**cases)
def test_finds_what_a_search_of_the_cumulative_sum_finds(size: int, seed: int, top: int) -> None:
    # Whole numbers add up exactly, so that every answer is exact.
    priority = np.random.default_rng(seed).integers(0, 4, size)
    priority[seed % size] = 2
    tree = tree_of(priority, top)
    assert tree.total == priority.sum()
    mass = np.arange(0, priority.sum(), 0.5)
    expected = np.searchsorted(np.cumsum(priority), mass, side="right")
    assert tree.find(mass).tolist() == expected.tolist()


def test_rows_by_hand() -> None:
    tree = SumTree(5)
    tree.set(np.array([1, 3, 4]), np.array([2.0, 1.0, 0.5]))
    assert tree.total == 3.5
    assert tree.find(np.array([0.0, 1.9, 2.0, 2.9, 3.0, 3.4])).tolist() == [1, 1, 3, 3, 4, 4]
    assert tree.get(np.array([4, 0, 1])).tolist() == [0.5, 0.0, 2.0]
    assert tree.leaves.tolist() == [0.0, 2.0, 0.0, 1.0, 0.5]
    assert tree.find(np.array([3.4])).dtype == np.int64


@given(**cases)
def test_rows_without_priority_are_never_found(size: int, seed: int, top: int) -> None:
    # Any magnitudes, many zeros: sums in different orders differ in their last bits.
    random = np.random.default_rng(seed)
    priority = random.random(size) * random.choice([0, 0, 1, 1, 1e-9, 5e-324], size)
    priority[seed % size] = random.random() + 0.1
    tree = tree_of(priority, top)
    # Both sides of every step of the sum, its very ends included.
    edges = np.cumsum(priority)
    mass = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, np.inf)])
    mass = np.append(np.minimum(mass, tree.total), [0.0, tree.total, np.nextafter(tree.total, 0)])
    found = tree.find(mass)
    assert found.min() >= 0
    assert found.max() < size
    assert tree.get(found).min() > 0
    # And what is found is where it should be, but for rounding.
    slack = 1e-12 * tree.total
    assert (edges[found] >= mass - slack).all()
    assert (edges[found] - priority[found] <= mass + slack).all()


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 257, 4097, 65537, 70_000])
def test_any_size(size: int) -> None:
    tree = tree_of(np.ones(size))
    assert tree.total == size
    every = np.arange(size)
    assert np.array_equal(tree.find(every + 0.5), every)
    tree.set(every, np.zeros(size))
    assert tree.total == 0
    tree.set(every[-1:], np.array([0.3]))
    assert tree.find(np.array([0.0, 0.2, 0.3])).tolist() == [size - 1] * 3


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1e3)), min_size=1), tops)
def test_the_last_of_duplicates_holds(changes: list[tuple[int, float]], top: int) -> None:
    tree = tree_of(np.full(100, 0.1), top)
    expected = np.full(100, 0.1)
    for index, priority in changes:
        expected[index] = priority
    tree.set(*(np.array(column) for column in zip(*changes, strict=True)))
    assert np.array_equal(tree.leaves, expected)
    assert sums(tree) == sums(tree_of(expected, top))


def test_updates_leave_exactly_the_sums_that_a_new_tree_has() -> None:
    random = np.random.default_rng(0)
    tree = SumTree(70_000)
    for scale in 10.0 ** random.integers(-12, 12, 300):
        tree.set(random.integers(70_000, size=256), random.random(256) * scale)
    # To the bit: nothing drifts, and a restored run draws what the saved one would have drawn.
    assert sums(tree) == sums(tree_of(tree.leaves))


def test_leaves_are_not_to_be_written() -> None:
    tree = tree_of([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        tree.leaves[0] = 5
    tree.set(np.array([0]), np.array([5.0]))
    assert tree.total == 7


def test_rows_are_found_in_proportion_to_their_priorities() -> None:
    random = np.random.default_rng(0)
    priority = random.random(50) * (random.random(50) < 0.7)
    tree = tree_of(priority, top=3)
    draws = 200_000
    found = np.bincount(tree.find(random.random(draws) * tree.total), minlength=50)
    alive = priority > 0
    expected = draws * priority[alive] / priority.sum()
    assert found[~alive].sum() == 0
    # Chi-square: mean k, variance 2k for k degrees of freedom; five deviations.
    degrees = alive.sum() - 1
    chi_square = ((found[alive] - expected) ** 2 / expected).sum()
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)
