"""What means something on a module: the contract's methods, and our agents' one reserved attribute."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope.agents import DQN, PPO, VAE, AC2Agent
from antelope.agents.blocks import Recurrent
from antelope.agents.traits import Traits, has_forward, hook, takes_state, traits
from antelope.replay import Space, Spec

OBS = Space((4,), low=-1.0, high=1.0)
CHOICES = Space((2,), torch.int64, low=0, high=1, discrete=True)


def double(x: Tensor) -> Tensor:
    return 2 * x


class Acts(nn.Module):
    def act(self, obs: Tensor) -> Tensor:
        return obs


@pytest.mark.parametrize(
    "given",
    [
        *(nn.GELU(), nn.GELU, F.relu, torch.tanh, torch.Tensor.relu, partial(F.leaky_relu)),
        *(torch.distributions.ExpTransform(), partial(nn.ReLU()), "relu", 3, None, torch.ones(2)),
    ],
)
def test_modules_classes_functions_of_torch_and_data_are_no_hooks(given: Any) -> None:
    module = nn.Module()
    module.act = given
    assert hook(module, "act") is None
    assert hook(type("Net", (nn.Module,), {"act": given}), "act") is None


def test_functions_partials_and_methods_are() -> None:
    module = Acts()
    assert hook(module, "act") == module.act
    assert hook(Acts, "act") is Acts.act
    assert hook(module, "learn") is None
    for given in (double, partial(double), module.act, torch.no_grad()(double), lambda obs: obs):
        module = nn.Module()
        module.act = given
        assert hook(module, "act") is given


def test_a_forward_may_be_put_on_the_object() -> None:
    assert has_forward(nn.Linear(1, 1))
    assert has_forward(nn.Linear)
    assert not has_forward(nn.Module())
    assert not has_forward(Acts)
    module = nn.Module()
    module.forward = double
    assert has_forward(module)
    assert not takes_state(module)
    module.forward = lambda obs, state=None: (obs, state)
    assert takes_state(module)
    module.forward = None  # type: ignore[assignment]
    assert not has_forward(module)
    other = nn.Module()
    other.forward = nn.Linear(1, 1)  # type: ignore[assignment]
    assert not has_forward(other)  # torch does not call it either.


def test_only_traits_say_something() -> None:
    module = nn.Module()
    module.antelope_traits = "recurrent"
    for name in ("recurrent", "on_policy", "generates", "decision"):
        setattr(module, name, True)
    said = traits(module)
    assert (said.recurrent, said.on_policy, said.generates, said.decision) == (
        *(False, False, False, None),
    )


def test_what_our_agents_say_of_themselves() -> None:
    assert traits(PPO(OBS, CHOICES)).on_policy
    assert not traits(PPO(OBS, CHOICES)).recurrent
    assert not traits(DQN(OBS, CHOICES)).on_policy
    memory = PPO(OBS, CHOICES, policy=Recurrent(4, 2))
    assert traits(memory).recurrent
    assert traits(memory).by_sequence
    assert traits(memory).composition is memory.composition
    assert traits(VAE(OBS, CHOICES, conditional=True)).conditional
    agent = AC2Agent(Spec(OBS, CHOICES), environment=True)
    assert traits(agent).core is agent.way
    assert traits(agent).recurrent is False  # Although its forward could carry a state.
    assert traits(agent).decision == agent.decision


def test_a_subclass_says_what_its_base_says_and_nothing_by_other_names() -> None:
    class Mine(PPO):
        def __init__(self, obs_spec: Space, action_spec: Space):
            super().__init__(obs_spec, action_spec)
            self.recurrent = self.by_sequence = True
            self.on_policy = False

    agent = Mine(OBS, CHOICES)
    assert traits(agent).on_policy
    assert not traits(agent).recurrent
    action, extras = agent.act(torch.zeros(3, 4))
    assert action.shape == extras["value"].shape == (3,)
    assert isinstance(agent.antelope_traits, Traits)
