"""PPO and A2C: their objectives by hand, and what they do with a rollout."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope.agents.a2c import A2C
from antelope.agents.policy.actor_critic import Tanh
from antelope.agents.ppo import PPO
from antelope.replay import Batch, ConfigError, Space

INT = torch.int64
OBS = Space((3,))
CHOICE = Space((2,), INT, discrete=True)
ACTIONS: dict[str, Any] = {
    "choice": CHOICE,
    "choices": Space((5,), INT, discrete=True, nvec=(2, 3)),
    "switches": Space((4,), INT, discrete=True, binary=True),
    "box": Space((2,), low=-2.0, high=2.0),
    "number": Space((), low=-2.0, high=2.0),
    "dict": {"move": Space((2,), low=-2.0, high=2.0), "jump": CHOICE},
}


class Log(dict[str, Tensor]):
    def __setattr__(self, name: str, value: Tensor) -> None:
        self[name] = value.detach()


class FakeReplay:
    """Rollouts of random observations in which the agent has acted."""

    def __init__(self, agent: Any, *, steps: int, num_envs: int = 2, lengths: Any = None):
        self.agent, self.steps, self.num_envs, self.new_steps = agent, steps, num_envs, steps
        self.mask = torch.ones(steps, num_envs, dtype=torch.bool)
        if lengths is not None:
            self.mask = torch.arange(steps)[:, None] < torch.tensor(lengths)

    def rollout(self) -> Batch:
        shape, self.new_steps = (self.steps, self.num_envs), 0
        obs = torch.randn(self.steps * self.num_envs, 3)
        with torch.no_grad():
            result = self.agent.act(obs)
        action, extras = result if isinstance(result, tuple) else (result, {})
        step = Batch(obs=obs, action=action, **extras).map(lambda x: x.unflatten(0, shape))
        batch = Batch(
            **step,
            reward=torch.randn(shape),
            discount=torch.full(shape, 0.9),
            next_obs=torch.randn(*shape, 3),
        ).map(lambda x: x.masked_fill(~self.mask.view(*shape, *[1] * (x.dim() - 2)), GARBAGE(x)))
        ended = torch.zeros(shape, dtype=torch.bool)
        return Batch(**batch, terminated=ended, truncated=ended, mask=self.mask)


def GARBAGE(field: Tensor) -> float:
    return math.nan if field.is_floating_point() else 0


def weights(agent: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in agent.parameters()]


def changed(agent: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(p, q) for p, q in zip(agent.parameters(), before, strict=True))


# -------------------------------------------------------------------- acting


@pytest.mark.parametrize("kind", ["PPO", "A2C"])
@pytest.mark.parametrize("name", ACTIONS)
def test_actions_of_every_kind_can_be_executed(kind: str, name: str) -> None:
    torch.manual_seed(0)
    space = ACTIONS[name]
    agent = {"PPO": PPO, "A2C": A2C}[kind](OBS, space)
    for train in (True, False):
        agent.train(train)
        with torch.no_grad():
            result = agent.act(50 * torch.randn(4, 3))
        action = result[0] if train else result
        each = action.items() if isinstance(space, dict) else [(None, action)]
        for key, value in each:
            part = space[key] if key else space
            assert value.shape == (4, *part.value_shape)
            assert value.dtype == (INT if part.discrete else torch.float32)
            if not part.discrete:
                assert float(value.abs().max()) <= 2
    output = agent(torch.randn(4, 3))
    if not isinstance(space, dict):
        assert output.shape == (4, *space.shape)


def test_the_log_probability_kept_is_of_the_value_drawn_not_of_the_clipped_one() -> None:
    torch.manual_seed(0)
    agent = PPO(OBS, ACTIONS["box"])
    obs = torch.randn(500, 3)
    with torch.no_grad():
        action, extras = agent.act(obs)
    raw = extras["raw_action"]
    assert bool((raw.abs() > 1).any())  # A deviation of 1 in units of half the range.
    assert torch.equal(action, (2 * raw).clamp(-2, 2))
    assert torch.equal(extras["log_prob"], agent.policy(obs).log_prob(raw))
    assert torch.equal(extras["value"], agent.value(obs))


def test_evaluation_takes_the_likeliest_action_and_draws_nothing() -> None:
    agent, obs = PPO(OBS, CHOICE).eval(), torch.randn(20, 3)
    before = torch.get_rng_state()
    assert torch.equal(agent.act(obs), agent(obs).argmax(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_policy_is_close_to_uniform() -> None:
    torch.manual_seed(0)
    p = PPO(OBS, CHOICE).policy(torch.randn(100, 3)).log_p.exp().detach()
    assert float((p - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize("count", [100, 5000])  # Torch's own below 4096 numbers.
def test_tanh_and_its_gradient(count: int) -> None:
    x = torch.linspace(-12, 12, count, requires_grad=True)
    Tanh()(x).sum().backward()
    torch.testing.assert_close(Tanh()(x), x.tanh(), atol=2e-7, rtol=0)
    torch.testing.assert_close(x.grad, 1 - x.detach().tanh() ** 2, atol=5e-7, rtol=0)


def test_images_and_dicts_are_seen() -> None:
    image = Space((3, 40, 40), torch.uint8, low=0, high=255)
    assert PPO(image, CHOICE, hidden=[8]).eval().act(torch.rand(2, 3, 40, 40)).shape == (2,)
    agent = A2C({"eye": image, "ear": OBS}, CHOICE, hidden=[8]).eval()
    assert agent.act({"eye": torch.rand(2, 3, 40, 40), "ear": torch.rand(2, 3)}).shape == (2,)


# ----------------------------------------------------------------- objectives


def with_ratios(ratio: list[float], advantage: list[float], **options: Any) -> tuple[Any, Batch]:
    """An agent, and transitions on which its probabilities have changed by these ratios."""
    agent = PPO(OBS, CHOICE, **options)
    obs, action = torch.randn(len(ratio), 3), torch.zeros(len(ratio), dtype=INT)
    with torch.no_grad():
        log_prob = agent.policy(obs).log_prob(action) - torch.tensor(ratio).log()
        target = agent.value(obs) + 2
    batch = Batch(obs=obs, action=action, log_prob=log_prob, target=target)
    return agent, Batch(**batch, advantage=torch.tensor(advantage))


def test_the_clipped_objective_by_hand() -> None:
    agent, batch = with_ratios([1.0, 1.5, 0.5, 1.5, 0.5], [1.0, 2.0, 3.0, -2.0, -3.0])
    loss, policy_loss, value_loss, log_ratio = agent.losses(batch)
    # A > 0: 1, 1.2 * 2 (not 1.5), 0.5 * 3. A < 0: 1.5 * -2, 0.8 * -3 (not 0.5).
    assert policy_loss.item() == pytest.approx(-(1 + 2.4 + 1.5 - 3 - 2.4) / 5, rel=1e-5)
    assert value_loss.item() == pytest.approx(4.0, rel=1e-5)
    assert loss.item() == pytest.approx(policy_loss.item() + 0.5 * 4, rel=1e-5)
    assert log_ratio.exp().tolist() == pytest.approx([1.0, 1.5, 0.5, 1.5, 0.5], rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.5, 2.0, False), (0.5, -2.0, False), (1.5, -2.0, True), (0.5, 2.0, True), (1.1, 1.0, True)],
)
def test_no_gradient_beyond_the_clip_but_back_to_it(
    ratio: float, advantage: float, moves: bool
) -> None:
    agent, batch = with_ratios([ratio], [advantage])
    agent.losses(batch)[1].backward()
    assert bool(agent.actor[-1].bias.grad.any()) is moves


def test_the_entropy_is_rewarded_only_when_asked_for() -> None:
    torch.manual_seed(0)
    agent, batch = with_ratios([1.0, 1.0], [0.0, 0.0], entropy_coef=0.1, value_coef=0.0)
    # Two almost equal choices: log 2.
    assert agent.losses(batch)[0].item() == pytest.approx(-0.1 * math.log(2), rel=1e-3)


# ------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ACTIONS)
def test_ppo_updates_itself_once_the_rollout_is_long_enough(name: str) -> None:
    torch.manual_seed(0)
    agent = PPO(OBS, ACTIONS[name], steps=6, epochs=2, minibatch_size=4)
    replay, log, before = FakeReplay(agent, steps=6), Log(), weights(agent)
    replay.new_steps = 5
    assert agent.learn(replay, log) is None
    assert not changed(agent, before)
    assert replay.new_steps == 5
    replay.new_steps = 6
    assert agent.learn(replay, log) is None
    assert changed(agent, before)
    assert replay.new_steps == 0
    assert all(math.isfinite(float(value)) for value in log.values())
    assert {"loss", "policy_loss", "value_loss", "approx_kl", "clip_fraction"} <= log.keys()


@pytest.mark.parametrize("name", ACTIONS)
def test_a2c_returns_a_loss_once_the_rollout_is_long_enough(name: str) -> None:
    torch.manual_seed(0)
    agent = A2C(OBS, ACTIONS[name], steps=6, entropy_coef=0.01)
    replay, log = FakeReplay(agent, steps=6), Log()
    replay.new_steps = 5
    assert agent.learn(replay, log) is None
    replay.new_steps = 6
    loss = agent.learn(replay, log)
    loss.backward()
    assert loss.shape == ()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in agent.parameters())


def test_every_valid_transition_is_met_once_an_epoch_and_no_other() -> None:
    torch.manual_seed(0)
    agent = PPO(OBS, CHOICE, steps=6, epochs=3, minibatch_size=4)
    replay, met = FakeReplay(agent, steps=6, lengths=[6, 3]), []
    losses = agent.losses

    def watched(batch: Batch) -> Any:
        met.append(batch)
        return losses(batch)

    agent.losses = watched
    agent.learn(replay, Log())
    assert [len(batch) for batch in met] == [5, 4] * 3  # Nine in two equal parts.
    first = torch.cat([batch.obs for batch in met[:2]])
    last = torch.cat([batch.obs for batch in met[-2:]])
    assert bool(first.isfinite().all())
    assert torch.equal(first.sort(0).values, last.sort(0).values)
    advantage = torch.cat([batch.advantage for batch in met[:2]])
    assert float(advantage.mean()) == pytest.approx(0, abs=1e-6)
    assert float(advantage.std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert all(bool(p.isfinite().all()) for p in agent.parameters())


def test_masked_places_take_no_part_in_a2cs_loss() -> None:
    torch.manual_seed(0)
    agent = A2C(OBS, ACTIONS["box"], steps=6, entropy_coef=0.01)
    agent.learn(FakeReplay(agent, steps=6, lengths=[6, 3]), log := Log()).backward()
    assert math.isfinite(float(log["policy_loss"]))
    assert all(bool(p.grad.isfinite().all()) for p in agent.parameters())


def test_a2cs_loss_by_hand() -> None:
    torch.manual_seed(0)
    agent = A2C(OBS, CHOICE, steps=2, gae_lambda=1.0, entropy_coef=0.1, value_coef=0.5)
    obs, last = torch.randn(2, 1, 3), torch.randn(1, 3)
    rollout = Batch(
        obs=obs,
        action=torch.tensor([[0], [1]]),
        reward=torch.tensor([[1.0], [2.0]]),
        discount=torch.full((2, 1), 0.5),
        next_obs=torch.stack([obs[1], last]),
        terminated=torch.zeros(2, 1, dtype=torch.bool),
        truncated=torch.zeros(2, 1, dtype=torch.bool),
        mask=torch.ones(2, 1, dtype=torch.bool),
        value=agent.value(obs).detach(),
    )
    loss = agent.learn(SimpleNamespace(new_steps=2, rollout=lambda: rollout), Log())
    with torch.no_grad():
        value, end = agent.value(obs[:, 0]), agent.value(last)[0]
        advantage = torch.stack([1 + 1 + end / 4, 2 + end / 2]) - value
        log_p = agent(obs[:, 0]).log_softmax(1)
        taken = torch.stack([log_p[0, 0], log_p[1, 1]])
        entropy = -(log_p.exp() * log_p).sum(1).mean()
        by_hand = -(taken * advantage).mean() + 0.5 * advantage.square().mean() - 0.1 * entropy
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_an_action_that_did_well_becomes_likelier() -> None:
    torch.manual_seed(0)
    agent = PPO(OBS, CHOICE, steps=32, epochs=4, minibatch_size=16, lr=1e-2)
    replay = FakeReplay(agent, steps=32)
    rollout = replay.rollout()
    rollout.reward = rollout.action.float()
    agent.learn(SimpleNamespace(new_steps=32, rollout=lambda: rollout), Log())
    p = agent.policy(rollout.obs.flatten(0, 1)).log_p.exp().detach()[:, 1]
    assert float(p.mean()) > 0.55


# --------------------------------------------------------------------- errors


def test_every_wrong_argument_is_named_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError) as error:
        PPO(OBS, CHOICE, steps=0, epochs=1.5, clip=-1, gae_lambda=1.5, hidden=64, lr=math.nan)
    message = str(error.value)
    assert message.startswith("Invalid arguments for PPO: ")
    for part in (
        "steps=0 must be a whole number from 1",
        "epochs=1.5 must be a whole number from 1",
        "clip=-1 must be a number from 0",
        "gae_lambda=1.5 must be a number from 0 to 1",
        "hidden=64 must be a list of whole numbers",
        "lr=nan must be",
    ):
        assert part in message


def test_a2c_too() -> None:
    with pytest.raises(ConfigError, match=r"A2C.*steps='many' must be a whole number from 1"):
        A2C(OBS, CHOICE, steps="many")
