"""Distributions over actions are torch's own, summed over the parts of an action."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as torchs

from antelope.agents.policy.heads import action_head
from antelope.replay import Space

INT = torch.int64
CHOICE = Space((3,), INT, discrete=True)
CHOICES = Space((5,), INT, discrete=True, nvec=(2, 3))
SWITCHES = Space((4,), INT, discrete=True, binary=True)
BOX = Space((2, 3), low=torch.full((2, 3), -2.0), high=torch.full((2, 3), 4.0))
NUMBER = Space((), low=-1.0, high=1.0)
SPACES = {"choice": CHOICE, "choices": CHOICES, "switches": SWITCHES, "box": BOX, "number": NUMBER}


def theirs(space: Space, output: torch.Tensor) -> torchs.Distribution | list[torchs.Distribution]:
    if space.binary:
        return torchs.Independent(torchs.Bernoulli(logits=output), 1)
    if space.nvec:
        return [torchs.Categorical(logits=part) for part in output.split(space.nvec, -1)]
    if space.discrete:
        return torchs.Categorical(logits=output)
    normal = torchs.Normal(output.view(-1, *space.shape), torch.ones(space.shape))
    return torchs.Independent(normal, len(space.shape))


@pytest.mark.parametrize("name", SPACES)
def test_log_probability_and_entropy_are_torchs_summed_over_parts(name: str) -> None:
    torch.manual_seed(0)
    space, output = SPACES[name], torch.randn(6, SPACES[name].n)
    ours, reference = action_head(space)(output), theirs(space, output)
    value = ours.sample()
    assert value.shape == (6, *space.value_shape)
    assert value.dtype == (INT if space.discrete else torch.float32)
    if isinstance(reference, list):
        pairs = zip(reference, value.unbind(-1), strict=True)
        log_prob = sum(part.log_prob(v) for part, v in pairs)
        entropy = sum(part.entropy() for part in reference)
    else:
        log_prob = reference.log_prob(value if space.discrete is False else value.float())
        entropy = reference.entropy()
    torch.testing.assert_close(ours.log_prob(value), log_prob)
    torch.testing.assert_close(ours.entropy(), entropy)
    assert ours.log_prob(value).shape == ours.entropy().shape == (6,)


@pytest.mark.parametrize("name", SPACES)
def test_draws_have_the_entropy_that_is_said(name: str) -> None:
    # E[-log p(x)] is the entropy; its estimate from 40,000 draws is within five deviations.
    torch.manual_seed(1)
    space = SPACES[name]
    policy = action_head(space)(torch.randn(1, space.n))
    surprise = -policy.log_prob(policy.sample((40_000,))).detach()
    assert abs(float(surprise.mean() - policy.entropy().detach())) < 5 * float(surprise.std()) / 200


@pytest.mark.parametrize("name", ["choice", "choices", "switches"])
def test_the_mode_is_the_likeliest_action(name: str) -> None:
    torch.manual_seed(2)
    policy = action_head(SPACES[name])(torch.randn(1, SPACES[name].n))
    best = policy.log_prob(policy.mode)
    assert bool((policy.log_prob(policy.sample((500,))) <= best + 1e-6).all())


def test_a_wider_policy_of_a_box_by_hand() -> None:
    head = action_head(Space((2,)))
    head.log_std.data.fill_(math.log(2.0))
    policy = head(torch.tensor([[1.0, 0.0]]))
    # Each part: -z^2 / 2 - log 2 - log(2 pi) / 2, with z = 1 and 0.
    expected = -0.5 - 2 * math.log(2) - math.log(2 * math.pi)
    assert policy.log_prob(torch.tensor([[3.0, 0.0]])).item() == pytest.approx(expected)
    assert policy.entropy().item() == pytest.approx(
        2 * (0.5 + math.log(2) + math.log(2 * math.pi) / 2)
    )


def test_values_of_a_box_span_its_bounds_and_are_clipped_to_them() -> None:
    low, high = torch.tensor([-2.0, 0.0, -math.inf]), torch.tensor([4.0, math.inf, math.inf])
    head = action_head(Space((3,), low=low, high=high))
    given = torch.tensor([[-1.0, -1.0, -9.0], [0.0, 0.5, 0.0], [0.5, 7.0, 7.0], [3.0, 3.0, 3.0]])
    expected = [[-2.0, 0.0, -9.0], [1.0, 0.5, 0.0], [2.5, 7.0, 7.0], [4.0, 3.0, 3.0]]
    assert head.executable(given).tolist() == expected
    assert head.clips
    assert not action_head(CHOICE).clips


def test_a_box_without_bounds_is_left_alone() -> None:
    head = action_head(Space((2,)))
    assert head.executable(torch.tensor([[-5.0, 5.0]])).tolist() == [[-5.0, 5.0]]


def test_a_dict_of_actions_is_the_sum_of_its_parts() -> None:
    torch.manual_seed(3)
    # Names that no module may have.
    head = action_head({"a.b": CHOICE, "keys": BOX, "": SWITCHES})
    output = torch.randn(7, head.out_features)
    policy = head(output)
    value = policy.sample()
    assert list(value) == ["a.b", "keys", ""]
    parts = zip((CHOICE, BOX, SWITCHES), output.split([3, 6, 4], -1), value.values(), strict=True)
    each = [(action_head(space)(part), drawn) for space, part, drawn in parts]
    torch.testing.assert_close(policy.log_prob(value), sum(p.log_prob(v) for p, v in each))
    torch.testing.assert_close(policy.entropy(), sum(p.entropy() for p, _ in each))
    done = head.executable(value)
    assert torch.equal(done["a.b"], value["a.b"])
    assert float(done["keys"].max()) <= 4
    assert float(done["keys"].min()) >= -2
    assert {name: part.shape for name, part in head.estimate(output).items()} == {
        "a.b": (7, 3),
        "keys": (7, 2, 3),
        "": (7, 4),
    }


def test_gradients_reach_the_output_and_the_deviation() -> None:
    for space in SPACES.values():
        head, output = action_head(space), torch.randn(4, space.n, requires_grad=True)
        policy = head(output)
        (policy.log_prob(policy.sample()).sum() + policy.entropy().sum()).backward()
        assert output.grad is not None
        assert bool(output.grad.any())
        assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())
