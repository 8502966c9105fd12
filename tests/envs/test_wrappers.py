"""frame_stack, action_repeat, time_limit and discrete, by what models meet and environments get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from antelope.envs import EnvTask
from antelope.envs.wrappers import Largest, wrapped
from antelope.replay import Batch, ConfigError

from .test_copies import KINDS, everything
from .toys import Diary, Echo, Endless, Reader, check_diary, echo, flat

UNWRAPPED: dict[str, Any] = {"discrete": None, "bins": 11, "action_repeat": 1, "time_limit": None}


class Films(Reader):
    """Checks stacks of three frames: the newest last, none of another episode."""

    def learn(self, replay: Any) -> Tensor:
        self.learnt += 1
        batch = next(replay)
        check_stacks(batch)
        return (batch.obs[:, :2] / 1e6 @ self.weight).square().mean()


def check_stacks(batch: Any) -> None:
    assert torch.equal(batch.seen, batch.obs)  # As it was acted on.
    for obs in (batch.obs, batch.next_obs):
        frames = obs.view(len(batch), 3, 2)
        newest = frames[:, -1]
        assert bool((frames[..., 0] == newest[:, :1]).all())
        # Frames of before the start are the first again.
        expected = (newest[:, 1:] - torch.tensor([2.0, 1.0, 0.0])).clamp(min=0)
        assert torch.equal(frames[..., 1], expected)
    single = {**batch, "obs": batch.obs[:, -2:], "next_obs": batch.next_obs[:, -2:]}
    check_diary(Batch(**single))


@pytest.mark.parametrize("kind", KINDS)
def test_frame_stack_of_vectors(kind: str, quick: Any) -> None:
    run = quick(model=Films, frame_stack=3, eval_every=30, **KINDS[kind])
    assert run.spec.obs.shape == (6,)
    batch = everything(run)
    check_stacks(batch)
    assert len(batch) == run.history[-1]["step"]


class Pictures(Diary):
    """The diary's two numbers as a picture's brightness, and beside it as they are."""

    observation_space: Any

    def __init__(self) -> None:
        super().__init__()
        image = spaces.Box(0, 255, (8, 6), np.uint8)
        self.observation_space = spaces.Dict(
            {"eye": image, "diary": self.observation_space, "odd": spaces.Discrete(2)}
        )

    def _obs(self) -> Any:
        image = np.full((8, 6), 10 * self.count, np.uint8)
        return {"eye": image, "diary": super()._obs(), "odd": self.episode % 2}


class Watches(nn.Module):
    def __init__(self, obs_spec: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.obs_spec = obs_spec

    def act(self, obs: Any) -> Any:
        return torch.zeros(len(obs["eye"]), dtype=torch.long), {"seen": flat(obs)}

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        assert torch.equal(flat(batch.obs), batch.seen)
        eye, diary = batch.obs["eye"], batch.obs["diary"]
        assert eye.shape == (16, 2, 8, 6)
        assert diary.shape == (16, 4)
        assert torch.equal(batch.obs["odd"][:, 1], batch.obs["diary"][:, 2] % 2)
        for frame in (0, 1):
            brightness = diary[:, 2 * frame + 1] * 10 / 255
            assert torch.allclose(eye[:, frame, 3, 3], brightness)
        # The stack of the observation after it is one frame on.
        assert torch.equal(batch.next_obs["eye"][:, 0], eye[:, 1])
        return self.weight.sum()


@pytest.mark.parametrize("settings", [{}, {"num_envs": 2, "vectorization": "async"}])
def test_frame_stack_of_images_and_dicts(settings: Any, quick: Any) -> None:
    run = quick(model=Watches, env=Pictures, frame_stack=2, **settings)
    assert run.metrics["episode_length"] >= 1


@pytest.mark.parametrize("shape", [(8, 6, 3), (3, 8, 6)])
def test_frame_stack_of_coloured_images(shape: tuple[int, ...], quick: Any) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    run = quick(agent="Random", env=echo(space), frame_stack=4, train_steps=30)
    assert run.spec.obs.shape == (12, 8, 6)
    assert run.replay.sample(5).obs.shape == (5, 12, 8, 6)


def test_action_repeat_sums_rewards_and_stops_at_the_end(quick: Any) -> None:
    run = quick(agent="Random", env=Diary, action_repeat=2)
    batch = everything(run)
    assert len(batch) == 60
    episode, step = batch.obs[:, 0], batch.obs[:, 1]
    length = 1 + episode % 5
    taken = torch.minimum(length - step, torch.tensor(2.0))
    assert torch.equal(batch.next_obs[:, 1], step + taken)
    last = taken * (episode % 10) + (step + 1) / 10 + (taken == 2) * (step + 2) / 10
    assert torch.allclose(batch.reward, last, atol=1e-5)
    assert torch.equal(batch.terminated | batch.truncated, step + taken == length)


@pytest.mark.parametrize(
    "settings", [{}, {"num_envs": 2}, {"num_envs": 2, "vectorization": "async"}]
)
def test_time_limits_truncate_and_bootstrap(settings: Any, quick: Any) -> None:
    batch = everything(quick(agent="Random", env=Endless, time_limit=4, **settings))
    assert torch.equal(batch.truncated, batch.next_obs[:, 1] == 4)
    assert int(batch.truncated.sum()) > 10
    assert not bool(batch.terminated.any())
    assert torch.allclose(batch.discount, torch.full_like(batch.discount, 0.99))
    assert torch.equal(batch.next_obs[:, 0], batch.obs[:, 0])


def test_a_time_limit_keeps_shorter_ones_of_the_environment(quick: Any) -> None:
    run = quick(agent="Random", env="Pendulum-v1", time_limit=500, train_steps=10)
    assert run.metrics["episode_length"] == 200
    run = quick(agent="Random", env="Pendulum-v1", time_limit=7, train_steps=10)
    assert run.metrics["episode_length"] == 7


def test_a_time_limit_counts_repeated_actions_once(quick: Any) -> None:
    run = quick(agent="Random", env=Endless, time_limit=4, action_repeat=3, train_steps=20)
    assert everything(run).next_obs[:, 1].max() == 12
    assert run.metrics["episode_length"] == 4


def test_discrete_cuts_one_value_into_bins(quick: Any) -> None:
    run = quick(agent="Random", env="Pendulum-v1", discrete=True, train_steps=100)
    action = run.spec.action
    assert (action.shape, action.discrete, action.nvec) == ((11,), True, ())
    assert run.replay.sample(50).action.unique().tolist() == list(range(11))
    run = quick("bins=3", agent="Random", env="Pendulum-v1", discrete=True, train_steps=10)
    assert run.spec.action.n == 3


def test_bins_are_the_middles_of_equal_parts() -> None:
    env = wrapped(echo(action=spaces.Box(-2, 4, (1,))), **UNWRAPPED | {"discrete": True, "bins": 3})
    assert [float(env.action(i)[0]) for i in range(3)] == [-1, 1, 3]


def test_several_values_become_one_choice_or_one_each(quick: Any) -> None:
    def box(n: int) -> Any:
        return echo(action=spaces.Box(-1, 1, (n,), np.float32))

    run = quick(agent="Random", env=box(3), discrete=True, train_steps=10)
    assert (run.spec.action.n, run.spec.action.nvec) == (11**3, ())
    run = quick(agent="Random", env=box(5), discrete=True, train_steps=10)
    assert run.spec.action.nvec == (11,) * 5  # 11^5 choices are too many to score.
    assert run.replay.sample(4).action.shape == (4, 5)


def test_discrete_false_takes_the_largest(quick: Any) -> None:
    run = quick(agent="Random", env="CartPole-v1", discrete=False, train_steps=50)
    action = run.spec.action
    assert (action.shape, action.discrete) == ((2,), False)
    assert (action.low.tolist(), action.high.tolist()) == ([-1, -1], [1, 1])
    env = Largest(Echo(action=spaces.Discrete(3, start=5)))
    assert env.action(np.array([0.1, 0.9, -1])) == 6


@pytest.mark.parametrize("discrete", [True, False])
def test_actions_that_are_so_already_stay_so(discrete: bool, quick: Any) -> None:
    space = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,), np.float32)
    run = quick(agent="Random", env=echo(action=space), discrete=discrete, train_steps=5)
    assert run.spec.action.shape == ((3,) if discrete else (2,))


@pytest.mark.parametrize(
    ("space", "discrete", "message"),
    [
        (spaces.MultiBinary(2), True, "discrete=true converts Box and Discrete.* not MultiBinary"),
        (spaces.MultiDiscrete([2, 2]), False, "discrete=false converts .* not MultiDiscrete"),
        (spaces.Dict({"a": spaces.Discrete(2)}), True, "not Dict"),
        (spaces.Box(-np.inf, np.inf, (1,)), True, "discrete=true needs bounded actions"),
        (spaces.Box(0, np.inf, (1,)), True, "discrete=true needs bounded actions"),
    ],
)
def test_what_cannot_be_converted(space: Any, discrete: bool, message: str, quick: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(agent="Random", env=echo(action=space), discrete=discrete)


def test_discrete_agents_learn_in_binned_environments(quick: Any) -> None:
    run = quick("model.hidden=[8]", agent="DQN", env="Pendulum-v1", discrete=True, time_limit=20)
    assert run.agent.num_actions == 11


def test_wrappers_are_around_the_evaluated_environments_too() -> None:
    task = EnvTask(lambda: wrapped(Endless, **UNWRAPPED | {"time_limit": 6}), name="x", num_envs=1)
    _, lengths = task.evaluate(lambda obs, *_: np.zeros(len(obs), np.int64), episodes=3)
    assert lengths == [6, 6, 6]
