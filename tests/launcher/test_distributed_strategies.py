"""Sequences on several devices: every strategy does what it does on one."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from antelope import Batch, ConfigError, Memory
from antelope.replay.ranks import Group, joined

from .strategies_on_ranks import RUNS

Weights = dict[str, dict[str, Tensor]]
SCRIPT = Path(__file__).with_name("strategies_on_ranks.py")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """The weights of all runs, by rank: alone, and as ranks 0 and 1 of two."""
    folder = tmp_path_factory.mktemp("ranks")
    places = [(0, 1), (0, 2), (1, 2)]
    words = [[sys.executable, str(SCRIPT), str(r), str(world), str(folder)] for r, world in places]
    root = SCRIPT.parents[2]
    ranks = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, cwd=root) for each in words]
    said = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], "\n".join(said)
    return {f"{r} of {n}": torch.load(folder / f"{r}-of-{n}.pt") for r, n in places}


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_learn_what_one_does(learnt: dict[str, Weights], name: str) -> None:
    alone, first, second = (found[name] for found in learnt.values())
    for key, weight in alone.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(first[key], weight, rtol=0, atol=1e-6), (
            key,
            float((first[key] - weight).abs().max()),
        )


class TestMemory:
    @pytest.fixture
    def place(self, memory: Memory) -> Iterator[Group]:
        """Rank 1 of 2, in a learning step on a batch of 8 rows."""
        place = Group(1, 2)
        with joined(place), place.apart():
            place.drawn(8)
            yield place

    @pytest.fixture
    def memory(self) -> Memory:
        memory = Memory(20, seed=0)
        memory.add(Batch(obs=torch.arange(20.0)))
        return memory

    def test_a_rank_gets_its_part_of_the_rows_drawn(self, memory: Memory, place: Group) -> None:
        twin = copy.deepcopy(memory)
        part = memory.sample(8).obs
        with place.together():
            assert part.tolist() == twin.sample(8).obs[1::2].tolist()

    def test_rows_that_cannot_be_divided_alike_are_every_ranks(
        self, memory: Memory, place: Group
    ) -> None:
        assert len(memory.sample(7).obs) == 7

    def test_a_number_that_may_mean_the_part_of_the_batch_is_refused(
        self, memory: Memory, place: Group
    ) -> None:
        with pytest.raises(ConfigError, match=r"n=self\.context\.rows\(batch\)"):
            memory.sample(4)
        assert len(memory.sample(4, whole=True).obs) == 2

    def test_outside_of_learning_all_rows_are_every_ranks(
        self, memory: Memory, place: Group
    ) -> None:
        with place.together():
            assert len(memory.sample(8).obs) == 8
