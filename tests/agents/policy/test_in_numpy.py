"""Small networks in NumPy: what torch gives, or nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from antelope.agents import DQN
from antelope.agents.blocks.encoder import Layers
from antelope.agents.policy.in_numpy import in_numpy
from antelope.replay import Space

_CHOICES = Space((3,), torch.int64, discrete=True)


def small(*middle: nn.Module) -> Layers:
    torch.manual_seed(0)
    return Layers(nn.Linear(4, 16), nn.ReLU(), *middle, nn.Linear(16, 3))


def observations(n: int = 5, width: int = 4) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def assert_equal_to_torch(network: nn.Module, obs: Tensor) -> None:
    """Its values are there, and torch's."""
    with torch.no_grad():
        values = in_numpy(network, obs)
        assert values is not None
        torch.testing.assert_close(torch.from_numpy(values), network(obs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(4, 3)],
        lambda: [nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)],
        lambda: [nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)],
        lambda: [nn.ReLU(), nn.Linear(4, 5, bias=False), nn.Identity()],
    ],
)
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("kind", [Layers, nn.Sequential])
def test_values_are_those_of_torch(
    kind: type[nn.Sequential], layers: Callable[[], list[nn.Module]], rows: int
) -> None:
    obs = observations(rows)
    before = obs.clone()
    assert_equal_to_torch(kind(*layers()), obs)
    assert torch.equal(obs, before)


def test_weights_are_followed_however_they_change() -> None:
    network, obs = small(), observations()
    assert_equal_to_torch(network, obs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(obs).square().mean().backward()
    optimizer.step()  # In place.
    assert_equal_to_torch(network, obs)
    network.load_state_dict(small().state_dict())
    assert_equal_to_torch(network, obs)
    network.load_state_dict({n: w + 1 for n, w in network.state_dict().items()}, assign=True)
    assert_equal_to_torch(network, obs)
    network[0].weight.data = torch.randn(16, 4)
    assert_equal_to_torch(network, obs)
    network[0].bias = None
    assert_equal_to_torch(network, obs)
    network[2] = nn.Linear(16, 2)
    assert_equal_to_torch(network, obs)
    network[1].__class__ = nn.Tanh
    assert_equal_to_torch(network, obs)
    network.append(nn.Linear(2, 2))
    assert_equal_to_torch(network, obs)


def test_a_layer_that_was_cut_is_noticed_though_its_memory_is_the_same() -> None:
    network, obs = small(), observations()
    assert_equal_to_torch(network, obs)
    last = network[2]
    last.weight.data, last.bias.data = last.weight.data[:2], last.bias.data[:2]
    assert_equal_to_torch(network, obs)


def test_a_copy_has_weights_of_its_own() -> None:
    network, obs = small(), observations()
    assert_equal_to_torch(network, obs)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied[0].weight.mul_(2)
    assert_equal_to_torch(copied, obs)
    assert_equal_to_torch(network, obs)


def hooked(network: Layers) -> None:
    network[0].register_forward_hook(lambda *_: None)


def hooked_as_a_whole(network: Layers) -> None:
    network.register_forward_pre_hook(lambda *_: None)


def parametrised(network: Layers) -> None:
    nn.utils.parametrizations.weight_norm(network[0])


def pruned(network: Layers) -> None:
    prune.l1_unstructured(network[0], "weight", 0.5)


def with_another_forward(network: Layers) -> None:
    network[1].forward = torch.sigmoid


def of_doubles(network: Layers) -> None:
    network[2].double()


def larger(network: Layers) -> None:
    network[0], network[2] = nn.Linear(4, 2**15), nn.Linear(2**15, 3)


@pytest.mark.parametrize(
    "alter",
    [
        *(hooked, hooked_as_a_whole, parametrised, pruned, with_another_forward, of_doubles),
        larger,
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_a_network_that_is_more_than_its_layers_is_left_to_torch(
    alter: Callable[[Layers], None], used: bool
) -> None:
    network, obs = small(), observations()
    with torch.no_grad():
        if used:
            assert in_numpy(network, obs) is not None
        alter(network)
        assert in_numpy(network, obs) is None


def test_a_hook_that_was_removed_leaves_no_trace() -> None:
    network, obs = small(), observations()
    handle = network[0].register_forward_hook(lambda *_: torch.zeros(5, 16))
    with torch.no_grad():
        assert in_numpy(network, obs) is None
    handle.remove()
    assert_equal_to_torch(network, obs)


class Louder(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Backwards(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(1))


@pytest.mark.parametrize(
    "network",
    [
        *(small(Louder()), small(nn.Dropout(0.5)), small(nn.LayerNorm(16)), small(small())),
        *(Backwards(nn.Linear(4, 3)), nn.Sequential(), nn.Linear(4, 3)),
    ],
)
def test_what_is_not_known_is_left_to_torch(network: nn.Module) -> None:
    with torch.no_grad():
        assert in_numpy(network, observations()) is None


@pytest.mark.parametrize(
    "obs",
    [
        *(observations().double(), observations().bfloat16(), {"obs": observations()}),
        *(observations(5, 3), observations()[0], observations(10_000)),
    ],
)
def test_other_observations_are_left_to_torch(obs: Tensor) -> None:
    with torch.no_grad():
        assert in_numpy(small(), obs) is None


def test_gradients_and_other_precisions_are_left_to_torch() -> None:
    network, obs = small(), observations()
    assert in_numpy(network, obs) is None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert in_numpy(network, obs) is None


@pytest.mark.filterwarnings("ignore")  # torch.jit is on its way out; a trace must still be right.
def test_a_trace_is_of_the_network_not_of_its_values() -> None:
    agent = DQN(Space((4,)), _CHOICES).eval()
    with torch.no_grad():
        traced = torch.jit.trace_module(agent, {"act": observations(2)})
        for obs in (observations(6), -observations(6)):
            assert torch.equal(traced.act(obs), agent.act(obs))


@pytest.mark.parametrize("dueling", [False, True])
def test_dqn_chooses_what_torch_would(dueling: bool) -> None:
    torch.manual_seed(0)
    agent = DQN(Space((4,)), _CHOICES, hidden=(120, 84), dueling=dueling).eval()
    obs = 10 * observations(50)
    with torch.no_grad():
        best = agent.network(obs).argmax(1)
        one_by_one = torch.cat([agent.act(one[None]) for one in obs])
        assert torch.equal(agent.act(obs), best)
    assert torch.equal(one_by_one, best)
    assert one_by_one.dtype == torch.int64
    assert len(set(best.tolist())) > 1


def test_the_result_is_memory_of_its_own() -> None:
    network, obs = Layers(nn.Linear(4, 4), nn.ReLU()), observations()
    with torch.no_grad():
        first = in_numpy(network, obs)
        assert first is not None
        kept = first.copy()
        in_numpy(network, -obs)
    np.testing.assert_array_equal(first, kept)
