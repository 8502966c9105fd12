"""Features of integers, both as ids and as numbers."""

from __future__ import annotations

import math
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import ConfigError, Space
from ..policy.spaces import positive

_WIDTH = 16  # Of an embedding.
# Embeddings initialised at torch's usual scale carry random information that has to be unlearnt first: on
# rows where a single token decides, a small network then learns little in ten epochs.
_BEGIN, _BAG = 0.01, 5.0
# Of what stands at each place, which is most of the features: else they are learnt by heart.
_DROPOUT = 0.5
_ROWS = 65_521  # Rows of the embedding at most, a prime: beyond, several ids share a row.
_STATES = (
    524_287  # And of an environment's states, which all have rows of their own where they can.
)
_PLACES = 64  # Places with an embedding of their own at most; beyond, neighbours share one.


class Integers(nn.Module):
    """Integers `[B, *shape]` int64 to features `[B, out_features]`, for layers that need floats.

    The data does not say whether they are words of a text, categories, or amounts. So all three views are
    included: every value as a number, at zero mean and unit variance; the sum of the embeddings, a bag of
    words; and the embedding at each position, for what depends on the position.

    Args:
        space: Space of the inputs, int64 `[B, *shape]` from 0 to `ids` - 1.

    Attributes:
        out_features: Width of the output.
    """

    def __init__(self, space: Space):
        super().__init__()
        assert space.ids is not None
        self.low = int(space.low)  # type: ignore[arg-type]
        self.rows = max(1, min(space.ids - self.low, _ROWS))
        self.embedding = nn.Embedding(self.rows, _WIDTH)
        nn.init.normal_(self.embedding.weight, std=_BEGIN)
        self.dropout = nn.Dropout(_DROPOUT)
        self.numbers = Numbers(space)
        length = prod(space.shape)
        self.places = min(length, _PLACES)
        self.out_features = length + _WIDTH * (1 + self.places)

    def forward(self, obs: Tensor) -> Tensor:
        flat = obs.flatten(1) if obs.dim() > 1 else obs[:, None]
        vectors = self.embedding((flat - self.low).remainder(self.rows))  # [B, n, width]
        bag = vectors.sum(1) * (_BAG / math.sqrt(vectors.shape[1]))
        if vectors.shape[1] > self.places:
            vectors = F.adaptive_avg_pool1d(vectors.mT, self.places).mT
        places = self.dropout(vectors.flatten(1))
        return torch.cat([self.numbers(obs).flatten(1), bag, places], 1)


class Lookup(nn.Module):
    """An environment's ids, int64 `[B, *shape]`, to their concatenated embeddings, `[B, out_features]`.

    For spaces with too many choices for one-hot rows. Unlike the integers of a data set, these ids are
    never amounts.

    Args:
        space: Space of the observations, int64 `[B, *shape]` from 0 to `ids` - 1.

    Attributes:
        out_features: Width of the output.
    """

    def __init__(self, space: Space):
        super().__init__()
        assert space.ids is not None
        self.rows = min(space.ids, _STATES)
        self.embedding = nn.Embedding(self.rows, _WIDTH)
        self.out_features = _WIDTH * prod(space.shape)

    def forward(self, obs: Tensor) -> Tensor:
        return self.embedding(obs.remainder(self.rows)).reshape(len(obs), self.out_features)


class Numbers(nn.Module):
    """Integers `[B, *shape]` as numbers: float32 of the same shape at zero mean and unit variance.

    Args:
        space: Space of the inputs, int64 `[B, *shape]`, with their mean and standard deviation.
    """

    base: Tensor
    mean: Tensor
    stddev: Tensor

    def __init__(self, space: Space):
        super().__init__()
        mean, stddev = torch.as_tensor(space.mean), positive(torch.as_tensor(space.stddev))
        if len(space.shape) == 3:
            mean, stddev = mean[:, None, None], stddev[:, None, None]
        # Whole numbers are exact as long as they are whole.
        self.register_buffer("base", mean.round().long())
        self.register_buffer("mean", mean - mean.round())
        self.register_buffer("stddev", stddev.clone())

    def forward(self, obs: Tensor) -> Tensor:
        out = ((obs - self.base).float() - self.mean) / self.stddev
        return out if out.dim() > 1 else out[:, None]


def fit_to_integers(encoder: nn.Module, space: Space | dict[str, Space]) -> nn.Module:
    """An encoder adapted to integers as numbers, if it is ours or a library's; the user's own unchanged.

    Raises:
        ConfigError: If the observations are an environment's ids, which are not numbers.
    """
    libraries = (__name__.rpartition(".")[0], "torchvision.", "timm.")
    if isinstance(space, dict) or space.ids is None:
        return encoder
    if not type(encoder).__module__.startswith(libraries):
        return encoder
    if space.mean is None:
        raise ConfigError(
            f"encoder={type(encoder).__name__} needs numbers, but observations are ids of "
            f"{space.ids:,} choices. Leave out encoder=, and they are embedded; or pass a module that "
            "embeds them."
        )
    return nn.Sequential(Numbers(space), encoder)
