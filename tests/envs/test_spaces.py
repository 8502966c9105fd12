"""Every kind of space, as observation and as action, from the environment to the batch and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from antelope.agents.random import draw
from antelope.envs.spaces import codec, zeros
from antelope.replay import ConfigError, Observations

from .toys import Echo, echo, flat

IMAGE = spaces.Box(0, 255, (8, 6, 3), np.uint8)
ARM = spaces.Dict({"angle": spaces.Box(-1, 1, (2,), np.float32), "mode": spaces.Discrete(3)})
PAIR = spaces.Tuple([spaces.Discrete(3, start=-1), spaces.Box(-1, 1, (2,), np.float32)])
# Names that mean something to the replay, to running statistics, to checkpoints or to torch.
ODD = spaces.Dict(
    {
        name: spaces.Box(-1, 1, (1 + i,), np.float32)
        for i, name in enumerate(
            (
                "cam/front",
                "cam",
                "a.b",
                "c::d",
                "%3A",
                "~1",
                "",
                "keys",
                "two words",
                "obs",
                "value",
            )
        )
    }
)
DEEP = spaces.Tuple(
    [spaces.Tuple([PAIR, spaces.MultiBinary(2)]), spaces.Dict({"x/y": PAIR, 7: PAIR})]
)
NESTED = spaces.Dict({"eye": IMAGE, "arm": ARM, "lamps": spaces.MultiBinary(2)})

# Space, the shape the model meets, and one value with what the model is given for it.
OBSERVATIONS: dict[str, Any] = {
    "box": (spaces.Box(-2, 2, (2,), np.float32), (2,), [1.5, -2.0], [1.5, -2.0]),
    "double": (spaces.Box(-2, 2, (2,), np.float64), (2,), [1.5, -2.0], [1.5, -2.0]),
    "matrix": (spaces.Box(-np.inf, np.inf, (1, 2)), (1, 2), [[1e6, 0]], [[1e6, 0]]),
    "integers": (spaces.Box(-5, 5, (2,), np.int32), (2,), [3, -5], [3.0, -5.0]),
    "shorts": (spaces.Box(0, 60000, (1,), np.uint16), (1,), [60000], [60000.0]),
    "longs": (spaces.Box(0, 2**64 - 1, (1,), np.uint64), (1,), [2**63 - 1], [2.0**63]),
    "half": (spaces.Box(-2, 2, (2,), np.float16), (2,), [1.5, -2.0], [1.5, -2.0]),
    "truth values": (spaces.Box(0, 1, (2,), np.bool_), (2,), [True, False], [1.0, 0.0]),  # type: ignore[arg-type]
    "board": (spaces.Box(-1, 1, (1, 3), np.int8), (1, 3), [[1, 0, -1]], [[1.0, 0.0, -1.0]]),
    "few bytes": (spaces.Box(0, 2, (3,), np.uint8), (3,), [2, 0, 1], [2.0, 0.0, 1.0]),
    "bytes": (spaces.Box(0, 255, (2,), np.uint8), (2,), [255, 51], [1.0, 0.2]),
    "scalar": (spaces.Box(-1, 1, (), np.float32), (), 0.5, 0.5),
    "choice": (spaces.Discrete(3), (3,), 2, [0.0, 0.0, 1.0]),
    "choice from -1": (spaces.Discrete(3, start=-1), (3,), -1, [1.0, 0.0, 0.0]),
    "choices": (spaces.MultiDiscrete([2, 3]), (5,), [1, 0], [0.0, 1.0, 1.0, 0.0, 0.0]),
    "choices from 1": (
        spaces.MultiDiscrete([2, 2], start=[1, 5]), (4,), [2, 5], [0.0, 1.0, 1.0, 0.0],
    ),
    "table of choices": (
        spaces.MultiDiscrete(np.array([[2], [2]])), (4,), [[1], [0]], [0.0, 1.0, 1.0, 0.0],
    ),
    "binary": (spaces.MultiBinary(3), (3,), [1, 0, 1], [1.0, 0.0, 1.0]),
    "table of binary": (
        spaces.MultiBinary((2, 2)), (4,), [[1, 0], [0, 1]], [1.0, 0.0, 0.0, 1.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_an_observation_reaches_the_model_as_floats_of_the_shape_in_the_spec(name: str) -> None:
    space, shape, value, met = OBSERVATIONS[name]
    code = codec(space, "observations")
    assert code.space.shape == shape
    given = value if isinstance(space, spaces.Discrete) else np.array(value, space.dtype)
    assert space.contains(given)
    stored = torch.from_numpy(np.asarray(code.stored(given), code.dtype)[None])
    obs = Observations(code.space).observe(stored)
    assert obs.dtype == torch.float32
    assert torch.equal(obs, torch.tensor([met]))


@pytest.mark.parametrize(
    ("shape", "met"),
    [((8, 6, 3), (3, 8, 6)), ((8, 6, 1), (1, 8, 6)), ((8, 6), (1, 8, 6)), ((3, 8, 6), (3, 8, 6))],
)
def test_images_are_channels_first_and_stay_bytes_in_storage(
    shape: tuple[int, ...], met: tuple[int, ...]
) -> None:
    space = spaces.Box(0, 255, shape, np.uint8, seed=0)
    code = codec(space, "observations")
    assert (code.space.shape, code.space.dtype, code.dtype) == (met, torch.uint8, np.uint8)
    image = space.sample()
    stored = code.stored(image)
    for y, x in ((0, 0), (7, 5), (3, 1)):
        pixel = image[:, y, x] if shape == met else np.atleast_1d(image[y, x])
        assert stored[:, y, x].tolist() == pixel.tolist()
    several = np.stack([image, image // 2])  # As vector environments give them.
    assert np.array_equal(code.stored(several), np.stack([stored, stored // 2]))
    obs = Observations(code.space).observe(torch.from_numpy(np.ascontiguousarray(stored)[None]))
    assert torch.equal(obs[0], torch.from_numpy(np.ascontiguousarray(stored)).float() / 255)


def test_stacks_join_frames_along_the_first_axis() -> None:
    assert codec(IMAGE, "observations", stack=4).space.shape == (12, 8, 6)
    stacked = codec(NESTED, "observations", stack=2).space
    assert stacked["eye"].shape == (6, 8, 6)
    assert stacked["arm"]["angle"].shape == (4,)
    assert stacked["arm"]["mode"].shape == (3,)  # Choices are not stacked.
    low = codec(
        spaces.Box(np.array([0, -1], np.float32), np.array([1, 2], np.float32)),
        "observations",
        stack=2,
    ).space
    assert low.low.tolist() == [0, -1, 0, -1]
    with pytest.raises(ConfigError, match="frame_stack=2 needs observations with at least one dim"):
        codec(spaces.Box(-1, 1, ()), "observations", stack=2)


def test_bounds_are_those_of_the_space() -> None:
    space = codec(
        spaces.Box(np.array([0, -1], np.float32), np.array([1, np.inf], np.float32)), "observations"
    ).space
    assert space.low.tolist() == [0, -1]
    assert space.high.tolist() == [1, np.inf]


ACTIONS: dict[str, Any] = {
    "box": spaces.Box(-2, 2, (2,), np.float32),
    "double": spaces.Box(-0.1, 0.1, (2, 2), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "integers": spaces.Box(-3, 9, (2,), np.int64),
    "image": spaces.Box(0, 255, (8, 6, 3), np.uint8),
    "grey image": spaces.Box(0, 255, (8, 6), np.uint8),
    "scalar": spaces.Box(-1, 1, (), np.float32),
    "choice": spaces.Discrete(3),
    "choice from 5": spaces.Discrete(3, start=5),
    "choices": spaces.MultiDiscrete([2, 3]),
    "choices from 1": spaces.MultiDiscrete([2, 2], start=[1, 5]),
    "table of choices": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    "binary": spaces.MultiBinary(3),
    "table of binary": spaces.MultiBinary((2, 3)),
    "truth values": spaces.Box(0, 1, (3,), np.bool_),  # type: ignore[arg-type]
    "table of truth values": spaces.Box(0, 1, (3, 2), np.bool_),  # type: ignore[arg-type]
    "integers without bounds": spaces.Box(-np.inf, np.inf, (2,), np.int64),  # type: ignore[arg-type]
    "large integers": spaces.Box(0, 2**64 - 1, (2,), np.uint64),
    "one value": spaces.Box(np.float32([0.3, 0]), np.float32([0.3, 1])),
    "dict": ARM,
    "tuple": PAIR,
    "deep": DEEP,
    "odd names": ODD,
    "nested": NESTED,
}


def value_types(space: Any, value: Any) -> None:
    """Actions in a batch are as documented."""
    if isinstance(space, dict):
        assert value.keys() == space.keys()
        for name, part in space.items():
            value_types(part, value[name])
        return
    assert tuple(value.shape[1:]) == space.value_shape
    assert value.dtype == (torch.int64 if space.discrete else torch.float32)
    if space.nvec:
        assert space.value_shape == (len(space.nvec),)
        assert bool((value < torch.tensor(space.nvec)).all())
    elif not space.discrete:
        assert bool(((value >= space.low) & (value <= space.high)).all())
    else:
        assert bool((value < (2 if space.binary else space.n)).all())
    assert not space.discrete or bool((value >= 0).all())


def sizes(space: Any) -> int:
    return sum(map(sizes, space.values())) if isinstance(space, dict) else space.n


def obs_types(space: Any, obs: Any) -> None:
    if isinstance(space, dict):
        assert obs.keys() == space.keys()
        for name, part in space.items():
            obs_types(part, obs[name])
        return
    assert (obs.dtype, tuple(obs.shape[1:])) == (torch.float32, space.shape)


class Small(nn.Module):
    """A user's model: it draws its actions, and learns something from what it observes."""

    def __init__(self, obs_spec: Any, action_spec: Any):
        super().__init__()
        self.obs_spec, self.action_spec = obs_spec, action_spec
        self.layer = nn.Linear(sizes(obs_spec), 1)
        self.learnt = 0

    def act(self, obs: Any) -> Any:
        obs_types(self.obs_spec, obs)
        value = self.layer(flat(obs))
        return draw(self.action_spec, len(value)), {"value": value.squeeze(1)}

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        obs_types(self.obs_spec, batch.obs)
        obs_types(self.obs_spec, batch.next_obs)
        value_types(self.action_spec, batch.action)
        assert batch.value.shape == batch.reward.shape == (16,)
        self.learnt += 1
        return self.layer(flat(batch.obs)).square().mean()


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("model", ["Random", Small])
def test_every_action_the_environment_gets_is_in_its_space(
    name: str, model: Any, quick: Any
) -> None:
    run = quick(model=model, env=echo(action=ACTIONS[name]), num_envs=2, train_steps=20)
    value_types(run.spec.action, run.replay.sample(16).action)
    assert run.metrics["return"] == 7


@pytest.mark.parametrize(
    "space",
    [case[0] for name, case in OBSERVATIONS.items() if name != "scalar"]
    + [IMAGE, spaces.Box(0, 255, (8, 6), np.uint8), spaces.Box(0, 255, (3, 8, 6), np.uint8)]
    + [ARM, NESTED, PAIR, DEEP, ODD],
    ids=str,
)
@pytest.mark.parametrize("model", ["Random", Small])
def test_every_observation_reaches_the_batch(space: Any, model: Any, quick: Any) -> None:
    Echo.shown.clear()
    run = quick(model=model, env=echo(space), train_steps=20)
    batch = run.replay.sample(16)
    obs_types(run.spec.obs, batch.obs)
    obs_types(run.spec.obs, batch.next_obs)
    # The first episode, as the environment gave it (7 steps).
    code = codec(space, "observations")
    fields = run.replay.storage.gather(np.arange(7))
    first = next(i for i, obs in enumerate(Echo.shown) if same(code.stored(obs), fields["obs"], 0))
    for step in range(7):
        assert same(code.stored(Echo.shown[first + step]), fields["obs"], step)
        assert same(code.stored(Echo.shown[first + step + 1]), fields["next_obs"], step)


def same(stored: Any, fields: Any, row: int) -> bool:
    if isinstance(stored, dict):
        return all(same(stored[name], fields[name], row) for name in stored)
    return np.array_equal(np.asarray(stored), fields[row].numpy())


def test_storage_keeps_the_environments_own_types(quick: Any) -> None:
    run = quick(agent="Random", env=echo(NESTED, ACTIONS["double"]), train_steps=10)
    fields = run.replay.storage.gather(np.arange(5))
    assert fields["obs"]["eye"].dtype == torch.uint8
    assert fields["obs"]["arm"]["angle"].dtype == torch.float32
    assert fields["obs"]["arm"]["mode"].dtype == torch.int64
    assert fields["action"].dtype == torch.float32


def test_the_environment_may_change_the_action_it_is_given(quick: Any) -> None:
    class Greedy(Echo):
        def __init__(self) -> None:
            super().__init__(action=spaces.Box(-1, 1, (2,), np.float32))

        def step(self, action: Any) -> Any:
            action *= 0
            return super().step(action)

    run = quick(agent="Random", env=Greedy, train_steps=10)
    assert bool((run.replay.sample(16).action != 0).all())


def test_a_bound_that_float32_rounds_up_is_still_kept() -> None:
    code = codec(spaces.Box(-0.1, 0.1, (1,), np.float64), "actions", action=True)
    highest = code.space.high.numpy()
    assert highest.astype(np.float64) > 0.1
    assert code.native(highest).tolist() == [0.1]
    assert code.native(-highest).tolist() == [-0.1]


def test_whole_numbers_are_rounded_to_not_cut() -> None:
    code = codec(spaces.Box(0, 9, (3,), np.int32), "actions", action=True)
    assert code.native(np.array([0.4, 2.6, 8.9], np.float32)).tolist() == [0, 3, 9]


def test_pictures_as_actions_keep_their_layout() -> None:
    code = codec(IMAGE, "actions", action=True)
    assert code.space.shape == (8, 6, 3)
    picture = IMAGE.sample()
    assert np.array_equal(code.native(picture.astype(np.float32)), picture)


@pytest.mark.parametrize("name", ACTIONS)
def test_many_actions_become_native_at_once(name: str) -> None:
    from gymnasium.vector.utils import batch_space

    space = ACTIONS[name]
    code = codec(space, "actions", action=True)
    torch.manual_seed(0)
    actions = _arrays(draw(code.space, 4))
    many = code.native(actions)
    assert batch_space(space, 4).contains(many)
    for row in range(4):
        assert space.contains(code.native(_row(actions, row)))


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(part) for name, part in value.items()}
    return value.numpy()


def _row(value: Any, row: int) -> Any:
    if isinstance(value, dict):
        return {name: _row(part, row) for name, part in value.items()}
    return value[row]


def test_zeros_have_the_stored_shapes() -> None:
    made = zeros(codec(NESTED, "observations"), 2)
    assert (made["eye"].shape, made["eye"].dtype) == ((2, 3, 8, 6), np.uint8)
    assert (made["arm"]["mode"].shape, made["lamps"].shape) == ((2,), (2, 2))


BOX = spaces.Box(-1, 1, (2,), np.float32)
UNKNOWN = spaces.Space((2,), np.float32)
OBSERVATIONS_REFUSED = {
    "text": (spaces.Text(5), "a Text space.*FlattenObservation. encodes its letters as numbers"),
    "texts": (spaces.Dict({"a": spaces.Text(5)}), "a Dict that holds only text.*TransformObservation"),
    "sequence": (spaces.Sequence(BOX), "Sequence space.*TransformObservation.* pad it to the longest"),
    "graph": (spaces.Graph(BOX, None), "a Graph space.*adjacency matrix"),
    "one of": (spaces.OneOf([BOX, BOX]), "a OneOf space.*FlattenObservation. makes it one Box"),
    "part": (
        spaces.Dict({"a": spaces.Sequence(BOX), "b": BOX}),
        r"Echo\['a'\] are a Sequence space.*FilterObservation, filter_keys",
    ),
    "empty dict": (spaces.Dict({}), "a Dict without numbers.*is empty.*TimeAwareObservation"),
    "empty tuple": (spaces.Tuple([]), "a Tuple without numbers"),
    "no numbers": (spaces.Box(0, 1, (0,)), r"a Box of shape \[0\].*is empty"),
    "unknown": (UNKNOWN, "are a Space space.*TransformObservation.* can turn it into a Box"),
    "same names": (spaces.Dict({1: BOX, "1": BOX}), "two parts called '1'"),
    "channels": (spaces.Box(0, 1, (8, 8, 8), np.int8), "channels=last.*channels=first"),
}  # fmt: skip
ACTIONS_REFUSED = {
    "text": (spaces.Text(5), "actions of Echo are a Text space.*TransformAction.* spell out the text"),
    "part": (spaces.Dict({"a": BOX, "t": spaces.Text(5)}), r"actions of Echo\['t'\] are a Text space"),
    "sequence": (spaces.Sequence(BOX), "a Sequence space.*TransformAction.* Dict with its length"),
    "one of": (spaces.OneOf([BOX, BOX]), "a OneOf space.*TransformAction.* picks the alternative"),
    "graph": (spaces.Graph(BOX, None), "a Graph space.*TransformAction"),
    "empty": (spaces.Tuple([]), "a Tuple without numbers.*is empty"),
    "no numbers": (spaces.Box(0, 1, (0,)), r"actions of Echo are a Box of shape \[0\]"),
    "unknown": (UNKNOWN, "actions of Echo are a Space space"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSERVATIONS_REFUSED)
def test_observations_that_models_cannot_receive(name: str, quick: Any) -> None:
    space, message = OBSERVATIONS_REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        quick(agent="Random", env=echo(space))


def test_they_are_refused_before_there_are_processes(quick: Any) -> None:
    with pytest.raises(ConfigError, match="observations of Echo are a Text space"):
        quick(agent="Random", env=echo(spaces.Text(5)), vectorization="async", num_envs=2)


@pytest.mark.parametrize("name", ACTIONS_REFUSED)
def test_actions_that_models_cannot_give(name: str, quick: Any) -> None:
    space, message = ACTIONS_REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        quick(agent="Random", env=echo(None, space))


class Own(spaces.Box):
    """A space of the user's own that is a Box."""


def test_a_box_of_ones_own_is_a_box(quick: Any) -> None:
    run = quick(agent="Random", env=echo(Own(-1, 1, (2,))), train_steps=10)
    assert run.spec.obs.shape == (2,)
