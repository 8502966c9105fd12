"""DDPG, TD3 and SAC: their equations by hand, and that no term trains another's network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, TanhTransform, TransformedDistribution

from antelope.agents.ddpg import DDPG
from antelope.agents.sac import SAC, squashed_gaussian
from antelope.agents.td3 import TD3
from antelope.replay import Batch, ConfigError, Space

OBS = Space((3,))
BOX = Space((2,), low=-2.0, high=2.0)
CHOICE = Space((4,), torch.int64, discrete=True)
AGENTS: dict[str, tuple[Any, Any]] = {
    "DDPG": (DDPG, BOX),
    "TD3": (TD3, BOX),
    "SAC": (SAC, BOX),
    "SAC-choice": (SAC, CHOICE),
}


class FakeReplay:
    """The same batch at each step."""

    def __init__(self, batch: Batch, *, prioritized: bool = False):
        self.batch, self.prioritized = batch, prioritized
        self.given: list[Tensor] = []

    def __next__(self) -> Batch:
        return self.batch

    def update_priorities(self, index: Tensor, priority: Tensor) -> None:
        self.given.append(priority)


class Log(dict[str, Any]):
    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def batch_for(space: Space, size: int = 6) -> Batch:
    action = torch.randint(space.n, (size,)) if space.discrete else 4 * torch.rand(size, 2) - 2
    return Batch(
        obs=torch.randn(size, 3),
        action=action,
        reward=torch.randn(size),
        discount=torch.tensor([0.9] * (size - 1) + [0.0]),
        next_obs=torch.randn(size, 3),
        index=torch.arange(size),
        weight=torch.rand(size),
    )


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    kind, space = AGENTS[request.param]
    return kind(OBS, space, hidden=(8, 8))


def space_of(agent: Any) -> Space:
    return CHOICE if getattr(agent, "discrete", False) else BOX


class Actor(nn.Module):
    """Gives what it was made with, whatever it is asked."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, obs: Tensor) -> Tensor:
        return self.output.expand(len(obs), -1)


class Critics(nn.Module):
    """Q_i(s, a) = scale_i * (sum of s + sum of a)."""

    def __init__(self, *scales: float):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scales)[:, None])

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.scale * (obs.sum(1) + action.sum(1))


class ChoiceCritics(nn.Module):
    """Q_i(s, a) as given, in every state."""

    def __init__(self, *values: list[float]):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, obs: Tensor) -> Tensor:
        return self.values[:, None].expand(-1, len(obs), -1)


# One step: sum of s is 3, of s' is 6; the action (2, 1) is (1, 0.5) between bounds of -2 and 2.
STEP = Batch(
    obs=torch.ones(1, 3),
    action=torch.tensor([[2.0, 1.0]]),
    reward=torch.tensor([1.0]),
    discount=torch.tensor([0.5]),
    next_obs=2 * torch.ones(1, 3),
)


# The losses


def test_ddpg_by_hand() -> None:
    agent = DDPG(OBS, BOX, tau=0.0)
    agent.actor, agent.critic = Actor(torch.tensor([0.5, 0.25])), Critics(2.0)
    agent.target_actor, agent.target_critic = Actor(torch.tensor([0.5, -0.5])), Critics(3.0)
    loss = agent.learn(FakeReplay(STEP), Log())
    # y = 1 + 0.5 * 3 * (6 + 0) = 10; Q = 2 * (3 + 1.5) = 9; Q(s, mu(s)) = 2 * (3 + 0.75) = 7.5.
    assert loss.item() == pytest.approx(1 - 7.5)
    loss.backward()
    # d(10 - Q)^2 = -2 * (3 + 1.5): without the actor's -3.75.
    assert agent.critic.scale.grad.item() == pytest.approx(-9)
    assert agent.actor.output.grad.tolist() == pytest.approx([-2, -2])


def td3_by_hand(**arguments: Any) -> TD3:
    agent = TD3(OBS, BOX, tau=0.0, target_noise=0.0, **arguments)
    agent.actor, agent.critics = Actor(torch.tensor([0.5, 0.25])), Critics(2.0, 1.0)
    agent.target_actor = Actor(torch.tensor([0.5, -0.5]))
    agent.target_critics = Critics(4.0, 3.0)
    return agent


def test_td3_by_hand() -> None:
    agent = td3_by_hand(delay=2)
    # y = 1 + 0.5 * min(4, 3) * 6 = 10; Q = 9 and 4.5.
    assert agent.learn(FakeReplay(STEP), Log()).item() == pytest.approx(1 + 5.5**2)
    loss = agent.learn(FakeReplay(STEP), Log())
    assert loss.item() == pytest.approx(1 + 5.5**2 - 7.5)
    loss.backward()
    assert agent.critics.scale.grad[:, 0].tolist() == pytest.approx([-2 * 4.5, -2 * 5.5 * 4.5])
    assert agent.actor.output.grad.tolist() == pytest.approx([-2, -2])  # The first critic's alone.


def test_td3_imitates_by_hand() -> None:
    agent, log = td3_by_hand(delay=1, imitation=0.4), Log()
    loss = agent.learn(FakeReplay(STEP), log)
    # lambda = 1 / (0.4 * 7.5); the action done is (1, 0.5), the actor's (0.5, 0.25).
    distance = (0.5**2 + 0.25**2) / 2
    assert loss.item() == pytest.approx(1 + 5.5**2 - 7.5 / (0.4 * 7.5) + distance)
    assert log["distance"].item() == pytest.approx(distance)
    loss.backward()
    # dQ/da = 2 in either number; d distance/da = 2 (0.5 - 1) / 2 and 2 (0.25 - 0.5) / 2.
    assert agent.actor.output.grad.tolist() == pytest.approx([-2 / 3 - 0.5, -2 / 3 - 0.25])
    # The critics learn as ever.
    assert agent.critics.scale.grad[:, 0].tolist() == pytest.approx([-2 * 4.5, -2 * 5.5 * 4.5])


def test_td3_without_imitation_is_what_it_was() -> None:
    losses = []
    for arguments in ({}, {"imitation": 0.0}, {"imitation": 1e-3}):
        log = Log()
        losses.append(td3_by_hand(delay=1, **arguments).learn(FakeReplay(STEP), log).item())
        assert ("distance" in log) is (arguments.get("imitation", 0) > 0)
    assert losses[0] == losses[1] == pytest.approx(1 + 5.5**2 - 7.5)
    assert losses[0] != losses[2]


def test_td3_trains_the_actor_and_moves_targets_every_other_step() -> None:
    agent = TD3(OBS, BOX, hidden=(4,), delay=2)
    with torch.no_grad():
        agent.actor.head.bias.add_(1)
    trained, moved = [], []
    for step in range(1, 7):
        before = agent.target_actor.head.bias.clone()
        agent.zero_grad(set_to_none=True)
        agent.learn(FakeReplay(batch_for(BOX)), Log()).backward()
        if agent.actor.head.bias.grad is not None:
            trained.append(step)
        if not torch.equal(before, agent.target_actor.head.bias):
            moved.append(step)
    assert trained == moved == [2, 4, 6]


def test_td3_clips_the_targets_noise_and_its_action() -> None:
    torch.manual_seed(0)
    agent = TD3(OBS, BOX, target_noise=1.0, noise_clip=0.3)
    agent.target_actor = Actor(torch.tensor([0.0, 0.9]))
    with torch.no_grad():
        action = agent.next_action(torch.zeros(4000, 3))
    assert float(action[:, 0].min()) == pytest.approx(-0.3)
    assert float(action[:, 0].max()) == pytest.approx(0.3)
    # Beyond 0.3 deviations: 76 %.
    assert float((action[:, 0].abs() > 0.2999).float().mean()) == pytest.approx(0.764, abs=0.03)
    assert float(action[:, 1].min()) == pytest.approx(0.6)
    assert float(action[:, 1].max()) == 1.0


def test_sac_of_choices_by_hand() -> None:
    agent = SAC(OBS, Space((2,), torch.int64, discrete=True), tau=0.0, alpha=0.5, entropy=0.4)
    p = torch.tensor([0.25, 0.75])
    agent.actor = Actor(p.log())
    agent.critics = ChoiceCritics([4.0, 1.0], [2.0, 3.0])
    agent.target_critics = ChoiceCritics([8.0, 0.0], [4.0, 4.0])
    batch = Batch(
        obs=torch.zeros(1, 3),
        action=torch.tensor([1]),
        reward=torch.tensor([1.0]),
        discount=torch.tensor([0.5]),
        next_obs=torch.zeros(1, 3),
    )
    log = Log()
    loss = agent.learn(FakeReplay(batch), log)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    # V' = 0.25 * min(8, 4) + 0.75 * min(0, 4) + 0.5 H; Q(s, 1) is 1 and 3.
    y = 1 + 0.5 * (1 + 0.5 * entropy)
    value = 0.25 * 2 + 0.75 * 1 + 0.5 * entropy
    temperature = math.log(0.5) * (entropy - 0.4)
    assert loss.item() == pytest.approx((y - 1) ** 2 + (y - 3) ** 2 - value + temperature)
    loss.backward()
    gradient = torch.tensor([[0.0, -2 * (y - 1)], [0.0, -2 * (y - 3)]])
    torch.testing.assert_close(agent.critics.values.grad, gradient)
    assert agent.log_alpha.grad.item() == pytest.approx(entropy - 0.4)
    # dV / dlogit_i = p_i (m_i - 0.5 log p_i - V), with m the smaller Q.
    advantage = torch.tensor([2.0, 1.0]) - 0.5 * p.log() - value
    torch.testing.assert_close(agent.actor.output.grad, -p * advantage)
    assert log["entropy"].item() == pytest.approx(entropy)


def test_sac_of_values_by_hand() -> None:
    torch.manual_seed(0)
    agent = SAC(OBS, BOX, tau=0.0, alpha=0.5)
    output = torch.tensor([0.3, -0.4, -1.0, 0.5])
    agent.actor, agent.critics = Actor(output), Critics(2.0, 1.0)
    agent.target_critics = Critics(4.0, 3.0)
    policy = TransformedDistribution(
        Normal(output[:2].double(), output[2:].double().exp()), TanhTransform()
    )
    torch.manual_seed(1)
    loss = agent.learn(FakeReplay(STEP), Log())
    torch.manual_seed(1)
    (next_a, a) = (
        (output[:2] + output[2:].exp() * torch.randn(1, 2)[0]).tanh().double() for _ in range(2)
    )
    y = 1 + 0.5 * (3 * (6 + next_a.sum()) - 0.5 * policy.log_prob(next_a).sum())
    log_p = policy.log_prob(a).sum()
    value = (3 + a.sum()) - 0.5 * log_p
    temperature = math.log(0.5) * (-log_p + 2)  # H = -2.
    expected = (y - 9) ** 2 + (y - 4.5) ** 2 - value + temperature
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert agent.log_alpha.grad.item() == pytest.approx((-log_p + 2).item(), rel=1e-4)
    # The squares' alone: Q is (2, 1) * 4.5.
    gradient = [(2 * (9 - y) * 4.5).item(), (2 * (4.5 - y) * 4.5).item()]
    assert agent.critics.scale.grad[:, 0].tolist() == pytest.approx(gradient, rel=1e-5)


def test_the_temperature_rises_while_the_entropy_is_too_low() -> None:
    agent = SAC(OBS, CHOICE, hidden=(8,), entropy=10.0)
    agent.learn(FakeReplay(batch_for(CHOICE)), Log()).backward()
    assert agent.log_alpha.grad.item() < 0  # Descent raises it.


def test_the_squashed_gaussians_density_is_that_of_torchs() -> None:
    torch.manual_seed(0)
    # Not so far out that torch's inverse of tanh has no digits left.
    output = 0.5 * torch.randn(500, 6, dtype=torch.float64)
    action, log_p = squashed_gaussian(output)
    mean, log_std = output.chunk(2, 1)
    base = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    torch.testing.assert_close(log_p, base.log_prob(action).sum(1), rtol=1e-6, atol=1e-6)


def test_the_squashed_gaussians_density_stays_finite_at_the_bounds() -> None:
    output = torch.tensor([[100.0, -100.0, -50.0, 50.0]], requires_grad=True)
    action, log_p = squashed_gaussian(output)
    log_p.sum().backward()
    assert action[0, 0].item() == 1.0
    assert bool(torch.isfinite(log_p).all())
    assert bool(torch.isfinite(output.grad).all())


# Who is trained by what


def test_every_network_is_trained_and_stays_trainable(agent: Any) -> None:
    agent.learning_steps = 1  # TD3: the actor's turn.
    agent.learn(FakeReplay(batch_for(space_of(agent))), Log()).backward()
    for name, parameter in agent.named_parameters():
        is_target = name.startswith("target")
        assert parameter.requires_grad != is_target, name
        assert (parameter.grad is None) == is_target, name


def test_the_critics_terms_leave_the_actor_alone(agent: Any) -> None:
    """With critics that ignore the action, nothing is left that could train the actor."""
    if isinstance(agent, SAC):
        return  # Its entropy trains it.
    critics = agent.critic if isinstance(agent, DDPG) else agent.critics
    with torch.no_grad():
        critics.members[0].weight[:, OBS.n :] = 0
    agent.learning_steps = 1
    agent.learn(FakeReplay(batch_for(BOX)), Log()).backward()
    assert all(not p.grad.any() for p in agent.actor.parameters())


def test_targets_are_not_trained_and_follow(agent: Any) -> None:
    targets = [name for name in dict(agent.named_children()) if name.startswith("target")]
    assert targets
    agent.learning_steps = 1
    for name in targets:
        target, online = getattr(agent, name), getattr(agent, name.removeprefix("target_"))
        assert not any(p.requires_grad for p in target.parameters())
        with torch.no_grad():
            for p in target.parameters():
                p.add_(1.0)  # One away from what it follows.
        assert online is not target
    agent.learn(FakeReplay(batch_for(space_of(agent))), Log()).backward()
    for name in targets:
        target, online = getattr(agent, name), getattr(agent, name.removeprefix("target_"))
        for p, q in zip(target.parameters(), online.parameters(), strict=True):
            torch.testing.assert_close(p - q, torch.full_like(p, 1 - agent.tau))
            assert p.grad is None


def test_a_prioritised_replay_gets_its_priorities(agent: Any) -> None:
    replay = FakeReplay(batch_for(space_of(agent)), prioritized=True)
    agent.learn(replay, Log())
    (priority,) = replay.given
    assert priority.shape == (6,)
    assert bool((priority >= 0).all())


# Acting


@torch.no_grad()
def test_actions_fit_the_space(agent: Any) -> None:
    space, obs = space_of(agent), torch.randn(500, 3)
    for training in (True, False):
        action = agent.train(training).act(obs)
        assert action.shape == (500, *space.value_shape)
        if space.discrete:
            assert action.dtype == torch.int64
            assert 0 <= int(action.min()) <= int(action.max()) < 4
        else:
            assert float(action.abs().max()) <= 2
    assert agent(obs).shape == (500, *space.shape)


def test_evaluation_draws_nothing(agent: Any) -> None:
    agent.eval()
    obs, state = torch.randn(5, 3), torch.get_rng_state()
    assert torch.equal(agent.act(obs), agent.act(obs))
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
@pytest.mark.parametrize("kind", [DDPG, TD3])
def test_actions_are_uniform_first_and_noisy_then(kind: Any) -> None:
    torch.manual_seed(0)
    agent, obs = kind(OBS, BOX, noise=0.1, random_steps=4000), torch.zeros(4000, 3)
    first, then = agent.act(obs), agent.act(obs)
    # Uniform between -2 and 2: deviation 4 / sqrt(12); then a tenth of half the range.
    assert first.std(0).tolist() == pytest.approx([1.155, 1.155], abs=0.05)
    assert then.std(0).tolist() == pytest.approx([0.2, 0.2], abs=0.02)
    assert then.mean(0).tolist() == pytest.approx(agent(obs)[0].tolist(), abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize(("color", "left"), [(1.0, 0.5), (0.0, 0.0)])
def test_what_sac_adds_to_the_mean_lasts_as_its_color_says(color: float, left: float) -> None:
    torch.manual_seed(0)
    agent, obs = SAC(OBS, BOX, color=color), torch.zeros(500, 3)
    mean, log_std = agent.actor(obs[:1]).chunk(2, 1)
    unit = torch.stack([agent.act(obs) / 2 for _ in range(9)])  # BOX is from -2 to 2.
    noise = (unit.atanh() - mean) / log_std.exp()
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert float((noise[8] * noise[0]).mean()) == pytest.approx(left, abs=0.15)
    assert torch.equal(agent.eval().act(obs), agent.act(obs))


@torch.no_grad()
def test_sac_draws_choices_in_proportion() -> None:
    torch.manual_seed(0)
    agent = SAC(OBS, Space((3,), torch.int64, discrete=True))
    p = torch.tensor([0.1, 0.3, 0.6])
    agent.actor = Actor(p.log())
    share = agent.act(torch.zeros(6000, 3)).bincount(minlength=3) / 6000
    assert share.tolist() == pytest.approx(p.tolist(), abs=0.03)
    assert agent.eval().act(torch.zeros(1, 3)).item() == 2


def test_the_entropy_aimed_at_is_the_papers() -> None:
    assert SAC(OBS, BOX).entropy == -2
    most = Categorical(torch.full((4,), 0.25)).entropy()
    assert SAC(OBS, CHOICE).entropy == pytest.approx(0.98 * float(most))


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=str)
def test_actions_of_any_shape(shape: tuple[int, ...]) -> None:
    space = Space(shape, low=-1.0, high=1.0)
    for kind in (DDPG, TD3, SAC):
        agent = kind(OBS, space, hidden=(4,))
        batch = Batch(**{**batch_for(BOX), "action": torch.rand(6, *shape)})
        agent.learn(FakeReplay(batch), Log()).backward()
        assert agent.act(torch.zeros(3, 3)).shape == (3, *shape)


@pytest.mark.parametrize("name", AGENTS)
def test_images_and_dicts_of_them(name: str) -> None:
    kind, action_spec = AGENTS[name]
    agent = kind({"image": Space((1, 8, 8)), "x": Space((3,))}, action_spec, hidden=(4,))
    obs = {"image": torch.rand(6, 1, 8, 8), "x": torch.rand(6, 3)}
    batch = Batch(**{**batch_for(action_spec), "obs": obs, "next_obs": obs})
    agent.learn(FakeReplay(batch), Log()).backward()
    assert agent.act(obs).shape == (6, *action_spec.value_shape)


def test_sac_refuses_several_choices() -> None:
    with pytest.raises(ConfigError, match=r"one of 2 and one of 3\. Take PPO or A2C"):
        SAC(OBS, Space((5,), torch.int64, discrete=True, nvec=(2, 3)))
    with pytest.raises(ConfigError, match="SAC takes one continuous action"):
        SAC(OBS, {"a": BOX})
