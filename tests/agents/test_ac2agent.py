"""The default agent: what it chooses for which spec and settings, and its losses by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import agents, ml
from antelope.agents import AC2Agent
from antelope.agents.bandit import Bandit
from antelope.agents.blocks.cnn import CNN
from antelope.agents.blocks.residual import ResidualCNN
from antelope.agents.dqn import DQN
from antelope.agents.ppo import PPO
from antelope.agents.sac import SAC
from antelope.agents.supervised import Supervised, supervised_loss
from antelope.agents.td3 import TD3
from antelope.replay import Batch, ConfigError, Space, Spec

OBS = Space((3,))
CLASSES = Space((5,), torch.int64, low=0, high=4, discrete=True)
VALUES = Space((2,))
IMAGE = Space((1, 8, 8), torch.uint8, low=0.0, high=16.0)
BOX = Space((2,), low=-2.0, high=2.0)
HALF_BOUNDED = Space((2,), low=torch.tensor([-1.0, -math.inf]), high=torch.tensor([1.0, math.inf]))
SWITCHES = Space((4,), torch.int64, binary=True, discrete=True)
CHOICES = Space((5,), torch.int64, nvec=(2, 3), discrete=True)


class Log(dict[str, Any]):
    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class FakeReplay:
    """The same batch at each step."""

    prioritized = False

    def __init__(self, batch: Batch):
        self.batch = batch

    def __next__(self) -> Batch:
        return self.batch


class Constant(nn.Module):
    """The same output whatever it sees."""

    def __init__(self, *values: float):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def forward(self, obs: Tensor) -> Tensor:
        return self.values.expand(len(obs), -1)


class TestChooses:
    @pytest.mark.parametrize(
        ("action", "settings", "way", "says"),
        [
            (CLASSES, {}, Supervised, "classification (cross-entropy)"),
            (VALUES, {}, Supervised, "regression (squared error)"),
            (CLASSES, {"rl": True}, Bandit, "reward alone"),
            (CLASSES, {"environment": True}, DQN, "Q-learning"),
            (BOX, {"environment": True}, SAC, "squashed Gaussian policy"),
            (VALUES, {"environment": True}, PPO, "policy gradient"),
            (HALF_BOUNDED, {"environment": True}, PPO, "policy gradient"),
            (SWITCHES, {"environment": True}, PPO, "policy gradient"),
            (CHOICES, {"environment": True}, PPO, "policy gradient"),
            ({"move": CLASSES, "arm": BOX}, {"environment": True}, PPO, "policy gradient"),
            (CLASSES, {"environment": True, "offline": True}, DQN, "conservative"),
            (BOX, {"environment": True, "offline": True}, TD3, "from a saved replay"),
        ],
    )
    def test_how_it_learns(
        self, action: Any, settings: dict[str, bool], way: type, says: str
    ) -> None:
        agent = AC2Agent(Spec(OBS, action), hidden=8, **settings)
        assert type(agent.way) is way
        assert says in agent.decision
        assert "\n" not in agent.decision

    def test_it_has_only_the_methods_of_what_it_does(self) -> None:
        def methods(**settings: bool) -> set[str]:
            agent = AC2Agent(Spec(IMAGE, CLASSES), hidden=8, **settings)
            return {
                name
                for name in ("forward", "act", "learn", "sample")
                if callable(getattr(agent, name))
            }

        assert methods() == methods(rl=True) == {"forward", "learn"}
        assert methods(environment=True) == {"forward", "act", "learn"}
        assert methods(generate=True) == {"learn", "sample"}

    @pytest.mark.parametrize(
        ("action", "settings", "says"),
        [
            (VALUES, {"rl": True}, "rl=true needs classes"),
            (CLASSES, {"environment": True, "rl": True}, "`rl` cannot be used with an environment"),
            (
                CLASSES,
                {"environment": True, "generate": True},
                "`generate` cannot be used with an env",
            ),
            (CLASSES, {"rl": True, "generate": True}, "`rl` cannot be used with generate=true"),
            (CLASSES, {"policy": nn.Identity()}, "`policy` cannot be used with a data set"),
            (CLASSES, {"generator": nn.Identity()}, "`generator` cannot be used with a data set"),
            (SWITCHES, {"environment": True, "offline": True}, "offline="),
        ],
    )
    def test_what_does_not_go_together_is_refused(
        self, action: Any, settings: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(ConfigError, match=says):
            AC2Agent(Spec(OBS, action), **settings)

    def test_it_says_what_it_decided(
        self, workdir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ml(dataset="Diabetes", train_steps=1, plot=False)
        (line,) = (x for x in capsys.readouterr().out.splitlines() if "squared error" in x)
        assert "learns" in line

    def test_a_model_of_ones_own_says_nothing(
        self, workdir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ml(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), train_steps=1, plot=False)
        assert "learns" not in capsys.readouterr().out


class TestNetwork:
    @pytest.mark.parametrize(
        "shape", [(3,), (1, 8, 8), (3, 32, 36), (2, 4, 4), (4, 3, 3), (6, 7), ()]
    )
    @pytest.mark.parametrize("action", [CLASSES, VALUES, Space((1,))])
    def test_output_has_the_shape_of_the_spec(self, shape: tuple[int, ...], action: Space) -> None:
        agent = AC2Agent(Spec(Space(shape), action), hidden=8)
        assert agent(torch.zeros(3, *shape)).shape == (3, *action.shape)

    def test_the_narrowest_network_runs(self) -> None:
        for shape in [(1, 8, 8), (3, 32, 32), (3,)]:
            agent = AC2Agent(Spec(Space(shape), CLASSES), hidden=1)
            assert agent(torch.zeros(2, *shape)).shape == (2, 5)

    @pytest.mark.parametrize(
        ("shape", "kind"),
        [
            ((1, 8, 8), CNN),
            ((1, 28, 28), CNN),
            ((3, 31, 64), CNN),
            ((3, 32, 32), ResidualCNN),
            ((3, 64, 96), ResidualCNN),
            ((1, 3, 8), None),
            ((64,), None),
        ],
    )
    @pytest.mark.parametrize("rl", [False, True])
    def test_images_meet_convolutions_from_32_pixels_on_residual_ones(
        self, shape: tuple[int, ...], kind: type | None, rl: bool
    ) -> None:
        agent = AC2Agent(Spec(Space(shape), CLASSES), rl=rl, hidden=8)
        found = {type(m) for m in agent.modules() if isinstance(m, (CNN, ResidualCNN))}
        assert found == ({kind} if kind else set())
        assert any(isinstance(m, nn.Conv2d) for m in agent.modules()) == (kind is not None)

    def test_an_encoder_is_followed_by_the_classes(self) -> None:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
        agent = AC2Agent(Spec(Space((3, 4)), CLASSES), encoder=encoder)
        assert agent(torch.zeros(2, 3, 4)).shape == (2, 5)
        own = {id(parameter) for parameter in encoder.parameters()}
        assert own < {id(parameter) for parameter in agent.parameters()}
        assert sum(p.numel() for p in agent.parameters()) == 12 * 7 + 7 + 7 * 5 + 5

    def test_values_are_given_in_their_own_units(self) -> None:
        action = Space((2,), mean=torch.tensor([10.0, -5.0]), stddev=torch.tensor([2.0, 0.0]))
        agent = AC2Agent(Spec(OBS, action), hidden=8).eval()
        for parameter in agent.parameters():
            nn.init.zeros_(parameter)
        assert agent(torch.rand(1, 3)).tolist() == [[10, -5]]
        last = [module for module in agent.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.ones_(last.bias)  # One deviation more; a constant target has a deviation of one.
        assert agent(torch.rand(1, 3)).tolist() == [[12, -4]]

    def test_values_begin_at_their_mean(self) -> None:
        action = Space((1,), mean=torch.tensor([10.0]), stddev=torch.tensor([2.0]))
        assert AC2Agent(Spec(OBS, action), hidden=8)(torch.rand(4, 3)).tolist() == [[10]] * 4


class TestLoss:
    def test_it_learns_by_the_next_batch(self) -> None:
        agent = AC2Agent(Spec(OBS, CLASSES), hidden=8)
        for parameter in agent.parameters():
            nn.init.zeros_(parameter)
        replay: Any = FakeReplay(Batch(obs=torch.rand(4, 3), label=torch.tensor([0, 1, 2, 3])))
        # All classes alike: the loss is the logarithm of their number.
        assert agent.learn(replay, Log()).item() == pytest.approx(math.log(5))

    def test_of_values_is_one_for_their_mean_whatever_the_units(self) -> None:
        label = torch.tensor([[1.0, 100.0], [3.0, 300.0]])
        space = Space((2,), mean=label.mean(0), stddev=label.std(0, correction=0))
        batch = Batch(obs=torch.zeros(2, 1), label=label)
        assert supervised_loss(Constant(2, 200), batch, space).item() == pytest.approx(1)
        # Errors of 0 and 2 (deviation 1) and of 100 and 100 (deviation 100): (0 + 4 + 1 + 1) / 4.
        assert supervised_loss(Constant(1, 200), batch, space).item() == pytest.approx(1.5)

    def test_of_a_constant_target_is_finite(self) -> None:
        space = Space((1,), mean=torch.tensor([7.0]), stddev=torch.tensor([0.0]))
        batch = Batch(obs=torch.zeros(2, 1), label=torch.full((2, 1), 7.0))
        assert supervised_loss(Constant(9), batch, space).item() == 4

    def test_of_classes_by_hand(self) -> None:
        # softmax([log 3, 0]) = [3/4, 1/4].
        batch = Batch(obs=torch.zeros(2, 1), label=torch.tensor([0, 1]))
        space = Space((2,), torch.int64, discrete=True)
        loss = supervised_loss(Constant(math.log(3), 0), batch, space)
        assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


class TestReward:
    """Learning from whether a choice was right."""

    def bandit(self, *logits: float) -> Bandit:
        bandit = Bandit(OBS, Space((len(logits),), torch.int64, discrete=True), hidden=8)
        bandit.network = Constant(*logits)
        return bandit

    def test_the_loss_is_the_rewards_likelihood(self) -> None:
        # p = [3/4, 1/4]: choosing 0 is right with 3/4, and so is not choosing 1.
        bandit = self.bandit(math.log(3), 0)
        replay: Any = FakeReplay(Batch(obs=torch.zeros(400, 3), label=torch.zeros(400).long()))
        log = Log()
        loss = bandit.learn(replay, log)
        # Whichever of both is drawn, it says that the label is 0: -log 3/4.
        assert loss.item() == pytest.approx(math.log(4 / 3), rel=1e-5)
        assert log["reward"].item() == pytest.approx(3 / 4, abs=0.1)  # Four deviations.

    def test_a_wrong_choice_tells_nothing_of_which_is_right(self) -> None:
        bandit = self.bandit(20.0, 0.0, 0.0)  # Always chooses 0.
        losses = []
        for label in (1, 2):
            replay: Any = FakeReplay(Batch(obs=torch.zeros(8, 3), label=torch.full((8,), label)))
            loss = bandit.learn(replay, Log())
            (gradient,) = torch.autograd.grad(loss, [*bandit.parameters()])
            losses.append((loss.item(), gradient.tolist()))
        assert losses[0] == losses[1]
        assert math.isfinite(losses[0][0])

    def test_a_sure_choice_that_is_wrong_is_unlearnt(self) -> None:
        bandit = self.bandit(20.0, 0.0)
        replay: Any = FakeReplay(Batch(obs=torch.zeros(8, 3), label=torch.ones(8).long()))
        bandit.learn(replay, Log()).backward()
        assert bandit.network.values.grad is not None
        assert bandit.network.values.grad[0] > 0 > bandit.network.values.grad[1]


@pytest.mark.parametrize("name", agents.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(agents, name))


def test_every_registered_name_is_public() -> None:
    assert set(agents.NAMES["model"]) <= set(agents.__all__)
