"""Environments as tasks: evaluation that leaves no trace, episodes that continue, shared spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.nn import functional as F

from antelope.envs import EnvTask, EnvWorld
from antelope.replay import ConfigError, Observations, Replay, Transitions

from .test_copies import KINDS, everything, vector
from .toys import Diary, Echo, Reader, check_diary, echo


class Seeds(Diary):
    """Remembers all episodes that any copy in this process began."""

    begun: list[int] = []  # noqa: RUF012 - shared on purpose.

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed)
        Seeds.begun.append(self.episode)
        return result


def idle(obs: Any, *_: Any) -> np.ndarray:
    return np.zeros(len(obs), np.int64)


class TestEvaluation:
    def test_plays_whole_episodes_and_the_same_ones_each_time(self) -> None:
        task = EnvTask(Diary, name="Diary", num_envs=1)
        returns, lengths = task.evaluate(idle, episodes=7)
        assert len(returns) == 7
        assert len(set(returns)) > 3
        assert task.evaluate(idle, episodes=7) == (returns, lengths)
        assert EnvTask(Diary, name="Diary", num_envs=3, seed=9).evaluate(idle, episodes=7) == (
            returns,
            lengths,
        )

    def test_scores_what_the_environment_gives(self) -> None:
        Seeds.begun.clear()
        task = EnvTask(Seeds, name="Seeds", num_envs=1)
        returns, lengths = task.evaluate(idle, episodes=4)
        first = Seeds.begun[:4]  # One in each of four copies.
        assert lengths == [1 + episode % 5 for episode in first]
        expected = [
            sum(episode % 10 + step / 10 for step in range(1, n + 1))
            for episode, n in zip(first, lengths, strict=True)
        ]
        assert returns == pytest.approx(expected)

    @pytest.mark.parametrize("episodes", [1, 5, 10, 23])
    def test_gives_every_copy_its_share(self, episodes: int) -> None:
        """Of episodes played at once, short ones come first: they must not crowd out the others."""
        Seeds.begun.clear()
        task = EnvTask(Seeds, name="Seeds", num_envs=1)
        _, lengths = task.evaluate(idle, episodes=episodes)
        copies = min(episodes, 10)
        played = {copy: [] for copy in range(copies)}  # type: ignore[var-annotated]
        for number, length in enumerate(lengths):
            played[number % copies].append(length)
        assert {len(share) for share in played.values()} <= {
            episodes // copies,
            -(-episodes // copies),
        }
        # Each copy's episodes are those of its own seeds, one after another.
        for copy, share in played.items():
            env = Diary()
            for number, length in enumerate(share, 1):
                seed = task.evaluation.envs and _seed_of(task, copy, number)
                env.reset(seed=seed)
                assert env.length == length

    def test_begins_with_what_is_an_episodes_first(self) -> None:
        calls: list[tuple[Any, Any]] = []

        def watch(obs: Any, began: Any, info: Any) -> np.ndarray:
            calls.append((obs[:, 1].copy(), began.copy()))
            return idle(obs)

        EnvTask(Diary, name="Diary", num_envs=1).evaluate(watch, episodes=12)
        for steps, began in calls:
            assert not steps[began].any()
        assert calls[0][1].all()

    @pytest.mark.parametrize(
        "kind", ["next step", "next step, alone", "same step", "told", "next step, processes"]
    )
    def test_in_vector_environments(self, kind: str) -> None:
        task = EnvTask(KINDS[kind]["env"], name="x", num_envs=1)
        first = task.evaluate(idle, episodes=8)
        assert len(first[0]) == 8
        assert task.evaluate(idle, episodes=8) == first
        assert set(first[1]) <= {1, 2, 3, 4, 5}
        task.close()

    @pytest.mark.parametrize(
        "space",
        [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Dict({"a": spaces.Discrete(2)})],
        ids=str,
    )
    def test_copies_that_are_done_give_nothing_odd_to_the_model(
        self, space: Any, quick: Any
    ) -> None:
        """One-hot vectors cannot be made of what happens to be in memory."""

        class Uneven(Echo):
            def __init__(self) -> None:
                super().__init__(space)

            def step(self, action: Any) -> Any:
                *given, _, info = super().step(action)
                return (*given, self.np_random.random() < 0.2, info)

        junk = [np.full(999, -7) for _ in range(50)]
        del junk
        run = quick(agent="Random", env=Uneven, eval_episodes=10, eval_every=20)
        assert run.metrics["episode_length"] <= 7

    @pytest.mark.parametrize("kind", KINDS)
    def test_leaves_no_trace_in_training(self, kind: str, quick: Any, tmp_path: Any) -> None:
        runs = [
            quick(model=Noisy, **KINDS[kind], path=tmp_path / name, **settings)
            for name, settings in (
                ("never", {}),
                ("often", {"eval_every": 3, "eval_episodes": 3}),
            )
        ]
        weights = [dict(run.agent.named_parameters()) for run in runs]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        batches = [everything(run) for run in runs]
        assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])

    def test_is_greedy_and_the_same_while_nothing_is_learnt(self, quick: Any) -> None:
        run = quick(model=Noisy, env=Diary, eval_every=10, eval_episodes=4, seed_steps=1000)
        rows = [row for row in run.history if row["mode"] == "eval"]
        assert len(rows) == 6
        assert len({row["return"] for row in rows}) == 1
        assert run.agent.explored == 60

    def test_metrics_are_means_over_episodes(self, quick: Any) -> None:
        run = quick(agent="Random", env=Diary, eval_episodes=7)
        returns, lengths = EnvTask(Diary, name="Diary", num_envs=1).evaluate(idle, episodes=7)
        assert run.metrics == {
            "return": pytest.approx(np.mean(returns)),
            "return_stddev": pytest.approx(np.std(returns)),
            "episode_length": pytest.approx(np.mean(lengths)),
        }


def _seed_of(task: EnvTask, copy: int, episode: int) -> int:
    from antelope.envs.evaluation import EVALUATION_SEED
    from antelope.envs.step import seed_of_episode

    return seed_of_episode(EVALUATION_SEED, copy, episode)


class Noisy(nn.Module):
    """Explores by all of the global random streams, and by one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.stream = torch.Generator().manual_seed(0)
        self.explored = 0

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(F.dropout(obs / 1e6, 0.5, self.training))

    def act(self, obs: Tensor) -> Tensor:
        value = self(obs)
        if not self.training:
            torch.rand(3), np.random.rand(3)
            return value.argmax(1)
        self.explored += len(obs)
        value = value + torch.rand(3) + np.random.rand() * torch.arange(3)
        return (value + torch.rand(3, generator=self.stream)).argmax(1)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        value = self(batch.obs).gather(1, batch.action[:, None])[:, 0]
        return (value - batch.reward).square().mean()


class TestTraining:
    def test_returns_are_of_the_episodes_that_ended(self) -> None:
        task = EnvTask(Diary, name="Diary", num_envs=2)
        task.reset()
        expected: list[float] = []
        running = [0.0, 0.0]
        for _ in range(30):
            step = task.step(np.zeros(2, np.int64))["step"]
            for copy in range(2):
                running[copy] += float(step["reward"][copy])
                if step["terminated"][copy] or step["truncated"][copy]:
                    expected.append(running[copy])
                    running[copy] = 0.0
        assert task.episodes.take() == pytest.approx(expected)
        assert task.episodes.take() == []

    @pytest.mark.parametrize("kind", ["sync", "next step", "same step", "told"])
    def test_logged_returns_are_those_of_the_diary(self, kind: str, quick: Any) -> None:
        run = quick(model=Reader, **KINDS[kind], log_every=1)
        batch = everything(run)
        logged = [
            row["return"] for row in run.history if row["mode"] == "train" and "return" in row
        ]
        assert logged
        ended = batch.terminated | batch.truncated
        episodes = batch.obs[ended][:, 0].double()
        lengths = 1 + episodes % 5
        returns = lengths * (episodes % 10) + lengths * (lengths + 1) / 20
        assert min(returns) - 1e-4 <= min(logged)
        assert max(logged) <= max(returns) + 1e-4

    def test_a_task_for_each_environment(self, quick: Any) -> None:
        run = quick(agent="Random", env=[Diary, Diary], train_steps=30, num_envs=2)
        batch = everything(run)
        check_diary_tasks(batch)
        assert run.spec.num_tasks == 2
        assert run.accuracy_matrix.shape == (2, 2)


def check_diary_tasks(batch: Any) -> None:
    assert batch.task.bincount().tolist() == [30, 30]
    # The last steps of the first task are cut off there, as `truncated` says.
    cut = batch.truncated & (batch.next_obs[:, 1] != 1 + batch.obs[:, 0] % 5)
    assert int(cut.sum()) <= 2
    kept = batch[~cut]
    check_diary(kept)


class TestSpaces:
    def wide(self) -> EnvTask:
        return EnvTask(echo(spaces.Box(-1, 1, (4,))), name="Wide", num_envs=1)

    def narrow(self) -> EnvTask:
        return EnvTask(echo(spaces.Box(-1, 1, (2,))), name="Narrow", num_envs=1)

    def test_environments_of_one_run_share_them(self) -> None:
        with pytest.raises(
            ConfigError,
            match=r"observations of Wide are float32 4, those of Narrow float32 2\. .*numpy",
        ):
            EnvWorld([self.wide(), self.narrow()])
        assert EnvWorld([self.wide(), self.wide()]).spec.num_tasks == 2

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (spaces.Discrete(2), spaces.Discrete(3)),
            (spaces.Discrete(2), spaces.MultiBinary(2)),
            (spaces.Box(-1, 1, (2,)), spaces.Box(-2, 2, (2,))),
            (spaces.Dict({"a": spaces.Discrete(2)}), spaces.Dict({"b": spaces.Discrete(2)})),
            (spaces.Dict({"a": spaces.Discrete(2)}), spaces.Discrete(2)),
        ],
    )
    def test_actions_too(self, one: Any, other: Any, quick: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"must share their spaces, .*\n- The actions.* of Echo"
        ):
            quick(agent="Random", env=[echo(action=one), echo(action=other)])

    def test_bounds_of_observations_may_differ(self) -> None:
        far = EnvTask(echo(spaces.Box(-9, 9, (4,))), name="Far", num_envs=1)
        assert EnvWorld([self.wide(), far]).name == "Wide-Far"

    def test_the_spec_reads_well(self) -> None:
        space = spaces.Dict(
            {"eye": spaces.Box(0, 255, (8, 6), np.uint8), "mode": spaces.Discrete(2)}
        )
        task = EnvTask(echo(space, spaces.MultiDiscrete([2, 3])), name="x", num_envs=1)
        assert str(task.spec) == "{eye: uint8 1x8x6, mode: one of 2} -> one of 2 and one of 3"


class Opaque(Diary):
    """Holds what cannot be described, as a simulator written in C does."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = iter(range(3))


class Film(EnvTask):
    """With stacks of frames, which have to be put back too."""

    def __init__(self, make: Any, **settings: Any):
        super().__init__(make, name="Film", stack=3, **settings)


class TestContinuation:
    """Episodes in progress are put back exactly, by their seeds and actions."""

    @pytest.mark.parametrize("settings", [{}, {"vectorization": "async"}])
    def test_by_playing_again(self, settings: Any) -> None:
        task = Film(Opaque, num_envs=3, **settings)
        self._walk(task, 7)
        state = task.state_dict()
        again = Film(Opaque, num_envs=3, **settings)
        again.reset()
        assert again.load_state_dict(state, play_again=True)
        for one, other in zip(self._walk(task, 12), self._walk(again, 12), strict=True):
            assert np.array_equal(one, other)
        task.close()
        again.close()

    @staticmethod
    def _walk(task: EnvTask, steps: int) -> list[np.ndarray]:
        if task.obs is None:
            task.reset()
        seen = []
        for number in range(steps):
            task.step((np.arange(3) + number) % 3)
            seen += [task.obs.copy(), task.began.copy(), task.episodes.total.copy()]
        return seen

    @pytest.mark.parametrize("settings", [{}, {"vectorization": "async"}])
    def test_an_environment_that_its_seed_does_not_determine_is_found_out(
        self, settings: Any
    ) -> None:
        class Chance(Opaque):
            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                super().reset(seed=seed)
                self.episode = int(np.random.default_rng().integers(1_000_000))
                return self._obs(), {}

        task = Film(Chance, num_envs=3, **settings)
        self._walk(task, 7)
        again = Film(Chance, num_envs=3, **settings)
        again.reset()
        assert not again.load_state_dict(task.state_dict(), play_again=True)
        again.reset()  # It goes on.
        self._walk(again, 7)
        task.close()
        again.close()

    def test_vector_environments_that_choose_their_seeds_cannot(self) -> None:
        task = Film(vector(AutoresetMode.NEXT_STEP), num_envs=3)
        self._walk(task, 7)
        assert not task.load_state_dict(task.state_dict(), play_again=True)

    def test_a_reset_that_is_due_is_not_forgotten(self) -> None:
        def task() -> EnvTask:
            return Film(vector(AutoresetMode.NEXT_STEP), num_envs=3)

        one = task()
        self._walk(one, 1)
        while not one.envs.ended.any():
            self._walk(one, 1)
        again = task()
        again.reset()
        again.envs.envs = one.envs.envs  # As a checkpoint that holds them whole puts them back.
        assert again.load_state_dict(one.state_dict(), play_again=False)
        assert np.array_equal(again.envs.ended, one.envs.ended)
        step = again.step(np.zeros(3, np.int64))
        assert not step["real"].all()

    def test_a_world_begins_anew_where_it_must_and_keeps_what_it_has(self) -> None:
        world = EnvWorld([EnvTask(Diary, name="Diary", num_envs=1)])
        replay = self._replay(world)
        world.begin(0, replay)
        for _ in range(4):
            world.collect(0, self._act, replay)
        again = EnvWorld([EnvTask(Diary, name="Diary", num_envs=1, seed=1)])
        resumed = self._replay(again)
        again.resume(0, resumed, replay.state_dict())
        for _ in range(4):
            again.collect(0, self._act, resumed)
        assert len(resumed) == 8
        batch = resumed.sample(200)
        assert torch.equal(batch.obs[:, 0], batch.next_obs[:, 0])
        assert torch.equal(batch.obs[:, 1] + 1, batch.next_obs[:, 1])

    @staticmethod
    def _act(obs: Any, *_: Any) -> Any:
        return np.zeros(len(obs), np.int64), {"seen": obs.copy()}

    @staticmethod
    def _replay(world: EnvWorld) -> Replay:
        ring = Transitions(world.spec, capacity=50, num_envs=1, discount=0.9)
        return Replay(ring, Observations(world.spec.obs), batch_size=2)


def test_an_extra_must_not_take_the_place_of_a_field() -> None:
    world = EnvWorld([EnvTask(Diary, name="Diary", num_envs=1)])
    replay = TestContinuation._replay(world)
    world.begin(0, replay)
    with pytest.raises(
        ConfigError, match="an extra named `reward`, which every transition already has"
    ):
        world.collect(0, lambda obs, *_: (np.zeros(1, np.int64), {"reward": obs[:, 0]}), replay)


def test_environments_are_closed(quick: Any) -> None:
    closed: list[int] = []

    class Closes(Diary):
        def close(self) -> None:
            closed.append(id(self))

    quick(agent="Random", env=Closes, num_envs=3, eval_episodes=2)
    assert len(closed) == len(set(closed)) == 5  # Three to train in, two to evaluate in.


def test_a_wrapped_gymnasium_environment_keeps_its_name() -> None:
    def make() -> Any:
        return gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1"), 9)

    assert EnvTask(make, name="make", num_envs=1).name == "CartPole-v1"
    assert EnvTask(lambda: SyncVectorEnv([Diary]), name="Several", num_envs=1).name == "Several"
