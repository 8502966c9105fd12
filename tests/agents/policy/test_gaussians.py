"""Squashed normal distributions against scipy and numeric integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from antelope.agents.policy.gaussians import DiagonalGaussian, SquashedGaussian

LOW, HIGH = -1.0, 3.0
MEANS, LOG_STDS = (-2.0, 0.0, 0.4, 3.0), (-3.0, -1.0, 0.0, 1.0, 2.0)


def bounded(loc: float, log_std: float) -> SquashedGaussian:
    """One number in [-1, 3]."""
    return SquashedGaussian(*torch.tensor([loc, log_std, LOW, HIGH]).unbind())


def uniform() -> SquashedGaussian:
    return SquashedGaussian(
        torch.zeros(2, 3), torch.zeros(2, 3), torch.full((3,), LOW), torch.full((3,), HIGH)
    )


def squash(u: np.ndarray) -> np.ndarray:
    return LOW + (HIGH - LOW) * (np.tanh(u) + 1) / 2


@pytest.mark.parametrize("loc", MEANS)
@pytest.mark.parametrize("log_std", LOG_STDS)
def test_a_squashed_gaussians_density_is_the_normal_ones_over_the_slope(
    loc: float, log_std: float
) -> None:
    ours, std = bounded(loc, log_std), math.exp(log_std)
    u = np.linspace(-3, 3, 61)
    slope = (HIGH - LOW) / 2 * (1 - np.tanh(u) ** 2)
    expected = stats.norm.logpdf(u, loc, std) - np.log(slope)
    found = ours.log_prob(torch.from_numpy(squash(u)).float()).numpy()
    # What a value that is rounded to float32 says of u, next to a bound and at the smallest std.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loc", MEANS)
@pytest.mark.parametrize("log_std", [-20.0, *LOG_STDS])
def test_a_squashed_gaussians_entropy_is_the_integral(loc: float, log_std: float) -> None:
    std = math.exp(log_std)

    def log_slope(z: float) -> float:
        u = loc + std * z
        return math.log(HIGH - LOW) + math.log(2) - 2 * u - 2 * np.logaddexp(0, -2 * u)

    stretch, _ = integrate.quad(
        lambda z: stats.norm.pdf(z) * log_slope(z), -9, 9, points=[0], limit=300
    )
    found = bounded(loc, log_std).entropy().item()
    assert found == pytest.approx(stats.norm.entropy(0, std) + stretch, abs=1e-3)


@pytest.mark.parametrize(("loc", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (0.0, -4.0)])
def test_the_density_integrates_to_one_over_the_box(loc: float, log_std: float) -> None:
    # Points are denser at the bounds, where a squashed density may have peaks.
    u = np.linspace(-7.5, 7.5, 40_001)
    x = squash(u)
    density = bounded(loc, log_std).log_prob(torch.from_numpy(x).float()).double().exp()
    assert np.trapezoid(density.numpy(), x) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(("loc", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.2), (30.0, 1.0)])
def test_draws_follow_the_distribution(loc: float, log_std: float) -> None:
    torch.manual_seed(0)
    drawn = bounded(loc, log_std).sample((5_000,)).double().numpy()
    assert drawn.min() >= LOW
    assert drawn.max() <= HIGH
    if loc < 5:

        def cdf(x: np.ndarray) -> np.ndarray:
            return stats.norm.cdf(
                np.arctanh((2 * x - LOW - HIGH) / (HIGH - LOW)), loc, math.exp(log_std)
            )
    else:  # All of it at the bound, as far as float32 can tell.
        assert (drawn == HIGH).all()
        return
    assert stats.kstest(drawn, cdf).pvalue > 0.01


def test_without_bounds_it_is_normal_with_a_deviation_per_number() -> None:
    torch.manual_seed(0)
    loc, log_std, value = torch.randn(3, 4, 2, 3).tanh().unbind()  # [4, 2, 3]
    ours = DiagonalGaussian(loc, log_std, 2)
    theirs = stats.norm(loc.numpy(), log_std.exp().numpy())
    np.testing.assert_allclose(
        ours.log_prob(value), theirs.logpdf(value.numpy()).sum((1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(ours.entropy(), theirs.entropy().sum((1, 2)), rtol=1e-5)
    z = ((ours.sample((4_000,)) - loc) / log_std.exp()).flatten()
    assert stats.kstest(z.numpy(), stats.norm.cdf).pvalue > 0.01


def test_at_a_bound_and_beyond_it_the_density_is_finite() -> None:
    policy = bounded(0.0, 0.0)
    x = torch.tensor([-9.0, LOW, HIGH, 9.0])
    log_p = policy.log_prob(x)
    assert bool(torch.isfinite(log_p).all())
    assert log_p[0] == log_p[1]
    assert log_p[2] == log_p[3]


@pytest.mark.parametrize("kind", [SquashedGaussian, DiagonalGaussian])
@pytest.mark.parametrize("loc", [-50.0, 0.0, 50.0])
@pytest.mark.parametrize("log_std", [-50.0, 0.0, 50.0])
def test_extreme_outputs_have_finite_values_and_gradients(
    kind: type, loc: float, log_std: float
) -> None:
    torch.manual_seed(0)
    rest = (1,) if kind is DiagonalGaussian else (torch.tensor([LOW]), torch.tensor([HIGH]))
    for x in (None, LOW, 0.3, HIGH):
        output = torch.tensor([[loc], [log_std]], requires_grad=True)
        policy = kind(*output, *rest)
        value = policy.sample() if x is None else torch.tensor([x])
        assert bool(torch.isfinite(value).all())
        log_p, entropy = policy.log_prob(value), policy.entropy()
        (gradient,) = torch.autograd.grad((log_p + entropy).sum(), output)
        for found in (log_p, entropy, gradient):
            assert bool(torch.isfinite(found).all())


def test_gradients_are_those_of_the_closed_form() -> None:
    x = torch.tensor([0.1, 2.0, -0.9])

    def total(loc: Tensor, log_std: Tensor) -> Tensor:
        policy = SquashedGaussian(loc, log_std, torch.full((3,), LOW), torch.full((3,), HIGH))
        return policy.log_prob(x) + 0.3 * policy.entropy()

    inputs = [torch.tensor([0.2, -1.7, 3.5]), torch.tensor([0.0, -0.5, 0.7])]
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = torch.autograd.grad(total(*leaves), leaves)
    for which in range(2):
        for i in range(3):
            step = torch.zeros(3)
            step[i] = 2e-2
            around = []
            for sign in (1, -1):
                moved = list(inputs)
                moved[which] = moved[which] + sign * step
                around.append(total(*moved))
            slope = (around[0] - around[1]).item() / 4e-2
            assert found[which][i].item() == pytest.approx(slope, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(("loc", "log_std"), [(0.0, 2.0), (6.0, 1.0), (-40.0, 2.0), (0.0, -1.0)])
def test_however_often_draws_are_at_a_bound_the_score_is_0_on_average(
    loc: float, log_std: float
) -> None:
    # E[grad log p] = 0: otherwise the policy is drawn somewhere by what it did, whatever it was paid.
    torch.manual_seed(0)
    output = torch.tensor([[loc], [log_std]]).repeat(1, 40_000).requires_grad_()
    policy = SquashedGaussian(*output, torch.tensor(LOW), torch.tensor(HIGH))
    (score,) = torch.autograd.grad(policy.log_prob(policy.sample()).sum(), output)
    error = score.std(1) / 200
    assert bool((score.mean(1).abs() < 4 * error + 1e-3).all())


def test_a_squashed_draw_carries_the_gradient_of_the_mean() -> None:
    loc = torch.tensor([0.3], requires_grad=True)
    policy = SquashedGaussian(loc, torch.tensor([-20.0]), torch.tensor([LOW]), torch.tensor([HIGH]))
    policy.rsample().sum().backward()
    # da / dloc = (high - low) / 2 (1 - tanh(loc)^2).
    assert loc.grad is not None
    assert loc.grad.item() == pytest.approx(2 * (1 - math.tanh(0.3) ** 2), rel=1e-5)
    assert not policy.sample().requires_grad


def test_modes_are_inside() -> None:
    assert bounded(7.0, 0.0).mode.item() == pytest.approx(squash(np.array(7.0)))


def test_a_dimension_of_one_value_only_is_that_value() -> None:
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 2.0])
    policy = SquashedGaussian(torch.zeros(4, 2), torch.zeros(4, 2), low, high)
    drawn = policy.sample()
    assert (drawn[:, 1] == 2).all()
    assert bool(torch.isfinite(policy.log_prob(drawn)).all())
    assert bool(torch.isfinite(policy.entropy()).all())


def test_numbers_are_summed_and_batches_kept() -> None:
    policy = uniform()
    assert policy.log_prob(policy.sample()).shape == policy.entropy().shape == (2,)
    assert policy.log_prob(policy.sample((5,))).shape == (5, 2)
    one = bounded(0.0, 0.0)
    torch.testing.assert_close(policy.entropy(), 3 * one.entropy().expand(2))


def test_entropies_use_no_random_numbers() -> None:
    before = torch.get_rng_state()
    uniform().entropy()
    assert torch.equal(torch.get_rng_state(), before)
