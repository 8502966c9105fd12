"""run.act, run.reset and run.play: in a plain loop what evaluation does, step for step."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import antelope
from antelope import ConfigError, DataError, ml

# Images and choices stay as they are; text is left out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`normalize_obs` has no effect"),
    pytest.mark.filterwarnings("ignore:The observations"),
]
SHORT = {"plot": False, "progress": False, "seed_steps": 20, "eval_episodes": 3, "batch_size": 16}


class Any_(gymnasium.Env[Any, Any]):
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


def environment(observation: Any = None, action: Any = None) -> type[Any_]:
    parts = {"observation": observation, "action": action}
    parts = {name: space for name, space in parts.items() if space is not None}
    return type("Sampled", (Any_,), {**parts, "played": []})


def flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [x for part in value.values() for x in flat(part)]
    if isinstance(value, tuple):
        return [x for part in value for x in flat(part)]
    return np.asarray(value, np.float64).reshape(-1).tolist()


def check_equal_to_evaluation(run: Any, env: type[Any_]) -> None:
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
@pytest.mark.parametrize("normalised", [False, True])
def test_acting_is_what_evaluation_does_for_each_agent(
    case: str, normalised: bool, tmp_path: Path
) -> None:
    settings = dict(AGENTS[case])
    env = environment(settings.pop("observation", None), settings.pop("action", CHOICE))
    run = ml(
        **settings, env=env, train_steps=60, normalize_obs=normalised, path=tmp_path, **SHORT
    )
    check_equal_to_evaluation(run, env)
    given = {key: settings[key] for key in ("model", "policy") if isinstance(settings.get(key), type)}
    check_equal_to_evaluation(antelope.load(tmp_path, **given), env)


SPACES: dict[str, tuple[Any, Any]] = {
    "images": (IMAGE, None),
    "grey images": (spaces.Box(0, 255, (16, 12), np.uint8), None),
    "float64": (spaces.Box(-1e6, 1e6, (2,), np.float64), None),
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
