"""Several copies at once, of every kind: no transition joins two episodes, and steps are counted."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor, nn

from antelope.envs import EnvTask
from antelope.envs.copies import Copies
from antelope.envs.vector import Vector
from antelope.replay import Batch, ConfigError, DataError

from .toys import Diary, Echo, Endless, Reader, check_diary


def everything(run: Any) -> Batch:
    """All transitions of a run, as batches have them."""
    storage = run.replay.storage
    rows = np.flatnonzero(storage.drawable)
    return Batch(**run.replay.transform(storage.gather(rows)))


def vector(mode: AutoresetMode, n: int = 3, kind: Any = SyncVectorEnv, env: Any = Diary) -> Any:
    def make() -> VectorEnv:
        return kind([env] * n, autoreset_mode=mode)

    return make


KINDS: dict[str, dict[str, Any]] = {
    "one": {"env": Diary},
    "sync": {"env": Diary, "num_envs": 3},
    "async": {"env": Diary, "num_envs": 3, "vectorization": "async"},
    "next step": {"env": vector(AutoresetMode.NEXT_STEP)},
    "next step, alone": {"env": vector(AutoresetMode.NEXT_STEP, 1)},
    "next step, processes": {"env": vector(AutoresetMode.NEXT_STEP, 3, AsyncVectorEnv)},
    "same step": {"env": vector(AutoresetMode.SAME_STEP)},
    "told": {"env": vector(AutoresetMode.DISABLED)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_transition_joins_two_episodes(kind: str, quick: Any) -> None:
    run = quick(model=Reader, eval_every=30, **KINDS[kind])
    batch = everything(run)
    check_diary(batch)
    assert torch.equal(batch.seen, batch.obs)
    steps = run.history[-1]["step"]
    assert len(batch) == len(run.replay) == steps  # A step that only resets is none.
    assert 60 <= steps < 60 + run.replay.storage.num_envs
    assert run.agent.learnt == steps
    assert set(batch.action.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_are_whole_and_in_order(kind: str, quick: Any) -> None:
    storage = quick(model=Reader, **KINDS[kind]).replay.storage
    for copy in range(storage.num_envs):
        rows = np.arange(copy, storage.size, storage.num_envs)
        obs = storage.gather(rows[storage.drawable[rows]])["obs"].long().tolist()
        starts = [i for i, (_, step) in enumerate(obs) if step == 0]
        assert len(starts) > 3
        for begin, end in itertools.pairwise(starts):
            episode = obs[begin][0]
            assert obs[begin:end] == [[episode, step] for step in range(1 + episode % 5)]
        assert len({obs[start][0] for start in starts}) == len(starts)  # Each with its own seed.


def test_processes_and_copies_in_one_give_the_same_streams(quick: Any) -> None:
    runs = [
        quick(model=Reader, env=Diary, num_envs=3, vectorization=how, path=f"{how}", seed=5)
        for how in ("sync", "async")
    ]
    one, other = (everything(run) for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    different = everything(quick(model=Reader, env=Diary, num_envs=3, path="other", seed=6))
    assert not torch.equal(one.obs, different.obs)


@pytest.fixture(autouse=True)
def _workdir(workdir: Any) -> None:
    """Runs are written below the test's own directory."""


class Counts(nn.Module):
    """Notes at how many environment steps it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def act(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.long)

    def learn(self, replay: Any) -> None:
        self.seen.append(len(replay))


@pytest.mark.parametrize(
    ("num_envs", "learn_every", "seed_steps", "learnt"),
    [
        (1, 1, 0, list(range(1, 31))),
        (1, 4, 0, [4, 8, 12, 16, 20, 24, 28]),
        (1, 4, 10, [12, 16, 20, 24, 28]),
        (1, 1, 27, [27, 28, 29, 30]),
        (3, 1, 0, [n for n in range(3, 31, 3) for _ in range(3)]),
        (3, 2, 20, [21, 24, 24, 27, 30, 30]),  # Of 20 and of 21, of 22 and 24, of 26, of 28 and 30.
        (3, 30, 0, [30]),
    ],
)
def test_learning_steps_follow_environment_steps(
    num_envs: int, learn_every: int, seed_steps: int, learnt: list[int], quick: Any
) -> None:
    settings = {"learn_every": learn_every, "seed_steps": seed_steps, "num_envs": num_envs}
    run = quick(model=Counts, env=Diary, train_steps=30, **settings)
    assert run.agent.seen == learnt
    assert run.history[-1]["step"] == 30


def test_steps_that_only_reset_are_not_learnt_from(quick: Any) -> None:
    run = quick(model=Counts, env=vector(AutoresetMode.NEXT_STEP, 1), train_steps=30)
    assert run.agent.seen == list(range(1, 31))


def test_cartpoles_own_vector_form(quick: Any) -> None:
    settings = {"num_envs": 4, "train_steps": 400, "eval_every": 200, "eval_episodes": 3}
    run = quick(agent="Random", env="CartPole-v1", vectorization="vector_entry_point", **settings)
    batch = everything(run)
    assert len(batch) == run.history[-1]["step"] >= 400
    # The position after 0.02 seconds, at an episode's end too.
    moved = batch.obs[:, 0] + 0.02 * batch.obs[:, 1]
    assert torch.allclose(batch.next_obs[:, 0], moved, atol=1e-6)
    assert int(batch.terminated.sum()) > 8
    assert bool((batch.next_obs[batch.terminated][:, 2].abs() > 0.2).all())
    assert bool((batch.reward == 1).all())
    again = quick(
        agent="Random", env="CartPole-v1", vectorization="vector_entry_point", path="2", **settings
    )
    assert torch.equal(everything(again).obs, batch.obs)
    assert again.history == run.history


def test_last_observations_of_dicts_in_the_same_step(quick: Any) -> None:
    class Parts(Diary):
        observation_space: Any

        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"diary": self.observation_space})

        def _obs(self) -> Any:
            return {"diary": super()._obs()}

    run = quick(agent="Random", env=vector(AutoresetMode.SAME_STEP, env=Parts))
    batch = everything(run)
    flat = {**batch, "obs": batch.obs["diary"], "next_obs": batch.next_obs["diary"]}
    check_diary(Batch(**flat))


class OneSeed(VectorEnv):
    """Two diaries in a form of their own, which takes a single seed and gives the same arrays."""

    def __init__(self, mode: AutoresetMode = AutoresetMode.DISABLED, infos: bool = True) -> None:
        self.inner = SyncVectorEnv([Diary] * 2, autoreset_mode=mode, copy=False)
        self.num_envs, self.metadata = 2, self.inner.metadata
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space
        self.infos = infos

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        seeds: list[int | None] = [int(s) for s in self.np_random.integers(1 << 30, size=2)]
        return self.inner.reset(seed=seeds, options=options)

    def step(self, actions: Any) -> Any:
        *step, infos = self.inner.step(actions)
        return (*step, infos if self.infos else {})


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_environments_with_one_seed_for_all(mode: AutoresetMode, quick: Any) -> None:
    batch = everything(quick(model=Reader, env=functools.partial(OneSeed, mode), train_steps=100))
    check_diary(batch)
    begun = batch.obs[batch.obs[:, 1] == 0]
    assert len(begun.unique(dim=0)) == len(begun) > 20  # Their stream of seeds goes on.


def test_same_step_without_last_observations_is_an_error(quick: Any) -> None:
    def silent() -> VectorEnv:
        return OneSeed(AutoresetMode.SAME_STEP, infos=False)

    with pytest.raises(DataError, match=r"silent \(copy . of 2\) returned no `final_obs`"):
        quick(model=Reader, env=silent)


class Spaceless(gymnasium.Env):
    """Forgets to say what it gives and takes."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"env": vector(AutoresetMode.NEXT_STEP), "num_envs": 4},
            "num_envs=4, but make is a vector environment with 3 copies",
        ),
        (
            {"env": vector(AutoresetMode.NEXT_STEP), "vectorization": "async"},
            "vectorization=async needs single environments; make is already a vector environment",
        ),
        (
            {"env": Diary, "vectorization": "vector_entry_point"},
            "Diary has no vector form of its own. Use sync or async",
        ),
        (
            {"env": "Pendulum-v1", "vectorization": "vector_entry_point"},
            "Pendulum-v1 has no vector form of its own",
        ),
        (
            {"env": vector(AutoresetMode.NEXT_STEP), "time_limit": 3},
            "time_limit wrap single environments; this one is a vector environment",
        ),
        (
            {"env": [Diary, vector(AutoresetMode.NEXT_STEP)]},
            "Diary has num_envs=1, and make has num_envs=3",
        ),
        ({"env": lambda: "no"}, "returned a str, not a gymnasium.Env"),
        ({"env": Spaceless}, "Spaceless.observation_space is missing. Set it in __init__"),
    ],
)
def test_what_cannot_run_in_parallel(settings: Any, message: str, quick: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(agent="Random", **settings)


def test_copies_that_differ_are_refused() -> None:
    widths = iter(range(1, 9))

    def make() -> Echo:
        return Echo(spaces.Box(-1, 1, (next(widths),), np.float32))

    with pytest.raises(ConfigError, match="Copies of Wide differ in their spaces"):
        EnvTask(make, name="Wide", num_envs=2)


def test_each_episode_has_a_seed_of_its_own() -> None:
    copies = Copies(Diary, name="Diary", num_envs=2, seed=1)
    seen = set()
    for _ in range(3):
        copies.reset()
        seen |= {copies.episode_seed(copy) for copy in range(2)}
    assert len(seen) == 6
    assert max(seen) < 2**31  # Simulators written in C take no more.


def test_copies_that_are_not_stepped_show_zeros() -> None:
    copies = Copies(Diary, name="Diary", num_envs=3)
    copies.reset()
    step = copies.step(np.zeros(3, np.int64), np.array([True, False, True]))
    assert step.next_obs[1].tolist() == [0, 0]
    assert step.next_obs[[0, 2], 1].tolist() == [1, 1]
    assert copies.steps == [1, 0, 1]


def test_environments_that_reuse_one_array_for_all_observations() -> None:
    class Reuses(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.array = np.zeros(2, np.float32)

        def _obs(self) -> np.ndarray:
            self.array[:] = super()._obs()
            return self.array

    for envs in (
        Copies(Reuses, name="Reuses", num_envs=2),
        Vector(OneSeed(), name="OneSeed"),
    ):
        before = envs.reset()
        kept = before.copy()
        for _ in range(9):
            step = envs.step(np.zeros(2, np.int64))
            assert np.array_equal(before, kept)
            began = step.began if step.began is not None else np.zeros(2, bool)
            assert (step.first[began][:, 1] == 0).all()
            assert (step.next_obs[:, 1] > 0).all()
            before, kept = step.first, step.first.copy()


def test_an_endless_episode_does_not_keep_all_its_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("copies", "vector"):
        monkeypatch.setattr(f"antelope.envs.{kind}.LONGEST_KEPT", 5)
    copies = Copies(Endless, name="Endless", num_envs=1)
    copies.reset()
    for _ in range(5):
        copies.step(np.zeros(1, np.int64))
    assert copies.play_again()[0, 1] == 5
    copies.step(np.zeros(1, np.int64))
    assert (len(copies.actions[0]), copies.steps) == (5, [6])
    assert copies.play_again() is None


def test_rewards_and_ends_may_be_arrays_of_one(quick: Any) -> None:
    class Arrays(Diary):
        def step(self, action: Any) -> Any:
            obs, reward, dead, over, info = super().step(action)
            return obs, np.array([reward]), np.array([dead]), np.bool_(over), info

    check_diary(everything(quick(model=Reader, env=Arrays)))


def test_a_gymnasium_id_takes_arguments(quick: Any) -> None:
    run = quick("env.g=1.0", agent="Random", env="Pendulum-v1", num_envs=2, train_steps=10)
    assert isinstance(run.replay.storage.num_envs, int)
    task = EnvTask(lambda: gymnasium.make("Pendulum-v1"), name="x", num_envs=1)
    assert task.name == "Pendulum-v1"
