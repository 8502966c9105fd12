"""Offline runs: what is learnt from, that nothing is done, and that they continue exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import TimeLimit
from torch import Tensor, nn

from antelope import CheckpointError, ConfigError, Run, agents, ml
from antelope.envs.environments import EnvTask

pytestmark = pytest.mark.usefixtures("workdir")
SHORT: dict[str, Any] = {"eval_episodes": 1, "batch_size": 16, "plot": False, "progress": False}
SIZES = {"num_envs": 2, "capacity": 150, "nstep": 3, "discount": 0.9, "frame_stack": 2}


def act(path: Path, env: str, *words: str, **settings: Any) -> Run:
    settings = {"agent": "Random", "train_steps": 400, **SHORT, **settings}
    return ml(f"env={env}", *words, path=path / "run", **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved replays by name, and the run directory of one, "run"."""
    made: dict[str, Path] = {}
    for name, env, settings in (
        ("cartpole", "CartPole-v1", {}),
        ("sizes", "CartPole-v1", SIZES),
        ("pendulum", "Pendulum-v1", {}),
        ("recall", "Recall", {"agent": "DRQN", "num_envs": 2, "seed_steps": 10**6}),
    ):
        run = act(tmp_path_factory.mktemp(name), env, **settings)
        made[name] = run.path.parent / "replay"
        run.replay.save(made[name])
    made["run"] = made["cartpole"].parent / "run"
    return made


def learn(offline: Path, *words: str, **settings: Any) -> Run:
    shared = {"env": "CartPole-v1", "agent": "DQN", "train_steps": 40, "offline": offline, **SHORT}
    return ml(*words, **{**shared, **settings})


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.agent.parameters()])


# What happens


class Watched(CartPoleEnv):
    """Counts what is done in all of its copies."""

    steps = 0

    def step(self, action: Any) -> Any:
        Watched.steps += 1
        return super().step(action)


@pytest.fixture
def only_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environments that are trained in cannot be played."""
    for method in ("reset", "step"):
        monkeypatch.delattr(EnvTask, method)


@pytest.mark.usefixtures("only_evaluation")
def test_steps_are_learning_steps_and_only_evaluation_plays(folders: dict[str, Path]) -> None:
    Watched.steps = 0
    run = learn(folders["cartpole"], env=lambda: TimeLimit(Watched(), 20), eval_every=15)
    evaluations = [row for row in run.history if row["mode"] == "eval"]
    assert [row["step"] for row in evaluations] == [15, 30, 40]
    assert run.replay.step == 40
    assert Watched.steps == sum(row["episode_length"] for row in evaluations)
    assert len(run.replay) == 400
    assert all("return" not in row for row in run.history if row["mode"] == "train")


def test_the_sizes_are_those_that_were_saved(folders: dict[str, Path]) -> None:
    run = learn(folders["sizes"])
    ring = run.replay.storage
    assert (ring.num_envs, ring.nstep, ring.discount, ring.stack) == (2, 3, 0.9, 2)
    assert run.spec.obs.shape == (8,)
    assert next(run.replay).obs.shape == (16, 8)
    config = (run.path / "config.yaml").read_text()
    for line in ("nstep: 3", "discount: 0.9", "frame_stack: 2", "seed_steps: 0", "learn_every: 1"):
        assert line in config.splitlines()


def test_settings_that_contradict_the_replay_are_named(folders: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match=r"`nstep=1` has no effect .* saved with 3"):
        assert learn(folders["sizes"], nstep=1, discount=0.9).replay.storage.nstep == 3


@pytest.mark.parametrize(
    "word", ["seed_steps=500", "learn_every=4", "capacity=9", "num_envs=2", "normalize_reward=true"]
)
def test_settings_of_acting_are_named(word: str, folders: dict[str, Path]) -> None:
    name = word.partition("=")[0]
    with pytest.warns(
        UserWarning, match=f"`{name}` has no effect in this run: offline, nothing acts"
    ):
        run = learn(folders["cartpole"], word)
    assert run.replay.step == 40


def test_observations_are_normalised_by_the_replays_own_statistics(
    folders: dict[str, Path],
) -> None:
    run = learn(folders["pendulum"], env="Pendulum-v1", agent="TD3", normalize_obs=True)
    ring = run.replay.storage
    obs = ring.gather(np.flatnonzero(ring.drawable))["obs"].double()
    moments = run.replay.transform.normalizer.moments[""]
    assert moments.count == 400
    np.testing.assert_allclose(moments.mean, obs.mean(0))
    np.testing.assert_allclose(moments.variance, obs.var(0, unbiased=False))


def test_a_recurrent_model_begins_each_sequence_with_zeros(folders: dict[str, Path]) -> None:
    run = learn(folders["recall"], "replay.sequence=8", env="Recall", agent="DRQN")
    batch = next(run.replay)
    assert batch.obs.shape[:2] == batch.mask.shape == (16, 8)
    assert batch.state.shape == (1, 16, 64)
    assert not batch.state.any()


def test_a_run_directory_serves_as_well_as_a_saved_replay(folders: dict[str, Path]) -> None:
    one = learn(folders["cartpole"], path="one")
    assert torch.equal(weights(one), weights(learn(folders["run"], path="two")))


def test_what_an_offline_run_saves_is_the_whole_replay(folders: dict[str, Path]) -> None:
    one = learn(folders["cartpole"], path="one")
    one.replay.save("again")
    assert torch.equal(weights(one), weights(learn(Path("again"), path="two")))


# What is refused


def test_a_folder_without_a_replay_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="offline=nowhere: there is no such folder"):
        learn(Path("nowhere"))
    Path("empty").mkdir()
    with pytest.raises(CheckpointError, match="empty is not a readable saved replay"):
        learn(Path("empty"))
    shutil.copytree(folders["cartpole"], "damaged")
    largest = max(Path("damaged").glob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"damaged .*{largest.name} does not match"):
        learn(Path("damaged"))
    assert not Path("runs").exists()


def test_a_replay_of_something_else_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"offline=.* its obs is float32 \[4\], .* float32 6"):
        learn(folders["cartpole"], env="Acrobot-v1")
    data = ml("train_steps=1", path="data", plot=False, progress=False)
    data.replay.save("digits")
    for folder in ("data", "digits"):
        with pytest.raises(CheckpointError, match=f"offline={folder} was saved from a data set"):
            learn(Path(folder))
    learn(folders["cartpole"], path="offline")
    with pytest.raises(
        CheckpointError, match=r"itself an offline run\. Set offline= to the replay"
    ):
        learn(Path("offline"), path="other")


def test_without_an_environment_or_with_several_it_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="Set env= to exactly one"):
        ml(offline=folders["cartpole"])
    with pytest.raises(ConfigError, match="Set env= to exactly one"):
        learn(folders["cartpole"], env=["CartPole-v1", "CartPole-v1"])


@pytest.mark.parametrize(
    ("name", "env", "instead"),
    [
        ("cartpole", "CartPole-v1", "DQN with model.conservative"),
        ("pendulum", "Pendulum-v1", "TD3"),
    ],
)
def test_agents_that_learn_from_what_they_do_are_refused(
    name: str, env: str, instead: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=f"PPO learns on-policy, .* Use {instead}"):
        learn(folders[name], env=env, agent="PPO")


class Rollouts(nn.Module):
    """On-policy, and does not say so."""

    def act(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.int64)

    def learn(self, replay: Any) -> None:
        replay.rollout()


def test_a_rollout_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"learn from next\(replay\)"):
        learn(folders["cartpole"], agent=Rollouts)


def test_a_run_that_would_move_its_own_replay_aside_is_refused(folders: dict[str, Path]) -> None:
    shutil.copytree(folders["run"], "run")
    shutil.copytree(folders["cartpole"], "run/replay")
    for offline in ("run", "run/replay"):
        with pytest.raises(ConfigError, match="Set another path or experiment"):
            learn(Path(offline), path="run")
    assert Path("run/replay").is_dir()


# Continuing


class Crash(Exception):
    """The run ends at once, with whatever it had saved."""


RUNS: dict[str, dict[str, Any]] = {
    "cartpole": {
        "env": "CartPole-v1",
        "agent": "DQN",
        "model.conservative": 1.0,
        "replay.prioritized": True,
    },
    "sizes": {"env": "CartPole-v1", "agent": "DQN"},
    "pendulum": {
        "env": "Pendulum-v1",
        "agent": "TD3",
        "model.imitation": 0.4,
        "normalize_obs": True,
    },
    "recall": {"env": "Recall", "agent": "DRQN"},
}


@pytest.mark.usefixtures("only_evaluation")
@pytest.mark.parametrize("name", RUNS)
def test_it_ends_the_same_to_the_bit(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{key}={value}" for key, value in RUNS[name].items() if "." in key]
    named = {key: value for key, value in RUNS[name].items() if "." not in key}
    settings = {"save_every": 15, "eval_every": 25, "log_every": 10, "train_steps": 70}
    agent = getattr(agents, RUNS[name]["agent"])
    arguments: dict[str, Any] = {"offline": folders[name], **SHORT, **settings, **named}
    ml(*words, **arguments, path="whole")
    learn_step, calls = agent.learn, 0

    def stopping(self: Any, replay: Any, log: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 42:
            raise Crash
        return learn_step(self, replay, log)

    with monkeypatch.context() as patch:
        patch.setattr(agent, "learn", stopping)
        with pytest.raises(Crash):
            ml(*words, **arguments, path="cut")
    ml(*words, **arguments, path="cut", resume=True)
    for file in ("train.csv", "eval.csv"):
        assert Path("cut", file).read_bytes() == Path("whole", file).read_bytes()
    for name in ("model", "tensors"):
        newest = [
            max(Path(p).glob(f"checkpoints/[0-9]*/{name}.safetensors")) for p in ("cut", "whole")
        ]
        assert newest[0].read_bytes() == newest[1].read_bytes()


def test_a_checkpoint_of_another_replay_is_refused(folders: dict[str, Path]) -> None:
    learn(folders["cartpole"], path="run")
    act(Path("other"), "CartPole-v1", seed=1).replay.save("other/replay")
    again = {"path": "run", "resume": True, "train_steps": 60}
    for offline, match in ((Path("other/replay"), "are other ones"), (None, "offline: .* -> None")):
        with pytest.raises(ConfigError, match=match):
            learn(offline, **again)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="is not"):
        learn(None, override="data", **again)  # type: ignore[arg-type]


def test_a_finished_run_is_continued_for_longer(folders: dict[str, Path]) -> None:
    learn(folders["cartpole"], path="run")
    longer = learn(folders["cartpole"], path="run", resume=True, train_steps=60)
    assert longer.replay.step == 60
    assert torch.equal(
        weights(longer), weights(learn(folders["cartpole"], path="b", train_steps=60))
    )
