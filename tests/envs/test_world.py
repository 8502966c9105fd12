"""Both kinds of world answer every member of the protocol, each in the promised form."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from antelope.envs import Arrays, DataWorld, EnvWorld
from antelope.envs.environments import EnvTask
from antelope.envs.wishes import Evaluation, Lengths, ReplayWishes, TaskLength
from antelope.envs.world import World, WorldSpec
from antelope.replay import ConfigError, Replay, Spec

from .toys import Diary

CPU = torch.device("cpu")
WISHES = ReplayWishes(batch_size=4, device=CPU, seed=0, capacity=100)
KINDS = ("data", "env")


def data_world() -> DataWorld:
    """Twelve rows `[2]` in four classes, two in each of two tasks; four rows are held out."""
    labels = torch.arange(4)
    rows = torch.stack([torch.arange(12.0), torch.ones(12)], 1)
    train = Arrays(rows, labels.repeat(3), "mine")
    return DataWorld([train], [Arrays(rows[:4] + 100, labels, "mine")], tasks=2)


def env_world() -> EnvWorld:
    """Two diaries, one of which may be longer, in two copies each."""
    tasks = [
        EnvTask(lambda: Diary(5), name="Short", num_envs=2),
        EnvTask(lambda: Diary(9), name="Long", num_envs=2),
    ]
    return EnvWorld(tasks, seed=3)


class Judge:
    """A policy that counts what it is shown."""

    def score_rows(self, rows: Any) -> dict[str, float]:
        return {"rows": float(sum(len(fields["obs"]) for fields in rows))}

    def score_episodes(self, returns: list[float], lengths: list[int]) -> dict[str, float]:
        return {"episodes": float(len(returns)), "steps": float(sum(lengths))}

    def actor(self) -> Any:
        return act


def act(obs: Any, began: np.ndarray, info: Any = None) -> tuple[Any, dict[str, Any]]:
    return np.zeros(len(obs), np.int64), {}


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: World = data_world() if request.param == "data" else env_world()
    yield made
    made.close()


def replay_of(world: World) -> Replay:
    transform, _ = world.transforms(standardize=True, device=CPU, augment=None)
    return world.replay(transform, WISHES)


def test_has_every_member_of_the_protocol_with_its_parameters(world: World) -> None:
    for protocol in (World, WorldSpec):
        for name, member in vars(protocol).items():
            if name.startswith("_"):
                continue
            assert hasattr(world, name), name
            if inspect.isfunction(member):
                wanted = list(inspect.signature(member).parameters)[1:]
                assert list(inspect.signature(getattr(world, name)).parameters) == wanted, name
        for name in protocol.__annotations__:
            assert hasattr(world, name), name


def test_answers_before_the_run_in_the_promised_types(world: World) -> None:
    data = world.kind == "data"
    assert isinstance(world.name, str)
    assert isinstance(world.spec, Spec)
    assert [isinstance(task.name, str) for task in world.tasks] == [True, True]
    assert (world.labelled, world.acts, world.told) == (data, not data, False)
    assert world.scenario == ("class" if data else None)
    assert world.task_names == (None if data else ["Short", "Long"])
    assert (world.closed, world.validates, world.normalizer) == (False, False, None)
    assert world.facts()["environment"] is not data
    assert world.wanted_threads() == (None if data else 1)
    assert world.place(CPU, "auto") is None
    assert (world.borders(online=True), world.borders(online=False)) == (not data, True)
    assert isinstance(world.describe(), str)
    said = world.remarks(asked=False, eval_episodes=1, eval_limit=None)
    said |= world.unread(normalize_obs=True, eval_episodes=1)
    assert all(isinstance(text, str) for text in said.values())


def test_classes_are_the_outputs_of_each_task(world: World) -> None:
    found = [world.classes(task) for task in (0, 1)]
    assert all(isinstance(part, Tensor) and part.dtype == torch.int64 for part in found)
    expected = [[0, 1], [2, 3]] if world.kind == "data" else [[], []]
    assert [part.tolist() for part in found] == expected


def test_an_example_is_stored_and_the_transform_makes_it_an_input(world: World) -> None:
    stored = world.example(5, CPU)
    assert (stored.shape, stored.dtype) == ((5, 2), world.spec.obs.dtype)
    for transform in world.transforms(standardize=True, device=CPU, augment=None):
        obs = transform.observe(stored, CPU)
        assert (obs.shape, obs.dtype) == ((5, 2), torch.float32)
        assert transform({"obs": stored})["obs"].shape == (5, 2)


def test_only_data_is_augmented() -> None:
    for world in (data_world(), env_world()):
        made: list[int] = []

        def augment(made: list[int] = made) -> Any:
            made.append(1)
            return lambda obs: obs + 1

        learns, plain = world.transforms(standardize=False, device=CPU, augment=augment)
        assert len(made) == int(world.kind == "data")
        assert (learns is plain) == (world.kind == "env")
        assert plain.augment is None


def test_lengths_have_defaults_and_leave_out_what_does_not_apply(world: World) -> None:
    lengths = world.lengths(Lengths())
    by_task = world.task_lengths(lengths, batch_size=4, offline=False)
    if world.kind == "data":
        assert (lengths.epochs, lengths.train_steps, lengths.eval_every) == (10, None, None)
        assert by_task == [TaskLength(None, 10, 2)] * 2  # Six rows in batches of four.
        assert world.steps(lengths, batch_size=4) == 2 * 10 * 2
    else:
        assert (lengths.epochs, lengths.train_steps, lengths.eval_every) == (None, 50_000, 10_000)
        assert by_task == [TaskLength(50_000, None, None)] * 2
        assert world.steps(lengths, batch_size=4) == 2 * 50_000


def test_a_replay_gives_batches_of_the_task_that_has_begun(world: World) -> None:
    replay = replay_of(world)
    for task in (0, 1):
        world.begin(task, replay)
        steps = sum(world.collect(task, act, replay) for _ in range(8))
        assert steps == (8 if world.kind == "data" else 16)
        batch = next(replay)
        assert (batch.obs.shape, batch.obs.dtype) == ((4, 2), torch.float32)
        if world.kind == "data":
            assert set(batch.label.tolist()) <= set(world.classes(task).tolist())
            assert batch.task.tolist() == [task] * 4
        world.go_on(task, replay)
    metrics = world.episode_metrics(1)
    assert set(metrics) == (set() if world.kind == "data" else {"return"})


def test_an_evaluation_shows_the_policy_as_much_as_was_announced(world: World) -> None:
    _, plain = world.transforms(standardize=True, device=CPU, augment=None)
    how = Evaluation(plain, CPU, episodes=3)
    shown: list[str] = []
    metrics = world.evaluate(1, Judge(), how, step=0, show=lambda done, what: shown.append(what))
    assert metrics["rows" if world.kind == "data" else "episodes"] == world.evaluated(1, how)
    assert world.evaluated(1, how) == (2 if world.kind == "data" else 3)
    assert shown
    assert world.evaluates(0) == (world.kind == "data")


def test_only_data_grows_and_only_environments_can_be_acted_in(world: World) -> None:
    if world.kind == "data":
        assert world.growing().filled == 2
        with pytest.raises(ConfigError, match="is a data set"):
            world.environments()
    else:
        assert [found.name for found in world.environments().interfaces] == ["Short", "Long"]
        with pytest.raises(ConfigError, match="needs a data set"):
            world.growing()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_restored_and_what_follows_is_the_same(kind: str) -> None:
    worlds: list[Any] = [data_world() if kind == "data" else env_world() for _ in range(2)]
    one, other = worlds
    replays = [replay_of(world) for world in worlds]
    one.begin(1, replays[0])
    for _ in range(6):
        one.collect(1, act, replays[0])
        next(replays[0])
    # Environments are not pickled here: their episodes are replayed from seeds and actions.
    state = one.state_dict(1, pack=lambda envs: None) | {"replay": replays[0].state_dict()}
    problems: list[str] = []
    continued = other.load_state_dict(
        state, 1, replays[1], unpack=lambda envs, saved: None, problem=problems.append
    )
    assert (continued, problems) == (kind == "env", [])
    for _ in range(6):
        for world, replay in zip(worlds, replays, strict=True):
            world.collect(1, act, replay)
        batches = [next(replay) for replay in replays]
        assert torch.equal(batches[0].obs, batches[1].obs)
    for world in worlds:
        world.close()


def test_environments_that_cannot_be_restored_start_over_and_say_so() -> None:
    one, other = env_world(), env_world()
    replays = [replay_of(world) for world in (one, other)]
    one.begin(0, replays[0])
    one.collect(0, act, replays[0])

    def fails(envs: Any, saved: Any) -> None:
        raise RuntimeError("no room")

    state = one.state_dict(0, pack=lambda envs: b"whole") | {"replay": replays[0].state_dict()}
    problems: list[str] = []
    assert not other.load_state_dict(state, 0, replays[1], unpack=fails, problem=problems.append)
    assert "could not be restored: no room" in problems[0]
    assert "its episodes start over" in problems[1]
    assert len(replays[1]) == len(replays[0])
    for world in (one, other):
        world.close()
