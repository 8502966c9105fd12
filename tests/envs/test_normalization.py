"""normalize_obs and normalize_reward: unit scale in batches, and no trace of evaluation in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from antelope.envs.normalized import normalized_shapes
from antelope.replay import Normalizer, Space
from antelope.replay.normalizer import Moments

from .test_copies import KINDS, everything, vector
from .toys import Diary, flat


class Noise(Diary):
    """Observations far from unit scale; rewards of 50 or -30; episodes of 20 steps."""

    length = 20
    parts = False

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1e4, 1e4, (2,), np.float32)
        if self.parts:
            self.observation_space = spaces.Dict(  # type: ignore[assignment]
                {
                    "arm": spaces.Dict({"angle": self.observation_space}),
                    "eye": spaces.Box(0, 255, (8, 6), np.uint8),
                    "mode": spaces.Discrete(3),
                }
            )

    def _obs(self) -> Any:
        obs = self.np_random.normal([300, -5], [20, 0.1]).astype(np.float32)
        if not self.parts:
            return obs
        return {"arm": {"angle": obs}, "eye": np.full((8, 6), 255, np.uint8), "mode": 2}

    def reward(self, step: int) -> float:
        return 50.0 if self.np_random.random() < 0.5 else -30.0


class Parts(Noise):
    parts = True


class Meets(nn.Module):
    """Keeps what it is given while it is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.evaluated: list[Tensor] = []

    def act(self, obs: Any) -> Tensor:
        rows = flat(obs)
        if not self.training:
            self.evaluated.append(rows.clone())
        return torch.zeros(len(rows), dtype=torch.long)

    def learn(self, replay: Any) -> Tensor:
        next(replay)
        return self.weight.sum()


def is_unit(values: Tensor, tolerance: float = 0.15) -> bool:
    mean, stddev = values.mean(0), values.std(0)
    return bool((mean.abs() < tolerance).all() and ((stddev - 1).abs() < tolerance).all())


@pytest.mark.parametrize("kind", ["one", "sync", "next step", "told"])
def test_observations_have_zero_mean_and_unit_deviation(kind: str, quick: Any) -> None:
    settings = KINDS[kind]
    modes = {"next step": AutoresetMode.NEXT_STEP, "told": AutoresetMode.DISABLED}
    env: Any = vector(modes[kind], env=Noise) if kind in modes else Noise
    settings = settings | {"env": env, "train_steps": 600, "eval_episodes": 9}
    run = quick(**settings, model=Meets, normalize_obs=True)
    batch = everything(run)
    assert is_unit(batch.obs)
    assert is_unit(batch.next_obs)
    assert is_unit(torch.cat(run.agent.evaluated), 0.25)  # A few rows only.
    assert batch.reward.unique().tolist() == [-30, 50]  # These were not asked for.
    stored = run.replay.storage.gather(np.arange(5))["obs"]
    assert bool((stored[:, 0] > 100).all())  # Kept in the environment's units.


def test_normalised_stacks(quick: Any) -> None:
    run = quick(env=Noise, model=Meets, normalize_obs=True, frame_stack=3, train_steps=600)
    batch = everything(run)
    assert batch.obs.shape[1:] == (6,)
    assert is_unit(batch.obs)


def test_numbers_within_dicts_are_normalised_and_images_and_choices_are_not(quick: Any) -> None:
    run = quick(env=Parts, model=Meets, normalize_obs=True, frame_stack=2, train_steps=600)
    batch = everything(run)
    assert is_unit(batch.obs["arm"]["angle"])
    assert bool((batch.obs["eye"] == 1).all())
    assert torch.equal(batch.obs["mode"].sum(0), torch.tensor([0.0, 0.0, len(batch)]))


def test_shapes_by_path() -> None:
    image, number = Space((1, 8, 6), torch.uint8), Space((2,))
    space = {"a": {"b": {"c": number}, "d": Space((3,), discrete=True)}, "e": image, "f": number}
    assert normalized_shapes(space) == {"a/b/c": (2,), "f": (2,)}
    assert normalized_shapes(number) == {"": (2,)}
    assert normalized_shapes(image) == {}


def test_images_alone_stay_as_they_are(quick: Any) -> None:
    image: Any = spaces.Box(0, 255, (8, 6), np.uint8)

    class Pictures(Noise):
        observation_space: Any

        def __init__(self) -> None:
            super().__init__()
            self.observation_space = image

        def _obs(self) -> Any:
            return np.full((8, 6), 51, np.uint8)

    with pytest.warns(UserWarning, match=r"`normalize_obs` has no effect.*images, choices or"):
        batch = everything(quick(env=Pictures, agent="Random", normalize_obs=True))
    assert torch.allclose(batch.obs, torch.tensor(0.2))


class Counts(Noise):
    """Counts its steps, from a number on, in a type."""

    first: Any = 0
    box: Any = spaces.Box(0, 255, (3,), np.uint8)

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = self.box

    def _obs(self) -> Any:
        return np.full(self.box.shape, self.first + self.np_random.integers(7), self.box.dtype)


@pytest.mark.parametrize(
    ("box", "first"),
    [
        (spaces.Box(0, 255, (128,), np.uint8), 50),  # A memory.
        (spaces.Box(0, 6, (3, 8, 8), np.uint8), 0),  # A board.
        (spaces.Box(0, 2**62, (1,), np.int64), 1_700_000_000_000_000_000),  # Nanoseconds.
    ],
)
def test_bytes_that_are_no_images_and_large_whole_numbers_are_normalised(
    quick: Any, box: Any, first: int
) -> None:
    counts = type("Counts", (Counts,), {"box": box, "first": first})
    run = quick(env=counts, model=Meets, normalize_obs=True, train_steps=600)
    obs = everything(run).obs.flatten(1)
    assert is_unit(obs)
    assert len(obs[:, 0].unique()) == 7


@pytest.mark.parametrize("train_steps", [60, 300])
def test_observations_that_float32_cannot_tell_apart_are_said(quick: Any, train_steps: int) -> None:
    clock = spaces.Box(0, 1e10, (1,), np.float64)
    late = type("Clock", (Counts,), {"box": clock, "first": 1.7e9})
    with pytest.warns(
        UserWarning, match=r"Observations of Clock.*normalize_obs=true subtracts"
    ) as said:
        quick(env=late, model=Meets, train_steps=train_steps)
    assert len(said) == 1
    # Warnings are errors: nothing is said of these.
    assert is_unit(
        everything(quick(env=late, model=Meets, train_steps=600, normalize_obs=True)).obs
    )
    quick(
        env=type("Early", (Counts,), {"box": clock, "first": 500.0}), model=Meets, train_steps=300
    )


def test_moments_of_whole_numbers_are_restored() -> None:
    moments, other = Moments((1,)), Moments((1,))
    x = 10**18 + np.array([[3], [5], [7]])
    moments.add(x[:1])
    moments.add(x[1:])
    other.load_state_dict(moments.state_dict())
    for each in (moments, other):
        expected = torch.tensor([[-1.0], [0.0], [1.0]]) * 1.5**0.5
        assert torch.allclose(each.normalize(torch.from_numpy(x)), expected)


class Sources(Noise):
    """The same numbers in every type, around a number that is large for it; nothing else changes."""

    def __init__(self) -> None:
        super().__init__()
        kinds = {"clock": np.float64, "stamp": np.int64, "half": np.float16, "byte": np.uint8}
        self.observation_space: Any = spaces.Tuple(
            [
                spaces.Dict(
                    {f"{name}/x": spaces.Box(*_bounds(kind)) for name, kind in kinds.items()}
                ),
                spaces.Box(0, 1, (2,), np.bool_),  # type: ignore[arg-type]
                spaces.Discrete(2),
            ]
        )

    def _obs(self) -> Any:
        n = self.np_random.integers(-50, 50, 2)
        numbers = {
            "clock/x": 1e9 + 1e-3 * n,
            "stamp/x": 1_700_000_000_000_000_000 + n,
            "half/x": (100 + n).astype(np.float16),
            "byte/x": (100 + n).astype(np.uint8),
        }
        return numbers, n > 0, int(n[0] > 0)


def _bounds(kind: type) -> tuple[float, float, tuple[int], type]:
    largest = {np.float64: 2e9, np.int64: 2**62, np.float16: 255, np.uint8: 255}[kind]
    return 0, largest, (2,), kind


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("storage", ["ram", "mmap", "gpu"])
def test_every_type_is_normalised_before_it_is_rounded(
    stack: int, storage: str, quick: Any
) -> None:
    settings = {"env": Sources, "normalize_obs": True, "frame_stack": stack, "num_envs": 2}
    run = quick(f"replay.storage={storage}", **settings, agent="Random", train_steps=600)
    ring, found = run.replay.storage, everything(run)
    stored = ring.gather(np.asarray(found.index))
    moments = run.replay.transform.normalizer.moments
    assert sorted(moments) == [f"0/{name}~1x" for name in ("byte", "clock", "half", "stamp")]
    whole = stored["obs"]["0"]["stamp/x"].numpy() - 1_700_000_000_000_000_000
    for name in ("obs", "next_obs"):
        met = found[name]["0"]
        assert met["clock/x"].shape[1:] == (2 * stack,)
        for part, scale in (("stamp", 1.0), ("half", 1.0), ("byte", 1.0), ("clock", 1e-3)):
            of = moments[f"0/{part}~1x"]
            # Counted from the first of them: as it is, a stamp is too large for float64.
            exact = stored[name]["0"][f"{part}/x"].numpy() - (0.0 if of.base is None else of.base)
            expected = (exact - of.state_dict()["mean"]) / np.sqrt(of.variance + 1e-8)
            np.testing.assert_allclose(met[f"{part}/x"].numpy(), expected, atol=1e-5)
            # As many as there are different numbers: none has fallen together with another.
            assert len(np.unique(met[f"{part}/x"][:, 0])) == len(np.unique(exact[:, 0]))
            assert of.variance == pytest.approx(scale**2 * whole.var(), rel=0.2)
        assert set(found[name]["1"].unique().tolist()) == {0.0, 1.0}


def test_acting_evaluation_and_batches_receive_the_same(quick: Any) -> None:
    class Clock(Noise):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space: Any = spaces.Box(0, 2e9, (1,), np.float64)

        def _obs(self) -> Any:
            return np.array([1e9 + 1e-3 * self.np_random.integers(-50, 50)])

    run = quick(env=Clock, model=Meets, normalize_obs=True, train_steps=600, eval_episodes=4)
    batch = everything(run)
    moments = run.replay.transform.normalizer.moments[""]
    ticks = torch.arange(-50, 50).double()[:, None]
    possible = moments.normalize(1e9 + 1e-3 * ticks)[:, 0]
    assert len(possible.unique()) == 100
    for met in (batch.obs, batch.next_obs, torch.cat(run.agent.evaluated)):
        assert bool(torch.isin(met, possible).all())
    assert len(batch.obs.unique()) > 90


def test_bounds_keep_the_type_of_their_space(quick: Any) -> None:
    space = spaces.Box(np.array([-0.1, 1e9]), np.array([0.1, 1e9 + 1e-3]), dtype=np.float64)

    class Fine(Noise):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = space

        def _obs(self) -> Any:
            return space.low

    spec = quick(env=Fine, agent="Random", train_steps=8).spec.obs
    assert (spec.dtype, spec.low.dtype, spec.high.dtype) == (torch.float64,) * 3
    assert spec.low.tolist() == [-0.1, 1e9]
    assert spec.high.tolist() == [0.1, 1e9 + 1e-3]


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_rewards_are_in_units_of_the_returns_deviation(normalize_obs: bool, quick: Any) -> None:
    settings = {"normalize_reward": True, "normalize_obs": normalize_obs, "discount": 0.9}
    run = quick(env=Noise, model=Meets, train_steps=2000, learn_every=50, **settings)
    batch = everything(run)
    scale = 50 / float(batch.reward.max())
    assert float(batch.reward.min()) == pytest.approx(-30 / scale)
    # Var(G) of independent rewards of mean 10 and deviation 40, averaged over an episode's 20 steps.
    powers = 0.9 ** np.arange(21)
    means = [10 * powers[:t].sum() for t in range(1, 21)]
    second = [(40**2) * (powers[:t] ** 2).sum() + mean**2 for t, mean in enumerate(means, 1)]
    expected = np.sqrt(np.mean(second) - np.mean(means) ** 2)
    assert scale == pytest.approx(expected, rel=0.1)
    # What is evaluated and logged are the environment's own rewards.
    assert run.metrics["return"] % 10 == 0
    assert abs(run.metrics["return"]) >= 20 or run.metrics["return"] == 0


def test_statistics_are_those_of_training_alone(quick: Any, tmp_path: Any) -> None:
    settings = {"env": Noise, "normalize_obs": True, "normalize_reward": True, "model": Meets}
    often = quick(**settings, eval_every=5, eval_episodes=3, path=tmp_path / "often")
    never = quick(**settings, path=tmp_path / "never")
    for name in ("obs", "next_obs", "reward"):
        assert torch.equal(everything(often)[name], everything(never)[name])


def test_rows_without_a_step_do_not_count() -> None:
    normalizer = Normalizer({}, num_envs=2, discount=0.5, obs=False, reward=True)
    done = np.array([False, True])
    normalizer.see_rewards(np.array([1.0, 3.0]), done)
    normalizer.see_rewards(np.array([1.0, 0.0]), np.zeros(2, bool), np.array([True, False]))
    normalizer.see_rewards(np.array([0.0, 0.0]), np.zeros(2, bool), np.array([False, False]))
    assert normalizer.returns is not None
    assert normalizer.returns.count == 3
    assert normalizer.returns.mean == pytest.approx((1 + 3 + 1.5) / 3)
