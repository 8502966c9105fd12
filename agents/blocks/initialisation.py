"""Initial weights, and the initial action probabilities of a policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import ConfigError, Space
from ..policy.spaces import gymnasium_name

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_GATES = {nn.RNN: 1, nn.RNNCell: 1, nn.GRU: 3, nn.GRUCell: 3, nn.LSTM: 4, nn.LSTMCell: 4}
_BIASES = ("bias", "in_proj_bias")
METHODS = ("orthogonal", "xavier", "kaiming")


@torch.no_grad()
def initialise(module: nn.Module, how: str) -> None:
    """Initialise a module's weights; biases are 0, those of an LSTM's forget gates 1.

        orthogonal  W W^T = 2 I or W^T W = 2 I (Saxe et al., 2013, arXiv 1312.6120)
        xavier      U(-b, b), b^2 = 6 / (fan_in + fan_out) (Glorot & Bengio, 2010)
        kaiming     N(0, 2 / fan_in) (He et al., 2015, arXiv 1502.01852)

    Applies to linear layers, convolutions, recurrent layers, embeddings and attention. The gain sqrt(2)
    for hidden layers follows Andrychowicz et al. (2020), arXiv 2006.05990. The matrices of a recurrent
    layer are drawn gate by gate, and those of attention separately for queries, keys and values; neither
    they nor embeddings, whose outputs no ReLU halves, have the gain. Other layers, such as norms, and
    parameters outside of layers are unchanged. Shared weights are drawn once.

    Args:
        module: Initialised in place.
        how: One of `METHODS`.

    Raises:
        ConfigError: If `how` is unknown, or a lazy layer has no shapes yet.
    """
    if how not in METHODS:
        raise ConfigError(f"There is no initialisation `{how}`. There are {', '.join(METHODS)}.")
    lazy = [
        name for name, p in module.named_parameters() if isinstance(p, nn.UninitializedParameter)
    ]
    if lazy:
        raise ConfigError(
            f"The lazy parameters {', '.join(lazy)} have no shapes yet: run one batch through the module "
            "before its weights are initialised."
        )
    done: set[int] = set()
    for layer in module.modules():
        for weight, parts, inside in _weights(layer):
            if id(weight) in done:
                continue
            done.add(id(weight))
            for part in weight.chunk(parts):
                _draw(_out_first(layer, part), how, math.sqrt(2) if inside else 1.0)
        for bias in _biases(layer):
            bias.zero_()
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.padding_idx is not None:
            layer.weight[layer.padding_idx] = 0
        if isinstance(layer, nn.LSTM | nn.LSTMCell):
            for name, bias in layer.named_parameters(recurse=False):
                if name.startswith("bias_ih"):  # Its twin bias_hh is added to it.
                    bias.chunk(4)[1].fill_(1.0)


def set_head_bias(
    layer: nn.Module | None,
    space: Space,
    prior: object,
    *,
    name: str = "action",
    gain: float = 0.01,
) -> None:
    """Make the layer that computes an action's logits start with these action probabilities.

    The bias is set to their logits. The weight is redrawn, orthogonal and so small that the input hardly
    matters, as Andrychowicz et al. (2020), arXiv 2006.05990, advise for policies.

    Args:
        layer: A linear layer or a convolution with as many outputs as `space` has logits.
        space: Space of the action.
        prior: For Discrete(n), n probabilities; for MultiDiscrete, one such list per part; for MultiBinary,
            the probability of a 1, or one for each of its numbers.
        name: The action's name in errors.

    Raises:
        ConfigError: If the prior does not fit the space, the space has no probabilities, or the layer does
            not compute the logits.
    """
    logits = prior_logits(space, prior, name)
    bias = getattr(layer, "bias", None)
    weight = getattr(layer, "weight", None)
    if (
        not isinstance(layer, (nn.Linear, *_CONVOLUTIONS))
        or not isinstance(bias, Tensor)
        or not isinstance(weight, Tensor)
        or len(bias) != len(logits)
    ):
        raise ConfigError(
            f"head_bias needs a linear layer with a bias and {len(logits)} outputs at the end of head "
            f"{name!r}, but found {layer}. End the policy with such a layer, or leave out head_bias."
        )
    with torch.no_grad():
        _draw(_out_first(layer, weight), "orthogonal", gain)
        bias.copy_(logits)


def check_prior(
    policy: Distribution,
    space: Space,
    prior: object,
    *,
    name: str = "action",
    tolerance: float = 0.05,
) -> None:
    """Check that a policy's mean action probabilities over a batch match the prior.

    Args:
        policy: A batch `[B]` of distributions over actions of `space`, as `distribution` returns it.
        prior: As in `set_head_bias`.
        tolerance: Largest allowed difference of a probability, a float in [0, 1].

    Raises:
        ConfigError: If they differ by more; it states the probabilities found.
    """
    expected = probabilities(space, prior_logits(space, prior, name))
    with torch.no_grad():
        logits = _logits_of(policy).float()
        found = probabilities(space, logits).reshape(-1, space.n).mean(0).cpu()
    if not bool(((found - expected).abs() <= tolerance).all()):
        raise ConfigError(
            f"head_bias sets the probabilities of head {name!r} to {_rounded(expected)}, but the policy's "
            f"are {_rounded(found)}. Let the policy return its last layer's output unchanged, and keep "
            "that layer's inputs at a scale of about 1; or leave out head_bias."
        )


def prior_logits(space: Space, prior: object, name: str = "action") -> Tensor:
    """The logits `[n]` of these probabilities; see `set_head_bias`.

    Raises:
        ConfigError: If they do not fit the space; it states what would.
    """
    if hasattr(prior, "tolist"):
        prior = prior.tolist()
    if not space.discrete:
        raise ConfigError(
            f"head_bias needs probabilities, but head {name!r} is {gymnasium_name(space)}, with numbers: "
            "leave it out there."
        )
    if space.binary:
        listed = [prior] * space.n if _is_number(prior) else prior
        p = _shares(listed, space.n, strictly=True)
        if p is None:
            raise ConfigError(
                f"head_bias of head {name!r} is {prior!r}; {gymnasium_name(space)} needs one probability "
                f"between 0 and 1, or {space.n} of them."
            )
        return p.logit().float()
    counts = space.nvec or (space.n,)
    parts = prior if space.nvec else [prior]
    p_parts = []
    if _is_list(parts) and len(parts) == len(counts):
        p_parts = [_shares(part, n) for part, n in zip(parts, counts, strict=True)]
    if not p_parts or any(p is None or abs(float(p.sum()) - 1) > 1e-3 for p in p_parts):
        lists = " and ".join(f"{n} probabilities" for n in counts)
        raise ConfigError(
            f"head_bias of head {name!r} is {prior!r}; {gymnasium_name(space)} needs "
            f"{'lists of ' if space.nvec else ''}{lists}, above 0 and{' each' if space.nvec else ''} "
            "with the sum 1."
        )
    return torch.cat([(p / p.sum()).log() for p in p_parts if p is not None]).float()


def probabilities(space: Space, logits: Tensor) -> Tensor:
    """Probabilities of every action, `[..., n]`, from logits `[..., n]` of a discrete space."""
    if space.binary:
        return logits.sigmoid()
    parts = logits.split(space.nvec or (space.n,), -1)
    return torch.cat([part.softmax(-1) for part in parts], -1)


def _weights(layer: nn.Module) -> list[tuple[Tensor, int, bool]]:
    """A layer's matrices: each with the number of stacked blocks, and whether a ReLU may follow.

    The first dimension is the output's, except in transposed convolutions.
    """
    own = dict(layer.named_parameters(recurse=False))  # Not what weight norm and the like compute.
    if isinstance(layer, nn.Linear):
        return [(own[name], 1, True) for name in own if name == "weight"]
    if isinstance(layer, _CONVOLUTIONS):
        return [(own[name], layer.groups, True) for name in own if name == "weight"]
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return [(own[name], 1, False) for name in own if name == "weight"]
    if isinstance(layer, nn.MultiheadAttention):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [(own[n], 3 if n == names[0] else 1, False) for n in own if n in names]
    for kind, gates in _GATES.items():
        if not isinstance(layer, kind):
            continue
        # weight_hr projects an LSTM's output: one matrix, not one per gate.
        return [
            (own[n], 1 if n.startswith("weight_hr") else gates, False)
            for n in own
            if n.startswith("weight")
        ]
    return []


def _out_first(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight as `[out, in, ...]`."""
    return weight.transpose(0, 1) if isinstance(layer, _TRANSPOSED) else weight


def _biases(layer: nn.Module) -> list[Tensor]:
    if not isinstance(layer, (nn.Linear, *_CONVOLUTIONS, nn.MultiheadAttention, *_GATES)):
        return []
    own = layer.named_parameters(recurse=False)
    return [
        bias for name, bias in own if name.startswith(("bias_ih", "bias_hh")) or name in _BIASES
    ]


def _draw(weight: Tensor, how: str, gain: float) -> None:
    """Fill `[out, in, ...]`; computed in float32, since half precision has no QR decomposition."""
    drawn = torch.empty(weight.shape, device=weight.device)
    if how == "orthogonal":
        nn.init.orthogonal_(drawn, gain)
    elif how == "xavier":
        nn.init.xavier_uniform_(drawn)
    else:
        nn.init.normal_(drawn, 0, gain / math.sqrt(drawn[0].numel()))
    weight.copy_(drawn)


def _logits_of(policy: Any) -> Tensor:
    """Logits `[..., n]` of a discrete policy."""
    if hasattr(policy, "log_p"):
        return policy.log_p
    if hasattr(policy, "parts"):
        return torch.cat([part.log_p for part in policy.parts], -1)
    return policy.logits


def _shares(given: Any, n: int, *, strictly: bool = False) -> Tensor | None:
    """n probabilities, float64 `[n]`, above 0 (with `strictly`, below 1 too); None if they are not."""
    if not _is_list(given) or len(given) != n or not all(_is_number(p) for p in given):
        return None
    p = torch.tensor([float(share) for share in given], dtype=torch.float64)
    right = (p > 0) & ((p < 1) if strictly else (p <= 1))
    return p if bool(right.all()) else None


def _is_list(given: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and math.isfinite(given)


def _rounded(p: Tensor) -> list[float]:
    return [round(share, 3) for share in p.tolist()]
