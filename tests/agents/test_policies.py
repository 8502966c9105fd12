"""From a module's output to a distribution over actions of every gymnasium space, and to `env.step`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from antelope.agents.policy.distributions import Bernoulli, Categorical
from antelope.agents.policy.gaussians import DiagonalGaussian, SquashedGaussian
from antelope.agents.policy.heads import action_head, distribution, executable, logits_shape
from antelope.envs.spaces import codec
from antelope.replay import ConfigError, Space

INF = math.inf
LOW, HIGH = np.array([-1, 10], np.float32), np.array([0.1, 1000], np.float32)
DISCRETE: dict[str, gymnasium.Space[Any]] = {
    "a choice from 1": spaces.Discrete(5, start=1),
    "choices": spaces.MultiDiscrete([3, 4]),
    "choices in a grid": spaces.MultiDiscrete([[3, 2], [2, 2]], start=[[1, 0], [0, 5]]),
    "16 switches": spaces.MultiBinary(16),
    "a grid of switches": spaces.MultiBinary((2, 3)),
}
BOUNDED: dict[str, gymnasium.Space[Any]] = {
    "a number": spaces.Box(-2, 4, (), np.float32),
    "two numbers": spaces.Box(LOW, HIGH),
    "a grid of numbers": spaces.Box(-1, 1, (3, 2), np.float32),
    "whole numbers": spaces.Box(0, 9, (2,), np.int64),
}
UNBOUNDED: dict[str, gymnasium.Space[Any]] = {
    "numbers without bounds": spaces.Box(-INF, INF, (2,), np.float32),
    "numbers from 0": spaces.Box(0, INF, (3,), np.float32),
    "one of two bounded": spaces.Box(np.float32([-1, -INF]), np.float32([1, INF])),
}
BARE = {**DISCRETE, **BOUNDED, **UNBOUNDED}
SEVERAL = spaces.Dict(
    {
        "move": DISCRETE["a choice from 1"],
        "use": DISCRETE["16 switches"],
        "craft": DISCRETE["choices"],
        "arm": spaces.Dict({"speed": BOUNDED["two numbers"], "force": UNBOUNDED["numbers from 0"]}),
    }
)
SPACES = {**BARE, "several": SEVERAL}


def seen(space: gymnasium.Space[Any]) -> Any:
    return codec(space, "actions", action=True).space


def outputs(space: Any, *batch: int, scale: float = 1.5) -> Any:
    if isinstance(space, dict):
        return {name: outputs(part, *batch, scale=scale) for name, part in space.items()}
    return scale * torch.randn(*batch, *logits_shape(space))


def policy_of(name: str, *batch: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """The space as agents meet it, an output, and its distribution."""
    torch.manual_seed(seed)
    space = seen(SPACES[name])
    output = outputs(space, *batch)
    return space, output, distribution(space, output)


def each(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: each(part, function) for name, part in value.items()}
    return function(value)


def values_of(space: Space) -> Tensor:
    """All values of a discrete space, int64 `[m, *value_shape]`."""
    counts = (2,) * space.n if space.binary else space.nvec or (space.n,)
    grid = torch.tensor(list(itertools.product(*map(range, counts))))
    return grid.reshape(-1, *space.value_shape)


def scipys_log_p(space: Space, output: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The log-probability of values `[m, *value_shape]` by scipy, in float64."""
    if space.binary:
        return lambda x: stats.bernoulli.logpmf(x, special.expit(output)).sum(1)
    cuts = np.split(output, np.cumsum(space.nvec or (space.n,))[:-1])
    log_ps = [special.log_softmax(cut) for cut in cuts]
    return lambda x: sum(
        log_p[column] for log_p, column in zip(log_ps, x.reshape(len(x), -1).T, strict=True)
    )


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_is_in_the_space(name: str) -> None:
    space, _, policy = policy_of(name, 200)
    code = codec(SPACES[name], "actions", action=True)
    for value in (policy.sample(), policy.mode):
        value = executable(space, value)
        for i in range(200):
            native = code.native(each(value, lambda x, i=i: x[i].numpy()))
            assert SPACES[name].contains(native), native
        # Many at once, as parallel environments take them.
        many = code.native(each(value, lambda x: x.numpy()))
        last = each(many, lambda x: x[199].tolist())
        assert last == each(native, lambda x: np.asarray(x).tolist())


@pytest.mark.parametrize("name", SPACES)
def test_log_probabilities_and_entropies_have_the_shape_of_the_batch(name: str) -> None:
    space, output, policy = policy_of(name, 3, 5)
    value = policy.sample()
    log_p, entropy = policy.log_prob(value), policy.entropy()
    assert log_p.shape == entropy.shape == policy.batch_shape == (3, 5)
    assert log_p.dtype == entropy.dtype == torch.float32
    # [B, T] is B * T.
    flat = distribution(space, each(output, lambda x: x.flatten(0, 1)))
    torch.testing.assert_close(
        flat.log_prob(each(value, lambda x: x.flatten(0, 1))), log_p.flatten()
    )
    torch.testing.assert_close(flat.entropy(), entropy.flatten())
    # One action is no batch.
    one = distribution(space, each(output, lambda x: x[0, 0]))
    torch.testing.assert_close(one.log_prob(each(value, lambda x: x[0, 0])), log_p[0, 0])


@pytest.mark.parametrize("name", SPACES)
def test_heads_with_deviations_of_their_own_take_sequences_too(name: str) -> None:
    torch.manual_seed(0)
    head = action_head(seen(SPACES[name]))
    output = torch.randn(3, 5, head.out_features)
    value = head(output).sample()
    log_p = head(output).log_prob(value)
    assert log_p.shape == head(output).entropy().shape == (3, 5)
    flat = head(output.flatten(0, 1))
    torch.testing.assert_close(
        flat.log_prob(each(value, lambda x: x.flatten(0, 1))), log_p.flatten()
    )


@pytest.mark.parametrize("name", DISCRETE)
def test_choices_have_scipys_probabilities_which_sum_to_one(name: str) -> None:
    space, output, policy = policy_of(name, 1)
    values = values_of(space)
    log_p = policy.log_prob(values.unsqueeze(1)).squeeze(1).double().numpy()
    expected = scipys_log_p(space, output[0].double().numpy())(values.numpy())
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    assert policy.entropy().item() == pytest.approx(special.entr(np.exp(expected)).sum(), abs=1e-4)
    assert policy.mode[0].tolist() == values[log_p.argmax()].tolist()


@pytest.mark.parametrize("name", [name for name in DISCRETE if name != "16 switches"])
def test_choices_are_drawn_as_often_as_they_are_likely(name: str) -> None:
    space, output, policy = policy_of(name, 1, seed=3)
    values = values_of(space).reshape(-1, max(1, len(space.nvec), space.n * space.binary))
    drawn = policy.sample((20_000,)).reshape(20_000, -1)
    counts = (drawn.unsqueeze(1) == values).all(2).sum(0).numpy()
    p = np.exp(scipys_log_p(space, output[0].double().numpy())(values.numpy()))
    assert counts.sum() == 20_000
    often = p * 20_000 >= 5
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(p[often], p[~often].sum()) * 20_000
    some = expected > 0
    assert stats.chisquare(observed[some], expected[some] / expected.sum() * 20_000).pvalue > 0.01


def test_16_switches_are_on_as_often_as_they_are_likely() -> None:
    _, output, policy = policy_of("16 switches", 1)
    counts = policy.sample((20_000,)).sum((0, 1)).numpy()
    p = special.expit(output[0].double().numpy())
    z = (counts - 20_000 * p) / np.sqrt(20_000 * p * (1 - p))
    assert stats.chi2.sf((z**2).sum(), 16) > 0.01


@pytest.mark.parametrize("name", [*BOUNDED, *UNBOUNDED])
def test_numbers_have_the_density_of_scipys_normal_in_the_spaces_own_units(name: str) -> None:
    space, output, policy = policy_of(name, 6)
    mean, log_std = output.double().numpy().reshape(6, 2, -1).transpose(1, 0, 2)
    normal = stats.norm(mean, np.exp(log_std.clip(-20, 2)))
    u = normal.ppf(np.random.default_rng(0).uniform(0.02, 0.98, mean.shape))
    value, log_slope = u, np.zeros_like(u)
    if name in BOUNDED:
        u = u.clip(-5, 5)  # So that rounding to float32 next to a bound does not count.
        low, high = (np.broadcast_to(b, space.shape).reshape(-1) for b in (space.low, space.high))
        value = low + (high - low) * (np.tanh(u) + 1) / 2
        log_slope = np.log((high - low) / 2) - 2 * np.log(np.cosh(u))
        assert isinstance(policy, SquashedGaussian)
    else:
        assert isinstance(policy, DiagonalGaussian)
        assert not isinstance(policy, SquashedGaussian)
    found = policy.log_prob(torch.from_numpy(value).float().reshape(6, *space.shape))
    np.testing.assert_allclose(found, (normal.logpdf(u) - log_slope).sum(1), rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("name", ["a number", "two numbers"])
def test_a_boxs_density_integrates_to_one_over_it(name: str) -> None:
    space, output, _ = policy_of(name, 1)
    policy = distribution(space, output.clamp(-0.5, 0.5))
    # Denser at the bounds.
    share = (np.tanh(np.linspace(-6.9, 6.9, 801)) + 1) / 2
    bounds = zip(space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist(), strict=True)
    axes = [low + share * (high - low) for low, high in bounds]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 1, *space.shape)
    mass = policy.log_prob(torch.from_numpy(grid).float()).double().exp().numpy()
    mass = mass.reshape([801] * len(axes))
    for axis in reversed(axes):
        mass = np.trapezoid(mass, axis, axis=-1)
    assert mass == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", [*BOUNDED, *UNBOUNDED, "several"])
def test_draws_have_the_entropy_that_is_said(name: str) -> None:
    # E[-log p(x)] is the entropy; its estimate from 40,000 draws is within five deviations.
    space, output, _ = policy_of(name, 1, seed=2)
    policy = distribution(space, each(output, lambda x: x.clamp(-1, 1)))
    surprise = -policy.log_prob(policy.sample((40_000,))).double()
    error = abs(surprise.mean().item() - policy.entropy().item())
    assert error < 5 * surprise.std().item() / 200 + 2e-3


def test_a_dict_is_the_sum_of_its_heads_by_name_and_not_by_order() -> None:
    space, output, policy = policy_of("several", 7)
    assert list(policy.mode) == list(space)
    value = policy.sample()
    heads = {
        "move": (space["move"], output["move"], value["move"]),
        "use": (space["use"], output["use"], value["use"]),
        "craft": (space["craft"], output["craft"], value["craft"]),
        "speed": (space["arm"]["speed"], output["arm"]["speed"], value["arm"]["speed"]),
        "force": (space["arm"]["force"], output["arm"]["force"], value["arm"]["force"]),
    }
    policies = [(distribution(part, given), drawn) for part, given, drawn in heads.values()]
    torch.testing.assert_close(policy.log_prob(value), sum(p.log_prob(v) for p, v in policies))
    torch.testing.assert_close(policy.entropy(), sum(p.entropy() for p, _ in policies))
    backwards = dict(reversed(list(output.items())))
    shuffled = distribution(space, {"embedding": torch.zeros(1), **backwards})
    torch.testing.assert_close(shuffled.log_prob(value), policy.log_prob(value))


def test_a_dict_may_mix_logits_and_distributions() -> None:
    space = {"move": Space((3,), torch.int64, discrete=True), "speed": Space((2,))}
    torch.manual_seed(0)
    logits, speed = torch.randn(4, 3), torch.distributions.Normal(torch.randn(4, 2), 0.5)
    policy = distribution(space, {"speed": speed, "move": logits})
    value = policy.sample()
    expected = logits.log_softmax(1).gather(1, value["move"][:, None])[:, 0]
    torch.testing.assert_close(
        policy.log_prob(value), expected + speed.log_prob(value["speed"]).sum(1)
    )


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("size", [-50.0, 50.0])
def test_extreme_outputs_have_finite_gradients(name: str, size: float) -> None:
    torch.manual_seed(0)
    space = seen(SPACES[name])
    leaves: list[Tensor] = []

    def extreme(x: Tensor) -> Tensor:
        signs = torch.randint(0, 2, x.shape) * 2 - 1
        leaves.append((size * signs).requires_grad_())
        return leaves[-1]

    policy = distribution(space, each(outputs(space, 8), extreme))
    log_p, entropy = policy.log_prob(policy.sample()), policy.entropy()
    (log_p.sum() + entropy.sum()).backward()
    for found in (log_p, entropy, *(leaf.grad for leaf in leaves)):
        assert found is not None
        assert bool(torch.isfinite(found).all())


def test_a_choice_that_is_ruled_out_is_never_drawn_and_leaves_no_nan() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(1, 3, requires_grad=True)
    policy = distribution(
        Space((3,), torch.int64, discrete=True),
        logits.masked_fill(torch.tensor([False, True, False]), -INF),
    )
    assert sorted(policy.sample((500,)).unique().tolist()) == [0, 2]
    assert policy.entropy().item() == pytest.approx(math.log(2))
    (policy.entropy() + policy.log_prob(torch.tensor([2]))).sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_only_numbers_beyond_a_bound_are_changed() -> None:
    space = seen(UNBOUNDED["one of two bounded"])
    given = torch.tensor([[-3.0, -3.0], [0.5, 9.0], [1.5, 0.0]])
    assert executable(space, given).tolist() == [[-1, -3], [0.5, 9], [1, 0]]
    several = {"a": space, "b": seen(DISCRETE["choices"])}
    value = {"a": given, "b": torch.tensor([[1, 2]])}
    assert torch.equal(executable(several, value)["a"], executable(space, given))
    assert torch.equal(executable(several, value)["b"], value["b"])


def test_shapes_of_logits() -> None:
    shapes = {name: logits_shape(seen(space)) for name, space in BARE.items()}
    assert shapes == {
        "a choice from 1": (5,),
        "choices": (7,),
        "choices in a grid": (9,),
        "16 switches": (16,),
        "a grid of switches": (6,),
        "a number": (2,),
        "two numbers": (4,),
        "a grid of numbers": (12,),
        "whole numbers": (4,),
        "numbers without bounds": (4,),
        "numbers from 0": (6,),
        "one of two bounded": (4,),
    }


@pytest.mark.parametrize(
    ("name", "output", "match"),
    [
        ("16 switches", torch.zeros(2, 4), r"\(B, 16\) for MultiBinary\(16\), got \(2, 4\)"),
        ("choices", torch.zeros(2, 2), r"\(B, 7\) for MultiDiscrete\(\[3, 4\]\), got \(2, 2\)"),
        ("a choice from 1", torch.tensor(1.0), r"\(B, 5\) for Discrete\(5\), got \(\)"),
        ("a grid of numbers", torch.zeros(2, 3, 2), r"\(B, 12\) for Box\(3, 2\), got \(2, 3, 2\)"),
        ("a number", [1.0], r"\(B, 2\) for Box\(\), got list"),
        ("a number", {"x": 1}, r"\(B, 2\) for Box\(\), got a dict of 'x'"),
        ("choices", Categorical(torch.zeros(2, 7)), r"values \(B, 2\) for Multi.*got Categorical"),
        ("a choice from 1", Categorical(torch.zeros(2, 7)), r"values \(B\) for Discrete\(5\)"),
        (
            "16 switches",
            DiagonalGaussian(*torch.zeros(2, 2, 16), 1),
            "values.*got DiagonalGaussian",
        ),
        ("choices", Bernoulli(torch.zeros(2, 2)), r"values.*got Bernoulli with values \(2, 2\)"),
    ],
)
def test_an_output_that_does_not_fit_names_its_head(name: str, output: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=f"^head 'use': expected {match}"):
        distribution(seen(SPACES[name]), output, "use")


def test_a_dict_that_does_not_fit_names_its_head() -> None:
    space = {"move": seen(DISCRETE["choices"]), "arm": {"grip": seen(DISCRETE["16 switches"])}}
    move, grip = torch.zeros(2, 7), torch.zeros(2, 16)
    with pytest.raises(
        ConfigError, match=r"heads 'move', 'arm'; 'arm' is missing from 'move', 'a'"
    ):
        distribution(space, {"move": move, "a": grip})
    with pytest.raises(ConfigError, match=r"heads 'arm/grip'; 'arm/grip' is missing from an empty"):
        distribution(space, {"move": move, "arm": {}})
    with pytest.raises(ConfigError, match=r"^head 'arm/grip': expected \(B, 16\) .* got \(2, 15\)"):
        distribution(space, {"move": move, "arm": {"grip": grip[:, 1:]}})
    with pytest.raises(
        ConfigError, match=r"head 'arm': expected the batch \(2,\) of head 'move', got"
    ):
        distribution(space, {"move": move, "arm": {"grip": grip[:1]}})
    with pytest.raises(ConfigError, match=r"a dict with the heads 'move', 'arm', got \(2, 7\)"):
        distribution(space, move)


def test_the_batch_is_checked_where_it_is_known() -> None:
    space = seen(DISCRETE["choices"])
    assert distribution(space, torch.zeros(2, 3, 7), batch_shape=(2, 3)).batch_shape == (2, 3)
    with pytest.raises(ConfigError, match=r"expected \(2, 7\) for .* got \(3, 7\)"):
        distribution(space, torch.zeros(3, 7), batch_shape=(2,))


def test_our_own_distributions_may_be_returned_as_they_are() -> None:
    space = seen(BOUNDED["a grid of numbers"])
    loc, low, high = torch.zeros(4, 3, 2), torch.full((3, 2), -1.0), torch.ones(3, 2)
    given = SquashedGaussian(loc, loc, low, high)
    assert distribution(space, given) is given
    assert distribution({"x": space}, distribution({"x": space}, {"x": given})).parts["x"] is given


def test_bounds_made_in_inference_can_be_learnt_with() -> None:
    space = seen(spaces.Box(-1, 1, (2,), np.float32))
    with torch.inference_mode():
        distribution(space, torch.zeros(1, 4)).sample()
    output = torch.zeros(1, 4, requires_grad=True)
    distribution(space, output).rsample().sum().backward()
    assert output.grad is not None


def test_half_precision_outputs_make_float32_distributions() -> None:
    for name in BARE:
        space = seen(BARE[name])
        policy = distribution(space, outputs(space, 2).bfloat16())
        assert policy.log_prob(policy.sample()).dtype == torch.float32


@st.composite
def policies(draw: st.DrawFn) -> tuple[gymnasium.Space[Any], Any, Any]:
    space = draw(st.sampled_from(list(BARE.values())))
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 50.0]))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return space, seen(space), outputs(seen(space), 4, scale=scale)


@given(policies())
def test_any_policy_gives_finite_numbers_and_members_of_its_space(drawn: Any) -> None:
    native_space, space, output = drawn
    policy = distribution(space, output)
    code = codec(native_space, "actions", action=True)
    value = policy.sample()
    assert bool(torch.isfinite(policy.log_prob(value)).all())
    assert bool(torch.isfinite(policy.entropy()).all())
    for action in executable(space, value):
        native = code.native(action.numpy())
        assert native_space.contains(native)
        if space.discrete:  # And back again.
            assert np.array_equal(code.stored(native), action.numpy())


@given(policies())
def test_nothing_is_likelier_than_the_mode_of_choices(drawn: Any) -> None:
    _, space, output = drawn
    policy = distribution(space, output)
    if space.discrete:
        best = policy.log_prob(policy.mode)
        assert bool((policy.log_prob(policy.sample((50,))) <= best + 1e-5).all())


@given(policies(), st.integers(0, 2**31))
def test_a_seed_says_what_is_drawn(drawn: Any, seed: int) -> None:
    _, space, output = drawn
    values = []
    for _ in range(2):
        torch.manual_seed(seed)
        values.append(distribution(space, output).sample())
    assert torch.equal(*values)
