"""Dict transitions come back bit for bit: pictures, numbers and two actions at once, in their pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from antelope.envs import EnvTask, EnvWorld
from antelope.replay import Observations, Replay, Transitions

STEPS, CAPACITY, SIDE = 10_000, 3_000, 8
GAMMA = 0.75


class Witness(gymnasium.Env[Any, Any]):
    """Every observation has a number of its own, in its first pixels and in its inventory.

    All copies together keep what they showed, by number, and what was done there.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as gymnasium declares it.
    observation_space = spaces.Dict(
        {
            "screen": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            "inventory": spaces.Box(-np.inf, np.inf, (16,), np.float32),
        }
    )
    action_space = spaces.Dict({"move": spaces.Discrete(4), "use": spaces.MultiBinary(16)})
    shown: list[dict[str, np.ndarray]] = []  # noqa: RUF012 - shared on purpose.
    done: dict[int, dict[str, Any]] = {}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 14))
        self.number, obs = self.show()
        return obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        over, odd = self.left == 0, bool(self.np_random.integers(2))
        before, reward = self.number, np.float32(self.np_random.normal())
        self.number, obs = self.show()
        Witness.done[before] = {
            "move": int(action["move"]),
            "use": action["use"].copy(),
            "reward": reward,
            "next": self.number,
            "terminated": over and odd,
            "truncated": over and not odd,
        }
        return obs, float(reward), over and odd, over and not odd, {}

    def show(self) -> tuple[int, dict[str, np.ndarray]]:
        number, random = len(Witness.shown), self.np_random
        screen = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        screen[0, 0] = number % 256, number // 256 % 256, number // 65_536
        # Floats of every size, down to those that are nearly 0.
        powers = np.float32(10.0) ** random.integers(-40, 30, 16).astype(np.float32)
        inventory = (random.normal(size=16) * powers).astype(np.float32)
        inventory[0] = number
        obs = {"screen": screen, "inventory": inventory}
        Witness.shown.append({name: part.copy() for name, part in obs.items()})
        return number, obs


def numbers_of(obs: dict[str, torch.Tensor]) -> list[int]:
    """The numbers that stored observations say they have: pixels and inventory agree."""
    digits = obs["screen"][:, :, 0, 0].long()  # [B, C], channels first.
    numbers = digits @ torch.tensor([1, 256, 65_536])
    assert torch.equal(numbers, obs["inventory"][:, 0].long())
    return numbers.tolist()


def assert_same_bits(stored: torch.Tensor, given: list[np.ndarray]) -> None:
    expected, found = np.stack(given), stored.numpy()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def check(ring: Transitions) -> set[int]:
    """Compare every transition that can be drawn with what happened. Returns their numbers."""
    fields = ring.gather(np.flatnonzero(ring.drawable))
    numbers = numbers_of(fields["obs"])
    done = [Witness.done[number] for number in numbers]
    nexts = [what["next"] for what in done]
    assert numbers_of(fields["next_obs"]) == nexts
    for name, which in (("obs", numbers), ("next_obs", nexts)):
        shown = [Witness.shown[number] for number in which]
        channels_first = [obs["screen"].transpose(2, 0, 1) for obs in shown]
        assert_same_bits(fields[name]["screen"], channels_first)
        assert_same_bits(fields[name]["inventory"], [obs["inventory"] for obs in shown])
    assert fields["action"]["move"].tolist() == [what["move"] for what in done]
    assert_same_bits(fields["action"]["use"], [what["use"].astype(np.int64) for what in done])
    assert_same_bits(fields["reward"], [what["reward"] for what in done])
    for name in ("terminated", "truncated"):
        assert fields[name].tolist() == [what[name] for what in done]
    gammas = [0.0 if what["terminated"] else GAMMA for what in done]
    assert fields["discount"].tolist() == gammas
    return set(numbers)


@pytest.fixture
def witness() -> type[Witness]:
    Witness.shown.clear()
    Witness.done.clear()
    return Witness


@pytest.mark.parametrize(
    ("num_envs", "storage"), [(1, "ram"), (4, "ram"), (4, "mmap")], ids=["1", "4", "4-mmap"]
)
def test_10_000_dict_transitions_come_back_bit_for_bit(
    witness: type[Witness], tmp_path: Path, num_envs: int, storage: str
) -> None:
    world = EnvWorld([EnvTask(witness, name="Witness", num_envs=num_envs)])
    ring = Transitions(
        world.spec,
        capacity=CAPACITY,
        num_envs=num_envs,
        discount=GAMMA,
        storage=storage,
        folder=str(tmp_path),
    )
    replay = Replay(ring, Observations(world.spec.obs), batch_size=64)
    random = np.random.default_rng(0)

    def act(obs: Any, *_: Any) -> tuple[Any, dict[str, Any]]:
        move = random.integers(0, 4, num_envs)
        return {"move": move, "use": random.integers(0, 2, (num_envs, 16))}, {}

    world.begin(0, replay)
    checked: set[int] = set()
    overwritten = False
    for steps in range(num_envs, STEPS + num_envs, num_envs):
        world.collect(0, act, replay)
        # Often enough that no step is overwritten between two checks.
        if steps % 1_000 == 0 or steps >= STEPS:
            now = check(ring)
            overwritten |= bool(checked - now)
            checked |= now
            check_batch(replay)
    world.close()
    assert checked == set(Witness.done)
    assert len(checked) == STEPS
    assert overwritten
    assert 300 < sum(what["terminated"] for what in Witness.done.values()) < 1_200
    assert 300 < sum(what["truncated"] for what in Witness.done.values()) < 1_200
    assert ring.columns is not None
    assert ring.columns.fields["obs::screen"] == ((3, SIDE, SIDE), np.dtype(np.uint8))
    assert ring.columns.fields["obs::inventory"] == ((16,), np.dtype(np.float32))


def check_batch(replay: Replay) -> None:
    """What a model meets: pictures in [0, 1], numbers and actions as they were."""
    batch = next(replay)
    numbers = batch.obs["inventory"][:, 0].long().tolist()
    following = batch.next_obs["inventory"][:, 0].long().tolist()
    assert following == [Witness.done[number]["next"] for number in numbers]
    for obs, which in ((batch.obs, numbers), (batch.next_obs, following)):
        assert obs["screen"].dtype == torch.float32
        assert obs["screen"].shape == (64, 3, SIDE, SIDE)
        bytes_ = np.stack([Witness.shown[number]["screen"] for number in which])
        expected = torch.from_numpy(bytes_).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(obs["screen"], expected)
        assert_same_bits(obs["inventory"], [Witness.shown[n]["inventory"] for n in which])
    assert batch.action["move"].tolist() == [Witness.done[number]["move"] for number in numbers]
    assert batch.action["use"].dtype == torch.int64
    assert batch.action["use"].tolist() == [Witness.done[n]["use"].tolist() for n in numbers]
