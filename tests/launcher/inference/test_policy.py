"""run.act, run.reset and run.play: in a plain loop what evaluation does, step for step."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import antelope
from antelope import CheckpointError, ConfigError, DataError, ml

# Images and choices stay as they are; text is left out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`normalize_obs` has no effect"),
    pytest.mark.filterwarnings("ignore:Left out of the observations"),
]
SHORT = {"plot": False, "progress": False, "seed_steps": 20, "eval_episodes": 3, "batch_size": 16}


class Sampled(gymnasium.Env[Any, Any]):
    """Episodes of 5 random observations of any space; keeps what each episode's actions were.

    Attributes:
        played: The actions of every episode of any copy, in this process.
    """

    observation: Any = spaces.Box(-1, 1, (3,), np.float32)
    action: Any = spaces.Discrete(3)
    played: list[tuple[int, list[Any]]] = []  # noqa: RUF012 - shared on purpose.

    def __init__(self) -> None:
        self.observation_space = copy.deepcopy(self.observation)
        self.action_space = copy.deepcopy(self.action)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.actions: list[Any] = []
        self.played.append((seed or 0, self.actions))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        assert self.action_space.contains(action), action
        self.actions.append(copy.deepcopy(action))
        over = len(self.actions) == 5
        return self.observation_space.sample(), float(len(self.played) % 3), over, False, {}


def environment(observation: Any = None, action: Any = None) -> type[Sampled]:
    parts = {"observation": observation, "action": action}
    parts = {name: space for name, space in parts.items() if space is not None}
    return type("Drawn", (Sampled,), {**parts, "played": []})


def flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [x for part in value.values() for x in flat(part)]
    if isinstance(value, tuple):
        return [x for part in value for x in flat(part)]
    return np.asarray(value, np.float64).reshape(-1).tolist()


def check_equal_to_evaluation(run: Any, env: type[Sampled]) -> None:
    """A plain loop over `run.act` does what the last evaluation did, action for action."""
    evaluated = {seed: actions for seed, actions in env.played if len(actions) == 5}
    seeds = [seed for seed, actions in env.played if len(actions) == 5][-3:]
    own = env()
    for seed in seeds:
        torch.manual_seed(0)
        (obs, _), over = own.reset(seed=seed), False
        run.reset()
        while not over:
            action = run.act(obs)
            obs, _, over, _, _ = own.step(action)
        assert [type(a) for a in own.actions] == [type(a) for a in evaluated[seed]]
        for mine, its in zip(own.actions, evaluated[seed], strict=True):
            np.testing.assert_allclose(flat(mine), flat(its), rtol=1e-4, atol=1e-5)


class Forward(nn.Module):
    """Only a forward."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))


class Acts(Forward):
    """Its own act and learn."""

    def act(self, obs: Tensor) -> Tensor:
        if self.training:
            return torch.randint(3, (len(obs),))
        return self(obs).argmin(1)

    def learn(self, replay: Any) -> Tensor:
        return self(next(replay).obs).square().mean()


class Remembers(nn.Module):
    """Carries a state."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.cell, self.head = nn.GRUCell(in_features, 8), nn.Linear(8, out_features)

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        if obs.dim() == 3:
            out = []
            for t in range(obs.shape[1]):
                state = self.cell(obs[:, t], state)
                out.append(self.head(state))
            return torch.stack(out, 1), state
        state = self.cell(obs, state)
        return 5 * self.head(state), state

    def learn(self, replay: Any) -> Tensor:
        return self(next(replay).obs)[0].square().mean()


class Policy(nn.Module):
    """A composed policy, over dicts."""

    def __init__(self, obs_shapes: Any, action_logits_shapes: Any):
        super().__init__()
        (self.name,) = action_logits_shapes
        width = sum(int(np.prod(shape)) for shape in obs_shapes.values())
        self.layer = nn.Linear(width, int(np.prod(action_logits_shapes[self.name])))

    def forward(self, obs: Any) -> Any:
        return {self.name: 3 * self.layer(torch.cat([x.flatten(1) for x in obs.values()], 1))}


CHOICE, BOX = spaces.Discrete(3, start=-1), spaces.Box(-3, 5, (2,), np.float64)
IMAGE = spaces.Box(0, 255, (16, 12, 3), np.uint8)
AGENTS: dict[str, dict[str, Any]] = {
    "DQN": {"model": "DQN"},
    "DQN of stacks": {"model": "DQN", "frame_stack": 3},
    "DRQN": {"model": "DRQN"},
    "PPO": {"model": "PPO", "model.steps": 16},
    "PPO of numbers": {"model": "PPO", "model.steps": 16, "action": BOX},
    "A2C": {"model": "A2C"},
    "SAC": {"model": "SAC", "action": BOX},
    "TD3": {"model": "TD3", "action": BOX},
    "DDPG": {"model": "DDPG", "action": BOX},
    "DrQV2": {
        "model": "DrQV2",
        "action": BOX,
        "observation": spaces.Box(0, 255, (32, 32, 3), np.uint8),
        "frame_stack": 2,
    },
    "AC2Agent": {},
    "forward only": {"model": Forward},
    "act": {"model": Acts},
    "recurrent": {"model": Remembers},
    "composed": {"model": "PPO", "policy": Policy, "model.steps": 16},
}


@pytest.mark.parametrize("case", AGENTS)
def test_acting_is_what_evaluation_does_for_each_agent(case: str, tmp_path: Path) -> None:
    settings = dict(AGENTS[case])
    env = environment(settings.pop("observation", None), settings.pop("action", CHOICE))
    usual = {"train_steps": 60, "learn_every": 10, "normalize_obs": True, "path": tmp_path}
    run = ml(**settings, env=env, **usual, **SHORT)
    check_equal_to_evaluation(run, env)
    own = {
        name: settings[name] for name in ("model", "policy") if isinstance(settings.get(name), type)
    }
    check_equal_to_evaluation(antelope.load(tmp_path, **own), env)


SPACES: dict[str, tuple[Any, Any]] = {
    "images": (IMAGE, None),
    "grey images": (spaces.Box(0, 255, (16, 12), np.uint8), None),
    "float64": (spaces.Box(-1e6, 1e6, (2,), np.float64), None),
    "float16": (spaces.Box(-9, 9, (2,), np.float16), None),
    "one number": (spaces.Box(-9, 9, (), np.float32), None),
    "a choice": (spaces.Discrete(5, start=3), None),
    "choices": (spaces.MultiDiscrete([2, 3]), None),
    "flags": (spaces.MultiBinary((2, 2)), None),
    "truth values": (spaces.Box(0, 1, (3,), np.bool_), None),
    "a board": (spaces.Box(0, 6, (5, 5), np.int64), None),
    "a dict": (spaces.Dict({"eye": IMAGE, "arm": spaces.Dict({"angle": BOX})}), None),
    "a tuple": (spaces.Tuple([BOX, spaces.Discrete(4)]), None),
    "text beside": (spaces.Dict({"x": BOX, "mission": spaces.Text(4)}), None),
    "acts in numbers": (None, spaces.Box(np.float32([-1, 0]), np.float32([0.1, 9]))),
    "acts in whole numbers": (None, spaces.Box(0, 9, (2,), np.int32)),
    "acts by choices": (None, spaces.MultiDiscrete([[2, 3]])),
    "acts by flags": (None, spaces.MultiBinary((2, 2))),
    "acts by a dict": (None, spaces.Dict({"go": CHOICE, "arm": BOX})),
    "acts by a tuple": (None, spaces.Tuple([CHOICE, BOX])),
}


@pytest.mark.parametrize("case", SPACES)
def test_acting_is_what_evaluation_does_for_each_space(case: str, tmp_path: Path) -> None:
    env = environment(*SPACES[case])
    numbers = isinstance(env.observation, spaces.Box | spaces.Dict)
    more = {"frame_stack": 2} if numbers and env.observation.shape != () else {}
    steps = {"model": "PPO", "model.steps": 16, "train_steps": 32, "path": tmp_path}
    run = ml(**steps, env=env, normalize_obs=True, **more, **SHORT)
    check_equal_to_evaluation(run, env)
    check_equal_to_evaluation(antelope.load(tmp_path), env)


def test_a_random_agent_acts_within_the_space(tmp_path: Path) -> None:
    env = environment(action=BOX)
    run = ml(model="Random", env=env, train_steps=30, path=tmp_path, **SHORT)
    actions = [run.act(np.zeros(3)) for _ in range(20)]
    assert all(BOX.contains(action) for action in actions)
    assert len({tuple(action) for action in actions}) == 20
    assert run.play(3) == run.play(3)


class Shows(nn.Module):
    """Acts by the sum of what it sees, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def act(self, obs: Tensor) -> Tensor:
        if not self.training:
            self.seen.append(obs.clone())
        return (obs.flatten(1).sum(1) > 0).long()

    def learn(self, replay: Any) -> Tensor:
        next(replay)
        return self.weight.sum()


def last_seen(run: Any) -> list[Any]:
    return run.agent.seen[-1].tolist()


def shown(observation: Any, **settings: Any) -> Any:
    env = environment(observation, spaces.Discrete(2))
    return ml(model=Shows, env=env, **{"train_steps": 30, **SHORT, **settings})


def test_what_the_model_receives_is_what_the_settings_make_of_an_observation(
    tmp_path: Path,
) -> None:
    run = shown(spaces.Discrete(4, start=5), path=tmp_path)
    assert (run.act(7), last_seen(run)) == (1, [[0, 0, 1, 0]])
    run = shown(spaces.Box(0, 255, (2, 3, 1), np.uint8), path=tmp_path, channels="last")
    run.act(np.full((2, 3, 1), 51, np.uint8))
    assert run.agent.seen[-1].shape == (1, 1, 2, 3)
    assert last_seen(run)[0][0][1] == pytest.approx([0.2, 0.2, 0.2])


def test_frames_are_stacked_from_the_last_reset_on(tmp_path: Path) -> None:
    run = shown(spaces.Box(-9, 9, (1,), np.float32), frame_stack=3, path=tmp_path)
    run.act([1]), run.act([2])
    assert last_seen(run) == [[1, 1, 2]]
    run.act([3]), run.act([4])
    assert last_seen(run) == [[2, 3, 4]]
    run.reset()
    run.act([5])
    assert last_seen(run) == [[5, 5, 5]]


def test_each_of_several_environments_has_its_own_frames(tmp_path: Path) -> None:
    run = shown(spaces.Box(-9, 9, (1,), np.float32), frame_stack=2, path=tmp_path)
    np.testing.assert_array_equal(run.act([[1], [-2]]), [1, 0])
    run.reset([False, True])
    run.act([[3], [4]])
    assert last_seen(run) == [[1, 3], [4, 4]]
    with pytest.raises(ConfigError, match=r"of 1 environments, but of 2 before.*run\.reset\(\)"):
        run.act([1])
    with pytest.raises(ConfigError, match="a bool for each of the 2 environments"):
        run.reset([True])
    run.reset()
    assert run.act([1]) == 1


def test_a_vector_environment_steps_by_what_is_given_for_all_of_it(tmp_path: Path) -> None:
    env = environment(IMAGE, spaces.Dict({"go": CHOICE, "arm": BOX}))
    run = ml(model="PPO", env=env, train_steps=30, path=tmp_path, **SHORT)
    envs = gymnasium.vector.SyncVectorEnv([env, env])
    obs, _ = envs.reset(seed=0)
    actions = run.act(obs)
    assert envs.action_space.contains(actions)
    one = run.act(obs[1])
    np.testing.assert_allclose(actions["arm"][1], one["arm"], rtol=1e-4)


def test_observations_may_be_lists_arrays_and_tensors(tmp_path: Path) -> None:
    run = shown(None, path=tmp_path)
    tensors = torch.ones(3, requires_grad=True), torch.ones(3, dtype=torch.int64)
    for obs in ([1, 1, 1], (1.0, 1.0, 1.0), np.ones(3), np.ones(3, np.int8), *tensors):
        assert run.act(obs) == 1


WRONG: dict[str, tuple[Any, list[str]]] = {
    "another shape": (np.zeros(4), [r"float64 \[4\]", r"not have shape \[3\]", "Drawn"]),
    "NaN": ([0.0, np.nan, 0.0], ["NaN"]),
    "text": ("left", ["'left'"]),
    "nothing": (None, ["None"]),
    "all of reset": ((np.zeros(3), {}), [r"all that env\.reset\(\) returned"]),
    "all of step": ((np.zeros(3), 0.0, False, False, {}), [r"all that env\.step\(\) returned"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_an_observation_is_named_beside_what_is_expected(
    case: str, tmp_path: Path
) -> None:
    run = shown(None, path=tmp_path)
    given, words = WRONG[case]
    with pytest.raises(DataError) as caught:
        run.act(given)
    for word in [*words, r"Box\(-1\.0, 1\.0, \(3,\), float32\)"]:
        assert caught.match(word)


def test_parts_of_an_observation_are_named(tmp_path: Path) -> None:
    env = environment(spaces.Dict({"eye": IMAGE, "mode": spaces.Discrete(3)}))
    run = ml(model="PPO", env=env, train_steps=30, path=tmp_path, **SHORT)
    eye = np.zeros((16, 12, 3), np.uint8)
    assert run.act({"eye": eye, "mode": 1}) in (0, 1, 2)
    for given, word in (
        ({"eye": eye}, "'mode' is missing"),
        ({"eye": eye.astype(np.float32), "mode": 1}, r"obs\['eye'\] has dtype float32, not uint8"),
        ({"eye": eye, "mode": 3}, r"obs\['mode'\] is out of bounds"),
        ({"eye": eye[None], "mode": 1}, "some parts hold several observations"),
    ):
        with pytest.raises(DataError, match=word):
            run.act(given)


def test_a_state_begins_with_the_episode_for_any_number_of_environments(tmp_path: Path) -> None:
    run = ml(model=Remembers, env=environment(action=BOX), train_steps=30, path=tmp_path, **SHORT)
    obs = [[1.0, -1.0, 0.5], [0.5, 0.5, 0.5]]
    first = run.act(obs[0])
    assert not np.allclose(run.act(obs[0]), first)
    run.reset()
    np.testing.assert_allclose(run.act(obs)[0], first, rtol=1e-5)
    assert not np.allclose(run.act(obs)[0], first)
    run.reset([True, False])
    np.testing.assert_allclose(run.act(obs)[0], first, rtol=1e-5)


def test_an_episode_that_goes_on_too_long_is_a_reset_forgotten(tmp_path: Path) -> None:
    run = shown(None, frame_stack=2, time_limit=4, path=tmp_path)
    for _ in range(2):
        run.reset()
        for _ in range(4):
            run.act([0, 0, 0])
    with pytest.warns(UserWarning, match=r"called 4 times.*truncates.*call run\.reset\(\)"):
        run.act([0, 0, 0])
    run = shown(None, time_limit=4, path=tmp_path)  # Which remembers nothing.
    for _ in range(9):
        run.act([0, 0, 0])


def test_acting_is_greedy_whatever_mode_the_module_was_left_in(tmp_path: Path) -> None:
    env = environment()
    run = ml(model="DQN", env=env, train_steps=60, path=tmp_path, **SHORT)
    run.agent.train()
    run.agent.network.eval()  # As somebody may leave it.
    assert len({run.act([0.1, 0.2, 0.3]) for _ in range(30)}) == 1
    assert run.agent.training
    assert not run.agent.network.training


def test_a_run_on_data_has_no_environment(tmp_path: Path) -> None:
    run = ml(train_steps=2, path=tmp_path, plot=False, progress=False)
    for call in (lambda: run.act([0]), run.reset, run.play):
        with pytest.raises(ConfigError, match="learnt from a data set, Digits"):
            call()


class Masked(Sampled):
    """Odd steps allow action 1 only, even ones action 2 only."""

    def _info(self) -> dict[str, Any]:
        odd = len(self.actions) % 2
        return {"action_mask": np.array([0, odd, 1 - odd], np.int8), "wind": 0.5}

    def reset(self, **options: Any) -> tuple[Any, Any]:
        obs, _ = super().reset(**options)
        return obs, self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        assert self._info()["action_mask"][action]
        return *super().step(action)[:4], self._info()


@pytest.mark.parametrize("model", ["DQN", Forward])
def test_masks_in_info_are_kept_to(model: Any, tmp_path: Path) -> None:
    settings = {"env_info": ["action_mask", "wind"], "train_steps": 60, "learn_every": 10}
    run = ml(model=model, env=Masked, **settings, path=tmp_path, **SHORT)
    given = {} if isinstance(model, str) else {"model": model}
    for policy in (run, antelope.load(tmp_path, env=Masked, **given)):
        policy.play(2)
        assert policy.act(np.zeros(3), {"action_mask": [1, 0, 0], "wind": 0.0}) == 0
        many = {"action_mask": np.eye(3)[[2, 1]], "wind": np.zeros(2)}
        np.testing.assert_array_equal(policy.act(np.zeros((2, 3)), many), [2, 1])
        with pytest.raises(
            DataError, match=r"`action_mask` from the environment's info.*act\(obs, info\)"
        ):
            policy.act(np.zeros(3))
        with pytest.raises(DataError, match="allows no action"):
            policy.act(np.zeros(3), {"action_mask": [0, 0, 0], "wind": 0.0})


# ------------------------------------------------------------- run.agent.act, by hand


class Far(Sampled):
    """A sensor around 1000; the action has to say on which side it is."""

    observation = spaces.Box(0, 2000, (1,), np.float32)
    action = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        right = float((self.x[0] > 1000) == bool(action))
        *_, over, _, _ = super().step(action)
        return self._draw(), right, over, False, {}

    def _draw(self) -> np.ndarray:
        self.x = np.float32([1000 + 5 * self.np_random.normal()])
        return self.x


class Side(nn.Module):
    """Knows the side, of normalised observations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def act(self, obs: Tensor) -> Tensor:
        return (self.weight * obs[:, 0] > 0).long()

    def learn(self, replay: Any) -> Tensor:
        next(replay)
        return 0 * self.weight.sum()


FAR: dict[str, Any] = {"model": Side, "env": Far, "train_steps": 400, "normalize_obs": True}
FAR |= {"seed_steps": 390, "eval_episodes": 10, "plot": False, "progress": False}


def by_hand(agent: Any) -> float:
    """The mean return of the module in a plain loop, on the environment's own observations."""
    env, total = Far(), 0.0
    for seed in range(10):
        (obs, _), over = env.reset(seed=seed), False
        while not over:
            with torch.no_grad():
                action = int(agent.act(torch.as_tensor(obs)[None])[0])
            obs, reward, over, _, _ = env.step(action)
            total += reward
    return total / 10


def unpickled(agent: Any) -> Any:
    return pickle.loads(pickle.dumps(agent))


def read_back(agent: Any) -> Any:
    file = io.BytesIO()
    torch.save(agent, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_the_module_itself_acts_on_observations_in_their_own_units(tmp_path: Path) -> None:
    run = ml(**FAR, path=tmp_path)
    assert run.metrics["return"] > 4.6
    for one in (run.agent, copy.deepcopy(run.agent), unpickled(run.agent), read_back(run.agent)):
        assert by_hand(one) > 4.6
    assert by_hand(antelope.load(tmp_path, model=Side).agent) > 4.6
    sees = torch.tensor([[1003.0], [997.0]])
    # Of the module nothing is held but its method.
    assert antelope.load(tmp_path, model=Side).agent.act(sees).tolist() == [1, 0]
    assert copy.deepcopy(run.agent).act(sees).tolist() == [1, 0]
    assert unpickled(run.agent.act)(sees).tolist() == [1, 0]
    contrary = copy.deepcopy(run.agent)
    contrary.weight.data.neg_()  # A copy acts by its own weights.
    assert by_hand(contrary) < 0.4
    obs = np.float32([1003])
    assert (run.act(obs), run.act(obs - 6)) == (1, 0)  # Not normalised twice.


def test_a_module_that_was_given_to_another_run_is_as_it_was_before(tmp_path: Path) -> None:
    first = ml(**FAR, path=tmp_path / "first")
    second = ml(**{**FAR, "model": first.agent}, path=tmp_path / "second")
    assert second.metrics["return"] > 4.6
    assert by_hand(second.agent) > 4.6
    plain = ml(**{**FAR, "model": second.agent, "normalize_obs": False}, path=tmp_path / "plain")
    assert "act" not in vars(plain.agent)
    assert plain.metrics["return"] < 4  # It is given 1000 where it expects 0.


def test_statistics_of_observations_come_with_a_module_that_was_given(tmp_path: Path) -> None:
    first = ml(**FAR, path=tmp_path / "first")
    short = {**FAR, "model": first.agent, "train_steps": 2, "seed_steps": 1}
    del short["normalize_obs"]  # Its weights expect it.
    second = ml(**short, path=tmp_path / "second")
    assert second.metrics["return"] > 4.6
    assert "normalize_obs: true" in (tmp_path / "second" / "config.yaml").read_text()
    third = ml(**short | {"model": copy.deepcopy(second.agent)}, path=tmp_path / "third")
    assert third.metrics["return"] > 4.6


def test_a_run_goes_on_after_it_was_looked_at(tmp_path: Path) -> None:
    tasks = ml.tasks(**{**FAR, "env": [Far, Far]}, path=tmp_path)
    for task in tasks:
        task.learn()
        assert by_hand(task.agent) > 4.6
        assert task.evaluate()["return"] > 4.6
        assert tasks.run.act(np.float32([1003])) == 1


# ------------------------------------------------------------- load=


def test_statistics_of_observations_come_with_the_weights(tmp_path: Path) -> None:
    first = ml(**FAR, path=tmp_path / "first")
    short = {**FAR, "load": tmp_path / "first", "train_steps": 2, "seed_steps": 100}
    second = ml(**short, path=tmp_path / "second")
    assert second.metrics["return"] > 4.6
    del short["normalize_obs"]  # Then as in that run.
    third = ml(**short, path=tmp_path / "third")
    assert third.metrics["return"] > 4.6
    assert "normalize_obs: true" in (tmp_path / "third" / "config.yaml").read_text()
    assert first.metrics["return"] > 4.6


def test_weights_and_observations_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    ml(**FAR, path=tmp_path / "with")
    plain = {**FAR, "normalize_obs": False}
    ml(**plain, path=tmp_path / "without")
    with pytest.raises(
        ConfigError, match=r"expect normalised observations.*Leave normalize_obs out"
    ):
        ml(**plain, load=tmp_path / "with", path=tmp_path / "next")
    with pytest.raises(ConfigError, match="learnt from observations that were not normalised"):
        ml(**FAR, load=tmp_path / "without", path=tmp_path / "next")


class FarTwice(Far):
    observation = spaces.Box(0, 2000, (2,), np.float32)

    def _draw(self) -> np.ndarray:
        return np.repeat(super()._draw(), 2)


def test_statistics_of_other_observations_are_refused(tmp_path: Path) -> None:
    ml(**FAR, path=tmp_path / "first")
    with pytest.raises(CheckpointError, match=r"are \[1\]; this run's are \[2\]"):
        ml(**{**FAR, "env": FarTwice}, load=tmp_path / "first", path=tmp_path / "next")
