"""Running statistics are those of everything seen at once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import Normalizer
from antelope.replay.normalizer import Moments
from antelope.replay.tree import map_tree, named_leaves


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.sampled_from([(), (3,), (2, 4)]),
    st.sampled_from([0.0, 1e-3, 1e6, -1e8]),
    st.integers(0, 99),
)
def test_moments_merge_batch_by_batch(
    sizes: list[int], shape: tuple[int, ...], offset: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    batches = [random.normal(offset, 3, (n, *shape)) for n in sizes]
    moments = Moments(shape)
    for batch in batches:
        moments.add(batch)
    seen = np.concatenate(batches)
    assert moments.count == len(seen)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.variance, seen.var(0), rtol=1e-6, atol=1e-6)


def test_without_anything_seen_nothing_changes() -> None:
    normalizer = Normalizer({"": (2,)}, num_envs=1, discount=0.9, obs=True, reward=True)
    obs = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(normalizer.obs(obs), obs)
    torch.testing.assert_close(normalizer.reward(torch.tensor([5.0])), torch.tensor([5.0]))


def test_observations_are_normalised_and_clipped_in_memory_of_their_own() -> None:
    random = np.random.default_rng(0)
    seen = random.normal([5, -300], [2, 50], (400, 2))
    normalizer = Normalizer({"": (2,)}, num_envs=4, discount=0.9, obs=True, reward=False)
    for rows in seen.reshape(100, 4, 2):
        normalizer.see(rows)
    obs = torch.tensor([[[5.0, -250.0]], [[1e6, -300.0]]])  # Any leading shape.
    kept = obs.clone()
    expected = np.clip((obs.numpy() - seen.mean(0)) / seen.std(0), -10, 10)
    np.testing.assert_allclose(normalizer.obs(obs).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(obs, kept)
    reward = torch.ones(3)
    assert normalizer.reward(reward) is reward


def test_parts_of_a_dict_have_their_own_statistics_and_others_none() -> None:
    normalizer = Normalizer({"speed": (1,)}, num_envs=2, discount=0.9, obs=True, reward=False)
    normalizer.see({"speed": np.array([[1.0], [3.0]]), "image": np.zeros((2, 3, 8, 8), np.uint8)})
    image = torch.full((1, 3), 0.5)
    obs = normalizer.obs({"speed": torch.tensor([[4.0]]), "image": image})
    assert obs["speed"].tolist() == [[pytest.approx(2)]]
    assert obs["image"] is image


def test_rewards_are_divided_by_the_deviation_of_their_returns() -> None:
    random = np.random.default_rng(0)
    rewards, ends = random.normal(1, 2, (300, 3)), random.random((300, 3)) < 0.1
    normalizer = Normalizer({}, num_envs=3, discount=0.8, obs=False, reward=True)
    returns, total = [], np.zeros(3)
    for reward, done in zip(rewards, ends, strict=True):
        normalizer.see_rewards(reward, done)
        total = 0.8 * total + reward
        returns.append(total)
        total = np.where(done, 0, total)
    # The sign is kept: nothing is subtracted.
    scaled = normalizer.reward(torch.tensor([[3.0, -1.0], [1e9, 0.0]]))
    stddev = np.std(returns)
    np.testing.assert_allclose(scaled, [[3 / stddev, -1 / stddev], [10, 0]], rtol=1e-6)


def test_the_state_continues_exactly() -> None:
    def of() -> Normalizer:
        return Normalizer({"": (2,)}, num_envs=3, discount=0.9, obs=True, reward=True)

    random = np.random.default_rng(0)
    one, two = of(), of()
    for step in range(20):
        if step == 9:
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        obs, reward, done = random.random((3, 2)), random.random(3), random.random(3) < 0.2
        for normalizer in (one, two) if step >= 9 else (one,):
            normalizer.see(obs)
            normalizer.see_rewards(reward, done)
    x = torch.rand(5, 2)
    assert torch.equal(one.obs(x), two.obs(x))
    assert torch.equal(one.reward(x), two.reward(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
@pytest.mark.parametrize("float64", [True, False])
def test_a_clock_keeps_its_digits(
    dtype: torch.dtype, float64: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not float64 and dtype == torch.float64:
        pytest.skip("such a device holds none")
    monkeypatch.setattr("antelope.replay.normalizer.has_float64", lambda kind: float64)
    seconds = 1.7e9 + np.arange(400.0)[:, None]
    moments = Moments((1,))
    for row in seconds:
        moments.add(row[None])
    found = moments.normalize(torch.from_numpy(seconds).to(dtype))
    assert found.dtype == torch.float32
    expected = (seconds - seconds.mean()) / seconds.std()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_mean_of_float32_observations_is_taken_off_unrounded() -> None:
    # 100,000,000 and 100,000,008 are float32 numbers; a quarter of the way between them is not.
    seen = np.array([[1e8], [1e8], [1e8], [1e8 + 8]])
    moments = Moments((1,))
    moments.add(seen)
    found = moments.normalize(torch.from_numpy(seen).float())
    np.testing.assert_allclose(found.numpy(), (seen - seen.mean()) / seen.std(), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [
        (np.float64, 1e9, 1e-3),
        (np.float64, -1e12, 1.0),
        (np.float32, 1e3, 1.0),
        (np.float16, 100.0, 10.0),
        (np.int64, 1.7e18, 1e9),
        (np.uint8, 100, 20),
        (np.int8, 0, 20),
    ],
)
def test_statistics_are_those_of_a_plain_loop_in_higher_precision(
    dtype: type, offset: float, scale: float
) -> None:
    noise = np.random.default_rng(0).normal(0, scale, (4000, 2))
    whole = np.dtype(dtype).kind in "iu"
    seen = (int(offset) + noise.astype(np.int64) if whole else offset + noise).astype(dtype)
    moments, again = Moments((2,)), Moments((2,))
    for start in range(0, len(seen), 4):
        moments.add(seen[start : start + 4])
    again.load_state_dict(copy.deepcopy(moments.state_dict()))
    # Counted from the first of them, exactly, and then in the plainest way there is.
    wide = np.int64 if whole else np.longdouble
    exact = (seen.astype(wide) - seen[0].astype(wide)).astype(np.longdouble)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-8)
    kept = torch.from_numpy(seen)
    for each in (moments, again):
        found = each.normalize(kept)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected.astype(np.float64), atol=2e-5, rtol=1e-5)
    assert torch.equal(moments.normalize(kept), again.normalize(kept))


def test_names_with_slashes_and_nested_ones_are_told_apart() -> None:
    tree = {"a/b": np.array([[0.0], [2.0]]), "a": {"b": np.array([[10.0], [30.0]])}}
    shapes = dict.fromkeys(named_leaves(tree), (1,))
    assert len(shapes) == 2
    normalizer = Normalizer(shapes, num_envs=2, discount=0.9, obs=True, reward=False)
    normalizer.see(tree)
    other = Normalizer(shapes, num_envs=2, discount=0.9, obs=True, reward=False)
    other.load_state_dict(copy.deepcopy(normalizer.state_dict()))
    for each in (normalizer, other):
        found = each.obs(map_tree(torch.from_numpy, tree))
        assert found["a/b"][:, 0].tolist() == pytest.approx([-1, 1])
        assert found["a"]["b"][:, 0].tolist() == pytest.approx([-1, 1])
    assert normalizer.moments["a~1b"].mean == 1
    assert normalizer.moments["a/b"].mean == 20
