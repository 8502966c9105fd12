"""Runs in environments through the public interface: what a run carries on, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces
from torch import Tensor, nn

from antelope import ConfigError, Run, ml
from antelope.launcher.record import saving as keeping
from antelope.replay import Observations, Space

pytestmark = pytest.mark.usefixtures("workdir")


def run(*words: str, **settings: Any) -> Run:
    shared: dict[str, Any] = {
        **{"env": "CartPole-v1", "train_steps": 120, "seed_steps": 40, "eval_episodes": 1},
        **{"plot": False, "progress": False},
    }
    return ml(*words, **shared | settings)


class Remembers(nn.Module):
    """Counts the steps of each episode, in its state and in an extra."""

    def __init__(self, action_spec: Space):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.n = action_spec.n

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = obs.new_zeros(len(obs), 1) if state is None else state
        return self.weight + obs.new_zeros(len(obs), self.n), count + 1

    def act(self, obs: Tensor, state: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        action = (state[:, 0].long() // 2) % 2
        return action, {"count": state[:, 0]}, self(obs, state)[1]

    def learn(self, replay: Any) -> None:
        pass


class Forgets(Remembers):
    def act(self, obs: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros(len(obs), dtype=torch.int64)


def test_an_act_of_ones_own_carries_the_state() -> None:
    replay = run(model=Remembers, num_envs=2, seed_steps=1000).replay
    batch = replay.sample(64)
    assert batch.count.shape == (64, 16)
    counts, mask = batch.count, batch.mask
    torch.testing.assert_close(batch.state, counts[:, :1])  # Stored: that before the sequence.
    assert (counts[batch.is_first & mask] == 0).all()
    steps = (counts[:, 1:] - counts[:, :-1])[mask[:, 1:]]
    assert (steps == 1).all()
    assert counts.max() > 3


def test_a_rollout_of_a_recurrent_model_begins_with_one_state_each() -> None:
    replay = run(model=Remembers, num_envs=2, seed_steps=1000).replay
    rollout = replay.rollout()
    assert rollout.state.shape == (2, 1)
    assert rollout.is_first[0].all()
    assert (rollout.count[rollout.is_first] == 0).all()


def test_an_act_without_the_state_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"Forgets.forward carries a state, and .*act\(self, obs, state\)"
    ):
        run(model=Forgets)


@pytest.mark.parametrize("words", ["time_limit=20", "action_repeat=2", "discrete=false"])
def test_a_vector_form_refuses_what_goes_around_single_environments(words: str) -> None:
    if words == "discrete=false":
        words += " agent=SAC"
    with pytest.raises(ConfigError, match="this one is a vector"):
        run(
            "vectorization=vector_entry_point",
            *words.split(),
            **{} if "SAC" in words else {"agent": "DQN"},
        )


def test_running_statistics_go_on_where_a_finished_run_is_continued() -> None:
    settings = {"agent": "DQN", "normalize_obs": True, "normalize_reward": True}
    first = run(**settings).replay.transform.normalizer
    before = first.moments[""].count, first.returns.count
    again = run(**settings, train_steps=240, resume=True).replay.transform.normalizer
    assert (again.moments[""].count, again.returns.count) == (before[0] + 121, before[1] + 120)


@pytest.mark.parametrize(("agent", "said"), [("PPO", True), ("DQN", False)])
def test_a_setting_of_the_optimiser_that_nobody_reads_is_named(
    agent: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run(agent=agent, lr=1e-3, seed_steps=0, progress=True)
    output = " ".join("".join(capsys.readouterr()).split())
    assert (f"`lr` had no effect: {agent} updates itself" in output) is said


def test_a_slow_save_is_followed_by_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    saves: list[float] = []
    now = [0.0]
    monkeypatch.setattr(keeping.time, "monotonic", lambda: now[0])
    save = keeping.Checkpoints.save

    def slow(self: Any, state: Any, **more: Any) -> Any:
        saves.append(now[0])
        now[0] += 10.0  # 10 s: the next one is 200 s later, not 60.
        return save(self, state, **more)

    monkeypatch.setattr(keeping.Checkpoints, "save", slow)

    class Model(nn.Module):
        def act(self, obs: Tensor) -> Tensor:
            now[0] += 1.0
            return torch.zeros(len(obs), dtype=torch.int64)

    run(model=Model, train_steps=700, eval_every=10**6)
    in_between = np.diff(saves[:-1])  # The last save is the task's end.
    assert saves[0] == pytest.approx(61, abs=3)
    assert len(in_between) >= 2
    assert (in_between > 200).all()


class Board(Env[np.ndarray, np.int64]):
    """Pieces from 0 to 6, as bytes."""

    observation_space = spaces.Box(0, 6, (4,), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.array([0, 2, 4, 6], np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([6, 6, 6, 6], np.uint8), 1.0, True, False, {}


def test_bytes_that_are_no_picture_keep_their_units() -> None:
    replay = run(env=Board, agent="Random").replay
    assert replay.sample(4).obs[0].tolist() == [0, 2, 4, 6]
    pixels = Space((4,), torch.uint8, high=torch.full((4,), 255, dtype=torch.uint8))
    assert Observations(pixels).observe(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [
        0,
        1,
    ]
