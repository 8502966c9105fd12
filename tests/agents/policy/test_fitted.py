"""Distributions of torch's that a forward returned, whatever their batch and event shapes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import distributions as torchs

from antelope.agents.policy.heads import distribution
from antelope.replay import ConfigError, Space

INT = torch.int64
CHOICE = Space((5,), INT, discrete=True)
EVEN = Space((8,), INT, discrete=True, nvec=(4, 4))
UNEVEN = Space((7,), INT, discrete=True, nvec=(3, 4))
SWITCHES = Space((16,), INT, discrete=True, binary=True)
GRID = Space((6,), INT, discrete=True, binary=True)  # MultiBinary((2, 3)).
BOX = Space((3, 2), low=-1.0, high=2.0)
NUMBER = Space((), low=0.0, high=1.0)
FREE = Space((2,))
B, Z = 4, torch.zeros


def normal(*shape: int) -> torchs.Normal:
    return torchs.Normal(torch.randn(shape), torch.rand(shape) + 0.1)


def squashed(*shape: int) -> torchs.Distribution:
    return torchs.TransformedDistribution(
        normal(*shape), [torchs.TanhTransform(), torchs.AffineTransform(0.5, 0.5)]
    )


FITTING = {
    "a box of numbers in the batch": (BOX, lambda: normal(B, 3, 2)),
    "partly in the batch": (BOX, lambda: torchs.Independent(normal(B, 3, 2), 1)),
    "in the event": (BOX, lambda: torchs.Independent(normal(B, 3, 2), 2)),
    "flattened": (BOX, lambda: torchs.Independent(normal(B, 6), 1)),
    "correlated": (FREE, lambda: torchs.MultivariateNormal(Z(B, 2), torch.eye(2))),
    "in float64": (
        FREE,
        lambda: torchs.MultivariateNormal(
            Z(B, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        ),
    ),
    "a number": (NUMBER, lambda: torchs.Beta(torch.full((B,), 2.0), torch.ones(B))),
    "switches": (SWITCHES, lambda: torchs.Bernoulli(logits=torch.randn(B, 16))),
    "an event of switches": (
        SWITCHES,
        lambda: torchs.Independent(torchs.Bernoulli(logits=torch.randn(B, 16)), 1),
    ),
    "a grid of switches": (GRID, lambda: torchs.Bernoulli(logits=torch.randn(B, 2, 3))),
    "a choice": (CHOICE, lambda: torchs.Categorical(logits=torch.randn(B, 5))),
    "a count": (CHOICE, lambda: torchs.Binomial(4, torch.rand(B))),
    "choices": (EVEN, lambda: torchs.Categorical(logits=torch.randn(B, 2, 4))),
}


@pytest.mark.parametrize("name", FITTING)
def test_everything_beyond_the_batch_is_summed(name: str) -> None:
    torch.manual_seed(0)
    space, make = FITTING[name]
    given = make()
    policy = distribution(space, given)
    value = policy.sample()
    assert value.shape == (B, *space.value_shape)
    assert value.dtype == (INT if space.discrete else torch.float32)
    assert policy.mode.shape == value.shape
    assert policy.mode.dtype == value.dtype
    back = value.reshape(given.batch_shape + given.event_shape)
    each = given.log_prob(back.double() if name == "in float64" else back.float())
    expected = each.reshape(B, -1).sum(1).float()
    torch.testing.assert_close(policy.log_prob(value), expected)
    assert policy.log_prob(value).dtype == torch.float32
    try:
        entropy = given.entropy().reshape(B, -1).sum(1).float()
    except NotImplementedError:
        return
    torch.testing.assert_close(policy.entropy(), entropy)
    assert policy.log_prob(policy.sample((7,))).shape == (7, B)


REFUSED = {
    "one-hot": (
        CHOICE,
        lambda: torchs.OneHotCategorical(logits=Z(B, 5)),
        r"Categorical of 5 choices, whose values are numbers of choices and not one-hot, for Discrete\(5\)",
    ),
    "another number of choices": (
        CHOICE,
        lambda: torchs.Categorical(logits=Z(B, 6)),
        r"expected Categorical of 5 choices for Discrete\(5\), got Categorical",
    ),
    "counts without end": (CHOICE, lambda: torchs.Poisson(torch.ones(B)), "Categorical of 5"),
    "numbers for a choice": (
        CHOICE,
        lambda: normal(B),
        r"Categorical of 5 choices for Discrete\(5\), got Normal with values \(4,\)",
    ),
    "choices for numbers": (
        BOX,
        lambda: torchs.Categorical(logits=Z(B, 3, 2, 5)),
        r"expected a continuous distribution, such as a Normal, for Box\(3, 2\), got Categorical",
    ),
    "numbers for switches": (SWITCHES, lambda: normal(B, 16), "expected Bernoulli for MultiBinary"),
    "too few switches": (
        SWITCHES,
        lambda: torchs.Bernoulli(logits=Z(2, 4)),
        r"expected values \(B, 16\) for MultiBinary\(16\), got Bernoulli with values \(2, 4\)",
    ),
    "uneven choices": (
        UNEVEN,
        lambda: torchs.Categorical(logits=Z(B, 2, 4)),
        r"expected logits \(B, 7\) for MultiDiscrete\(\[3, 4\]\), got Categorical",
    ),
    "the wrong shape": (
        BOX,
        lambda: torchs.Independent(normal(B, 5), 1),
        r"expected values \(B, 3, 2\) for Box\(3, 2\), got Independent\(Normal\) with values \(4, 5\)",
    ),
    "the batch in the event": (
        BOX,
        lambda: torchs.Independent(normal(B, 3, 2), 3),
        "whose batch is not part of the event",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_its_space_is_refused(name: str) -> None:
    space, make, match = REFUSED[name]
    with pytest.raises(ConfigError, match=match) as error:
        distribution(space, make(), "use")
    assert str(error.value).startswith("head 'use': expected ")


def test_a_known_batch_solves_the_riddle_of_singleton_dimensions() -> None:
    # nn.Linear(..., 1) for one number gives [B, 1].
    assert distribution(NUMBER, squashed(B, 1)).batch_shape == (B, 1)
    assert distribution(NUMBER, squashed(B, 1), batch_shape=(B,)).sample().shape == (B,)
    with pytest.raises(ConfigError, match=r"expected values \(4,?\) for Box\(\), got"):
        distribution(NUMBER, squashed(5), batch_shape=(B,))


def test_the_mode_of_a_squashed_distribution_is_its_squashed_mode() -> None:
    given = torchs.TransformedDistribution(
        torchs.Normal(torch.tensor([0.3, -9.0]), 1.0),
        [torchs.TanhTransform(), torchs.AffineTransform(0.5, 0.5)],
    )
    expected = [0.5 + 0.5 * math.tanh(0.3), 0.5 + 0.5 * math.tanh(-9.0)]
    assert distribution(NUMBER, given).mode.tolist() == pytest.approx(expected, abs=1e-6)
    inside = torchs.Independent(given.expand((3, 2)), 1)
    assert distribution(FREE, inside).mode.shape == (3, 2)


def test_a_mean_stands_in_for_a_mode() -> None:
    mixture = torchs.MixtureSameFamily(
        torchs.Categorical(probs=torch.tensor([[0.25, 0.75]])), normal(1, 2)
    )
    torch.testing.assert_close(distribution(NUMBER, mixture).mode, mixture.mean)
    counts = torchs.MixtureSameFamily(
        torchs.Categorical(torch.ones(1, 2)), torchs.Binomial(4, torch.tensor([[0.3, 0.6]]))
    )
    assert distribution(CHOICE, counts).mode.tolist() == [2]  # Of 1.8.
    # torch's mode of a fair coin is NaN.
    assert distribution(GRID, torchs.Bernoulli(torch.full((1, 6), 0.5))).mode.unique().tolist() == [
        0
    ]


def test_a_distribution_without_mode_or_mean_says_what_to_do() -> None:
    mixture = torchs.MixtureSameFamily(
        torchs.Categorical(torch.ones(B, 2)), torchs.Categorical(torch.ones(B, 2, 5))
    )
    policy = distribution(CHOICE, mixture)
    with pytest.raises(ConfigError, match=r"neither a mode nor a mean.*Return logits"):
        _ = policy.mode


@pytest.mark.parametrize("where", [-1e-3, 0.0, 1.0])
def test_draws_at_a_bound_have_finite_densities(where: float) -> None:
    mean = torch.tensor([40.0 * (where - 0.5)], requires_grad=True)
    given = torchs.TransformedDistribution(
        torchs.Normal(mean, 1.0),
        [torchs.TanhTransform(), torchs.AffineTransform(0.5, 0.5)],
        validate_args=False,
    )
    policy = distribution(NUMBER, given)
    drawn = policy.sample()
    assert drawn.item() in (0.0, 1.0)
    log_p = policy.log_prob(drawn)
    log_p.backward()
    assert math.isfinite(log_p.item())
    assert mean.grad is not None
    assert math.isfinite(mean.grad.item())


def test_values_outside_a_box_keep_their_densities() -> None:
    # A normal distribution's draws are clipped for the environment only.
    policy, x = distribution(NUMBER, torchs.Normal(Z(1), 1.0)), torch.tensor([1.5])
    assert policy.log_prob(x).item() == pytest.approx(-(1.5**2) / 2 - math.log(2 * math.pi) / 2)


@pytest.mark.parametrize("reparametrised", [True, False])
def test_without_a_formula_the_entropy_and_its_gradient_are_right_on_average(
    reparametrised: bool,
) -> None:
    # H of exp(x), x ~ N(m, s^2), is m + log(s sqrt(2 pi e)): by m 1, by log s 1.
    torch.manual_seed(0)
    n = 100_000
    m, log_s = torch.tensor(0.2, requires_grad=True), torch.tensor(-0.5, requires_grad=True)
    base = torchs.Normal(m.expand(n), log_s.exp())
    given = torchs.TransformedDistribution(base, [torchs.ExpTransform()])
    if not reparametrised:
        base.has_rsample = False
    policy = distribution(Space(()), given)
    assert policy.has_rsample == reparametrised
    entropy = policy.entropy().mean()
    assert entropy.item() == pytest.approx(0.2 - 0.5 + 0.5 + math.log(2 * math.pi) / 2, abs=0.02)
    gradients = torch.autograd.grad(entropy, [m, log_s])
    assert [g.item() for g in gradients] == pytest.approx([1, 1], abs=0.05)


def test_logits_are_handed_on() -> None:
    logits = torch.randn(B, 2, 4)
    policy = distribution(EVEN, torchs.Independent(torchs.Categorical(logits=logits), 1))
    torch.testing.assert_close(policy.logits, logits.log_softmax(-1).reshape(B, 8))


class Mine(torchs.Distribution):
    """Says neither what its values are nor what it may be given."""

    arg_constraints: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(torch.Size([B]), torch.Size([2]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return Z(*sample_shape, B, 2)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return -value.square().sum(-1)


def test_a_distribution_of_the_users_own_is_taken_at_its_shapes() -> None:
    policy = distribution(FREE, Mine())
    assert policy.log_prob(policy.sample()).tolist() == [0] * B
    with pytest.raises(ConfigError, match=r"expected values \(B, 3, 2\)"):
        distribution(BOX, Mine())
