"""Blocks that a ring calls unchanged hold what they held before, whatever was done in between."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antelope.replay import Space, Spec, blocks
from antelope.replay.blocks import SavedColumns, changed_blocks
from antelope.replay.transitions import Transitions

SPEC = Spec(Space((70,)), Space((3,), torch.int64, discrete=True))  # A large field, and small ones.


def block_bytes(columns: SavedColumns) -> list[dict[str, bytes]]:
    return [
        {
            name: b"".join(
                part.tobytes() for _, part in columns[name].parts(*columns.bounds(number))
            )
            for name in columns
        }
        for number in range(columns.num_blocks)
    ]


def play(ring: Transitions, steps: int, draw: np.random.Generator) -> None:
    n = ring.num_envs
    for _ in range(steps):
        step: dict[str, Any] = {
            "action": draw.integers(0, 3, n),
            "reward": draw.random(n, np.float32),
            "terminated": draw.random(n) < 0.1,
            "truncated": draw.random(n) < 0.1,
            "next_obs": draw.random((n, 70), np.float32),
        }
        began = step["terminated"] | step["truncated"]
        ring.add(step, began=began, first=draw.random((n, 70), np.float32))


@settings(max_examples=80)
@given(
    seed=st.integers(0, 1000),
    num_envs=st.integers(1, 3),
    nstep=st.integers(1, 3),
    storage=st.sampled_from(["ram", "mmap", "gpu"]),
    per_block=st.integers(1, 9),
    plays=st.lists(st.integers(0, 25), min_size=2, max_size=4),
)
def test_blocks_that_are_called_unchanged_are(
    seed: int, num_envs: int, nstep: int, storage: str, per_block: int, plays: list[int]
) -> None:
    draw = np.random.default_rng(seed)
    made: dict[str, Any] = {"num_envs": num_envs, "discount": 0.9, "nstep": nstep}
    ring = Transitions(SPEC, capacity=20 * num_envs, storage=storage, **made)
    ring.start(draw.random((num_envs, 70), np.float32))
    play(ring, 1, draw)
    # Some 330 bytes a row.
    with mock.patch.multiple(blocks, BLOCK=330 * num_envs * per_block, PART=1000):
        before = ring.state_dict()["columns"]
        marks = [(before.mark, block_bytes(before))]
        for number, steps in enumerate(plays):
            play(ring, steps, draw)
            if number == 1:
                ring.start(draw.random((num_envs, 70), np.float32))  # Cuts episodes off.
            now = ring.state_dict()["columns"]
            there = block_bytes(now)
            for mark, earlier in marks:
                changed = now.changed_since(mark)
                assert changed is not None
                for block, old in enumerate(earlier):
                    assert block in changed or old == there[block]
                assert not set(range(len(earlier), len(there))) - set(changed)
            marks.append((now.mark, there))
        assert now.changed_since("another") is None
        # Continued elsewhere, it knows what it was restored from, and nothing before.
        again = Transitions(SPEC, capacity=20 * num_envs, storage=storage, **made)
        again.load_state_dict(ring.state_dict() | {"columns": now})
        assert block_bytes(again.state_dict()["columns"]) == there
        assert again._changed_since(marks[0][0]) is None
        assert again._changed_since(now.mark) is not None


def test_a_ring_is_written_to_in_few_blocks() -> None:
    assert changed_blocks([5], [3], length=100, block=4) == {0, 1}
    assert changed_blocks([1], [3], length=100, block=4) == {0, 24}
    assert changed_blocks([1, 50], [1, 2], length=100, block=4) == {0, 12}
    assert changed_blocks([7], [500], length=10, block=4) == {0, 1, 2}
    assert changed_blocks([9], [1], length=10, block=4) == {2}


def test_columns_are_copied_and_pickled_as_arrays() -> None:
    array = np.arange(12).reshape(6, 2)
    fields = {"x": ((2,), array.dtype)}
    columns = SavedColumns(fields, 6, lambda name, a, b: array[a:b], block_rows=4)
    for made in (copy.deepcopy(columns), pickle.loads(pickle.dumps(columns))):
        assert type(made) is dict
        np.testing.assert_array_equal(made["x"], array)
    assert (columns.num_blocks, columns.bounds(1), columns.nbytes) == (2, (4, 6), array.nbytes)
    np.testing.assert_array_equal(columns["x"][np.array([1, 5])], array[[1, 5]])
