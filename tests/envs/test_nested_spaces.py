"""Tuples, dicts within dicts, text beside numbers and many choices: from the environment to every agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from torch import Tensor, nn

from antelope import Run, ml
from antelope.envs.checked import write_checked
from antelope.envs.spaces import WIDEST, codec, zeros
from antelope.replay import CheckpointError, ConfigError, DataError, Observations
from antelope.replay.tree import at_path, leaves, map_tree, slashed, walk

from .toys import SHORT, Echo, echo

BOX = spaces.Box(-1, 1, (2,), np.float32)
# Of every kind, three deep, under names that mean something elsewhere.
ALL = spaces.Tuple(
    [
        spaces.Dict(
            {"cam/front": BOX, "a::b": spaces.Discrete(3, start=-1), "": spaces.MultiBinary(2)}
        ),
        spaces.Discrete(100_000),
        spaces.Text(5),
        spaces.Tuple([spaces.Box(0, 1, (4,), np.bool_), spaces.Box(0, 255, (8, 8, 3), np.uint8)]),  # type: ignore[arg-type]
    ]
)
ACTIONS = spaces.Tuple([spaces.Discrete(3), spaces.Dict({"x/y": BOX, "on": spaces.MultiBinary(2)})])

AGENTS: dict[str, dict[str, Any]] = {
    "AC2Agent": {},
    "AC2Agent, numbers": {"agent": "AC2Agent", "action": BOX},
    "AC2Agent, several": {"agent": "AC2Agent", "action": ACTIONS},
    "DQN": {},
    "DRQN": {"replay.sequence": 4},
    "PPO": {"action": ACTIONS, "model.steps": 8},
    "A2C": {"action": ACTIONS, "model.steps": 8},
    "SAC": {"action": BOX},
    "SAC, choices": {"agent": "SAC"},
    "TD3": {"action": BOX},
    "DDPG": {"action": BOX},
    "Random": {"action": ACTIONS},
}


@pytest.fixture
def short(tmp_path: Path) -> Any:
    def run(*words: str, **more: Any) -> Run:
        return ml(
            *words, **{**SHORT, "path": tmp_path / "run", "train_steps": 40, "threads": 1, **more}
        )

    return run


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.filterwarnings("ignore:Left out of the observations")
def test_every_agent_learns_from_every_space(name: str, short: Any) -> None:
    more = {"agent": name, **AGENTS[name]}
    action = more.pop("action", spaces.Discrete(2))
    run = short(env=echo(ALL, action), num_envs=2, seed_steps=16, batch_size=8, **more)
    assert run.metrics["return"] == 7  # Echo checks the actions it is given.
    batch = run.replay.sample(4)
    found = {name: (x.dtype, tuple(x.shape[-1:])) for name, x in slashed(batch.obs).items()}
    assert found == {
        "0/cam/front": (torch.float32, (2,)),
        "0/a::b": (torch.float32, (3,)),
        "0/": (torch.float32, (2,)),
        "1": (torch.int64, found["1"][1]),
        "3/0": (torch.float32, (4,)),
        "3/1": (torch.float32, (8,)),
    }


def test_drqv2_says_what_it_needs(short: Any) -> None:
    with pytest.raises(ConfigError, match=r"DrQV2 learns from images .* a dict of a, b\. Take SAC"):
        short(env=echo(spaces.Dict({"a": BOX, "b": BOX}), BOX), agent="DrQV2")


class Counter(gymnasium.Env[Any, Any]):
    """Observations count the steps, in every part; the reward is the part of the action called "1"."""

    def __init__(self) -> None:
        self.observation_space = spaces.Tuple(
            [spaces.Discrete(200_000), spaces.Dict({"n": spaces.Box(0, 1e6, (1,), np.float64)})]
        )
        self.action_space = spaces.Tuple([spaces.Discrete(2, start=5), spaces.Discrete(3)])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(100_000))
        self.begun = self.count
        return self.obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert type(action) is tuple
        assert action[0] in (5, 6)
        self.count += 1
        return self.obs(), float(action[1]), False, self.count - self.begun == 7, {}

    def obs(self) -> Any:
        return self.count, {"n": np.array([self.count], np.float64)}


def vector(mode: AutoresetMode) -> Any:
    return lambda: SyncVectorEnv([Counter, Counter], autoreset_mode=mode)


COPIES: dict[str, dict[str, Any]] = {
    "one": {"env": Counter},
    "several": {"env": Counter, "num_envs": 3},
    "processes": {"env": Counter, "num_envs": 2, "vectorization": "async"},
    "next step": {"env": vector(AutoresetMode.NEXT_STEP)},
    "same step": {"env": vector(AutoresetMode.SAME_STEP)},
    "told": {"env": vector(AutoresetMode.DISABLED)},
    "mapped": {"env": Counter, "replay.storage": "mmap"},
    "on the device": {"env": Counter, "replay.storage": "gpu"},
}


@pytest.mark.parametrize("name", COPIES)
def test_what_was_seen_and_done_stays_together(name: str, short: Any) -> None:
    run = short(**COPIES[name], agent="Random", train_steps=60)
    batch = run.replay.sample(64)
    state, number = batch.obs["0"], batch.obs["1"]["n"]
    assert state.dtype == torch.int64
    assert torch.equal(state.float(), number[:, 0])
    assert torch.equal(batch.next_obs["0"], state + 1)
    assert torch.equal(batch.next_obs["1"]["n"], number + 1)
    assert torch.equal(batch.reward, batch.action["1"].float())
    assert set(batch.action["0"].tolist()) == {0, 1}


def test_several_steps_of_a_tuple(short: Any) -> None:
    run = short(env=Counter, agent="Random", frame_stack=3, nstep=2, train_steps=60)
    batch = run.replay.sample(32)
    assert batch.obs["0"].shape == (32,)  # Ids are not stacked, numbers are.
    assert batch.obs["1"]["n"].shape == (32, 3)
    assert torch.equal(batch.obs["1"]["n"][:, -1], batch.obs["0"].float())


@pytest.mark.filterwarnings("ignore:Left out of the observations")
def test_frames_of_choices_alone_are_not_stacked_and_it_says_so(short: Any) -> None:
    with pytest.warns(UserWarning, match="`frame_stack` has no effect in this run: .* are choices"):
        short(env=echo(spaces.Tuple([spaces.Discrete(3)])), agent="Random", frame_stack=2)


# Text


class Mission(spaces.Space[str]):
    """A space of the user's own that holds strings, which gymnasium cannot put into arrays."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


@pytest.mark.parametrize("text", [spaces.Text(5), Mission()], ids=["Text", "own"])
@pytest.mark.parametrize("kind", ["one", "several", "processes", "same step"])
def test_text_beside_numbers_is_left_out_with_a_word(text: Any, kind: str, short: Any) -> None:
    space = spaces.Dict(
        {"image": BOX, "deep": spaces.Dict({"mission": text}), "n": spaces.Discrete(2)}
    )
    env: Any = echo(space)
    more: dict[str, Any] = {"num_envs": 1 if kind == "one" else 2}
    if kind == "same step":
        copies: Any = [lambda: Echo(space)] * 2
        env, more = (lambda: SyncVectorEnv(copies, autoreset_mode=AutoresetMode.SAME_STEP)), {}
    if kind == "processes":
        more["vectorization"] = "async"
    with pytest.warns(
        UserWarning, match=r"Left out of the observations of .*'deep/mission'.*wrapper"
    ):
        run = short(env=env, agent="Random", **more)
    assert list(run.spec.obs) == ["image", "n"]
    assert run.replay.sample(4).obs["image"].shape == (4, 2)


def test_the_places_of_a_tuple_stay_where_one_is_left_out(short: Any) -> None:
    space = spaces.Tuple([spaces.Text(3), BOX, spaces.Box(0, 1, (0,)), spaces.Discrete(2)])
    with (
        pytest.warns(UserWarning, match=r"'0'\. Models do not receive text"),
        pytest.warns(UserWarning, match="hold no numbers: '2'"),
    ):
        run = short(env=echo(space), agent="Random", vectorization="async", num_envs=2)
    assert list(run.spec.obs) == ["1", "3"]


def test_minigrid(short: Any) -> None:
    pytest.importorskip("minigrid", reason="needs minigrid")
    with pytest.warns(UserWarning, match="Left out of the observations of MiniGrid-.*'mission'"):
        run = short("model.steps=16", env="MiniGrid-Empty-5x5-v0", agent="PPO", num_envs=2)
    assert {name: space.shape for name, space in run.spec.obs.items()} == {
        "direction": (4,),
        "image": (3, 7, 7),
    }


# Names


def test_keys_that_are_no_strings_are_their_names_to_models_and_come_back_as_they_were(
    short: Any,
) -> None:
    space = spaces.Dict({1: spaces.Discrete(2), 2: BOX})
    run = short(env=echo(space, space), agent="Random")
    assert (list(run.spec.obs), list(run.spec.action)) == (["1", "2"], ["1", "2"])


def test_observations_that_lack_a_part_are_an_error_that_names_it(short: Any) -> None:
    class Lacking(Echo):
        def __init__(self) -> None:
            super().__init__(spaces.Tuple([BOX, BOX]))

        def _sample(self) -> Any:
            return super()._sample()[:1]

    with pytest.raises(DataError, match=r"returned an observation with \[0\] instead of \[0, 1\]"):
        short(env=Lacking, agent="Random")


# Many choices


class Embedded(nn.Module):
    """Looks ids up."""

    def __init__(self, num_embeddings: int, out_features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_embeddings, out_features)
        self.met: list[Tensor] = []

    def forward(self, obs: Tensor) -> Tensor:
        self.met.append(obs)
        return self.table(obs)  # type: ignore[no-any-return]


def test_choices_that_are_too_many_for_one_hot_rows_are_ids(short: Any) -> None:
    run = short(model=Embedded, env=echo(spaces.Discrete(100_000, start=-7)))
    assert (run.spec.obs.shape, run.spec.obs.n, run.spec.obs.dtype) == ((), 100_000, torch.int64)
    obs = run.replay.sample(8).obs
    assert (obs.dtype, obs.shape) == (torch.int64, (8,))
    assert 0 <= int(obs.min()) <= int(obs.max()) < 100_000
    assert all(met.dtype == torch.int64 for met in run.agent.met)


@pytest.mark.parametrize(("n", "shape"), [(WIDEST, (WIDEST,)), (WIDEST + 1, ())])
def test_where_ids_begin(n: int, shape: tuple[int, ...]) -> None:
    assert codec(spaces.Discrete(n), "observations").space.shape == shape
    assert codec(spaces.Discrete(n), "actions", action=True).space.shape == (n,)


def test_several_choices_with_many_values_are_ids_too(short: Any) -> None:
    run = short(env=echo(spaces.MultiDiscrete([5000, 3])), agent="DQN")
    assert (run.spec.obs.shape, run.spec.obs.n) == ((2,), 5000)
    assert run.replay.sample(8).obs.shape == (8, 2)
    q = run.agent(torch.tensor([[0, 1], [4999, 1], [0, 2]]))
    assert len(torch.unique(q, dim=0)) == 3


class Net(nn.Module):
    """What a newcomer writes for numbers."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)  # type: ignore[no-any-return]


class Small(nn.Module):
    """An embedding without a row for every id."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(99_999, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.table(obs)  # type: ignore[no-any-return]


def test_a_model_that_cannot_take_ids_is_told_to_embed_them(short: Any) -> None:
    with pytest.raises(ConfigError, match=r"one of 100,000 choices.*ids, int64.*nn\.Embedding"):
        short(model=Net, env=echo(spaces.Discrete(100_000)))
    with pytest.raises(ConfigError, match="99999 is out of range of its 99999 rows"):
        short(model=Small, env=echo(spaces.Discrete(100_000)))


def test_an_encoder_of_numbers_is_refused_for_ids(short: Any) -> None:
    with pytest.raises(ConfigError, match=r"encoder=MLP needs numbers.*ids of 5,000 choices"):
        short(env=echo(spaces.Discrete(5000)), agent="DQN", encoder="MLP")


def test_environments_with_other_ids_are_told_apart(short: Any) -> None:
    envs = [echo(spaces.Discrete(5000)), echo(spaces.MultiDiscrete([5001, 2]))]
    with pytest.raises(
        ConfigError, match=r"are one of 5000 ids, those of .* 2 of 5001 ids\. FlattenObservation"
    ):
        short(env=envs, agent="DQN")


# Modules of the user's own


class Mirror(nn.Module):
    """Logits for every action, in the form that `action_logits_shapes` has."""

    def __init__(self, obs_shapes: Any, action_logits_shapes: Any) -> None:
        super().__init__()
        self.obs_shapes, self.shapes = obs_shapes, action_logits_shapes
        width = sum(int(np.prod(shape)) for shape in leaves(obs_shapes))
        self.layers = nn.ModuleList(nn.Linear(width, *shape) for shape in leaves(self.shapes))

    def forward(self, obs: Any) -> Any:
        x = torch.cat([part.flatten(1) for part in leaves(obs)], 1)
        layers = iter(self.layers)
        return map_tree(lambda _: next(layers)(x), self.shapes)


class Lacking(Mirror):
    def forward(self, obs: Any) -> Any:
        out = super().forward(obs)
        return {**out, "1": {"on": out["1"]["on"]}}


PART = spaces.Dict({"a": spaces.Tuple([BOX, spaces.Discrete(3)]), "z": BOX})


@pytest.mark.parametrize("role", ["model", "policy"])
def test_shapes_are_nested_as_the_spaces_are(role: str, short: Any) -> None:
    more = (
        {"agent": "PPO", "model.steps": 8, "policy": Mirror}
        if role == "policy"
        else {"model": Mirror}
    )
    run = short(env=echo(PART, ACTIONS), render_model=True, **more)
    module = run.agent if role == "model" else run.agent.composition.policy.module
    assert module.obs_shapes == {"a": {"0": (2,), "1": (3,)}, "z": (2,)}
    assert module.shapes == {"0": (3,), "1": {"on": (2,), "x/y": (4,)}}
    assert (run.path / "plots" / "model.svg").is_file()
    assert run.metrics["return"] == 7


def test_a_nested_head_that_is_missing_is_named(short: Any) -> None:
    with pytest.raises(ConfigError, match="returned no 'x/y', only on"):
        short("model.steps=8", env=echo(PART, ACTIONS), agent="PPO", policy=Lacking)


@pytest.mark.parametrize("policy", [None, Mirror])
def test_probabilities_to_begin_with_of_a_nested_action(policy: Any, short: Any) -> None:
    nested = spaces.Dict({"arm": spaces.Dict({"door": spaces.Discrete(2), "x": BOX})})
    more = {} if policy is None else {"policy": policy}
    run = short("head_bias.arm.door=[0.9,0.1]", env=echo(PART, nested), agent="PPO", **more)
    drawn = run.replay.sample(200).action["arm"]["door"]
    assert 0 < float(drawn.float().mean()) < 0.3


class Remembers(nn.Module):
    """A recurrent model over dicts, with a learning step on sequences."""

    def __init__(self, obs_shapes: Any, num_actions: int) -> None:
        super().__init__()
        self.cell = nn.GRU(sum(shape[0] for shape in leaves(obs_shapes)), 8, batch_first=True)
        self.head = nn.Linear(8, num_actions)

    def forward(self, obs: Any, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, state = self.cell(torch.cat(leaves(obs), -1), state)
        return self.head(out), state

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        assert all(part.shape[:2] == (8, 5) for part in leaves(batch.obs))
        return self(batch.obs, batch.state)[0].square().mean()


def test_sequences_of_nested_observations(short: Any) -> None:
    run = short("replay.sequence=5", model=Remembers, env=echo(PART), num_envs=2, batch_size=8)
    assert run.metrics["return"] == 7


# Kept


@pytest.mark.filterwarnings(
    "ignore:Left out of the observations", "ignore:`seed_steps` has no effect"
)
def test_a_saved_replay_is_learnt_from_as_it_was(short: Any, tmp_path: Path) -> None:
    env = echo(ALL)
    made = short(env=env, agent="Random", num_envs=2, frame_stack=2)
    made.replay.save(tmp_path / "replay")
    for source in (tmp_path / "replay", made.path):
        run = short(env=env, offline=source, path=tmp_path / "offline")
        index = np.flatnonzero(made.replay.storage.drawable)
        rows = (made.replay.storage.gather(index), run.replay.storage.gather(index))
        for path, kept in walk({**rows[0]}):
            assert torch.equal(kept, at_path(rows[1], path)), path


@pytest.mark.filterwarnings(
    "ignore:Left out of the observations", "ignore:`seed_steps` has no effect"
)
def test_a_saved_replay_of_other_parts_is_refused(short: Any, tmp_path: Path) -> None:
    made = short(env=echo(ALL), agent="Random")
    made.replay.save(tmp_path / "replay")
    other = spaces.Tuple([ALL[0], spaces.Discrete(5000), *ALL[2:]])  # Fewer ids.
    with pytest.raises(CheckpointError, match="its obs::1 is int64"):
        short(env=echo(other), offline=tmp_path / "replay", path=tmp_path / "offline")


# Values


def _leaf() -> st.SearchStrategy[Any]:
    sides = st.lists(st.integers(1, 3), max_size=2).map(tuple)
    kinds = (np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.uint16)
    boxes = st.builds(
        lambda shape, kind: spaces.Box(0 if np.dtype(kind).kind == "u" else -5, 9, shape, kind),
        *(sides, st.sampled_from(kinds)),
    )
    return st.one_of(
        boxes,
        sides.map(lambda shape: spaces.Box(0, 1, shape, np.bool_)),  # type: ignore[arg-type]
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9)
        ),
        st.integers(5000, 10**6).map(lambda n: spaces.Discrete(n, start=-3)),
        st.lists(st.integers(1, 5), min_size=1, max_size=3).map(spaces.MultiDiscrete),
        st.sampled_from([[[2, 3], [4, 1]], [[5000], [2]]]).map(np.array).map(spaces.MultiDiscrete),
        st.sampled_from([1, 3, (2, 2)]).map(spaces.MultiBinary),
    )


SPACES = st.recursive(
    _leaf(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.text("a/:.%~ ", max_size=4), inner, min_size=1, max_size=3).map(
            spaces.Dict
        ),
    ),
    max_leaves=6,
)


@given(SPACES, st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_actions_become_again_what_they_were(space: Any, seed: int) -> None:
    space.seed(seed)
    code = codec(space, "actions", action=True)
    sample = space.sample()
    native = code.native(code.stored(sample))
    assert space.contains(native)
    assert _equal(native, sample)


@given(SPACES, st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_observations_are_kept_as_they_are_and_received_as_their_space_says(
    space: Any, seed: int
) -> None:
    space.seed(seed)
    code = codec(space, "observations")
    rows = zeros(code, 2)
    sample = space.sample()
    assert write_checked(rows, 1, sample, code) is None
    stored = {path: x[1] for path, x in walk(rows)}
    for path, x in walk(code.stored(sample)):
        assert np.array_equal(stored[path], x)
    obs = Observations(code.space).observe(map_tree(torch.from_numpy, rows))
    for path, part in walk(code.space):
        leaf = at_path(obs, path)
        assert leaf.dtype == (torch.float32 if part.ids is None else torch.int64)
        assert tuple(leaf.shape) == (2, *part.shape)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return type(b) is tuple and len(a) == len(b) and all(map(_equal, a, b))
    return np.array_equal(a, b)
