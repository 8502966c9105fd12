"""run.play and `ml play`: episodes of a trained policy, shown, filmed and counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import antelope
from antelope import ConfigError, DataError, ml
from antelope.launcher.ml import main

SHORT = {"plot": False, "progress": False, "seed_steps": 20, "eval_episodes": 4, "batch_size": 16}
needs_moviepy = pytest.mark.skipif(
    importlib.util.find_spec("moviepy") is None, reason="needs moviepy"
)


class Stage(gymnasium.Env[np.ndarray, int]):
    """Episodes of 1 to 5 steps, as the seed says; the return is their length.

    Attributes:
        opened: The render mode of every copy.
        shown: How many frames were shown to a person.
        closed: How many copies were closed.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space: Any = spaces.Box(-1, 1, (2,), np.float32)
    action_space: Any = spaces.Discrete(2)
    opened: list[str | None] = []  # noqa: RUF012 - shared on purpose.
    shown = closed = 0

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        Stage.opened.append(render_mode)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.left = 1 + int(self.np_random.integers(5))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        self.left -= 1
        return self._seen(), 1.0, self.left == 0, False, {}

    def _seen(self) -> np.ndarray:
        Stage.shown += self.render_mode == "human"
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def render(self) -> Any:
        return np.full((16, 16, 3), 40 * self.left, np.uint8)

    def close(self) -> None:
        Stage.closed += 1


def trained(path: Path, **settings: Any) -> Any:
    return ml(**{"model": "DQN", "env": Stage, "train_steps": 30, **SHORT, **settings}, path=path)


def test_episodes_are_those_of_the_evaluation_unless_a_seed_is_given(tmp_path: Path) -> None:
    run = trained(tmp_path)
    returns = run.play(4)
    assert np.mean(returns) == run.metrics["return"]
    assert np.std(returns) == pytest.approx(run.metrics["return_stddev"])
    assert run.play(6, seed=1) == run.play(6, seed=1) != run.play(6, seed=2)
    assert len(run.play()) == 1


def test_it_is_shown_to_a_person_in_one_copy_which_is_closed(tmp_path: Path) -> None:
    run = trained(tmp_path)
    Stage.shown, closed, opened = 0, Stage.closed, len(Stage.opened)
    returns = run.play(3, render=True)
    assert Stage.opened[opened:] == ["human"]
    assert Stage.shown == sum(returns) + 3
    assert Stage.closed == closed + 1


@needs_moviepy
def test_it_is_filmed_in_one_file_or_in_one_for_each_episode(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    run.play(2, video=tmp_path / "films" / "all.mp4")
    assert [file.name for file in (tmp_path / "films").iterdir()] == ["all.mp4"]
    run.play(2, video=str(tmp_path / "each"))
    names = sorted(file.name for file in (tmp_path / "each").iterdir())
    assert names == ["Stage-episode-0.mp4", "Stage-episode-1.mp4"]


class Blind(Stage):
    """Has no picture."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()


class Deaf(Stage):
    """Takes a mode, and does not mind it."""

    def __init__(self, render_mode: str | None = None):
        super().__init__()


def test_what_cannot_be_shown_or_asked_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    for options, word in (
        ({"render": True, "video": "x.mp4"}, "can do only one of them"),
        ({"video": "x.avi"}, r"ends in \.mp4, or a folder"),
        ({"episodes": 0}, "at least 1"),
        ({"episodes": True}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"task": 1}, r"environments are 0 \(Stage\)"),
    ):
        with pytest.raises(ConfigError, match=word):
            run.play(**options)
    for env in (Blind, Deaf):
        run = trained(tmp_path / env.__name__, env=env)
        with pytest.raises(ConfigError, match=r"render=True needs.*'human'"):
            run.play(render=True)


def test_video_without_moviepy_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigError, match=r"pip install 'antelope-ml\[video\]'"):
        run.play(video="x.mp4")


class Breaks(Stage):
    broken = False

    def step(self, action: Any) -> Any:
        if self.broken:
            raise RuntimeError("the motor is hot")
        return super().step(action)


def test_an_environment_that_raises_is_named_with_its_seed(tmp_path: Path) -> None:
    run = trained(tmp_path, env=Breaks)
    Breaks.broken, closed = True, Stage.closed
    try:
        with pytest.raises(
            DataError, match=r"the motor is hot\. At step 1 of the episode with seed"
        ):
            run.play()
    finally:
        Breaks.broken = False
    assert Stage.closed == closed + 1


class Longer(Stage):
    """Ten steps more."""

    def reset(self, **options: Any) -> Any:
        found = super().reset(**options)
        self.left += 10
        return found


def test_a_sequence_is_played_by_its_last_environment_or_by_the_one_named(tmp_path: Path) -> None:
    run = trained(tmp_path, env=[Stage, Longer])
    assert max(run.play(4, task=0)) <= 5 < min(run.play(4))
    assert run.play(4, task=1) == run.play(4)


class Shifted(Stage):
    action_space = spaces.Discrete(2, start=7)


def test_where_environments_differ_an_action_needs_the_task(tmp_path: Path) -> None:
    run = trained(tmp_path, env=[Stage, Shifted])
    assert run.act([0, 0], task=1) - run.act([0, 0], task=0) == 7
    with pytest.raises(ConfigError, match=r"run\.act\(obs, task=1\) for Shifted"):
        run.act([0, 0])


def test_a_vector_environment_is_played_as_it_is(tmp_path: Path) -> None:
    def several() -> Any:
        return gymnasium.vector.SyncVectorEnv([Stage] * 3)

    run = trained(tmp_path, env=several)
    returns = run.play(6)
    assert len(returns) == 6
    assert max(returns) <= 5
    with pytest.raises(ConfigError, match="render=True"):
        run.play(render=True)


# ------------------------------------------------------------------------ ml play


def console(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["play", *map(str, words)])
    return int(caught.value.code or 0)


def test_the_console_prints_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ml("time_limit=8", env="CartPole-v1", model="DQN", train_steps=30, path=tmp_path, **SHORT)
    assert console(tmp_path, "episodes=2", "seed=3") == 0
    first, second, mean = capsys.readouterr().out.splitlines()
    returns = run.play(2, seed=3)
    assert first == f"episode 1: return {returns[0]:.6g}, {returns[0]:.0f} steps"
    assert second.startswith(f"episode 2: return {returns[1]:.6g}")
    assert mean.startswith(f"mean return {np.mean(returns):.6g}")
    assert console(tmp_path) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_class_of_the_users_is_named_in_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (
        "import gymnasium\n\n\ndef make(render_mode=None):\n"
        "    return gymnasium.make('CartPole-v1', render_mode=render_mode)\n"
    )
    Path("mine.py").write_text(source)
    ml(env="mine.py:make", model="DQN", train_steps=30, path="run", **SHORT)
    assert console("run") == 2
    assert "env=mine.py:make in a console" in capsys.readouterr().err
    assert console("run", "env=mine.py:make") == 0
    assert console("run", "trust=true") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Which run? ml play RUN"),
        (["episodes=3"], "Which run? ml play RUN"),
        (["nowhere"], "nowhere does not exist"),
        (["."], "holds none: there is no config.yaml"),
        ([".", "episodes=many"], "episodes=many: expected a whole number"),
        ([".", "render=perhaps"], "render=perhaps: expected true or false"),
        ([".", "episode=3"], "Did you mean `episodes`?"),
        ([".", "now"], "`now` is not an option of ml play"),
        ([".", "lr=3"], "not lr"),
    ],
)
def test_a_wrong_word_is_answered(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert console(*words) == 2
    assert said in capsys.readouterr().err


def test_a_loaded_run_plays_as_the_one_that_was_trained(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert antelope.load(tmp_path, env=Stage).play(4) == run.play(4)
    with pytest.raises(ConfigError, match=r"is .*Stage.*Name it here: env=Stage \(the class\)"):
        antelope.load(tmp_path).play()
    with pytest.raises(
        ConfigError, match="differ from those that the model was trained on in Stage"
    ):
        antelope.load(tmp_path, env=Shifted).play()


# ------------------------------------------------------------------------ wrappers, limits


def normalised(render_mode: str | None = None) -> Any:
    return gymnasium.wrappers.NormalizeObservation(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("where", ["in the factory", "by setting"])
def test_statistics_of_wrappers_are_those_of_training(where: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"env": normalised}
    if where == "by setting":
        given = {"env": "CartPole-v1", "env_wrappers": ["NormalizeObservation"]}
    run = trained(tmp_path, **given, train_steps=300, learn_every=4)
    again = given if where == "in the factory" else {}
    for one in (run, antelope.load(tmp_path, **again)):
        assert np.mean(one.play(4)) == run.metrics["return"]


def test_wrappers_of_a_directory_run_no_code(tmp_path: Path) -> None:
    wrapper = {"_target_": "TransformReward", "func": "numpy.sign"}
    run = trained(tmp_path, env="CartPole-v1", env_wrappers=[wrapper], trust=True)
    with pytest.raises(ConfigError, match="env_wrappers of the run"):
        antelope.load(tmp_path).play()
    assert antelope.load(tmp_path, env_wrappers=[wrapper]).play(2) == run.play(2)


class Endless(Stage):
    def step(self, action: Any) -> Any:
        self.left = 2
        return super().step(action)


def test_an_episode_without_an_end_is_cut(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="."):
        run = trained(tmp_path, env=Endless, eval_limit=9, eval_episodes=1)
    for one in (run, antelope.load(tmp_path, env=Endless)):
        with pytest.warns(
            UserWarning, match=r"2 episodes of Endless did not end and were cut after 9 steps"
        ):
            assert one.play(2) == [9.0, 9.0]


def test_an_environment_that_the_user_opened_is_played_in(tmp_path: Path) -> None:
    robot = Stage()
    with pytest.warns(UserWarning, match="Evaluation uses that one too"):
        run = trained(tmp_path, env=robot)
    opened = len(Stage.opened)
    assert run.play(3) == run.play(3) == antelope.load(tmp_path, env=robot).play(3)
    assert len(Stage.opened) == opened
    with pytest.raises(ConfigError, match="already constructed"):
        run.play(render=True)
