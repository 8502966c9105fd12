"""`env_info`: what an environment says in its info, on its way to `act`, batches, metrics and logs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from antelope import ConfigError, DataError, Run, ml
from tests.envs.toys import Diary, Ruled, allowed_at

pytestmark = pytest.mark.usefixtures("workdir")

FIELDS = ["action_mask", "age", "cost", "late"]


def run(*words: str, **settings: Any) -> Run:
    shared: dict[str, Any] = {
        **{"env": Ruled, "agent": "Random", "env_info": FIELDS, "train_steps": 120},
        **{
            "seed_steps": 20,
            "eval_episodes": 6,
            "batch_size": 16,
            "plot": False,
            "progress": False,
        },
    }
    return ml(*words, **shared | settings)


def in_a_row(mode: AutoresetMode) -> Any:
    return lambda: SyncVectorEnv([Ruled] * 3, autoreset_mode=mode)


def check(batch: Any, *, nstep: int = 1) -> None:
    """All fields are those of the place where they came from, which observations say."""
    episode, step = batch.obs[:, -2].numpy(), batch.obs[:, -1].numpy()
    later = batch.next_obs[:, -1].numpy()
    over = batch.terminated.numpy()
    np.testing.assert_array_equal(batch.action_mask, allowed_at(episode, step, 4))
    following = allowed_at(episode, later, 4) * ~over[:, None]
    np.testing.assert_array_equal(batch.next_action_mask, following)
    np.testing.assert_array_equal(batch.age, step)
    np.testing.assert_array_equal(batch.next_age, later)
    assert (later - step <= nstep).all()
    np.testing.assert_array_equal(batch.cost, (step + 1) / 2)  # Of the step, as its reward.
    assert batch.action_mask.dtype == torch.int8
    assert batch.cost.dtype == torch.float32
    assert "next_cost" not in batch
    if nstep == 1:
        np.testing.assert_array_equal(batch.late, over)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_envs": 3},
        {"num_envs": 2, "vectorization": "async"},
        {"env": in_a_row(AutoresetMode.NEXT_STEP)},
        {"env": in_a_row(AutoresetMode.SAME_STEP)},
        {"env": in_a_row(AutoresetMode.DISABLED)},
        {"replay": {"storage": "mmap"}, "num_envs": 3},
        {"replay": {"storage": "gpu"}},
    ],
    ids=["one", "three", "async", "next-step", "same-step", "disabled", "mmap", "gpu"],
)
def test_batches_have_the_fields_of_observations_and_of_steps(how: dict[str, Any]) -> None:
    replay = run(**how).replay
    batch = replay.sample(300)
    check(batch)
    assert batch.late.any()
    assert (batch.truncated & (batch.next_action_mask.sum(1) == 2)).any()


def test_fields_of_a_return_of_several_steps_are_those_of_its_ends() -> None:
    check(run(nstep=3, num_envs=2).replay.sample(300), nstep=3)


def test_frames_are_stacked_and_fields_are_not() -> None:
    batch = run(frame_stack=3).replay.sample(100)
    assert batch.obs.shape == (100, 6)
    assert batch.action_mask.shape == (100, 4)
    check(batch)


def test_sequences_have_a_field_for_each_step() -> None:
    batch = run(replay={"sequence": 4}).replay.sample(50)
    step, mask = batch.obs[..., -1], batch.mask
    assert batch.action_mask.shape == (50, 4, 4)
    torch.testing.assert_close(batch.age[mask].float(), step[mask])
    torch.testing.assert_close(batch.cost[mask], (step[mask] + 1) / 2)


class Reader(nn.Module):
    """Holds what `act` receives against the observation that it came with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def act(self, obs: Tensor, info: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        episode, step = obs[:, 0].numpy(), obs[:, 1].numpy()
        mask = info["action_mask"]
        # Copies that have made their share of an evaluation's episodes rest, and may do anything.
        rests = mask.bool().all(1).numpy()
        assert not (self.training and rests.any())
        np.testing.assert_array_equal(mask[~rests], allowed_at(episode, step, 4)[~rests])
        np.testing.assert_array_equal(info["age"], step)
        np.testing.assert_array_equal(info["cost"], step / 2)  # Zero at an episode's start.
        return mask.int().argmax(1)

    def learn(self, replay: Any) -> None:
        pass


class ByKeyword(Reader):
    def act(self, obs: Tensor, *, info: dict[str, Tensor] | None = None) -> Tensor:  # type: ignore[override]
        assert info is not None
        return super().act(obs, info)


class Counts(Reader):
    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return obs.new_zeros(len(obs), 4), (
            obs.new_zeros(len(obs), 1) if state is None else state
        ) + 1

    def act(self, obs: Tensor, state: Tensor, info: dict[str, Tensor]) -> Any:  # type: ignore[override]
        real = ~info["action_mask"].bool().all(1)
        np.testing.assert_array_equal(state[real, 0], obs[real, 1])
        return super().act(obs, info), self(obs, state)[1]


@pytest.mark.parametrize("model", [Reader, ByKeyword, Counts])
@pytest.mark.parametrize("how", [{"num_envs": 2}, {"num_envs": 2, "vectorization": "async"}])
def test_act_receives_what_came_with_the_observation(model: Any, how: dict[str, Any]) -> None:
    done = run(agent=model, env_info=["action_mask", "age", "cost"], **how)
    assert done.agent.calls > 60


def test_act_asks_for_info_that_nothing_names() -> None:
    with pytest.raises(ConfigError, match=r"env_info=\[action_mask\]"):
        run(agent=Reader, env_info=None)


def test_an_act_that_asks_for_a_field_directly_is_told_how_it_comes() -> None:
    class Asks(Reader):
        def act(self, obs: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return mask.argmax(1)

    with pytest.raises(ConfigError, match=r"act\(self, obs, info\) .* for info\['mask'\]"):
        run(agent=Asks)


def test_an_act_without_info_is_left_alone() -> None:
    class Plain(Reader):
        def act(self, obs: Tensor) -> Tensor:  # type: ignore[override]
            return torch.zeros(len(obs), dtype=torch.int64)

    batch = run(agent=Plain, env=Diary, env_info=None).replay.sample(10)
    assert "info" not in batch


def test_metrics_are_means_over_the_last_steps_of_episodes() -> None:
    done = run(train_steps=150, log_every=50)
    length = done.metrics["episode_length"]
    assert done.metrics["age"] == length
    assert done.metrics["cost"] == length / 2
    assert 0 < done.metrics["late"] < 1
    assert "action_mask" not in done.metrics
    for mode in ("train", "eval"):
        with open(Path(done.path) / f"{mode}.csv") as file:
            row = list(csv.DictReader(file))[-1]
        assert float(row["cost"]) == float(row["age"]) / 2
        assert float(row["late"]) <= 1


def test_a_field_that_is_called_as_a_column_of_the_logs_has_another_name_there() -> None:
    class Loses(Diary):
        def step(self, action: Any) -> Any:
            *what, _ = super().step(action)
            return *what, {"loss": 7.0}

    done = run(env=Loses, env_info=["loss"])
    assert done.metrics["info/loss"] == 7
    assert done.replay.sample(5).loss.tolist() == [7] * 5


def test_fields_deep_in_the_info_are_named_by_their_path() -> None:
    def make() -> Any:
        return gymnasium.wrappers.RecordEpisodeStatistics(Diary())

    done = run(env=make, env_info=["episode/l", "episode.r"], num_envs=2)
    assert done.metrics["episode/l"] == done.metrics["episode_length"]
    assert done.metrics["episode.r"] == pytest.approx(done.metrics["return"])
    batch = done.replay.sample(50)
    assert (batch["episode/l"] > 0).equal(batch.terminated | batch.truncated)


# ----------------------------------------------------------------------------- mistakes


class Says(gymnasium.Env[Any, Any]):
    """Gives the infos it was made with: of reset, of steps, and of the last one."""

    def __init__(self, reset: Any = None, step: Any = None, last: Any = None) -> None:
        self.infos = reset or {}, step or {}, last or step or {}
        self.observation_space, self.action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), dict(self.infos[0])

    def step(self, action: Any) -> Any:
        self.count += 1
        over = self.count == 5
        return np.zeros(1, np.float32), 0.0, over, False, dict(self.infos[1 + over])


ALL = np.ones(3, np.int8)
MISTAKES: dict[str, tuple[Any, Any, str]] = {
    "taken": (["reward"], {}, "batches already have a field `reward`"),
    "sequences": (["mask"], {}, "already have a field `mask`"),
    "next": (["x", "next_x"], {}, "already have a field `next_x`"),
    "twice": (["x", "x"], {}, "given twice"),
    "never": (["sucess"], {"step": {"success": 1}}, "whole episode. Did you mean `success`"),
    "empty": (["success"], {}, "Its info is empty"),
    "deep": (["episode/x"], {"last": {"episode": {"r": 1.0}}}, "Did you mean `episode/r`"),
    "text": (["who"], {"reset": {"who": "me"}}, "`who` in its info as 'me'"),
    "shape": (["action_mask"], {"reset": {"action_mask": np.ones(4)}}, r"\[3\] for one of 3"),
    "numbers": (["action_mask"], {"reset": {"action_mask": [0, 2]}}, r"\[3\] for one of 3"),
    "chances": (["action_mask"], {"reset": {"action_mask": [0.5, 0.2, 0.3]}}, "only 0 and 1"),
    "nothing": (
        ["action_mask"],
        {"reset": {"action_mask": ALL}, "step": {"action_mask": 0 * ALL}},
        "`action_mask` in its info that allows no action. At step 1 of the episode with seed",
    ),
    "reset": (["action_mask"], {"step": {"action_mask": ALL}}, "in the info of reset"),
    "grows": (
        ["x"],
        {"reset": {"x": [1]}, "last": {"x": [1, 2]}},
        r"\[2\], but int64 \[1\] before",
    ),
    "whole": (
        ["x"],
        {"last": {"x": {"y": 1}}},
        r"name the parts you want, .*env_info=\[x/y\]",
    ),
    "rare": (["won"], {"step": {"lost": 1}}, "must be in the info of an episode's last step"),
    "late": (["x"], {"last": {"x": [1, 2]}}, "must be a single number"),
    "kind": (["x"], {"reset": {"x": 0}, "step": {"x": 1}, "last": {"x": 0.5}}, "0.0 instead of 0"),
}


class InObservation(Says):
    """As PettingZoo has it."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(3)})


class InMethod(Says):
    """As sb3-contrib's MaskablePPO has it."""

    def action_masks(self) -> Any:
        return ALL


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (InObservation, "Its observation has `action_mask`"),
        (InMethod, r"method `action_masks\(\)`"),
    ],
)
def test_a_mask_in_another_place_is_pointed_out(env: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        run(env=env, env_info="action_mask")


def test_an_extra_of_act_must_have_another_name() -> None:
    with pytest.raises(
        ConfigError, match="env_info=value: `act` returned an extra of the same name"
    ):
        run(
            "model.steps=8",
            env=lambda: Says({"value": 1}, {"value": 1}),
            env_info="value",
            agent="PPO",
        )


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_once_and_clearly(case: str) -> None:
    names, infos, words = MISTAKES[case]
    with pytest.raises((ConfigError, DataError), match=words):
        run(env=lambda: Says(**infos), env_info=names)


def test_whole_numbers_at_first_and_halves_afterwards_are_halves() -> None:
    batch = run(env=lambda: Says({"x": 0}, {"x": 0.5}), env_info="x").replay.sample(50)
    assert set(batch.x.tolist()) == {0.0, 0.5}


def test_what_is_missing_now_and_then_is_zero() -> None:
    env = lambda: Says({"x": np.ones(2), "y": True}, {"x": None})  # noqa: E731
    batch = run(env=env, env_info=["x", "y"]).replay.sample(50)
    assert set(batch.x[:, 0].tolist()) == {0.0, 1.0}
    assert not batch.next_x.any()
    assert batch.y.dtype == torch.bool
    assert not batch.next_y.any()


# ----------------------------------------------------------------------------- going on


@pytest.mark.parametrize("how", [{}, {"vectorization": "async"}], ids=["sync", "async"])
def test_a_resumed_run_goes_on_with_its_fields(how: dict[str, Any]) -> None:
    run(agent="DQN", train_steps=46, num_envs=2, path="run", **how)
    check(
        run(agent="DQN", train_steps=90, num_envs=2, path="run", resume=True, **how).replay.sample(
            100
        )
    )


def test_other_fields_are_not_resumed_with() -> None:
    run(path="run")
    with pytest.raises(ConfigError, match="env_info"):
        run(path="run", env_info=["age"], train_steps=200, resume=True)


def test_a_saved_replay_keeps_its_fields() -> None:
    run().replay.save("kept")
    learns = {"agent": "DQN", "env": Ruled, "offline": "kept", "train_steps": 10}
    done = ml(**learns, env_info=["action_mask"], eval_episodes=1, plot=False, progress=False)
    check(done.replay.sample(100))


def test_an_offline_run_acts_by_the_mask_that_it_learns_with() -> None:
    run().replay.save("kept")
    run(env=Diary, env_info=None).replay.save("without")
    learns = {"agent": "DQN", "env": Ruled, "train_steps": 10, "eval_episodes": 2, "plot": False}
    ml(**learns, offline="kept", progress=False)  # Ruled raises where the mask is not kept to.
    with pytest.raises(ConfigError, match="was saved without it"):
        ml(**learns, offline="without", env_info=["action_mask"], progress=False)


def test_a_sequence_of_environments_shares_the_fields() -> None:
    class Longer(Ruled):
        def __init__(self) -> None:
            super().__init__(longest=9)

    done = run(env=[Ruled, Longer], agent="DQN")
    check(done.replay.sample(100))
    assert done.metrics["cost"] == done.metrics["episode_length"] / 2
