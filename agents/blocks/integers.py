"""Integers as features: of each what it is as an id, and what it is as a number."""

from __future__ import annotations

import math
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import ConfigError, Space
from ..policy.spaces import positive

_WIDTH = 16  # Of an embedding.
# Embeddings that begin at torch's usual size say something by chance, which has to be unlearnt first: of
# rows in which one token decides, a small network then learns little in ten epochs.
_BEGIN, _BAG = 0.01, 5.0
_DROPOUT = 0.5  # Of what stands at each place, which is most of the features: else they are learnt by heart.
_ROWS = 65_521  # Rows of the embedding at most, a prime: beyond, several ids share a row.
_STATES = (
    524_287  # And of an environment's states, which all have rows of their own where they can.
)
_PLACES = 64  # Places with an embedding of their own at most; beyond, neighbours share one.


class Integers(nn.Module):
    """Integers `[B, *shape]` int64 to features `[B, out_features]`, for layers that know nothing of them.

    Nobody says whether they are words of a text, categories, or amounts. So there are all three: every
    value as a number, at zero mean and unit variance; the sum of the embeddings, which is what a text is
    about wherever its words are; and the embedding at each place, for what depends on it.

    Args:
        space: Of the inputs, int64 `[B, *shape]` from 0 to `ids` - 1.

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
    """Ids of an environment, `[B, *shape]` int64, to their embeddings side by side, `[B, out_features]`.

    Of choices that are too many for one-hot rows. What an id means is all there is to know of it: unlike
    the integers of a data set, they are not amounts.

    Args:
        space: Of the observations, int64 `[B, *shape]` from 0 to `ids` - 1.

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
        space: Of the inputs, with their statistics.
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
    """An encoder of ours or of a library for images, given integers as numbers; a user's own as it is.

    Raises:
        ConfigError: If they are an environment's ids, which are no numbers.
    """
    libraries = (__name__.rpartition(".")[0], "torchvision.", "timm.")
    if isinstance(space, dict) or space.ids is None:
        return encoder
    if not type(encoder).__module__.startswith(libraries):
        return encoder
    if space.mean is None:
        raise ConfigError(
            f"encoder={type(encoder).__name__} takes numbers, and observations are ids of "
            f"{space.ids:,} choices. Leave encoder= out, which embeds them, or give a module that does."
        )
    return nn.Sequential(Numbers(space), encoder)
