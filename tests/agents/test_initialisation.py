"""How weights start: orthogonal, or with the variance of the papers; and the priors of policies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch import distributions as torchs

from antelope.agents.blocks.initialisation import (
    METHODS,
    check_prior,
    initialise,
    prior_logits,
    set_head_bias,
)
from antelope.agents.policy.heads import distribution, logits_shape
from antelope.replay import ConfigError, Space

INT = torch.int64
MOVE = Space((4,), INT, discrete=True)
CRAFT = Space((5,), INT, discrete=True, nvec=(3, 2))
USE = Space((3,), INT, discrete=True, binary=True)
PRIORS: dict[str, tuple[Space, Any, list[float]]] = {
    "a choice": (MOVE, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    "choices": (CRAFT, [[0.7, 0.2, 0.1], [0.5, 0.5]], [0.7, 0.2, 0.1, 0.5, 0.5]),
    "switches": (USE, [0.05, 0.5, 0.9], [0.05, 0.5, 0.9]),
    "switches alike": (USE, 0.05, [0.05] * 3),
}


def assert_orthogonal(matrix: Tensor, gain: float) -> None:
    """The shorter side's vectors are at right angles, and as long as the gain."""
    matrix = matrix.detach().flatten(1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("layer", "matrices"),
    [
        (nn.Linear(7, 5), lambda layer: [layer.weight]),
        (nn.Linear(5, 7), lambda layer: [layer.weight]),
        (nn.Conv2d(3, 8, 3), lambda layer: [layer.weight]),
        (nn.Conv1d(8, 4, 5, bias=False), lambda layer: [layer.weight]),
        (nn.Conv2d(6, 6, 3, groups=6), lambda layer: layer.weight.chunk(6)),
        (nn.ConvTranspose2d(8, 3, 4), lambda layer: [layer.weight.transpose(0, 1)]),
    ],
)
def test_orthogonal_layers_keep_lengths_but_for_the_gain(layer: nn.Module, matrices: Any) -> None:
    initialise(layer, "orthogonal")
    for matrix in matrices(layer):
        assert_orthogonal(matrix, math.sqrt(2))
    if layer.bias is not None:
        assert not bool(layer.bias.any())


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_each_gate_of_a_recurrent_layer_is_orthogonal(kind: type[nn.Module]) -> None:
    layer = kind(5, 6)
    initialise(layer, "orthogonal")
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind.__name__.removesuffix("Cell")]
    seen = 0
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            for gate in parameter.view(gates, 6, -1):
                assert_orthogonal(gate, 1.0)
                seen += 1
        elif gates == 4 and name.startswith("bias_ih"):
            # Input, forget, cell, output: the forget gate starts open, sigmoid(1) = 0.73.
            assert parameter.tolist() == [0] * 6 + [1] * 6 + [0] * 12
        else:
            assert not bool(parameter.any())
    assert seen == 2 * gates


def test_every_layer_and_direction_of_a_recurrent_stack_is_drawn() -> None:
    layer = nn.LSTM(5, 6, num_layers=2, bidirectional=True, proj_size=3)
    initialise(layer, "orthogonal")
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hr"):
            assert_orthogonal(parameter, 1.0)
        elif name.startswith("weight"):
            for gate in parameter.chunk(4):
                assert_orthogonal(gate, 1.0)


def test_queries_keys_and_values_of_attention_are_drawn_one_by_one() -> None:
    for attention in (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=6, vdim=4)):
        initialise(attention, "orthogonal")
        packed = attention.in_proj_weight
        matrices = (
            [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
            if packed is None
            else packed.chunk(3)
        )
        for matrix in matrices:
            assert_orthogonal(matrix, 1.0)
        assert_orthogonal(attention.out_proj.weight, math.sqrt(2))
        assert not bool(attention.in_proj_bias.any())


# Large enough that the variance of 10^5 numbers is within 3 % of its expectation.
@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (nn.Linear(400, 300), 400, 300),
        (nn.Conv2d(32, 96, 6), 32 * 36, 96 * 36),
        (nn.Conv2d(64, 128, 6, groups=2), 32 * 36, 64 * 36),
        (nn.ConvTranspose2d(96, 32, 6), 96 * 36, 32 * 36),
    ],
)
def test_variances_are_those_of_the_papers(layer: nn.Module, fan_in: int, fan_out: int) -> None:
    torch.manual_seed(0)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    initialise(layer, "xavier")
    assert weight.var().item() == pytest.approx(2 / (fan_in + fan_out), rel=0.03)
    assert weight.abs().max().item() <= math.sqrt(6 / (fan_in + fan_out))
    initialise(layer, "kaiming")
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 / math.sqrt(fan_in))


def test_gates_and_embeddings_have_no_gain() -> None:
    torch.manual_seed(0)
    gru, words = nn.GRU(200, 150), nn.Embedding(1000, 100, padding_idx=3)
    initialise(nn.ModuleList([gru, words]), "kaiming")
    assert gru.weight_ih_l0.var().item() == pytest.approx(1 / 200, rel=0.05)
    assert gru.weight_hh_l0.var().item() == pytest.approx(1 / 150, rel=0.05)
    assert words.weight.var().item() == pytest.approx(1 / 100, rel=0.05)
    assert not bool(words.weight[3].any())  # Padding means nothing.
    initialise(gru, "xavier")
    # Of one gate, not of three beneath each other.
    assert gru.weight_ih_l0.var().item() == pytest.approx(2 / (200 + 150), rel=0.05)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((3,), 7.0))
        self.norms = nn.ModuleList([nn.LayerNorm(3), nn.BatchNorm1d(3), nn.GroupNorm(1, 3)])
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        for parameter in self.norms.parameters():
            nn.init.constant_(parameter, 3.0)


@pytest.mark.parametrize("how", METHODS)
def test_norms_and_parameters_of_no_layer_stay(how: str) -> None:
    module = Own()
    before = {name: p.clone() for name, p in module.named_parameters()}
    initialise(module, how)
    changed = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"normed.bias"}


def test_what_layers_share_is_drawn_once() -> None:
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = shared.weight
    torch.manual_seed(0)
    initialise(nn.ModuleDict({"policy": shared, "critic": shared, "tied": tied}), "orthogonal")
    drawn = shared.weight.clone()
    torch.manual_seed(0)
    initialise(shared, "orthogonal")
    assert torch.equal(shared.weight, drawn)
    assert tied.weight is shared.weight


def test_half_precision_and_frozen_weights_can_be_drawn() -> None:
    layer = nn.Linear(8, 8).bfloat16().requires_grad_(False)
    initialise(layer, "orthogonal")
    assert layer.weight.dtype == torch.bfloat16
    assert not layer.weight.requires_grad
    assert layer.weight.float().norm().item() == pytest.approx(4, rel=0.01)


def test_signals_keep_their_size_through_relus() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(20):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    network, x = nn.Sequential(*layers), torch.randn(64, 256)
    for how in ("orthogonal", "kaiming"):
        initialise(network, how)
        assert 0.3 < network(x).square().mean().sqrt().item() < 3


def test_unknown_words_and_lazy_layers_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"There is no initialisation `orthgonal`.*orthogonal, xavier, kai"
    ):
        initialise(nn.Linear(2, 2), "orthgonal")
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ConfigError, match=r"0\.weight, 0\.bias have no shapes.*run one batch"):
        initialise(lazy, "orthogonal")
    lazy(torch.zeros(1, 3))
    initialise(lazy, "orthogonal")
    assert_orthogonal(lazy[0].weight, math.sqrt(2))


# ------------------------------------------------------------------------------- priors


def network(space: Space) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 32),
        nn.Tanh(),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, *logits_shape(space)),
    )


@pytest.mark.parametrize("name", PRIORS)
def test_the_prior_comes_out_of_a_network(name: str) -> None:
    space, prior, expected = PRIORS[name]
    model, x = network(space), torch.randn(5_000, 6)
    before = distribution(space, model(x))
    with pytest.raises(ConfigError, match=r"sets the probabilities .*, but the policy's are"):
        check_prior(before, space, prior)
    set_head_bias(model[-1], space, prior)
    policy = distribution(space, model(x))
    check_prior(policy, space, prior)
    torch.manual_seed(1)
    drawn = policy.sample()
    if space.binary:
        frequencies = drawn.float().mean(0)
    else:
        columns = drawn.reshape(5_000, -1).unbind(1)
        counts = [c.bincount(minlength=n) for c, n in zip(columns, space.nvec or (4,), strict=True)]
        frequencies = torch.cat(counts) / 5_000
    assert frequencies.tolist() == pytest.approx(expected, abs=0.03)
    # Whatever it is shown.
    logits = model(x).reshape(5_000, -1)
    assert logits.std(0).max().item() < 0.02
    assert bool(logits.std(0).min() > 0)


def test_the_prior_comes_out_of_a_convolution() -> None:
    for layer in (nn.Conv2d(8, 4, 3, padding=1), nn.ConvTranspose2d(8, 4, 3, padding=1)):
        set_head_bias(layer, MOVE, [0.1, 0.2, 0.3, 0.4])
        logits = layer(torch.randn(16, 8, 1, 1)).flatten(1)
        check_prior(distribution(MOVE, logits), MOVE, [0.1, 0.2, 0.3, 0.4])
        weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.weight.transpose(0, 1)
        assert_orthogonal(100 * weight, 1.0)


def test_priors_of_distributions_that_a_forward_returned_are_checked() -> None:
    p = torch.tensor([0.05, 0.5, 0.9])
    policy = distribution(USE, torchs.Bernoulli(probs=p.expand(7, 3)))
    check_prior(policy, USE, p)
    with pytest.raises(
        ConfigError,
        match=r"of head 'use' to \[0\.5, 0\.5, 0\.9\], but the policy's are \[0\.05, 0\.5",
    ):
        check_prior(policy, USE, [0.5, 0.5, 0.9], name="use")
    check_prior(policy, USE, [0.08, 0.5, 0.9])
    with pytest.raises(ConfigError, match="but the policy's are"):
        check_prior(policy, USE, [0.08, 0.5, 0.9], tolerance=0.01)
    sequence = distribution(MOVE, torch.zeros(2, 5, 4))
    check_prior(sequence, MOVE, [0.25] * 4)


def test_a_prior_is_compared_with_the_mean_over_the_batch() -> None:
    half = torch.tensor([[10.0, -10.0], [-10.0, 10.0]])
    choice = Space((2,), INT, discrete=True)
    check_prior(distribution(choice, half), choice, [0.5, 0.5])


@pytest.mark.parametrize(
    ("space", "prior", "match"),
    [
        (MOVE, [0.5, 0.5], r"\[0\.5, 0\.5\]; Discrete\(4\) needs 4 probabilities, above 0"),
        (MOVE, [0.4, 0.4, 0.4, 0.4], "with the sum 1"),
        (MOVE, [0.5, 0.5, 0.5, -0.5], "above 0"),
        (MOVE, [0.5, 0.5, 0.0, 0.0], "above 0"),
        (MOVE, [math.nan, 0.5, 0.25, 0.25], "4 probabilities"),
        (MOVE, 0.25, "4 probabilities"),
        (MOVE, "0.25", "4 probabilities"),
        (CRAFT, [0.2] * 5, r"MultiDiscrete\(\[3, 2\]\) needs lists of 3 probabilities and 2 prob"),
        (CRAFT, [[0.5, 0.5], [0.3, 0.3, 0.4]], "lists of 3 probabilities and 2"),
        (CRAFT, [[0.5, 0.2, 0.2], [0.5, 0.5]], "above 0 and each with the sum 1"),
        (USE, [0.5, 0.5], r"MultiBinary\(3\) needs one probability between 0 and 1, or 3 of them"),
        (USE, 1.0, "between 0 and 1"),
        (USE, [0.5, 0.5, 0], "between 0 and 1"),
        (USE, {"a": 1}, "between 0 and 1"),
        (Space((2,)), [0.5, 0.5], r"head 'use' is Box\(2,\), with numbers: leave it out"),
    ],
)
def test_a_prior_that_is_none_is_refused(space: Space, prior: Any, match: str) -> None:
    layer = nn.Linear(2, space.n)
    before = layer.bias.clone()
    with pytest.raises(ConfigError, match=match) as error:
        set_head_bias(layer, space, prior, name="use")
    assert "'use'" in str(error.value)
    assert torch.equal(layer.bias, before)


@pytest.mark.parametrize(
    "layer", [nn.Linear(2, 4, bias=False), nn.Linear(2, 5), nn.ReLU(), nn.LayerNorm(4), None]
)
def test_a_layer_that_does_not_give_the_logits_is_refused(layer: Any) -> None:
    with pytest.raises(ConfigError, match="a linear layer with a bias and 4 outputs at the end"):
        set_head_bias(layer, MOVE, [0.25] * 4)


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=12))
def test_logits_of_a_prior_have_its_probabilities(weights: list[float]) -> None:
    prior = [weight / sum(weights) for weight in weights]
    space = Space((len(prior),), INT, discrete=True)
    assert prior_logits(space, prior).softmax(0).tolist() == pytest.approx(prior, rel=1e-4)
    switches = Space((len(prior),), INT, discrete=True, binary=True)
    if max(prior) < 0.999:
        assert prior_logits(switches, prior).sigmoid().tolist() == pytest.approx(prior, rel=1e-4)
