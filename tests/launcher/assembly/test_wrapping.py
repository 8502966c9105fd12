"""env_wrappers=: what is put around every copy of an environment, by name, class or function."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces, wrappers

from antelope import Run, load, ml
from antelope.replay import ConfigError


class Walk(gymnasium.Env[Any, Any]):
    """Ten steps; the reward is how many have been made, the observation as well."""

    observation_space: Any = spaces.Box(0.0, 100.0, (2,))
    action_space: Any = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.full(2, self.count, np.float32), float(self.count), False, self.count == 10, {}


class Double(gymnasium.RewardWrapper[Any, Any]):
    def __init__(self, env: Any, by: float = 2.0):
        super().__init__(env)
        self.by = by

    def reward(self, reward: Any) -> Any:
        return reward * self.by


def five(env: Any) -> Any:
    return wrappers.TimeLimit(env, 5)


def plus_one(reward: Any) -> Any:
    return reward + 1


@pytest.fixture(autouse=True)
def _workdir(workdir: Path) -> None:
    """Files that are named are those of the test's own directory."""


def run(*words: str, **settings: Any) -> Run:
    short = {"agent": "Random", "train_steps": 30, "eval_episodes": 2, "seed_steps": 0}
    quiet = {"progress": False, "plot": False, "path": "run"}
    return ml(*words, **{"env": Walk, **short, **quiet, **settings})


def score(*words: str, **settings: Any) -> tuple[float, float]:
    metrics = run(*words, **settings).metrics
    return metrics["return"], metrics["episode_length"]


def test_without_any() -> None:
    assert score() == (55, 10)


@pytest.mark.parametrize(
    "given",
    [
        [Double, five],
        (Double, five),
        [{"_target_": Double, "by": 2}, {"_target_": wrappers.TimeLimit, "max_episode_steps": 5}],
        [Double, {"_target_": "TimeLimit", "max_episode_steps": np.int64(5)}],
        [Double, functools.partial(wrappers.TimeLimit, max_episode_steps=5)],
        [{"_target_": "TransformReward", "func": lambda reward: 2 * reward}, five],
        [lambda env: five(Double(env))],
    ],
)
def test_objects_of_python(given: Any) -> None:
    assert score(env_wrappers=given) == (30, 5)


def test_a_single_one_needs_no_list() -> None:
    assert score(env_wrappers=five) == (15, 5)
    assert score("env_wrappers=TimeLimit", "env_wrappers.max_episode_steps=5") == (15, 5)
    assert score("env_wrappers.TimeLimit.max_episode_steps=5", "env_wrappers=TimeLimit") == (15, 5)
    assert score(env_wrappers={"_target_": Double, "by": 3.0}) == (165, 10)
    assert score(env_wrappers={"_target_": "TransformReward", "func": plus_one}) == (65, 10)


def test_the_first_is_the_innermost() -> None:
    plus = {"_target_": "TransformReward", "func": plus_one}
    assert score(env_wrappers=[plus, Double]) == (130, 10)
    assert score(env_wrappers=[Double, plus]) == (120, 10)


def test_sub_keys_go_to_the_one_they_name() -> None:
    words = (
        "env_wrappers=[FlattenObservation,TimeLimit]",
        "env_wrappers.TimeLimit.max_episode_steps=5",
    )
    assert score(*words) == (15, 5)
    assert score("env_wrappers.Double.by=3", env_wrappers=[Double, five]) == (45, 5)
    assert score("env_wrappers.TimeLimit.max_episode_steps=5", env_wrappers=["TimeLimit"]) == (
        15,
        5,
    )


def test_names_of_files_here_and_of_functions() -> None:
    Path("mine.py").write_text(
        "import gymnasium\n"
        "class Half(gymnasium.RewardWrapper):\n"
        "    def reward(self, reward):\n"
        "        return reward / 2\n"
        "def tenth(reward):\n"
        "    return reward / 10\n"
        "def four(env):\n"
        "    return gymnasium.wrappers.TimeLimit(env, 4)\n"
    )
    for name in ("Half", "mine.Half", "mine.py:Half"):
        assert score(f"env_wrappers=[{name}]") == (27.5, 10)
    assert score("env_wrappers=[mine.four,mine.py:Half]") == (5, 4)
    tenth = score("env_wrappers=[{_target_: TransformReward, func: mine.py:tenth}]")
    assert tenth == (pytest.approx(5.5), 10)
    assert score("env_wrappers=[gymnasium.wrappers.FlattenObservation]") == (55, 10)


@pytest.mark.parametrize(
    "more",
    [
        {"num_envs": 3},
        {"num_envs": 2, "vectorization": "async"},
        {"env": [Walk, Walk]},
        {"env": functools.partial(Walk)},
    ],
    ids=str,
)
def test_every_copy_has_them(more: Any) -> None:
    finished = run(env_wrappers=[five, Double], **more)
    assert (finished.metrics["return"], finished.metrics["episode_length"]) == (30, 5)
    batch = finished.replay.sample(20)
    assert batch.next_obs.max() == 5
    assert batch.reward.max() == 10


def test_values_as_yaml_has_them_fit_the_constructor() -> None:
    """Tuples and arrays cannot be written in YAML."""
    words = "env_wrappers=[{_target_: RescaleAction, min_action: [-1], max_action: [1]}]"
    low = run(words, env="Pendulum-v1", agent="Random").spec.action.low
    assert low.tolist() == [-1]
    words = "env_wrappers=[{_target_: ReshapeObservation, shape: [2,1]}]"
    assert run(words).spec.obs.shape == (2, 1)


def test_ours_are_outside_of_them() -> None:
    """Rewards are doubled before they are summed, and limits count what the agent does."""
    clip = {"_target_": "ClipReward", "max_reward": 1.0}
    assert score(env_wrappers=[clip], action_repeat=2) == (10, 5)
    assert score(env_wrappers=[_twice, clip]) == (5, 5)
    assert score(env_wrappers=[_twice], time_limit=3) == (21, 3)
    binned = {"_target_": "RescaleAction", "min_action": 0.0, "max_action": 4.0}
    made = run("bins=4", env="Pendulum-v1", env_wrappers=[binned], discrete=True)
    assert made.spec.action.n == 4


def _twice(env: Any) -> Any:
    return wrappers.RepeatAction(env, 2)


def test_they_are_written_down_and_resumed() -> None:
    words = "env_wrappers=[FlattenObservation,{_target_: TimeLimit, max_episode_steps: 5}]"
    first = run(words)
    written = yaml.safe_load((first.path / "config.yaml").read_text())["env_wrappers"]
    limit = {"_target_": "gymnasium.wrappers.common.TimeLimit", "max_episode_steps": 5}
    assert written[1] == limit
    assert written[0].endswith("FlattenObservation")
    assert run(words, resume=True, train_steps=40).metrics["episode_length"] == 5
    objects = [{"_target_": wrappers.TransformReward, "func": plus_one}, five]
    again = run(env_wrappers=objects, path="objects")
    written = yaml.safe_load((again.path / "config.yaml").read_text())["env_wrappers"]
    assert written[0]["func"].endswith("plus_one")
    assert written[1].endswith("five")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["TimeLimt"], "No wrapper `TimeLimt`. Did you mean `TimeLimit`"),
        (["TimeLimit"], "TimeLimit needs `max_episode_steps`.* Pass env_wrappers.TimeLimit.max_"),
        (
            [{"_target_": "TimeLimit", "max_steps": 5}],
            "no parameter `max_steps`.*`max_episode_steps`",
        ),
        ([{"_target_": Double, "bye": 5}], "no parameter `bye`.*Did you mean `by`"),
        ([{"max_episode_steps": 5}], "which has arguments but no name"),
        ([lambda env: None], "must return a gymnasium.Env, but returned None"),
        ([lambda env: 3], "must return a gymnasium.Env, but returned a int"),
        ([five(Walk())], "already wraps an environment. Give its class"),
        ([Walk], "Walk is an environment, not a wrapper"),
        ([dict], "dict is a class, but not a gymnasium.Wrapper"),
        ([3.5], "expected names"),
        (
            [wrappers.vector.NormalizeReward],
            "wraps vector environments.*Use gymnasium.wrappers.Norm",
        ),
        (["GrayscaleObservation"], "GrayscaleObservation.* raised ValueError: .* 3 channels"),
        ([{"_target_": "RecordVideo", "video_folder": "v"}], "same files. video=true records"),
        ([{"_target_": "TransformReward", "func": "a.b"}], "no function `a.b`. Write file.py:name"),
    ],
)
def test_mistakes_are_found_before_training(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(env_wrappers=given)
    assert not Path("run").exists()


def test_vector_environments_have_vector_wrappers() -> None:
    def several() -> Any:
        return gymnasium.vector.SyncVectorEnv([Walk, Walk])

    with pytest.raises(ConfigError, match="TimeLimit wraps single environments"):
        run("env_wrappers=TimeLimit", "env_wrappers.max_episode_steps=5", env=several)
    doubled = {"_target_": wrappers.vector.TransformReward, "func": lambda reward: 2 * reward}
    assert score(env=several, env_wrappers=[doubled]) == (110, 10)


def test_sub_keys_of_a_name_that_is_listed_twice() -> None:
    with pytest.raises(ConfigError, match="`env_wrappers` lists 2 of that name"):
        run("env_wrappers=[Double,Double]", "env_wrappers.Double.by=3")


class TestPresets:
    """A preset may name gymnasium's wrappers; other code runs where the user names it."""

    def preset(self, line: str) -> None:
        Path("mine.yaml").write_text(f"# @package _global_\n{line}\n")
        names = "class W(gymnasium.Wrapper): pass\nclass TimeLimit(W): pass\ndef f(r): return r\n"
        Path("evil.py").write_text(f"import gymnasium\nopen('ran', 'w').close()\n{names}")

    @pytest.mark.parametrize(
        "line",
        [
            "env_wrappers: [W]",
            "env_wrappers: evil.W",
            "env_wrappers: evil.py:W",
            "env_wrappers: {_target_: TransformReward, func: evil.f}",
            "env_wrappers: [{_target_: TransformReward, func: 'evil.py:f'}]",
            "env_wrappers: [{_target_: TransformReward, func: os.system}]",
            "env_wrappers: [{_target_: subprocess.run}]",
            "env_wrappers: [{_target_: TimeLimit, max_episode_steps: {_target_: os.system, command: >ran}}]",
            "env: {_target_: 'os:system', command: 'touch ran'}",
            "env: evil.W",
            "env: evil.py:W",
            "env: W",
            "env: {_target_: CartPole-v1, size: {_target_: os.system, command: 'touch ran'}}",
        ],
    )
    def test_code_that_a_preset_names_does_not_run(self, line: str) -> None:
        self.preset(line.replace(">ran", "'touch ran'"))
        given = {} if line.startswith("env:") else {"env": "CartPole-v1"}
        with pytest.raises(
            ConfigError, match=r"mine.yaml, line 2: .*runs no code.* as a word: env"
        ):
            ml("task=mine", "progress=false", **given)
        assert not Path("ran").exists()

    def test_the_users_own_word_does(self) -> None:
        self.preset("env_wrappers: TransformReward")
        run("task=mine", "env_wrappers.func=evil.py:f")
        assert Path("ran").exists()

    def test_a_file_cannot_take_the_name_of_gymnasiums(self) -> None:
        self.preset("env_wrappers: [{_target_: TimeLimit, max_episode_steps: 4}]")
        assert run("task=mine").metrics["episode_length"] == 4
        assert not Path("ran").exists()

    def test_nor_in_a_run_that_is_loaded(self) -> None:
        ran = run(
            env="CartPole-v1", env_wrappers=[{"_target_": "TimeLimit", "max_episode_steps": 4}]
        )
        self.preset("lr: 1e-3")
        assert len(load(ran.path).play(1)) == 1
        assert not Path("ran").exists()
