"""Transformer layers, built from torch's own."""

from __future__ import annotations

from torch import nn

from ...replay import ConfigError


def transformer(block: str, width: int, depth: int, heads: int) -> nn.TransformerEncoder:
    """Self-attention over tokens `[B, N, width]`, normalised before each layer and at the end.

    Source: Vaswani et al. (2017), arXiv 1706.03762; norms as in Xiong et al. (2020, arXiv 2002.04745),
    which needs no warm-up of the learning rate.

    Raises:
        ConfigError: If `width` is not a multiple of `heads`.
    """
    if width % heads:
        raise ConfigError(f"{block}: width={width} must be a multiple of heads={heads}.")
    layer = nn.TransformerEncoderLayer(
        *(width, heads, 4 * width),
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    layers = nn.TransformerEncoder(
        layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False
    )
    # nn.TransformerEncoder deep-copies its layer: without this, all layers would start with equal weights.
    for weight in layers.parameters():
        if weight.dim() > 1:
            nn.init.xavier_uniform_(weight)
    return layers
