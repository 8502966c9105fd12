"""Environments on several devices: each rank acts in its own, and all learn one model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope import CheckpointError, ml
from antelope.agents.policy.advantages import over_ranks
from antelope.launcher.record.checkpoint import Checkpoints, read
from antelope.replay import Normalizer
from antelope.replay.ranks import Ranks, joined

from .environments_on_ranks import AGENTS, SHARED

SCRIPT = Path(__file__).with_name("environments_on_ranks.py")


class Two(Ranks):
    """Rank 0 of two in environments; `theirs` is what the other one answers."""

    world, several, own = 2, True, True

    def __init__(self, theirs: Any):
        self.theirs = theirs

    def objects(self, value: Any) -> list[Any]:
        return [value, self.theirs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both ranks have learnt."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [[sys.executable, str(SCRIPT), str(rank), str(folder)] for rank in (0, 1)]
    root = SCRIPT.parents[2]
    ranks = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, cwd=root) for each in words]
    said = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def states(folder: Path, which: int = 0) -> list[dict[str, Any]]:
    """Both ranks' parts of a checkpoint of a run, the newest or another."""
    path = Checkpoints(folder / "checkpoints").numbered()[which]
    return [read(path), read(path.parent / "rank-1" / path.name)]


@pytest.mark.parametrize("agent", AGENTS)
class TestTwoRanks:
    def test_have_the_same_weights(self, found: list[dict[str, Any]], agent: str) -> None:
        first, second = (each[agent] for each in found)
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_act_in_different_episodes(self, folder: Path, agent: str) -> None:
        in_mid_task = states(folder / f"{agent}-2", -1)
        first, second = (state["environment"]["task"]["obs"] for state in in_mid_task)
        assert not np.array_equal(first, second)

    def test_count_the_steps_of_all_environments(self, folder: Path, agent: str) -> None:
        for state in states(folder / agent):
            taken = state["replay"]["transitions"]["time"].sum()
            # Each episode's last observation has a row of its own.
            assert state["progress"]["step"] in (260, 264)
            assert 120 <= taken <= 150

    def test_share_their_running_statistics(self, folder: Path, agent: str) -> None:
        first, second = (state["normalizer"]["moments"]["obs/"] for state in states(folder / agent))
        assert first["count"] == second["count"] > 128
        assert np.array_equal(first["mean"], second["mean"])

    def test_stopped_by_a_signal_at_one_and_resumed_end_with_the_same_bits(
        self, found: list[dict[str, Any]], folder: Path, agent: str
    ) -> None:
        for each in found:
            assert "error" in each[f"{agent} stopped"]
            weights = each[f"{agent} resumed"]
            assert all(torch.equal(weights[key], value) for key, value in each[agent].items())
        for name in ("train.csv", "eval.csv"):
            assert (folder / agent / name).read_bytes() == (
                folder / f"{agent}-2" / name
            ).read_bytes()

    def test_are_not_resumed_as_one(self, folder: Path, agent: str) -> None:
        with pytest.raises(CheckpointError, match="Resume with devices=2"):
            ml(path=folder / agent, **{**SHARED, **AGENTS[agent]}, resume=True, progress=False)


def test_statistics_that_ranks_cannot_share_are_refused(found: list[dict[str, Any]]) -> None:
    assert "set normalize_obs=true" in found[0]["statistics of its own"]["error"]


def test_a_checkpoint_without_a_ranks_part_is_passed_over(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints"
    shutil.copytree(folder / "DQN-2" / "checkpoints", kept)
    newest, *_ = numbered = Checkpoints(kept).numbered()
    assert len(numbered) > 1
    missing = f"{newest} is not a complete checkpoint"
    place = Two(missing)
    place.by_first = lambda work: work()  # type: ignore[method-assign]
    with joined(place):
        state, problems = Checkpoints(kept).newest()
    assert state is None
    assert problems[0] == f"{missing} (rank 1)"


class TestStatistics:
    def test_are_those_of_what_all_ranks_have_seen(self) -> None:
        rows = np.random.default_rng(0).normal(1e6, 2.0, (40, 3))
        kind: dict[str, Any] = {"num_envs": 4, "discount": 0.9, "obs": True, "reward": True}
        mine, theirs, whole = (Normalizer({"": (3,)}, **kind) for _ in range(3))
        whole.see(rows)
        with joined(Two(None)):
            for part in rows[1::2].reshape(5, 4, 3):
                theirs.see(part)
        with joined(Two(theirs.state_dict()["since"])):
            for part in rows[::2].reshape(5, 4, 3):
                mine.see(part)
            assert mine.moments[""].count == 0  # Until all ranks know it.
            mine.merge()
        assert mine.moments[""].count == 40
        assert np.allclose(mine.moments[""].mean, whole.moments[""].mean, rtol=1e-12)
        assert np.allclose(mine.moments[""].variance, whole.moments[""].variance, rtol=1e-9)

    def test_that_wait_for_the_others_are_kept(self) -> None:
        kind: dict[str, Any] = {"num_envs": 4, "discount": 0.9, "obs": True, "reward": False}
        one, twin = (Normalizer({"": (2,)}, **kind) for _ in range(2))
        with joined(Two({})):
            one.see(np.arange(8.0).reshape(4, 2))
            twin.load_state_dict(one.state_dict())
            for each in (one, twin):
                each.merge()
        assert np.array_equal(one.moments[""].mean, twin.moments[""].mean)
        assert twin.moments[""].count == 4


def test_advantages_are_normalised_over_all_ranks() -> None:
    advantage = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    mine, theirs = advantage[:3], advantage[3:]
    sums = [2, float(theirs.sum()), float(theirs.square().sum()), 7]
    with joined(Two(sums)):
        std, mean, steps, rows = over_ranks(mine, 9)
    assert (float(mean), steps, rows) == (pytest.approx(6.2), 5, 7)
    assert float(std) == pytest.approx(float(advantage.std(correction=0)))


def test_every_rank_starts_processes_for_its_environments(tmp_path: Path) -> None:
    words = ["env=CartPole-v1", "agent=DQN", "devices=2", "device=cpu", "vectorization=async"]
    words += ["num_envs=2", "seed_steps=8", "train_steps=16", "plot=false", "progress=false"]
    command = [sys.executable, "-m", "antelope", *words, f"path={tmp_path / 'run'}"]
    # Those of a rank that is started inherit its standard input, which another thread reads.
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
