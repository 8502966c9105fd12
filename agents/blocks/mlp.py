"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...replay import ConfigError


class MLP(nn.Sequential):
    """Linear layers over the flattened observation, `[B, ...]` to `[B, out_features]`.

    Args:
        in_features: Numbers in one observation; inputs are float32 `[B, ...]`, flattened.
        out_features: Width of the output, float32 `[B, out_features]`, without an activation.
        hidden: Widths of the hidden layers, ints from 1; a single int is one layer.
        activation: Activation after each of them: a module class, or its name in `torch.nn`.

    Raises:
        ConfigError: If torch has no activation of that name.

    >>> MLP(6, 2, hidden=(16,))(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] | int = (256, 256),
        activation: type[nn.Module] | str = nn.ReLU,
    ):
        layers: list[nn.Module] = [nn.Flatten()]
        width = in_features
        follow = _layer(activation)
        for size in [hidden] if isinstance(hidden, int) else hidden:
            layers += [nn.Linear(width, size), follow()]
            width = size
        super().__init__(*layers, nn.Linear(width, out_features))

    def forward(self, obs: Tensor) -> Tensor:
        # An observation that is a single number comes as [B].
        return super().forward(obs if obs.dim() > 1 else obs[:, None])


def _layer(activation: type[nn.Module] | str) -> type[nn.Module]:
    if not isinstance(activation, str):
        return activation
    found = getattr(nn, activation, None)
    if not (isinstance(found, type) and found.__module__ == "torch.nn.modules.activation"):
        raise ConfigError(
            f"MLP: torch.nn has no activation `{activation}`. There are ReLU, Tanh, GELU, SiLU and others."
        )
    return found
