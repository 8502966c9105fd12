"""Random acts uniformly within its space."""

from __future__ import annotations

import torch

from antelope.agents import Random
from antelope.agents.random import draw
from antelope.replay import Space

OBS = torch.zeros(6000, 1)


def test_choices_are_equally_frequent() -> None:
    torch.manual_seed(0)
    action = Random(Space((3,), torch.int64, discrete=True)).act(OBS)
    assert action.dtype == torch.int64
    # 2000 expected each; the standard deviation is sqrt(6000 * 1/3 * 2/3) = 36.5.
    assert all(abs(int(count) - 2000) < 180 for count in action.bincount(minlength=3))


def test_bounded_values_are_uniform() -> None:
    torch.manual_seed(0)
    low, high = torch.tensor([-2.0, 10.0]), torch.tensor([2.0, 11.0])
    action = Random(Space((2,), low=low, high=high)).act(OBS)
    assert action.shape == (6000, 2)
    assert bool(((action >= low) & (action <= high)).all())
    # The mean of a uniform variable has a deviation of width / sqrt(12 * 6000).
    assert bool(((action.mean(0) - (low + high) / 2).abs() < (high - low) * 0.02).all())
    assert bool((action.amax(0) > high - 0.01 * (high - low)).all())


def test_unbounded_values_are_normal_and_stay_within_a_single_bound() -> None:
    torch.manual_seed(0)
    low, high = torch.tensor([-torch.inf, 0.0]), torch.tensor([torch.inf, torch.inf])
    action = Random(Space((2,), low=low, high=high)).act(OBS)
    assert abs(float(action[:, 0].mean())) < 0.07
    assert abs(float(action[:, 0].std()) - 1) < 0.05
    assert float(action[:, 1].min()) >= 0


def test_a_space_without_bounds() -> None:
    action = Random(Space((2,))).act(OBS)
    assert bool(torch.isfinite(action).all())


def test_random_acts_in_nested_spaces_evenly() -> None:
    torch.manual_seed(0)
    space = {
        "a": Space((5,), discrete=True, nvec=(2, 3)),
        "b": {"c": Space((2,), discrete=True, binary=True)},
    }
    action = draw(space, 6000)
    assert (action["a"].shape, action["b"]["c"].shape) == ((6000, 2), (6000, 2))
    # Deviations are at most sqrt(6000 / 4) = 39.
    assert all(abs(int(n) - 3000) < 180 for n in action["a"][:, 0].bincount(minlength=2))
    assert all(abs(int(n) - 2000) < 180 for n in action["a"][:, 1].bincount(minlength=3))
    assert all(abs(int(n) - 3000) < 180 for n in action["b"]["c"].sum(0))


def test_it_acts_on_dicts_of_observations() -> None:
    obs = {"a": {"b": torch.zeros(3, 1)}}
    assert Random({"c": Space((2,), torch.int64, discrete=True)}).act(obs)["c"].shape == (3,)


def test_rounding_does_not_carry_it_over_a_bound() -> None:
    torch.manual_seed(0)
    low, high = torch.tensor([-0.3]), torch.tensor([0.1])
    action = draw(Space((1,), low=low, high=high), 200_000)
    assert bool(((action >= low) & (action <= high)).all())
