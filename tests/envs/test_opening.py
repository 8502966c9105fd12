"""Environments are opened before training, each once, no more than are used, and all are closed."""

from __future__ import annotations

import gc
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from torch import nn

from antelope.envs import EnvTask
from antelope.replay import ConfigError, DataError

from .test_copies import everything
from .toys import Diary, check_diary


class Counted(Diary):
    """Says how many were made, and how many have been open at once."""

    made = open = most = 0
    limit = 99  # That may be open.
    events: list[str] = []  # noqa: RUF012 - shared on purpose.

    def __init__(self) -> None:
        super().__init__()
        if Counted.open == Counted.limit:
            raise RuntimeError("the port is in use")
        Counted.made, Counted.open = Counted.made + 1, Counted.open + 1
        Counted.most = max(Counted.most, Counted.open)
        Counted.events.append("made")
        self.closed = False

    def step(self, action: Any) -> Any:
        Counted.events.append("stepped")
        return super().step(action)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        Counted.open -= 1


class Screen(Counted):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def _none_is_left_open() -> Iterator[None]:
    Counted.made = Counted.open = Counted.most = 0
    Counted.limit, Counted.events = 99, []
    yield
    assert Counted.open == 0


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({}, 2),
        ({"eval_episodes": 0}, 1),
        ({"num_envs": 3, "eval_episodes": 4}, 7),
        ({"eval_episodes": 30}, 11),
        ({"env": [Counted, Counted], "eval_episodes": 2}, 6),
        ({"env": lambda: SyncVectorEnv([Counted, Counted])}, 4),
        ({"normalize_obs": True, "frame_stack": 2, "time_limit": 3}, 2),
        ({"env": lambda: Tells(), "env_info": ["fuel"]}, 2),
    ],
)
@pytest.mark.filterwarnings("ignore:`eval_every` has no effect")
def test_no_more_are_made_than_are_used(settings: Any, made: int, quick: Any) -> None:
    quick(agent="Random", **{"env": Counted, "eval_every": 20, **settings})
    assert (Counted.made, Counted.most) == (made, made)
    events = Counted.events
    probed = 1 if "env_info" in settings else 0
    assert "made" not in events[events.index("stepped", made + probed - 1) :]


def test_fewer_than_are_learnt_in_are_too_few(quick: Any) -> None:
    Counted.limit = 2
    with pytest.raises(
        ConfigError, match=r"Only 2 of num_envs=3 copies could be .*the port is in use"
    ):
        quick(agent="Random", env=Counted, num_envs=3, eval_episodes=0)
    assert Counted.open == 0


@pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="needs moviepy")
def test_the_recorded_one_is_one_of_them(quick: Any) -> None:
    run = quick(agent="Random", env=Screen, video=True, eval_episodes=2, eval_every=20)
    assert len(list((run.path / "videos").iterdir())) == 3
    assert Counted.made == 3
    Counted.limit = 1
    with pytest.raises(ConfigError, match=r"cannot record Screen.*the port is in use"):
        quick(agent="Random", env=Screen, video=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"env_wrappers": ["GrayscaleObservation"]},
        {"env_wrappers": [lambda env: None]},
        {"discrete": False, "env": [Counted, lambda: Other(spaces.MultiBinary(2))]},
        {"env": [Counted, lambda: Other(spaces.Discrete(5))]},
        {"agent": None, "model": nn.Linear(7, 3)},
        {"num_envs": 4, "limit": 2},
        {"frame_stack": 2, "env": lambda: Scalar()},
        {"env": lambda: Differs()},
    ],
)
def test_all_are_closed_when_something_is_wrong(wrong: Any, quick: Any) -> None:
    Counted.limit = wrong.pop("limit", 99)
    given = {key: value for key, value in {"agent": "Random", **wrong}.items() if value is not None}
    with pytest.raises(ConfigError):
        quick(**{"env": Counted, "num_envs": 2, **given})
    assert Counted.made > 0


class Tells(Counted):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0], {"fuel": 1.0}

    def step(self, action: Any) -> Any:
        return (*super().step(action)[:4], {"fuel": 0.5})


class Other(Counted):
    def __init__(self, action_space: Any) -> None:
        super().__init__()
        self.action_space = action_space


class Scalar(Counted):
    observation_space: Any

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (), np.float32)


class Differs(Counted):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(2 + Counted.made)


def test_all_are_closed_when_a_run_fails(quick: Any) -> None:
    class Breaks(Counted):
        def step(self, action: Any) -> Any:
            raise OSError("gone")

    with pytest.raises(DataError, match="gone"):
        quick(agent="Random", env=Breaks)


def test_an_error_in_close_is_said_and_ends_nothing(quick: Any) -> None:
    class Stuck(Counted):
        def close(self) -> None:
            super().close()
            raise OSError("no answer")

    with pytest.warns(UserWarning, match=r"Stuck.close\(\) raised OSError: no answer"):
        run = quick(agent="Random", env=Stuck, num_envs=2)
    assert "return" in run.metrics


ALONE = pytest.mark.filterwarnings("ignore:No second .* can be open")


def test_one_that_can_be_open_once_is_evaluated_where_it_is_learnt(quick: Any) -> None:
    Counted.limit = 1
    with pytest.warns(
        UserWarning, match="No second Counted.*port is in use.*truncates its episode"
    ):
        run = quick(agent="Random", env=Counted, eval_every=20, eval_episodes=4)
    assert Counted.made == 1
    alone = EnvTask(Diary, name="Diary", num_envs=1)
    alone.evaluation.lacking = "There is no other."
    returns, _ = alone.evaluate(lambda obs, *_: np.zeros(len(obs), np.int64), episodes=4)
    assert run.metrics["return"] == pytest.approx(np.mean(returns))  # The same at each evaluation.


class Nine(Counted):
    length = 9


@ALONE
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"nstep": 3}, {"frame_stack": 2}], ids=str)
def test_evaluation_there_leaves_whole_transitions(
    settings: Any, num_envs: int, quick: Any
) -> None:
    """Episodes in progress end there, truncated, with their real last observation."""
    Counted.limit = num_envs
    settings = {**settings, "num_envs": num_envs, "train_steps": 120, "eval_every": 12}
    run = quick(agent="Random", env=Nine, **settings)
    assert Counted.made == num_envs
    batch = everything(run)
    before, after = batch.obs.reshape(len(batch), -1, 2), batch.next_obs.reshape(len(batch), -1, 2)
    assert torch.equal(before[:, -1, 0], after[:, -1, 0])  # Never across two episodes.
    assert torch.equal(after[:, 0, 0], after[:, -1, 0])  # Nor do stacks.
    assert torch.all(after[:, -1, 1] > before[:, -1, 1])
    broken_off = batch.truncated & (after[:, -1, 1] < 9)
    assert int(broken_off.sum()) >= 120 // 12 - 1
    assert torch.equal(batch.discount == 0, batch.terminated)


def test_as_many_as_can_be_open_are_evaluated_in(quick: Any) -> None:
    Counted.limit = 4
    with pytest.warns(UserWarning, match="Only 3 of 10 evaluation copies of Counted"):
        run = quick(agent="Random", env=Counted, eval_episodes=10)
    assert (Counted.made, Counted.most) == (4, 4)
    assert run.metrics["episode_length"] > 0


@ALONE
def test_what_is_learnt_in_comes_first(quick: Any) -> None:
    """Two tasks may open two: one each, and not both for the first."""
    Counted.limit = 2
    run = quick(agent="Random", env=[Counted, Counted], eval_episodes=2)
    assert run.accuracy_matrix.shape == (2, 2)


class TestAnInstance:
    def test_is_used_as_it_is_and_left_open(self, quick: Any) -> None:
        env = Counted()
        run = quick(agent="Random", env=env, eval_episodes=0)
        assert run.metrics == {}
        assert Counted.open == 1
        check_diary(everything(run))
        env.reset(seed=0)
        env.close()

    def test_is_evaluated_in_too_which_the_run_says(self, quick: Any) -> None:
        env = gymnasium.make("CartPole-v1")
        env.unwrapped.x_threshold = 1e-6  # type: ignore[attr-defined]
        with pytest.warns(UserWarning, match="No second CartPole-v1.*instance of CartPoleEnv"):
            run = quick(agent="Random", env=env)
        assert run.metrics["return"] == 1  # No other CartPole ends at its first step.
        env.reset()

    def test_may_be_a_vector_environment(self, quick: Any) -> None:
        envs = SyncVectorEnv([Counted, Counted])
        run = quick(agent="Random", env=envs, eval_episodes=0, train_steps=40)
        assert run.history[-1]["step"] == 40
        envs.close()

    @pytest.mark.parametrize(
        "more", [{"num_envs": 2}, {"vectorization": "async"}, {"env.longest": 3}], ids=str
    )
    def test_cannot_be_copied_or_made_otherwise(self, more: Any, quick: Any) -> None:
        words = [f"{key}={value}" for key, value in more.items() if "." in key]
        rest = {key: value for key, value in more.items() if "." not in key}
        env = Diary()
        with pytest.raises(ConfigError, match=r"cannot be copied|is already constructed"):
            quick(*words, agent="Random", env=env, eval_episodes=0, **rest)


class TestNoEvaluation:
    def test_has_rows_of_training_alone(self, quick: Any) -> None:
        run = quick(agent="Random", env=Counted, eval_episodes=0)
        assert {row["mode"] for row in run.history} == {"train"}
        assert any("return" in row for row in run.history)
        assert run.metrics == {}

    def test_leaves_matrices_empty_and_draws(self, quick: Any, tmp_path: Any) -> None:
        settings = {"agent": "Random", "eval_episodes": 0, "plot": True, "path": tmp_path / "run"}
        run = quick(env=[Counted, Counted], **settings)
        assert np.isnan(run.accuracy_matrix).all()
        assert run.metrics == {}
        assert (run.path / "plots").is_dir()

    @pytest.mark.parametrize(
        "words",
        [
            ["early_stopping.patience=2"],
            ["early_stopping.restore=true"],
            ["scheduler=ReduceLROnPlateau", "scheduler.mode=max", "agent=DQN"],
            ["video=true"],
        ],
        ids=str,
    )
    def test_refuses_what_needs_one(self, words: list[str], quick: Any) -> None:
        with pytest.raises(ConfigError, match="eval_episodes=0, which makes no evaluations"):
            quick(
                "agent=Random" if len(words) < 3 else words[2],
                *words[:2],
                env=Counted,
                eval_episodes=0,
            )

    def test_says_what_has_no_effect(self, quick: Any) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            quick(agent="Random", env=Counted, eval_episodes=0, eval_every=5, eval_limit=3)
        said = " ".join(str(warning.message) for warning in told)
        assert "`eval_every` has no effect" in said
        assert "`eval_limit` has no effect" in said


def test_a_reset_without_a_seed_is_refused(quick: Any) -> None:
    class Old(Counted):
        def reset(self) -> Any:  # type: ignore[override]
            return self._obs(), {}

    with pytest.raises(
        ConfigError, match=r"Old.reset\(\) has no parameter `seed`. Write reset\(self, \*, seed"
    ):
        quick(agent="Random", env=Old)
    gc.collect()
