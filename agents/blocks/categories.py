"""Embeddings of the categories of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...replay import Space

_WIDTH = 8  # Width of each column's embedding.
# Share of ids that are replaced by 0, the id of values that training rows lack, so that its embedding is
# learnt: that of an average row.
_UNKNOWN = 0.01


class Categories(nn.Module):
    """Maps the ids in K columns of categories, int64 `[B, K]`, to their embeddings, `[B, out_features]`.

    Every column has embeddings of its own. They are rows of one matrix: K lookups in one are faster than
    one in each of K.

    Source: Gorishniy et al. (2021), Revisiting Deep Learning Models for Tabular Data, section 3.2.

    Args:
        space: Space of the ids; `nvec` holds the number of ids in each column, from 0.

    Attributes:
        out_features: Width of the output.

    >>> columns = Categories(Space((2,), torch.int64, 0, 3, ids=4, nvec=(4, 3)))
    >>> columns(torch.tensor([[3, 0], [1, 2]])).shape
    torch.Size([2, 16])
    """

    first: Tensor

    def __init__(self, space: Space):
        super().__init__()
        sizes = torch.tensor(space.nvec)
        # Where the rows of each column begin, int64 [K].
        self.register_buffer("first", sizes.cumsum(0) - sizes)
        self.embedding = nn.Embedding(int(sizes.sum()), _WIDTH)
        # As the paper's code does: torch's normal numbers would outweigh those of other columns.
        nn.init.uniform_(self.embedding.weight, -(_WIDTH**-0.5), _WIDTH**-0.5)
        self.out_features = _WIDTH * len(sizes)

    def forward(self, obs: Tensor) -> Tensor:
        if self.training:
            obs = obs * (torch.rand(obs.shape, device=obs.device) >= _UNKNOWN)
        return self.embedding(obs + self.first).flatten(1)
