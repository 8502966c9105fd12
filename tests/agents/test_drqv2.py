"""DrQ-v2: how it moves images, and what trains what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope.agents.blocks.ensemble import EnsembleLinear
from antelope.agents.drqv2 import DrQV2, shift
from antelope.replay import Batch, ConfigError, Space

OBS = Space((3, 16, 18), torch.uint8)
BOX = Space((2,), low=-2.0, high=2.0)


class FakeReplay:
    """The same batch at each step, random unless given."""

    prioritized = False

    def __init__(self, **batch: Tensor):
        self.batch = batch or {
            "obs": torch.rand(4, *OBS.shape),
            "action": torch.rand(4, 2),
            "reward": torch.randn(4),
            "discount": torch.full((4,), 0.9),
            "next_obs": torch.rand(4, *OBS.shape),
        }

    def __next__(self) -> Batch:
        return Batch(**self.batch)


class Log(dict[str, Any]):
    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


@pytest.fixture
def agent() -> DrQV2:
    torch.manual_seed(0)
    return DrQV2(OBS, BOX, hidden=(8,), features=5)


def test_images_are_moved_and_their_edges_repeated() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 2, 5, 6)
    padded = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    crops = [padded[:, :, y : y + 5, x : x + 6] for y in range(5) for x in range(5)]
    moved = shift(images, 2)
    is_crop = torch.stack([(moved == crop).flatten(1).all(1) for crop in crops])  # [25, B]
    assert bool((is_crop.sum(0) == 1).all())  # Each image is one of them, channels together,
    assert bool(is_crop.any(1).all())  # and all of them occur.
    assert torch.equal(shift(images, 0), images)


class Critics(nn.Module):
    """Q_i(h, a) = scale_i * (sum of h + sum of a)."""

    def __init__(self, *scales: float):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scales)[:, None])

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        return self.scale * (features.sum(1) + action.sum(1))


def test_the_losses_by_hand(agent: DrQV2) -> None:
    agent.encoder, agent.pad, agent.tau, agent.noise = nn.Flatten(), 0, 0.0, (0.0, 0.0)
    agent.actor = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    nn.init.zeros_(agent.actor[1].weight)
    agent.actor[1].bias.data = torch.tensor([0.5, 0.25])
    agent.critics, agent.target_critics = Critics(2.0, 1.0), Critics(4.0, 3.0)
    replay = FakeReplay(
        obs=torch.ones(1, 3, 1, 1),
        action=torch.tensor([[2.0, 1.0]]),  # Between -2 and 2: (1, 0.5).
        reward=torch.tensor([1.0]),
        discount=torch.tensor([0.5]),
        next_obs=2 * torch.ones(1, 3, 1, 1),
    )
    loss = agent.learn(replay, Log())
    # y = 1 + 0.5 * min(4, 3) * (6 + 0.75); Q = (2, 1) * 4.5; min Q(s, mu(s)) = 3.75.
    y = 1 + 1.5 * 6.75
    assert loss.item() == pytest.approx((y - 9) ** 2 + (y - 4.5) ** 2 - 3.75)
    loss.backward()
    gradient = [2 * (9 - y) * 4.5, 2 * (4.5 - y) * 4.5]
    assert agent.critics.scale.grad[:, 0].tolist() == pytest.approx(gradient)
    assert agent.actor[1].bias.grad.tolist() == pytest.approx([-1, -1])


def test_the_actor_does_not_train_what_the_critics_see_with(agent: DrQV2) -> None:
    """The encoder's gradient is the same with critics that the actor's term cannot reach."""

    replay = FakeReplay()

    def gradients(*, act: bool) -> list[Tensor]:
        agent.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        if not act:
            agent.noisy = lambda action: action.detach()  # type: ignore[method-assign]
        agent.noise_clip = 0.0
        agent.learn(replay, Log()).backward()
        assert act == any(p.grad is not None for p in agent.actor.parameters())
        return [p.grad for m in (agent.encoder, agent.critics) for p in m.parameters()]

    for with_actor, without in zip(gradients(act=True), gradients(act=False), strict=True):
        assert torch.equal(with_actor, without)
        assert bool(with_actor.any())


def test_noise_is_clipped_but_gradients_are_not(agent: DrQV2) -> None:
    action = torch.tensor([[0.95, 0.0]], requires_grad=True)
    noisy = agent.noisy(action.expand(1000, 2))
    assert float(noisy.detach()[:, 0].max()) == 1.0
    assert float(noisy.detach()[:, 1].abs().max()) == pytest.approx(0.3)
    noisy.sum().backward()
    assert action.grad.tolist() == [[1000.0, 1000.0]]


def test_the_noise_shrinks_with_the_environments_steps(agent: DrQV2) -> None:
    agent.noise, agent.noise_steps, agent.random_steps = (1.0, 0.2), 100, 0
    obs = torch.rand(25, *OBS.shape)
    seen = []
    for _ in range(6):
        seen.append(agent.std)
        agent.act(obs)
    assert seen == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    agent.eval()
    assert torch.equal(agent.act(obs), agent(obs))
    assert agent.env_steps == 150


def test_only_the_critics_have_a_target(agent: DrQV2) -> None:
    trained = {name.split(".")[0] for name, p in agent.named_parameters() if p.requires_grad}
    assert trained == {"encoder", "actor", "critics"}


def test_weights_begin_orthogonal_in_every_member(agent: DrQV2) -> None:
    first = agent.critics.members[0]
    assert isinstance(first, EnsembleLinear)
    for weight in first.weight:  # [7, 8]: orthonormal rows.
        torch.testing.assert_close(weight @ weight.mT, torch.eye(7), atol=1e-5, rtol=0)
    assert not first.bias.any()


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (Space((4,)), "float32 4"),
        (Space((3, 12, 40), torch.uint8), "uint8 3x12x40"),
        ({"a": OBS, "b": OBS}, "a dict of a, b"),
    ],
)
def test_other_observations_are_an_error_that_says_what_to_take(space: Any, given: str) -> None:
    with pytest.raises(ConfigError, match=f"16x16 pixels or more.*{given}. Take SAC or TD3"):
        DrQV2(space, BOX)
